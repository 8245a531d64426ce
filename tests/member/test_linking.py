"""What carries direct links out: which sockets there are, what the engine is told, what its events come to."""

import asyncio
import socket
from ipaddress import IPv4Address, IPv4Network, ip_address
from typing import Any, cast

import pytest
from kit.links_world import installed

from candy._fastpath import EVENT_LINK, EVENT_NOTED, EVENT_PONG, EVENT_QUIET, EVENT_STUN, EVENT_WANTED, Engine
from candy.errors import OperationalError
from candy.host.candidates import Machine
from candy.member import linking
from candy.member.linking import Linking, LinkSettings, open_sockets
from candy.member.reflexive import FRESH_S
from candy.protocol.linking import Answer, Candidate, Endpoint, Kind, Offer, Says
from candy.sealing.seals import SetPeer, Way

TUN, SESSION = 7, 0xABCD0001
PEER = IPv4Address("10.99.0.2")
OWN = ip_address("192.168.1.5")
SERVER = Endpoint(ip_address("198.51.100.1"), 26816)
THERE = Endpoint(ip_address("192.0.2.7"), 9)
SEEN = Endpoint(ip_address("203.0.113.5"), 4001)


class Recorded:
    """Stands in for an engine: what it is told."""

    def __init__(self) -> None:
        self.done: list[tuple[str, tuple[Any, ...]]] = []
        self.carried: list[tuple[int, int, float, float, float, float]] = []
        self.links = 0

    def open_link(self, tun: int, fd: int) -> int:
        assert tun == TUN
        self.links += 1
        return 100 + self.links

    def link_prefix(self, tun: int) -> int:
        return 0xABCD

    def seen(self, tun: int) -> list[tuple[int, int, float, float, float, float]]:
        return self.carried

    def paths(self, tun: int) -> list[tuple[Any, ...]]:
        return []

    def __getattr__(self, name: str) -> Any:
        return lambda *given: self.done.append((name, given))

    def all(self, name: str) -> list[tuple[Any, ...]]:
        return [given for each, given in self.done if each == name]


class Setting:
    """A Linking, and this machine as it is played."""

    def __init__(self, **given: Any) -> None:
        self.engine = Recorded()
        self.now = 1000.0
        self.machine = Machine((OWN,))
        self.linked: list[tuple[IPv4Address, bool]] = []

        async def look() -> Machine:
            return self.machine

        async def relay() -> list[Endpoint]:
            return [SERVER]

        self.linking = Linking(
            LinkSettings(**given),
            cast(Engine, self.engine),
            TUN,
            lambda n: bytes(n),
            lambda: self.now,
            look=look,
            reaches=lambda address, machine: address not in machine.tunnels,
        )
        self.linking.relay = relay
        self.linking.linked = lambda peer, is_linked: self.linked.append((peer, is_linked))
        self.port = self.linking._sockets[4][1] if self.linking._sockets else 0

    async def looked(self) -> None:
        """Have it look at the machine, and wait until it has."""
        woken = asyncio.Event()
        self.linking.wake = woken.set
        self.linking.changed()
        await asyncio.wait_for(woken.wait(), 10)

    def meet(self) -> None:
        self.linking.follow(installed(SESSION, PEER))
        self.linking.follow(SetPeer(PEER, Way.SEAL, SESSION))

    def offers(self) -> list[Offer]:
        return [Offer.decode(body) for _, _, body in self.engine.all("send_sealed")]

    def event(self, kind: int, detail: bytes, source: int = TUN) -> bool:
        return self.linking.on_event(source, kind, detail)


def asked_in(setting: Setting, seconds: float) -> list[Endpoint]:
    """Which STUN servers are asked in that time, in which there is traffic."""
    setting.engine.done = [each for each in setting.engine.done if each[0] != "send_stun"]
    for _ in range(round(10 * seconds)):
        setting.now += 0.1
        setting.engine.carried = [(SESSION, 0, setting.now, 0.0, setting.now, 0.0)]
        if setting.linking.delay <= 0:
            setting.linking.go_on()
    requests = setting.engine.all("send_stun")
    return list(dict.fromkeys(Endpoint(ip_address(address), port) for _, address, port, _ in requests))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linking, "SETTLE_S", 0.0)


def where(endpoint: Endpoint) -> bytes:
    return bytes([endpoint.family]) + endpoint.address.packed.ljust(16, b"\0") + endpoint.port.to_bytes(2, "big")


def stun_answer(id: bytes, seen: Endpoint) -> bytes:
    """Of a server, in the clear."""
    value = bytes([0, 1 if seen.family == 4 else 2]) + seen.port.to_bytes(2, "big") + seen.address.packed
    mapped = b"\0\1" + len(value).to_bytes(2, "big") + value
    return b"\1\1" + len(mapped).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + id + mapped


