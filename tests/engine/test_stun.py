"""The relay's STUN responder: who asks is told by which address it is seen."""

import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
from kit.linked import packed, place, udp
from kit.peer import PATIENCE, EngineRelay

from candy.protocol import stun

pytestmark = pytest.mark.engine

COOKIE = 0x2112A442
ID = bytes(range(12))
IP_PKTINFO = 8
XOR_MAPPED, OTHER, SOFTWARE = 0x0020, 0x802C, 0x8022
FAMILY = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])


def request(more: bytes = b"", *, kind: int = 1, length: int | None = None, cookie: int = COOKIE) -> bytes:
    return struct.pack(">HHI12s", kind, len(more) if length is None else length, cookie, ID) + more


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack(">HH", kind, len(value)) + value + bytes(-len(value) % 4)


def mapped(address: tuple[str, int], mask: bytes = bytes(18)) -> bytes:
    """An attribute's value, XORed with this behind its family."""
    ip, port = packed(address)
    plain = port.to_bytes(2, "big") + ip
    mask = mask[:2] + mask[:16]
    return bytes([0, 1 if len(ip) == 4 else 2]) + bytes(a ^ b for a, b in zip(plain, mask, strict=False))


def answer(address: tuple[str, int], other: tuple[str, int] | None = None) -> bytes:
    mask = struct.pack(">I", COOKIE) + ID
    more = attribute(XOR_MAPPED, mapped(address, mask))
    if other is not None:
        more += attribute(OTHER, mapped(other))
    return request(more, kind=0x0101)


@contextmanager
def responder(
    family: int = socket.AF_INET, *, other: tuple[str, int] | None = None, both: bool = False
) -> Iterator[tuple[EngineRelay, socket.socket, tuple[str, int]]]:
    """An engine with a responder, a client's socket, and the responder's address."""
    with EngineRelay() as relay, udp(family) as asker:
        own = socket.socket(socket.AF_INET6 if both else family, socket.SOCK_DGRAM)
        if both:
            own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            own.bind(("::", 0))
        else:
            own.bind((asker.getsockname()[0], 0))
        port = own.getsockname()[1]
        relay.engine.open_stun(own.detach(), None if other is None else packed(other))
        yield relay, asker, (asker.getsockname()[0], port)


def name(sock: socket.socket) -> tuple[str, int]:
    return sock.getsockname()[0], sock.getsockname()[1]


@FAMILY
def test_who_asks_is_told_its_address(family: socket.AddressFamily) -> None:
    with responder(family) as (relay, asker, there):
        for ask in (request(), request(attribute(SOFTWARE, b"test!"))):
            asker.sendto(ask, there)
            assert asker.recv(1000) == answer(name(asker))
        assert relay.dropped() == {}


@FAMILY
def test_and_the_other_socket(family: socket.AddressFamily) -> None:
    other = ("192.0.2.7", 4567) if family == socket.AF_INET else ("2001:db8::7", 4567)
    with responder(family, other=other) as (_, asker, there):
        whole = answer(name(asker), other)
        asker.sendto(request(attribute(SOFTWARE, bytes(len(whole) - 24))), there)
        assert asker.recv(1000) == whole
        # No answer with it is longer than its request; the clients' own is long enough.
        asker.sendto(request(attribute(SOFTWARE, bytes(len(whole) - 28))), there)
        assert asker.recv(1000) == answer(name(asker))
        asker.sendto(stun.request(ID), there)
        assert asker.recv(1000) == whole


