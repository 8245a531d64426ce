"""A relay and its members for half an hour, with everything that happens to them: python tests/soak.py, as root.

    hub:   candy-server                  restarted three times in the first third, its settings read again all the time
    hosts: four candy-clients            one pair is left alone; what candy has on the others' machines is taken away
           the crowd, in this process    members that come and go in pairs, and send each other packets
           mischief, three processes     a tenth as many that mean harm, from three addresses

What is judged stands in verdicts(). Exit status 1 when it was missed. Nothing is left behind.
"""

import asyncio
import os
import re
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

import click
from lab.crowd import Crowd
from lab.laboratory import PORT, Client, Laboratory
from lab.mischief import HELD, WAYS
from lab.namespaces import Ethernet, Host, Namespace
from lab.programs import Program, environment, server

from candy.member.keys import MemberKeys
from candy.protocol.keys import fingerprint

POOL = "10.64.0.0/16"
QUIET, GATEWAY, SHAKEN = "10.64.0.3", "10.64.0.4", "10.64.0.5"
"""With HELD, the addresses of the clients: two that are left alone, a gateway, one whose machine is changed."""
LAN, OTHER_LAN = "192.168.77.0/24", "192.168.78.0/24"
CROWD_FIRST = IPv4Address("10.64.128.1")
CROWD_PER_HOST = 30
SAMPLE_S = 5.0
EACH_S = 12.0
"""From one change of a machine to the next."""
JUDGED_FROM = 1 / 3
"""Of the time; the relay is not restarted any more from then on."""
RESTARTS = ((0.08, signal.SIGTERM), (0.16, signal.SIGKILL), (0.24, signal.SIGTERM))
"""When, as a share of the time, and how. In a run of a few minutes there is time for one to be over."""
FEW_MINUTES = 5.0
GROWTH_MAX = 0.05
GROWTH_FROM_MINUTES = 10.0
"""In a shorter run a program still takes what it needs for good."""
CONNECTION_DESCRIPTORS = 2
"""More or less. A client that is connected has two more than one that is refused again and again: the connection, and
the engine's duplicate of it; of the relay's, a few are members that happen to be there."""
LOG_BYTES_MAX = 1_000_000
HEALED_WITHIN_S = 10.0

CONFIGURATION = """
websocket = "ws://{address}:{port}"
dhcp = "{pool}"
reserve = {reserved}
routes = [
    {{ device = "{pool}", destination = "{lan}", via = "{gateway}" }},
]
"""


@dataclass
class Watched:
    """One program: what it takes, what it said, and whether it ended by itself."""

    program: Program
    resident_kb: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    ended: int | None = None
    """The exit status of one that nobody told to end."""

    def look(self) -> bool:
        """Whether it still runs, as it has to."""
        self.ended = self.program.status
        return self.ended is None

    def sample(self) -> None:
        if not self.look():
            return
        status = Path(f"/proc/{self.program.pid}/status").read_text()
        self.resident_kb.append(int(re.findall(r"VmRSS:\s+(\d+)", status)[0]))
        self.descriptors.append(len(os.listdir(f"/proc/{self.program.pid}/fd")))

    @property
    def log_bytes(self) -> int:
        return sum(len(line) + 1 for line in self.program.lines)


