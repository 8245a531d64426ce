"""A relay as one of several: between its networks, which decide, and NATS, where relays agree.

    start() ─▶ connected ─▶ own epoch ─▶ networks compared ─▶ what the others have is learned, the own file imported
    record(wanted) ─▶ Agreement ─▶ Outcome             every BEAT_S: a beat; who is gone, who is to be asked
    came(), went() ─▶ within FLUSH_S: an update        every WRITE_S: leases that ended, devices that changed

    candy.from.NAME.where          updates and beats of a relay's, to all
    candy.from.NAME.part.OTHER     all that it has, to one that has asked
    candy.to.NAME.parts            who asks, by name
    candy.to.NAME.ask.ASKER        what operators ask elsewhere, and relays of each other (candy.relay.cluster.asking)

Rules:
 1. Nothing here decides: networks do (candy.relay.network), and Agreement.
 2. Of what is owed to NATS while that is away one thing is kept for each address and device.
 3. A record that can't be read is passed over, with one line in the log: one relay with another secret is no reason for
    all to end.
"""

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
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
from candy.protocol.addresses import ipv4
from candy.relay.cluster.agreement import (
    Agreement,
    DiffersError,
    HeldError,
    RefusedError,
    RepeatedError,
    UsedUpError,
)
from candy.relay.cluster.answering import Answering
from candy.relay.cluster.asking import Answer, Answers, Asking, ask_all
from candy.relay.cluster.digests import TIDY_S, Digests
from candy.relay.cluster.directory import Change, Directory
from candy.relay.cluster.entrances import Entrances
from candy.relay.cluster.jetstream import JetStream, ended, patiently
from candy.relay.cluster.ledger import AwayError, Bucket, Entry
from candy.relay.cluster.mesh import Mesh
from candy.relay.cluster.presence import BEAT_S, Presence
from candy.relay.cluster.quotas import EXCHANGE_S, Quotas
from candy.relay.cluster.records import (
    SECRET_LEAST,
    Common,
    Credential,
    Envelope,
    FormatError,
    Grant,
    Record,
    Redeemable,
    RelayRecord,
    Reserved,
    grant_key,
    reserved_key,
    word,
)
from candy.relay.cluster.shared import Shared
from candy.relay.clustersettings import ClusterSettings
from candy.relay.enrolment import AGAIN_S, Device, Standing
from candy.relay.keys import number_of
from candy.relay.limits import month_of
from candy.relay.network import Network
from candy.relay.networksettings import NetworkSettings
from candy.relay.passwords import Password
from candy.relay.recording import Outcome, Wanted
from candy.relay.reservations import Reservation
from candy.relay.session import Action

FLUSH_S: Final = 0.01
"""How long a log-in waits for others to be told of with it."""
WRITE_S: Final = 1.0
LISTEN_S: Final = 1.5
"""How long a start listens for the beats of relays that run."""
UNREADABLE_MOST: Final = 100
"""Records that can't be read of which the log tells."""

log = logging.getLogger("candy.relay")

