"""Rounds of faults that are drawn, at three relays and three servers of NATS, and what holds all the same.

    a round: one to three faults ─▶ devices come, roam, are at two relays at once ─▶ all is healed ─▶ Invariants

`make faults` has fifty rounds. Both numbers are in the environment: CANDY_FAULT_ROUNDS, CANDY_FAULT_SEED.
"""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from kit.nats import NAMES, SECRET
from lab.cluster import NETWORKS, PORT, SERVERS, Site
from lab.wanderers import Wanderers

from candy.control.client import Asking
from candy.errors import OperationalError, RequestError
from candy.primitives import NOISE
from candy.relay.cluster.agreement import Agreement
from candy.relay.cluster.jetstream import JetStream, connected, patiently
from candy.relay.cluster.ledger import AwayError, Bucket
from candy.relay.cluster.records import Envelope, Grant, grant_key

ROUNDS = int(os.environ.get("CANDY_FAULT_ROUNDS", "3"))
SEED = int(os.environ.get("CANDY_FAULT_SEED", "1"))
WITHIN_S = 10.0
"""From the last healing on, until all is as it was."""
FAULT_S = (2.0, 6.0)
LONG_S = (15.0, 25.0)
"""So long is one of six rounds: that deadlines pass, and TCP's pauses have grown."""
DECIDES_S = 30.0
"""How long servers of NATS may take for their leaders. It is no matter of candy's."""
DEVICES = 4
"""At first, of each network; a round brings one more."""
DEVICES_MOST = 20
"""In all."""
CLAIMED = IPv4Address("10.9.0.200")
"""In each network by two."""
CLOCKS_S = 290
"""How far relays' clocks are off at most: at two of them together less than what is tolerated."""
WAYS = (("in", "out"), ("in",), ("out",))

pytestmark = pytest.mark.netns


class Faults:
    """Draws what goes wrong, and has it go wrong."""

    def __init__(self, site: Site, random: random.Random) -> None:
        self._site = site
        self._random = random
        self._kinds: dict[str, Callable[[], str]] = {
            "a relay is killed": lambda: self._kill(NAMES),
            "a relay hangs": lambda: self._hold(NAMES),
            "a server is killed": lambda: self._kill(SERVERS),
            "a server hangs": lambda: self._hold(SERVERS),
            "all servers are killed": self._kill_servers,
            "relays are parted": lambda: self._part(NAMES, 1, NAMES),
            "a relay is parted from NATS": lambda: self._part(NAMES, 3, SERVERS),
            "a relay is parted from a server": lambda: self._part(NAMES, 1, SERVERS),
            "servers are parted": lambda: self._part(SERVERS, 2, SERVERS),
            "a clock is set": self._set_clock,
        }
        self.tally: Counter[str] = Counter()

    def draw(self) -> list[str]:
        """One to three, which happen at once; each in words."""
        kinds = self._random.sample(sorted(self._kinds), self._random.choice((1, 1, 2, 3)))
        self.tally.update(kinds)
        return [f"{kind}: {self._kinds[kind]()}" for kind in kinds]

    def _running(self, names: tuple[str, ...]) -> list[str]:
        return [name for name in names if name in self._site.running and name not in self._site.held]

    def _kill(self, names: tuple[str, ...]) -> str:
        name = self._random.choice(self._running(names))
        self._site.kill(name)
        return name

    def _kill_servers(self) -> str:
        for name in self._running(SERVERS):
            self._site.kill(name)
        return ""

    def _hold(self, names: tuple[str, ...]) -> str:
        running = self._running(names)
        if not running:
            return "none is left"
        name = self._random.choice(running)
        self._site.hold(name)
        return name

    def _part(self, names: tuple[str, ...], count: int, others: tuple[str, ...]) -> str:
        name = self._random.choice(names)
        apart = self._random.sample([other for other in others if other != name], count)
        ways = self._random.choice(WAYS)
        self._site.part(name, tuple(apart), ways)
        return f"{name} and {' '.join(apart)}, {' and '.join(ways)}"

    def _set_clock(self) -> str:
        name, seconds = self._random.choice(NAMES), self._random.randint(-CLOCKS_S, CLOCKS_S)
        self._site.clocks[name].shift(seconds)
        return f"{name} {seconds:+d} s"