class Soak:
    """All of it.

    Args:
        minutes: how long.
        members: of the crowd, and a tenth as many ways to do harm.
    """

    def __init__(self, stack: ExitStack, folder: Path, minutes: float, members: int, seed: int) -> None:
        self.seconds = minutes * 60
        self._stack = stack
        self._laboratory = Laboratory(stack, folder)
        self._address = (Ethernet.ADDRESS, PORT)
        self._configuration = folder / "candy.toml"
        self._hosts = {address: self._laboratory.host() for address in (HELD, QUIET, GATEWAY, SHAKEN)}
        """Of the clients, by address. Each is reserved: else another could claim one while the relay restarts."""
        self._configure(LAN)
        self.relays = [self._start_relay()]
        hosts = [self._laboratory.host() for _ in range(-(-members // CROWD_PER_HOST))]
        stay_s = (min(60.0, self.seconds / 6), min(420.0, self.seconds / 2))
        self.crowd = Crowd(self._address, hosts, members // 2, CROWD_FIRST, stay_s, seed)
        self.clients = [
            Watched(self._start_client(address, *flags))
            for address, flags in ((HELD, ()), (QUIET, ()), (GATEWAY, ("--masquerade",)), (SHAKEN, ()))
        ]
        for watched in self.clients:
            assert isinstance(watched.program, Client)
            watched.program.connected()
        self.mischief = [self._start_mischief(number, members) for number in range(3)]
        self.pings = ""
        """What ping says of the two that are left alone."""
        self.healings: list[tuple[str, float]] = []

    async def run(self) -> None:
        start = time.monotonic()
        crowd = asyncio.create_task(self.crowd.run())
        others = [
            asyncio.create_task(self._restart(start)),
            asyncio.create_task(self._change(start + self.seconds)),
            asyncio.create_task(self._sample(start)),
        ]
        await asyncio.gather(*others)
        await self.crowd.settle()
        crowd.cancel()
        await asyncio.wait([crowd])

    # What happens.

    async def _restart(self, start: float) -> None:
        """The relay ends, in good order or at once, and is there again."""
        for share, how in RESTARTS if self.seconds >= 60 * FEW_MINUTES else RESTARTS[:1]:
            await asyncio.sleep(start + share * self.seconds - time.monotonic())
            self.crowd.is_relay_up = False
            self.relays[-1].look()
            self.relays[-1].program.signal(how)
            await asyncio.to_thread(self.relays[-1].program.wait)
            self.relays.append(await asyncio.to_thread(self._start_relay))
            self.crowd.is_relay_up = True
            say(f"relay restarted by {how.name}")
        await asyncio.sleep(start + JUDGED_FROM * self.seconds - time.monotonic())
        await asyncio.to_thread(self._ping_steadily, start + self.seconds)

    def _ping_steadily(self, end: float) -> None:
        """The two that are left alone."""
        host = self.clients[0].program
        assert isinstance(host, Client)
        count = max(1, int((end - time.monotonic() - 2) / 0.2))
        self.pings = host.host.run("ping", "-q", "-i", "0.2", "-W", "5", "-c", str(count), QUIET, check=False)

    async def _change(self, end: float) -> None:
        """In turn, one thing is taken away that a client has on its machine; then it is back."""
        gateway, shaken = (watched.program for watched in self.clients[2:])
        assert isinstance(gateway, Client)
        assert isinstance(shaken, Client)
        changes: list[tuple[str, Namespace, tuple[str, ...]]] = [
            ("address taken", shaken.host, ("ip", "address", "flush", "dev", "candy")),
            ("routes taken", shaken.host, ("ip", "route", "flush", "proto", "202")),
            ("link down", shaken.host, ("ip", "link", "set", "candy", "down")),
            ("MTU changed", shaken.host, ("ip", "link", "set", "candy", "mtu", "600")),
            ("nft flushed", gateway.host, ("nft", "flush", "ruleset")),
        ]
        turn = 0
        while time.monotonic() + EACH_S < end:
            await asyncio.sleep(EACH_S / 2)
            self._configure(LAN if turn % 2 else OTHER_LAN)
            self.relays[-1].program.signal(signal.SIGHUP)
            await asyncio.sleep(EACH_S / 2)
            if not self.crowd.is_relay_up:
                continue
            what, host, command = changes[turn % len(changes)]
            turn += 1
            host.run(*command, check=False)
            began = time.monotonic()
            while not await asyncio.to_thread(self._is_whole, shaken.host, gateway.host):
                if time.monotonic() - began > 6 * HEALED_WITHIN_S:
                    break
            self.healings.append((what, time.monotonic() - began))

    def _is_whole(self, shaken: Namespace, gateway: Namespace) -> bool:
        """Everything that a client has put on its machine is there, and carries a packet."""
        time.sleep(0.2)
        link = shaken.run("ip", "-d", "address", "show", "dev", "candy", check=False)
        return (
            "mtu 600" not in link
            and f"inet {SHAKEN}/16" in link
            and "proto 202" in shaken.run("ip", "-d", "route", "show", check=False)
            and "masquerade" in gateway.run("nft", "list", "ruleset", check=False)
            and " 0% packet loss" in shaken.run("ping", "-c", "1", "-W", "1", HELD, check=False)
        )

    async def _sample(self, start: float) -> None:
        while time.monotonic() + SAMPLE_S < start + self.seconds:
            await asyncio.sleep(SAMPLE_S)
            if time.monotonic() > start + JUDGED_FROM * self.seconds:
                for watched in (self.relays[-1], *self.clients):
                    watched.sample()

    def _configure(self, lan: str) -> None:
        host, port = self._address
        written = self._configuration.with_suffix(".new")
        reserved = [f"{address}=key:{self._fingerprint(host)}" for address, host in self._hosts.items()]
        text = CONFIGURATION.format(address=host, port=port, pool=POOL, reserved=reserved, lan=lan, gateway=GATEWAY)
        written.write_text(text)
        written.replace(self._configuration)

    def _start_relay(self) -> Watched:
        with self._laboratory.hub:
            argv = server("-c", str(self._configuration))
            relay = Program("relay", argv, environment(self._laboratory.folder / "relay"))
        self._stack.enter_context(relay)
        relay.wait_for(r"listening on ")
        return Watched(relay)

    def _start_client(self, address: str, *flags: str) -> Client:
        """On a host of its own, and as users start it: a line for each message of another would be this test's."""
        host = self._hosts[address]
        client = Client(host, self._laboratory.state(host), "-w", self._laboratory.url, "-t", f"{address}/16", *flags)
        return self._stack.enter_context(client)

    def _fingerprint(self, host: Host) -> str:
        """Of the key of a host's device, which is made at the first call."""
        return fingerprint(MemberKeys(self._laboratory.state(host)).device(os.urandom).public)

    def _start_mischief(self, number: int, members: int) -> Program:
        """A third of a tenth as many as there are in the crowd."""
        ways = list(WAYS)
        mine = [ways[at % len(ways)] for at in range(number, max(3, members // 10), 3)]
        argv = [sys.executable, "-m", "lab.mischief", *map(str, self._address), *mine]
        environ = environment(self._laboratory.folder / "mischief")
        environ["PYTHONPATH"] += f":{Path(__file__).parent}"
        with self._laboratory.host():
            return self._stack.enter_context(Program(f"mischief {number}", argv, environ))

    # What is said of it.

    def verdicts(self, minutes: float) -> Iterator[tuple[bool, str]]:
        """Each thing that must hold, whether it did, and the figures."""
        tally = self.crowd.tally
        for watched in (self.relays[-1], *self.clients):
            watched.look()
        for watched in (*self.relays, *self.clients):
            if watched.ended is not None:
                yield False, f"{watched.program.name}: ended with status {watched.ended}"
        yield (
            not self.crowd.faults and tally["lost"] == 0,
            f"the crowd: {tally['log-ins']} log-ins, {tally['packets']} packets, {tally['lost']} lost, "
            f"{tally['excused']} in the last seconds of one of two, {tally['faults']} faults",
        )
        # Without a route, as when the client has ended, ping does not even begin.
        [loss] = re.findall(r"([0-9.]+)% packet loss", self.pings) or ["100"]
        yield loss == "0", f"pings between two that are left alone: {loss} % lost"
        worst = max(seconds for _, seconds in self.healings)
        yield worst <= HEALED_WITHIN_S, f"{len(self.healings)} changes of a machine, whole again within {worst:.1f} s"
        for watched in (self.relays[-1], *self.clients):
            yield from self._growth(watched, minutes)
        for watched in (*self.relays, *self.clients):
            said = watched.log_bytes
            yield said < LOG_BYTES_MAX, f"{watched.program.name}: {said} bytes of log"

    def _growth(self, watched: Watched, minutes: float) -> Iterator[tuple[bool, str]]:
        if not watched.resident_kb:
            return
        for name, samples in (("KB resident", watched.resident_kb), ("descriptors", watched.descriptors)):
            tenth = max(1, len(samples) // 10)
            first, last = (statistics.fmean(part) for part in (samples[:tenth], samples[-tenth:]))
            grew = last - first > GROWTH_MAX * first + (CONNECTION_DESCRIPTORS if name == "descriptors" else 0)
            is_judged = minutes >= GROWTH_FROM_MINUTES
            yield not (is_judged and grew), f"{watched.program.name}: {first:.0f} to {last:.0f} {name}"


def say(text: str) -> None:
    click.echo(f"{time.strftime('%X')} {text}", err=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", type=click.FloatRange(0.5, 1440), default=30, show_default=True, help="How long.")
@click.option("--members", type=click.IntRange(2, 600), default=300, show_default=True, help="Of the crowd.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of what the crowd draws.")
def main(minutes: float, members: int, seed: int) -> None:
    """Run a relay and its members for long, with everything that happens to them."""
    if os.geteuid() != 0:
        sys.exit("soak: network namespaces need root: run it with sudo")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="candy-soak-")))
        soak = Soak(stack, folder, minutes, members, seed)
        say(f"{members} members, {minutes:g} minutes")
        asyncio.run(soak.run())
        verdicts = list(soak.verdicts(minutes))
    for fault in soak.crowd.faults:
        click.echo(f"        {fault}")
    for what, seconds in soak.healings:
        if seconds > HEALED_WITHIN_S:
            click.echo(f"        {what}: whole again after {seconds:.1f} s")
    for held, text in verdicts:
        click.echo(f"{'reached' if held else 'missed '} {text}")
    if not all(held for held, _ in verdicts):
        sys.exit(1)


if __name__ == "__main__":
    main()
