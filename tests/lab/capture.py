"""What goes over a host's cable, by tcpdump: TCP segments, the WebSocket frames that begin in them, or all of it."""

import signal
import struct
from pathlib import Path

from kit.peer import BINARY, CLOSE, PING, PONG
from lab.laboratory import PORT
from lab.namespaces import Namespace
from lab.programs import Program, environment


class Capture:
    """tcpdump on a host's eth0; by default for what arrives from the relay.

    Args:
        most: bytes of a segment that are kept, with its headers; 0: all.
    """

    def __init__(
        self,
        host: Namespace,
        folder: Path,
        what: str = f"tcp and src port {PORT}",
        *,
        interface: str = "eth0",
        most: int = 128,
    ) -> None:
        self._file = folder / f"{interface}.pcap"
        options = ["-i", interface, "-w", str(self._file), "-U", "--immediate-mode", "-s", str(most), "-B", "65536"]
        argv = ["tcpdump", *options, "-n", "-Z", "root", what]
        with host:
            self.program = Program("tcpdump", argv, environment(folder))
        self.program.wait_for(f"listening on {interface}")

    def segments(self) -> list[tuple[int, int, bytes]]:
        """Each segment with data so far: sequence number, length, and the data's first bytes."""
        data = self._file.read_bytes()
        at, found = 24, []
        while at + 16 <= len(data):
            captured = struct.unpack_from("<I", data, at + 8)[0]
            ip = data[at + 16 + 14 : at + 16 + captured]
            at += 16 + captured
            if at > len(data):
                break
            tcp = ip[(ip[0] & 15) * 4 :]
            header = (tcp[12] >> 4) * 4
            length = struct.unpack_from(">H", ip, 2)[0] - (ip[0] & 15) * 4 - header
            if length:
                found.append((struct.unpack_from(">I", tcp, 4)[0], length, tcp[header:]))
        return found

    def stop(self) -> list[tuple[int, int, bytes]]:
        """All of them, none of which was missed."""
        self.content()
        return self.segments()

    def content(self) -> bytes:
        """Stop, and return the file, in which nothing is missing."""
        self.program.signal(signal.SIGINT)
        assert self.program.wait() == 0
        assert "0 packets dropped by kernel" in "\n".join(self.program.lines)
        return self._file.read_bytes()


def frame_length(head: bytes) -> int:
    """How long the frame is that begins here; 0 where none does."""
    short = head[1] & 0x7F
    size = short if short < 126 else struct.unpack_from(">H", head, 2)[0]
    known = head[0] in (0x80 | BINARY, 0x80 | PING, 0x80 | PONG, 0x80 | CLOSE) and short < 127
    return (4 if head[1] & 0x80 else 0) + (2 if short < 126 else 4) + size if known else 0
