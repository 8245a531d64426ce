"""A relay as one of several: between its networks, which decide, and NATS, where relays agree.

    start() ─▶ connected ─▶ own epoch ─▶ networks compared ─▶ what the others have is learned, the own file imported
    record(wanted) ─▶ candy.relay.cluster.decisions    every BEAT_S: a beat; who is gone, who is to be asked
    came(), went() ─▶ within FLUSH_S: an update        every WRITE_S: leases that ended, devices that changed
    what others have written ─▶ candy.relay.cluster.learning

    candy.from.NAME.where          updates and beats of a relay's, to all
    candy.from.NAME.part.OTHER     all that it has, to one that has asked
    candy.to.NAME.parts            who asks, by name
    candy.to.NAME.ask.ASKER        what operators ask elsewhere, and relays of each other (candy.relay.cluster.asking)

Rules:
 1. Nothing here decides: networks do (candy.relay.network), and Agreement.
 2. Of what is owed to NATS while that is away one thing is kept for each address and device.
"""

import asyncio
import logging
import os
import random
import time
from collections.abc import Coroutine, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from candy import __version__
from candy.control.model import ClusterStatus, OtherRelay
from candy.errors import OperationalError, RequestError
from candy.primitives import NOISE
from candy.relay.cluster.agreement import (
    Agreement,
    DiffersError,
)
from candy.relay.cluster.answering import Answering
from candy.relay.cluster.asking import Answer, Answers, Asking, ask_all
from candy.relay.cluster.decisions import Decisions
from candy.relay.cluster.digests import TIDY_S, Digests
from candy.relay.cluster.directory import Change, Directory
from candy.relay.cluster.entrances import Entrances
from candy.relay.cluster.jetstream import JetStream, ended, patiently
from candy.relay.cluster.learning import Learning
from candy.relay.cluster.ledger import AwayError, Bucket, Entry
from candy.relay.cluster.mesh import Mesh
from candy.relay.cluster.presence import BEAT_S, Presence
from candy.relay.cluster.quotas import EXCHANGE_S, Quotas
from candy.relay.cluster.records import (
    SECRET_LEAST,
    Common,
    Envelope,
    FormatError,
    RelayRecord,
    word,
)
from candy.relay.cluster.shared import Decide, Shared
from candy.relay.clustersettings import ClusterSettings
from candy.relay.enrolment import Device
from candy.relay.keys import number_of
from candy.relay.limits import month_of
from candy.relay.network import Network
from candy.relay.networksettings import NetworkSettings
from candy.relay.passwords import Password
from candy.relay.recording import Outcome, Wanted

FLUSH_S: Final = 0.01
"""How long a log-in waits for others to be told of with it."""
WRITE_S: Final = 1.0
LISTEN_S: Final = 1.5
"""How long a start listens for the beats of relays that run."""

log = logging.getLogger("candy.relay")

_Result = TypeVar("_Result")


class Host(Protocol):
    """The relay, as far as it is of use here."""

    def now(self) -> float:
        """Of its networks' clock, monotonic."""

    def decide_at(self, path: str, decide: Decide) -> None:
        """Have a network decide, and carry that out."""