def number(session: int) -> bytes:
    return session.to_bytes(4, "big")


async def test_what_it_offers() -> None:
    """Of an address that has two reasons the better one; as soon as each is known."""
    setting = Setting(endpoints=(SEEN,))
    await setting.looked()
    setting.meet()
    [offer] = setting.offers()
    own = Candidate(Kind.LAN, Endpoint(OWN, setting.port))
    assert offer.candidates == (Candidate(Kind.FIXED, SEEN), own)
    # A STUN server sees this member there, too.
    [(link, address, port, request)] = setting.engine.all("send_stun")
    assert (link, address, port) == (101, SERVER.address.packed, SERVER.port)
    assert setting.engine.all("expect_stun")[-1] == (102, [bytes(12)]) or setting.engine.links == 1
    mapped = b"\0\1\0\x08\0\1" + SEEN.port.to_bytes(2, "big") + SEEN.address.packed
    answer = b"\1\1\0\x0c" + request[4:20] + mapped
    assert setting.event(EVENT_STUN, where(SERVER) + answer, 101)
    assert setting.linking._reflexive.seen == {4: SEEN}
    assert setting.offers()[-1].candidates == offer.candidates
    assert setting.event(EVENT_STUN, where(SERVER) + b"none", 101)


async def test_an_address_of_its_own_that_a_server_sees_is_its_own() -> None:
    """There is no NAT, and nothing is nearer."""
    setting = Setting()
    await setting.looked()
    setting.meet()
    own = Candidate(Kind.LAN, Endpoint(OWN, setting.port))
    [(_, _, _, request)] = setting.engine.all("send_stun")
    answer = b"\1\1\0\x0c" + request[4:20] + b"\0\1\0\x08\0\1" + setting.port.to_bytes(2, "big") + OWN.packed
    assert setting.event(EVENT_STUN, where(SERVER) + answer, 101)
    assert setting.linking._reflexive.seen == {4: own.endpoint}
    assert setting.offers()[-1].candidates == (own,)


async def test_a_packet_between_two_looks_counts_whenever_it_was() -> None:
    setting = Setting()
    await setting.looked()
    setting.meet()
    setting.now += 100.4
    setting.linking.go_on()
    setting.linking.go_on()
    told = len(setting.offers())
    setting.engine.carried = [(SESSION, 0, setting.now + 0.01, 0.0, 0.0, 0.0)]
    setting.now += 1.1
    setting.linking.go_on()
    assert len(setting.offers()) == told + 1


async def test_a_path_from_offer_to_end() -> None:
    setting = Setting()
    await setting.looked()
    setting.meet()
    note = Offer(1, candidates=(Candidate(Kind.LAN, THERE),)).encode()
    assert setting.event(EVENT_NOTED, number(SESSION) + note)
    [probe] = setting.engine.all("send_by")
    assert probe[:5] == (TUN, SESSION, 101, THERE.address.packed, THERE.port)
    link = (101).to_bytes(8, "big")
    for length in (62, 1472):
        answer = Answer(bytes(8), THERE, length).encode()
        assert setting.event(EVENT_LINK, number(SESSION) + link + where(THERE) + answer)
    assert setting.engine.all("set_path")[-1] == (TUN, int(PEER), 101, THERE.address.packed, THERE.port, 1440)
    state = setting.linking.state(PEER)
    assert (state.endpoint, state.mtu) == (THERE, 1500)
    assert setting.linked[-1] == (PEER, True)
    assert setting.event(EVENT_QUIET, PEER.packed)
    assert setting.linked[-1] == (PEER, False)
    assert setting.linking.state(PEER).endpoint is None
    # It may be another path by now, which packets would go on to leave by.
    assert setting.engine.all("clear_path") == [(TUN, int(PEER))]
    assert setting.offers()[-1].flags & Says.HEARS_NOTHING


async def test_whose_events_are_whose() -> None:
    setting = Setting()
    assert not setting.event(EVENT_NOTED, number(SESSION) + b"\x80\x01")
    assert not setting.event(EVENT_PONG, b"x")
    assert not setting.event(EVENT_LINK, bytes(31), 3)
    assert setting.event(EVENT_LINK, number(5) + bytes(8) + where(THERE))


async def test_traffic_keeps_it_awake() -> None:
    setting = Setting()
    await setting.looked()
    setting.meet()
    setting.now += 70
    setting.linking.go_on()
    assert setting.linking.delay <= 1.0
    before = len(setting.offers())
    setting.now += 1
    setting.engine.carried = [(SESSION, 0, setting.now, 0.0, 0.0, 0.0)]
    setting.linking.go_on()
    assert len(setting.offers()) == before + 1


