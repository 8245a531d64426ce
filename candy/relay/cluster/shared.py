"""What a relay knows of one network that it serves together with others, and what it owes them.

    grants, places of members ─▶ learn(), moved() ─▶ Leases, Network          wanted ◀── is_settled(), elsewhere()
    came(), went(), leases that end ─▶ the directory, `owed` ─▶ candy.relay.cluster.cluster

Rules:
 1. A grant is a lease at every relay. The relay that has the device keeps it up to date; a lease that ends here is
    released for all, unless its device is at another relay.
 2. A device that comes to another relay than before has its grant written anew there: the higher revision counts. While
    NATS is away it comes in by the grant that it has.
 3. Two relays have one address: the one with the later grant keeps it, if its member answers a probe.

No I/O and no clock.
"""

from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from typing import Final, NamedTuple

from candy.protocol.addresses import ipv4
from candy.protocol.login import Asks
from candy.relay.cluster.directory import Directory, Place
from candy.relay.cluster.quotas import Quotas
from candy.relay.cluster.records import Grant, word
from candy.relay.enrolment import Device
from candy.relay.leases import DAY_S, LeaseRow
from candy.relay.network import Network
from candy.relay.recording import Elsewhere, Presented
from candy.relay.session import Action

CONFIRM_S: Final = 60.0
"""How long who was granted an address may take to come."""

Decide = Callable[[Network, float, int], list[Action]]
"""With `now` and `wall`."""


class _Known(NamedTuple):
    """A grant as it was read last, as far as no lease has it."""

    revision: int
    holder: bytes
    relay: str
    seen: int


