"""What several relays cost and bring, against one.

    python bench/cluster.py                      # as root; three minutes
    python bench/cluster.py --part links         # ten seconds

    links     two engines with a link between them against one: packets for each CPU second of all, an exchange's time
    logins    three relays as programs: what a log-in costs, how soon others know of it, members whose relay is killed
    tunnel    TUN to TUN by two relays against one

What is held against each other takes turns in one run.
"""

import os
import socket
import statistics
import struct
import sys
import time
from collections.abc import Iterator

import _endpoints
import checkout  # noqa: F401
import click
import cluster_logins
import cluster_tunnel
from contestant import Candy, Contestant, close_all, connected_pairs, endpoints
from machine import Bystanders, Cores, describe
from measurement import Ratio, Series, measure
from target import Target, missed
from topology import Topology, one_to_one

from candy import _fastpath
from candy._fastpath import CANDY3

SIZES = (1300, 65000)
LINKS = 2
LEAST = 0.45
ADDED_US = 150
EXCHANGES = 2000
PARTS = ("links", "logins", "tunnel")
LOGIN_ROUNDS = 3


class Linked(Contestant):
    """Two engines with links between them: those who send are members of the first, those who receive of the second."""

    def __init__(self, topology: Topology, size: int, cores: Cores, *, extended: int = CANDY3) -> None:
        self.name = "two relays"
        self.topology = topology
        with cores.for_relay():
            self._engines = [_fastpath.Engine(1, ping_after=0, dead_after=0) for _ in range(2)]
        for engine in self._engines:
            engine.add_network()
        for ours, theirs in connected_pairs(LINKS):
            for engine, end in zip(self._engines, (ours, theirs), strict=True):
                trunk = engine.adopt(end.detach(), trunk=True)
                engine.agree(trunk, 0, [0])
                engine.open_trunk(trunk)
        self._members = []
        for number, (member, relay) in enumerate(connected_pairs(len(topology.routes))):
            self._members.append(member)
            here = 0 if topology.routes[number] else 1
            address = _endpoints.MEMBER_BASE + number
            self._engines[here].bind(self._engines[here].adopt(relay.detach(), extended=extended), address)
            self._engines[1 - here].lead(0, address, 0)
        self.endpoints = endpoints(self._members, topology, size, passed=extended == CANDY3)

    def cpu_ns(self) -> int:
        return sum(sum(engine.worker_cpu_ns()) for engine in self._engines)

    def drops(self) -> dict[str, int]:
        first, second = (engine.drops() for engine in self._engines)
        return {name: count + second[name] for name, count in first.items()}

    def close(self) -> None:
        for engine in self._engines:
            engine.stop()
        close_all(self._members)


def throughput(size: int, cores: Cores, rounds: int, seconds: float) -> tuple[Series, Series, Ratio]:
    topology = one_to_one(1)
    contestants: list[Contestant] = [Candy(topology, size, cores, extended=CANDY3), Linked(topology, size, cores)]
    try:
        *_, (one, two) = measure(topology.name, size, contestants, rounds=rounds, seconds=seconds)
        return one, two, Ratio.of(lambda each: each.packets_per_cpu_second, two, one)
    finally:
        for contestant in contestants:
            contestant.close()


def exchange_us(relays: int, cores: Cores) -> float:
    """Median of a packet's way to another member and an answer's back, through so many relays."""
    with cores.for_relay():
        engines = [_fastpath.Engine(1, ping_after=0, dead_after=0) for _ in range(relays)]
    members = []
    try:
        for engine in engines:
            engine.add_network()
        if relays == 2:
            [(ours, theirs)] = connected_pairs(1)
            for engine, end in zip(engines, (ours, theirs), strict=True):
                trunk = engine.adopt(end.detach(), trunk=True)
                engine.agree(trunk, 0, [0])
                engine.open_trunk(trunk)
        for number, (member, relay) in enumerate(connected_pairs(2)):
            members.append(member)
            engine = engines[number % relays]
            address = 0x0A000001 + number
            engine.bind(engine.adopt(relay.detach(), extended=1), address)
            for other in engines:
                if other is not engine:
                    other.lead(0, address, 0)
        took = list(_exchanges(members[0], members[1]))
        return statistics.median(took)
    finally:
        for engine in engines:
            engine.stop()
        close_all(members)


