"""SD-WAN rules: what is one, what is refused, and what members are told, byte by byte."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from candy.protocol import wire
from candy.protocol.wire import RouteEntry
from candy.relay.rules import Rule, Rules, first_overlap, messages, split_rules, why_impossible

POOL = IPv4Network("192.168.202.0/24")
TO_B = "192.168.202.1/32,172.17.0.0/16,192.168.202.2"
TO_A = "192.168.202.2/32,172.16.0.0/16,192.168.202.1"


def ip(last: int) -> IPv4Address:
    return IPv4Address(f"192.168.202.{last}")


def rules(*texts: str) -> list[Rule]:
    return [Rule.parse(text) for text in texts]


def entries(count: int) -> list[RouteEntry]:
    return [RouteEntry(IPv4Network((10 << 24 | n << 8, 24)), ip(2)) for n in range(count)]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (TO_B, TO_B),
        (" 192.168.202.1/32 , 172.17.0.0/16 ,\t192.168.202.2 ", TO_B),
        ("192.168.202.1,172.17.9.9/16,192.168.202.2", TO_B),
        (
            "192.168.202.7/255.255.255.0,10.0.0.0/255.0.0.0,192.168.202.2",
            "192.168.202.0/24,10.0.0.0/8,192.168.202.2",
        ),
        ("0.0.0.0/0,10.0.0.0/8,192.168.202.2", "0.0.0.0/0,10.0.0.0/8,192.168.202.2"),
    ],
)
def test_a_rule(text: str, rule: str) -> None:
    assert str(Rule.parse(text)) == rule
    assert Rule.parse(rule) == Rule.parse(text)


NO_RULE = "is not a rule: write it like 192.168.202.0/24,172.17.0.0/16,192.168.202.2"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", NO_RULE),
        ("192.168.202.1/32", NO_RULE),
        (f"{TO_B},100", NO_RULE),
        ("192.168.202.256,10.0.0.0/8,1.2.3.4", "has '192.168.202.256' for its device: write a network like "),
        ("192.168.202.1/33,10.0.0.0/8,1.2.3.4", "has '192.168.202.1/33' for its device: write a network like "),
        ("192.168.202.1,10.0.0.0/8/8,1.2.3.4", "has '10.0.0.0/8/8' for its destination: write a network like "),
        ("192.168.202.1,,1.2.3.4", "has '' for its destination: write a network like "),
        ("192.168.202.1,fd00::/8,1.2.3.4", "has 'fd00::/8' for its destination: write a network like "),
        ("192.168.202.1,10.0.0.0/8,1.2.3.4/32", "has '1.2.3.4/32' for its next hop: write an address like "),
        ("192.168.202.1,10.0.0.0/8,٣.2.3.4", "has '٣.2.3.4' for its next hop: write an address like "),
    ],
)
def test_no_rule(text: str, why: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        Rule.parse(text)
    assert str(refused.value).startswith(why)
    assert "\n" not in str(refused.value)


def test_rules_are_separated_by_semicolons() -> None:
    assert split_rules(f"{TO_B};{TO_A}") == split_rules(f" {TO_B} ;; {TO_A} ; ") == [TO_B, TO_A]
    assert split_rules("") == split_rules(" ; ") == []


@pytest.mark.parametrize(
    ("text", "strict", "lax"),
    [
        (TO_B, None, None),
        ("192.168.202.0/24,172.17.0.0/16,192.168.202.2", None, None),
        ("192.0.0.0/8,172.17.0.0/16,192.168.202.2", None, None),
        ("0.0.0.0/0,0.0.0.0/1,192.168.202.2", None, None),
        ("192.168.202.1,10.0.0.0/8,192.168.203.2", "has a next hop that is not a member's address in the pool", None),
        ("192.168.202.1,10.0.0.0/8,192.168.202.0", "has a next hop that is not a member's address in the pool", None),
        ("192.168.202.1,10.0.0.0/8,192.168.202.255", "has a next hop that is not a member's address in the pool", None),
        ("192.168.203.0/24,10.0.0.0/8,192.168.202.2", "is for devices that have no member's address in the", None),
        ("192.168.202.0/32,10.0.0.0/8,192.168.202.2", "is for devices that have no member's address in the", None),
        ("192.168.202.2/32,10.0.0.0/8,192.168.202.2", *["is for its own next hop alone"] * 2),
        ("192.168.202.0/31,10.0.0.0/8,192.168.202.1", "is for its own next hop alone", None),
        ("192.168.202.1,192.168.202.128/25,192.168.202.2", *["is a route into the pool 192.168.202.0/24"] * 2),
        ("192.168.202.1,192.168.0.0/16,192.168.202.2", *["is a route into the pool 192.168.202.0/24"] * 2),
        ("192.168.202.1,0.0.0.0/0,192.168.202.2", *["is a route into the pool 192.168.202.0/24"] * 2),
        ("192.168.202.1,127.1.0.0/16,192.168.202.2", *["leads to where no member can be"] * 2),
        ("192.168.202.1,224.0.0.0/4,192.168.202.2", *["leads to where no member can be"] * 2),
        ("192.168.202.1,255.255.255.255,192.168.202.2", *["leads to where no member can be"] * 2),
        ("192.168.202.1,0.1.0.0/16,192.168.202.2", *["leads to where no member can be"] * 2),
    ],
)
def test_what_is_impossible_with_a_pool(text: str, strict: str | None, lax: str | None) -> None:
    """`strict`: members have an address of the pool; `lax`: they may have any."""
    for why, allow_outside_pool in ((strict, False), (lax, True)):
        refused = why_impossible(Rule.parse(text), POOL, allow_outside_pool)
        assert refused == why if why is None else (refused is not None and refused.startswith(why))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (TO_B, None),
        ("10.0.0.0/8,172.17.0.0/16,10.255.255.255", None),
        ("192.168.202.1,10.0.0.0/8,224.0.0.1", "has a next hop that no member can be"),
        ("192.168.202.1,10.0.0.0/8,127.0.0.1", "has a next hop that no member can be"),
        ("127.0.0.0/8,10.0.0.0/8,192.168.202.2", "is for devices that no member can be"),
        ("192.168.202.1,192.168.0.0/16,192.168.202.2", "has a destination that its own next hop is part of"),
    ],
)
def test_what_is_impossible_without_a_pool(text: str, why: str | None) -> None:
    assert why_impossible(Rule.parse(text), None) == why


@pytest.mark.parametrize(
    ("texts", "overlap"),
    [
        ([], None),
        ([TO_B, TO_A], None),
        ([TO_B, TO_B], (1, 0)),
        # One member, two ways to a part of the destination.
        ([TO_B, "192.168.202.0/24,172.17.5.0/24,192.168.202.3"], (1, 0)),
        ([TO_B, "192.168.202.0/24,172.0.0.0/8,192.168.202.3"], (1, 0)),
        # One destination, two members.
        ([TO_B, "192.168.202.3/32,172.17.0.0/16,192.168.202.4"], None),
        # The only member of both is a next hop.
        ([TO_B, "192.168.202.0/24,172.17.0.0/16,192.168.202.1"], None),
        (["192.168.202.2/31,10.0.0.0/8,192.168.202.2", "192.168.202.2/31,10.0.0.0/8,192.168.202.3"], None),
        (["192.168.202.2/31,10.0.0.0/8,192.168.202.2", "192.168.202.2/31,10.0.0.0/8,192.168.202.4"], (1, 0)),
        ([TO_B, TO_A, "192.168.202.2,172.16.0.0/12,192.168.202.9", TO_B], (2, 1)),
    ],
)
def test_overlaps(texts: list[str], overlap: tuple[int, int] | None) -> None:
    assert first_overlap(rules(*texts)) == overlap


def test_what_a_member_is_told() -> None:
    everybody = "192.168.202.0/24,10.0.0.0/8,192.168.202.2"
    routes = Rules(rules(TO_B, TO_A, everybody))
    to_a, to_b = RouteEntry(IPv4Network("172.16.0.0/16"), ip(1)), RouteEntry(IPv4Network("172.17.0.0/16"), ip(2))
    to_ten = RouteEntry(IPv4Network("10.0.0.0/8"), ip(2))
    assert routes.entries(ip(1)) == (to_b, to_ten)
    assert routes.entries(ip(2)) == (to_a,)
    assert routes.entries(ip(3)) == (to_ten,)
    assert routes.entries(IPv4Address("192.168.203.1")) == ()
    assert Rules().entries(ip(1)) == ()


def test_what_lies_behind_a_member() -> None:
    routes = Rules(
        rules(TO_B, TO_A, "192.168.202.3,172.17.0.0/16,192.168.202.2", "192.168.202.3,10.0.0.0/8,192.168.202.2")
    )
    assert routes.lans(ip(1)) == (IPv4Network("172.16.0.0/16"),)
    assert routes.lans(ip(2)) == (IPv4Network("172.17.0.0/16"), IPv4Network("10.0.0.0/8"))
    assert routes.lans(ip(3)) == ()


def test_what_the_engine_is_told() -> None:
    placements = Rules(rules(TO_B, "0.0.0.0/0,10.0.0.0/8,192.168.202.3")).placements
    assert [placement.numbers for placement in placements] == [
        (0xAC110000, 0xFFFF0000, 0xC0A8CA02, 0xC0A8CA01, 0xFFFFFFFF),
        (0x0A000000, 0xFF000000, 0xC0A8CA03, 0, 0),
    ]


def test_messages_byte_by_byte() -> None:
    told = Rules(rules(TO_B)).entries(ip(1))
    body = bytes.fromhex("ac110000 ffff0000 c0a8ca02")
    assert messages(told, extended=False) == [bytes([6, 1, 0, 0]) + body]
    assert messages(told, extended=True) == [bytes([6, 1, 3, 0]) + body]


def test_no_entries_withdraw_a_set_and_are_nothing_to_others() -> None:
    assert messages([], extended=True) == [bytes([6, 0, 3, 0])]
    assert messages([], extended=False) == []


@pytest.mark.parametrize(
    ("count", "sizes", "flags"),
    [
        (100, [100], [3]),
        (101, [100, 1], [1, 2]),
        (200, [100, 100], [1, 2]),
        (250, [100, 100, 50], [1, 0, 2]),
    ],
)
def test_batches(count: int, sizes: list[int], flags: list[int]) -> None:
    """field: at most 100 entries a message."""
    for extended in (False, True):
        told = [wire.decode(message) for message in messages(entries(count), extended)]
        assert [len(message.entries) for message in told if isinstance(message, wire.Route)] == sizes
        assert [message.flags for message in told if isinstance(message, wire.Route)] == [
            flag * extended for flag in flags
        ]
        assert [e for message in told if isinstance(message, wire.Route) for e in message.entries] == entries(count)
        assert all(len(message) <= wire.LEGACY_PAYLOAD for message in messages(entries(count), extended))
