"""A network at one relay, with what it writes down in: the store alone, or NATS, together with other relays."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any, Protocol

from kit.keyed import CONFIRM, Keyed
from kit.login import DEVICE, NETWORK, PASSWORD
from kit.nats import Servers

from candy.checked import checked
from candy.member.login import Credentials, Outcome
from candy.protocol import auth, wire
from candy.protocol.actions import Close, Send
from candy.protocol.login import Asked, Asks
from candy.protocol.noise import KeyPair
from candy.relay import recording
from candy.relay.cluster.cluster import Cluster
from candy.relay.cluster.shared import Decide
from candy.relay.keeper import Keeper
from candy.relay.networksettings import NetworkSettings
from candy.relay.session import Action, Bind, Record
from candy.relay.store import Store


class _Recorder(Protocol):
    def record(self, path: str = "", wanted: recording.Wanted | None = None) -> "asyncio.Future[recording.Outcome]": ...


@dataclass
class Site(Keyed):
    """A relay that runs: what its networks want written down is."""

    path: str = "/"
    recorder: _Recorder | None = None
    end: Callable[[], Awaitable[None]] | None = None
    did: list[Action] = field(default_factory=list)
    """What other relays have brought about."""
    cluster: Cluster | None = None
    others: dict[str, "Site"] = field(default_factory=dict)
    """Further networks of the same relay, by path."""
    writing: list["asyncio.Future[None]"] = field(default_factory=list)
    """What follows from that, under way."""

    async def write(self, actions: list[Action]) -> list[Action]:
        """What follows once that is written down."""
        while records := [action for action in actions if isinstance(action, Record)]:
            assert self.recorder is not None
            actions = [action for action in actions if not isinstance(action, Record)]
            for record in records:
                outcome = await self.recorder.record(self.path, record.wanted)
                actions += self.keep(self.network.recorded(record.connection, outcome, self.now, self.wall))
        return actions

    async def come(
        self, credentials: Credentials, device: KeyPair = DEVICE, asked: Asked | None = None
    ) -> tuple[int, Outcome]:
        """A log-in: the connection, and what the member learns. Who is let in is in."""
        self.connections += 1
        connection = self.connections
        relay, member = self.talk.relay(), self.talk.member(credentials, device)
        assert self.network.opened_with_keys(connection, f"203.0.113.{connection}", self.now, relay) == []
        actions = await self.write(self.receive(connection, member.begin(relay.shown, asked or Asked())))
        [send] = [action for action in actions if isinstance(action, Send) and action.connection == connection]
        outcome = member.read(send.payload)
        if outcome.is_in:
            actions = await self.write(self.receive(connection, CONFIRM))
            assert any(isinstance(action, Bind) for action in actions), (actions, self.log)
        else:
            assert any(isinstance(action, Close) for action in actions)
        return connection, outcome

    async def old_comes(self, address: IPv4Address, vmac: bytes, wall: int | None = None) -> tuple[int, list[Action]]:
        """An old client's log-in, at a time of its own."""
        self.connections += 1
        connection, secret, wall = self.connections, PASSWORD.secret, self.wall if wall is None else wall
        self.network.opened(connection, f"203.0.113.{connection}", self.now, extended=True)
        digest = auth.vmac_digest(secret, vmac, wall)
        assert self.receive(connection, wire.Vmac(vmac, wall, digest).encode()) == []
        digest = auth.auth_digest(secret, address, wall)
        return connection, await self.write(self.receive(connection, wire.Auth(address, wall, digest).encode()))

    async def until_in(self, connection: int) -> None:
        """One that waited for its address has it, once that is written down."""
        async with asyncio.timeout(20):
            while not any(each.connection == connection and each.is_member for each in self.network.sessions):
                await asyncio.sleep(0.01)

    # As a Cluster's host.

    def decide_at(self, path: str, decide: Decide) -> None:
        if path in self.others:
            self.others[path].decide_at(path, decide)
            return
        assert path == self.path
        actions = self.keep(decide(self.network, self.now, self.wall))
        if any(isinstance(action, Record) for action in actions):
            self.writing.append(asyncio.ensure_future(self._write_on(actions)))
        else:
            self.did += actions

    async def _write_on(self, actions: list[Action]) -> None:
        self.did += await self.write(actions)


@dataclass
class _Host:
    site: Site

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def decide_at(self, path: str, decide: Decide) -> None:
        self.site.decide_at(path, decide)


def fixed(last: int) -> Asked:
    return Asked(address=IPv4Interface(f"192.168.202.{last}/24"), flags=Asks.IS_FIXED)


async def with_store(folder: Path, **options: Any) -> Site:
    """One that is alone; begun again it finds what it had."""
    site = Site(options=options)
    keeper = Keeper(Store(folder), lambda: {"/": site.network.register})
    await keeper.start()
    site.recorder, site.end = keeper, keeper.stop
    return site


def made_for(servers: Servers, path: str, name: str = "eu", **options: Any) -> Site:
    """One of several, not begun."""
    site = Site(path=path, options=options)
    site.cluster = Cluster(servers.settings(name), _Host(site), {path: site.network})
    site.recorder, site.end = site.cluster, site.cluster.stop
    return site


async def begin(site: Site, **changed: Any) -> Site:
    """Begin, with these settings of its network that all relays have to have alike."""
    settings = checked(NetworkSettings, {"path": site.path, "password": PASSWORD.secret} | changed)
    assert site.cluster is not None
    await site.cluster.start({site.path: site.cluster.common(settings, NETWORK)})
    return site
