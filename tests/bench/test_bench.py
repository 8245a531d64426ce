"""The benchmarks' own checks: a relay that loses, reorders, corrupts or misdirects packets must be found out."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from _endpoints import MEMBER_BASE, BareRelay, Endpoints, masked_frame_size, process_cpu_ns
from contestant import Aiohttp
from machine import Cores
from topology import one_to_one

from candy._fastpath import CANDY3, Engine

BENCH = Path(__file__).parents[2] / "bench"
SIZE = 200
WINDOW = 65536
HEADER = 8  # of a masked frame of this size
BODY_AT = 25  # of the payload: kind, IPv4 header, sequence number
COUNT = 500

pytestmark = pytest.mark.engine

Tamper = Callable[[list[bytes]], list[bytes]]


@contextmanager
def connections(count: int) -> Iterator[tuple[list[socket.socket], list[socket.socket]]]:
    """The members' ends and the relay's ends of so many TCP connections."""
    members, relays = [], []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(count):
            members.append(socket.create_connection(listener.getsockname()))
            relays.append(listener.accept()[0])
    try:
        yield members, relays
    finally:
        for end in members + relays:
            end.close()


def fds(ends: list[socket.socket]) -> list[int]:
    return [end.fileno() for end in ends]


def relay_frames(source: socket.socket, destination: socket.socket, tamper: Tamper) -> None:
    """A slow relay from one socket to another that does something to the frames of each read."""
    size, rest = masked_frame_size(SIZE), b""
    while more := source.recv(1 << 20):
        rest += more
        whole = len(rest) // size * size
        frames = [rest[at : at + size] for at in range(0, whole, size)]
        rest = rest[whole:]
        destination.sendall(b"".join(tamper(frames)))


def through(tamper: Tamper) -> dict[str, int]:
    """What the endpoints find behind such a relay."""
    with connections(2) as (members, relays):
        thread = threading.Thread(target=relay_frames, args=(relays[0], relays[1], tamper))
        thread.start()
        try:
            found = Endpoints(fds(members), [[1], []], SIZE, window_bytes=WINDOW, masked=True).run(packets=COUNT)
        finally:
            members[0].shutdown(socket.SHUT_WR)
            thread.join()
    return found


def once(change: Tamper) -> Tamper:
    """Tamper with the first read alone."""
    turns = iter([change])
    return lambda frames: next(turns, lambda same: same)(frames)


def test_an_honest_relay_passes() -> None:
    found = through(lambda frames: frames)
    assert found["sent"] == found["delivered"] >= COUNT
    assert found["looked"] > 0
    assert found["compared"] > 0
    assert found["reordered"] == found["misdelivered"] == found["corrupt"] == 0


def test_loss_is_counted() -> None:
    found = through(once(lambda frames: frames[:1] + frames[4:]))
    assert found["sent"] - found["delivered"] == 3
    assert found["reordered"] == found["corrupt"] == 0


def test_reordering_is_found() -> None:
    found = through(once(lambda frames: [frames[1], frames[0], *frames[2:]]))
    assert found["sent"] == found["delivered"]
    assert found["reordered"] == 1


def test_a_repeated_packet_is_found() -> None:
    found = through(once(lambda frames: [frames[0], *frames[:-1]]))
    assert found["reordered"] == 1


@pytest.mark.parametrize("at", [0, 1, 3, HEADER + 13, HEADER + 30, HEADER + SIZE], ids=str)
def test_a_changed_byte_is_found(at: int) -> None:
    """In every frame, for the content of a sample is compared; byte 13 of the payload is the source's first."""

    def change(frames: list[bytes]) -> list[bytes]:
        return [frame[:at] + bytes([frame[at] ^ 0x10]) + frame[at + 1 :] for frame in frames]

    assert through(change)["corrupt"] > 0


def test_exchanged_bodies_are_found() -> None:
    """Addresses and order are right, but each packet has the body of the next one."""

    def change(frames: list[bytes]) -> list[bytes]:
        plain = [unmasked(frame) for frame in frames]
        following = plain[1:] + plain[:1]
        return [
            frame[: HEADER - 4] + bytes(4) + mine[:BODY_AT] + other[BODY_AT:]
            for frame, mine, other in zip(frames, plain, following, strict=True)
        ]

    assert through(change)["corrupt"] > 0


def unmasked(frame: bytes) -> bytes:
    return bytes(byte ^ frame[HEADER - 4 + i % 4] for i, byte in enumerate(frame[HEADER:]))


def test_the_wrong_destination_is_found() -> None:
    """Frames for the members 1 and 2 in turn, divided without a look at their addresses."""
    with connections(3) as (members, relays):
        routes = [[1, 2], [], []]
        relay = BareRelay(fds(relays), routes, frame=masked_frame_size(SIZE))
        try:
            found = Endpoints(fds(members), routes, SIZE, window_bytes=WINDOW, masked=True).run(packets=COUNT)
        finally:
            relay.stop()
    assert found["sent"] == found["delivered"]
    assert found["misdelivered"] > 0
    assert found["corrupt"] == found["reordered"] == 0


ROUTES = {
    "1→1": [[1], []],
    "3→3": [[3], [4], [5], [], [], []],
    "3→1": [[3], [3], [3], []],
    "1→3": [[1, 2, 3], [], [], []],
    "pairs": [[1], [0], [3], [2]],
}


