"""What the kernel tells, in a fresh network namespace: each kind of change, to those who asked, and nothing lost."""

import asyncio
import socket
import subprocess
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import pytest
from lab.namespaces import in_new_namespace
from lab.programs import PATIENCE_S

from candy.host import notifications
from candy.host.notifications import Kind, Notifications

pytestmark = pytest.mark.netns


class Listener:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Kind] = []
        self._called = asyncio.Event()

    def __call__(self, kind: Kind) -> None:
        self.told.append(kind)
        self._called.set()

    async def hears(self, kind: Kind) -> None:
        """Wait until it is told of this kind."""
        async with asyncio.timeout(PATIENCE_S):
            while kind not in self.told:
                self._called.clear()
                await self._called.wait()


def on_a_machine(
    test: Callable[[Notifications, Listener], Coroutine[Any, Any, None]], kinds: Iterable[Kind] = Kind
) -> None:
    """Run a coroutine function in a network namespace with an interface eth0."""

    async def body() -> None:
        run("ip", "link", "add", "eth0", "type", "bridge")
        run("ip", "link", "set", "eth0", "up")
        listener, failures = Listener(), list[dict[str, Any]]()
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
        with Notifications() as told:
            told.subscribe(kinds, listener)
            await test(told, listener)
        assert failures == []

    in_new_namespace(lambda: asyncio.run(body()))


def run(*command: str) -> None:
    subprocess.run(command, check=True)


def forward() -> None:
    path = Path("/proc/sys/net/ipv4/ip_forward")
    path.write_text("0" if path.read_text().strip() == "1" else "1")


def read_all(opened: socket.socket) -> None:
    while True:
        opened.recv(1)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (Kind.LINK, lambda: run("ip", "link", "set", "eth0", "down")),
        (Kind.LINK, lambda: run("ip", "link", "set", "eth0", "mtu", "1400")),
        (Kind.LINK, lambda: run("ip", "link", "set", "eth0", "txqueuelen", "7")),
        (Kind.LINK, lambda: run("ip", "link", "del", "eth0")),
        (Kind.ADDRESS, lambda: run("ip", "address", "add", "192.0.2.1/24", "dev", "eth0")),
        (Kind.ADDRESS, lambda: run("ip", "address", "add", "2001:db8::1/64", "dev", "eth0")),
        (Kind.ROUTE, lambda: run("ip", "route", "add", "192.0.2.0/24", "dev", "eth0")),
        (Kind.ROUTE, lambda: run("ip", "rule", "add", "from", "192.0.2.1", "table", "7")),
        (Kind.FORWARDING, forward),
        (Kind.RULESET, lambda: run("nft", "add", "table", "ip", "candy")),
    ],
)
def test_each_kind_is_told(kind: Kind, change: Callable[[], None]) -> None:
    async def test(_: Notifications, listener: Listener) -> None:
        change()
        await listener.hears(kind)

    on_a_machine(test, [kind])


def test_each_listener_hears_of_its_own_kinds() -> None:
    async def test(told: Notifications, links: Listener) -> None:
        routes, both = Listener(), Listener()
        told.subscribe([Kind.ROUTE], routes)
        told.subscribe([Kind.LINK, Kind.ROUTE], both)
        run("ip", "route", "add", "192.0.2.0/24", "dev", "eth0")
        await routes.hears(Kind.ROUTE)
        await both.hears(Kind.ROUTE)
        assert links.told == []
        run("ip", "link", "set", "eth0", "mtu", "1400")
        await links.hears(Kind.LINK)
        await both.hears(Kind.LINK)
        assert set(routes.told) == {Kind.ROUTE}

    on_a_machine(test, [Kind.LINK])


def test_more_than_the_kernel_keeps() -> None:
    """ENOBUFS is a notification like any other, and those behind it are heard."""

    async def test(told: Notifications, listener: Listener) -> None:
        room = told._sockets[Kind.LINK]
        room.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        for mtu in range(1300, 1320):
            run("ip", "link", "set", "eth0", "mtu", str(mtu))
        with pytest.raises(OSError, match="No buffer space available"):
            read_all(room)
        with pytest.raises(BlockingIOError):
            read_all(room)
        listener.told.clear()
        for mtu in range(1300, 1320):
            run("ip", "link", "set", "eth0", "mtu", str(mtu))
        await listener.hears(Kind.LINK)
        listener.told.clear()
        run("ip", "link", "set", "eth0", "mtu", "1400")
        await listener.hears(Kind.LINK)

    on_a_machine(test, [Kind.LINK])


def test_closed_it_tells_nobody() -> None:
    async def test(told: Notifications, listener: Listener) -> None:
        told.close()
        with Notifications() as others:
            other = Listener()
            others.subscribe([Kind.LINK], other)
            run("ip", "link", "set", "eth0", "mtu", "1400")
            await other.hears(Kind.LINK)
        assert listener.told == []
        told.close()

    on_a_machine(test)


def test_a_kernel_that_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves no socket behind: else there would be a ResourceWarning."""
    monkeypatch.setattr(notifications, "NETLINK_ADD_MEMBERSHIP", 12345)

    async def test(_: Notifications, listener: Listener) -> None:
        with Notifications() as others, pytest.raises(OSError, match="Protocol not available"):
            others.subscribe([Kind.LINK], listener)

    on_a_machine(test, [])
