"""Accepting: few at a time, in a loop of our own that waits when there is no room."""

import asyncio
import errno
import os
import re
import resource
import socket
from collections.abc import Iterator
from typing import cast

import pytest

from candy.relay import accept
from candy.relay.accept import ACCEPTS_PER_TURN, QUIET_S, RESERVE, Acceptor, is_shortage

PATIENCE_S = 20


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=2 * ACCEPTS_PER_TURN) as listener:
        listener.setblocking(False)
        yield listener


class Guests:
    """What an acceptor has accepted."""

    def __init__(self) -> None:
        self.came: list[tuple[socket.socket, str]] = []
        self._changed = asyncio.Event()

    def add(self, connection: socket.socket, peer: str) -> None:
        self.came.append((connection, peer))
        self._changed.set()

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.came) < count:
                self._changed.clear()
                await self._changed.wait()

    def close(self) -> None:
        for connection, _ in self.came:
            connection.close()


async def test_connections_and_the_addresses_of_their_peers(listener: socket.socket) -> None:
    guests = Guests()
    acceptor = Acceptor([listener], guests.add)
    with socket.create_connection(listener.getsockname(), PATIENCE_S) as one:
        await guests.wait_for(1)
        [(connection, peer)] = guests.came
        assert peer == "127.0.0.1"
        assert connection.getpeername() == one.getsockname()
    acceptor.close()
    acceptor.close()
    assert listener.fileno() == -1
    guests.close()


async def test_others_have_their_turn(listener: socket.socket) -> None:
    """What is due meanwhile does not wait until all are accepted."""
    guests = Guests()
    peers = [socket.create_connection(listener.getsockname(), PATIENCE_S) for _ in range(ACCEPTS_PER_TURN + 10)]
    acceptor = Acceptor([listener], guests.add)
    while not guests.came:
        await asyncio.sleep(0)
    assert len(guests.came) == ACCEPTS_PER_TURN
    await guests.wait_for(len(peers))
    acceptor.close()
    for peer in peers:
        peer.close()
    guests.close()


class Failing:
    """A listening socket whose accept() fails with these errors, one after the other, and then finds nobody."""

    def __init__(self, listener: socket.socket, *numbers: int) -> None:
        self.listener = listener
        self.left = list(numbers)
        self.calls = 0

    def fileno(self) -> int:
        return self.listener.fileno()

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        self.calls += 1
        if self.left:
            number = self.left.pop(0)
            raise OSError(number, os.strerror(number))
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def close(self) -> None:
        self.listener.close()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EMFILE, r"no descriptor is left .*: the limit is \d+: raise LimitNOFILE= .*ulimit -n"),
        (errno.ENFILE, r"this machine has no descriptor left .*: raise the sysctl fs\.file-max"),
        (errno.ENOBUFS, r"the kernel has no memory for another connection: .*net\.ipv4\.tcp_mem"),
        (errno.ENOMEM, r"the kernel has no memory for another connection: .*net\.ipv4\.tcp_mem"),
    ],
)
async def test_no_room(
    listener: socket.socket,
    number: int,
    words: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is said once, and each further try is after a pause."""
    monkeypatch.setattr(accept, "PAUSE_S", 0.0)
    failing = Failing(listener, *[number] * 3)
    with socket.create_connection(listener.getsockname(), PATIENCE_S):
        acceptor = Acceptor([cast(socket.socket, failing)], Guests().add)
        async with asyncio.timeout(PATIENCE_S):
            while failing.left:
                before = failing.calls
                await asyncio.sleep(0)
                assert failing.calls - before <= 1
        acceptor.close()
    [line] = caplog.messages
    assert re.match(words, line), line


async def test_said_again_after_a_while_without_shortage(
    listener: socket.socket, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now)
    acceptor = Acceptor([listener], Guests().add)
    shortage = OSError(errno.EMFILE, "")
    for later, said in ((0.0, 1), (QUIET_S - 1, 1), (QUIET_S - 1, 1), (QUIET_S, 2)):
        now += later
        acceptor.short(shortage)
        assert len(caplog.messages) == said
    acceptor.close()


async def test_errors_of_one_connection_cost_no_other(listener: socket.socket) -> None:
    failing = Failing(listener, errno.ECONNABORTED, errno.EPROTO, errno.EHOSTUNREACH)
    with socket.create_connection(listener.getsockname(), PATIENCE_S):
        acceptor = Acceptor([cast(socket.socket, failing)], Guests().add)
        async with asyncio.timeout(PATIENCE_S):
            while not failing.calls:
                await asyncio.sleep(0)
        acceptor.close()
    assert failing.left == []


async def test_a_few_descriptors_are_left(listener: socket.socket, caplog: pytest.LogCaptureFixture) -> None:
    """For the relay itself: a file that it opens, the duplicate of a connection that it hands over."""
    guests = Guests()
    peers = [socket.create_connection(listener.getsockname(), PATIENCE_S) for _ in range(10)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    acceptor = Acceptor([listener], guests.add)
    # The kernel gives the least number that is free, and there may be holes.
    free = [os.dup(listener.fileno()) for _ in range(RESERVE + 4)]
    for descriptor in free:
        os.close(descriptor)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(free) + 1, hard))
        async with asyncio.timeout(PATIENCE_S):
            while not caplog.messages:
                await asyncio.sleep(0)
        assert len(guests.came) == 4
        for descriptor in [os.dup(listener.fileno()) for _ in range(RESERVE)]:
            os.close(descriptor)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        acceptor.close()
        for peer in peers:
            peer.close()
        guests.close()


def test_what_is_a_shortage() -> None:
    assert is_shortage(OSError(errno.EMFILE, ""))
    assert not is_shortage(OSError(errno.ECONNABORTED, ""))
