"""What carries out links with the original's clients: with whom there are any, what is told and sent, what is not."""

import logging
from ipaddress import IPv4Address, IPv4Network
from typing import Any, cast

import pytest

from candy._fastpath import EVENT_MET, EVENT_OLD, EVENT_WANTED, Engine
from candy.member.legacylinking import (
    LONGEST,
    OVER,
    PROBES_RATE,
    PROBES_SAVED,
    REVIEW_S,
    LegacyLinking,
)
from candy.member.linkstate import LinkState
from candy.member.sealedcount import COUNT_AHEAD, SEALED_MOST
from candy.protocol import datagram, wire
from candy.protocol.datagram import Delay, Heartbeat, PeerRoute
from candy.protocol.linking import Endpoint
from candy.sealing.seals import ForgetPeer, Remove, SetPeer, Way

TUN, LINK, PORT = 7, 101, 5000
OWN, PEER, OTHER = (IPv4Address(f"10.99.0.{last}") for last in (1, 2, 3))
NETWORK = IPv4Network("10.99.0.0/24")
LAN = IPv4Address("192.168.1.5")
SEEN = Endpoint(IPv4Address("203.0.113.5"), 4001)
THERE = Endpoint(IPv4Address("198.51.100.2"), 6002)
PASSWORD = b"a password"
SEARCH_S = 300


class Recorded:
    """Stands in for an engine: what it is told."""

    def __init__(self) -> None:
        self.done: list[tuple[str, tuple[Any, ...]]] = []
        self.sealed = 0
        self.has_room = True

    def old_sealed(self, tun: int) -> int:
        return self.sealed

    def set_old_key(self, tun: int, own: int, key: bytes = b"", *, sealed: int = 0) -> None:
        if key:
            self.sealed = sealed
        self.done.append(("set_old_key", (tun, own, key)))

    def set_old_path(self, *given: Any) -> None:
        if not self.has_room:
            raise MemoryError
        self.done.append(("set_old_path", given))

    def __getattr__(self, name: str) -> Any:
        return lambda *given: self.done.append((name, given))

    def take(self, name: str) -> list[tuple[Any, ...]]:
        found = [given for each, given in self.done if each == name]
        self.done = [each for each in self.done if each[0] != name]
        return found


class Setting:
    """A LegacyLinking, on a ground that is played."""

    link4: tuple[int, int] | None = (LINK, PORT)
    address4: IPv4Address | None = LAN

    def __init__(self, *, localhost: IPv4Address | None = None, discovery_s: float = 0, cost: int = 0) -> None:
        self.engine = Recorded()
        self.now = 1000.0
        self.inside: set[Endpoint] = set()
        self.asked_stun = 0
        self.said: list[wire.Message] = []
        self.asked: list[IPv4Address] = []
        self.with_keys: set[IPv4Address] = set()
        self.mtu = 1500
        self.linking = LegacyLinking(
            localhost,
            discovery_s,
            cast(Engine, self.engine),
            TUN,
            lambda n: bytes(range(1, n + 1)),
            lambda: self.now,
            self,
            cost=cost,
            mtu_to=lambda address: self.mtu,
        )
        self.linking.say = lambda message: self.said.append(wire.decode(message))
        self.linking.ask_about = self.asked.append
        self.linking.has_key = self.with_keys.__contains__
        self.kept: dict[bytes, int] = {}
        self.linking.count.kept = lambda password: self.kept.get(password, 0)
        self.linking.count.keep = self.kept.__setitem__

    def may_use(self, endpoint: Endpoint) -> bool:
        return endpoint not in self.inside

    def ask_stun(self) -> None:
        self.asked_stun += 1

    def joined(self, password: bytes = PASSWORD, *, is_strict: bool = False) -> None:
        self.linking.joined(OWN, password, is_strict=is_strict, network=NETWORK)

    def met(self, peer: IPv4Address = PEER) -> bool:
        return self.linking.on_event(EVENT_MET, peer.packed)

    def comes(self, message: Heartbeat | Delay | PeerRoute, source: Endpoint = THERE) -> bool:
        where = bytes([4]) + source.address.packed.ljust(16, b"\0") + source.port.to_bytes(2, "big")
        return self.linking.on_event(EVENT_OLD, LINK.to_bytes(8, "big") + where + message.encode())

    def way(self, way: Way, peer: IPv4Address = PEER) -> None:
        self.linking.follow(SetPeer(peer, way))

    def sent(self) -> list[datagram.PeerMessage]:
        """What went to the peer, under its key."""
        found = self.engine.take("send_old")
        for tun, link, address, port, key, _ in found:
            assert (tun, link, address, port) == (TUN, LINK, THERE.address.packed, THERE.port)
            assert key == datagram.recipient_key(PASSWORD, PEER)
        return [datagram.decode(content) for *_, content in found]

    def went(self) -> list[tuple[IPv4Address, datagram.PeerMessage]]:
        """What went to whom, by the keys."""
        keys = {datagram.recipient_key(PASSWORD, peer): peer for peer in (PEER, OTHER)}
        return [(keys[key], datagram.decode(content)) for *_, key, content in self.engine.take("send_old")]

    def pass_s(self, seconds: float) -> None:
        """In steps of a second, with the peer's heartbeats while there are links."""
        for _ in range(round(seconds)):
            self.now += 1
            self.linking.go_on()

    def connect(self) -> None:
        self.met()
        self.linking.mapped(SEEN)
        self.linking.told(wire.Udp4Conn(PEER, OWN, IPv4Address(str(THERE.address)), THERE.port))
        self.prove()

    def prove(self) -> None:
        self.comes(Heartbeat(PEER, True))
        [challenge] = [each for each in self.sent() if isinstance(each, Delay)]
        self.now += 0.02
        self.comes(challenge)

    @property
    def state(self) -> LinkState:
        found = self.linking.state(PEER)
        assert found is not None
        return found

    def paths(self) -> list[tuple[int, ...]]:
        """Whose, and how long packets may be."""
        return [(given[1], given[6]) for given in self.engine.take("set_old_path")]


