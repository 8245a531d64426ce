"""Strangers at a port with TLS, which costs memory: they have to say something whole first, and soon."""

import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trustme
from lab.member import Member, everything
from lab.programs import PATIENCE_S, RelayProgram
from lab.tls import client_hello, flags_for

QUICK_S = "1.5"
"""The relay's --auth-timeout: less than a handshake may take, which ends with it then."""
HELLO = client_hello()


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Iterator[RelayProgram]:
    folder = tmp_path_factory.mktemp("relay")
    flags = [*flags_for(authority, folder, "127.0.0.1"), "--auth-timeout", QUICK_S]
    with RelayProgram(folder, *flags, scheme="wss") as relay:
        yield relay


@pytest.fixture(scope="module")
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def connect(relay: RelayProgram) -> socket.socket:
    # Less than asyncio gives to a handshake by itself.
    return socket.create_connection(relay.address, PATIENCE_S / 2)


@pytest.mark.parametrize("said", [b"", HELLO[:1], HELLO[:5], HELLO[:-1]])
def test_a_stranger_without_a_whole_client_hello_is_ended(relay: RelayProgram, said: bytes) -> None:
    with connect(relay) as opened:
        opened.sendall(said)
        assert everything(opened) == b""


def test_a_stranger_that_goes_no_further_is_ended(relay: RelayProgram) -> None:
    with connect(relay) as opened:
        opened.sendall(HELLO)
        assert everything(opened).startswith(b"\x16\x03")


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\xff\xff", b"\x00" * 5, HELLO[:-1], HELLO[:3]])
def test_a_stranger_that_ends_or_says_something_else(relay: RelayProgram, said: bytes) -> None:
    with connect(relay) as opened:
        opened.sendall(said)
        # What is no TLS may have been answered with a reset by now.
        with suppress(OSError):
            opened.shutdown(socket.SHUT_WR)
        # An alert at most.
        assert everything(opened)[:1] in (b"", b"\x15")


def test_a_stranger_that_resets(relay: RelayProgram, client_tls: ssl.SSLContext) -> None:
    for said in (b"", HELLO[:10], HELLO):
        with connect(relay) as opened:
            opened.sendall(said)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    with Member(client_tls.wrap_socket(connect(relay), server_hostname="127.0.0.1")) as member:
        member.log_in(str(member.ask().ip))


def test_a_handshake_byte_by_byte(relay: RelayProgram, client_tls: ssl.SSLContext) -> None:
    with connect(relay) as opened:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        talk = client_tls.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        while True:
            try:
                talk.do_handshake()
            except ssl.SSLWantReadError:
                for byte in outgoing.read():
                    opened.sendall(bytes([byte]))
                incoming.write(opened.recv(65536))
            else:
                break
        talk.write(b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n")
        opened.sendall(outgoing.read())
        answer = b""
        while not answer:
            incoming.write(opened.recv(65536))
            # A session ticket may come first.
            try:
                answer = talk.read()
            except ssl.SSLWantReadError:
                continue
    assert answer.startswith(b"HTTP/1.1 426 ")


def test_a_handshake_and_no_request(relay: RelayProgram, client_tls: ssl.SSLContext) -> None:
    """The relay does not wait for an answer to its close_notify either."""
    with client_tls.wrap_socket(connect(relay), server_hostname="127.0.0.1") as opened:
        assert everything(opened) == b""


def test_an_end_while_strangers_are_there(tmp_path: Path, authority: trustme.CA) -> None:
    flags = flags_for(authority, tmp_path, "127.0.0.1")
    with RelayProgram(tmp_path, *flags, scheme="wss") as relay, connect(relay) as silent, connect(relay) as greeting:
        greeting.sendall(HELLO)
        assert greeting.recv(1) == b"\x16"
        relay.signal(signal.SIGTERM)
        assert relay.wait(PATIENCE_S / 6) == 0
        assert everything(silent) == b""
