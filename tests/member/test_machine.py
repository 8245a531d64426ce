"""What is found of this machine, for each way in which another program or network can be in a member's way."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any, cast

import pytest
from kit.recorded import PASSWORD

from candy.errors import OperationalError, UnwritableError
from candy.host.reconciler import Fact, Part
from candy.host.underlay import Holding, Overlaps, Underlay, Way
from candy.member import machine
from candy.member.findings import NOT_REACHED, Finding, State
from candy.member.machine import Machine, Running
from candy.member.settings import member_settings
from candy.settings import Given

OWN = IPv4Interface("192.168.202.7/24")
LAN = IPv4Network("192.168.50.0/24")
RUNNING = Running(state="connected", address=OWN, refused={}, installed=frozenset({LAN}))
HAS = Holding(True, "candy", frozenset({LAN, OWN.network}))
NOTHING = Holding(None, None, frozenset())
CLOSED = """
table ip fence {
\tchain between {
\t\ttype filter hook %s priority filter; policy drop;
\t}
}
"""


class Kernel:
    """What the machine has, in place of the real one."""

    def __init__(self) -> None:
        self.has = NOTHING
        self.networks: list[str] = []
        self.inside: list[str] = []
        self.harms = False
        self.no_tun: OperationalError | None = None
        self.made: list[str] = []
        self.ruleset = ""
        self.missing: list[Fact] = []
        self.no_nft: OperationalError | None = None
        self.forwards = True

    async def holding(self, name: str, address: IPv4Address) -> Holding:
        return self.has

    async def overlaps(
        self, own: IPv4Interface, routes: Collection[IPv4Network], ways: Mapping[IPv4Address, Way]
    ) -> Overlaps:
        return Overlaps(self.networks, self.inside, self.harms)

    def tun(self, name: str, mtu: int, *, offload: bool) -> "Kernel":
        if self.no_tun is not None:
            raise self.no_tun
        self.made.append(name)
        return self

    def close(self) -> None:
        self.made.append("closed")

    def masquerade(self, name: str) -> "Gateway":
        if self.no_nft is not None:
            raise self.no_nft
        return Gateway(self)


class Gateway:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def ruleset(self) -> str:
        return self._kernel.ruleset

    def missing(self) -> list[Fact]:
        return self._kernel.missing


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(machine, "holding", kernel.holding)
    monkeypatch.setattr(machine, "Tun", kernel.tun)
    monkeypatch.setattr(machine, "Masquerade", kernel.masquerade)
    monkeypatch.setattr(machine, "is_forwarding", lambda: kernel.forwards)
    return kernel


def made(kernel: Kernel, folder: Path, client: Running | None = None, **more: Any) -> Machine:
    settings = member_settings(
        {"websocket": Given("ws://relay.test", "-w")}, password=PASSWORD, state_dir=folder, **more
    )
    return Machine(settings, client, cast(Underlay, kernel))


def is_so(found: Finding, state: State, words: str) -> bool:
    assert (found.state, words in found.text) == (state, True), found
    return found.seconds is not None or state is State.SKIPPED


async def test_an_interface_that_can_be_made(kernel: Kernel, tmp_path: Path) -> None:
    found = await made(kernel, tmp_path).address(OWN)
    assert is_so(found, State.OK, "192.168.202.7/24 would be given")
    assert kernel.made == ["candy", "closed"]
    assert is_so(await made(kernel, tmp_path).address(None), State.SKIPPED, NOT_REACHED)


async def test_an_interface_that_can_not_be_made(kernel: Kernel, tmp_path: Path) -> None:
    kernel.no_tun = OperationalError("cannot make interface candy: run as root")
    assert is_so(await made(kernel, tmp_path).address(OWN), State.FAILED, "run as root")
    assert is_so(await made(kernel, tmp_path).address(None), State.FAILED, "run as root")


async def test_the_address_is_anothers(kernel: Kernel, tmp_path: Path) -> None:
    kernel.has = Holding(None, "eth0", frozenset())
    found = await made(kernel, tmp_path).address(OWN)
    assert is_so(found, State.FAILED, "192.168.202.7 is already an address of eth0: remove it there")


async def test_a_client_has_what_it_shall_have(kernel: Kernel, tmp_path: Path) -> None:
    kernel.has = HAS
    found = await made(kernel, tmp_path, RUNNING).address(OWN)
    assert found.text == "192.168.202.7/24"
    assert is_so(found, State.OK, "")
    # It has the interface: another one is not made.
    assert kernel.made == []
    found = await made(kernel, tmp_path, RUNNING).routes(OWN, {})
    assert is_so(found, State.OK, "none in the way of another; 1 through members")


@pytest.mark.parametrize(
    ("has", "words"),
    [
        (NOTHING, "there is no interface candy: start the client again"),
        (Holding(False, "candy", frozenset()), "candy is down: another program changes it"),
        (Holding(True, None, frozenset()), "candy has not 192.168.202.7: another program changes it"),
    ],
)
async def test_f4_the_address_was_taken_away(kernel: Kernel, tmp_path: Path, has: Holding, words: str) -> None:
    kernel.has = has
    assert is_so(await made(kernel, tmp_path, RUNNING).address(OWN), State.FAILED, words)
    # One that has no connection has no address yet.
    away = replace(RUNNING, state="waiting")
    assert (await made(kernel, tmp_path, away).address(OWN)).state is State.OK


async def test_f11_a_lan_with_the_networks_addresses(kernel: Kernel, tmp_path: Path) -> None:
    kernel.networks = ["the network overlaps"]
    assert is_so(await made(kernel, tmp_path).address(OWN), State.FAILED, "the network overlaps")


async def test_f3_the_network_encloses_the_relay(kernel: Kernel, tmp_path: Path) -> None:
    kernel.inside = ["it stays outside"]
    assert is_so(await made(kernel, tmp_path).routes(OWN, {}), State.WARNING, "it stays outside")
    kernel.harms = True
    assert is_so(await made(kernel, tmp_path).routes(OWN, {}), State.FAILED, "it stays outside")


async def test_f5_routes_were_taken_away(kernel: Kernel, tmp_path: Path) -> None:
    kernel.has = HAS._replace(routes=frozenset({OWN.network}))
    found = await made(kernel, tmp_path, RUNNING).routes(OWN, {})
    assert is_so(found, State.FAILED, "192.168.50.0/24 not in the kernel's table any more")


async def test_routes_that_are_refused(kernel: Kernel, tmp_path: Path) -> None:
    kernel.has = HAS
    client = replace(RUNNING, refused={"10.0.0.0/24": "this machine is part of it"})
    found = await made(kernel, tmp_path, client).routes(OWN, {})
    assert is_so(found, State.WARNING, "10.0.0.0/24 not reached through the network: this machine is part of it")
    assert is_so(await made(kernel, tmp_path).routes(OWN, {}), State.OK, "the relay tells them once the client runs")
    assert is_so(await made(kernel, tmp_path).routes(None, {}), State.SKIPPED, NOT_REACHED)


def test_f7_a_folder_that_takes_nothing(kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_so(made(kernel, tmp_path).state(), State.OK, str(tmp_path))
    assert list(tmp_path.iterdir()) == []

    def full(folder: Path) -> None:
        raise UnwritableError("cannot write: make room there")

    monkeypatch.setattr("candy.host.files.probe", full)
    assert is_so(made(kernel, tmp_path).state(), State.WARNING, "make room there")


def gateway(kernel: Kernel, folder: Path, client: Running | None = None, *, masquerade: bool = True) -> list[Finding]:
    return list(made(kernel, folder, client, masquerade=masquerade).gateway())


def test_a_gateway_that_is_well(kernel: Kernel, tmp_path: Path) -> None:
    forwarding, firewall = gateway(kernel, tmp_path, RUNNING)
    assert is_so(forwarding, State.OK, "net.ipv4.ip_forward 1")
    assert is_so(firewall, State.OK, "what is forwarded may pass")
    kernel.forwards = False
    assert is_so(gateway(kernel, tmp_path)[0], State.OK, "the client switches it on when it starts")


def test_f6_the_table_was_taken_away(kernel: Kernel, tmp_path: Path) -> None:
    kernel.missing = [Fact(Part.TABLE, "candy-masquerade"), Fact(Part.FORWARDING, 1)]
    forwarding, _ = gateway(kernel, tmp_path, RUNNING)
    told = "candy was changed from outside, nftables table candy-masquerade, net.ipv4.ip_forward 1 is missing"
    assert is_so(forwarding, State.FAILED, told)
    # Without a client nothing is to be there.
    assert gateway(kernel, tmp_path)[0].state is State.OK


def test_a_firewall_that_drops_what_is_forwarded(kernel: Kernel, tmp_path: Path) -> None:
    kernel.ruleset = CLOSED % "forward"
    assert is_so(gateway(kernel, tmp_path)[1], State.FAILED, "let packets of candy pass: nft 'insert rule ip fence")
    # It is nothing to a member that forwards nothing.
    assert gateway(kernel, tmp_path, masquerade=False)[1].state is State.OK


def test_a_firewall_that_drops_what_comes_in(kernel: Kernel, tmp_path: Path) -> None:
    kernel.ruleset = CLOSED % "input"
    forwarding, firewall = gateway(kernel, tmp_path, masquerade=False)
    assert is_so(forwarding, State.SKIPPED, "no gateway (--masquerade); net.ipv4.ip_forward 1")
    told = "until that of candy may: nft 'insert rule ip fence between iifname \"candy\" accept'"
    assert is_so(firewall, State.WARNING, told)


def test_without_nft(kernel: Kernel, tmp_path: Path) -> None:
    kernel.no_nft = OperationalError("--masquerade needs the program nft: apt install nftables")
    forwarding, firewall = gateway(kernel, tmp_path)
    assert is_so(forwarding, State.FAILED, "needs the program nft: apt install nftables")
    assert is_so(firewall, State.SKIPPED, NOT_REACHED)
    assert is_so(gateway(kernel, tmp_path, masquerade=False)[1], State.SKIPPED, "needs the program nft")
