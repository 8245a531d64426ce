"""Why packets arrive or do not: each verdict, by what a relay may know of both ends."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from candy.control.model import WhyVerdict
from candy.relay.limits import Allowed
from candy.relay.rules import Rule, Rules
from candy.relay.why import SILENT_S, STALLED_MS, End, Terms, hints, judge

A, B, FAR = IPv4Address("192.168.202.2"), IPv4Address("192.168.202.3"), IPv4Address("172.16.0.9")
POOL = IPv4Network("192.168.202.0/24")
TO_LAN = Rule.parse("192.168.202.0/24,172.16.0.0/16,192.168.202.3")
FOR_OTHERS = Rule.parse("192.168.202.128/25,172.16.0.0/16,192.168.202.3")
TERMS = Terms(POOL, Rules())
FROM = End(path="/", ip=A, name="laptop", through=A, is_here=True, heard_s=0.1)
TO = End(path="/", ip=B, through=B, is_here=True, heard_s=0.1)
BEHIND = replace(TO, ip=FAR, rule=TO_LAN)
LEFT = replace(TO, name="nas", is_here=False, heard_s=None, last_seen=1_700_000_000.0)
NOBODY = replace(LEFT, name="", through=None, last_seen=None)


@pytest.mark.parametrize(
    ("source", "destination", "terms", "verdict", "words"),
    [
        (FROM, TO, TERMS, "passes", "packets from 192.168.202.2 (laptop) to 192.168.202.3 pass: what is lost is lost"),
        (FROM, BEHIND, TERMS, "passes", "to 172.16.0.9 pass through 192.168.202.3: "),
        (
            FROM,
            replace(TO, held_down=True, allowed=Allowed(down=10_000_000), queued_bytes=9, queue_delay_ms=STALLED_MS),
            TERMS,
            "limit",
            "192.168.202.3 is sent no more than 10000000 bits/s: what is sent to it waits, and what has waited",
        ),
        (
            replace(FROM, held_up=True, allowed=Allowed(up=8000, is_spent=True)),
            TO,
            TERMS,
            "limit",
            "may send no more than 8000 bits/s: it is read no faster, so packets wait in its own machine; "
            "the quota of 192.168.202.2 is used up",
        ),
        (
            FROM,
            replace(TO, held_down=True, dropped={"delay": 3}),
            TERMS,
            "limit",
            "192.168.202.3 is sent no more than its network's limit leaves it",
        ),
        (FROM, replace(TO, path="/home"), TERMS, "not in this network", "192.168.202.3 in /home: no packet passes"),
        (
            FROM,
            LEFT,
            TERMS,
            "no member there",
            "no member is at 192.168.202.3 (nas); it was last there 2023-11-14 22:13:20 UTC: run candy-client doctor",
        ),
        (FROM, replace(LEFT, is_revoked=True), TERMS, "no member there", "22:13:20 UTC: its device was revoked"),
        (replace(LEFT, ip=A, through=A), TO, TERMS, "no member there", "no member is at 192.168.202.2 (nas); it was"),
        (FROM, NOBODY, TERMS, "no member there", "is at 192.168.202.3, and none is known to have been there"),
        (replace(NOBODY, ip=A), TO, TERMS, "no member there", "is at 192.168.202.2, and none is known to have been"),
        (
            FROM,
            replace(LEFT, ip=FAR, name="", rule=TO_LAN),
            TERMS,
            "no member there",
            f"no member is at 192.168.202.3, and by the rule {TO_LAN} 172.16.0.9 lies behind it; it was last there",
        ),
        (
            FROM,
            replace(NOBODY, ip=FAR),
            TERMS,
            "not in this network",
            "172.16.0.9 is no member's address, not in the pool 192.168.202.0/24, and no rule leads there: add one",
        ),
        (FROM, replace(NOBODY, ip=FAR), Terms(None, Rules()), "not in this network", "not in the pool, and no rule"),
        (
            FROM,
            replace(NOBODY, ip=FAR),
            Terms(POOL, Rules([FOR_OTHERS])),
            "rule",
            f"by the rule {FOR_OTHERS}, which is for members in 192.168.202.128/25 and not for 192.168.202.2: add a",
        ),
        (replace(NOBODY, ip=FAR), TO, TERMS, "source refused", "172.16.0.9 is no member's address and, by no rule, "),
        (
            replace(NOBODY, ip=FAR),
            TO,
            TERMS._replace(checks_source=False),
            "passes",
            "from 172.16.0.9 to 192.168.202.3",
        ),
        (replace(FROM, is_group=True), TO, TERMS, "source refused", "is no host's address"),
        (FROM, replace(NOBODY, is_group=True), TERMS, "passes", "pass"),
        (FROM, replace(NOBODY, is_group=True), TERMS._replace(forwards_broadcast=False), "rule", "--no-broadcast"),
        (
            replace(FROM, takes_sealed=True, takes_clear=False),
            TO,
            TERMS,
            "sealing",
            "192.168.202.2 (laptop) takes part in sealed traffic alone (--seal require, or --secret), and 192.168.",
        ),
        (FROM, replace(TO, takes_sealed=True, takes_clear=False), TERMS, "sealing", "and 192.168.202.2 (laptop) does"),
        (replace(FROM, takes_sealed=True, takes_clear=False), replace(TO, takes_sealed=True), TERMS, "passes", "pass"),
        (
            FROM,
            replace(TO, queued_bytes=70_000, queue_delay_ms=STALLED_MS),
            TERMS,
            "stalled",
            "70000 bytes wait for 192.168.202.3, since 250 ms: its link, or its machine, takes little or nothing",
        ),
        (FROM, replace(TO, heard_s=SILENT_S + 6), TERMS, "stalled", "nothing has come from 192.168.202.3 for 31 s"),
        (
            replace(FROM, heard_s=SILENT_S),
            TO,
            TERMS,
            "stalled",
            "nothing has come from 192.168.202.2 (laptop) for 25 s",
        ),
    ],
)
def test_what_is_certain(source: End, destination: End, terms: Terms, verdict: WhyVerdict, words: str) -> None:
    judged = judge(source, destination, terms)
    assert judged.verdict == verdict
    assert words in judged.answer


@pytest.mark.parametrize(
    ("reason", "verdict", "words"),
    [
        (
            "spoofed_source",
            "source refused",
            "7 packets from 192.168.202.2 had a source that is not its own: it routes",
        ),
        ("inner_source", "source refused", "add a rule for that LAN"),
        ("inner_destination", "rule", "compare the rules"),
        ("no_route", "no member there", "were for addresses that no member has"),
        ("too_large", "too large", "lower the MTU of its interface"),
        ("broadcast_limit", "limit", "beyond its allowance of copies"),
        ("handshake_limit", "limit", "handshakes"),
        ("not_sealing", "sealing", "their destination takes nothing sealed"),
        ("bad_super", "malformed", "not what their headers say"),
        ("too_short", "malformed", "no room"),
        ("memory", "limit", "no memory"),
    ],
)
def test_what_was_just_dropped_of_the_source(reason: str, verdict: WhyVerdict, words: str) -> None:
    judged = judge(replace(FROM, dropped={reason: 7, "text": 9}), TO, TERMS)
    assert judged.verdict == verdict
    assert words in judged.answer
    assert judged.answer.endswith(" (counted just now)")
    # What was dropped earlier answers nothing, and is said.
    before = replace(FROM, dropped_before={reason: 7, "text": 9})
    assert judge(before, TO, TERMS).verdict == "passes"
    [hint] = hints(before, TO)
    assert words in hint


@pytest.mark.parametrize(
    ("reason", "verdict", "words"),
    [
        ("stalled", "stalled", "7 packets to 192.168.202.3 came while it took nothing"),
        ("queue_full", "limit", "found its queue full"),
        ("delay", "limit", "had waited too long"),
        ("too_large", "too large", "were over 1500 bytes"),
        ("memory", "limit", "no memory"),
        ("closed", "no member there", "its connection was ending"),
    ],
)
def test_what_was_just_dropped_for_the_destination(reason: str, verdict: WhyVerdict, words: str) -> None:
    judged = judge(FROM, replace(TO, dropped={reason: 7}), TERMS)
    assert judged.verdict == verdict
    assert words in judged.answer
    [hint] = hints(FROM, replace(TO, dropped_before={reason: 7}))
    assert words in hint


def test_the_most_frequent_reason_is_the_verdict() -> None:
    judged = judge(FROM, replace(TO, dropped={"delay": 2, "stalled": 5}), TERMS)
    assert judged.verdict == "stalled"
    assert judged.answer.index("5 packets") < judged.answer.index("2 packets")


def test_what_is_certain_goes_before_what_was_counted() -> None:
    assert judge(replace(FROM, dropped={"too_large": 1}), LEFT, TERMS).verdict == "no member there"


def test_a_rule_that_leads_there_is_named() -> None:
    assert judge(FROM, BEHIND, TERMS).rule == TO_LAN
    assert judge(FROM, replace(BEHIND, is_here=False), TERMS).rule == TO_LAN
    assert judge(FROM, replace(NOBODY, ip=FAR), Terms(POOL, Rules([FOR_OTHERS]))).rule == FOR_OTHERS
    assert judge(FROM, TO, TERMS).rule is None


def test_a_name_that_a_stranger_chose_is_escaped() -> None:
    assert r"192.168.202.3 (a\x1b[2J)" in judge(FROM, replace(LEFT, name="a\x1b[2J"), TERMS).answer