@pytest.fixture
def setting() -> Setting:
    return Setting()


def test_a_link_from_the_first_packet_to_its_end(setting: Setting) -> None:
    setting.joined()
    assert setting.engine.take("set_old_key") == [(TUN, int(OWN), datagram.recipient_key(PASSWORD, OWN))]
    assert setting.met()
    assert setting.asked_stun == 1
    assert setting.state.why == "being tried"
    setting.linking.mapped(SEEN)
    assert isinstance(SEEN.address, IPv4Address)
    told, lan = setting.said
    assert told == wire.Udp4Conn(OWN, PEER, SEEN.address, SEEN.port)
    assert isinstance(lan, wire.General)
    assert lan.lan_endpoint == (LAN, PORT)
    setting.linking.told(wire.Udp4Conn(PEER, OWN, IPv4Address(str(THERE.address)), THERE.port))
    assert setting.sent() == [Heartbeat(OWN, False)]
    setting.prove()
    key = datagram.recipient_key(PASSWORD, PEER)
    where = (TUN, int(PEER), LINK, THERE.address.packed, THERE.port, key)
    assert setting.engine.take("set_old_path") == [(*where, 0), (*where, 1500 - OVER)]
    state = setting.state
    assert state.round_trip_s == pytest.approx(0.02)
    assert state == LinkState(THERE, state.round_trip_s, 1500, setting.now, is_old=True)
    assert list(setting.linking) == [PEER]
    setting.pass_s(4)
    assert setting.engine.take("clear_old_path") == [(TUN, int(PEER))]
    assert (setting.state.endpoint, setting.state.why) == (None, "no answer")


def test_what_its_user_says_of_its_lan() -> None:
    setting = Setting(localhost=IPv4Address("192.168.9.9"))
    setting.joined()
    setting.met()
    setting.linking.mapped(SEEN)
    lan = setting.said[1]
    assert isinstance(lan, wire.General)
    assert str(lan.lan_endpoint[0]) == "192.168.9.9"


def test_routes_of_the_relay(setting: Setting) -> None:
    setting.joined()
    setting.linking.routed(True)
    setting.met()
    setting.linking.mapped(SEEN)
    assert [type(each) for each in setting.said] == [wire.Udp4Conn]


def test_nobody_is_looked_for_without_the_password(setting: Setting) -> None:
    setting.joined(b"", is_strict=True)
    setting.way(Way.CLEAR)
    assert setting.met()
    assert setting.comes(Heartbeat(PEER, True))
    setting.linking.mapped(SEEN)
    assert (setting.asked_stun, setting.said, setting.engine.done) == (0, [], [])
    assert setting.state == LinkState(None, why="no password of old clients", is_old=True)
    assert setting.linking.state(OTHER) is None


