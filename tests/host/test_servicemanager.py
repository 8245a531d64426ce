"""What a service manager hears, over a socket of the test's own."""

import asyncio
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from candy.host.servicemanager import ServiceManager


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.setblocking(False)
        yield heard


def environ(heard: socket.socket, watchdog: str | None = "6000000", pid: int | None = None) -> dict[str, str]:
    given = {"NOTIFY_SOCKET": heard.getsockname()}
    if watchdog is not None:
        given["WATCHDOG_USEC"] = watchdog
    return given if pid is None else given | {"WATCHDOG_PID": str(pid)}


def hear(heard: socket.socket) -> list[str]:
    said = []
    while True:
        try:
            said.append(heard.recv(4096).decode())
        except BlockingIOError:
            return said


def test_its_life(manager: socket.socket) -> None:
    service = ServiceManager(environ(manager))
    service.ready()
    service.reloading()
    service.ready()
    service.stopping()
    ready, reloading, *rest = hear(manager)
    assert (ready, rest) == ("READY=1", ["READY=1", "STOPPING=1"])
    first, second = reloading.splitlines()
    assert first == "RELOADING=1"
    assert int(second.removeprefix("MONOTONIC_USEC=")) > 0


def test_an_abstract_name() -> None:
    name = f"candy-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0{name}")
        heard.setblocking(False)
        ServiceManager({"NOTIFY_SOCKET": f"@{name}"}).ready()
        assert hear(heard) == ["READY=1"]


def test_nobody_listens(tmp_path: Path) -> None:
    ServiceManager({}).ready()
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "none")}).ready()


async def looks(service: ServiceManager, rounds: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let it look as often as there are numbers of rounds; returns how long it slept between."""
    slept, left, forever = [], list(rounds), asyncio.Event()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if not left:
            await forever.wait()

    monkeypatch.setattr(asyncio, "sleep", sleep)
    watching = asyncio.create_task(service.watch(lambda: left.pop(0), lambda: f"{len(left)}\nleft"))
    loop = asyncio.get_running_loop()
    while left or len(slept) < len(rounds):
        turn = loop.create_future()
        loop.call_soon(turn.set_result, None)
        await turn
    watching.cancel()
    await asyncio.wait([watching])
    return slept


async def test_a_worker_that_hangs(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is said while one does not come round, and all is well when it does again."""
    with caplog.at_level(logging.ERROR):
        slept = await looks(ServiceManager(environ(manager)), [[1, 1], [2, 2], [3, 2], [4, 2], [5, 3, 1]], monkeypatch)
    assert hear(manager) == [
        *("STATUS=5 left", "WATCHDOG=1", "STATUS=4 left", "WATCHDOG=1", "STATUS=3 left", "STATUS=2 left"),
        *("STATUS=1 left", "WATCHDOG=1"),
    ]
    assert caplog.messages == ["worker 1 of the engine does nothing any more"] * 2
    assert slept == [2.0] * 5


@pytest.mark.parametrize(
    ("watchdog", "pid", "period", "is_fed"),
    [
        ("30000000", None, 5.0, True),
        ("1000000", None, 1.5, True),
        (None, None, 5.0, False),
        ("6000000", 1, 5.0, False),
        ("6000000", os.getpid(), 2.0, True),
    ],
    ids=["of any", "often", "none", "another's", "its own"],
)
async def test_how_often(
    manager: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
    watchdog: str | None,
    pid: int | None,
    period: float,
    is_fed: bool,
) -> None:
    slept = await looks(ServiceManager(environ(manager, watchdog, pid)), [[1], [2]], monkeypatch)
    assert slept == [period] * 2
    assert ("WATCHDOG=1" in hear(manager)) is is_fed
