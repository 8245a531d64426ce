"""What the relay counts by source address; loopback is exempt, so the sources are hosts of a laboratory."""

import select
import socket
import ssl
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme
from lab.laboratory import PORT, Laboratory
from lab.member import Member, everything, upgrade_request
from lab.namespaces import Host
from lab.pair import Pair
from lab.programs import PATIENCE_S, Address
from lab.tls import flags_for

pytestmark = pytest.mark.netns

ADDRESS = ("10.0.0.1", PORT)
LIMIT = 8


@pytest.fixture
def host(laboratory: Laboratory) -> Host:
    return laboratory.host()


def connect(host: Host) -> socket.socket:
    with host:
        return socket.create_connection(ADDRESS, PATIENCE_S)


def pair(laboratory: Laboratory) -> Pair:
    """On a host of its own."""
    with laboratory.host():
        return Pair(ADDRESS)


def ended(sockets: list[socket.socket]) -> list[socket.socket]:
    """Those on which there is something to read, at least one: here that is an end."""
    readable = select.select(sockets, [], [], PATIENCE_S)[0]
    assert all(everything(opened) == b"" for opened in readable)
    return readable


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_one_that_has_said_nothing_goes(
    laboratory: Laboratory, host: Host, stack: ExitStack, authority: trustme.CA, tmp_path: Path, scheme: str
) -> None:
    """Not one that has upgraded, as long as there is another. Members don't count."""
    flags = flags_for(authority, tmp_path, ADDRESS[0]) if scheme == "wss" else []
    laboratory.relay("--unauthenticated-per-source", str(LIMIT), "--auth-timeout", "600", *flags, scheme=scheme)
    address = Address(ADDRESS)
    if scheme == "wss":
        address.trust = ssl.create_default_context()
        authority.configure_trust(address.trust)

    def secured(opened: socket.socket) -> socket.socket:
        return opened if address.trust is None else address.trust.wrap_socket(opened, server_hostname=ADDRESS[0])

    with laboratory.host():
        members = stack.enter_context(Pair(address))
    silent = [stack.enter_context(connect(host)) for _ in range(LIMIT // 2)]
    upgraded = [stack.enter_context(Member(secured(connect(host)))) for _ in range(LIMIT // 2)]
    # Full: a newcomer costs one of the silent, and, once it is a member, leaves room for the next.
    stack.enter_context(Member(secured(connect(host)))).log_in("192.168.202.50")
    [gone] = ended(silent)
    silent.remove(gone)
    stack.enter_context(Member(secured(connect(host)))).log_in("192.168.202.51")
    for opened in [stack.enter_context(secured(opened)) for opened in silent]:
        opened.sendall(upgrade_request())
        assert opened.recv(65536).startswith(b"HTTP/1.1 101 ")
    for member in upgraded:
        assert member.ask().network.prefixlen == 24
    members.check()


def test_64_unless_set_and_each_source_for_itself(laboratory: Laboratory, host: Host, stack: ExitStack) -> None:
    laboratory.relay("--auth-timeout", "600")
    other = stack.enter_context(Member(connect(laboratory.host())))
    members = [stack.enter_context(Member(connect(host))) for _ in range(64)]
    # All of them are there: the upgrade does not count twice.
    members[0].ask()
    stack.enter_context(Member(connect(host)))
    [gone] = ended([member.socket for member in members])
    assert len({member.ask() for member in members if member.socket is not gone}) == 63
    other.log_in(str(other.ask().ip))