Decide = Callable[[Network, float, int], list[Action]]
_Of = TypeVar("_Of", bound=Record)
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
        self._news = asyncio.Event()
        self._tasks: set[asyncio.Task[object]] = set()
        self._unreadable: set[str] = set()
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
        return self._go(self._decide(path, wanted) if wanted is not None else self._write_devices())

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
        following = {Bucket.RELAYS: self._on_relay, Bucket.DEVICES: self._on_device, Bucket.GRANTS: self._on_grant}
        for bucket, follow in following.items():
            await patiently(partial(self._nats.follow, bucket, follow))
        own = number_of(name)
        if twin := next((other for other in self.relays if other != name and number_of(other) == own), None):
            # Members would take the key of the one for an old key of the other.
            raise OperationalError(f"cluster: the names {name} and {twin} give relays one number: choose another name")
        for shared in self.shares.values():
            await self._take_in(shared, shared.path not in known.record.imported)
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
            await self._nats.gather(Bucket.DEVICES, shared.word, self._on_device)
            await self._nats.gather(Bucket.GRANTS, shared.word, self._on_grant)
            await self._take_in(shared, imports)
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

    async def _take_in(self, shared: Shared, imports: bool) -> None:
        """What the relay's own file has and the cluster has not: it is the cluster's from now on, or nobody's."""
        wall, count = int(time.time()), 0
        for ip, holder in shared.unknown():
            if not imports or shared.revision(ip):
                shared.drop(ip)
                continue
            try:
                known = await self._agreement.claim(shared.path, ip, shared.grant(ip, holder, wall))
            except HeldError:
                shared.drop(ip)
                continue
            assert known.record is not None
            shared.learn(ip, known.record, known.revision)
            count += 1
        if imports:
            devices, invitations = shared.network.enrolment, shared.network.enrolment.invitations()
            for device in list(devices):
                shared.changed[device.key] = None
            for invitation in list(invitations):
                shared.changed[invitation.selector] = None
            for reservation in list(shared.network.pool.reservations.commanded()):
                shared.reserved.setdefault(int(reservation.address))
            await self._write_devices()
        if count:
            log.info("cluster: network %s: %d leases of this relay's file are the cluster's now", shared.path, count)

    # Decisions.

    async def _decide(self, path: str, wanted: Wanted) -> Outcome:
        shared = self.shares.get(path)
        if shared is None:
            # Its network is not served any more.
            return Outcome.AWAY
        # By the clock of what asked, or it would be asked again.
        enrolment, wall = shared.network.enrolment, shared.network.pool.leases.wall
        try:
            if wanted.digest is not None:
                await self._digests.spend(path, *wanted.digest)
            if wanted.selector:
                invitation = enrolment.invitation(wanted.selector)
                until = invitation.until + AGAIN_S if invitation is not None else 0
                known = await self._agreement.redeem(path, wanted.selector, wanted.device, wall, until)
                assert known.record is not None
                enrolment.learn(known.record.invitation())
            if wanted.device:
                if (device := enrolment.get(wanted.device)) is None:
                    # Another connection had brought it, and was not let in.
                    return Outcome.AWAY
                await self._enrol(shared, device)
            if wanted.ip is not None:
                await self._claim(shared, wanted.ip, wanted.holder, wanted.takes_from, wall)
        except RepeatedError:
            return Outcome.REPEATED
        except UsedUpError:
            return Outcome.USED_UP
        except HeldError:
            return Outcome.HELD
        except (AwayError, FormatError) as error:
            log.debug("cluster: not agreed on: %s", error)
            is_address_alone = wanted.digest is None and not wanted.device
            is_known = is_address_alone and shared.believe(wanted.ip, wanted.holder)
            return Outcome.KEPT if is_known else Outcome.AWAY
        return Outcome.KEPT

    async def _claim(self, shared: Shared, ip: int, holder: bytes, takes_from: bytes, wall: int) -> None:
        grant, before = shared.grant(ip, holder, wall), shared.holder(ip)
        try:
            known = await self._agreement.claim(shared.path, ip, grant, takes_from, shared.revision(ip))
        except HeldError:
            # So that it is not granted a second time.
            theirs = await self._agreement.read(Grant, grant_key(shared.path, ip))
            if theirs.record is not None:
                shared.learn(ip, theirs.record, theirs.revision)
            raise
        assert known.record is not None
        shared.learn(ip, known.record, known.revision)
        shared.granted(ip, holder, before, self._host.now())

    async def take(self, shared: Shared, ip: int) -> None:
        """Have the member here keep its address: another relay's, to which that was granted, was not there any more."""
        member = shared.network.member_at(ipv4(ip))
        if member is not None and member.vmac is not None:
            with suppress(RefusedError, AwayError, FormatError):
                await self._claim(shared, ip, member.vmac, shared.holder(ip), shared.network.pool.leases.wall)

    def decide(self, shared: Shared, decide: Decide) -> None:
        """Have a network decide, and carry that out, unless it is not served any more."""
        if self.shares.get(shared.path) is shared:
            self._host.decide_at(shared.path, decide)

    async def _enrol(self, shared: Shared, device: Device) -> None:
        found = await self._agreement.enrol(shared.path, device)
        if found != device:
            shared.network.enrolment.learn(found)
        shared.wrote(found)
        shared.changed.pop(device.key, None)

    async def _write_devices(self) -> Outcome:
        """What is new of devices and invitations."""
        try:
            for shared in list(self.shares.values()):
                enrolment = shared.network.enrolment
                for key in list(shared.changed):
                    device = enrolment.get(key)
                    invitation = enrolment.invitation(key)
                    if device is not None:
                        await self._enrol(shared, device)
                    elif invitation is not None:
                        await self._agreement.invite(shared.path, Redeemable.of(invitation))
                    shared.changed.pop(key, None)
        except (AwayError, FormatError) as error:
            log.debug("cluster: devices are not written: %s", error)
            return Outcome.AWAY
        return Outcome.KEPT

    # What others have written.

    def _on_grant(self, entry: Entry) -> None:
        name, _, address = entry.key.partition(".")
        shared = self._by_word.get(name)
        if shared is not None and (grant := self._opened(Grant, entry)) is not None:
            # Nobody else seals what can be opened, so the key is one of grant_key().
            shared.learn(int(IPv4Address(address)), grant, entry.revision)

    def _on_relay(self, entry: Entry) -> None:
        if (its := self._opened(RelayRecord, entry)) is not None:
            self.relays[entry.key] = its
            if self.mesh is not None:
                self.mesh.know(entry.key, its.url, its.key if its.is_running else "", its.epoch)

    def _on_device(self, entry: Entry) -> None:
        name, _, rest = entry.key.partition(".")
        shared = self._by_word.get(name)
        if shared is None:
            return
        try:
            if rest.startswith("invitation."):
                invitation = self._agreement.opened(Redeemable, entry).invitation()
                self._unchanged(shared, invitation.selector, lambda: shared.network.enrolment.learn(invitation))
            elif rest.startswith("reserved."):
                self._learn_reserved(shared, rest, self._agreement.opened(Reserved, entry))
            elif rest.startswith("device."):
                self.learn_device(shared, self._agreement.opened(Credential, entry).device())
        except FormatError as error:
            self._pass_over(error)

    def _learn_reserved(self, shared: Shared, key: str, record: Reserved) -> None:
        ip = int(key.rpartition(".")[2], 16)
        try:
            reservation = Reservation.of(IPv4Address(ip), record.device) if record.device else None
        except ValueError as error:
            raise FormatError(f"a reservation of {IPv4Address(ip)} {error}") from None
        # What was commanded here meanwhile is about to be written.
        if ip not in shared.reserved:
            self.decide(shared, lambda network, now, wall: network.reserved(ip, reservation, now))

    def learn_device(self, shared: Shared, device: Device) -> None:
        """Another relay has written this of a device, or is about to."""
        own = shared.network.enrolment.get(device.key)
        shared.wrote(device)
        if own is not None and own.standing is Standing.REVOKED and device.standing is not Standing.REVOKED:
            # It was revoked here while NATS was away, perhaps before this start: the others are yet to learn it.
            shared.changed[device.key] = None
            return

        def learn() -> None:
            self.decide(shared, lambda network, now, wall: network.learned(device, now, wall))

        self._unchanged(shared, device.key, learn)

    @staticmethod
    def _unchanged(shared: Shared, key: bytes, learn: Callable[[], None]) -> None:
        """What is learned is not written again."""
        was_changed = key in shared.changed
        learn()
        if not was_changed:
            shared.changed.pop(key, None)

    def _opened(self, kind: type[_Of], entry: Entry) -> _Of | None:
        try:
            return self._agreement.opened(kind, entry)
        except FormatError as error:
            self._pass_over(error)
            return None

    def _pass_over(self, error: FormatError) -> None:
        if str(error) not in self._unreadable and len(self._unreadable) < UNREADABLE_MOST:
            self._unreadable.add(str(error))
            log.warning("cluster: passed over: %s", error)

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
            self._pass_over(error)

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
                    await self._write(shared)
                await self._write_devices()

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

    async def _write(self, shared: Shared) -> None:
        wall = int(time.time())
        for ip, holder in list(shared.owed.items()):
            await self._agreement.release(shared.path, ip, holder, wall)
            shared.owed.pop(ip, None)
        for ip, holder in shared.unconfirmed(self._host.now()):
            await self._agreement.release(shared.path, ip, holder, wall)
        for ip in list(shared.reserved):
            await self._write_reserved(shared, ip)
        for ip, holder in shared.aged(wall):
            with suppress(RefusedError):
                await self._claim(shared, ip, holder, b"", wall)

    async def _write_reserved(self, shared: Shared, ip: int) -> None:
        kept = shared.network.pool.reservations.commanded_at(ip)
        wanted = Reserved("" if kept is None else kept.device)
        await self._agreement.update(
            Reserved, reserved_key(shared.path, ip), lambda current: None if current == wanted else wanted
        )
        if shared.network.pool.reservations.commanded_at(ip) == kept:
            shared.reserved.pop(ip, None)

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