def test_a_network_that_allows_none(setting: Setting) -> None:
    setting.joined()
    setting.connect()
    setting.engine.done.clear()
    setting.linking.allow(False)
    assert setting.engine.done == [("clear_old_path", (TUN, int(PEER))), ("set_old_key", (TUN, int(OWN), b""))]
    setting.engine.done.clear()
    setting.joined()
    assert setting.engine.take("set_old_key") == []
    setting.linking.allow(True)
    setting.joined()
    assert len(setting.engine.take("set_old_key")) == 1


def test_no_socket_no_links() -> None:
    setting = Setting()
    setting.link4 = None
    setting.joined()
    setting.met()
    assert (setting.engine.done, setting.asked_stun) == ([], 0)


def test_another_connection_changes_nothing(setting: Setting) -> None:
    setting.joined()
    setting.connect()
    setting.engine.done.clear()
    setting.joined()
    assert (setting.engine.done, setting.state.endpoint) == ([], THERE)
    setting.joined(b"another")
    assert setting.engine.take("clear_old_path") == [(TUN, int(PEER))]
    assert setting.linking.state(PEER) is None


def test_where_members_seal_a_peer_is_who_does_not(setting: Setting) -> None:
    setting.joined(is_strict=True)
    setting.met()
    assert setting.asked_stun == 0
    setting.way(Way.WAIT)
    setting.met()
    assert setting.asked_stun == 0
    setting.way(Way.CLEAR)
    assert setting.asked_stun == 1
    setting.way(Way.CLEAR)
    assert setting.asked_stun == 1
    assert list(setting.linking) == [PEER]


def test_who_could_seal_is_none(setting: Setting) -> None:
    setting.joined(is_strict=True)
    setting.with_keys.add(PEER)
    setting.way(Way.CLEAR)
    setting.met()
    setting.linking.told(wire.Udp4Conn(PEER, OWN, LAN, 1))
    assert (setting.asked_stun, setting.asked) == (0, [])


@pytest.mark.parametrize("end", [Way.SEAL, Way.KEY_REFUSED, Way.NO_ROUTE, None])
def test_who_seals_now_is_none_any_more(setting: Setting, end: Way | None) -> None:
    setting.joined(is_strict=True)
    setting.way(Way.CLEAR)
    setting.connect()
    setting.way(Way.WAIT)
    assert setting.state.endpoint == THERE
    if end is None:
        setting.linking.follow(ForgetPeer(PEER))
    else:
        setting.way(end)
    assert setting.engine.take("clear_old_path") == [(TUN, int(PEER))]
    assert setting.linking.state(PEER) is None


def test_what_a_stranger_says_waits_for_the_relays_word(setting: Setting) -> None:
    setting.joined(is_strict=True)
    said = wire.Udp4Conn(PEER, OWN, IPv4Address(str(THERE.address)), THERE.port)
    setting.linking.told(said)
    setting.linking.told(wire.Discovery(OTHER, wire.BROADCAST))
    assert (setting.asked, setting.asked_stun) == ([PEER, OTHER], 0)
    setting.way(Way.CLEAR)
    setting.linking.mapped(SEEN)
    # Both endpoints are known.
    assert setting.sent() == [Heartbeat(OWN, False)]
    setting.way(Way.SEAL, OTHER)
    setting.linking.told(wire.Discovery(OTHER, OWN))
    assert setting.asked == [PEER, OTHER]


def test_strangers_that_wait_are_bounded(setting: Setting) -> None:
    setting.joined(is_strict=True)
    for number in range(100):
        setting.linking.told(wire.Discovery(IPv4Address(int(PEER) + number), OWN))
    setting.way(Way.CLEAR)
    setting.linking.follow(Remove(1))
    assert len(setting.linking._held) == 64


def test_a_search(setting: Setting) -> None:
    setting.joined()
    setting.linking.told(wire.Discovery(PEER, wire.BROADCAST))
    assert setting.asked_stun == 1


def test_it_searches_each_time_again() -> None:
    setting = Setting(discovery_s=SEARCH_S)
    setting.joined()
    assert setting.linking.delay == 0
    setting.linking.go_on()
    assert setting.said == [wire.Discovery(OWN, wire.BROADCAST)]
    assert setting.linking.delay == SEARCH_S
    setting.pass_s(SEARCH_S)
    assert len(setting.said) == 2


