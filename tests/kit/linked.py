"""Direct links, slowly: what engines send each other by UDP, as docs/protocol.md has it.

Shares no code with the engine.
"""

import hmac
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from cryptography.exceptions import InvalidTag
from kit.peer import PATIENCE
from kit.sealing import Pair, aead, pair
from kit.sealing_device import Device, client
from kit.superpacket import A, B

ASKS, UNSUMMED = 1, 2
PROBE, ANSWER = 1, 2
HEADER, TAG = 16, 16
COOKIE = 0x2112A442
LONGEST = 1440


def link_key(key: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869) without a salt."""
    secret = hmac.digest(bytes(32), key, "sha256")
    return hmac.digest(secret, b"candy direct link\x01", "sha256")


@dataclass(frozen=True)
class Datagram:
    """One between our own, taken apart."""

    session: int
    counter: int
    plain: bytes
    flags: int = 0

    @property
    def header(self) -> bytes:
        return struct.pack(">BBHIQ", 18, self.flags, 0, self.session, self.counter)

    def seal(self, key: bytes, cipher: int = 1) -> bytes:
        nonce = bytes(4) + self.counter.to_bytes(8, "big" if cipher == 1 else "little")
        return self.header + aead(link_key(key), cipher).encrypt(nonce, self.plain, self.header)


def opened(key: bytes, datagram: bytes, cipher: int = 1) -> Datagram | None:
    """None when it does not open."""
    kind, flags, zero, session, counter = struct.unpack_from(">BBHIQ", datagram)
    nonce = bytes(4) + counter.to_bytes(8, "big" if cipher == 1 else "little")
    try:
        plain = aead(link_key(key), cipher).decrypt(nonce, datagram[HEADER:], datagram[:HEADER])
    except InvalidTag:
        return None
    assert (kind, zero) == (18, 0)
    return Datagram(session, counter, plain, flags)


def place(address: tuple[str, int]) -> bytes:
    """Family, address and port, as events have them."""
    if ":" in address[0]:
        return b"\x06" + socket.inet_pton(socket.AF_INET6, address[0]) + address[1].to_bytes(2, "big")
    return b"\x04" + socket.inet_aton(address[0]) + bytes(12) + address[1].to_bytes(2, "big")


def packed(address: tuple[str, int]) -> tuple[bytes, int]:
    """An address as the engine is given it."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    return socket.inet_pton(family, address[0]), address[1]


@contextmanager
def udp(family: int = socket.AF_INET) -> Iterator[socket.socket]:
    """A bound socket on loopback."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        sock.settimeout(PATIENCE)
        yield sock


def numbered(one: Pair, device: Device) -> Pair:
    """A session with a number by which this device's links reach it."""
    return replace(one, local=device.engine.link_prefix(device.tun) << 16 | one.local & 0xFFFF)


class Linked:
    """A client's engine with a link, and its peer: a UDP socket of the test's."""

    def __init__(self, device: Device, link: int, own: tuple[str, int], peer: socket.socket, one: Pair) -> None:
        self.device = device
        self.engine = device.engine
        self.link = link
        self.own = own
        self.peer = peer
        self.one = one
        self.counter = 0

    @property
    def there(self) -> tuple[str, int]:
        """The peer's address."""
        name = self.peer.getsockname()
        return name[0], name[1]

    def path(self, *, longest: int = LONGEST, to: tuple[str, int] | None = None) -> None:
        self.engine.set_path(self.device.tun, self.one.peer, self.link, *packed(to or self.there), longest)

    def comes(
        self, plain: bytes, *, flags: int = 0, counter: int | None = None, by: socket.socket | None = None
    ) -> bytes:
        """A datagram from the peer, which is returned."""
        if counter is None:
            counter = self.counter
            self.counter += 1
        datagram = Datagram(self.one.local, counter, plain, flags).seal(self.one.receives, self.one.cipher)
        (by or self.peer).sendto(datagram, self.own)
        return datagram

    def went(self) -> Datagram:
        """The next datagram that the engine has sent to its peer."""
        return self.read(self.peer.recv(65536))

    def read(self, datagram: bytes) -> Datagram:
        found = opened(self.one.sends, datagram, self.one.cipher)
        assert found is not None
        assert found.session == self.one.remote
        return found

    def told(self, kind: int, count: int = 1) -> list[bytes]:
        """The events of this kind of the device, as soon as there are so many."""
        return self.device.relay.details(self.device.tun, kind, count)

    def is_quiet(self) -> bool:
        [row] = self.engine.paths(self.device.tun)
        return row[7]


@contextmanager
def linked(
    *,
    vnet: bool = False,
    cipher: int = 1,
    family: int = socket.AF_INET,
    with_path: bool = True,
    checks_source: bool = True,
    workers: int = 1,
    before: Callable[[socket.socket], object] = lambda own: None,
) -> Iterator[Linked]:
    """A client A that seals for B, by a path to a socket of the test's.

    Args:
        before: is given the link's own socket, before the engine has it.
    """
    with ExitStack() as stack:
        device = stack.enter_context(client(vnet=vnet, checks_source=checks_source, workers=workers))
        own = socket.socket(family, socket.SOCK_DGRAM)
        own.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        name = own.getsockname()
        before(own)
        link = device.engine.open_link(device.tun, own.fileno())
        own.detach()
        one = numbered(pair(A, B, cipher=cipher), device)
        one.install(device.engine, device.tun)
        device.seal_with(one)
        found = Linked(device, link, (name[0], name[1]), stack.enter_context(udp(family)), one)
        if with_path:
            found.path()
        yield found