async def test_a_packet_that_has_no_way_keeps_it_awake() -> None:
    """The event is about sealing, too."""
    setting = Setting()
    await setting.looked()
    setting.meet()
    setting.linking.follow(SetPeer(PEER, Way.NO_ROUTE))
    setting.now += 70
    setting.linking.go_on()
    before = len(setting.offers())
    assert not setting.event(EVENT_WANTED, PEER.packed)
    assert len(setting.offers()) == before + 1
    assert not setting.event(EVENT_WANTED, ip_address("10.99.0.77").packed)
    assert len(setting.offers()) == before + 1


async def test_a_change_of_the_machine_is_offered() -> None:
    setting = Setting()
    await setting.looked()
    setting.meet()
    setting.machine = Machine((ip_address("192.168.7.7"),))
    await setting.looked()
    [candidate] = setting.offers()[-1].candidates
    assert str(candidate.endpoint.address) == "192.168.7.7"
    # What the tunnel leads to is none.
    setting.linking.lead((IPv4Network("192.168.7.0/24"),))
    await setting.looked()
    assert setting.offers()[-1].candidates == ()


async def test_servers_that_were_silent_are_asked_again() -> None:
    """There is traffic, no path, and nothing else that would give reason to."""
    setting = Setting()
    await setting.looked()
    setting.meet()
    assert asked_in(setting, 10.0) == [SERVER]
    assert asked_in(setting, FRESH_S) == [SERVER]


async def test_a_name_that_was_not_found_is_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting(stun=("stun.example", SERVER.port))

    async def fails(host: str, port: int) -> list[Any]:
        raise OperationalError("not now")

    async def finds(host: str, port: int) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", (str(SERVER.address), port))]

    monkeypatch.setattr(linking, "resolve", fails)
    await setting.looked()
    setting.meet()
    assert asked_in(setting, 10.0) == []
    await asyncio.sleep(0)
    monkeypatch.setattr(linking, "resolve", finds)
    assert asked_in(setting, FRESH_S) == []
    async with asyncio.timeout(10):
        while not setting.engine.all("send_stun"):
            await asyncio.sleep(0)


async def test_a_change_waits_for_no_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting(stun=("stun.example", SERVER.port))
    never = asyncio.Event()

    async def silent(host: str, port: int) -> list[Any]:
        await never.wait()
        return []

    monkeypatch.setattr(linking, "resolve", silent)
    await setting.looked()
    setting.meet()
    setting.machine = Machine((ip_address("192.168.7.7"),))
    await setting.looked()
    assert [str(each.endpoint.address) for each in setting.offers()[-1].candidates] == ["192.168.7.7"]
    await setting.linking.end()


async def test_old_clients_are_told_what_is_seen_by_ipv4_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what was seen there before, when a server answers by IPv6 alone."""
    setting = Setting()
    server6 = Endpoint(ip_address("2001:db8::1"), SERVER.port)
    mapped: list[Endpoint] = []
    monkeypatch.setattr(setting.linking.legacy, "mapped", mapped.append)
    for server, seen in ((SERVER, SEEN), (server6, Endpoint(ip_address("2001:db8::7"), 9))):
        setting.linking._reflexive.use([server])
        setting.linking._reflexive.ask(setting.now, is_changed=True)
        [id] = setting.linking._reflexive.ids
        setting.event(EVENT_STUN, where(server) + stun_answer(id, seen), source=101)
        assert mapped == [SEEN]


async def test_what_the_network_does_not_allow() -> None:
    setting = Setting()
    setting.meet()
    setting.engine.done.clear()
    setting.linking.allow(False)
    assert setting.engine.all("allow_links") == [(TUN, False)]
    assert setting.offers()[-1].flags & Says.IS_OFF
    assert setting.linking.state(PEER).why == "switched off for the network"
    setting.linking.allow(True)
    assert setting.engine.all("allow_links")[-1] == (TUN, True)
    assert setting.linking.state(PEER).why != "switched off for the network"


async def test_switched_off_it_has_no_socket() -> None:
    setting = Setting(is_on=False)
    assert (setting.engine.links, setting.linking.prefix) == (0, 0)
    setting.linking.allow(True)
    setting.linking.changed()
    assert setting.linking.state(PEER).why == "switched off"
    assert setting.engine.all("allow_links") == []


def test_sockets_of_both_families_have_one_port() -> None:
    opened = open_sockets(0)
    try:
        assert len({each.getsockname()[1] for each in opened.values()}) == 1
        with pytest.raises(OperationalError, match=r"cannot use UDP port .*: Address already in use: choose another"):
            open_sockets(opened[4].getsockname()[1])
    finally:
        for each in opened.values():
            each.close()
