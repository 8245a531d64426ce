"""Direct links between members behind NATs of all kinds, with an engine and networks that are played."""

from ipaddress import IPv4Address, IPv4Network, ip_address
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.links_world import Host, Nat, World, installed

from candy.member.budget import TICK_S
from candy.member.links import OFFERS_S, ClearPath, Links, SendNote, SendProbe, SetPath
from candy.protocol.linking import Answer, Candidate, Endpoint, Kind, Offer, Reason, Says
from candy.sealing.seals import Remove, SetPeer, Way

A_NAT, B_NAT = (IPv4Address(f"203.0.113.{last}") for last in (1, 2))
NATS = {
    "none": None,
    "full cone": (False, None),
    "restricted": (False, "address"),
    "port-restricted": (False, "port"),
    "symmetric": (True, "port"),
}
HARD = {("port-restricted", "symmetric"), ("symmetric", "port-restricted"), ("symmetric", "symmetric")}
"""Where one can't know from which port the other would send, and the other takes nothing from elsewhere."""
PAIRS = list(product(NATS, NATS))


def nat(name: str, address: IPv4Address) -> Nat | None:
    kind = NATS[name]
    return None if kind is None else Nat(address, *kind)


def pair(world: World, one: str, other: str) -> tuple[Host, Host]:
    a, b = world.add(nat(one, A_NAT)), world.add(nat(other, B_NAT))
    world.meet(a, b)
    return a, b


def both(a: Host, b: Host) -> tuple[bool, bool]:
    return a.state(b).endpoint is not None, b.state(a).endpoint is not None


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_through_nats(one: str, other: str) -> None:
    world = World()
    a, b = pair(world, one, other)
    world.run(2.0, 0.1, (a, b))
    is_direct = (one, other) not in HARD
    assert both(a, b) == (is_direct, is_direct)
    if is_direct:
        assert a.state(b).mtu == 1500
        assert a.state(b).round_trip_s == pytest.approx(0.02, abs=0.005)
        world.run(5.0, 0.1, (a, b))
        before = b.got["relay"]
        world.run(5.0, 0.1, (a, b))
        assert b.got["relay"] == before
        return
    world.run(10.0, 0.1, (a, b))
    why = "symmetric NAT on both ends" if one == other else "no path found"
    assert [a.state(b).why, b.state(a).why] == [why, why]
    assert not b.got["direct"]


@given(
    st.sampled_from(PAIRS), st.integers(0, 2**32), st.floats(0, 0.1), st.booleans(), st.sampled_from([1500, 1420, 1280])
)
@settings(max_examples=40, deadline=None)
def test_through_nats_with_loss(names: tuple[str, str], seed: int, loss: float, has_two_ways: bool, mtu: int) -> None:
    """Whatever is lost: a path is found where there is one, of addresses that were proven (the world asserts that), and
    probes keep within their rate."""
    world = World(seed, loss)
    a, b = pair(world, *names)
    a.mtu = mtu
    flows = ((a, b), (b, a)) if has_two_ways else ((a, b),)
    world.run(20.0, 0.1, *flows)
    if names in HARD:
        assert both(a, b) == (False, False)
    else:
        # At this moment it may have left one for a second.
        assert a.set_paths
        assert b.set_paths
        assert 1280 - 60 <= max(action.longest for _, action in a.set_paths) <= mtu - 60
    for host in (a, b):
        assert len(host.probes) <= 100 + 40 * 20
        assert not host.dropped


def test_in_one_lan_behind_one_nat() -> None:
    world = World()
    router = Nat(A_NAT, filters="port")
    a, b = (world.add(router, f"192.168.0.{last}") for last in (2, 3))
    world.meet(a, b)
    world.run(1.0, 0.1, (a, b))
    assert a.state(b).endpoint == b.own
    assert b.state(a).endpoint == a.own


def test_in_one_lan_with_a_hairpin_it_is_the_lan() -> None:
    world = World()
    router = Nat(A_NAT, filters="port", hairpin=True)
    a, b = (world.add(router, f"192.168.0.{last}") for last in (2, 3))
    world.meet(a, b)
    world.run(3.0, 0.1, (a, b))
    assert a.state(b).endpoint == b.own


