"""What the members of a network are told: which routes they have, what lies behind whom, and each other's keys.

    newcomer ─▶ welcome(): TELL of its next hops, BEHIND, ROUTE       rules change ─▶ follow_behind(), follow_routes()
    set_relays() ─▶ RELAYS, to newcomers as well
    ASK ─▶ answer(): TELL, and to who was asked about TELL of the asker
    an address changes ─▶ changed() ─▶ due: catch_up(): TELL          a device is revoked, a key renewed ─▶ to all

Rules:
 1. What is told within CONTROL goes to members with a key alone; the adapter seals it.
 2. Who asked about an address is told every change of it (candy.relay.interests), TELLS_AT_ONCE members each PAUSE_S,
    so that one that comes and goes again and again costs no more than that. A revocation waits for nothing. Who was
    asked about is told of the asker at once, of up to ASKERS_AT_ONCE within PAUSE_S; of more it is owed.
 3. By which relays members reach the network is told to members with a key, TELLS_AT_ONCE messages each PAUSE_S.
 4. A gateway is told what lies behind whom, and so is a member with a key that has a route.

No I/O; nothing here decides who is in.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from ipaddress import IPv4Address
from math import inf
from typing import Final

from candy.protocol import control
from candy.protocol.actions import Drop, Send
from candy.protocol.addresses import ipv4
from candy.protocol.control import Peer, Tell
from candy.protocol.control import State as Told
from candy.protocol.login import Asks
from candy.protocol.noise import KEY_BYTES
from candy.protocol.wire import DropReason
from candy.relay import lines
from candy.relay.enrolment import Standing
from candy.relay.interests import Interests
from candy.relay.keyed import KeyedSession
from candy.relay.leases import fresh_number
from candy.relay.realm import Realm
from candy.relay.recording import Elsewhere
from candy.relay.rules import Rules, behind_messages, messages
from candy.relay.session import Session
from candy.sealing.joined import Own

PAUSE_S: Final = 0.1
TELLS_AT_ONCE: Final = 500
ASKERS_AT_ONCE: Final = 4


class Telling:
    """See the rules above.

    Args:
        sessions: the network's, by connection.
        tells_gateways: what lies behind whom.
    """

    def __init__(self, realm: Realm, sessions: Mapping[int, Session], *, tells_gateways: bool) -> None:
        self._realm = realm
        self._sessions = sessions
        self._tells_gateways = tells_gateways
        self._interests = Interests()
        self._last_s = -inf
        """When somebody was told what was owed."""
        self._askers: Counter[int] = Counter()
        """Those told at once since `_askers_s`, by the connection that was asked about."""
        self._askers_s = -inf
        self._relays: list[bytes] = []
        """What tells of those; nothing where the relay is alone."""
        self._untold: dict[int, None] = {}
        """Connections of members who have heard of others."""
        self._numbers: dict[int, bytes] = {}
        """In place of a lease's, of connections that have none."""
        realm.pool.leases.watch(self.changed)

    # Routes, and what lies behind whom.

    def welcome(self, session: Session) -> list[Send]:
        """To one that has just become a member."""
        entries = self._realm.rules.entries(session.ip)
        # "ROUTE messages follow if SD-WAN rules concern this address": the member has no older set to withdraw.
        routes = messages(entries, session.extended) if entries else []
        relays = self._relays if isinstance(session, KeyedSession) else []
        return [*self._tell_behind(session, None), *_to(session, [*routes, *relays])]

    def set_relays(self, urls: Sequence[str]) -> None:
        """By these members reach the network's relays, this one among them; catch_up() tells it."""
        self._relays = control.relays_messages(urls)
        members = (each for each in self._sessions.values() if isinstance(each, KeyedSession) and each.is_member)
        self._untold = dict.fromkeys(each.connection for each in members)

    def follow_behind(self, session: Session, before: Rules) -> list[Send]:
        """To a member, when the rules have changed: what lies behind whom. Gateways need it before others send them
        what is new."""
        return self._tell_behind(session, before)

    def follow_routes(self, session: Session, before: Rules) -> list[Send] | None:
        """To a member, when the rules have changed: its routes; None: it can't be told on this connection."""
        entries = self._realm.rules.entries(session.ip)
        # As sets: no two entries of a member overlap, so their order means nothing.
        if set(entries) == set(before.entries(session.ip)):
            return []
        return _to(session, messages(entries, extended=True)) if session.extended else None

    def _tell_behind(self, session: Session, before: Rules | None) -> list[Send]:
        """Unless it was told so before; one that it concerns no more is told nothing, which takes it back."""
        rules = self._realm.rules
        is_concerned = self._is_concerned(session, rules)
        was_concerned = before is not None and self._is_concerned(session, before)
        if not self._tells_gateways or not session.extended or not (is_concerned or was_concerned):
            return []
        if was_concerned and is_concerned and before is not None and set(before.rules) == set(rules.rules):
            return []
        placements = rules.placements if is_concerned else ()
        has_keys = isinstance(session, KeyedSession)
        hops = {entry.next_hop for entry in rules.entries(session.ip)} if has_keys else ()
        for hop in hops:
            self._interests.hear(session.connection, int(hop))
        told = _to(session, behind_messages(placements, has_keys=has_keys))
        return [*self._tell(session.connection, map(int, hops)), *told]

    @staticmethod
    def _is_concerned(session: Session, rules: Rules) -> bool:
        if rules.lans(session.ip):
            return True
        return isinstance(session, KeyedSession) and bool(rules.entries(session.ip))

    # Keys.

    def answer(self, session: KeyedSession, ask: control.Ask, now: float) -> list[Send | Drop]:
        """To a member's ASK."""
        if not session.may_ask(len(ask.addresses), now):
            return [Drop(session.connection, DropReason.ASK_LIMIT)]
        if now - self._askers_s >= PAUSE_S:
            self._askers_s = now
            self._askers.clear()
        return [*self._answer(session.connection, session.ip, ask)]

    def answer_own(self, ask: control.Ask) -> list[Send]:
        """To the ASK of the relay's own interface."""
        host = self._realm.host
        assert host is not None
        return [*self._answer(host, self._realm.pool.address_of(host), ask)]

    def seal_own(self, own: Own) -> bytes:
        """The relay's own interface seals from now on as this says; the number that its lease would have."""
        self._realm.own = own
        host = self._realm.host
        assert host is not None
        self.changed(int(self._realm.pool.address_of(host)))
        return self._number_of(host)

    def _answer(self, connection: int, asker: IPv4Address, ask: control.Ask) -> Iterator[Send]:
        addresses = list(dict.fromkeys(map(int, ask.addresses)))
        for address in addresses:
            self._interests.ask(connection, address)
        yield from self._tell(connection, addresses)
        for address in addresses:
            about = self._sealing(address)
            if about is None or about == connection or not self._interests.hear(about, int(asker)):
                continue
            self._askers[about] += 1
            if self._askers[about] <= ASKERS_AT_ONCE:
                yield from self._tell(about, [int(asker)])
            else:
                self._interests.owe(about, int(asker))

    def _sealing(self, address: int) -> int | None:
        """The connection of who seals there; None: nobody."""
        realm, session = self._realm, self._holder(address)
        if session is None:
            is_own = realm.host is not None and realm.pool.holder(IPv4Address(address)) == realm.host
            return realm.host if is_own and _seals(realm.own) else None
        return session.connection if isinstance(session, KeyedSession) and session.takes_sealed else None

    def changed(self, address: int) -> None:
        """Another member has the address, or none has, or its lease is another's."""
        self._interests.changed(address)

    def left(self, session: Session) -> None:
        """Its connection is forgotten."""
        self._interests.forget(session.connection)
        self._untold.pop(session.connection, None)
        self._numbers.pop(session.connection, None)

    @property
    def due(self) -> float:
        """When catch_up() has to be called."""
        return self._last_s + PAUSE_S if self._interests.owes or self._untold else inf

    def catch_up(self, now: float) -> list[Send]:
        """Tell what is owed."""
        if self.due > now:
            return []
        self._last_s = now
        owed = self._interests.owed(TELLS_AT_ONCE, Tell.MOST)
        told = [send for connection, addresses in owed for send in self._tell(connection, addresses)]
        for connection in [*self._untold][: TELLS_AT_ONCE // max(len(self._relays), 1)]:
            del self._untold[connection]
            told += [Send(connection, message) for message in self._relays]
        return told

    def revoked(self, key: bytes) -> list[Send]:
        """To all members: this device's key is none any more."""
        device = self._realm.enrolment.get(key)
        number = device.number if device is not None else 0
        peers = [
            Peer(IPv4Address(lease.ip), Told.REVOKED, 0, lease.number or bytes(8), 0, key, number)
            for lease in self._realm.pool.leases.of(key)
        ]
        peers = peers or [Peer(lines.UNSPECIFIED, Told.REVOKED, key=key, device=number)]
        # Who waits for approval has no sessions, and need not know who is where.
        return self.to_all([Tell(batch).encode() for batch in _batches(peers, Tell.MOST)], members=True)

    def to_all(self, told: Sequence[bytes], *, members: bool = False) -> list[Send]:
        """Everybody with a key who has confirmed, or members alone, and the relay's own interface."""
        own = [Send(self._realm.host, message) for message in told] if self._realm.host is not None else []
        return [
            send
            for session in self._sessions.values()
            if isinstance(session, KeyedSession) and session.is_confirmed and (session.is_member or not members)
            for send in _to(session, told)
        ] + (own if self._realm.own is not None else [])

    def _tell(self, connection: int, addresses: Iterable[int]) -> Iterator[Send]:
        peers = [self._peer(address, self._interests.has_asked(connection, address)) for address in addresses]
        for batch in _batches(peers, Tell.MOST):
            yield Send(connection, Tell(batch).encode())

    def _holder(self, address: int) -> Session | None:
        """The member that has it."""
        connection = self._realm.pool.holder(ipv4(address))
        return None if connection is None else self._sessions.get(connection)

    def _peer(self, address: int, is_asked: bool) -> Peer:
        """What is known of an address."""
        flags = 0 if is_asked else Peer.UNASKED
        session = self._holder(address)
        if session is None or not session.is_member:
            return self._absent(address, flags)
        number = self._number(session)
        if not isinstance(session, KeyedSession):
            return Peer(session.ip, Told.CLEAR, flags, number)
        assert session.vmac is not None
        device = self._realm.enrolment.get(session.vmac)
        return Peer(
            session.ip,
            Told.SEALS if session.takes_sealed else Told.CLEAR,
            flags | session.flags,
            number,
            session.commit_bytes,
            session.vmac,
            device.number if device is not None else 0,
        )

    def _absent(self, address: int, flags: int) -> Peer:
        """One that nobody has at present, or the relay's own interface."""
        ip, host = IPv4Address(address), self._realm.host
        if host is not None and self._realm.pool.holder(ip) == host:
            number, own = self._number_of(host), self._realm.own
            if own is None:
                return Peer(ip, Told.CLEAR, flags, number)
            state = Told.SEALS if _seals(own) else Told.CLEAR
            return Peer(ip, state, flags | own.flags, number, own.commit_bytes, own.device.public)
        shared, lease = self._realm.shared, self._realm.pool.leases.get(address)
        if shared is not None and (other := shared.elsewhere(address)) is not None:
            return self._elsewhere(ip, other, flags)
        if lease is None:
            return Peer(ip, Told.NOBODY, flags)
        number = lease.number or bytes(8)
        if len(lease.vmac) != KEY_BYTES:
            return Peer(ip, Told.AWAY, flags, number)
        device = self._realm.enrolment.get(lease.vmac)
        is_revoked = device is not None and device.standing is Standing.REVOKED
        state = Told.REVOKED if is_revoked else Told.AWAY
        return Peer(ip, state, flags, number, 0, lease.vmac, device.number if device is not None else 0)

    def _elsewhere(self, ip: IPv4Address, other: Elsewhere, flags: int) -> Peer:
        """A member of another relay's, as that one has said."""
        if len(other.identity) != KEY_BYTES:
            # Whatever it is called by, it is another one than any before.
            number = other.lease if any(other.lease) else blake2b(other.identity + ip.packed, digest_size=8).digest()
            return Peer(ip, Told.CLEAR, flags, number)
        seals = not other.flags & Asks.SEALS_NOTHING
        own = (other.lease, other.commit_bytes, other.identity, other.device)
        return Peer(ip, Told.SEALS if seals else Told.CLEAR, flags | other.flags, *own)

    def _number(self, session: Session) -> bytes:
        lease = session.lease
        if lease is not None:
            return lease.number or self._realm.pool.leases.number(lease, fresh_number(self._realm.randbytes))
        if isinstance(session, KeyedSession):
            return session.lease_number
        return self._number_of(session.connection)

    def _number_of(self, connection: int) -> bytes:
        if connection not in self._numbers:
            self._numbers[connection] = fresh_number(self._realm.randbytes)
        return self._numbers[connection]


def _seals(own: Own | None) -> bool:
    return own is not None and not own.flags & Asks.SEALS_NOTHING


def _to(session: Session, told: Iterable[bytes]) -> list[Send]:
    return [Send(session.connection, message) for message in told]


def _batches(peers: Sequence[Peer], most: int) -> list[tuple[Peer, ...]]:
    return [tuple(peers[at : at + most]) for at in range(0, len(peers), most)]
