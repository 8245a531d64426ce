"""CONTROL messages as they leave and arrive: sealed, counted, and what has to be within one."""

import pytest
from kit.primitives import PRIMITIVES

from candy.errors import WireError
from candy.protocol import control, wire
from candy.protocol.control import Ask, Confirm
from candy.protocol.noise import Cipher
from candy.relay.channels import Channels

ONE, OTHER = bytes([1]) * 32, bytes([2]) * 32
CONFIRM = Confirm().encode()
ROUTE = wire.Route(()).encode()
PLAIN = bytes([3]) + bytes(20)


@pytest.fixture
def channels() -> Channels:
    made = Channels(PRIMITIVES)
    made.secure(1, ONE, OTHER)
    return made


def test_what_is_the_relays_own_is_sealed(channels: Channels) -> None:
    member = Cipher(PRIMITIVES, ONE)
    for message in (ROUTE, control.Closing(4009, "out").encode(), ROUTE):
        assert control.opened(member, channels.leaving(1, message)) == message
    # What members say to each other, and the log-in.
    for message in (PLAIN, bytes([21]) + bytes(200)):
        assert channels.leaving(1, message) == message
    assert channels.leaving(2, ROUTE) == ROUTE


def test_what_arrives_in_order_opens(channels: Channels) -> None:
    member = Cipher(PRIMITIVES, OTHER)
    for message in (CONFIRM, Ask(()).encode()):
        assert channels.arrived(1, control.seal(member, message)) == (message, True)
    for message in (PLAIN, b""):
        assert channels.arrived(1, message) == (message, False)


def test_what_does_not_is_refused(channels: Channels) -> None:
    member = Cipher(PRIMITIVES, OTHER)
    first = control.seal(member, CONFIRM)
    second = control.seal(member, CONFIRM)
    for wrong in (second, first[:-1], first + b"\0", bytes([22]), CONFIRM, ROUTE):
        with pytest.raises(WireError, match="bad_control"):
            channels.arrived(1, wrong)
    assert channels.arrived(1, first) == (CONFIRM, True)
    with pytest.raises(WireError, match="bad_control"):
        channels.arrived(1, first)


@pytest.mark.parametrize("message", [CONFIRM, bytes([22]) + bytes(40)])
def test_without_keys_all_is_in_the_clear(channels: Channels, message: bytes) -> None:
    assert channels.arrived(2, message) == (message, False)
    channels.forget(1)
    channels.forget(1)
    assert not channels.has(1)
    assert channels.arrived(1, message) == (message, False)