def _exchanges(one: socket.socket, other: socket.socket) -> Iterator[float]:
    ways = ((0x0A000001, 0x0A000002), (0x0A000002, 0x0A000001))
    packets = [b"\x01" + struct.pack(">BBHHHBBHII", 0x45, 0, 64, 0, 0, 64, 17, 0, *way) + bytes(44) for way in ways]
    frames = [b"\x82" + bytes([128 + len(packet)]) + bytes(4) + packet for packet in packets]
    size = len(packets[0]) + 2
    for _ in range(EXCHANGES):
        begun = time.perf_counter_ns()
        one.sendall(frames[0])
        _whole(other, size)
        other.sendall(frames[1])
        _whole(one, size)
        yield (time.perf_counter_ns() - begun) / 1000


def _whole(sock: socket.socket, size: int) -> None:
    while size:
        size -= len(sock.recv(size))


def links(cores: Cores, rounds: int, seconds: float) -> Iterator[Target]:
    """What two engines show."""
    for size in SIZES:
        one, two, ratio = throughput(size, cores, rounds, seconds)
        rates = [series.median(lambda each: each.packets_per_cpu_second) * size * 8 / 1e9 for series in (one, two)]
        text = (
            f"{size:,} bytes: {rates[1]:.1f} Gbit per CPU second of both relays, {ratio.median:.2f} "
            f"({ratio.least:.2f} to {ratio.most:.2f}) of one relay's {rates[0]:.1f}, at least {LEAST}"
        )
        yield Target(text, ratio.median >= LEAST)
    pairs = [(exchange_us(1, cores), exchange_us(2, cores)) for _ in range(5)]
    added = statistics.median(two - one for one, two in pairs)
    yield Target(f"an exchange takes {added:.0f} µs longer by the second relay, at most {ADDED_US}", added <= ADDED_US)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--part", "parts", type=click.Choice(PARTS), multiple=True, help="Only this; may be repeated.")
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True, help="Of links and of the tunnel.")
@click.option("--seconds", default=0.3, show_default=True, help="Of a round of links; the tunnel has ten times that.")
@click.option("--pin/--no-pin", default=True, help="Give the engines with links a core of their own.")
@click.option("--logins", type=click.IntRange(10), default=1500, show_default=True, help="Of which the cost is taken.")
@click.option("--members", type=click.IntRange(2), default=500, show_default=True, help="Of a relay that is killed.")
def main(parts: tuple[str, ...], rounds: int, seconds: float, pin: bool, logins: int, members: int) -> None:
    """Measure what several relays cost and bring, against one."""
    parts = parts or PARTS
    if "tunnel" in parts and os.geteuid() != 0:
        sys.exit("cluster: run as root, for network namespaces and TUN devices, or with --part links --part logins")
    bystanders = Bystanders()
    cores = Cores(pinned=pin)
    print(describe(), cores, sep="\n")
    found: list[Target] = []
    if "links" in parts:
        found += links(cores, rounds, seconds)
    # What follows are programs, which the kernel places.
    cores.release()
    if "logins" in parts:
        found += cluster_logins.targets(logins, members, LOGIN_ROUNDS)
    if "tunnel" in parts:
        found.append(cluster_tunnel.target(rounds, max(1, round(10 * seconds))))
    print(f"others used {bystanders.share():.0%} of the machine meanwhile")
    for target in found:
        print(target)
    sys.exit(missed(found))


if __name__ == "__main__":
    main()
