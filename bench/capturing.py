"""What a capture costs a relay that forwards at full speed: throughput.py --capture.

A candy-server as users start it carries packets between two members, in rounds without a capture, with one of one of
them, and with one of its drops alone, in turn. What is captured is read over the control socket and thrown away. The
cost is that of the workers' CPU time for each packet, as --against has it.
"""

import statistics
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http import HTTPStatus
from ipaddress import IPv4Address
from itertools import permutations
from pathlib import Path

import _endpoints
from against import Interval
from controlled import Asker, two_members
from machine import Cores
from target import Target

from candy.control.client import Asking
from candy.control.paths import VERSION
from candy.control.pcapng import Blocks
from candy.errors import OperationalError, RequestError

SIZES = (100, 1300)
MOST_COST = 0.05
OFF, ALL, DROPS = "off", "all", "drops"


class Reader:
    """Captures one member while it is to."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self.packets = self.lost = 0

    @contextmanager
    def at_work(self, drops: bool) -> Iterator[None]:
        asking = Asking("relay", self._socket)
        pieces, header = self._begin(asking, drops)
        blocks = Blocks()
        blocks.feed(header)
        thread = threading.Thread(target=_read, args=(pieces, blocks))
        thread.start()
        try:
            yield
        finally:
            asking.hang_up()
            thread.join()
            asking.close()
            self.packets += blocks.packets
            self.lost += blocks.lost

    def _begin(self, asking: Asking, drops: bool) -> tuple[Iterator[bytes], bytes]:
        """A stream, and its first piece, as soon as the relay has noticed the end of the one before."""
        path = f"{VERSION}/members/{IPv4Address(_endpoints.MEMBER_BASE)}/capture"
        while True:
            pieces = asking.stream("POST", path, drops=drops)
            try:
                return pieces, next(pieces)
            except RequestError as error:
                if error.status != HTTPStatus.CONFLICT:
                    raise


def _read(pieces: Iterator[bytes], blocks: Blocks) -> None:
    with suppress(OperationalError):
        for piece in pieces:
            blocks.feed(piece)


def measure_capture(cores: Cores, rounds: int, seconds: float) -> list[Target]:
    """All of it; what was found.

    Raises:
        ConnectionError: the relay did not start, or let nobody in.
    """
    return [target for size in SIZES for target in _measure_size(size, cores, rounds, seconds)]


def _measure_size(size: int, cores: Cores, rounds: int, seconds: float) -> Iterator[Target]:
    orders = list(permutations((OFF, ALL, DROPS)))
    ratios: dict[str, list[float]] = {ALL: [], DROPS: []}
    with ExitStack() as stack:
        relay, carried = two_members(stack, cores, size)
        asker = Asker(relay.control)
        stack.callback(asker.close)
        reader = Reader(relay.control)

        def cost(mode: str) -> float:
            """Nanoseconds of the workers' CPU time for each packet."""
            with ExitStack() if mode == OFF else reader.at_work(mode == DROPS):
                before = asker.workers_ns()
                delivered = carried.run(seconds=seconds)["delivered"]
                return (asker.workers_ns() - before) / delivered

        cost(OFF)
        for number in range(rounds):
            found = {mode: cost(mode) for mode in orders[number % len(orders)]}
            for mode, of_mode in ratios.items():
                of_mode.append(found[mode] / found[OFF])
    for mode, of_mode in ratios.items():
        interval, median = Interval.of(of_mode), statistics.median(of_mode)
        yield Target(
            f"{size} bytes: a capture of {mode} costs {median - 1:+.1%} of the workers' CPU time for a packet "
            f"({interval.least - 1:+.1%} to {interval.most - 1:+.1%}): at most {MOST_COST:.0%}",
            median <= 1 + MOST_COST,
        )
    yield Target(f"{size} bytes: {reader.packets} packets were captured, {reader.lost} were lost")
