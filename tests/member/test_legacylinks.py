"""Direct links with the original's clients, against a peer that was written after the protocol, in simulated time."""

from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address
from math import inf

import pytest
from kit import original_links
from kit.original_links import Original, Wire

from candy.member import legacylinks
from candy.member.legacylinks import (
    Action,
    AskStun,
    ClearPath,
    LegacyLinks,
    SendDatagram,
    SetPath,
    State,
    TakeFrom,
    Tell,
)
from candy.member.peers import MAX_PEERS, Endpoint
from candy.protocol import wire
from candy.protocol.datagram import Delay, Heartbeat

OURS, THEIRS = IPv4Address("10.9.0.1"), IPv4Address("10.9.0.2")
OUR_LAN, THEIR_LAN = (Endpoint(IPv4Address(f"192.168.1.{last}"), 5000 + last) for last in (1, 2))
OUR_PUBLIC, THEIR_PUBLIC = Endpoint(IPv4Address("203.0.113.1"), 6001), Endpoint(IPv4Address("198.51.100.2"), 6002)
RELAY_S, UDP_S = 0.02, 0.005


@dataclass
class World:
    """Ours and theirs, with a relay, a STUN server and UDP between them."""

    clock: Wire = field(default_factory=Wire)
    reachable: set[Endpoint] = field(default_factory=lambda: {OUR_PUBLIC, THEIR_PUBLIC})
    """Endpoints at which UDP arrives."""
    in_one_lan: bool = False
    has_stun: bool = True
    udp_s: float = UDP_S
    taken: dict[IPv4Address, Endpoint] = field(default_factory=dict)
    paths: dict[IPv4Address, Endpoint] = field(default_factory=dict)
    history: list[Action] = field(default_factory=list)

    def __post_init__(self) -> None:
        draws = iter(range(1, 10**6))
        self.ours = LegacyLinks(OURS, lambda n: next(draws).to_bytes(n, "big"), lan=OUR_LAN)
        self.theirs = Original(THEIRS, OURS, THEIR_LAN, self._to_ours, self._udp_to_ours, self._stun_of_theirs)
        if self.in_one_lan:
            self.reachable = {OUR_LAN, THEIR_LAN}
        self.clock.later(0.3, self._tick)
        self.clock.later(0.7, self._second)

    def run(self, seconds: float) -> None:
        self.clock.run(self.clock.now + seconds)

    def do(self, actions: list[Action]) -> None:
        self.history += actions
        for action in actions:
            match action:
                case AskStun():
                    if self.has_stun:
                        self.clock.later(UDP_S, lambda: self.do(self.ours.mapped(OUR_PUBLIC, self.clock.now)))
                case Tell():
                    self.clock.later(RELAY_S, partial(self.theirs.told, action.message))
                case SendDatagram():
                    if action.endpoint in self.reachable:
                        source = OUR_LAN if action.endpoint.ip.is_private and self.in_one_lan else OUR_PUBLIC
                        self.clock.later(self.udp_s, partial(self.theirs.received, action.message, source))
                case TakeFrom():
                    self.taken[action.peer] = action.endpoint
                    self.paths.pop(action.peer, None)
                case SetPath():
                    assert self.taken[action.peer] == action.endpoint
                    self.paths[action.peer] = action.endpoint
                case ClearPath():
                    del self.taken[action.peer]
                    self.paths.pop(action.peer, None)

    def beat(self, seconds: float) -> None:
        """Have a heartbeat come each second, as somebody has recorded them."""
        for _ in range(round(seconds)):
            self.arrived(Heartbeat(THEIRS, True), THEIR_PUBLIC)
            self.run(1)

    def state(self) -> State:
        link = self.ours.get(THEIRS)
        return State.INIT if link is None else link.state

    def _tick(self) -> None:
        self.do(self.ours.tick(self.clock.now))
        self.clock.later(1.0, self._tick)

    def _second(self) -> None:
        self.theirs.second()
        self.clock.later(1.0, self._second)

    def _to_ours(self, message: wire.Udp4Conn | wire.General) -> None:
        self.clock.later(RELAY_S, lambda: self.do(self.ours.told(message, self.clock.now)))

    def _udp_to_ours(self, endpoint: Endpoint, message: Heartbeat | Delay) -> None:
        if endpoint in self.reachable:
            source = THEIR_LAN if endpoint.ip.is_private and self.in_one_lan else THEIR_PUBLIC
            self.clock.later(self.udp_s, lambda: self.arrived(message, source))

    def arrived(self, message: Heartbeat | Delay, source: Endpoint) -> None:
        now = self.clock.now
        if isinstance(message, Heartbeat):
            self.do(self.ours.heard(message, source, now))
        else:
            self.do(self.ours.delayed(message, source, now))

    def _stun_of_theirs(self) -> None:
        if self.has_stun:
            # In one LAN there is one NAT before both.
            seen = Endpoint(OUR_PUBLIC.ip, THEIR_PUBLIC.port) if self.in_one_lan else THEIR_PUBLIC
            self.clock.later(UDP_S, partial(self.theirs.mapped, seen))


