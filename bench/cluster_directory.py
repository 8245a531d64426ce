"""What the directory of a large cluster costs, by simulation: the real code, simulated relays, clocks and NATS.

    bench/cluster_directory.py                20 relays, 200,000 members, 2,000 log-ins a second
    bench/cluster_directory.py --links        the same, and the cut goes through links between relays as well
    bench/cluster_directory.py --relays 3 --members 1000 --rate 100

Each relay has a Directory and a Presence, and a monotonic clock of its own that begins somewhere and runs up to 0.01 %
fast or slow. Members log in again at any relay, which raises the generation of their grant unless the relay has no
NATS. Then the last quarter of the relays is cut off from NATS while log-ins go on everywhere, and is healed. Shown are
what is sent, what one relay's share costs in memory and in CPU time, and how long it takes until all are of one mind.

Members of a relay that is cut off stay there: packets need no NATS.
"""

import argparse
import random
import resource
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from candy.relay.cluster.directory import Change, Directory, Place
from candy.relay.cluster.presence import BEAT_S, Presence

WORD = "=2F"
TICK_S = 0.02
"""Between two flushes of a relay."""
DELAYS_S = (0.001, 0.01)
"""Of a message on its way."""


@dataclass(slots=True)
class SimulatedRelay:
    name: str
    offset: float
    drift: float
    directory: Directory
    presence: Presence = field(default_factory=Presence)
    has_nats: bool = True
    has_links: bool = True
    """To relays that have NATS."""
    next_beat: float = 0.0
    spent_s: float = 0.0
    """CPU time in its directory and presence."""
    sessions: dict[int, int] = field(default_factory=dict)
    """Generations, by address."""
    unwritten: set[int] = field(default_factory=set)
    """Addresses of members that came in while NATS was away."""

    def clock(self, now: float) -> float:
        return self.offset + now * self.drift


