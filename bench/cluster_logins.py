"""Log-ins at one of several relays: what they cost it, how soon others know of them, and how all come back to others.

Rows of bench/cluster.py. Three relays and three servers of NATS are programs of this machine; the members are those of
bench/members.py, in this process. A relay that is killed takes its members' connections along: each of them goes to the
next relay at once, by itself.
"""

import select
import selectors
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import checkout  # noqa: F401
import keyed
from clustered import Clustered
from members import PATIENCE_S, POOL, Connect, Crowd, How, Newcomer, RelayError, straight
from relayprogram import RelayProgram
from target import Target

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from kit.peer import BINARY, build_frame, number_of, numbered

RELAYS = ("eu", "us", "ap")
HOWS: tuple[tuple[How, str], ...] = (("granted", "old clients"), ("keys", "members with keys"))
LEAST = 0.5
KNOWN_MS_MAX = 50.0
BACK_S_MAX = 5.0
KNOWN_LOGINS = 200
EACH_S = 0.001
"""Between two packets to a member of which its sender's relay may not know yet."""
AGAIN_S = 0.2
"""Until a member tries again that was refused."""
FRAME_BYTES = 2 + 64
"""Of a packet of numbered(), as the relay sends it."""


def cost(relay: RelayProgram, how: How, logins: int) -> float:
    """Log-ins for each CPU second of a relay."""
    with ExitStack() as stack:
        if how == "keys":
            keyed.make_keys(logins)
        crowd = Crowd(stack, straight(relay.address), how)
        before = relay.cpu_ns()
        crowd.grow(logins)
        return logins / (relay.cpu_ns() - before) * 1e9


def costs(how: How, logins: int) -> tuple[float, float]:
    """The same of a relay with SQLite alone, and of one of three, of which none has seen a member before."""
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / "alone"
        alone.mkdir()
        one = cost(stack.enter_context(RelayProgram(alone, POOL)), how, logins)
        cluster = Clustered(stack, Path(folder), POOL)
        first, *_ = [cluster.relay(name) for name in RELAYS]
        return one, cost(first, how, logins)


def cost_target(how: How, what: str, logins: int, rounds: int) -> Target:
    pairs = [costs(how, logins) for _ in range(rounds)]
    ratios = [several / one for one, several in pairs]
    one, several = (statistics.median(each) for each in zip(*pairs, strict=True))
    ratio = statistics.median(ratios)
    text = (
        f"new {what}: {several:.0f} log-ins per CPU second of the relay, {ratio:.2f} ({min(ratios):.2f} to "
        f"{max(ratios):.2f}) of {one:.0f} with SQLite alone, at least {LEAST}"
    )
    return Target(text, ratio >= LEAST)


def log_in(one: Newcomer) -> None:
    """Up to the moment in which it knows that it is in. Raises RelayError."""
    while select.select([one.connection], [], [], PATIENCE_S)[0]:
        if one.receive():
            return
    raise RelayError(f"said nothing for {PATIENCE_S:g} s")


def known_ms(here: RelayProgram, there: RelayProgram, logins: int) -> Iterator[float]:
    """How much later than itself another relay's member can reach one that has logged in."""
    with ExitStack() as stack:
        watcher = Newcomer(0, straight(there.address), "claimed", int(time.time()))
        stack.callback(watcher.connection.close)
        log_in(watcher)
        for number in range(1, logins + 1):
            one = Newcomer(number, straight(here.address), "claimed", int(time.time()))
            yield _known_s(watcher, one) * 1e3
            one.connection.close()


def _known_s(watcher: Newcomer, one: Newcomer) -> float:
    sent: list[float] = []
    is_in, got, until = 0.0, b"", time.monotonic() + PATIENCE_S
    while (now := time.monotonic()) < until:
        if not sent or now - sent[-1] >= EACH_S:
            packet = numbered(int(watcher.ip), int(one.ip), len(sent))
            sent.append(now)
            watcher.connection.send(build_frame(BINARY, packet, mask=bytes(4)))
        if not select.select([one.connection], [], [], EACH_S)[0]:
            continue
        if not is_in:
            if one.receive():
                is_in, got = time.monotonic(), one.rest
        else:
            got += one.connection.recv(65536)
        if is_in and len(got) >= FRAME_BYTES:
            _, arrived = number_of(got[2:])
            return max(0.0, sent[arrived] - is_in)
    raise RelayError(f"does not know of {one.ip} after {PATIENCE_S:g} s")


@dataclass(frozen=True)
class Back:
    """How members came back whose relay was killed."""

    seconds: float
    median_s: float
    moved: int
    """Those that have another address."""


