"""Unauthenticated connections, at a relay as users start it: a deadline from the start."""

import select
import signal
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme
from lab.member import Member, Speaker, everything, frame, upgrade_request
from lab.programs import PATIENCE_S, RelayProgram, connect

from candy.protocol import wire

pytestmark = [pytest.mark.carriers, pytest.mark.usefixtures("nobody_else_is_disturbed")]

QUICK_S = "1.5"
"""The relay's --auth-timeout. Whatever has to be done within it is done in one go before."""


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory, certified: trustme.CA | None) -> Iterator[RelayProgram]:
    """One with little patience."""
    with RelayProgram(tmp_path_factory.mktemp("relay"), "--auth-timeout", QUICK_S, authority=certified) as relay:
        yield relay


@pytest.mark.parametrize(
    "said", [b"", b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: relay\r\nX-", upgrade_request()[:-1]]
)
def test_a_half_open_connection_is_ended(relay: RelayProgram, said: bytes) -> None:
    with connect(relay.address) as opened:
        opened.sendall(said)
        assert everything(opened) == b""


def test_an_answered_request_buys_no_more_time(relay: RelayProgram) -> None:
    with connect(relay.address) as opened:
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
    with connect(relay.address) as opened:
        opened.sendall(garbage)
        received = everything(opened)
    assert received == b"" or received.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 ")), received


@pytest.mark.parametrize("more", [b"X-Header: " + b"a" * 100 + b"\r\n", b"a" * 1000])
def test_endless_headers(relay: RelayProgram, more: bytes) -> None:
    """Many header lines, and one that never ends: both are refused long before memory is a question."""
    with connect(relay.address) as opened:
        opened.sendall(b"GET / HTTP/1.1\r\nHost: relay\r\nX-Long: ")
        sent = 0
        with pytest.raises(OSError, match=r"Broken pipe|reset|EOF occurred"):  # noqa: PT012
            while sent < 64 << 20:
                sent += opened.send(more)
    assert sent < 16 << 20


def test_loopback_is_not_counted(tmp_path_factory: pytest.TempPathFactory, certified: trustme.CA | None) -> None:
    """A reverse proxy sits there, and all members share it. (Other sources: netns/test_sources.py.)"""
    with ExitStack() as stack:
        relay = stack.enter_context(
            RelayProgram(tmp_path_factory.mktemp("relay"), "--unauthenticated-per-source", "2", authority=certified)
        )
        members = [stack.enter_context(Member.connect(relay.address)) for _ in range(10)]
        assert len({member.ask() for member in members}) == 10


def test_whoever_waits_for_a_busy_relay_is_not_late(tmp_path: Path, certified: trustme.CA | None) -> None:
    """Be it with its request, or with its log-in: this one does nothing for longer than it gives its peers."""
    with RelayProgram(tmp_path, "--auth-timeout", "5", authority=certified) as relay, ExitStack() as stack:
        late = stack.enter_context(connect(relay.address))
        # Accepted later, so the other one was accepted before.
        members = [stack.enter_context(Member.connect(relay.address)) for _ in range(2)]
        relay.signal(signal.SIGSTOP)
        members[0].send(members[0].request())
        late.sendall(upgrade_request())
        time.sleep(6)
        relay.signal(signal.SIGCONT)
        assert late.recv(65536).startswith(b"HTTP/1.1 101 ")
        granted = wire.decode(members[0].receive_message())
        assert isinstance(granted, wire.Expttun)
        members[0].log_in(str(granted.address.ip))
        members[1].log_in(str(members[1].ask().ip))


def test_an_end_while_strangers_are_there(tmp_path: Path, certified: trustme.CA | None) -> None:
    with RelayProgram(tmp_path, authority=certified) as relay, ExitStack() as stack:
        for said in (b"", b"GET / HTTP/1.1\r\nHost: relay\r\nX-"):
            stack.enter_context(connect(relay.address)).sendall(said)
        stack.enter_context(Member.connect(relay.address))
        relay.signal(signal.SIGTERM)
        assert relay.wait(PATIENCE_S / 6) == 0


def forwarded(relay: RelayProgram, *headers: str) -> socket.socket:
    """A connection whose upgrade request has these headers, as a proxy writes them."""
    opened = connect(relay.address)
    opened.sendall(upgrade_request(*headers))
    assert opened.recv(65536).startswith(b"HTTP/1.1 101 ")
    return opened


def test_a_proxy_on_loopback_that_is_not_named(tmp_path: Path, certified: trustme.CA | None) -> None:
    """Its members are exempt together, and a warning says so, once."""
    with (
        RelayProgram(tmp_path, "--unauthenticated-per-source", "1", authority=certified) as relay,
        ExitStack() as stack,
    ):
        for number in range(3):
            stack.enter_context(forwarded(relay, f"X-Forwarded-For: 203.0.113.{number}"))
        with Member.connect(relay.address) as member:
            member.log_in("192.168.202.60")
        relay.wait_for("INFO 127.0.0.1: logged in as 192.168.202.60")
        [warning] = [line for line in relay.lines if "WARNING a proxy" in line]
        assert warning.endswith(
            "a proxy on this machine forwards for others, whom the limits cannot tell apart: "
            "name it by --trusted-proxy 127.0.0.1"
        )


def test_sources_behind_a_trusted_proxy(tmp_path: Path, certified: trustme.CA | None) -> None:
    flags = ["--trusted-proxy", "127.0.0.0/8", "--trusted-proxy", "::1", "--unauthenticated-per-source", "2"]
    with RelayProgram(tmp_path, *flags, authority=certified) as relay, ExitStack() as stack:
        one = [stack.enter_context(forwarded(relay, "X-Forwarded-For: 203.0.113.1")) for _ in range(2)]
        others = [stack.enter_context(forwarded(relay, f"Forwarded: for=203.0.113.{number}")) for number in (2, 3)]
        for number in (4, 5):
            others.append(stack.enter_context(forwarded(relay, f'Forwarded: for="[2001:db8:1:{number}::1]"')))
        # Not counted as silent, because the proxy's connections have no source before their requests.
        silent = [stack.enter_context(connect(relay.address)) for _ in range(5)]
        stack.enter_context(forwarded(relay, "X-Forwarded-For: 198.51.100.1, 203.0.113.1"))
        relay.wait_for("DEBUG 203.0.113.1: too many connections")
        for opened in (*others, *silent):
            opened.setblocking(False)
            with pytest.raises((BlockingIOError, ssl.SSLWantReadError)):
                opened.recv(1)
        # One of the first two had to go.
        ready = select.select(one, [], [], PATIENCE_S)[0]
        assert len(ready) == 1
        assert everything(ready[0]) == b""
        start = len(relay.lines)
        speaker = Speaker()
        opened = stack.enter_context(forwarded(relay, "X-Forwarded-For: 2001:db8:1:9::1"))
        opened.sendall(frame(speaker.auth("192.168.202.61")))
        relay.wait_for("INFO 2001:db8:1:9::1: logged in as 192.168.202.61", start)
        assert not any("WARNING a proxy" in line for line in relay.lines)


def test_connections_that_are_reset_without_a_word(relay: RelayProgram) -> None:
    """As a port scanner leaves them."""
    for _ in range(500):
        with connect(relay.address) as opened:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with Member.connect(relay.address) as member:
        member.log_in("192.168.202.60")