class Invariants:
    """What holds once all is whole again."""

    def __init__(self, site: Site, wanderers: Wanderers) -> None:
        self._site = site
        self._wanderers = wanderers

    async def hold_again(self) -> float:
        """How long it took from now on."""
        begun = time.monotonic()
        self._wanderers.begin_round()
        missing = ["nothing was looked at"]
        while missing and time.monotonic() - begun < WITHIN_S:
            missing = self._wanderers.missing() or await asyncio.to_thread(self._told_otherwise)
            if missing:
                await asyncio.sleep(0.1)
        took = time.monotonic() - begun
        assert not missing, f"{WITHIN_S:g} s after the healing: " + "; ".join(missing)
        await self._no_grant_is_lost()
        assert not self._wanderers.faults, "\n".join(self._wanderers.faults)
        return took

    def _told_otherwise(self) -> list[str]:
        """What relays say of members that is not so: each is at one, and all say the same."""
        expected = {
            (device.path, str(device.address), device.members[-1].relay)
            for device in self._wanderers.devices
            if device.members
        }
        found = []
        for name in NAMES:
            asking = Asking("relay", self._site.control(name))
            try:
                answer = asking.ask("GET", "/v1/members")
            except (OperationalError, RequestError) as error:
                found.append(f"{name}: {error}")
                continue
            finally:
                asking.close()
            told = [(each["network"], each["address"], each["relay"]) for each in answer["members"]]
            if answer["unreached"]:
                found.append(f"{name} does not reach {answer['unreached']}")
            elif len(told) != len(expected) or set(told) != expected:
                found.append(f"{name} says {sorted(set(told) ^ expected)}")
        return found

    async def nats_decides(self) -> float:
        """Wait until each bucket has a leader; how long that took."""
        begun = time.monotonic()
        async with asyncio.timeout(DECIDES_S), self._nats() as nats:
            for bucket in Bucket:
                while True:
                    with suppress(AwayError):
                        await nats.written(bucket)
                        break
                    await asyncio.sleep(0.1)
        return time.monotonic() - begun

    @asynccontextmanager
    async def _nats(self) -> AsyncIterator[JetStream]:
        with self._site.hub:
            nats = await connected(self._site.settings("eu"))
            try:
                yield nats
            finally:
                await nats.close()

    async def _no_grant_is_lost(self) -> None:
        async with self._nats() as nats:
            agreement = Agreement(nats, Envelope(SECRET, NOISE, os.urandom), "eu")
            for device in self._wanderers.devices:
                if not device.is_in:
                    continue
                assert device.address is not None
                key = grant_key(device.path, int(device.address))
                known = await patiently(partial(agreement.read, Grant, key))
                found = b"" if known.record is None else known.record.holder
                assert found == device.identity, f"{device.address} of {device.name} is granted to {found.hex()}"


@pytest.mark.timeout(60 + 60 * ROUNDS)
async def test_rounds_of_faults(tmp_path: Path) -> None:
    drawn = random.Random(SEED)
    with ExitStack() as stack:
        site = Site(stack, tmp_path)
        site.start()
        relays = {name: (site.hosts[name].address, PORT) for name in NAMES}
        wanderers = Wanderers(site.hub, relays, NETWORKS, SEED)
        faults, invariants = Faults(site, drawn), Invariants(site, wanderers)
        for number in range(2 * DEVICES):
            wanderers.add(sorted(NETWORKS)[number % 2], has_key=number % 4 < 2)
        for path in [*NETWORKS, *NETWORKS]:
            wanderers.add(path, claims=CLAIMED)
        async with living(wanderers):
            print(f"at first: {await invariants.hold_again():.1f} s")
            for number in range(ROUNDS):
                said = faults.draw()
                print(f"{time.strftime('%X')} round {number + 1}: {', '.join(said)}", flush=True)
                await roaming(wanderers, drawn, drawn.uniform(*(LONG_S if drawn.random() < 1 / 6 else FAULT_S)))
                site.heal()
                if any("server" in each for each in said):
                    print(f"    NATS decides: {await invariants.nats_decides():.1f} s", flush=True)
                print(f"    healed: {await invariants.hold_again():.1f} s", flush=True)
                if len(wanderers.devices) < DEVICES_MOST:
                    wanderers.add(drawn.choice(sorted(NETWORKS)), has_key=drawn.random() < 0.5)
        print(f"two rivals were in at once for {wanderers.rival_s:.1f} s at most; {dict(faults.tally)}")


async def roaming(wanderers: Wanderers, drawn: random.Random, seconds: float) -> None:
    """Devices go to other relays for so long, some to two at once."""
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        await asyncio.sleep(min(left, drawn.uniform(0.2, 1.5)))
        drawn.choice(wanderers.devices).go_to(*drawn.sample(NAMES, drawn.choice((1, 2))))


@asynccontextmanager
async def living(wanderers: Wanderers) -> AsyncIterator[None]:
    task = asyncio.create_task(wanderers.live())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