def begin(world: World, first: str) -> None:
    if first == "ours":
        world.do(world.ours.met(THEIRS, world.clock.now))
    else:
        world.theirs.packet_through_relay()


def connected(first: str = "ours", **with_: bool) -> World:
    world = World(**with_)  # type: ignore[arg-type]
    begin(world, first)
    world.run(8)
    assert world.state() is State.CONNECTED
    assert world.theirs.state == original_links.CONNECTED
    return world


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_links_whoever_begins(first: str) -> None:
    world = connected(first)
    assert world.paths == {THEIRS: THEIR_PUBLIC}
    assert world.theirs.real == OUR_PUBLIC
    world.run(600)
    assert world.paths == {THEIRS: THEIR_PUBLIC}
    assert not any(isinstance(action, ClearPath) for action in world.history)


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_within_one_lan(first: str) -> None:
    world = connected(first, in_one_lan=True)
    assert world.paths == {THEIRS: THEIR_LAN}
    assert world.theirs.real == OUR_LAN


def test_routes_of_the_relay_turn_lan_endpoints_off() -> None:
    world = World(in_one_lan=True)
    world.ours.uses_lan = False
    begin(world, "theirs")
    world.run(15)
    assert not world.paths
    assert not any(isinstance(action, Tell) and isinstance(action.message, wire.General) for action in world.history)


def test_a_path_is_measured_by_what_came_back() -> None:
    world = connected()
    link = world.ours.get(THEIRS)
    assert link is not None
    assert link.rtt_s == pytest.approx(2 * UDP_S)


def test_udp_blocked() -> None:
    world = World(reachable=set())
    begin(world, "ours")
    world.run(10.5)
    assert world.state() is State.CONNECTING
    world.run(4)
    assert world.state() is State.WAITING
    assert not world.paths


def test_waits_twice_as_long_each_time_and_at_most_an_hour() -> None:
    world = World(reachable=set())
    waits = []
    for _ in range(9):
        while world.state() is not State.WAITING:
            begin(world, "ours")
            world.run(1)
        since = world.clock.now
        while world.state() is State.WAITING:
            world.run(1)
        waits.append(world.clock.now - since)
    assert waits == pytest.approx([30, 60, 120, 240, 480, 960, 1920, 3600, 3600], abs=2.1)


def test_no_stun_fails_until_the_peer_asks() -> None:
    """Or until the time has come to try again."""
    world = World(has_stun=False)
    begin(world, "ours")
    world.run(9)
    assert world.state() is State.PREPARING
    world.run(4)
    assert world.state() is State.FAILED
    begin(world, "ours")
    assert world.state() is State.FAILED
    world.has_stun = True
    world.do(world.ours.told(wire.Udp4Conn(THEIRS, OURS, *THEIR_PUBLIC), world.clock.now))
    world.run(8)
    assert world.state() is State.CONNECTED


def test_an_outage_of_stun_ends() -> None:
    """Also where both ends have failed in it."""
    world = World(has_stun=False)
    begin(world, "theirs")
    begin(world, "ours")
    world.run(13)
    link = world.ours.get(THEIRS)
    assert link is not None
    assert (link.state, link.ended_in) == (State.FAILED, State.PREPARING)
    assert world.theirs.state == original_links.FAILED
    world.has_stun = True
    assert world.ours.deadline == link.since + legacylinks.WAIT_S
    world.run(legacylinks.WAIT_S)
    assert world.state() is State.INIT
    begin(world, "ours")
    world.run(8)
    assert world.paths == {THEIRS: THEIR_PUBLIC}


