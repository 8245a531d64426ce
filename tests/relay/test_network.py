"""What concerns a whole network, in memory: its rules, its own interface, its limits, and the networks beside it.

Log-ins are in test_session.py, conflicts in test_session_addresses.py.
"""

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest
from kit.talk import FAILED, ONE, TAKEN_OVER, TWO, Talk, ip

from candy.protocol import wire
from candy.protocol.actions import Close, Drop, Ping, Send
from candy.protocol.wire import DropReason, RouteEntry
from candy.relay.rules import Rule, Rules, behind_messages, messages
from candy.relay.session import Action, Bind, Unbind

LAN_A, LAN_B = IPv4Network("172.16.0.0/16"), IPv4Network("172.17.0.0/16")
TO_A = "192.168.202.0/24,172.16.0.0/16,192.168.202.1"
TO_B = "192.168.202.0/24,172.17.0.0/16,192.168.202.2"
VIA_A, VIA_B = RouteEntry(LAN_A, ip(1)), RouteEntry(LAN_B, ip(2))
CHANGED = "the routes have changed"


def rules(*texts: str) -> Rules:
    return Rules(Rule.parse(text) for text in texts)


def log_in(talk: Talk, address: IPv4Address, *, extended: bool = False) -> tuple[int, list[Action]]:
    """A new connection, and what its AUTH causes; a second goes by, so that it is no replay."""
    talk.wall += 1
    connection = talk.open(extended=extended)
    return connection, talk.auth(connection, address)


def told(connection: int, entries: list[RouteEntry], *, extended: bool = False) -> list[Action]:
    return [Send(connection, message) for message in messages(entries, extended)]


def change(talk: Talk, *texts: str) -> list[Action]:
    return talk.keep(talk.network.set_rules(rules(*texts), talk.now))


# Rules


@pytest.mark.parametrize("extended", [False, True])
def test_whom_rules_concern_is_told_behind_its_log_in(extended: bool) -> None:
    talk = Talk(rules=rules(TO_A, TO_B))
    connection, actions = log_in(talk, ip(3), extended=extended)
    assert actions == [Bind(connection, int(ip(3))), *told(connection, [VIA_A, VIA_B], extended=extended)]


@pytest.mark.parametrize("extended", [False, True])
def test_whom_rules_do_not_concern_is_told_nothing(extended: bool) -> None:
    talk = Talk(rules=rules("192.168.202.3,172.17.0.0/16,192.168.202.2"))
    connection, actions = log_in(talk, ip(4), extended=extended)
    assert actions == [Bind(connection, int(ip(4)))]


def test_many_rules_are_told_in_batches() -> None:
    """field: at most 100 entries a message."""
    many = [f"192.168.202.3,10.{n}.0.0/16,192.168.202.2" for n in range(250)]
    talk = Talk(rules=rules(*many))
    _, (bind, *sent) = log_in(talk, ip(3))
    assert isinstance(bind, Bind)
    batches = [wire.decode(action.payload) for action in sent if isinstance(action, Send)]
    assert [len(batch.entries) for batch in batches if isinstance(batch, wire.Route)] == [100, 100, 50]


def test_rules_that_change_are_told_anew() -> None:
    """Members with candy.2 "get the new set, the others are closed with 1012 and come back to it"."""
    talk = Talk(rules=rules(TO_A))
    new, _ = log_in(talk, ip(3), extended=True)
    old, _ = log_in(talk, ip(4))
    assert change(talk, TO_A, TO_B) == [
        *told(new, [VIA_A, VIA_B], extended=True),
        Unbind(old),
        Close(old, 1012, CHANGED),
    ]
    assert talk.log[-1] == ("info", "2 SD-WAN rules from now on; members told: 1, closed to come back: 1")
    assert talk.close(old) == []
    back, actions = log_in(talk, ip(4))
    assert actions == [Bind(back, int(ip(4))), *told(back, [VIA_A, VIA_B])]


