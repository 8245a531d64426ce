"""An interface's routes: who has them first, what becomes of refused ones, and when nothing is unwrapped."""

import asyncio
from collections.abc import Collection, Iterable
from collections.abc import Set as AbstractSet
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import cast

import pytest

from candy._fastpath import Engine
from candy.host.interface import Interface
from candy.host.kernelroutes import KernelRoutes
from candy.host.reconciler import Fact, Part
from candy.host.tun import Tun
from candy.protocol.wire import RouteEntry

OWN = IPv4Interface("192.168.202.5/24")
GATEWAY = IPv4Address("192.168.202.9")
RELAY = {IPv4Address("203.0.113.1")}


def entry(text: str) -> RouteEntry:
    return RouteEntry(IPv4Network(text), GATEWAY)


UP = Fact(Part.STATE, "up")
LAN_A, LAN_B = entry("10.1.0.0/16"), entry("10.2.0.0/16")


class Machine:
    """Stands in for device, kernel and engine, and notes what each is told, in order."""

    name = "candy"
    vnet = False

    def __init__(self) -> None:
        self.address: IPv4Interface | None = None
        self.restored: list[tuple[Fact, ...]] = []
        self.refused: set[RouteEntry] = set()
        self.installed: dict[IPv4Network, IPv4Address] = {}
        self.told: list[tuple[object, ...]] = []
        self.asked = asyncio.Event()
        self.turn = asyncio.Event()
        self.turn.set()

    def fileno(self) -> int:
        return 7

    def adopt_tun(self, fd: int, *, network: int, vnet: bool) -> int:
        self.told.append(("adopt", fd, network, vnet))
        return 3

    async def configure(self, address: IPv4Interface) -> None:
        self.address = address

    @property
    def wanted(self) -> frozenset[Fact]:
        return frozenset({UP})

    async def found(self) -> frozenset[Fact]:
        return frozenset()

    async def restore(self, facts: tuple[Fact, ...]) -> None:
        self.restored.append(facts)

    def set_routes(self, tun: int, address: int, routes: list[tuple[int, int, int]]) -> bool:
        shown = [(str(IPv4Network((network, str(IPv4Address(mask))))), hop) for network, mask, hop in routes]
        self.told.append(("engine", tun, str(IPv4Address(address)), shown))
        return True

    async def install(
        self, entries: Iterable[RouteEntry], own: IPv4Interface, relay: Collection[IPv4Address]
    ) -> tuple[RouteEntry, ...]:
        self.asked.set()
        await self.turn.wait()
        taken = tuple(entry for entry in entries if entry not in self.refused)
        self.told.append(("kernel", own, relay, taken))
        self.installed = {entry.destination: entry.next_hop for entry in taken}
        return taken

    def close(self) -> None:
        self.told.append(("close",))


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
async def interface(machine: Machine) -> Interface:
    made = Interface(cast(Tun, machine), cast(KernelRoutes, machine), cast(Engine, machine), 2)
    assert machine.told == [("adopt", 7, 2, False)]
    machine.told.clear()
    await made.configure(OWN)
    return made


def engine(*routes: str, own: str = "192.168.202.5") -> tuple[object, ...]:
    """The engine's routes, all through the gateway."""
    return ("engine", 3, own, [(route, int(GATEWAY)) for route in routes])


async def test_the_engine_has_them_before_the_kernel(interface: Interface, machine: Machine) -> None:
    await interface.follow((LAN_A, LAN_B), relay=RELAY)
    assert machine.told == [engine("10.1.0.0/16", "10.2.0.0/16"), ("kernel", OWN, RELAY, (LAN_A, LAN_B))]


async def test_what_the_kernel_refuses_is_taken_from_the_engine_again(interface: Interface, machine: Machine) -> None:
    machine.refused = {LAN_A}
    await interface.follow((LAN_A, LAN_B))
    assert machine.told == [
        engine("10.1.0.0/16", "10.2.0.0/16"),
        ("kernel", OWN, (), (LAN_B,)),
        engine("10.2.0.0/16"),
    ]