@pytest.mark.parametrize("udp_s", [0.5, 0.8, 1.3, 4.0])
def test_a_slow_path_is_proven(udp_s: float) -> None:
    """Its answers come behind later challenges."""
    world = World(udp_s=udp_s)
    begin(world, "ours")
    world.run(25)
    link = world.ours.get(THEIRS)
    assert link is not None
    assert link.rtt_s == pytest.approx(2 * udp_s)
    assert world.paths == {THEIRS: THEIR_PUBLIC}
    world.run(120)
    assert world.paths == {THEIRS: THEIR_PUBLIC}
    assert sum(isinstance(each, SetPath) for each in world.history) == 1


def test_challenges_under_way_are_bounded_and_end() -> None:
    world = unanswered()
    link = world.ours.get(THEIRS)
    assert link is not None
    world.beat(60)
    assert link.state is State.CONNECTED
    assert len(link.challenges) <= legacylinks.CHALLENGE_S + 1
    world.arrived(challenges(world)[0], THEIR_PUBLIC)
    assert not world.paths
    world.arrived(challenges(world)[-1], THEIR_PUBLIC)
    assert world.paths == {THEIRS: THEIR_PUBLIC}
    assert not link.challenges


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_packets_are_taken_before_the_peer_is_acknowledged(first: str) -> None:
    """Then it sends some."""
    world = connected(first)
    acks = [n for n, each in enumerate(world.history) if is_heartbeat(each, ack=True)]
    assert world.history.index(TakeFrom(THEIRS, THEIR_PUBLIC)) < acks[0]


def test_packets_are_taken_from_where_its_heartbeats_come() -> None:
    """Also where those move, and until the link ends."""
    world = World()
    begin(world, "ours")
    world.run(0.04)
    world.do(world.ours.told(wire.Udp4Conn(THEIRS, OURS, *THEIR_PUBLIC), world.clock.now))
    other = THEIR_PUBLIC._replace(port=7000)
    for endpoint in (THEIR_PUBLIC, other, other):
        world.arrived(Heartbeat(THEIRS, False), endpoint)
        assert world.taken == {THEIRS: endpoint}
    assert sum(isinstance(each, TakeFrom) for each in world.history) == 2
    world.theirs.state = original_links.FAILED
    world.run(12)
    assert world.state() is State.WAITING
    assert not world.taken


def test_a_path_that_the_kernel_refuses_is_proven_anew() -> None:
    world = connected()
    world.do(world.ours.silenced(THEIRS))
    assert not world.paths
    assert world.taken == {THEIRS: THEIR_PUBLIC}
    assert world.ours.silenced(THEIRS) == world.ours.silenced(OURS) == []
    before = sum(isinstance(each, SetPath) for each in world.history)
    world.run(2)
    assert sum(isinstance(each, SetPath) for each in world.history) == before + 1


def test_a_silent_peer_is_left_and_found_again() -> None:
    world = connected()
    world.reachable.clear()
    world.run(4.2)
    assert world.state() is State.INIT
    assert not world.paths
    world.run(10)
    world.reachable |= {OUR_PUBLIC, THEIR_PUBLIC}
    begin(world, "ours")
    world.run(12)
    assert world.paths == {THEIRS: THEIR_PUBLIC}


def test_a_peer_that_begins_anew() -> None:
    world = connected()
    world.theirs.go(original_links.INIT)
    world.theirs.packet_through_relay()
    world.run(2)
    assert world.paths
    world.run(8)
    assert world.paths == {THEIRS: THEIR_PUBLIC}
    assert sum(isinstance(each, ClearPath) for each in world.history) == 1


ELSEWHERE = Endpoint(IPv4Address("192.0.2.66"), 666)


def test_what_was_recorded_leads_no_packet_elsewhere() -> None:
    world = World()
    begin(world, "ours")
    world.run(0.04)
    world.do(world.ours.told(wire.Udp4Conn(THEIRS, OURS, *THEIR_PUBLIC), world.clock.now))
    assert world.state() is State.CONNECTING
    world.theirs.state = original_links.FAILED
    for _ in range(5):
        world.arrived(Heartbeat(THEIRS, True), ELSEWHERE)
        world.arrived(Delay(OURS, THEIRS, b"guessed!"), ELSEWHERE)
        world.run(1)
    assert not any(isinstance(action, SetPath) for action in world.history)
    assert not world.paths