@pytest.mark.parametrize("way", [{}, {"unmasks": True}, {"segments": True}], ids=["bare", "unmasking", "segments"])
@pytest.mark.parametrize("size", [24, 100, 125, 1300, 65000])
@pytest.mark.parametrize("routes", ROUTES.values(), ids=ROUTES)
def test_the_bare_relay_moves_everything(routes: list[list[int]], size: int, way: dict[str, bool]) -> None:
    with connections(len(routes)) as (members, relays):
        frame = masked_frame_size(size)
        relay = BareRelay(fds(relays), routes, frame=frame, **way)
        try:
            endpoints = Endpoints(fds(members), routes, size, window_bytes=WINDOW, masked=True, addressed=False)
            first, second = endpoints.run(packets=50), endpoints.run(packets=50)
            assert relay.cpu_ns() > 0
            assert relay.sends > 0
        finally:
            relay.stop()
    for found in (first, second):
        assert found["sent"] == found["delivered"] >= 50
        assert found["reordered"] == found["corrupt"] == 0


@pytest.mark.parametrize("size", [24, 100, 1300, 65000])
@pytest.mark.parametrize("routes", ROUTES.values(), ids=ROUTES)
@pytest.mark.parametrize(("extended", "sealed"), [(1, False), (CANDY3, False), (CANDY3, True)])
def test_the_engine_moves_everything(routes: list[list[int]], size: int, extended: int, sealed: bool) -> None:
    with connections(len(routes)) as (members, relays):
        engine = Engine(1, ping_after=0, dead_after=0)
        try:
            engine.add_network()
            for number, end in enumerate(relays):
                engine.bind(engine.adopt(os.dup(end.fileno()), extended=extended), MEMBER_BASE + number)
            found = Endpoints(
                fds(members), routes, size, window_bytes=WINDOW, passed=extended == CANDY3, sealed=sealed
            ).run(packets=200)
            drops = sum(engine.drops().values())
        finally:
            engine.stop()
    assert found["sent"] == found["delivered"] + drops
    assert found["reordered"] == found["misdelivered"] == found["corrupt"] == 0


def test_a_member_that_does_not_read_is_not_waited_for() -> None:
    with connections(4) as (members, relays):
        engine = Engine(1, ping_after=0, dead_after=0)
        try:
            engine.add_network()
            for number, end in enumerate(relays):
                engine.bind(engine.adopt(os.dup(end.fileno()), extended=True), MEMBER_BASE + number)
            endpoints = Endpoints(fds(members), [[2], [3], [], []], SIZE, window_bytes=WINDOW, stalled=frozenset({3}))
            found = endpoints.run(packets=COUNT)
        finally:
            engine.stop()
    assert found["sent"] == found["delivered"] >= COUNT


def test_a_closed_connection_ends_the_run() -> None:
    with connections(2) as (members, relays):
        endpoints = Endpoints(fds(members), [[1], []], SIZE, window_bytes=WINDOW)
        relays[1].close()
        with pytest.raises(ConnectionError):
            endpoints.run(packets=1)


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="from 24 to 65535"):
        Endpoints([0], [[0]], 23, window_bytes=0)
    with pytest.raises(ValueError, match="no member 1"):
        Endpoints([0], [[1]], 100, window_bytes=0)
    with pytest.raises(ValueError, match="one route for each member"):
        Endpoints([0], [], 100, window_bytes=0)
    with pytest.raises(ValueError, match="one route for each member"):
        BareRelay([0], [[]])
    with pytest.raises(ValueError, match="size of a frame"):
        BareRelay([0, 0, 0], [[1, 2], [], []])
    with pytest.raises(ValueError, match="size of a frame"):
        BareRelay([0, 0], [[1], []], segments=True)


def test_the_cpu_time_of_a_process_is_read() -> None:
    assert process_cpu_ns(os.getpid()) > 0
    with pytest.raises(OSError, match="No such process"):
        process_cpu_ns(2**22 + 1)


def test_a_relay_that_lets_nobody_in_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would hold the bench's output open, and the reader of that would wait for ever."""
    started: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            started.append(self)

    def refuse(*_: object) -> None:
        raise ConnectionError("the relay did not upgrade")

    monkeypatch.setattr("contestant.subprocess.Popen", Noted)
    monkeypatch.setattr("contestant.log_in", refuse)
    cores = Cores(pinned=False)
    try:
        with pytest.raises(ConnectionError, match="did not upgrade"):
            Aiohttp(one_to_one(1), SIZE, cores)
    finally:
        cores.release()
    [relay] = started
    assert relay.returncode == -signal.SIGKILL


def test_the_table_is_drawn_and_written(tmp_path: Path) -> None:
    """The command with every contestant, each for an instant."""
    figures = tmp_path / "figures.json"
    command = [sys.executable, str(BENCH / "throughput.py"), "--size", "100", "--pairs", "2", "--rounds", "1"]
    ran = subprocess.run([*command, "--seconds", "0.02", "--json", str(figures)], capture_output=True, text=True)
    # So short a run may miss anything; then, and only then, it ends with status 1.
    assert ran.returncode == ("missed  " in ran.stdout), ran.stderr
    for name in (
        "candy",
        "limit",
        "no candy.2",
        "limit, segments",
        "candy, candy.3",
        "candy, sealed",
        "limit, sealed",
        "aiohttp",
        "one stalled",
        *(["picows"] if find_spec("picows") else []),
    ):
        assert name in ran.stdout
    assert '"relay": "limit"' in figures.read_text()