class Simulation:
    """Relays, and members that come again and again.

    Args:
        rate: log-ins a second, at all relays together.
    """

    def __init__(self, relays: int, members: int, rate: float, seed: int = 1) -> None:
        self.random = random.Random(seed)
        self.members = members
        self.rate = rate
        self.now = 0.0
        self.published = self.delivered = self.bytes = self.snapshots = 0
        self._revision = 0
        self._generations: dict[int, int] = {}
        self._relays_of: dict[int, int] = {}
        """At how many relays a member is, by address."""
        self.twice = 0
        """Members that are at more than one."""
        self._way: deque[tuple[float, str, str, bytes]] = deque()
        self._due = 0.0
        self.relays = [self._relay(number) for number in range(relays)]
        self._by_name = {relay.name: relay for relay in self.relays}

    def _relay(self, number: int) -> SimulatedRelay:
        name = f"r{number:02}"
        drift = 1 + self.random.uniform(-1e-4, 1e-4)
        directory = Directory(name, 1, self.random.random)
        return SimulatedRelay(name, self.random.uniform(0, 1e6), drift, directory, next_beat=self.random.random())

    def fill(self) -> None:
        """Everybody is in, evenly, before anybody hears of it."""
        for ip in range(1, self.members + 1):
            self.log_in(ip, self.relays[ip % len(self.relays)])

    def log_in(self, ip: int, relay: SimulatedRelay) -> None:
        if relay.has_nats:
            self._revision += 1
            self._generations[ip] = self._revision
        else:
            relay.unwritten.add(ip)
        generation = self._generations.get(ip, 0)
        if ip not in relay.sessions:
            self._count(ip, 1)
        relay.sessions[ip] = generation
        identity = ip.to_bytes(4, "big") * 8
        self._timed(relay, lambda: relay.directory.set((WORD, ip), Place(generation, 0, 0, bytes(8), ip, identity)))

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> float:
        """Go on so long, or until it is so; returns how long that was."""
        begin = self.now
        while self.now < begin + seconds and not (until is not None and until()):
            self.now += TICK_S
            self._due += self.rate * TICK_S
            while self._due >= 1:
                self._due -= 1
                self.log_in(self.random.randrange(1, self.members + 1), self.random.choice(self.relays))
            self._deliver()
            for relay in self.relays:
                self._step(relay)
        return self.now - begin

    def cut(self, relays: list[SimulatedRelay], *, links: bool) -> None:
        for relay in relays:
            relay.has_nats, relay.has_links = False, not links

    def heal(self) -> None:
        for relay in self.relays:
            relay.has_nats = relay.has_links = True

    def is_of_one_mind(self) -> bool:
        """Whether all know the same, which is true, and no member is at two relays."""
        fingerprint = self.relays[0].directory.fingerprint()
        if any(relay.directory.fingerprint() != fingerprint for relay in self.relays[1:]):
            return False
        return self.twice == 0

    def _count(self, ip: int, more: int) -> None:
        before = self._relays_of.get(ip, 0)
        self._relays_of[ip] = before + more
        self.twice += (before + more > 1) - (before > 1)

    def _step(self, relay: SimulatedRelay) -> None:
        now = relay.clock(self.now)
        if relay.has_nats:
            while (update := self._timed(relay, relay.directory.flush)) is not None:
                self._publish(relay, update)
            if self.now >= relay.next_beat:
                relay.next_beat = self.now + BEAT_S
                # As candy.relay.cluster.cluster does once a second: such grants are written anew.
                unwritten, relay.unwritten = relay.unwritten, set()
                for ip in unwritten & relay.sessions.keys():
                    self.log_in(ip, relay)
                while (update := self._timed(relay, relay.directory.flush)) is not None:
                    self._publish(relay, update)
                beat = relay.directory.beat()
                assert beat is not None
                self._publish(relay, beat)
                relay.presence.echoed(now)
            for name in self._timed(relay, lambda: relay.directory.due(now)):
                self._answer(relay, self._by_name[name])
        # Of one that is cut off from NATS alone the links are up.
        for other in self.relays:
            relay.presence.linked(other.name, other.has_links)
        for name in relay.presence.gone(now):
            if not self._by_name[name].has_links:
                self._timed(relay, lambda: self._follow(relay, relay.directory.gone(name)))  # noqa: B023

    def _answer(self, asker: SimulatedRelay, author: SimulatedRelay) -> None:
        if not author.has_nats:
            return
        while (update := self._timed(author, author.directory.flush)) is not None:
            self._publish(author, update)
        self.snapshots += 1
        for part in author.directory.parts():
            self.published += 1
            self._send(author, asker, part)

    def _publish(self, author: SimulatedRelay, message: bytes) -> None:
        self.published += 1
        for other in self.relays:
            if other is not author and other.has_nats:
                self._send(author, other, message)

    def _send(self, author: SimulatedRelay, other: SimulatedRelay, message: bytes) -> None:
        self._way.append((self.now + self.random.uniform(*DELAYS_S), author.name, other.name, message))

    def _deliver(self) -> None:
        """What has arrived, in the order of its sending, as NATS keeps it from one to another."""
        way, self._way = self._way, deque()
        for arrives, author, name, message in way:
            relay = self._by_name[name]
            if arrives > self.now:
                self._way.append((arrives, author, name, message))
            elif relay.has_nats:
                self.delivered += 1
                self.bytes += len(message)
                now = relay.clock(self.now)
                relay.presence.heard(author, now)
                begun = time.process_time()
                changes = relay.directory.take(author, message, now)
                relay.spent_s += time.process_time() - begun
                self._follow(relay, changes)

    def _follow(self, relay: SimulatedRelay, changes: list[Change]) -> None:
        """A member that is at another relay by a higher generation has left this one."""
        for change in changes:
            _, ip = change.key
            if change.is_there and ip in relay.sessions:
                found = relay.directory.elsewhere(change.key)
                if found is not None:
                    del relay.sessions[ip]
                    self._count(ip, -1)
                    relay.directory.set(change.key, None)

    def _timed(self, relay: SimulatedRelay, call: Callable[[], object]):  # type: ignore[no-untyped-def]
        begun = time.process_time()
        result = call()
        relay.spent_s += time.process_time() - begun
        return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--relays", type=int, default=20)
    parser.add_argument("--members", type=int, default=200_000)
    parser.add_argument("--rate", type=float, default=2000, help="log-ins a second")
    parser.add_argument("--seconds", type=float, default=20, help="of each phase")
    parser.add_argument("--links", action="store_true", help="cut links between relays as well")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    before = _resident()
    world = Simulation(given.relays, given.members, 0, given.seed)
    world.fill()
    took = world.run(120, world.is_of_one_mind)
    memory = (_resident() - before) / given.relays
    print(f"{given.relays} relays, {given.members} members, {given.rate:g} log-ins a second")
    print(f"all hear of all: {took:.2f} s, {world.bytes / given.relays / 1e6:.1f} MB to each relay")
    print(f"memory: {memory / 1e6:.0f} MB a relay, {memory / given.members:.0f} bytes a member")
    world.rate = given.rate
    _phase(world, "log-ins", given.seconds)
    world.cut(world.relays[-max(1, given.relays // 4) :], links=given.links)
    links = ", links as well," if given.links else ""
    _phase(world, f"a quarter cut off{links} for {given.seconds:g} s", given.seconds)
    world.heal()
    world.rate = 0
    asked, had = world.snapshots, world.bytes
    took = world.run(120, world.is_of_one_mind)
    print(
        f"healed: all of one mind after {took:.2f} s, {world.snapshots - asked} snapshots, "
        f"{(world.bytes - had) / given.relays / 1e6:.1f} MB to each relay, "
        f"{(_resident() - before) / given.relays / 1e6:.0f} MB of memory a relay at most"
    )
    return 0 if world.is_of_one_mind() else 1


def _phase(world: Simulation, what: str, seconds: float) -> None:
    spent = [relay.spent_s for relay in world.relays]
    published, delivered, sent = world.published, world.delivered, world.bytes
    world.run(seconds)
    share = (sum(relay.spent_s for relay in world.relays) - sum(spent)) / len(world.relays) / seconds
    each = len(world.relays) * seconds
    print(
        f"{what}: each relay publishes {(world.published - published) / each:.0f} messages a second, takes "
        f"{(world.delivered - delivered) / each:.0f} ({(world.bytes - sent) / each / 1e3:.0f} KB): "
        f"{share:.1%} of a core"
    )


def _resident() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


if __name__ == "__main__":
    sys.exit(main())