def test_nothing_goes_through_the_tunnel_itself(setting: Setting) -> None:
    setting.joined()
    setting.inside.add(THERE)
    setting.met()
    setting.linking.mapped(SEEN)
    setting.linking.told(wire.Udp4Conn(PEER, OWN, IPv4Address(str(THERE.address)), THERE.port))
    setting.comes(Heartbeat(PEER, True))
    setting.pass_s(3)
    assert setting.sent() == []
    assert setting.state.endpoint is None


def test_a_path_that_the_tunnel_leads_to_now_is_left(setting: Setting) -> None:
    setting.joined()
    setting.connect()
    setting.inside.add(THERE)
    setting.linking.review()
    assert setting.engine.take("clear_old_path") == [(TUN, int(PEER))]
    assert setting.linking.delay == float("inf")


def test_packets_fit_the_way(setting: Setting) -> None:
    setting.joined()
    setting.mtu = 9000
    setting.connect()
    assert setting.paths() == [(int(PEER), 0), (int(PEER), LONGEST)]
    setting.mtu = 1280
    setting.now += REVIEW_S
    setting.comes(Heartbeat(PEER, True))
    setting.linking.go_on()
    assert setting.paths() == [(int(PEER), 1280 - OVER)]
    setting.linking.review()
    assert setting.paths() == []


def test_a_path_that_the_kernel_refuses(setting: Setting) -> None:
    setting.joined()
    setting.connect()
    assert not setting.linking.silenced(OTHER)
    assert setting.linking.silenced(PEER)
    assert setting.state.why == "being tried"
    # Its own packets are taken as before.
    assert setting.engine.take("clear_old_path") == []
    assert setting.paths()[-1] == (int(PEER), 0)
    setting.engine.done.clear()
    setting.now += 1
    setting.linking.go_on()
    setting.prove()
    assert setting.paths() == [(int(PEER), 1500 - OVER)]