class Shared:
    """See the rules above; a Sharing.

    Args:
        path: the network's.
        relay: this one's name.
        is_up: whether NATS can be asked.
        told: called when the directory has news.
        ask: has a relay probe its member at an address.
        contest: called when a relay has a member at an address at which another one is here.
    """

    def __init__(
        self,
        path: str,
        network: Network,
        directory: Directory,
        relay: str,
        is_up: Callable[[], bool],
        told: Callable[[], None],
        ask: Callable[["Shared", int, str], None],
        contest: Callable[["Shared", int, str], None],
        quotas: Quotas,
    ) -> None:
        self.path = path
        self.word = word(path)
        self.network = network
        self._directory = directory
        self._relay = relay
        self._is_up = is_up
        self._told = told
        self._ask = ask
        self._contest = contest
        self._quotas = quotas
        self._grants: dict[int, _Known] = {}
        self._is_learning = False
        self.placed: Callable[[int], None] = lambda ip: None
        """Told of addresses to which a member has come, or from which one has gone."""
        self.owed: dict[int, bytes] = {}
        """Addresses whose leases have ended here, and the devices that had them."""
        self.changed: dict[bytes, None] = {}
        """Keys and selectors of what is new of devices and invitations."""
        self.reserved: dict[int, None] = {}
        """Addresses that are reserved or released by command, which is not written yet."""
        self._believed: dict[int, bytes] = {}
        """Whom a member here is taken for by a grant that could not be written anew."""
        self._unconfirmed: dict[int, tuple[bytes, float]] = {}
        """Addresses that were granted here to somebody who has not come yet, and when that is too late."""
        self._written: dict[bytes, Device] = {}
        """Devices as the others know them, by their keys."""
        # From a place of this relay's own, so that two seldom grant one address.
        network.pool.begin_at(int.from_bytes(blake2b(f"{relay}{path}".encode(), digest_size=8).digest(), "big"))
        network.pool.leases.watch(self._on_lease)
        network.enrolment.watch(self._on_enrolment)
        network.pool.reservations.watch(self._on_reservation)
        network.share(self)

    # What the network asks and tells.

    def is_settled(self, ip: int, holder: bytes) -> bool:
        known = self._grants.get(ip)
        if known is None or known.holder != holder:
            return False
        is_fresh = known.relay == self._relay and known.seen + DAY_S > self.network.pool.leases.wall
        return is_fresh or self._believed.get(ip) == holder or not self._is_up()

    def is_written(self, device: Device) -> bool:
        written = self._written.get(device.key)
        return written is not None and replace(written, has_come=device.has_come) == device

    def elsewhere(self, ip: int) -> Elsewhere | None:
        found = self._directory.elsewhere((self.word, ip))
        if found is None:
            return None
        relay, place = found
        return Elsewhere(relay, place.identity, place.lease, Asks(place.flags), place.commit_bytes, place.device)

    def ask(self, ip: int, relay: str) -> None:
        self._ask(self, ip, relay)

    def used_elsewhere(self, ip: int, holder: bytes, month: int) -> int:
        return self._quotas.elsewhere(self.word, ip, holder, month)

    def came(self, member: Presented) -> None:
        self._unconfirmed.pop(member.ip, None)
        known = self._grants.get(member.ip)
        # Of a grant that is another's its own is not later.
        revision = known.revision if known is not None and known.holder == member.identity else 0
        own = (member.commit_bytes, member.lease, member.device, member.identity)
        self._directory.set((self.word, member.ip), Place(revision, int(member.flags), *own))
        self._told()
        self.placed(member.ip)
        found = self._directory.elsewhere((self.word, member.ip))
        if found is not None and found[1].identity != member.identity:
            self._contest(self, member.ip, found[0])

    def went(self, ip: int) -> None:
        self._believed.pop(ip, None)
        self._directory.set((self.word, ip), None)
        self._told()
        self.placed(ip)

    # What others have written.

    def learn(self, ip: int, grant: Grant, revision: int) -> None:
        """A grant, as it is now."""
        known = self._grants.get(ip)
        if known is not None and revision <= known.revision:
            return
        self._grants[ip] = _Known(revision, grant.holder, grant.relay, grant.seen)
        self._believed.pop(ip, None)
        member = self.network.member_at(ipv4(ip))
        is_own = member is not None and member.vmac == grant.holder
        if is_own and grant.relay == self._relay:
            assert member is not None
            # Its generation has risen.
            self.came(member.presented())
        self.owed.pop(ip, None)
        self._is_learning = True
        try:
            if grant.is_free:
                if member is None:
                    self.network.pool.leases.end(ip)
            else:
                self.network.pool.leases.learn(row(ip, grant))
        finally:
            self._is_learning = False
        if member is not None and not grant.is_free and not is_own:
            self._contest(self, ip, grant.relay)

    def wrote(self, device: Device) -> None:
        """The others know it so."""
        self._written[device.key] = device

    def moved(self, ip: int, now: float) -> list[Action]:
        """Another relay says that it has a member at this address."""
        found, member = self._directory.elsewhere((self.word, ip)), self.network.member_at(ipv4(ip))
        if found is None or member is None:
            return []
        if found[1].identity == member.vmac:
            return self.network.lost(ip, found[0], now)
        self._contest(self, ip, found[0])
        return []

    def grant(self, ip: int, holder: bytes, wall: int) -> Grant:
        """What is to be written for a device that gets this address here."""
        lease = self.network.pool.leases.get(ip)
        if lease is None or lease.vmac != holder:
            hello = self.network.pool.leases.hello_of(holder)
            return Grant(holder, self._relay, wall, wall, hello.name, hello.os, hello.version)
        hello = lease.hello
        said = (hello.name, hello.os, hello.version, lease.source, lease.number)
        return Grant(holder, self._relay, max(wall, lease.last_seen), lease.first_seen, *said)

    def believe(self, ip: int | None, holder: bytes) -> bool:
        """Whether a device may have an address by the grant that is known, while nobody can be asked. That it is here
        is written later: see aged()."""
        if ip is None or not holder or self.holder(ip) != holder:
            return False
        self._believed[ip] = holder
        return True

    def granted(self, ip: int, holder: bytes, before: bytes, now: float) -> None:
        """An address is a device's by a grant of this relay's; `before` it was another's, or nobody's."""
        if holder != before:
            self._unconfirmed[ip] = holder, now + CONFIRM_S

    def unconfirmed(self, now: float) -> list[tuple[int, bytes]]:
        """Of these, those who did not come: address and device."""
        due = [(ip, holder) for ip, (holder, until) in self._unconfirmed.items() if until <= now]
        under_way = {(int(each.ip), each.vmac) for each in self.network.sessions} if due else set()
        for ip, holder in due:
            if (ip, holder) in under_way:
                self._unconfirmed[ip] = holder, now + CONFIRM_S
            else:
                del self._unconfirmed[ip]
        return [(ip, holder) for ip, holder in due if ip not in self._unconfirmed and self.elsewhere(ip) is None]

    def holder(self, ip: int) -> bytes:
        """Whose an address is, as far as is known; empty: nobody's."""
        known = self._grants.get(ip)
        return b"" if known is None else known.holder

    def revision(self, ip: int) -> int:
        """Of what is known of an address; 0: nothing."""
        known = self._grants.get(ip)
        return 0 if known is None else known.revision

    def unknown(self) -> list[tuple[int, bytes]]:
        """Leases of this relay's own file that no grant has: address and device."""
        return [(lease.ip, lease.vmac) for lease in self.network.pool.leases if not self._has(lease.ip, lease.vmac)]

    def drop(self, ip: int) -> None:
        """A lease of this relay's own file is nobody's any more."""
        self._is_learning = True
        try:
            self.network.pool.leases.end(ip)
        finally:
            self._is_learning = False

    def aged(self, wall: int) -> list[tuple[int, bytes]]:
        """Members here whose grants were not written for a day."""
        return [
            (int(session.ip), session.vmac)
            for session in self.network.sessions
            if session.is_member and session.vmac is not None and self._is_aged(int(session.ip), wall)
        ]

    def _has(self, ip: int, holder: bytes) -> bool:
        known = self._grants.get(ip)
        return known is not None and known.holder == holder

    def _is_aged(self, ip: int, wall: int) -> bool:
        known = self._grants.get(ip)
        return known is None or known.relay != self._relay or known.seen + DAY_S <= wall

    def _on_lease(self, ip: int) -> None:
        if self._is_learning:
            return
        known, lease = self._grants.get(ip), self.network.pool.leases.get(ip)
        if lease is not None or known is None or not known.holder or self.elsewhere(ip) is not None:
            self.owed.pop(ip, None)
        else:
            self.owed[ip] = known.holder

    def _on_reservation(self, ip: int) -> None:
        self.reserved[ip] = None

    def _on_enrolment(self, key: bytes) -> None:
        self.changed[key] = None


def row(ip: int, grant: Grant) -> LeaseRow:
    """A grant as a lease that another relay has."""
    said = (grant.name, grant.os, grant.version, grant.since, grant.seen, grant.source)
    return LeaseRow(ip, grant.holder, *said, 0, 0, 0, 0, grant.number)