@pytest.mark.parametrize("hairpin", [False, True])
def test_in_two_lans_behind_one_nat(hairpin: bool) -> None:
    world = World()
    router = Nat(A_NAT, filters="port", hairpin=hairpin)
    a, b = (world.add(router, f"192.168.{net}.2") for net in (2, 3))
    world.meet(a, b)
    world.run(10.0, 0.1, (a, b))
    assert both(a, b) == (hairpin, hairpin)
    assert hairpin or a.state(b).why == "no path found"


@pytest.mark.parametrize("one", ["full cone", "restricted", "port-restricted"])
def test_a_nat_forgets_all_under_traffic(one: str) -> None:
    """And has another port for it from then on."""
    world = World()
    a, b = pair(world, one, "port-restricted")
    world.run(5.0, 0.05, (a, b), (b, a))
    assert both(a, b) == (True, True)
    before = b.state(a).endpoint
    assert a.nat is not None
    a.nat.flush()
    world.run(4.0, 0.05, (a, b), (b, a))
    assert both(a, b) == (True, True)
    assert b.state(a).endpoint != before
    sent = b.got["relay"] + a.got["relay"]
    world.run(3.0, 0.05, (a, b), (b, a))
    assert b.got["relay"] + a.got["relay"] == sent


def test_udp_is_blocked_after_a_while() -> None:
    """What goes by the path is lost for less than a second, and comes back when it does."""
    world = World()
    a, b = pair(world, "port-restricted", "port-restricted")
    world.run(5.0, 0.05, (a, b))
    got = b.got.total()
    a.blocked = True
    world.run(2.0, 0.05, (a, b))
    assert 40 - (b.got.total() - got) <= 1.1 / 0.05
    assert a.state(b).endpoint is None
    world.run(5.0, 0.05, (a, b))
    assert a.state(b).why == "no UDP"
    a.blocked = False
    world.run(30.0, 0.05, (a, b))
    assert both(a, b) == (True, True)


@pytest.mark.parametrize("traffic", ["there", "back", "both"])
@pytest.mark.parametrize("each_s", [0.02, 0.2])
@pytest.mark.parametrize("phase_s", [number / 10 for number in range(16)])
def test_one_direction_is_blocked(traffic: str, each_s: float, phase_s: float) -> None:
    """What a sends is lost, what b sends arrives: packets of either go by the relay within a second, and one on the
    way. The phase is that of the probes, which come by the link as long as it is good."""
    world = World()
    a, b = pair(world, "port-restricted", "port-restricted")
    flows = {"there": [(a, b)], "back": [(b, a)], "both": [(a, b), (b, a)]}[traffic]
    world.run(5.0 + phase_s, each_s, *flows)
    assert both(a, b) == (True, True)
    a.mute = True
    world.run(1.0 + 2 * each_s, each_s, *flows)
    for source, peer in flows:
        peer.got.clear()
        world.run(0.2, each_s, (source, peer))
        assert peer.got["relay"] >= 1
        assert peer.got["direct"] == 0
    world.run(20.0, each_s, *flows)
    assert both(a, b) == (False, False)
    a.mute = False
    world.run(31.0, each_s, *flows)
    assert both(a, b) == (True, True)


def test_a_better_path_is_taken_within_two_seconds() -> None:
    world = World()
    router = Nat(A_NAT, filters="port", hairpin=True)
    a, b = (world.add(router, f"192.168.{net}.2") for net in (2, 3))
    world.meet(a, b)
    world.run(5.0, 0.1, (a, b))
    assert a.state(b).endpoint not in (None, b.own)
    b.own = Endpoint(ip_address("192.168.2.3"), b.own.port)
    b.gather()
    world.run(2.0, 0.1, (a, b))
    assert a.state(b).endpoint == b.own


def test_the_path_becomes_narrower() -> None:
    """Nothing says so, and long packets vanish."""
    world = World()
    a, b = pair(world, "none", "full cone")
    world.run(5.0, 0.1, (a, b))
    assert a.state(b).mtu == 1500
    b.mtu = 1420
    world.run(6.0, 0.1, (a, b))
    assert a.state(b).mtu == 1420
    assert a.paths[b.address].longest == 1360


