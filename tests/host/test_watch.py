"""An interface that is watched, in a fresh network namespace: whatever others take away is there again, and named."""

import asyncio
import subprocess
from collections.abc import Callable, Coroutine
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any, cast

import pytest
from lab.namespaces import in_new_namespace
from lab.programs import PATIENCE_S
from lab.setting import Journal, journaling

from candy._fastpath import Engine
from candy.errors import InterfaceGone, OperationalError
from candy.host import watch as watching
from candy.host.interface import Interface
from candy.host.kernelroutes import KernelRoutes
from candy.host.notifications import Kind, Notifications
from candy.host.reconciler import TRIES, Fact, Judge, Part
from candy.host.tun import Tun
from candy.host.watch import watch
from candy.protocol.wire import RouteEntry

OWN, OTHER = IPv4Interface("192.168.202.7/24"), IPv4Interface("10.9.0.1/16")
GATEWAY = IPv4Address("192.168.202.9")
LAN_A, LAN_B = (RouteEntry(IPv4Network(text), GATEWAY) for text in ("10.1.0.0/16", "10.2.0.0/16"))
MTU = "candy was changed from outside, setting it right: MTU 1400"


class Unused:
    """Stands in for the engine, which has no part in this."""

    def adopt_tun(self, fd: int, *, network: int, vnet: bool) -> int:
        return 3

    def set_routes(self, tun: int, address: int, routes: list[tuple[int, int, int]]) -> bool:
        return True


class Watched(Interface):
    """Tells when it was looked at."""

    def __init__(self, tun: Tun) -> None:
        super().__init__(tun, KernelRoutes(tun.name), cast(Engine, Unused()))
        self._looked = asyncio.Event()

    async def reconcile(self, judge: Judge) -> None:
        await super().reconcile(judge)
        self._looked.set()

    async def looked(self) -> None:
        """Wait for the next look."""
        self._looked.clear()
        async with asyncio.timeout(PATIENCE_S):
            await self._looked.wait()


class Machine:
    """A network namespace with an interface that has an address and two routes, and is watched."""

    def __init__(self, tun: Tun, journal: Journal) -> None:
        self.tun = tun
        self.journal = journal
        self.interface = Watched(tun)
        self.before = ""
        self.task: asyncio.Task[None]

    @staticmethod
    def run(command: str) -> str:
        return subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout

    def state(self) -> str:
        """All of it, as `ip` shows it."""
        shown = self.run("ip -4 -o address show dev candy; ip -o link show dev candy; ip route show dev candy")
        return "\n".join(sorted(" ".join(line.split()) for line in shown.splitlines()))

    async def put_right(self, what: str, times: int = 1) -> None:
        await self.journal.said(f"candy was changed from outside, setting it right: {what}", times)
        assert self.state() == self.before


