"""The handler of the log: a reader that stalls, disks that are full and pipes that are closed, without a program."""

import errno
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from lab.programs import PATIENCE_S

from candy.cli import log
from candy.cli.log import LINES_MAX, JsonFormatter, StderrHandler


class Pipe:
    """Stands in for stderr. Its reader reads when the test does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reader, writer = os.pipe()
        self.stream = open(writer, "w", encoding="utf-8")  # noqa: SIM115
        self._monkeypatch = monkeypatch

    def handler(self) -> StderrHandler:
        # Not before the test runs, because pytest sets its own then.
        self._monkeypatch.setattr(sys, "stderr", self.stream)
        return StderrHandler()

    def read_until(self, pattern: str) -> list[str]:
        """All lines up to one with this regular expression."""
        received = b""
        while not re.search(pattern, received.decode().rpartition("\n")[0], re.MULTILINE):
            data = os.read(self.reader, 1 << 16)
            assert data, received
            received += data
        return received.decode().splitlines()

    def read_all(self) -> list[str]:
        """What is left, of a writer that has ended."""
        self.stream.close()
        received = b""
        while data := os.read(self.reader, 1 << 16):
            received += data
        return received.decode().splitlines()

    def close(self) -> None:
        os.close(self.reader)
        self.stream.close()


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    pipe = Pipe(monkeypatch)
    yield pipe
    pipe.close()


class Disk:
    """Stands in for stderr: a disk that refuses while `error` says so, and takes a part of a line before."""

    encoding = "utf-8"

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: int | None = None
        self.free = 1 << 20
        self.content = b""
        self.asked = threading.Semaphore(0)
        self.buffer = SimpleNamespace(raw=self)
        monkeypatch.setattr(sys, "stderr", self)

    def write(self, data: memoryview) -> int:
        if self.error is not None:
            if self.free == 0:
                self.asked.release()
                raise OSError(self.error, os.strerror(self.error))
            data = data[: self.free]
            self.free -= len(data)
        self.content += data
        self.asked.release()
        return len(data)

    def wait(self) -> None:
        """Until it was written to once more."""
        assert self.asked.acquire(timeout=PATIENCE_S)


def logger_of(handler: logging.Handler) -> logging.Logger:
    """One of its own, so that nothing else gets its records."""
    logger = logging.Logger("test")
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(handler)
    return logger


def until_all_is_tried(handler: StderrHandler) -> None:
    """Its thread has taken everything that was said."""
    while handler._waiting.qsize():
        os.sched_yield()


def test_json(pipe: Pipe) -> None:
    handler = pipe.handler()
    logger = logger_of(handler)
    handler.setFormatter(JsonFormatter(timestamps=True))
    about = {"source": "2001:db8::1", "seconds": 1.5}
    logger.info("logged in as %s\n\udcff é", "192.168.202.7", extra={"about": about})
    handler.setFormatter(JsonFormatter(timestamps=False))
    try:
        raise ValueError("with its traceback")
    except ValueError:
        logger.exception("a fault")
    handler.close()
    first, second = (json.loads(line) for line in pipe.read_all())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert first == {
        "level": "info",
        "message": "logged in as 192.168.202.7\n\udcff é",
        "source": "2001:db8::1",
        "seconds": 1.5,
    }
    assert second.pop("exception").endswith("ValueError: with its traceback")
    assert second == {"level": "error", "message": "a fault"}


def test_all_lines_are_there_after_the_end(pipe: Pipe) -> None:
    handler = pipe.handler()
    logger = logger_of(handler)
    handler.say("the first")
    for number in range(100):
        logger.info("line %d of %s", number, "100")
    try:
        raise ValueError("with its traceback")
    except ValueError:
        logger.exception("the last: \udcff")
    handler.close()
    handler.close()
    lines = pipe.read_all()
    assert lines[:101] == ["the first", *(f"INFO line {number} of 100" for number in range(100))]
    assert lines[101:103] == ["ERROR the last: \\udcff", "Traceback (most recent call last):"]
    assert lines[-1] == "ValueError: with its traceback"


def test_a_reader_that_stalls(pipe: Pipe) -> None:
    """Nobody waits. All that finds room is written, and the rest is counted in its place."""
    handler = pipe.handler()
    logger = logger_of(handler)
    # More than the pipe and the queue hold.
    count = 4 * LINES_MAX
    for number in range(count):
        logger.info("%0100d", number)
    lines = pipe.read_until(r"lost: stderr did not take them$")
    logger.info("%0100d", count)
    handler.close()
    expected = 0
    for line in [*lines, *pipe.read_all()]:
        told = re.fullmatch(r"WARNING (\d+) lines of this log were lost: stderr did not take them", line)
        if told is None:
            assert line == f"INFO {expected:0100d}"
        expected += int(told[1]) if told else 1
    assert expected == count + 1


def test_the_count_stands_where_lines_are_missing(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "LINES_MAX", 2)
    handler = pipe.handler()
    # More than a pipe holds.
    handler.say("x" * (1 << 20))
    until_all_is_tried(handler)
    for line in ("one", "two", "three", "four"):
        handler.say(line)
    lines = pipe.read_until("two$")
    handler.say("five")
    handler.close()
    lines = lines[1:] + pipe.read_all()
    assert lines == ["one", "two", "2 lines of this log were lost: stderr did not take them", "five"]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_is_full_for_a_while(error: int, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    handler = StderrHandler()
    logger = logger_of(handler)
    logger.info("before")
    disk.wait()
    disk.error, disk.free = error, 6
    for line in ("half of this", "all of this"):
        logger.info(line)
    # A part of the first, its rest, the second.
    for _ in range(3):
        disk.wait()
    disk.error = None
    logger.info("after")
    handler.close()
    assert disk.content.decode().splitlines() == [
        "INFO before",
        "INFO h",
        "WARNING 2 lines of this log were lost: stderr did not take them",
        "INFO after",
    ]


def test_a_reader_that_has_gone(pipe: Pipe) -> None:
    handler = pipe.handler()
    os.close(pipe.reader)
    logger = logger_of(handler)
    for _ in range(10):
        logger.info("for nobody")
    handler.close()
    pipe.reader = os.open(os.devnull, os.O_RDONLY)


def test_a_pipe_that_another_process_made_non_blocking(pipe: Pipe) -> None:
    os.set_blocking(pipe.stream.fileno(), False)
    handler = pipe.handler()
    for number in range(2000):
        handler.say(f"{number:0100d}")
    lines = pipe.read_until("0{96}1999$")
    handler.close()
    assert [int(line) for line in lines] == list(range(2000))


def test_the_end_does_not_wait_for_a_reader_that_stalled(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "LAST_LINES_S", 0.0)
    handler = pipe.handler()
    for _ in range(2000):
        handler.say("x" * 100)
    handler.close()
    [thread] = [thread for thread in threading.enumerate() if thread.name == "log"]
    assert thread.daemon
    # It is let go, for the next test.
    pipe.read_until("(x{100}\n){1999}x{100}$")
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


@pytest.mark.parametrize("stderr", [None, SimpleNamespace(buffer=None)])
def test_no_stderr_at_all(stderr: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    handler = StderrHandler()
    logger_of(handler).info("for nobody")
    handler.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "log"]