@FAMILY
def test_one_socket_for_both_families(family: socket.AddressFamily) -> None:
    with responder(family, both=True) as (_, asker, there):
        asker.sendto(request(), there)
        assert asker.recv(1000) == answer(name(asker))


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        request()[:19],
        request(kind=0x0101),
        request(kind=2),
        request(cookie=COOKIE + 1),
        request(length=4),
        request(bytes(4), length=0),
        request(attribute(SOFTWARE, b"more")[:6], length=6),
        request(attribute(3, bytes(4))),
        request(attribute(SOFTWARE, b"more") + attribute(0x7FFF, b"")),
        request(struct.pack(">HH", SOFTWARE, 5) + bytes(4)),
        request(struct.pack(">HH", SOFTWARE, 0xFFFF)),
        request(bytes(2100)),
    ],
    ids=[
        "empty",
        "header cut",
        "answer",
        "another method",
        "another cookie",
        "less than it says",
        "more than it says",
        "odd",
        "change request",
        "required attribute behind another",
        "attribute cut",
        "long attribute",
        "too long",
    ],
)
def test_what_is_no_request_is_not_answered(datagram: bytes) -> None:
    with responder() as (relay, asker, there):
        asker.sendto(datagram, there)
        asker.sendto(request(), there)
        assert asker.recv(1000) == answer(name(asker))
        assert relay.dropped() == {"stun_malformed": 1}


def test_a_source_is_answered_as_often_as_it_may() -> None:
    with responder() as (relay, asker, there), ExitStack() as stack:
        for _ in range(150):
            asker.sendto(request(), there)
        # Others are answered beside it: of two, one has no place in common with it.
        poll = select.poll()
        others = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2)]
        for number, other in enumerate(others):
            other.bind((f"127.0.0.{2 + number}", 0))
            other.sendto(request(), there)
            poll.register(other, select.POLLIN)
        [(ready, _), *_] = poll.poll(PATIENCE * 1000)
        [other] = [other for other in others if other.fileno() == ready]
        assert other.recv(1000) == answer(name(other))
        dropped = relay.dropped()
        assert set(dropped) == {"stun_limit"}
        assert 1 <= dropped["stun_limit"] <= 131


def test_all_sources_together_are_answered_as_often_as_they_may() -> None:
    """However many addresses a flood comes from, or says that it does."""
    with responder() as (relay, _, there), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.bind(("0.0.0.0", 0))
        asker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        asker.setblocking(False)
        began, answers = time.monotonic(), 0
        for number in range(70_000):
            source = struct.pack(">I", (127 << 24) + 0x10000 + number % 8000)
            info = struct.pack("=i4s4s", 0, source, bytes(4))
            asker.sendmsg([request()], [(socket.IPPROTO_IP, IP_PKTINFO, info)], 0, there)
            with suppress(BlockingIOError):
                answers += len(asker.recv(1000)) == 32
        relay.dropped()
        with suppress(BlockingIOError):
            while asker.recv(1000):
                answers += 1
        # On a slow machine so many are allowed.
        assert 0 < answers <= 20_000 * (1 + time.monotonic() - began)


def test_arguments() -> None:
    with responder() as (relay, asker, there):
        with socket.socket() as stream, pytest.raises(OSError, match="not a UDP socket"):
            relay.engine.open_stun(stream.fileno())
        with udp() as sock, pytest.raises(ValueError, match="4 or 16 bytes"):
            relay.engine.open_stun(sock.fileno(), (bytes(5), 1))
        numbers = []
        for _ in range(3):
            own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            own.bind(("127.0.0.1", 0))
            numbers.append(relay.engine.open_stun(own.detach()))
        with udp() as sock, pytest.raises(OSError, match="at most 4"):
            relay.engine.open_stun(sock.fileno())
        stats = relay.engine.stats()
        assert (stats["connections"], stats["guests"]) == (0, 0)
        # It is no connection, and no guest.
        assert not relay.engine.close(numbers[0])
        assert not relay.engine.bind(numbers[0], 7)
        assert not relay.engine.pass_http(numbers[0])
        assert relay.engine.close_link(numbers[0])
        assert relay.cause(numbers[0]) == "local"
        assert not relay.engine.close_link(numbers[0])
        own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        own.bind(("127.0.0.1", 0))
        relay.engine.open_stun(own.detach())
        asker.sendto(request(), there)
        assert asker.recv(1000) == answer(name(asker))
        assert len(place(there)) == 19
