"""What becomes of packets, by what is known: the table, for each setting."""

from ipaddress import IPv4Address
from math import inf

import pytest

from candy.sealing import ways
from candy.sealing.directory import Contact, Standing
from candy.sealing.seals import Seal, SetPeer, Way
from candy.sealing.slots import Session

IP = IPv4Address("10.0.0.2")
LABEL = bytes([5]) * 16
NOW = 1000.0


def contact(standing: Standing, *, stale: bool = False, session: bool = False, seals: bool = False) -> Contact:
    made = Contact(IP, LABEL, standing=standing, is_stale=stale, seals=seals, asked_at=NOW)
    if session:
        made.slots.initiated(Session(9, bytes(32), True, NOW, 9000))
    return made


@pytest.mark.parametrize(
    ("known", "prefer", "require"),
    [
        (contact(Standing.UNKNOWN), Way.WAIT, Way.WAIT),
        (contact(Standing.ABSENT), Way.NO_ROUTE, Way.NO_ROUTE),
        (contact(Standing.ABSENT, session=True), Way.NO_ROUTE, Way.NO_ROUTE),
        (contact(Standing.REFUSED), Way.KEY_REFUSED, Way.KEY_REFUSED),
        (contact(Standing.REFUSED, session=True), Way.KEY_REFUSED, Way.KEY_REFUSED),
        (contact(Standing.CLEAR), Way.CLEAR, Way.NOT_SEALING),
        (contact(Standing.SEALS), Way.WAIT, Way.WAIT),
        (contact(Standing.SEALS, session=True), Way.SEAL, Way.SEAL),
        (contact(Standing.ABSENT, stale=True), Way.WAIT, Way.WAIT),
        (contact(Standing.REFUSED, stale=True), Way.WAIT, Way.WAIT),
        (contact(Standing.CLEAR, stale=True), Way.WAIT, Way.WAIT),
        (contact(Standing.SEALS, stale=True), Way.WAIT, Way.WAIT),
        (contact(Standing.SEALS, stale=True, session=True), Way.SEAL, Way.SEAL),
    ],
)
def test_the_table(known: Contact, prefer: Way, require: Way) -> None:
    local = 9 if prefer is Way.SEAL else 0
    assert ways.way(known, Seal.PREFER, NOW) == (prefer, local)
    assert ways.way(known, Seal.REQUIRE, NOW) == (require, local)


@pytest.mark.parametrize(
    ("known", "takes"),
    [
        (contact(Standing.UNKNOWN), True),
        (contact(Standing.CLEAR), True),
        (contact(Standing.ABSENT), True),
        (contact(Standing.ABSENT, seals=True), False),
        (contact(Standing.SEALS, seals=True), False),
        (contact(Standing.ABSENT, session=True), False),
    ],
)
def test_what_is_taken_in_the_clear(known: Contact, takes: bool) -> None:
    assert ways.takes_clear(known, Seal.PREFER) is takes
    assert ways.takes_clear(known, Seal.REQUIRE) is False


def test_a_session_that_seals_no_more() -> None:
    known = contact(Standing.SEALS, session=True, seals=True)
    assert ways.entry(known, Seal.PREFER, NOW + 174) == (
        SetPeer(IP, Way.SEAL, 9, False, 9000, LABEL, tells_clear=True),
        NOW + 175,
    )
    assert ways.entry(known, Seal.PREFER, NOW + 175) == (
        SetPeer(IP, Way.WAIT, 0, False, 65535, LABEL, tells_clear=True),
        NOW + 180,
    )
    # It is to be looked at again at once, as long as the session is not gone.
    assert ways.entry(known, Seal.PREFER, NOW + 200)[1] == NOW + 180


def test_when_the_engine_is_to_tell() -> None:
    known = contact(Standing.CLEAR)
    assert ways.entry(known, Seal.PREFER, NOW + 59) == (SetPeer(IP, Way.CLEAR, 0, True, 65535, LABEL), NOW + 60)
    assert ways.entry(known, Seal.PREFER, NOW + 60) == (
        SetPeer(IP, Way.CLEAR, 0, True, 65535, LABEL, tells_wanted=True),
        inf,
    )
    refused = contact(Standing.REFUSED, seals=True)
    entry, due = ways.entry(refused, Seal.PREFER, NOW + 4)
    assert (entry.tells_clear, due) == (False, NOW + 5)
    entry, due = ways.entry(refused, Seal.PREFER, NOW + 5)
    assert (entry.tells_clear, due) == (True, NOW + 60)
    # There may be a direct link.
    away = contact(Standing.ABSENT, seals=True, session=True)
    entry, due = ways.entry(away, Seal.PREFER, NOW + 4)
    assert (entry.tells_wanted, due) == (False, NOW + 5)
    entry, _ = ways.entry(away, Seal.PREFER, NOW + 5)
    assert (entry.way, entry.tells_wanted) == (Way.NO_ROUTE, True)


@pytest.mark.parametrize(
    ("commit", "relay", "longest"), [(0, 65535, 1500), (9000, 4000, 4000), (1 << 31, 1 << 31, 65535)]
)
def test_the_longest_packet(commit: int, relay: int, longest: int) -> None:
    known = contact(Standing.SEALS)
    known.slots.initiated(Session(9, bytes(32), True, NOW, commit))
    known.longest, known.longest_until = relay, NOW + 5
    entry, due = ways.entry(known, Seal.PREFER, NOW)
    assert (entry.longest, due) == (longest, NOW + 5)
    entry, _ = ways.entry(known, Seal.PREFER, NOW + 5)
    assert entry.longest == max(1500, min(commit, 65535))