def test_ivs_are_used_up(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    setting.joined()
    setting.connect()
    setting.engine.sealed = SEALED_MOST
    setting.engine.done.clear()
    with caplog.at_level(logging.WARNING):
        assert setting.linking.silenced(PEER)
        assert not setting.linking.silenced(PEER)
    [line] = caplog.messages
    assert line.startswith("no direct links with old clients any more: 2^32 datagrams")
    assert setting.engine.take("set_old_key") == [(TUN, int(OWN), b"")]
    setting.joined()
    assert setting.engine.take("set_old_key") == []
    setting.linking.joined(OWN, PASSWORD, is_strict=True)
    setting.way(Way.CLEAR)
    assert setting.state.why == "too many packets"
    setting.joined(b"another")
    assert len(setting.engine.take("set_old_key")) == 1
    setting.joined()
    assert setting.engine.take("set_old_key") == [(TUN, int(OWN), b"")]


def test_the_count_of_ivs_goes_on_where_it_ended(setting: Setting) -> None:
    """Keys are made of the password alone: another run has the same."""
    setting.kept[PASSWORD] = 1_000_000
    setting.joined()
    setting.connect()
    assert setting.engine.sealed == 1_000_000
    setting.engine.sealed += 17
    setting.pass_s(1)
    # A killed program goes on from here.
    assert setting.kept[PASSWORD] == 1_000_017 + COUNT_AHEAD
    setting.engine.sealed += COUNT_AHEAD // 4
    setting.pass_s(1)
    assert setting.kept[PASSWORD] == 1_000_017 + COUNT_AHEAD
    setting.engine.sealed += COUNT_AHEAD // 2
    setting.pass_s(1)
    assert setting.kept[PASSWORD] == 1_000_017 + 3 * COUNT_AHEAD // 4 + COUNT_AHEAD
    setting.engine.sealed += 5
    setting.linking.end()
    assert setting.kept == {PASSWORD: 1_000_022 + 3 * COUNT_AHEAD // 4}
    setting.joined(b"another")
    assert setting.engine.sealed == 0


def test_no_links_with_a_password_that_is_used_up(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    setting.kept[PASSWORD] = SEALED_MOST
    with caplog.at_level(logging.WARNING):
        setting.joined()
        setting.joined()
    assert len(caplog.messages) == 1
    assert setting.engine.done == []


def test_a_full_table_leaves_packets_to_the_relay(setting: Setting) -> None:
    """And a peer that nobody could hear is told nothing that has it send packets."""
    setting.joined()
    setting.met()
    setting.linking.mapped(SEEN)
    setting.linking.told(wire.Udp4Conn(PEER, OWN, IPv4Address(str(THERE.address)), THERE.port))
    setting.engine.take("send_old")
    setting.engine.has_room = False
    setting.comes(Heartbeat(PEER, True))
    assert setting.sent() == []
    assert (setting.state.endpoint, setting.state.why) == (None, "no path found")


def test_what_goes_to_strangers_is_limited(setting: Setting) -> None:
    setting.joined()
    for number in range(200):
        peer = IPv4Address(int(PEER) + number)
        setting.linking.told(wire.Udp4Conn(peer, OWN, IPv4Address(str(THERE.address)), THERE.port))
    setting.linking.mapped(SEEN)
    assert len(setting.engine.take("send_old")) == PROBES_SAVED


def test_what_is_limited_reaches_all(setting: Setting) -> None:
    """In turn: else the first ones have all of it for as long as they are tried."""
    setting.joined()
    peers = [IPv4Address(int(PEER) + number) for number in range(100)]
    for peer in peers:
        setting.linking.told(wire.Udp4Conn(peer, OWN, IPv4Address(str(THERE.address)), THERE.port))
    setting.linking.mapped(SEEN)
    keys = {datagram.recipient_key(PASSWORD, peer): peer for peer in peers}
    setting.engine.take("send_old")
    # A peer that has told nothing of its LAN is sent one heartbeat a second.
    seconds = round(len(peers) / PROBES_RATE + 0.5)
    setting.pass_s(seconds)
    sent = [keys[given[4]] for given in setting.engine.take("send_old")]
    assert len(sent) == seconds * PROBES_RATE
    assert set(sent) == set(peers)


def routing(*, is_strict: bool = False) -> Setting:
    """With a link to PEER, which members route by."""
    setting = Setting(cost=10)
    setting.joined(is_strict=is_strict)
    if is_strict:
        setting.way(Way.CLEAR)
    setting.connect()
    setting.engine.done.clear()
    return setting


def test_who_is_reached_by_another_one() -> None:
    setting = routing()
    setting.comes(PeerRoute(OTHER, PEER, 30))
    assert setting.engine.take("set_old_hops") == [(TUN, int(OTHER), [int(PEER)])]
    state = setting.linking.state(OTHER)
    assert state == LinkState(None, why="being tried", is_old=True, by=PEER, cost_ms=50)
    assert OTHER in setting.linking
    setting.comes(PeerRoute(OTHER, PEER, -1))
    assert setting.engine.take("set_old_hops") == [(TUN, int(OTHER), [])]
    setting.comes(PeerRoute(OTHER, PEER, 30))
    setting.pass_s(4)
    assert setting.engine.take("set_old_hops") == [(TUN, int(OTHER), [int(PEER)]), (TUN, int(OTHER), [])]


def test_by_whom_packets_do_not_leave_nobody_is_reached() -> None:
    """The kernel refuses the path: until that is proven anew nothing goes by it, and what its peer says is no route."""
    setting = routing()
    setting.comes(PeerRoute(OTHER, PEER, 30))
    setting.engine.done.clear()
    assert setting.linking.silenced(PEER)
    assert setting.paths() == [(int(PEER), 0)]
    assert setting.engine.take("set_old_hops") == [(TUN, int(OTHER), [])]
    setting.comes(PeerRoute(OTHER, PEER, 30))
    setting.engine.done.clear()
    setting.pass_s(1)
    setting.prove()
    assert setting.paths() == [(int(PEER), 1500 - OVER)]
    assert setting.engine.take("set_old_hops") == []
    setting.comes(PeerRoute(OTHER, PEER, 30))
    assert setting.engine.take("set_old_hops") == [(TUN, int(OTHER), [int(PEER)])]


@pytest.mark.parametrize(
    ("message", "source"),
    [
        (PeerRoute(OTHER, PEER, 1), SEEN),
        (PeerRoute(OTHER, OTHER, 1), THERE),
        (PeerRoute(IPv4Address("10.99.0.255"), PEER, 1), THERE),
        (PeerRoute(IPv4Address("10.99.1.1"), PEER, 1), THERE),
        (PeerRoute(IPv4Address("255.255.255.255"), PEER, 1), THERE),
    ],
    ids=["from elsewhere", "of another", "for all", "of no member", "for all anywhere"],
)
def test_what_is_no_route(message: PeerRoute, source: Endpoint) -> None:
    setting = routing()
    setting.comes(message, source)
    assert setting.engine.take("set_old_hops") == []
    assert setting.linking.state(message.dst) is None


def test_without_a_cost_there_are_no_routes(setting: Setting) -> None:
    setting.joined()
    setting.connect()
    setting.comes(PeerRoute(OTHER, PEER, 30))
    setting.pass_s(2)
    assert setting.engine.take("resend_old") == []
    assert setting.engine.take("set_old_hops") == []
    assert not any(isinstance(each, PeerRoute) for each in setting.sent())


def test_what_others_have_is_sent_on_as_long_as_there_are_links() -> None:
    setting = Setting(cost=10)
    setting.joined()
    assert setting.engine.take("resend_old") == [(TUN, True)]
    setting.connect()
    setting.comes(PeerRoute(OTHER, PEER, 30))
    setting.linking.allow(False)
    assert setting.engine.take("resend_old") == [(TUN, False)]
    assert setting.engine.take("set_old_hops")[-1] == (TUN, int(OTHER), [])


def test_own_links_are_told_of() -> None:
    setting = routing()
    setting.linking.told(wire.Udp4Conn(OTHER, OWN, IPv4Address(str(SEEN.address)), 7003))
    setting.linking.mapped(SEEN)
    there = Endpoint(SEEN.address, 7003)
    setting.comes(Heartbeat(OTHER, True), there)
    [challenge] = [each for _, each in setting.went() if isinstance(each, Delay)]
    setting.now += 0.04
    setting.comes(challenge, there)
    setting.now += 1
    setting.linking.go_on()
    routes = {(peer, each) for peer, each in setting.went() if isinstance(each, PeerRoute)}
    assert routes == {(PEER, PeerRoute(OTHER, OWN, 50)), (OTHER, PeerRoute(PEER, OWN, 30))}


def test_nor_of_those_on_which_little_fits() -> None:
    setting = Setting(cost=10)
    setting.mtu = 1456
    setting.joined()
    setting.connect()
    setting.comes(PeerRoute(OTHER, PEER, 30))
    assert setting.engine.take("set_old_hops") == []
    setting.mtu = 1457
    setting.linking.review()
    setting.comes(PeerRoute(OTHER, PEER, 30))
    assert setting.engine.take("set_old_hops") == [(TUN, int(OTHER), [int(PEER)])]
    setting.mtu = 1456
    setting.linking.review()
    assert setting.engine.take("set_old_hops") == [(TUN, int(OTHER), [])]


def test_where_members_seal_who_is_reached_so_is_one_that_does_not() -> None:
    setting = routing(is_strict=True)
    setting.comes(PeerRoute(OTHER, PEER, 30))
    assert setting.engine.take("set_old_hops") == []
    assert setting.asked == [OTHER]
    assert setting.linking.state(OTHER) is None
    setting.way(Way.CLEAR, OTHER)
    assert setting.engine.take("set_old_hops") == [(TUN, int(OTHER), [int(PEER)])]
    setting.way(Way.SEAL, OTHER)
    assert setting.engine.take("set_old_hops") == [(TUN, int(OTHER), ())]
    setting.comes(PeerRoute(OTHER, PEER, 40))
    assert setting.engine.take("set_old_hops") == []
    assert setting.asked == [OTHER]


@pytest.mark.parametrize(
    ("seconds", "is_mapped", "is_told", "why"),
    [(12, False, False, "no UDP"), (12, True, False, "no answer"), (12, True, True, "no path found")],
)
def test_why_by_the_relay(setting: Setting, seconds: int, is_mapped: bool, is_told: bool, why: str) -> None:
    setting.joined()
    setting.met()
    if is_mapped:
        setting.linking.mapped(SEEN)
    if is_told:
        setting.linking.told(wire.Udp4Conn(PEER, OWN, IPv4Address(str(THERE.address)), THERE.port))
    setting.pass_s(seconds)
    assert setting.state.why == why


def test_whose_events_are_whose(setting: Setting) -> None:
    assert not setting.linking.on_event(EVENT_WANTED, PEER.packed)
    setting.joined()
    assert setting.linking.on_event(EVENT_OLD, bytes(27) + b"\x09")
    assert setting.comes(datagram.PeerRoute(PEER, OTHER, 5))
    assert setting.engine.take("send_old") == []
