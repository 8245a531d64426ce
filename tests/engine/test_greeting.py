"""What Python hears of a member beside its messages: the PING by which it says who it is, and what it carried."""

import pytest
from kit.peer import BINARY, PING, PONG, EngineRelay, numbered

from candy import _fastpath

pytestmark = pytest.mark.engine

A, B = 0x0A000001, 0x0A000002
MESSAGE, GREETING = _fastpath.EVENT_MESSAGE, _fastpath.EVENT_PING
HELLO = b"candy::linux::6.1.8::vm"


@pytest.mark.parametrize("is_bound", [True, False], ids=["bound", "not bound yet"])
def test_the_first_greeting_behind_a_message_is_told_and_all_are_answered(is_bound: bool) -> None:
    """AUTH and PING come in one segment, so Python has not bound the address when the PING is read."""
    with EngineRelay() as relay:
        peer = relay.member(A) if is_bound else relay.adopt()
        peer.send(PING, HELLO)
        peer.send(BINARY, b"\x02AUTH")
        for payload in (b"another", b"", HELLO, HELLO, HELLO + b"-2"):
            peer.send(PING, payload)
        answers = [(f.opcode, f.payload) for f in peer.sync()]
        assert answers == [(PONG, payload) for payload in (HELLO, b"another", b"", HELLO, HELLO, HELLO + b"-2")]
        peer.send(BINARY, b"\x02again")
        peer.send(PING, HELLO + b"-3")
        relay.details(peer.connection, GREETING, 2)
        told = [(kind, detail) for _, kind, detail in relay.events]
        assert told == [(MESSAGE, b"\x02AUTH"), (GREETING, HELLO), (MESSAGE, b"\x02again"), (GREETING, HELLO + b"-3")]


@pytest.mark.parametrize("payload", [b"candy::", b"candy:linux", b"candy-probe:12345678", b"CANDY::linux::1::vm"])
def test_what_is_no_greeting_is_not_told(payload: bytes) -> None:
    with EngineRelay() as relay:
        peer = relay.member(A)
        peer.send(BINARY, b"\x02AUTH")
        peer.send(PING, payload)
        peer.sync()
        peer.sync()
        assert [kind for _, kind, _ in relay.engine.events()] == [MESSAGE]


def test_a_client_is_told_of_no_ping() -> None:
    with EngineRelay() as relay:
        server = relay.adopt(client=True)
        server.send(BINARY, b"\x02EXPTTUN")
        server.send(PING, HELLO)
        server.sync()
        server.sync()
        assert [kind for _, kind, _ in relay.engine.events()] == [MESSAGE]


def test_a_slot_s_next_owner_has_said_nothing() -> None:
    with EngineRelay() as relay:
        first = relay.adopt()
        first.send(BINARY, b"\x02AUTH")
        first.sync()
        first.close()
        relay.cause(first.connection)
        second = relay.adopt()
        assert second.connection & 0xFFFFFFFF == first.connection & 0xFFFFFFFF
        second.send(PING, HELLO)
        second.sync()
        second.sync()
        assert [event for event in relay.events + relay.engine.events() if event[0] == second.connection] == []


def test_a_slot_s_next_owner_has_carried_nothing() -> None:
    with EngineRelay() as relay:
        first, other = relay.member(A), relay.member(B)
        first.forward(numbered(A, B, 1))
        first.sync()
        first.close()
        relay.cause(first.connection)
        carried = relay.engine.connection_stats(first.connection)
        assert carried is not None
        assert carried["packets_in"] == 1
        second = relay.member(A)
        second.sync()
        second.close()
        relay.cause(second.connection)
        assert second.connection & 0xFFFFFFFF == first.connection & 0xFFFFFFFF
        carried = relay.engine.connection_stats(second.connection)
        assert carried is not None
        assert carried["packets_in"] == carried["packets_out"] == 0
        assert relay.engine.connection_stats(first.connection) is None
        other.sync()
