"""A relay that lies about its members' keys: what a member believes, what it sends then, and what its user is told."""

import errno
import json
import os
import signal
import sys
import time

import pytest
from kit.counterpart import Counterpart
from kit.sealing import Sealed
from lab import lying
from lab.control import sealing_of
from lab.keyed import KeyedMember, by_password, device
from lab.laboratory import PORT, Client, Laboratory
from lab.namespaces import Ethernet
from lab.programs import PATIENCE_S, Program, environment
from lab.traffic import ping, refused

from candy.protocol.control import CONTROL, Ask, Tell
from candy.protocol.handshake import HANDSHAKE
from candy.protocol.keys import fingerprint
from candy.protocol.login import Asked, Asks
from candy.protocol.noise import KeyPair
from candy.protocol.secret import Secret

pytestmark = pytest.mark.netns

TEXT = b"an inner byte"
PASSES, NOTHING_PASSES = " 0% packet loss", " 100% packet loss"


def restarted(laboratory: Laboratory, client: Client) -> Client:
    """The relay tells all who have asked about it."""
    client.signal(signal.SIGTERM)
    assert client.wait() == 0
    again = laboratory.client(host=client.host)
    assert again.connected() == client.connected()
    return again


def test_pins_hold(laboratory: Laboratory) -> None:
    """Without a secret: another key for a device that is known, or that it should not seal any more, is reported with
    both keys, and nothing is sent there until the relay tells the truth again."""
    file = laboratory.folder / "lies.json"
    argv = [sys.executable, lying.__file__, str(file), "-w", laboratory.url, "--debug"]
    with laboratory.hub:
        relay = laboratory.enter(Program("relay", argv, environment(laboratory.folder / "relay")))
    relay.wait_for(rf"listening on {Ethernet.ADDRESS}:{PORT}")
    here, there = laboratory.client(), laboratory.client()
    here.connected()
    other = there.connected()
    assert PASSES in ping(here.host, other)
    sealing, key = sealing_of(here.control, other)
    assert sealing == "sealed"
    false = device().public
    for lie, why in (
        (false.hex(), f"its key should be {fingerprint(false)}, but it was {key}"),
        (None, f"it has sealed before with the key {key}, and now it should not"),
    ):
        file.write_text(json.dumps({other: lie}))
        before, lines = relay.counters(), len(here.lines)
        there = restarted(laboratory, there)
        here.wait_for(f" WARNING .*not believed of {other}: {why}", lines)
        assert sealing_of(here.control, other) == ("key refused", None)
        assert NOTHING_PASSES in ping(here.host, other, "-W", "1")
        assert (relay.counters() - before)["packets_out"] == 0
    file.unlink()
    there = restarted(laboratory, there)
    assert PASSES in ping(here.host, other)
    assert sealing_of(here.control, other) == ("sealed", key)


class Liar:
    """The relay's own device at an address: with whom members talk there is the relay's word alone. It has no secret.

    Args:
        key: its own.
        seals: what the relay says of it.
    """

    def __init__(self, laboratory: Laboratory, key: KeyPair, *, seals: bool = True) -> None:
        with laboratory.hub:
            self.member = laboratory.stack.enter_context(KeyedMember.connect((Ethernet.ADDRESS, PORT)))
        flags = Asks.HAS_AES if seals else Asks.SEALS_NOTHING
        outcome = self.member.enter(by_password(), key, Asked(flags=flags))
        self.address = outcome.told.address.ip
        network = self.member.shown.key.network
        self._end = Counterpart(key, self.address, outcome.told.lease, network, flags=flags)

    def hear(self) -> bytes:
        """What a member sends it next."""
        while (message := self.member.receive_message())[0] == CONTROL:
            self.member.opened(message)
        return message

    def heard(self) -> list[bytes]:
        """What members have sent it since then, all of it."""
        self.member.tell(Ask((self.address,)))
        found = []
        while True:
            message = self.member.receive_message()
            if message[0] != CONTROL:
                found.append(message)
            elif isinstance(told := self.member.opened(message), Tell) and told.peers[0].address == self.address:
                return found

    def answer(self, first: bytes) -> None:
        self.member.send(self._end.answer(first))

    def opened(self, sealed: bytes) -> Sealed:
        return self._end.opened(sealed)


def test_without_a_secret_it_is_in_between(laboratory: Laboratory) -> None:
    """As docs/security.md says in plain words; so the next test shows something."""
    laboratory.relay()
    liar = Liar(laboratory, device())
    here = laboratory.client()
    here.connected()
    with here.host:
        pinging = Program("ping", ["ping", "-p", TEXT.hex(), str(liar.address)], environment(laboratory.folder))
    with pinging:
        liar.answer(liar.hear())
        # Perhaps behind the empty one that confirms, and an offer of addresses.
        while (sealed := liar.opened(liar.hear())).plain[:1] in (b"", b"\x80"):
            pass
    assert TEXT * 2 in sealed.packet


def test_with_a_secret_it_gets_nothing(laboratory: Laboratory) -> None:
    """No session, and no packet in the clear, whether it is said to seal or not to."""
    laboratory.relay()
    key = device()
    liar = Liar(laboratory, key)
    file = laboratory.folder / "secret"
    file.write_text(f"{Secret(os.urandom(32))}\n")
    file.chmod(0o600)
    here = laboratory.client("--secret", str(file))
    here.connected()
    assert NOTHING_PASSES in ping(here.host, str(liar.address), "-c", "1", "-W", "1")
    liar.answer(liar.hear())
    here.wait_for(f" WARNING .*the answer of {liar.address} does not open: it has another secret .* the relay lies")
    assert {message[0] for message in liar.heard()} <= {HANDSHAKE}
    liar.member.close()
    again = Liar(laboratory, key, seals=False)
    assert again.address == liar.address
    deadline = time.monotonic() + PATIENCE_S
    while sealing_of(here.control, str(liar.address)) != ("does not seal", None):
        assert time.monotonic() < deadline
    # An ICMP says so, to one packet in a second: the kernel tries again.
    assert refused(here.host, str(liar.address)) == errno.EHOSTUNREACH
    assert again.heard() == []