async def test_without_an_address_nothing_is_routed(machine: Machine) -> None:
    made = Interface(cast(Tun, machine), cast(KernelRoutes, machine), cast(Engine, machine))
    machine.told.clear()
    await made.follow((LAN_A,))
    assert machine.told == []


async def test_members_within_a_destination_are_reached_directly(interface: Interface, machine: Machine) -> None:
    await interface.follow((LAN_A, entry("192.168.0.0/16")))
    routes = [("10.1.0.0/16", int(GATEWAY)), ("192.168.202.0/24", 0), ("192.168.0.0/16", int(GATEWAY))]
    assert machine.told[0] == ("engine", 3, "192.168.202.5", routes)


@pytest.mark.parametrize(
    ("entries", "is_gateway", "own"),
    [((), False, "0.0.0.0"), ((), True, "192.168.202.5"), ((LAN_A,), False, "192.168.202.5")],
)
async def test_nothing_is_unwrapped_where_no_rule_concerns_the_machine(
    interface: Interface, machine: Machine, entries: tuple[RouteEntry, ...], is_gateway: bool, own: str
) -> None:
    await interface.follow(entries, is_gateway=is_gateway)
    assert machine.told[0] == engine(*(str(entry.destination) for entry in entries), own=own)


async def test_changes_are_followed_one_after_another(interface: Interface, machine: Machine) -> None:
    machine.turn.clear()
    changes = [asyncio.create_task(interface.follow(entries)) for entries in ((LAN_A,), (LAN_B,))]
    await machine.asked.wait()
    machine.turn.set()
    await asyncio.gather(*changes)
    assert [told[0] for told in machine.told] == ["engine", "kernel", "engine", "kernel"]
    assert machine.told[-1] == ("kernel", OWN, (), (LAN_B,))


class Judgement:
    """Chooses everything, and notes what it was asked."""

    def __init__(self) -> None:
        self.missing: list[AbstractSet[Fact]] = []

    def __call__(self, wanted: AbstractSet[Fact], found: AbstractSet[Fact]) -> tuple[Fact, ...]:
        self.missing.append(wanted - found)
        return tuple(wanted - found)


async def test_what_was_taken_away_is_put_right_with_the_routes(interface: Interface, machine: Machine) -> None:
    await interface.follow((LAN_A,), relay=RELAY, is_gateway=False)
    told = machine.told.copy()
    machine.told.clear()
    judge = Judgement()
    await interface.reconcile(judge)
    assert judge.missing == [{UP, Fact(Part.ROUTE, LAN_A.destination)}]
    assert set(machine.restored[0]) == judge.missing[0]
    # As it was to be followed.
    assert machine.told == told


async def test_nothing_is_touched_that_nobody_chose(interface: Interface, machine: Machine) -> None:
    await interface.follow((LAN_A,))
    machine.told.clear()
    await interface.reconcile(lambda wanted, found: ())
    assert (machine.told, machine.restored) == ([], [])


async def test_routes_that_went_with_the_address_are_not_missed(interface: Interface, machine: Machine) -> None:
    """Which routes there are with the new one was not told yet."""
    await interface.follow((LAN_A,))
    await interface.configure(IPv4Interface("10.9.0.1/16"))
    machine.told.clear()
    judge = Judgement()
    await interface.reconcile(judge)
    assert judge.missing == [{UP}]
    assert machine.told == []


async def test_it_is_not_compared_while_it_changes(interface: Interface, machine: Machine) -> None:
    machine.turn.clear()
    change = asyncio.create_task(interface.follow((LAN_A,)))
    await machine.asked.wait()
    judge = Judgement()
    comparison = asyncio.create_task(interface.reconcile(judge))
    await asyncio.sleep(0)
    assert judge.missing == []
    machine.turn.set()
    await asyncio.gather(change, comparison)
    assert judge.missing == [{UP, Fact(Part.ROUTE, LAN_A.destination)}]


async def test_closed_with_its_device(interface: Interface, machine: Machine) -> None:
    interface.close()
    assert machine.told == [("close",)]
