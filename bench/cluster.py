"""What a second relay costs: packets by a link between two engines, against one engine with the same members.

    python bench/cluster.py

Rows of the table of "Many relays as one" that two engines on one machine show: throughput for each CPU second of all
relays together, and the time that the second hop adds to an exchange. Both take turns in one run.
"""

import socket
import statistics
import struct
import sys
import time
from collections.abc import Iterator

import _endpoints
import checkout  # noqa: F401
import click
from contestant import Candy, Contestant, close_all, connected_pairs, endpoints
from machine import Cores, describe
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


@click.command()
@click.option("--rounds", default=7, show_default=True)
@click.option("--seconds", default=0.3, show_default=True)
@click.option("--pin/--no-pin", default=True)
def main(rounds: int, seconds: float, pin: bool) -> None:
    cores = Cores(pinned=pin)
    found = []
    print(describe(), cores, sep="\n")
    for size in SIZES:
        one, two, ratio = throughput(size, cores, rounds, seconds)
        rates = [series.median(lambda each: each.packets_per_cpu_second) * size * 8 / 1e9 for series in (one, two)]
        text = (
            f"{size:,} bytes: {rates[1]:.1f} Gbit per CPU second of both relays, {ratio.median:.2f} "
            f"({ratio.least:.2f} to {ratio.most:.2f}) of one relay's {rates[0]:.1f}, at least {LEAST}"
        )
        found.append(Target(text, ratio.median >= LEAST))
    pairs = [(exchange_us(1, cores), exchange_us(2, cores)) for _ in range(5)]
    added = statistics.median(two - one for one, two in pairs)
    text = f"an exchange takes {added:.0f} µs longer by the second relay, at most {ADDED_US}"
    found.append(Target(text, added <= ADDED_US))
    for target in found:
        print(target)
    sys.exit(missed(found))


if __name__ == "__main__":
    main()
