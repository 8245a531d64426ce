"""One key for a lease, ever; what has sealed goes on to."""

from base64 import b64encode
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from candy.protocol.control import Peer, State
from candy.protocol.keys import fingerprint
from candy.sealing.pins import NO_KEY, PINS_MOST, Pins

IP, ELSEWHERE = IPv4Address("10.0.0.2"), IPv4Address("10.0.0.9")
LEASE, KEY, OTHER = bytes([1]) * 8, bytes([2]) * 32, bytes([3]) * 32
SEALS = Peer(IP, State.SEALS, lease=LEASE, key=KEY)


def test_another_key_for_a_lease_is_doubted() -> None:
    pins = Pins()
    assert pins.doubt(SEALS) is None
    pins.pin(LEASE, KEY, IP)
    assert pins.doubt(SEALS) is None
    assert pins.doubt(replace(SEALS, lease=bytes(8), key=OTHER)) is None
    for at in range(32):
        changed = KEY[:at] + bytes([KEY[at] ^ 128]) + KEY[at + 1 :]
        doubt = pins.doubt(replace(SEALS, key=changed))
        assert doubt == f"its key should be {fingerprint(changed)}, but it was {fingerprint(KEY)}"


def test_that_what_has_sealed_does_not_is_doubted() -> None:
    pins = Pins()
    clear = Peer(IP, State.CLEAR, lease=LEASE)
    pins.pin(LEASE, KEY, IP)
    assert pins.doubt(clear) is None
    pins.pin(LEASE, KEY, IP, has_sealed=True)
    assert pins.doubt(clear) == f"it has sealed before with the key {fingerprint(KEY)}, and now it should not"
    # It is never taken back.
    pins.pin(LEASE, KEY, IP)
    assert pins.has_sealed(LEASE)
    assert not pins.has_sealed(bytes(8))


@pytest.mark.parametrize("state", [State.NOBODY, State.REVOKED, State.AWAY])
def test_who_is_not_there_is_believed(state: State) -> None:
    pins = Pins()
    pins.pin(LEASE, KEY, IP, has_sealed=True)
    assert pins.doubt(replace(SEALS, state=state, key=OTHER)) is None


def test_a_lease_without_a_key_gets_one() -> None:
    pins = Pins(b64encode(LEASE + NO_KEY + b"\0" + bytes(4)))
    assert pins.doubt(SEALS) is None


def test_what_was_forgotten_is_believed() -> None:
    pins = Pins()
    pins.pin(LEASE, KEY, IP, has_sealed=True)
    pins.encode()
    pins.forget(LEASE)
    assert pins.is_changed
    assert pins.doubt(replace(SEALS, key=OTHER)) is None
    pins.encode()
    pins.forget(LEASE)
    assert not pins.is_changed


def test_the_file() -> None:
    pins = Pins()
    assert not pins.is_changed
    pins.pin(LEASE, KEY, IP)
    pins.pin(bytes(8), OTHER, ELSEWHERE, has_sealed=True)
    assert pins.is_changed
    lines = [LEASE + KEY + b"\0" + IP.packed, bytes(8) + OTHER + b"\1" + ELSEWHERE.packed]
    text = b"".join(b64encode(line) + b"\n" for line in lines)
    assert pins.encode() == text
    assert not pins.is_changed
    # What is used is at the end; that alone is no reason to write.
    pins.pin(LEASE, KEY, IP)
    assert not pins.is_changed
    first, second = text.splitlines(keepends=True)
    assert pins.encode() == second + first
    again = Pins(text)
    assert (again.encode(), again.damaged, again.is_changed) == (text, 0, False)


@pytest.mark.parametrize("line", [b"", b"x", b64encode(bytes(44)), b64encode(bytes(46)), b"\xff" * 60, b"AAAA AAAA"])
def test_a_damaged_line_costs_itself(line: bytes) -> None:
    good = b64encode(LEASE + KEY + b"\1" + IP.packed)
    pins = Pins(line + b"\n" + good + b"\n")
    assert (len(pins), pins.damaged) == (1, 1)
    assert pins.has_sealed(LEASE)


def test_flags_of_a_later_candy_are_no_damage() -> None:
    assert Pins(b64encode(LEASE + KEY + b"\3" + bytes(4))).has_sealed(LEASE)
    assert not Pins(b64encode(LEASE + KEY + b"\2" + bytes(4))).has_sealed(LEASE)


def test_the_one_used_longest_ago_goes_first() -> None:
    pins = Pins()
    for number in range(PINS_MOST):
        pins.pin(number.to_bytes(8, "big"), KEY, IP + number, has_sealed=True)
    pins.pin(bytes(8), KEY, IP)
    pins.pin(PINS_MOST.to_bytes(8, "big"), KEY, IP + PINS_MOST)
    assert len(pins) == PINS_MOST == 4096
    assert pins.has_sealed(bytes(8))
    assert not pins.has_sealed((1).to_bytes(8, "big"))
    again = Pins(b64encode(LEASE + KEY + b"\1" + bytes(4)) + b"\n" + pins.encode())
    assert len(again) == PINS_MOST
    assert not again.has_sealed(LEASE)


def test_who_was_last_at_an_address() -> None:
    pins = Pins()
    pins.pin(LEASE, KEY, IP)
    pins.pin(bytes(8), OTHER, IP)
    assert pins.at(IP) == (bytes(8), OTHER)
    pins = Pins(pins.encode())
    assert pins.at(IP) == (bytes(8), OTHER)
    # It has moved.
    pins.pin(bytes(8), OTHER, ELSEWHERE)
    assert (pins.at(IP), pins.at(ELSEWHERE)) == (None, (bytes(8), OTHER))
    pins.pin(LEASE, KEY, IP)
    pins.forget(bytes(8))
    assert pins.at(ELSEWHERE) is None
    pins.encode()
    pins.leave(IP)
    assert pins.is_changed
    assert pins.at(IP) is None
    assert Pins(pins.encode()).at(IP) is None
    assert pins.doubt(replace(SEALS, key=OTHER)) is not None
