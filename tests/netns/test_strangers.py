"""Strangers at the relay, each on a host of its own: who guesses, who replays what was sniffed, who takes the pool.

Rule: members that behave well get in meanwhile, and those who are in notice nothing.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Interface

import pytest
from kit.peer import PING, PONG
from lab.laboratory import PORT, Laboratory
from lab.member import Member, Speaker
from lab.namespaces import Host
from lab.pair import Pair
from lab.programs import PASSWORD, RelayProgram

from candy.protocol import wire
from candy.relay.guessing import LONGEST_WAIT_S, TURNS_PER_S

pytestmark = pytest.mark.netns

ADDRESS = ("10.0.0.1", PORT)
LIMIT = 3
PLACES = int(LONGEST_WAIT_S * TURNS_PER_S)
KNOWN = b"00000000000000aa"


def connect(host: Host, *, vmac: bytes | None = None, password: str = PASSWORD) -> Member:
    """Upgraded, and no more."""
    with host:
        return Member.connect(ADDRESS, vmac=vmac, password=password)


def log_in(host: Host, ip: str, vmac: bytes) -> Member:
    member = connect(host, vmac=vmac)
    member.send(member.greeting())
    return member.log_in(ip)


def tell(member: Member, ip: str) -> None:
    """Send an AUTH, and wait until the relay has read it."""
    member.send(member.auth(ip))
    member.send(b"read", PING)
    assert member.receive() == (PONG, b"read")


@pytest.fixture
def relay(laboratory: Laboratory) -> RelayProgram:
    return laboratory.relay("--failures-per-minute", str(LIMIT), "--auth-timeout", "600")


@pytest.fixture
def pair(laboratory: Laboratory, relay: RelayProgram) -> Iterator[Pair]:
    """On a host of its own."""
    with laboratory.host(), Pair(ADDRESS) as pair:
        yield pair
        pair.check()


def test_who_guesses_too_often_learns_of_a_right_one_in_its_turn(
    laboratory: Laboratory, relay: RelayProgram, pair: Pair, stack: ExitStack
) -> None:
    office = laboratory.host()
    log_in(office, "192.168.202.50", KNOWN).close()
    for number in range(LIMIT):
        guesser = stack.enter_context(connect(office, password=f"guess {number}"))
        guesser.send(guesser.auth("192.168.202.60"))
        assert guesser.end() is None
    relay.wait_for(f"WARNING {office.address}: too many wrong passwords within a minute")
    # The line fills, with a right one at its end.
    waiting = [stack.enter_context(connect(office, password="guess")) for _ in range(PLACES - 1)]
    for guesser in waiting:
        tell(guesser, "192.168.202.61")
    right = stack.enter_context(connect(office))
    start = len(relay.lines)
    tell(right, "192.168.202.62")
    # The relay judges none of the log-ins that come now, but for that of the device that has been here.
    surplus = stack.enter_context(connect(office))
    surplus.send(surplus.auth("192.168.202.63"))
    assert surplus.end() is None
    back = stack.enter_context(connect(office, vmac=KNOWN))
    back.send(back.greeting())
    back.log_in("192.168.202.50", int(time.time()) + 1)
    stack.enter_context(log_in(laboratory.host(), "192.168.202.51", b"00000000000000bb"))
    relay.wait_for(f"{office.address}: logged in as 192.168.202.62", start)
    lines = relay.lines[start:]
    known, last = (
        next(at for at, line in enumerate(lines) if f"logged in as 192.168.202.{ip}" in line) for ip in (50, 62)
    )
    assert known < last
    for guesser in waiting:
        assert guesser.end() is None


def test_a_replayed_expttun_leaves_addresses_to_others(
    laboratory: Laboratory, relay: RelayProgram, pair: Pair, stack: ExitStack
) -> None:
    sniffed = Speaker().request()
    for _ in range(5):
        host = laboratory.host()
        for _ in range(60):
            thief = stack.enter_context(connect(host))
            thief.send(sniffed)
            assert isinstance(wire.decode(thief.receive_message()), wire.Expttun)
    member = stack.enter_context(connect(laboratory.host()))
    member.log_in(str(member.ask().ip))


@pytest.mark.parametrize("asks", [True, False])
def test_the_lease_of_an_absent_member_is_kept_for_it(
    laboratory: Laboratory, relay: RelayProgram, pair: Pair, stack: ExitStack, asks: bool
) -> None:
    home = laboratory.host()
    log_in(home, "192.168.202.50", KNOWN).close()
    relay.wait_for("192.168.202.50 logged out")
    thief = stack.enter_context(connect(laboratory.host()))
    assert thief.ask("192.168.202.50/24") != IPv4Interface("192.168.202.50/24")
    owner = stack.enter_context(connect(home, vmac=KNOWN))
    owner.send(owner.greeting())
    if asks:
        assert owner.ask("192.168.202.50/24") == IPv4Interface("192.168.202.50/24")
    # A second behind its first log-in, or it would be a replay.
    owner.log_in("192.168.202.50", int(time.time()) + 1)


def test_a_source_does_not_take_the_whole_pool_at_once(
    laboratory: Laboratory, relay: RelayProgram, pair: Pair, stack: ExitStack
) -> None:
    host = laboratory.host()
    for number in range(101):
        member = stack.enter_context(connect(host))
        member.send(member.greeting())
        granted = str(member.ask().ip)
        if number < 100:
            member.log_in(granted)
        else:
            member.send(member.auth(granted))
            assert member.end() == 1013
    relay.wait_for(rf"WARNING {host.address}: not let in as {granted}: 100 new devices came from its address")
    other = stack.enter_context(connect(laboratory.host()))
    other.log_in(str(other.ask().ip))
