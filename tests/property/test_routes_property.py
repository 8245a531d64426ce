"""SD-WAN rules against a slow, obvious model: every member and every address of a small world, one by one."""

from ipaddress import IPv4Address, IPv4Network

from hypothesis import given
from hypothesis import strategies as st
from kit.superpacket import IPIP, ip_header, udp

from candy._fastpath import write_device
from candy.member.placements import Placements
from candy.protocol import wire
from candy.protocol.wire import RouteEntry
from candy.relay.rules import Rule, Rules, behind_messages, first_overlap, messages, why_impossible

MEMBERS = IPv4Network("10.0.0.0/29")
BEHIND = IPv4Network("172.16.0.0/28")
EVERYBODY = [*MEMBERS, *BEHIND]


def networks(within: IPv4Network) -> st.SearchStrategy[IPv4Network]:
    parts = [part for length in range(within.prefixlen, 33) for part in within.subnets(new_prefix=length)]
    return st.sampled_from(parts)


rule = st.builds(Rule, networks(MEMBERS), networks(BEHIND), st.sampled_from(list(MEMBERS)))
rules = st.lists(rule, max_size=6)


def concerns(rule: Rule, member: IPv4Address) -> bool:
    """ "Members inside device-cidr get a ROUTE entry", "unless it is the next hop itself"."""
    return member in rule.device and member != rule.next_hop


@given(rules)
def test_members_are_told_their_rules_in_order(rules: list[Rule]) -> None:
    routes = Rules(rules)
    for member in MEMBERS:
        expected = [RouteEntry(rule.destination, rule.next_hop) for rule in rules if concerns(rule, member)]
        assert list(routes.entries(member)) == expected


@given(rules)
def test_members_send_from_what_lies_behind_them(rules: list[Rule]) -> None:
    routes = Rules(rules)
    for member in MEMBERS:
        behind = {address for rule in rules if rule.next_hop == member for address in rule.destination}
        lans = routes.lans(member)
        assert {address for lan in lans for address in lan} == behind
        assert len(set(lans)) == len(lans)


@given(rules)
def test_overlapping_rules_are_found(rules: list[Rule]) -> None:
    expected = None
    for later in reversed(range(len(rules))):
        for earlier in reversed(range(later)):
            one, other = rules[later], rules[earlier]
            both = any(concerns(one, member) and concerns(other, member) for member in MEMBERS)
            if both and any(address in other.destination for address in one.destination):
                expected = (later, earlier)
    assert first_overlap(rules) == expected


@given(rule)
def test_a_rule_for_nobody_is_impossible(rule: Rule) -> None:
    hosts = list(MEMBERS.hosts())
    possible = rule.next_hop in hosts and any(concerns(rule, member) for member in hosts)
    assert (why_impossible(rule, MEMBERS) is None) is possible


@given(rule, networks(IPv4Network("10.0.0.0/28")))
def test_a_rule_into_the_pool_is_impossible(rule: Rule, destination: IPv4Network) -> None:
    into = Rule(rule.device, destination, rule.next_hop)
    if any(address in MEMBERS for address in destination):
        assert why_impossible(into, MEMBERS) is not None


@given(st.integers(0, 350), st.booleans())
def test_what_is_told_is_what_is_read(count: int, extended: bool) -> None:
    """A receiver that keeps "the latest set with candy.2", and accumulates without it, ends up with the entries."""
    told = [RouteEntry(IPv4Network((10 << 24 | n << 8, 24)), MEMBERS[1]) for n in range(count)]
    kept: list[RouteEntry] = []
    is_complete = not extended
    for payload in messages(told, extended):
        message = wire.decode(payload)
        assert isinstance(message, wire.Route)
        assert 0 < len(message.entries) <= 100 or (extended and not told)
        if message.flags & wire.Route.FIRST:
            kept = []
        kept += message.entries
        is_complete = bool(message.flags & wire.Route.LAST) or not extended
    assert kept == told
    assert is_complete


@given(
    rules.filter(bool),
    st.sampled_from(list(MEMBERS)),
    st.sampled_from(list(MEMBERS)),
    st.sampled_from(EVERYBODY),
    st.sampled_from(EVERYBODY),
)
def test_what_is_wrapped_comes_out_by_the_rules(
    rules: list[Rule], sender: IPv4Address, receiver: IPv4Address, source: IPv4Address, destination: IPv4Address
) -> None:
    inner = udp(b"within", source=int(source), to=int(destination))
    outer = ip_header(len(inner), IPIP, int(sender), int(receiver))
    placements = [placement.numbers for placement in Rules(rules).placements]
    written, dropped = write_device([b"\1" + outer + inner], vnet=False, own=int(receiver), rules=placements)
    is_from = source == sender or any(rule.next_hop == sender and source in rule.destination for rule in rules)
    is_for = destination == receiver or any(
        rule.next_hop == receiver and destination in rule.destination and sender in rule.device for rule in rules
    )
    assert written == ([inner] if is_from and is_for else [])
    assert list(dropped) == ([] if written else ["inner_destination" if is_from else "inner_source"])


@given(st.lists(st.integers(0, 350), min_size=1, max_size=3))
def test_what_lies_behind_whom_is_read_as_it_is_told(counts: list[int]) -> None:
    """One set after another: each replaces the one before, as soon as its last message has come."""
    placements = Placements()
    before: tuple[wire.Placement, ...] = ()
    for count in counts:
        rules = [Rule(MEMBERS, IPv4Network((10 << 24 | n << 8, 24)), MEMBERS[1 + n % 5]) for n in range(count)]
        told = Rules(rules).placements
        *first, last = behind_messages(told)
        for payload in (*first, last):
            assert placements.told == before
            assert len(payload) <= wire.LEGACY_PAYLOAD
            message = wire.decode(payload)
            assert isinstance(message, wire.Behind)
            assert placements.received(message) is (payload is last)
        assert placements.told == told
        before = told