def test_rules_that_are_withdrawn() -> None:
    talk = Talk(rules=rules(TO_A))
    new, _ = log_in(talk, ip(3), extended=True)
    old, _ = log_in(talk, ip(4))
    assert change(talk) == [Send(new, bytes([6, 0, 3, 0])), Unbind(old), Close(old, 1012, CHANGED)]


@pytest.mark.parametrize("extended", [False, True])
def test_whom_a_change_does_not_concern_notices_nothing(extended: bool) -> None:
    mine = "192.168.202.3,172.16.0.0/16,192.168.202.1"
    talk = Talk(rules=rules(mine, TO_B))
    log_in(talk, ip(3), extended=extended)
    other = "192.168.202.4,10.0.0.0/8,192.168.202.2"
    assert change(talk, TO_B, mine, other) == []
    assert change(talk, TO_B, mine) == []


def behind(connection: int, *texts: str) -> list[Action]:
    return [Send(connection, message) for message in behind_messages(rules(*texts).placements)]


def test_a_gateway_with_candy_2_is_told_what_lies_behind_whom() -> None:
    """All of it, ahead of its routes: what others may send from matters to it too."""
    mine = "192.168.202.3,172.16.0.0/16,192.168.202.1"
    talk = Talk(rules=rules(mine, TO_B))
    gateway, actions = log_in(talk, ip(1), extended=True)
    routes = told(gateway, [VIA_B], extended=True)
    assert actions == [Bind(gateway, int(ip(1))), *behind(gateway, mine, TO_B), *routes]
    old, actions = log_in(talk, ip(2))
    assert actions == [Bind(old, int(ip(2)))]
    member, actions = log_in(talk, ip(3), extended=True)
    assert actions[1:] == told(member, [VIA_A, VIA_B], extended=True)


def test_gateways_are_told_anew_before_anybody_else_is() -> None:
    for_c = "192.168.202.3,10.0.0.0/8,192.168.202.2"
    talk = Talk(rules=rules(TO_A, "192.168.202.4,172.17.0.0/16,192.168.202.2"))
    c, _ = log_in(talk, ip(3), extended=True)
    a, _ = log_in(talk, ip(1), extended=True)
    b, _ = log_in(talk, ip(2))
    changed = TO_A, "192.168.202.4,172.17.0.0/16,192.168.202.2", for_c
    ten = RouteEntry(IPv4Network("10.0.0.0/8"), ip(2))
    # Nothing of its own has changed for a, but c may be sent from elsewhere now. The old gateway is told nothing.
    assert change(talk, *changed) == [*behind(a, *changed), *told(c, [VIA_A, ten], extended=True)]
    assert change(talk, *reversed(changed)) == []
    # Nothing lies behind a any more; something does behind c.
    fresh = "192.168.202.9,10.0.0.0/8,192.168.202.3"
    assert change(talk, fresh) == [
        *behind(c, fresh),
        Send(a, bytes([17, 1, 0, 3])),
        *told(c, [], extended=True),
        Unbind(b),
        Close(b, 1012, CHANGED),
    ]


def test_gateways_are_told_nothing_where_nothing_is_checked() -> None:
    talk = Talk(rules=rules(TO_A), tell_gateways=False)
    a, actions = log_in(talk, ip(1), extended=True)
    assert actions == [Bind(a, int(ip(1)))]
    assert change(talk, TO_A, TO_B) == told(a, [VIA_B], extended=True)


def test_whoever_is_not_in_yet_is_told_the_rules_that_hold_then() -> None:
    talk = Talk(rules=rules(TO_A))
    connection = talk.open()
    assert change(talk, TO_B) == []
    assert talk.auth(connection, ip(3)) == [Bind(connection, int(ip(3))), *told(connection, [VIA_B])]


def test_whoever_waits_for_the_address_of_a_member_that_is_closed_gets_it() -> None:
    talk = Talk(rules=rules(TO_A))
    holder, _ = log_in(talk, ip(3))
    newcomer, (ping,) = log_in(talk, ip(3))
    assert isinstance(ping, Ping)
    assert change(talk, TO_B) == [
        Unbind(holder),
        Close(holder, 1012, CHANGED),
        Bind(newcomer, int(ip(3))),
        *told(newcomer, [VIA_B]),
    ]
    assert talk.pong(holder, ping.payload) == []
    assert talk.network.next_deadline() is None


