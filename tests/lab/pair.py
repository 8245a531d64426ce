"""Two members that behave well and exchange packets all the time, to show that nobody else is disturbed.

    with Pair(address) as pair: … what disturbs …; pair.check()

Rules: every packet has to arrive, in order, with no other between them, on the same two connections. It does not judge
how long one takes.
"""

import threading
from ipaddress import IPv4Address
from types import TracebackType
from typing import Self

from lab.member import Ended, Member, echo
from lab.programs import PATIENCE_S

PAUSE_S = 0.005
"""Between two rounds, for other things want to run as well."""


class Pair:
    """Logs in at once, from two static addresses, and then exchanges packets on a thread of its own."""

    def __init__(self, address: tuple[str, int], ips: tuple[str, str] = ("192.168.202.201", "192.168.202.202")) -> None:
        self.ips = ips
        self._members = [Member.connect(address).log_in(ip) for ip in ips]
        self._rounds = 0
        self._failure = ""
        self._changed = threading.Condition()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._exchange, name="well-behaved pair", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join(PATIENCE_S)
        for member in self._members:
            member.close()

    def check(self) -> None:
        """Wait for a whole round that begins now; fail if any packet so far was lost."""
        with self._changed:
            wanted = self._rounds + 2
            self._changed.wait_for(lambda: self._rounds >= wanted or self._failure, 2 * PATIENCE_S)
            assert not self._failure, self._failure
            assert self._rounds >= wanted, "the well-behaved pair is stuck"

    def _exchange(self) -> None:
        here, there = self._members
        own, other = self.ips
        number = 0
        while not self._end.wait(PAUSE_S):
            number = (number + 1) & 0xFFFF
            try:
                _pass(here, there, echo(own, other, number, bytes(56)))
                _pass(there, here, echo(other, own, number, bytes(56), reply=True))
            except (Ended, OSError, AssertionError) as error:
                self._failure = f"the well-behaved pair, packet {number}: {error!r}"
            with self._changed:
                self._rounds += 1
                self._changed.notify_all()
            if self._failure:
                return


def _pass(sender: Member, receiver: Member, packet: bytes) -> None:
    sender.forward(packet)
    while (arrived := receiver.receive_packet()) != packet:
        # Somebody's broadcast is not the pair's.
        assert IPv4Address(arrived[12:16]) not in {sender.ip, receiver.ip}, f"{arrived.hex()} instead of {packet.hex()}"
