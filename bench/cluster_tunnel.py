"""TUN to TUN by two relays of one cluster, against one relay: one TCP stream, as root.

A row of bench/cluster.py. The laboratory is that of bench/tunnel.py. Both ways are there at once and take turns:
left ── relay ── right, and left ── relay "eu" ══ relay "us" ── right, with a server of NATS beside them.
"""

import contextlib
import io
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import checkout  # noqa: F401
from clustered import Clustered
from target import Target
from tunnel import Failed, tcp
from tunnel_lab import IN_THE_CLEAR, PLAIN, TunnelLab, Way

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from lab.programs import Program, client, environment

LEAST = 0.6
POOL = "10.20.9.0/24"
NAME = "two"


def by_two_relays(stack: ExitStack, lab: TunnelLab, folder: Path) -> Way:
    """Another way from left to right. Its relays are on the hub."""
    with lab.hub:
        cluster = Clustered(stack, folder, POOL, host="0.0.0.0", servers=1)
        relays = [cluster.relay(name) for name in ("eu", "us")]
    clients = []
    for side, (host, relay) in enumerate(zip((lab.left, lab.right), relays, strict=True), 1):
        argv = ["-w", f"ws://10.0.{side}.1:{relay.address[1]}", "-t", f"10.20.9.{side}/24", "-n", NAME, *IN_THE_CLEAR]
        with host:
            made = Program(f"client {side}", client(*argv), environment(folder / f"client{side}"))
        clients.append(stack.enter_context(made))
    for one in clients:
        one.wait_for(" connected as ")
    way = Way(NAME, "candy,\ntwo relays", "10.20.9.2", "10.20.9.1", f"candy-{NAME}", None, clients)
    # Each relay knows where the other's member is.
    lab.left.run("ping", "-n", "-c", "1", "-W", "10", way.to)
    return way


def target(rounds: int, seconds: int) -> Target:
    """The row. As root."""
    rates: list[list[float]] = []
    # The programs' logs, which are printed at the end, are of interest when something failed alone.
    logs = io.StringIO()
    try:
        with contextlib.redirect_stdout(logs), tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            (Path(folder) / "cluster").mkdir()
            lab = TunnelLab(stack, Path(folder), [PLAIN], limits=False)
            ways = [*lab.ways, by_two_relays(stack, lab, Path(folder) / "cluster")]
            for way in ways:
                tcp(lab, way, 1, 1, ())
            rates += [[tcp(lab, way, seconds, 1, ())["tcp1 to"] for way in ways] for _ in range(rounds)]
    except (Failed, AssertionError) as error:
        sys.exit(f"cluster: tunnel: {error}\n{logs.getvalue()}")
    ratios = [two / one for one, two in rates]
    one, two = (statistics.median(each) for each in zip(*rates, strict=True))
    ratio = statistics.median(ratios)
    text = (
        f"1 TCP stream, TUN to TUN by two relays: {two:.2f} Gbit/s, {ratio:.2f} ({min(ratios):.2f} to "
        f"{max(ratios):.2f}) of {one:.2f} by one, at least {LEAST}"
    )
    return Target(text, ratio >= LEAST)