class Cluster:
    """See the rules above; a Recorder.

    Args:
        networks: by path.
    """

    def __init__(self, settings: ClusterSettings, host: Host, networks: Mapping[str, Network]) -> None:
        self.settings = settings
        self._host = host
        self._networks = networks
        self._nats = JetStream(settings, self._on_connected)
        envelope = Envelope(_secret(settings.secret_file), NOISE, os.urandom)
        self._envelope = envelope
        self._agreement = Agreement(self._nats, envelope, settings.name)
        self._digests = Digests(self._nats, self._agreement, host.now)
        self.presence = Presence()
        self.directory = Directory(settings.name, 0, random.random)
        self.quotas = Quotas()
        self.relays: dict[str, RelayRecord] = {}
        """All that there ever were, this one among them, by name."""
        self.asking = Asking(self._nats, envelope, settings.name, self._epoch_of)
        self.answering = Answering(self)
        self.asking.answers = self.answering.answers
        self.shares: dict[str, Shared] = {}
        self._by_word: dict[str, Shared] = {}
        self._entrances = Entrances(settings.name)
        self.public_url = ""
        """By which members reach this relay, where that was given; publish() tells the others of another one."""
        self.decisions = Decisions(self._agreement, self._digests, self.shares, host.now)
        self.learning = Learning(self._agreement, self._by_word, self.decide)
        self._news = asyncio.Event()
        self._tasks: set[asyncio.Task[object]] = set()
        self._has_told_away = False
        self._has_begun = self._is_double = False
        self.mesh: Mesh | None = None
        """None: no packet goes to another relay."""

    @property
    def is_up(self) -> bool:
        """NATS can be asked."""
        return self._nats.is_up

    @property
    def name(self) -> str:
        """This relay's among them."""
        return self.settings.name

    @property
    def server(self) -> str:
        return self._nats.server

    @property
    def psk(self) -> bytes:
        """What all relays have for their links."""
        return bytes.fromhex(self._envelope.digest(b"links between relays"))

    async def status(self) -> ClusterStatus:
        """What an operator is told."""
        round_trips = {} if self.mesh is None else await self.mesh.round_trips()
        links = {} if self.mesh is None else self.mesh.links()
        counts, there = self.directory.counts(), self.presence.there
        others = [
            OtherRelay(
                relay=name,
                there=name in there,
                members=counts.get(name, 0),
                links=links.get(name, 0),
                round_trip_ms=round_trips[name] * 1e3 if name in round_trips else None,
                url=self.relays[name].url,
                public_url=self.relays[name].public_url or None,
            )
            for name in self.others
        ]
        return ClusterStatus(
            name=self.settings.name,
            nats=self.is_up,
            server=self.server,
            relays={name: counts.get(name, 0) for name in there},
            missing=self.directory.missing,
            others=others,
        )

    def common(self, settings: NetworkSettings, key: bytes) -> Common:
        """What of a network has to be alike at all relays.

        Args:
            key: the network's public key.
        """
        return Common(
            relays=(self.settings.name,),
            pool="" if settings.pool is None else str(settings.pool),
            passwords=tuple(sorted(self._digest(each) for each in settings.every_password)),
            rules=tuple(map(str, settings.rules)),
            key=key.hex(),
            reservations=tuple(sorted(map(str, settings.reservations))),
            allow_outside_pool=settings.allow_outside_pool,
            legacy=settings.legacy,
            clock_tolerance=settings.clock_tolerance,
        )

    def _digest(self, password: Password) -> str:
        """Of a password, and of what it lets in."""
        about = f"{password.until} {password.legacy} {password.addresses} ".encode()
        return self._envelope.digest(about + password.secret)

    async def start(self, alike: Mapping[str, Common]) -> None:
        """Be one of the relays from now on. What networks have from this relay's own file is the cluster's, if it never
        was one of it.

        Args:
            alike: by path, what has to be.

        Raises:
            OperationalError: NATS can't be used, or the other relays have other settings.
        """
        await self._nats.connect()
        try:
            await self._start(alike)
        except (AwayError, FormatError, DiffersError) as error:
            await self.stop()
            raise OperationalError(f"cluster: {error}") from None
        except OperationalError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Idempotent."""
        await ended(self._tasks)
        if self._has_begun and self.is_up:
            self._has_begun = False
            with suppress(AwayError, FormatError):
                await self._agreement.update(
                    RelayRecord, self.settings.name, lambda now: None if now is None else replace(now, is_running=False)
                )
        await self._nats.close()

    def record(self, path: str = "", wanted: Wanted | None = None) -> "asyncio.Future[Outcome]":
        """Have the relays agree on this, or write what is new of devices and invitations."""
        return self._go(self.decisions.decide(path, wanted) if wanted is not None else self.decisions.write_devices())

    @property
    def others(self) -> list[str]:
        """Relays that have not said that they end, this one left out."""
        return sorted(name for name, its in self.relays.items() if its.is_running and name != self.settings.name)

    async def ask_others(
        self, call: str, given: Mapping[str, Any], takes_s: float = 0.0
    ) -> tuple[dict[str, Answer], list[str]]:
        """Ask all that are there: what those said that did not refuse, and whom it did not reach (Asking.ask()). Those
        that are not there are not reached."""
        there = set(self.presence.there) if self.is_up else set()
        asked = [name for name in self.others if name in there]
        answers, unreached = await ask_all(self.asking, asked, call, given, takes_s)
        return answers, sorted({*unreached, *self.others} - answers.keys() - (set(asked) - set(unreached)))

    async def ask_one(self, relay: str, call: str, given: Mapping[str, Any], takes_s: float = 0.0) -> Answer:
        """Ask one. Raises RequestError: it refuses, or was not reached."""
        try:
            return await self.asking.ask(relay, call, given, takes_s)
        except AwayError:
            raise RequestError(f"the relay {relay} was not reached: try again, or ask there") from None

    def answer_by(self, operators: Answers) -> None:
        """Answer by this what operators ask at other relays."""
        self.answering.operators = operators

    async def revoked(self, path: str, device: Device) -> list[str]:
        """Have all relays shut out a device that was revoked here; those that it did not reach."""
        return await self.answering.revoked(path, device)

    def _epoch_of(self, relay: str) -> int:
        its = self.relays.get(relay)
        return 0 if its is None else its.epoch

    # Its start.

    async def _start(self, alike: Mapping[str, Common]) -> None:
        name = self.settings.name
        wall = int(time.time())

        def begin(current: RelayRecord | None) -> RelayRecord:
            epoch = max(wall, current.epoch + 1 if current is not None else 0)
            done = current.imported if current is not None else ()
            key = "" if self.mesh is None else self.mesh.key
            own, url = self.settings.url, self.public_url
            return RelayRecord(own, epoch, __version__, done, is_running=True, key=key, public_url=url)

        # Servers that have just begun may answer that much later than the first question.
        known = await patiently(lambda: self._agreement.update(RelayRecord, name, begin))
        assert known.record is not None
        self.directory.epoch = known.record.epoch
        await self._nats.listen("candy.from.*.where", self._on_where)
        await self._nats.listen(f"candy.from.*.part.{name}", self._on_where)
        await self._nats.listen(f"candy.to.{name}.parts", self._on_asked)
        # Who runs has a say in what a network is.
        await asyncio.sleep(LISTEN_S)
        if self._is_double:
            raise OperationalError(f"cluster: another relay that runs is called {name}: give each a name of its own")
        self._look_at_entrances(self._host.now())
        for path, network in self._networks.items():
            common = alike[path]
            await patiently(partial(self._agreement.join, path, common, self.presence.there))
            self._share(path, network)
        following = {
            Bucket.RELAYS: self._on_relay,
            Bucket.DEVICES: self.learning.on_device,
            Bucket.GRANTS: self.learning.on_grant,
        }
        for bucket, follow in following.items():
            await patiently(partial(self._nats.follow, bucket, follow))
        own = number_of(name)
        if twin := next((other for other in self.relays if other != name and number_of(other) == own), None):
            # Members would take the key of the one for an old key of the other.
            raise OperationalError(f"cluster: the names {name} and {twin} give relays one number: choose another name")
        for shared in self.shares.values():
            await self.decisions.take_in(shared, shared.path not in known.record.imported)
        await self._has_imported()
        await self.asking.listen()
        self._has_begun = True
        always = (self._flush_always, self._beat_always, self._write_always, self._tidy_always, self._exchange_always)
        for task in always:
            self._go(task())

    async def join(self, path: str, network: Network, number: int, alike: Common) -> None:
        """Serve one more network together with the others, before any member comes. One that was served before is as
        the others have it.

        Args:
            number: the engine's for it.

        Raises:
            OperationalError: NATS can't be asked, or the others have other settings.
        """
        try:
            known = await self._agreement.read(RelayRecord, self.settings.name)
            imports = known.record is None or path not in known.record.imported
            await self._agreement.join(path, alike, self.presence.there)
            if self.mesh is not None:
                self.mesh.serve(word(path), number)
            shared = self._share(path, network)
            await self._nats.gather(Bucket.DEVICES, shared.word, self.learning.on_device)
            await self._nats.gather(Bucket.GRANTS, shared.word, self.learning.on_grant)
            await self.decisions.take_in(shared, imports)
            await self._has_imported()
        except (AwayError, FormatError, DiffersError) as error:
            self.leave(path)
            raise OperationalError(f"cluster: {error}") from None

    def leave(self, path: str) -> None:
        """Serve a network no more, whose members have left."""
        shared = self.shares.pop(path, None)
        if shared is not None:
            del self._by_word[shared.word]
            if self.mesh is not None:
                self.mesh.leave(shared.word)
            self._digests.leave(path)
            self.quotas.leave(shared.word)
            self._go(self._part(path))

    async def _part(self, path: str) -> None:
        # What it can't tell, because NATS is away, costs nothing but a say in what the network is, until it ends.
        with suppress(AwayError, FormatError):
            await self._agreement.part(path)

    async def _has_imported(self) -> None:
        """Its own file counts no more for the networks that it serves."""

        def change(current: RelayRecord | None) -> RelayRecord | None:
            if current is None or self.shares.keys() <= {*current.imported}:
                return None
            return replace(current, imported=tuple(sorted({*current.imported, *self.shares})))

        await self._agreement.update(RelayRecord, self.settings.name, change)

    def _share(self, path: str, network: Network) -> Shared:
        def ask(shared: Shared, ip: int, relay: str) -> None:
            self._go(self.answering.probe(shared, ip, relay))

        def contest(shared: Shared, ip: int, relay: str) -> None:
            self._go(self.answering.contest(shared, ip, relay))

        name = self.settings.name
        shared = Shared(
            path, network, self.directory, name, lambda: self.is_up, self._news.set, ask, contest, self.quotas
        )
        shared.placed = partial(self._place_soon, shared)
        self.shares[path] = self._by_word[shared.word] = shared
        network.set_relays(self._entrances.below(path))
        self.answering.shared(shared.word)
        # The others have told of their members there before.
        for ip in self.directory.addresses(shared.word):
            self._moved(shared, ip)
            self._place(shared, ip)
        return shared

    def decide(self, shared: Shared, decide: Decide) -> None:
        """Have a network decide, and carry that out, unless it is not served any more."""
        if self.shares.get(shared.path) is shared:
            self._host.decide_at(shared.path, decide)

    def _on_relay(self, entry: Entry) -> None:
        if (its := self.learning.opened(RelayRecord, entry)) is not None:
            self.relays[entry.key] = its
            if self.mesh is not None:
                self.mesh.know(entry.key, its.url, its.key if its.is_running else "", its.epoch)

    # Who is where.

    def _on_where(self, subject: str, message: bytes) -> None:
        author, now = subject.split(".")[2], self._host.now()
        if author == self.settings.name:
            # Before it has said anything itself, it was another one of its name.
            self._is_double = self._is_double or not self._has_begun
            self.presence.echoed(now)
            return
        if self.presence.heard(author, now):
            log.info("cluster: the relay %s is there", author)
            self.presence.linked(author, self.mesh is not None and self.mesh.is_linked(author))
        try:
            self._follow(self.directory.take(author, message, now))
        except FormatError as error:
            self.learning.pass_over(error)

    def _follow(self, changes: Iterable[Change]) -> None:
        for change in changes:
            name, ip = change.key
            shared = self._by_word.get(name)
            if shared is None:
                continue
            if change.is_there:
                self._moved(shared, ip)
            elif self.directory.elsewhere(change.key) is None:
                self._freed(shared, ip)
            self._place(shared, ip)
            self._announce(shared, ip)

    def _place_soon(self, shared: Shared, ip: int) -> None:
        """A member has come or gone here, which its network is not through with."""
        asyncio.get_running_loop().call_soon(self._place, shared, ip)

    def _place(self, shared: Shared, ip: int) -> None:
        """Have packets for an address go where it is."""
        if self.mesh is None or self.shares.get(shared.path) is not shared:
            return
        found = self.directory.elsewhere((shared.word, ip))
        is_here = shared.network.member_at(IPv4Address(ip)) is not None
        self.mesh.route(shared.word, ip, None if found is None or is_here else found[0])

    def _announce(self, shared: Shared, ip: int) -> None:
        self.decide(shared, lambda network, now, wall: network.placed(ip))

    def _moved(self, shared: Shared, ip: int) -> None:
        self.decide(shared, lambda network, now, wall: shared.moved(ip, now))

    def _freed(self, shared: Shared, ip: int) -> None:
        self.decide(shared, lambda network, now, wall: network.freed(ip, now))

    def _on_asked(self, subject: str, message: bytes) -> None:
        self._go(self._answer(message.decode("ascii", "replace")))

    async def _answer(self, asker: str) -> None:
        await self.flush()
        for part in list(self.directory.parts()):
            await self._nats.publish(f"candy.from.{self.settings.name}.part.{asker}", part)

    async def flush(self) -> None:
        """Tell the others of what is new here."""
        while self.is_up and (update := self.directory.flush()) is not None:
            await self._nats.publish(f"candy.from.{self.settings.name}.where", update)

    # What goes on all the time.

    async def _flush_always(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await asyncio.sleep(FLUSH_S)
            await self.flush()

    async def _beat_always(self) -> None:
        name = self.settings.name
        while True:
            await self.flush()
            if (beat := self.directory.beat()) is not None:
                await self._nats.publish(f"candy.from.{name}.where", beat)
            now = self._host.now()
            for gone in self.presence.gone(now):
                log.warning("cluster: the relay %s is gone", gone)
                self._follow(self.directory.gone(gone))
            self._look_at_entrances(now)
            for author in self.directory.due(now) if self.is_up else ():
                await self._nats.publish(f"candy.to.{author}.parts", name.encode())
            await asyncio.sleep(BEAT_S)

    def _look_at_entrances(self, now: float) -> None:
        """Tell members by which relays they reach their networks, when that has changed."""
        public = {name: its.public_url for name, its in self.relays.items()} | {self.name: self.public_url}
        if self._entrances.look(public, self.presence.there, now):
            for shared in list(self.shares.values()):
                self._tell_entrances(shared)

    def _tell_entrances(self, shared: Shared) -> None:
        urls = self._entrances.below(shared.path)
        self.decide(shared, lambda network, now, wall: network.set_relays(urls))

    def publish(self, public_url: str) -> None:
        """Members reach this relay by another URL from now on."""
        self.public_url = public_url
        self._go(self._publish())

    async def _publish(self) -> None:
        # Where NATS is away, the next start writes it.
        with suppress(AwayError, FormatError):
            await self._agreement.update(
                RelayRecord,
                self.name,
                lambda now: None if now is None else replace(now, public_url=self.public_url),
            )

    async def _write_always(self) -> None:
        """What nobody waits for."""
        while True:
            await asyncio.sleep(WRITE_S)
            with suppress(AwayError, FormatError):
                for shared in list(self.shares.values()):
                    await self.decisions.write(shared)
                await self.decisions.write_devices()

    async def _tidy_always(self) -> None:
        """Digests of log-ins that nobody believes any more."""
        while True:
            await asyncio.sleep(TIDY_S)
            if min([self.settings.name, *self.presence.there]) != self.settings.name:
                continue
            with suppress(AwayError, FormatError):
                for path, shared in list(self.shares.items()):
                    await self._digests.tidy(path, shared.network.tolerance, int(time.time()))

    async def _exchange_always(self) -> None:
        """What devices have carried, where there are quotas."""
        while True:
            await asyncio.sleep(EXCHANGE_S)
            await self.exchange()

    async def exchange(self) -> None:
        """Have the others say what is new of that, and follow it."""
        limited = [shared for shared in self.shares.values() if shared.network.has_quotas]
        self.quotas.number += 1
        for shared in limited:
            leases = shared.network.pool.leases
            self.quotas.note(shared.word, leases, month_of(leases.wall))
        if not limited:
            return
        await self.answering.exchange(self.presence.there)
        for shared in limited:
            self.decide(shared, lambda network, now, wall: network.exchanged(wall))

    async def forgive(self, path: str, ip: int) -> None:
        """What a device has carried so far counts no more, at all relays that are reached."""
        shared = self.shares[path]
        self.quotas.forgive(shared.word, ip)
        await self.ask_others("forgive", {"network": path, "address": ip, "holder": shared.holder(ip).hex()})

    def _on_connected(self, is_up: bool) -> None:
        if not is_up:
            self._has_told_away = True
            log.warning("cluster: NATS is away: members stay, known devices log in, new ones have to wait")
        elif self._has_told_away:
            self._has_told_away = False
            log.info("cluster: NATS is there again, at %s", self.server)
            self._news.set()

    def _go(self, what: Coroutine[Any, Any, _Result]) -> "asyncio.Task[_Result]":
        task = asyncio.get_running_loop().create_task(what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _secret(file: Path) -> bytes:
    """Raises OperationalError."""
    try:
        secret = file.read_bytes().strip()
    except OSError as error:
        raise OperationalError(f"cluster: cannot read secret_file {file}: {error.strerror}") from None
    if len(secret) < SECRET_LEAST:
        raise OperationalError(
            f"cluster: secret_file {file} has {len(secret)} bytes, and needs {SECRET_LEAST} or more: "
            f"make one with: openssl rand -base64 48 > {file}"
        )
    return secret