def back(how: How, members: int) -> Back:
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        cluster = Clustered(stack, Path(folder), POOL)
        first, *others = [cluster.relay(name) for name in RELAYS]
        if how == "keys":
            keyed.make_keys(2 * members)
        crowd = Crowd(stack, straight(first.address), how)
        crowd.grow(members)
        returning = Returning(stack, how, [straight(other.address) for other in others])
        for member in crowd.members:
            returning.follow(member)
        first.kill()
        return returning.run(len(crowd.members))


class Returning:
    """Members whose connections end, and who then go to the next relay, and the next.

    Args:
        ways: to those relays.
    """

    def __init__(self, stack: ExitStack, how: How, ways: Sequence[Connect]) -> None:
        self._stack = stack
        self._how: How = how
        self._ways = ways
        self._attempts = 0
        self._selector = stack.enter_context(selectors.EpollSelector())
        self._refused: deque[tuple[float, Newcomer]] = deque()
        """When they try again, in order."""
        self._first: dict[int, Newcomer] = {}
        """As they were before, by their numbers."""

    def follow(self, member: Newcomer) -> None:
        self._first[member.number] = member
        self._selector.register(member.connection, selectors.EVENT_READ, member)

    def run(self, members: int) -> Back:
        """From now on, until so many are back. Raises RelayError."""
        taken: list[float] = []
        begun, moved = time.monotonic(), 0
        while len(taken) < members:
            for member in self._events(begun + PATIENCE_S):
                self._selector.unregister(member.connection)
                before = self._first[member.number]
                if self._is_in(member):
                    taken.append(time.monotonic() - begun)
                    moved += member.ip != before.ip
                elif member is before:
                    self._go_on(before)
                else:
                    self._refused.append((time.monotonic() + AGAIN_S, before))
        return Back(max(taken), statistics.median(taken), moved)

    def _events(self, until: float) -> Iterator[Newcomer]:
        """Members that are through, or have lost their connections."""
        now = time.monotonic()
        if now > until:
            raise RelayError(f"let too few come back in {PATIENCE_S:g} s")
        while self._refused and self._refused[0][0] <= now:
            self._go_on(self._refused.popleft()[1])
        for key, _ in self._selector.select(AGAIN_S):
            member: Newcomer = key.data
            try:
                if member.receive() and member is not self._first[member.number]:
                    yield member
            except (RelayError, ConnectionError):
                member.connection.close()
                yield member

    def _is_in(self, member: Newcomer) -> bool:
        return member.connection.fileno() >= 0

    def _go_on(self, before: Newcomer) -> None:
        """To the next relay. An AUTH of a second in which there was one would be a replay."""
        self._attempts += 1
        way = self._ways[self._attempts % len(self._ways)]
        again = Newcomer(before.number, way, self._how, int(time.time()) + self._attempts, before)
        self._stack.callback(again.connection.close)
        self._selector.register(again.connection, selectors.EVENT_READ, again)


def back_target(how: How, what: str, members: int, rounds: int) -> Target:
    found = [back(how, members) for _ in range(rounds)]
    seconds = [each.seconds for each in found]
    moved = sum(each.moved for each in found)
    half = statistics.median(each.median_s for each in found)
    text = (
        f"a relay with {members} {what} is killed: all are back after {statistics.median(seconds):.1f} s "
        f"({min(seconds):.1f} to {max(seconds):.1f}), half of them after {half:.1f} s, at most {BACK_S_MAX:g}; "
        f"{moved} have another address"
    )
    return Target(text, statistics.median(seconds) <= BACK_S_MAX and not moved)


def known_target(logins: int) -> Target:
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        cluster = Clustered(stack, Path(folder), POOL)
        here, there, *_ = [cluster.relay(name) for name in RELAYS]
        taken = sorted(known_ms(here, there, logins))
    p99 = taken[(logins * 99 - 1) // 100]
    text = (
        f"a log-in is known at another relay {statistics.median(taken):.1f} ms later, p99 {p99:.1f} ms, "
        f"at most {KNOWN_MS_MAX:g}"
    )
    return Target(text, p99 <= KNOWN_MS_MAX)


def targets(logins: int, members: int, rounds: int) -> list[Target]:
    """All rows.

    Args:
        logins: of which the cost is taken, at a relay.
        members: of a relay that is killed.
    """
    try:
        return [
            *(cost_target(how, what, logins, rounds) for how, what in HOWS),
            known_target(KNOWN_LOGINS),
            *(back_target(how, what, members, rounds) for how, what in HOWS),
        ]
    except (RelayError, ConnectionError) as error:
        sys.exit(f"cluster: log-ins: the relay {error}")
