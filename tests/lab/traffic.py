"""What two hosts send each other through their kernels: pings, bytes by TCP, datagrams by UDP.

Rule: what arrives is compared with what was sent, and how long it took is nobody's concern.
"""

import hashlib
import random
import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from lab.namespaces import Namespace
from lab.programs import PATIENCE_S

MEGABYTE = 1 << 20
SO_NO_CHECK = 11
"""From <asm-generic/socket.h>: UDP without a checksum."""
IP_MTU_DISCOVER = 10
"""From <linux/in.h>; 0 never sets DF."""
UDP_SEGMENT = 103
"""From <linux/udp.h>: one call for many datagrams of this size."""
BLOCK = 1 << 16
EACH_S = 0.02
"""From one block of a Stream to the next: 3 MB/s, which no machine is too slow for."""


def ping(host: Namespace, destination: str, *options: str) -> str:
    """What ping prints; " 0% packet loss" when all of three were answered."""
    return host.run("ping", "-c", "3", "-i", "0.1", "-W", "10", *options, destination, check=False)


def refused(host: Namespace, destination: str) -> int:
    """How the kernel ends a connection by TCP to an address where nothing listens; it tries for a while."""
    with host, socket.socket() as opened:
        opened.settimeout(PATIENCE_S)
        return opened.connect_ex((destination, 9))


def connect(
    here: Namespace, there: Namespace, address: str, mss: int | None = None
) -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection to an address of the second host; `mss`: the longest segment, bytes of payload."""
    with there:
        listener = socket.create_server((address, 0))
    with listener:
        with here:
            near = socket.socket()
            near.settimeout(PATIENCE_S)
            if mss is not None:
                near.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, mss)
            near.connect(listener.getsockname())
        far, _ = listener.accept()
    far.settimeout(PATIENCE_S)
    return near, far


def send(opened: socket.socket, seed: int, size: int, digests: dict[str, str]) -> None:
    """Send `size` bytes, in whole megabytes, and the end of the stream."""
    block = random.Random(seed).randbytes(MEGABYTE)
    digest = hashlib.sha256()
    for number in range(size // MEGABYTE):
        # No two are alike, so that one out of order would show.
        chunk = block[number:] + block[:number]
        digest.update(chunk)
        opened.sendall(chunk)
    opened.shutdown(socket.SHUT_WR)
    digests[f"sent {seed}"] = digest.hexdigest()


def receive(opened: socket.socket, seed: int, digests: dict[str, str]) -> None:
    """Receive up to the end of the stream."""
    digest = hashlib.sha256()
    buffer = bytearray(MEGABYTE)
    while size := opened.recv_into(buffer):
        digest.update(memoryview(buffer)[:size])
    digests[f"received {seed}"] = digest.hexdigest()


def transfer(here: Namespace, there: Namespace, address: str, size: int, mss: int | None = None) -> str:
    """Send `size` bytes each way at once by TCP, and compare their SHA-256.

    Args:
        address: of the second host, to which the first one connects.
        mss: as for connect().

    Returns:
        The address that the connection seems to come from.
    """
    near, far = connect(here, there, address, mss)
    digests: dict[str, str] = {}
    with near, far:
        seen, _ = far.getpeername()
        threads = [
            *(threading.Thread(target=send, args=(end, seed, size, digests)) for end, seed in ((near, 1), (far, 2))),
            *(threading.Thread(target=receive, args=(end, seed, digests)) for end, seed in ((far, 1), (near, 2))),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert digests.keys() == {"sent 1", "received 1", "sent 2", "received 2"}
    assert digests["received 1"] == digests["sent 1"]
    assert digests["received 2"] == digests["sent 2"]
    return str(seen)


class Stream:
    """Bytes by TCP that go on as long as something happens to their way; all that was sent has to arrive.

    Args:
        address: of the second host, to which the first one connects and sends.
    """

    def __init__(self, here: Namespace, there: Namespace, address: str) -> None:
        self._near, self._far = connect(here, there, address)
        self._received = 0
        self._digests: dict[str, str] = {}
        self._changed = threading.Condition()
        self._end = threading.Event()
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._send, self._receive)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        if error is not None:
            for opened in (self._near, self._far):
                with suppress(OSError):
                    opened.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._near.close()
        self._far.close()
        if error is None:
            assert self._digests.keys() == {"sent", "received"}
            assert self._digests["received"] == self._digests["sent"]

    def wait(self, blocks: int) -> None:
        """Until so many more have arrived."""
        with self._changed:
            wanted = self._received + blocks * BLOCK
            assert self._changed.wait_for(lambda: self._received >= wanted, PATIENCE_S), "the stream stands still"

    def _send(self) -> None:
        source, digest = random.Random(1), hashlib.sha256()
        # A digest that is missing tells of an error.
        with suppress(OSError):
            while not self._end.wait(EACH_S):
                block = source.randbytes(BLOCK)
                digest.update(block)
                self._near.sendall(block)
            self._near.shutdown(socket.SHUT_WR)
            self._digests["sent"] = digest.hexdigest()

    def _receive(self) -> None:
        digest = hashlib.sha256()
        with suppress(OSError):
            while data := self._far.recv(BLOCK):
                digest.update(data)
                with self._changed:
                    self._received += len(data)
                    self._changed.notify_all()
            self._digests["received"] = digest.hexdigest()


def datagram_sockets(here: Namespace, there: Namespace, own: str, other: str) -> tuple[socket.socket, socket.socket]:
    """One on each host, bound to these addresses."""
    found = []
    for place, address in ((here, own), (there, other)):
        with place:
            opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.bind((address, 0))
        opened.settimeout(PATIENCE_S)
        found.append(opened)
    return found[0], found[1]


def exchange_datagrams(here: Namespace, there: Namespace, own: str, other: str, *, df: bool = True) -> None:
    """Datagrams there and back, of all sizes: from nothing to the longest there is, which takes 48 fragments. One goes
    without a checksum.

    Args:
        df: False where a router on the way may have to cut them: with DF the first one too large for it would only
            teach its sender.
    """
    near, far = datagram_sockets(here, there, own, other)
    with near, far:
        if not df:
            for opened in (near, far):
                opened.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, 0)
        for size in (*range(0, 1373, 31), 1371, 1372, 1373, 4000, 9000, 30_000, 65_507):
            near.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, size == 93)
            data = random.Random(size).randbytes(size)
            near.sendto(data, far.getsockname())
            received, sender = far.recvfrom(65536)
            assert (received, sender) == (data, near.getsockname())
            far.sendto(data[::-1], sender)
            assert near.recv(65536) == data[::-1]


def segmented_datagrams(here: Namespace, there: Namespace, own: str, other: str) -> None:
    """One call for 40 datagrams and a shorter one, which the kernel may hand over in one piece."""
    data = random.Random(1).randbytes(40 * 1000 + 7)
    near, far = datagram_sockets(here, there, own, other)
    with near, far:
        near.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
        near.sendto(data, far.getsockname())
        assert b"".join(far.recv(65536) for _ in range(41)) == data


def checksum_errors(host: Namespace) -> dict[str, int]:
    """What this host's kernel counted since it came to be."""
    names = ("TcpInCsumErrors", "UdpInCsumErrors", "IcmpInCsumErrors", "IpInHdrErrors", "IpExtInCsumErrors")
    lines = [line.split() for line in host.run("nstat", "-asz").splitlines() if not line.startswith("#")]
    found = {line[0]: int(line[1]) for line in lines}
    return {name: found[name] for name in names}