def test_less_than_the_least_fits() -> None:
    world = World()
    a, b = pair(world, "none", "none")
    b.mtu = 1200
    world.run(10.0, 0.1, (a, b))
    assert both(a, b) == (False, False)
    assert a.state(b).why == "MTU below 1280"


def test_an_idle_pair_costs_nothing() -> None:
    world = World()
    a, b = pair(world, "port-restricted", "port-restricted")
    world.run(5.0, 0.1, (a, b))
    world.run(62.0)
    assert a.links.deadline == b.links.deadline == float("inf")
    assert (a.state(b).why, b.state(a).why) == ("idle", "idle")
    assert not a.paths
    sent = len(a.probes) + len(b.probes)
    warm = [at for at, _ in a.probes if at > 1020]
    assert len(warm) <= 4
    world.run(60.0)
    assert len(a.probes) + len(b.probes) == sent
    for router in (a.nat, b.nat):
        assert router is not None
        router.flush()
    for host in (a, b):
        host.gather()
    world.run(4.0, 0.1, (a, b))
    assert both(a, b) == (True, True)


def test_many_peers_share_the_probes() -> None:
    """All are reached within a while, and no faster than the budget lets them."""
    world = World()
    a = world.add()
    peers = [world.add() for _ in range(60)]
    for peer in peers:
        world.meet(a, peer)
    flows = [(a, peer) for peer in peers]
    world.run(20.0, 1.0, *flows)
    assert all(a.state(peer).endpoint is not None for peer in peers)
    assert len(a.probes) <= 100 + 40 * 20
    # One that comes late does not wait for the others' routine.
    late = world.add()
    world.meet(a, late)
    world.run(2.0, 0.5, *flows, (a, late))
    assert a.state(late).endpoint is not None


def test_what_is_routine_has_its_time_in_common() -> None:
    """Many peers wake a member up as often as a few do: by each tick, where nothing is lost."""
    world = World()
    a = world.add()
    peers = [world.add() for _ in range(60)]
    for peer in peers:
        world.meet(a, peer)
        # What answers nothing is routine as well.
        found = [Candidate(Kind.REFLEXIVE, Endpoint(ip_address("203.0.113.9"), 1 + n)) for n in range(3)]
        found.append(Candidate(Kind.LAN, peer.own))
        peer.do(peer.links.gathered(found, world.now))
    flows = [(a, peer) for peer in peers]
    world.run(40.0, 1.0, *flows)
    a.woken.clear()
    sent = len(a.probes)
    world.run(20.0, 1.0, *flows)
    assert len(a.probes) - sent >= 10 * 20
    assert len(a.woken) <= 20 / TICK_S
    assert all(a.state(peer).endpoint == peer.own for peer in peers)


def test_a_peer_that_says_nothing_is_too_old() -> None:
    world = World()
    a, b = world.add(), world.add()
    a.notes_lost = b.notes_lost = 100
    world.meet(a, b)
    world.run(1.0, 0.1, (a, b))
    assert a.state(b).why == "not tried"
    world.run(OFFERS_S, 0.1, (a, b))
    assert a.state(b).why == "peer too old"
    assert not a.probes
    assert 100 - a.notes_lost == 3


def test_a_lost_offer_is_repeated() -> None:
    world = World()
    a, b = world.add(), world.add()
    a.notes_lost = b.notes_lost = 1
    world.meet(a, b)
    world.run(4.0, 0.1, (a, b))
    assert both(a, b) == (True, True)