# The relay's own interface

HOST = 1 << 32


@pytest.fixture
def hosting() -> Talk:
    talk = Talk("192.168.202.0/29")
    assert talk.network.host(HOST, ip(1)) == [Bind(HOST, int(ip(1)))]
    return talk


def test_its_address_is_granted_to_nobody(hosting: Talk) -> None:
    assert hosting.granted(hosting.open()) == "192.168.202.2/29"
    assert hosting.granted(hosting.open(), "192.168.202.1/29") == "192.168.202.3/29"
    last = [hosting.granted(hosting.open()) for _ in range(3)]
    assert last == [f"192.168.202.{n}/29" for n in (4, 5, 6)]
    assert isinstance(hosting.expttun(hosting.open())[0], Close)


@pytest.mark.parametrize("vmac", [None, ONE])
def test_its_address_is_left_to_nobody(hosting: Talk, vmac: bytes | None) -> None:
    newcomer, actions = hosting.newcomer(ip(1), vmac)
    assert actions == [Close(newcomer, None, FAILED)]
    assert hosting.logged("refused: 192.168.202.1 is this relay's own")


def test_it_gets_no_messages(hosting: Talk) -> None:
    two, three = hosting.member(ip(2)), hosting.member(ip(3))
    to_everybody = wire.Discovery(ip(2), wire.BROADCAST).encode()
    assert hosting.receive(two, to_everybody) == [Send(three, to_everybody)]
    to_it = wire.Discovery(ip(2), ip(1)).encode()
    assert hosting.receive(two, to_it) == [Drop(two, DropReason.NO_ROUTE)]


# Limits


def test_no_more_members_than_allowed() -> None:
    talk = Talk(max_members=2)
    first = talk.member(ip(1))
    talk.member(ip(2), TWO)
    third, actions = log_in(talk, ip(3))
    assert actions == [Close(third, 1013, "the network is full: 2 members are in")]
    assert talk.logged("203.0.113.3: not let in as 192.168.202.3: the network is full: 2 members are in")
    talk.close(first)
    talk.member(ip(3))
    assert isinstance(log_in(talk, ip(4))[1][0], Close)


def test_a_full_network_takes_its_members_back() -> None:
    talk = Talk(max_members=1)
    old = talk.member(ip(7), ONE)
    new, actions = talk.newcomer(ip(7), ONE)
    assert actions == [Unbind(old), Close(old, 4001, TAKEN_OVER), Bind(new, int(ip(7)))]
    waiting, (ping,) = talk.newcomer(ip(7), TWO)
    assert isinstance(ping, Ping)
    talk.now += 3
    assert talk.expire() == [Unbind(new), Close(new, 4001, TAKEN_OVER), Bind(waiting, int(ip(7)))]
    # By the change of the rules, too, one has gone.
    assert change(talk, TO_B) == [Unbind(waiting), Close(waiting, 1012, CHANGED)]
    assert Bind(waiting + 1, int(ip(8))) in log_in(talk, ip(8))[1]


def test_a_source_brings_no_more_new_devices_than_allowed() -> None:
    """254 log-ins of one source would take the whole pool."""
    talk = Talk()
    office = "198.51.100.1"
    outcomes = []
    for last in range(1, 255):
        connection = talk.open(office)
        talk.vmac(connection, b"%016x" % last)
        address = IPv4Interface(talk.granted(connection)).ip
        outcomes.append(talk.auth(connection, address))
        if len(outcomes) > 100:
            reason = "too many new devices: try again in a minute"
            assert outcomes[-1] == [Close(connection, 1013, reason)]
            assert talk.log[-1] == (
                "warning",
                f"{office}: not let in as {address}: 100 new devices came from its address within a minute; "
                f"--new-devices-per-minute allows more (VMAC {last:016x})",
            )
    assert sum(isinstance(actions[0], Bind) for actions in outcomes) == 100
    # Others are not concerned, nor those that were in before.
    talk.member(ip(200))
    known = talk.open(office)
    talk.vmac(known, b"%016x" % 50)
    talk.wall += 1
    assert Bind(known, int(ip(50))) in talk.auth(known, ip(50))
    talk.now += 60
    late = talk.open(office)
    assert talk.auth(late, ip(201)) == [Bind(late, int(ip(201)))]


