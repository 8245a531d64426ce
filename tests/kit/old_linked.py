"""Direct links with original clients, slowly: what an engine and a peer of the test's send each other by UDP."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from kit.linked import packed, udp
from kit.peer import packet
from kit.sealing import CLEAR, OFF, PREFER
from kit.sealing_device import Device, client
from kit.superpacket import NO_VNET, A, B, C

OWN_KEY, PEER_KEY, C_KEY = (bytes(range(first, first + 32)) for first in (0, 32, 64))
FORWARD = b"\x01"
LONGEST = 1471


def sealed(plain: bytes, key: bytes = OWN_KEY, *, iv: bytes | None = None) -> bytes:
    """As an original client sends it; None: a random IV."""
    iv = os.urandom(12) if iv is None else iv
    both = AESGCM(key).encrypt(iv, plain, None)
    return iv + both[-16:] + both[:-16]


def opened(datagram: bytes, key: bytes = PEER_KEY) -> bytes | None:
    try:
        return AESGCM(key).decrypt(datagram[:12], datagram[28:] + datagram[12:28], None)
    except InvalidTag:
        return None


class OldLinked:
    """A client's engine with a link, and an original client: a UDP socket of the test's."""

    def __init__(self, device: Device, link: int, own: tuple[str, int], peer: socket.socket, *, vnet: bool) -> None:
        self.device = device
        self.engine = device.engine
        self.tun = device.tun
        self.link = link
        self.own = own
        self.peer = peer
        self.vnet = vnet

    @property
    def there(self) -> tuple[bytes, int]:
        """The peer's address, as the engine is given it."""
        name = self.peer.getsockname()
        return packed((name[0], name[1]))

    def path(self, key: bytes = PEER_KEY, *, peer: int = B, longest: int = LONGEST) -> None:
        self.engine.set_old_path(self.tun, peer, self.link, *self.there, key, longest)

    def comes(self, plain: bytes, *, key: bytes = OWN_KEY, by: socket.socket | None = None) -> None:
        (by or self.peer).sendto(sealed(plain, key), self.own)

    def went(self) -> bytes:
        """What the next datagram that the engine sent to its peer held."""
        found = opened(self.peer.recv(65536))
        assert found is not None
        return found

    def told(self, kind: int, count: int = 1) -> list[bytes]:
        return self.device.relay.details(self.tun, kind, count)

    def arrives(self) -> None:
        """All that came by the link before this is through, and the device was given nothing else."""
        ping = packet(B, A, b"through")
        self.comes(FORWARD + ping)
        assert self.device.reads() == (NO_VNET if self.vnet else b"") + ping

    def dropped(self) -> dict[str, int]:
        return self.device.relay.dropped()


@contextmanager
def old_linked(
    *, vnet: bool = False, sealing: int = PREFER, with_path: bool = True, with_key: bool = True, workers: int = 1
) -> Iterator[OldLinked]:
    """A client A, and an original client B, by a path to a socket of the test's."""
    with ExitStack() as stack:
        device = stack.enter_context(client(sealing, vnet=vnet, workers=workers))
        own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        own.bind(("127.0.0.1", 0))
        name = own.getsockname()
        link = device.engine.open_link(device.tun, own.fileno())
        own.detach()
        if sealing != OFF:
            device.engine.set_peer(device.tun, B, CLEAR, takes_clear=True, tells_clear=False)
        found = OldLinked(device, link, (name[0], name[1]), stack.enter_context(udp()), vnet=vnet)
        if with_key:
            found.engine.set_old_key(device.tun, A, OWN_KEY)
        if with_path:
            found.path()
        yield found


class Third:
    """Original client C, beside B: a socket of the test's."""

    def __init__(self, one: OldLinked, peer: socket.socket, *, has_path: bool) -> None:
        self.one = one
        self.peer = peer
        if has_path:
            self.path(LONGEST)

    def path(self, longest: int) -> None:
        one, name = self.one, self.peer.getsockname()
        one.engine.set_old_path(one.tun, C, one.link, *packed((name[0], name[1])), C_KEY, longest)

    def comes(self, plain: bytes) -> None:
        self.one.comes(plain, by=self.peer)

    def went(self) -> bytes | None:
        return opened(self.peer.recv(65536), C_KEY)


@contextmanager
def three(*, sealing: int = PREFER, vnet: bool = False, has_path: bool = True) -> Iterator[tuple[OldLinked, Third]]:
    """A, which sends on, and its links with B and C."""
    with old_linked(sealing=sealing, vnet=vnet) as one, udp() as peer:
        if sealing != OFF:
            one.engine.set_peer(one.tun, C, CLEAR, takes_clear=True, tells_clear=False)
        one.engine.resend_old(one.tun, True)
        yield one, Third(one, peer, has_path=has_path)