@pytest.mark.parametrize(
    ("reason", "here", "there"),
    [
        (Reason.SWITCHED_OFF, "switched off", "switched off there"),
        (Reason.NETWORK, "switched off for the network", "switched off for the network"),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_switched_off(reason: Reason, here: str, there: str, late: bool) -> None:
    world = World()
    a, b = world.add(), world.add()
    if not late:
        a.do(a.links.switch_off(reason, world.now))
    world.meet(a, b)
    world.run(2.0, 0.1, (b, a))
    assert both(a, b) == (late, late)
    if late:
        a.do(a.links.switch_off(reason, world.now))
        world.run(2.0, 0.1, (b, a))
    assert both(a, b) == (False, False)
    assert (a.state(b).why, b.state(a).why) == (here, there)
    assert not a.paths
    assert not b.paths
    a.do(a.links.switch_off(Reason.NONE, world.now))
    a.gather()
    world.run(4.0, 0.1, (b, a))
    assert both(a, b) == (True, True)


def test_with_its_last_session_a_peer_is_forgotten() -> None:
    world = World()
    a, b = pair(world, "none", "none")
    world.run(2.0, 0.1, (a, b))
    world.part(a, b)
    assert not a.paths
    assert a.state(b).why == "not tried"
    assert a.links.poll_at == a.links.deadline == float("inf")
    world.meet(a, b)
    world.run(2.0, 0.1, (a, b))
    assert both(a, b) == (True, True)


# Who has lost the relay is away for the other one.


def apart(each_s: float = 0.1) -> tuple[World, Host, Host]:
    """Two with a path to each other, of whom the second one has lost the relay."""
    world = World()
    a, b = pair(world, "full cone", "full cone")
    world.run(5.0, each_s, (a, b))
    world.lose(b)
    world.run(5.0, each_s, (a, b))
    assert both(a, b) == (True, True)
    assert a.seals_for(b)
    return world, a, b


def arrives(world: World, source: Host, peer: Host) -> bool:
    """Whether packets arrive, by the path alone."""
    peer.got.clear()
    world.run(2.0, 0.1, (source, peer))
    return peer.got["direct"] >= 19 and not peer.got["relay"]


@pytest.mark.parametrize("traffic", ["there", "back", "both"])
@pytest.mark.parametrize("blocked_s", [0.5, 1.2, 5.0])
def test_a_peer_that_is_away_is_found_again(traffic: str, blocked_s: float) -> None:
    world, a, b = apart()
    flows = {"there": [(a, b)], "back": [(b, a)], "both": [(a, b), (b, a)]}[traffic]
    a.blocked = True
    world.run(blocked_s, 0.1, *flows)
    a.blocked = False
    world.run(6.0, 0.1, *flows)
    assert both(a, b) == (True, True)
    assert arrives(world, a, b)
    assert arrives(world, b, a)


@pytest.mark.parametrize("has_relay", [True, False])
@pytest.mark.parametrize("is_back", [False, True])
def test_it_is_looked_for_as_long_as_there_are_packets_for_it(has_relay: bool, is_back: bool) -> None:
    world, a, b = apart()
    a.has_relay = has_relay
    flow = (b, a) if is_back else (a, b)
    a.blocked = True
    world.run(50.0, 0.1, flow)
    assert both(a, b) == (False, False)
    a.blocked = False
    # Ever more seldom, as any path that is lost.
    world.run(31.0, 0.1, flow)
    assert arrives(world, *flow)


@pytest.mark.parametrize("has_relay", [True, False])
@pytest.mark.parametrize("is_back", [False, True])
def test_without_any_that_costs_nothing(has_relay: bool, is_back: bool) -> None:
    world, a, b = apart()
    a.has_relay = has_relay
    world.run(75.0)
    assert a.links.deadline == b.links.deadline == float("inf")
    assert a.seals_for(b) is not has_relay
    sent = len(a.probes) + len(b.probes)
    world.run(20.0)
    assert len(a.probes) + len(b.probes) == sent
    flow = (b, a) if is_back else (a, b)
    world.run(2.0, 0.1, flow)
    assert arrives(world, *flow)


def test_who_comes_back_to_the_relay_elsewhere_is_heard() -> None:
    """What it said of that before it was back is lost."""
    world = World()
    a, b = pair(world, "port-restricted", "none")
    a.blocked = True
    world.run(5.0, 0.1, (a, b))
    world.lose(b)
    a.blocked = False
    b.own = Endpoint(ip_address("198.51.100.77"), b.own.port)
    b.gather()
    world.run(10.0, 0.1, (a, b))
    assert both(a, b) == (False, False)
    world.regain(b)
    world.run(2.0, 0.1, (a, b))
    assert a.state(b).endpoint == b.own


def test_many_that_are_back_cost_nothing_without_traffic() -> None:
    world = World()
    a = world.add()
    peers = [world.add() for _ in range(20)]
    for peer in peers:
        world.meet(a, peer)
    world.run(100.0)
    sent = len(a.probes)
    for peer in peers:
        world.lose(peer)
        world.regain(peer)
    assert a.links.deadline == float("inf")
    world.run(20.0)
    assert len(a.probes) == sent


def test_with_its_last_session_one_that_is_away_is_forgotten_at_once() -> None:
    """A revocation is nothing else."""
    world, a, b = apart()
    a.do(a.links.followed(Remove(world.local(a, b)), world.now))
    assert not a.paths
    assert a.links.peer_of(world.local(a, b)) is None
    a.do(a.links.followed(SetPeer(b.address, Way.NO_ROUTE), world.now))
    assert a.links.wanted(b.address, world.now) == []
    assert a.links.deadline == float("inf")


# One Links, by hand.

PEER, OTHER = IPv4Address("10.99.0.2"), IPv4Address("10.99.0.3")
LAN = Candidate(Kind.LAN, Endpoint(ip_address("192.168.1.7"), 1))


def met(inside: tuple[IPv4Network, ...] = (), may_use: bool = True) -> Links:
    links = Links(lambda _: may_use, lambda n: bytes(n), lambda _: 0.0, 7)
    links.changed(inside, 0.0)
    links.followed(installed(5, PEER), 0.0)
    links.followed(SetPeer(PEER, Way.SEAL, 5), 0.0)
    return links


def offered(links: Links, *addresses: str, flags: int = 0, sequence: int = 1) -> list[object]:
    found = tuple(Candidate(Kind.LAN, Endpoint(ip_address(address), 9)) for address in addresses)
    return [*links.noted(5, Offer(sequence, Says(flags), candidates=found).encode(), 0.1)]


def probed(actions: list[object]) -> list[str]:
    return [str(action.endpoint.address) for action in actions if isinstance(action, SendProbe)]


def test_which_addresses_are_never_probed() -> None:
    links = met((IPv4Network("10.99.0.0/24"), IPv4Network("172.16.0.0/12")))
    never = ["10.99.0.9", "172.17.0.1", "127.0.0.1", "169.254.1.1", "224.0.0.1", "0.0.0.0", "255.255.255.255"]
    assert probed(offered(links, *never)) == []
    never = ["::1", "fe80::1", "ff02::1", "::", "::ffff:192.0.2.1", "192.0.2.7", "2001:db8::7"]
    assert probed(offered(links, *never, sequence=2)) == ["192.0.2.7", "2001:db8::7"]
    assert probed(offered(met(may_use=False), "192.0.2.7")) == []


def test_nor_offered() -> None:
    links = met((IPv4Network("10.99.0.0/24"),))
    own = [Candidate(Kind.LAN, Endpoint(ip_address(text), 9)) for text in ("10.99.0.9", "127.0.0.1", "192.168.1.7")]
    [note] = links.gathered(own, 0.2)
    assert isinstance(note, SendNote)
    assert Offer.decode(note.body).candidates == (own[2],)
    assert links.gathered(own, 0.3) == []


def test_a_route_that_begins_to_lead_into_the_tunnel() -> None:
    links = met()
    [probe] = [action for action in offered(links, "192.0.2.7") if isinstance(action, SendProbe)]
    assert probe.content == b"\1" + bytes(29)
    source = Endpoint(ip_address("192.0.2.7"), 9)
    sizes = links.arrived(5, source, Answer(bytes(8), source, 62).encode(), 0.2)
    assert len(sizes) == 5
    [path, *_] = links.arrived(5, source, Answer(bytes(8), source, 1500 - 28).encode(), 0.3)
    assert path == SetPath(PEER, source, 1440)
    assert links.changed((IPv4Network("192.0.2.0/24"),), 0.4) == [ClearPath(PEER)]


def test_an_older_offer_counts_for_nothing_but_its_question() -> None:
    links = met()
    offered(links, "192.0.2.7", sequence=5)
    assert probed(offered(links, "192.0.2.8", sequence=5)) == []
    [note] = offered(links, "192.0.2.8", sequence=4, flags=Says.ANSWER_ME)
    assert note == SendNote(5, Offer(7).encode())


def test_who_was_started_again_is_heard_whatever_its_clock_says() -> None:
    """What it said before may still be on its way."""
    links = met()
    offered(links, "192.0.2.7", sequence=1_700_000_000)
    links.followed(installed(6, PEER), 0.2)
    again = Offer(3, Says(0), candidates=(Candidate(Kind.LAN, Endpoint(ip_address("192.0.2.8"), 9)),)).encode()
    assert probed([*links.noted(6, again, 0.3)]) == ["192.0.2.8"]
    assert probed([*links.noted(6, again, 0.4)]) == []
    assert probed(offered(links, "192.0.2.9", sequence=1_700_000_000)) == []
    assert probed(offered(links, "192.0.2.9", sequence=2)) == []


@pytest.mark.parametrize("start", [-5, 0, (1 << 32) - 1, 1 << 33])
def test_any_clock_gives_a_sequence_that_grows(start: int) -> None:
    links = Links(lambda _: True, lambda n: bytes(n), lambda _: 0.0, start)
    links.followed(installed(5, PEER), 0.0)
    [note] = links.followed(SetPeer(PEER, Way.SEAL, 5), 0.0)
    [later] = links.gathered([LAN], 0.1)
    assert isinstance(note, SendNote)
    assert isinstance(later, SendNote)
    assert 0 < Offer.decode(note.body).sequence < Offer.decode(later.body).sequence


def test_those_inside_the_tunnel_take_nobodys_place() -> None:
    links = met((IPv4Network("10.99.0.0/24"),))
    inside = [Candidate(Kind.LAN, Endpoint(ip_address(f"10.99.0.{number}"), 9)) for number in range(1, 20)]
    [note] = links.gathered([*inside, LAN], 0.2)
    assert isinstance(note, SendNote)
    assert Offer.decode(note.body).candidates == (LAN,)


def test_what_is_none_is_dropped_by_name() -> None:
    links = met()
    assert links.noted(5, b"\x80\x03", 0.1) == ["bad_offer"]
    assert links.arrived(5, LAN.endpoint, b"\2", 0.1) == ["bad_answer"]
    assert links.noted(6, Offer(1).encode(), 0.1) == []
    assert links.arrived(6, LAN.endpoint, b"", 0.1) == []
    assert links.silenced(OTHER, 0.1) == []


def test_a_peer_that_hears_nothing_has_its_path_left_at_once() -> None:
    links = met()
    source = Endpoint(ip_address("192.0.2.7"), 9)
    offered(links, "192.0.2.7")
    links.arrived(5, source, Answer(bytes(8), source, 62).encode(), 0.2)
    links.arrived(5, source, Answer(bytes(8), source, 1500 - 28).encode(), 0.3)
    assert links.state(PEER, 0.4).endpoint == source
    left, probe, *_ = links.noted(5, Offer(1, Says.HEARS_NOTHING).encode(), 0.4)
    assert left == ClearPath(PEER)
    assert isinstance(probe, SendProbe)
    assert links.state(PEER, 0.4).endpoint is None
    again = links.arrived(5, source, Answer(bytes(8), source, 62).encode(), 0.5)
    assert not any(isinstance(action, SetPath) for action in again)
    # What fits is known when the sizes that are under way have come back.
    assert SetPath(PEER, source, 1440) in links.tick(1.0)


def test_an_answer_from_elsewhere_proves_nothing() -> None:
    links = met()
    offered(links, "192.0.2.7")
    elsewhere = Endpoint(ip_address("192.0.2.8"), 9)
    assert probed([*links.arrived(5, elsewhere, Answer(bytes(8), elsewhere, 62).encode(), 0.2)]) == ["192.0.2.8"]


def test_what_others_have_seen_is_bounded() -> None:
    """A peer with the session's keys has it probe no more than four addresses beside those that it offers."""
    links = met()
    for number in range(1, 50):
        links.arrived(5, Endpoint(ip_address(f"192.0.2.{number}"), 9), b"", number / 100)
    [finder] = [peer.finder for peer in links._peers.values()]
    assert len(finder._trials) == 4


def test_a_pair_with_two_ways_to_each_other_becomes_idle() -> None:
    """In one LAN, and by its router's outside: what comes by the one is a probe, and no traffic."""
    world = World()
    router = Nat(A_NAT, filters="port", hairpin=True)
    a, b = (world.add(router, f"192.168.0.{host}") for host in (2, 3))
    world.meet(a, b)
    world.run(5.0, 0.1, (a, b))
    world.run(80.0)
    assert a.links.deadline == b.links.deadline == float("inf")
    assert not a.paths