def test_a_device_without_vmac_that_comes_back_to_its_address_is_not_new() -> None:
    talk = Talk(new_devices_per_minute=1)
    for _ in range(5):
        connection = talk.open("198.51.100.1")
        talk.wall += 1
        assert talk.auth(connection, ip(5)) == [Bind(connection, int(ip(5)))]
        talk.close(connection)
    assert isinstance(talk.auth(talk.open("198.51.100.1"), ip(6))[0], Close)


def test_messages_to_everybody_are_bounded_by_the_copies_that_they_cost() -> None:
    talk = Talk("10.0.0.0/16", new_devices_per_minute=0)
    sender = IPv4Address("10.0.255.1")
    loud = talk.member(sender)
    others = [talk.member(IPv4Address(f"10.0.{n // 100}.{n % 100 + 1}")) for n in range(500)]
    message = wire.Discovery(sender, wire.BROADCAST).encode()
    copies = [Send(other, message) for other in others]
    # 2.5 s worth each, and 5 s ahead is the bound.
    assert [talk.receive(loud, message) for _ in range(3)] == [copies] * 3
    assert talk.receive(loud, message) == [Drop(loud, "broadcast_limit")]
    talk.now += 2.4
    assert talk.receive(loud, message) == [Drop(loud, "broadcast_limit")]
    talk.now += 0.1
    assert talk.receive(loud, message) == copies
    assert talk.receive(loud, message) == [Drop(loud, "broadcast_limit")]
    # Nobody else's allowance is touched, nor messages to one member.
    quiet = wire.General(0, 0, IPv4Address("10.0.0.1"), wire.BROADCAST, bytes(6)).encode()
    assert len(talk.receive(others[0], quiet)) == 500
    to_one = wire.Discovery(sender, IPv4Address("10.0.0.1")).encode()
    assert talk.receive(loud, to_one) == [Send(others[0], to_one)]
    talk.now += 1000
    assert [talk.receive(loud, message) for _ in range(4)] == [*[copies] * 3, [Drop(loud, "broadcast_limit")]]


def test_a_network_without_broadcast() -> None:
    talk = Talk(forward_broadcast=False)
    five, six = talk.member(ip(5)), talk.member(ip(6))
    for message in (
        wire.Discovery(ip(5), wire.BROADCAST).encode(),
        wire.General(0, 0, ip(5), wire.BROADCAST, bytes(6)).encode(),
    ):
        assert talk.receive(five, message) == [Drop(five, DropReason.NO_ROUTE)]
    to_one = wire.Discovery(ip(5), ip(6)).encode()
    assert talk.receive(five, to_one) == [Send(six, to_one)]


# Beside other networks


def test_networks_know_nothing_of_each_other() -> None:
    """One VMAC, one address, one digest: each network has its own. "Leases are keyed by (network, VMAC)"."""
    home, office = Talk(), Talk()
    for talk in (home, office):
        connection = talk.open("198.51.100.1")
        assert talk.vmac(connection, ONE) == []
        assert talk.granted(connection) == "192.168.202.1/24"
        assert talk.auth(connection, ip(1)) == [Bind(connection, int(ip(1)))]
    assert home.wall == office.wall
    home.member(ip(2))
    message = wire.Discovery(ip(1), ip(2)).encode()
    assert len(home.receive(1, message)) == 1
    assert office.receive(1, message) == [Drop(1, DropReason.NO_ROUTE)]
    again = office.open()
    assert office.vmac(again, ONE) == []
    assert office.granted(again) == "192.168.202.2/24"