def test_an_insider_takes_no_peers_packets() -> None:
    """Who has the password can make any heartbeat and answer any DELAY; from no machine of which the peer has told."""
    for elsewhere in (ELSEWHERE, Endpoint(IPv4Address("192.168.1.9"), 5009)):
        world = World()
        begin(world, "ours")
        world.run(0.04)
        world.do(world.ours.told(wire.Udp4Conn(THEIRS, OURS, *THEIR_PUBLIC), world.clock.now))
        assert world.state() is State.CONNECTING
        before = len(world.history)
        world.arrived(Heartbeat(THEIRS, True), elsewhere)
        for action in world.history[before:]:
            assert not isinstance(action, SendDatagram)
        assert world.state() is State.CONNECTING


def is_heartbeat(action: Action, *, ack: bool) -> bool:
    return isinstance(action, SendDatagram) and isinstance(action.message, Heartbeat) and action.message.ack is ack


def challenges(world: World) -> list[Delay]:
    """All that went out."""
    sent = (each.message for each in world.history if isinstance(each, SendDatagram))
    return [each for each in sent if isinstance(each, Delay) and each.src == OURS]


def unanswered() -> World:
    """Connected to a peer of which only heartbeats come."""
    world = World(reachable=set())
    begin(world, "ours")
    world.run(0.04)
    world.do(world.ours.told(wire.Udp4Conn(THEIRS, OURS, *THEIR_PUBLIC), world.clock.now))
    world.beat(1)
    assert world.state() is State.CONNECTED
    return world


def test_recorded_heartbeats_keep_no_dead_path() -> None:
    world = connected()
    world.reachable.clear()
    world.beat(legacylinks.LAPSE_S - legacylinks.PROVE_S)
    assert world.paths
    world.beat(legacylinks.PROVE_S + 2)
    assert not world.taken
    assert world.state() is State.INIT


def test_recorded_heartbeats_stand_in_no_links_way() -> None:
    """The peer says through the relay that it has none."""
    world = unanswered()
    there = Endpoint(IPv4Address("198.51.100.3"), 6003)
    world.do(world.ours.told(wire.Udp4Conn(THEIRS, OURS, *there), world.clock.now))
    assert world.state() is State.CONNECTED
    world.beat(3)
    before = len(world.history)
    world.do(world.ours.told(wire.Udp4Conn(THEIRS, OURS, *there), world.clock.now))
    assert world.history[before:] == [ClearPath(THEIRS), AskStun(), *lan_told()]
    world.beat(1)
    assert is_heartbeat(world.history[-1], ack=False)
    sent = [each.endpoint for each in world.history[before:] if isinstance(each, SendDatagram)]
    assert set(sent) == {there}


def lan_told() -> list[Tell]:
    return [Tell(wire.General(0, 0, OURS, THEIRS, wire.General.ENDPOINT.pack(int(OUR_LAN.ip), OUR_LAN.port)))]


def test_each_has_its_turn() -> None:
    """Who sends all this may send a part of it in a second."""
    ours = LegacyLinks(OURS, bytes)
    peers = [IPv4Address(int(THEIRS) + number) for number in range(4)]
    for peer in peers:
        ours.told(wire.Udp4Conn(peer, OURS, *THEIR_PUBLIC), 0)
    ours.mapped(OUR_PUBLIC, 0)

    def order(now: float, first: IPv4Address | None) -> list[IPv4Address]:
        return [each.peer for each in ours.tick(now, first) if isinstance(each, SendDatagram)]

    assert order(1, None) == peers
    assert order(2, peers[2]) == [*peers[2:], *peers[:2]]
    assert order(3, IPv4Address("10.77.0.1")) == peers


def test_without_room_for_its_packets_there_is_no_link() -> None:
    world = connected()
    world.do(world.ours.refused(THEIRS, world.clock.now))
    assert world.state() is State.WAITING
    assert not world.taken
    assert world.ours.refused(OURS, 0) == []


def asked() -> LegacyLinks:
    """Ours, which has told a silent peer of its public endpoint."""
    ours = LegacyLinks(OURS, bytes, lan=OUR_LAN)
    ours.met(THEIRS, 0)
    ours.mapped(OUR_PUBLIC, 0)
    return ours


def lan_endpoint(endpoint: Endpoint) -> wire.General:
    return wire.General(0, 0, THEIRS, OURS, wire.General.ENDPOINT.pack(int(endpoint.ip), endpoint.port))


