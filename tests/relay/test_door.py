"""Unauthenticated connections, at a relay as users start it: a deadline from the start."""

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from lab.member import Member, everything, upgrade_request
from lab.programs import PATIENCE_S, RelayProgram

pytestmark = pytest.mark.usefixtures("nobody_else_is_disturbed")

QUICK_S = "1.5"
"""The relay's --auth-timeout. Whatever has to be done within it is done in one go before."""


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProgram]:
    """One with little patience."""
    with RelayProgram(tmp_path_factory.mktemp("relay"), "--auth-timeout", QUICK_S) as relay:
        yield relay


def connect(relay: RelayProgram) -> socket.socket:
    return socket.create_connection(relay.address, PATIENCE_S)


@pytest.mark.parametrize(
    "said", [b"", b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: relay\r\nX-", upgrade_request()[:-1]]
)
def test_a_half_open_connection_is_ended(relay: RelayProgram, said: bytes) -> None:
    with connect(relay) as opened:
        opened.sendall(said)
        assert everything(opened) == b""


def test_an_answered_request_buys_no_more_time(relay: RelayProgram) -> None:
    with connect(relay) as opened:
        opened.sendall(b"POST / HTTP/1.1\r\nHost: relay\r\nContent-Length: 1000000\r\n\r\n")
        assert everything(opened).startswith(b"HTTP/1.1 426 ")


def test_whoever_upgrades_and_is_silent_is_ended_without_a_word(relay: RelayProgram) -> None:
    start = len(relay.lines)
    with Member.connect(relay.address) as member:
        assert member.end() is None
    relay.wait_for("did not authenticate in time", start)


def test_pings_buy_no_time(relay: RelayProgram) -> None:
    with Member.connect(relay.address) as member:
        for number in range(10):
            member.send(b"%d" % number, 9)
        assert member.end() is None


def test_an_address_that_was_granted_and_not_taken_is_free_again(relay: RelayProgram) -> None:
    with Member.connect(relay.address) as member:
        granted = member.ask("192.168.202.77/24")
        assert str(granted.ip) == "192.168.202.77"
        assert member.end() is None
    with Member.connect(relay.address) as member:
        assert member.ask("192.168.202.77/24") == granted


def test_whoever_authenticated_stays(relay: RelayProgram) -> None:
    with Member.connect(relay.address).log_in("192.168.202.78") as member, Member.connect(relay.address) as silent:
        # Its time ends later than the member's would have.
        assert silent.end() is None
        member.settle()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 100,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"\xff" * 10_000 + b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: relay\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: relay\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: relay\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        upgrade_request()[:-2] + b"\x82\x80\x00\x00\x00\x00\r\n\r\n",
    ],
)
def test_garbage_instead_of_http(relay: RelayProgram, garbage: bytes) -> None:
    with connect(relay) as opened:
        opened.sendall(garbage)
        received = everything(opened)
    assert received == b"" or received.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 ")), received


@pytest.mark.parametrize("more", [b"X-Header: " + b"a" * 100 + b"\r\n", b"a" * 1000])
def test_endless_headers(relay: RelayProgram, more: bytes) -> None:
    """Many header lines, and one that never ends: both are refused long before memory is a question."""
    with connect(relay) as opened:
        opened.sendall(b"GET / HTTP/1.1\r\nHost: relay\r\nX-Long: ")
        sent = 0
        with pytest.raises(OSError, match=r"Broken pipe|reset"):  # noqa: PT012
            while sent < 64 << 20:
                sent += opened.send(more)
    assert sent < 16 << 20


def test_loopback_is_not_counted(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A reverse proxy sits there, and all members share it. (Other sources: netns/test_sources.py.)"""
    with ExitStack() as stack:
        relay = stack.enter_context(RelayProgram(tmp_path_factory.mktemp("relay"), "--unauthenticated-per-source", "2"))
        members = [stack.enter_context(Member.connect(relay.address)) for _ in range(10)]
        assert len({member.ask() for member in members}) == 10


def test_connections_that_are_reset_without_a_word(relay: RelayProgram) -> None:
    """As a port scanner leaves them."""
    for _ in range(500):
        with connect(relay) as opened:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with Member.connect(relay.address) as member:
        member.log_in("192.168.202.60")