def on_a_machine(test: Callable[[Machine], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine function on a thread of its own, in a network namespace of its own."""

    async def body() -> None:
        with journaling() as journal, Tun("candy", 1400) as tun, Notifications() as notifications:
            machine = Machine(tun, journal)
            machine.run("ip link set lo up; ip link add eth0 type bridge; ip link set eth0 up")
            await machine.interface.configure(OWN)
            await machine.interface.follow((LAN_A, LAN_B))
            machine.before = machine.state()
            machine.task = asyncio.create_task(watch(machine.interface, notifications))
            try:
                await test(machine)
            finally:
                machine.task.cancel()
                await asyncio.wait([machine.task])

    in_new_namespace(lambda: asyncio.run(body()))


@pytest.mark.netns
@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("ip link set candy mtu 1280", "MTU 1400"),
        ("ip link set candy txqueuelen 1000", "queue length 500"),
        ("ip link set candy mtu 1280 txqueuelen 1000", "MTU 1400, queue length 500"),
        # The kernel takes the routes along.
        (
            "ip address flush dev candy",
            "address 192.168.202.7/24, route to 10.1.0.0/16, route to 10.2.0.0/16, route to 192.168.202.0/24",
        ),
        (
            "ip link set candy down",
            "state up, route to 10.1.0.0/16, route to 10.2.0.0/16, route to 192.168.202.0/24",
        ),
        ("ip link set candy down; ip link set candy up", "route to 10.1.0.0/16, route to 10.2.0.0/16"),
        ("ip route flush dev candy", "route to 10.1.0.0/16, route to 10.2.0.0/16, route to 192.168.202.0/24"),
        ("ip route del 10.2.0.0/16", "route to 10.2.0.0/16"),
        ("ip route del 192.168.202.0/24", "route to 192.168.202.0/24"),
        (
            "ip link set candy down mtu 1280; ip address flush dev candy",
            "MTU 1400, address 192.168.202.7/24, state up, route to 10.1.0.0/16 and 2 more",
        ),
    ],
)
def test_what_is_taken_away_is_put_right(change: str, what: str) -> None:
    async def test(machine: Machine) -> None:
        machine.run(change)
        await machine.put_right(what)

    on_a_machine(test)


@pytest.mark.netns
def test_what_others_add_stays() -> None:
    async def test(machine: Machine) -> None:
        machine.run("ip address add 10.77.0.1/24 dev candy; ip route add default dev candy; ip route del 10.1.0.0/16")
        await machine.journal.said("setting it right: route to 10.1.0.0/16")
        assert "10.77.0.1/24" in machine.state()
        assert "default dev candy" in machine.run("ip route")

    on_a_machine(test)


@pytest.mark.netns
def test_its_own_changes_are_no_news() -> None:
    async def test(machine: Machine) -> None:
        for address, entries in ((OTHER, (LAN_A,)), (OWN, (LAN_B,)), (OTHER, (LAN_B,)), (OWN, (LAN_A, LAN_B))):
            await machine.interface.configure(address)
            await machine.interface.looked()
            await machine.interface.follow(entries)
            await machine.interface.looked()
        machine.run("ip link set candy mtu 1280")
        await machine.put_right("MTU 1400")
        assert machine.journal.warnings == [MTU]

    on_a_machine(test)


@pytest.mark.netns
def test_another_route_in_the_way_is_left_alone() -> None:
    """What was taken away can't come back: that is told as at any other time, and not tried again."""

    async def test(machine: Machine) -> None:
        machine.run("ip route del 10.1.0.0/16; ip route add 10.1.0.0/16 dev eth0")
        await machine.journal.said("10.1.0.0/16 is not reached through the network: there is a route already")
        machine.run("ip link set candy mtu 1280")
        await machine.journal.said(MTU)
        assert "10.1.0.0/16 dev eth0" in machine.run("ip route")
        assert len(machine.journal.warnings) == 3

    on_a_machine(test)


@pytest.mark.netns
def test_a_route_comes_once_nothing_is_in_its_way() -> None:
    async def test(machine: Machine) -> None:
        machine.run("ip address add 10.3.0.9/16 dev eth0; ip link set candy down")
        await machine.interface.follow((LAN_A, LAN_B, RouteEntry(IPv4Network("10.3.0.0/16"), GATEWAY)))
        # Refused by the kernel and by rule: all three. There is nothing else to be put right.
        machine.run("ip link set candy up")
        await machine.journal.said("10.2.0.0/16 is reached through 192.168.202.9", 2)
        assert "10.3.0.0/16 dev candy" not in machine.state()
        machine.run("ip address flush dev eth0")
        await machine.journal.said("10.3.0.0/16 is reached through 192.168.202.9")
        assert machine.state() == "\n".join(
            sorted([*machine.before.splitlines(), "10.3.0.0/16 proto 202 scope link src 192.168.202.7"])
        )

    on_a_machine(test)


@pytest.mark.netns
def test_the_address_went_to_another_interface() -> None:
    async def test(machine: Machine) -> None:
        machine.run("ip address flush dev candy; ip address add 192.168.202.7/24 dev eth0")
        await machine.journal.said("192.168.202.7 is already an address of eth0: remove it there")
        machine.run("ip address flush dev eth0")
        await machine.journal.said("setting it right: address 192.168.202.7/24", 2)
        assert machine.state() == machine.before
        assert len(machine.journal.warnings) == 3

    on_a_machine(test)


@pytest.mark.netns
@pytest.mark.parametrize(
    "removal",
    [
        "ip link del candy",
        "ip link set candy down; ip link set candy name other",
        # Another of its name is not ours.
        "ip link del candy; ip link add candy type bridge",
    ],
)
def test_an_interface_that_is_gone_is_the_end(removal: str) -> None:
    async def test(machine: Machine) -> None:
        machine.run(removal)
        with pytest.raises(InterfaceGone, match=r"^interface candy was removed from outside: start again$"):
            await machine.task
        assert machine.journal.warnings == []

    on_a_machine(test)


@pytest.mark.netns
def test_a_fight_is_given_up() -> None:
    async def test(machine: Machine) -> None:
        for number in range(1, TRIES + 1):
            machine.run("ip link set candy mtu 1280")
            await machine.put_right("MTU 1400", number)
        machine.run("ip link set candy mtu 1280")
        await machine.journal.said("candy is changed from outside again and again, leaving it so for 60 s: MTU 1400")
        # The rest is still looked after.
        machine.run("ip route flush dev candy")
        await machine.journal.said(
            "setting it right: route to 10.1.0.0/16, route to 10.2.0.0/16, route to 192.168.202.0/24"
        )
        assert "mtu 1280" in machine.state()

    on_a_machine(test)


class Stubborn:
    """A subject that can't be put right, and a kernel that tells nothing."""

    name = "candy"
    kinds = (Kind.LINK,)

    def __init__(self) -> None:
        self.failures = ["no", "no", "never", None, "no"]
        self.looks = 0
        self.done = asyncio.Event()

    async def reconcile(self, judge: Judge) -> None:
        if self.looks == len(self.failures):
            self.done.set()
            return
        failure = self.failures[self.looks]
        self.looks += 1
        if failure is not None:
            raise OperationalError(f"candy: {failure}")
        judge({Fact(Part.MTU, 1400)}, set())


async def test_a_kernel_that_tells_nothing_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    """One look after another, and each failure is said once in a row."""

    def subscribe(*_: object) -> None:
        raise OSError("Operation not permitted")

    monkeypatch.setattr(watching, "EVERY_S", 0.01)
    monkeypatch.setattr(Notifications, "subscribe", subscribe)
    stubborn = Stubborn()
    with Notifications() as notifications:
        task = asyncio.create_task(watch(stubborn, notifications))
        await stubborn.done.wait()
        task.cancel()
        await asyncio.wait([task])
    assert journal.warnings == ["candy: no", "candy: never", MTU, "candy: no"]
    assert journal.lines[0] == (
        "candy: looked at every 0 s, for the kernel tells of no changes: Operation not permitted"
    )