def test_heartbeats_wait_for_the_peers_public_endpoint() -> None:
    """The relay passes that on between members of one password alone, an older one LAN endpoints between all: whom a
    heartbeat reaches can try passwords on it."""
    ours = asked()
    assert ours.told(lan_endpoint(ELSEWHERE), 0) == []
    assert ours.tick(1.5) == []
    told = ours.told(wire.Udp4Conn(THEIRS, OURS, *THEIR_PUBLIC), 2)
    assert [each.endpoint for each in told if isinstance(each, SendDatagram)] == [THEIR_PUBLIC, ELSEWHERE]


def test_nothing_goes_to_port_0() -> None:
    """The engine has no such path."""
    ours = asked()
    nowhere = Endpoint(THEIR_PUBLIC.ip, 0)
    assert ours.told(lan_endpoint(nowhere), 0) == []
    assert ours.told(wire.Udp4Conn(THEIRS, OURS, *nowhere), 0) == []
    actions = ours.told(wire.Udp4Conn(THEIRS, OURS, *THEIR_PUBLIC), 0)
    actions += ours.heard(Heartbeat(THEIRS, False), nowhere, 0)
    actions += ours.tick(2)
    assert {action.endpoint for action in actions if isinstance(action, SendDatagram)} == {THEIR_PUBLIC}


def test_a_connected_link_does_not_roam_by_a_heartbeat() -> None:
    world = connected()
    for _ in range(4):
        world.arrived(Heartbeat(THEIRS, True), ELSEWHERE)
        world.run(1)
    sent_there = [each for each in world.history if isinstance(each, SendDatagram) and each.endpoint == ELSEWHERE]
    assert not sent_there
    assert world.paths == {THEIRS: THEIR_PUBLIC}


def test_heartbeats_from_elsewhere_keep_no_dead_link() -> None:
    world = connected()
    world.reachable.clear()
    for _ in range(5):
        world.arrived(Heartbeat(THEIRS, True), ELSEWHERE)
        world.run(1)
    assert not world.paths


def test_answers_the_peers_delay_and_nobody_elses() -> None:
    world = connected()
    theirs = Delay(THEIRS, OURS, b"12345678")
    assert world.ours.delayed(theirs, THEIR_PUBLIC, 0) == [SendDatagram(THEIRS, THEIR_PUBLIC, theirs)]
    assert world.ours.delayed(theirs, ELSEWHERE, 0) == []
    third = Delay(IPv4Address("10.9.0.3"), OURS, b"12345678")
    assert world.ours.delayed(third, THEIR_PUBLIC, 0) == []


@pytest.mark.parametrize("state", [State.INIT, State.WAITING, State.FAILED])
def test_deaf(state: State) -> None:
    world = World()
    begin(world, "ours")
    link = world.ours.get(THEIRS)
    assert link is not None
    link.state = state
    assert world.ours.heard(Heartbeat(THEIRS, True), THEIR_PUBLIC, 0) == []
    assert link.heard is None
    world.ours.told(wire.General(0, 0, THEIRS, OURS, bytes(6)), 0)
    assert link.lan is None


def test_routing_measures_each_minute() -> None:
    world = connected()
    world.ours.measures = True
    before = sum(isinstance(each, SetPath) for each in world.history)
    world.run(601)
    assert sum(isinstance(each, SetPath) for each in world.history) - before in (9, 10)


def test_costs_nothing_when_there_is_nothing_to_do() -> None:
    world = World()
    assert world.ours.deadline == inf
    begin(world, "ours")
    assert world.ours.deadline < inf
    world.ours.end()
    assert world.ours.deadline == inf


def test_end_clears_paths() -> None:
    world = connected()
    world.do(world.ours.end())
    assert world.paths == {}


def test_bounded() -> None:
    ours = LegacyLinks(OURS, bytes)
    for number in range(MAX_PEERS):
        ours.met(IPv4Address(int(THEIRS) + number), 0)
    assert ours.met(IPv4Address("10.99.0.1"), 0) == []
    assert ours.get(IPv4Address("10.99.0.1")) is None
    ours.tick(legacylinks.PREPARING_S)
    assert ours.met(IPv4Address("10.99.0.1"), 20) == [AskStun()]
    assert len(list(ours)) == MAX_PEERS


def test_not_with_itself() -> None:
    assert LegacyLinks(OURS, bytes).met(OURS, 0) == []
