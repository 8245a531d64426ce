"""The compiled half of the benchmarks: members that send and check, and the limit that relays are compared with."""

from typing import Final, Self

from typing_extensions import disjoint_base

MEMBER_BASE: Final[int]
"""Address of the first member of an Endpoints; the others follow it."""

@disjoint_base
class Endpoints:
    """All members of a measurement, in the calling thread. They send frames that were built beforehand
    and check what arrives.

    Args:
        fds: the members' sockets, one each; they stay the caller's.
        routes: for each member the members that its packets go to, in turn; empty: it sends nothing.
        size: of a packet, bytes, 24 to 65,535.
        window_bytes: what one member may have on its way, at least one frame.
        masked: the relay passes frames on as they come, masked.
        passed: it does so as candy.3 has it: the mask is the beginning of the payload. Members draw masks accordingly,
            and the size is not one at which a frame's length would change its form.
        sealed: packets are SEALED, but for the sealing.
        addressed: packets arrive at their destination (a BareRelay that divides a stream cares for no address).
        look_every: of the reads, one in so many is looked at; of the others the bytes are counted.
        stalled: members that never read.
    """

    def __new__(
        cls,
        fds: list[int],
        routes: list[list[int]],
        size: int,
        *,
        window_bytes: int,
        masked: bool = False,
        passed: bool = False,
        sealed: bool = False,
        addressed: bool = True,
        look_every: int = 1,
        stalled: frozenset[int] = frozenset(),
    ) -> Self: ...
    def run(self, *, packets: int = 0, seconds: float = 3600.0) -> dict[str, int]:
        """Send for so long, or at least so many packets (0: any number), and wait for what is on its way.

        Returns:
            sent, delivered: packets, of those to members that read; looked, compared: of the delivered ones, those
            whose header, addresses and order were checked, and those that were compared byte for byte; reordered,
            misdelivered, corrupt: what the checks found; elapsed_ns: from the first packet sent to the last one
            delivered; idle_ns: of that, time in which there was nothing to do.

        Raises:
            ConnectionError: the relay ended a connection.
        """

@disjoint_base
class BareRelay:
    """The limit: a thread that receives and sends the same bytes, with a buffer as the engine's.

    Args:
        fds: the relay's ends of the connections, blocking; they stay the caller's.
        routes: as for Endpoints.
        frame: size of a frame; needed where streams are joined or divided, which can only be done between frames.
            Several destinations get equal parts of each read.
        unmasks: it passes over every byte in between, as unmasking does, with a mask of 0.
        segments: each frame leaves as a TCP segment of its own.
    """

    def __new__(
        cls,
        fds: list[int],
        routes: list[list[int]],
        *,
        frame: int = 0,
        unmasks: bool = False,
        segments: bool = False,
    ) -> Self: ...
    @property
    def sends(self) -> int:
        """Send calls so far."""

    def cpu_ns(self) -> int:
        """CPU time used by the thread, nanoseconds (CLOCK_THREAD_CPUTIME_ID)."""

    def stop(self) -> None:
        """Shut the sockets' reading sides down and end the thread. Idempotent."""

@disjoint_base
class CipherRelay:
    """The limit over TLS: a thread that receives full records of TLS 1.3, opens them by EVP (AES-128-GCM, one key, one
    nonce), passes over every byte, seals them again and sends them.

    Args:
        source, destination: blocking TCP sockets; they stay the caller's.
    """

    def __new__(cls, source: int, destination: int) -> Self: ...
    def cpu_ns(self) -> int:
        """CPU time used by the thread, nanoseconds (CLOCK_THREAD_CPUTIME_ID)."""

    def stop(self) -> None:
        """Shut the sockets down and end the thread. Idempotent.

        Raises:
            ValueError: what came was not cipher_records().
        """

def cipher_records(n: int) -> bytes:
    """So many records, as a CipherRelay receives them."""

def masked_frame_size(size: int, *, sealed: bool = False) -> int:
    """Bytes of the frame that a member sends for a packet of this size."""

def process_cpu_ns(pid: int) -> int:
    """CPU time used by a process, nanoseconds.

    Raises:
        OSError: there is no such process.
    """
