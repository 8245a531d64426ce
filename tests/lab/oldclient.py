"""A client that was there before this relay, played at the wire as far as a session goes."""

import time
from ipaddress import IPv4Address

from kit.peer import CLOSE, PING, PONG
from lab.member import Member, echo

from candy.protocol import wire

HELLO = b"candy::linux::6.1.8::vm"


class OldClient(Member):
    """The original's client, or one before 2024 without a VMAC. Its timestamps never repeat for one address."""

    _last = 0

    @classmethod
    def now(cls) -> int:
        """A second that was not used yet: old clients wait for one, tests don't."""
        OldClient._last = max(OldClient._last + 1, int(time.time()))
        return OldClient._last

    def hello(self) -> None:
        """The PING right behind AUTH; its answer shows that the connection lives."""
        self.send(HELLO, PING)
        while True:
            opcode, payload = self.receive()
            assert opcode != CLOSE, payload
            if opcode == PONG:
                assert payload == HELLO
                return

    def log_in_as_original(self, vmac: bool, fixed: str | None) -> str:
        """VMAC, EXPTTUN and AUTH, as far as this client sends them, all with one timestamp; its address."""
        now = self.now()
        if vmac:
            self.send(self.greeting(now))
        ip = fixed
        if ip is None:
            self.send(self.request("0.0.0.0/0", now))
            answer = wire.decode(self.receive_message())
            assert isinstance(answer, wire.Expttun)
            ip = str(answer.address.ip)
        self.send(self.auth(ip, now))
        self.hello()
        self.ip = IPv4Address(ip)
        self.settle()
        return ip


def exchange(one: Member, other: Member) -> None:
    """A packet each way, unchanged."""
    assert one.ip is not None
    assert other.ip is not None
    for sender, receiver in ((one, other), (other, one)):
        sent = echo(str(sender.ip), str(receiver.ip), 1, b"hello")
        sender.forward(sent)
        assert receiver.receive_packet() == sent
