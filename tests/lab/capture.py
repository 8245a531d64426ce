"""TCP segments as they arrive at a host, by tcpdump, and the WebSocket frames that begin in them."""

import signal
import struct
from pathlib import Path

from kit.peer import BINARY, CLOSE, PING, PONG
from lab.laboratory import PORT
from lab.namespaces import Host
from lab.programs import Program, environment


class Capture:
    """tcpdump on a host's eth0; by default for what arrives from the relay."""

    def __init__(self, host: Host, folder: Path, what: str = f"tcp and src port {PORT}") -> None:
        self._file = folder / "capture.pcap"
        options = ["-i", "eth0", "-w", str(self._file), "-U", "--immediate-mode", "-s", "128", "-B", "65536", "-n"]
        argv = ["tcpdump", *options, "-Z", "root", what]
        with host:
            self.program = Program("tcpdump", argv, environment(folder))
        self.program.wait_for("listening on eth0")

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
        self.program.signal(signal.SIGINT)
        assert self.program.wait() == 0
        assert "0 packets dropped by kernel" in "\n".join(self.program.lines)
        return self.segments()


def frame_length(head: bytes) -> int:
    """How long the frame is that begins here; 0 where none does."""
    short = head[1] & 0x7F
    size = short if short < 126 else struct.unpack_from(">H", head, 2)[0]
    known = head[0] in (0x80 | BINARY, 0x80 | PING, 0x80 | PONG, 0x80 | CLOSE) and short < 127
    return (4 if head[1] & 0x80 else 0) + (2 if short < 126 else 4) + size if known else 0
