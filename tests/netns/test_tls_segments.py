"""The engine's TLS towards a peer without the extension, in a capture: one frame a record, and a segment of its own."""

import random
import socket
import ssl
from pathlib import Path

import pytest
from kit.peer import BINARY, PATIENCE, EngineRelay, Peer, numbered
from kit.secure import APPLICATION_DATA, Secured, records
from lab.capture import Capture
from lab.laboratory import PORT, Laboratory

pytestmark = pytest.mark.netns

A, B = 0x0A000001, 0x0A000002
FRAMES = 3000
PONG_SIZE = len(b"\x8a\6sync 1")
OVERHEAD = {ssl.TLSVersion.TLSv1_2: 29, ssl.TLSVersion.TLSv1_3: 22}
"""More bytes than its frame that a record of AES-GCM has."""


@pytest.mark.parametrize("slow", [False, True], ids=["at full speed", "slow"])
@pytest.mark.parametrize("version", OVERHEAD)
def test_one_frame_a_record_and_a_segment(
    laboratory: Laboratory, tmp_path: Path, version: ssl.TLSVersion, slow: bool
) -> None:
    """Slow: its window has no room for what is sent until it reads, a few bytes at a time."""
    secured = Secured(tmp_path)
    host = laboratory.host()
    with laboratory.hub:
        listener = socket.create_server(("10.0.0.1", PORT))
    with host, listener:
        end = socket.socket()
        if slow:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        end.settimeout(PATIENCE)
        end.connect(("10.0.0.1", PORT))
        theirs, _ = listener.accept()
    draw = random.Random(1)
    with EngineRelay() as relay:
        one = relay.member(A)
        tls = secured.peer(end, client=False, version=version)
        old = Peer(tls)
        relay.peers.append(old)
        old.connection = relay.engine.adopt(theirs.detach(), tls=secured.server)
        assert relay.engine.bind(old.connection, B)
        old.sync()
        tls.raw = b""
        capture = Capture(host, tmp_path)
        with capture.program:
            sizes: list[int] = []
            number = 0
            while len(sizes) < FRAMES:
                batch = [numbered(A, B, number + n, draw.choice((33, 100, 140, 540, 1401))) for n in range(200)]
                number += len(batch)
                one.forward(*batch)
                one.sync()
                for _ in range(100 if slow else len(batch)):
                    frame = old.receive(300 if slow else 65536)
                    assert frame.opcode == BINARY
                    sizes.append(frame.size)
            sizes += [frame.size for frame in relay.drain(old)]
            segments = capture.stop()
    # All of them, be they sent once or again.
    assert [(n, head[:5]) for _, n, head in segments if head[0] != APPLICATION_DATA or n != record_size(head)] == []
    found = [len(record) - OVERHEAD[version] for record in records(tls.raw)]
    assert [size for size in found if size != PONG_SIZE] == sizes
    # On a busy machine the kernel hands a capture not quite all of them.
    assert 0.99 * len(found) <= len({sequence for sequence, _, _ in segments}) <= len(found)


def record_size(head: bytes) -> int:
    return 5 + int.from_bytes(head[3:5], "big")
