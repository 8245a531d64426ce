"""Who gets an address that an AUTH claims: the decision, and the probes that it waits for.

    decide(newcomer) ─▶ Step, Step … ─▶ candy.relay.network carries them out, in order
          ▲                  │
          │                Ask: is its holder still there?
          └── left() ────── probes ───── answered(), unanswered()

By these rules, in this order:
 0. The address is the relay's own: the newcomer is refused.
 1. It is reserved for another device, or was just granted to another connection with another VMAC (or none) and is not
    leased to the newcomer's: the newcomer is refused. A name counts as soon as the newcomer has said its own.
    Nor does it get what is leased to a device with a key, connected or not: unless that is its own key, was revoked, or
    the pool has granted the address to it by a key of its own, since no other was left.
 2. It is free: the newcomer gets it, and its lease from whatever device has that.
 3. It is held by a member with the same VMAC: one installation came back, and replaces its old connection at once. (So
    do two clients of one host that share a VMAC and insist on one address.)
 4. It is held by a member with another VMAC, or none: the holder is probed with a PING while the newcomer waits, which
    the newcomer doesn't notice, because an AUTH is never answered. A PONG within the probe's time refuses the newcomer,
    silence replaces the holder. When the holder leaves meanwhile, the newcomer gets the address.
 5. While one newcomer waits, a third is refused at once, unless it has the VMAC of the one waiting: then it takes that
    one's place, and its remaining time.
 6. Where several relays serve the network, an address that a member of another one has is free to that member's own
    installation. For any other that relay probes its member, by rule 4, and says what came of it.

Who logs in with a key comes twice: with message 1, and when it has confirmed the answer. Only then it takes its address
from itself. Everything said of a VMAC holds for a key.

One VMAC that takes its address from itself twice within a minute is on two machines: a copied disk or state folder.
That is worth a warning, for neither of the two can know it at first. It is not where one program says of itself
(candy.carrier.handover, INSTANCE) that both connections are its own, as one does whose way to the relay changes.

Nothing here changes a session, or ends one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from candy.protocol.actions import Log, Ping
from candy.protocol.closing import CloseCode
from candy.relay.leases import identity
from candy.relay.realm import Realm
from candy.relay.replacements import REPLACED_AGAIN_S, Replacements
from candy.relay.session import Action, Session

ELSEWHERE_S = 2.0
"""How much longer than a probe of this relay's one of another's may take."""
PROBE_PREFIX = b"candy-probe:"
"""What a probe's payload begins with; 8 random bytes follow, so that a late PONG answers no later probe."""


@dataclass(frozen=True, slots=True)
class Admit:
    """The session gets the address."""

    session: Session


@dataclass(frozen=True, slots=True)
class Wait:
    """The session waits for the address until then, in the seconds of `now`."""

    session: Session
    until: float


@dataclass(frozen=True, slots=True)
class Refuse:
    """The session's log-in ends; `why` is for the log, `told` for the member."""

    session: Session
    why: str
    told: str


@dataclass(frozen=True, slots=True)
class Replace:
    """The member loses the address, and its connection; `why` is for the log, `told` for the member."""

    session: Session
    why: str
    code: CloseCode
    told: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Another relay has a member at this address: have it asked whether that is still there."""

    ip: int
    relay: str


Step = Admit | Wait | Refuse | Replace | Ask | Ping | Log


@dataclass(slots=True)
class _Probe:
    """A PING to the holder of an address, and the session that waits for the address."""

    holder: Session | None
    """None: it is at another relay, which has been asked."""
    waiting: Session
    payload: bytes
    until: float
    relay: str = ""
    """That one."""


class Claims:
    """See above.

    Args:
        sessions: the network's, by connection.
        probe_timeout: seconds that the holder of an address has to answer a probe.
    """

    def __init__(self, realm: Realm, sessions: Mapping[int, Session], probe_timeout: float) -> None:
        self._realm = realm
        self._sessions = sessions
        self.probe_timeout = probe_timeout
        self._probes: dict[IPv4Address, _Probe] = {}
        self._asked: dict[bytes, tuple[Session, Callable[[], None]]] = {}
        """By the payload of a PING for another relay: who got it, and what to call when it answers."""
        self._replacements = Replacements()

    def decide(self, session: Session, now: float) -> list[Step]:
        """By the rules at the top of this file, which the numbers refer to."""
        ip = session.ip
        pool = self._realm.pool
        if not pool.may_claim(ip, session.vmac):  # 1
            return _refuse(session, f"{ip} is reserved for another device")
        if pool.is_offered_to_another(ip, session.vmac, session.connection, now):  # 1
            return _refuse(session, f"{ip} was granted to another member that is about to log in")
        pool.leases.expire()
        if pool.is_anothers_by_key(int(ip), session.vmac, was_granted=session.was_granted):  # 1
            return _refuse(session, f"{ip} is leased to a device with a key of its own")
        shared = self._realm.shared
        if shared is not None and (other := shared.elsewhere(int(ip))) is not None and other.identity != session.vmac:
            return self._ask(session, other.relay, now)  # 6
        connection = pool.holder(ip)
        if connection is None:  # 2
            return [Admit(session)]
        if connection == self._realm.host:  # 0
            return [Refuse(session, f"{ip} is this relay's own", f"{ip} is the relay's own")]
        holder = self._sessions[connection]
        if _is_same_installation(session, holder) and not session.is_confirmed:
            # It replaces nobody before it has shown that it can read the answer.
            return [Admit(session)]
        if _is_same_installation(session, holder):  # 3
            return self._come_back(session, holder, now)
        probe = self._probes.get(ip)
        return self._probe(session, holder, now) if probe is None else self._queue(session, probe)  # 4, 5

    def _queue(self, session: Session, probe: _Probe) -> list[Step]:
        """Another session waits for the address already."""
        ip = session.ip
        if not _is_same_installation(session, probe.waiting):  # 5
            return _refuse(session, f"another newcomer waits for {ip} already")
        older, probe.waiting = probe.waiting, session
        return [
            Wait(session, probe.until),
            *_refuse(older, f"the same member waits for {ip} on a newer connection"),
        ]

    def _ask(self, session: Session, relay: str, now: float) -> list[Step]:
        ip = session.ip
        if (probe := self._probes.get(ip)) is not None:
            return [] if probe.waiting is session else self._queue(session, probe)
        until = now + self.probe_timeout + ELSEWHERE_S
        self._probes[ip] = _Probe(None, session, b"", until, relay)
        log = session.line("debug", f"{ip} is held at the relay {relay}: asking whether its member is still there")
        return [Wait(session, until), Ask(int(ip), relay), log]

    def probed(self, ip: IPv4Address, *, is_there: bool) -> list[Step]:
        """What the other relay has said of its member. One that is not there has left, which its relay says as well."""
        probe = self._probes.get(ip)
        if probe is None or probe.holder is not None or not is_there:
            return []
        del self._probes[ip]
        told = f"{ip} is held by a member at the relay {probe.relay}"
        return _refuse(probe.waiting, f"{told}, which answers", told)

    def ask(self, holder: Session, answered: Callable[[], None]) -> tuple[bytes, list[Action]]:
        """Another relay wants to know whether a member is still there: the payload of a PING to it, for forget()."""
        payload = PROBE_PREFIX + self._realm.randbytes(8)
        self._asked[payload] = holder, answered
        return payload, [Ping(holder.connection, payload)]

    def forget(self, payload: bytes) -> Session | None:
        """Nobody waits for the answer to that PING any more; who got it."""
        return self._asked.pop(payload, (None, None))[0]

    def silent(self, holder: Session, relay: str) -> list[Step]:
        """It has not answered, and another relay has a member for its address."""
        told = f"another member got {holder.ip}, because this one did not answer a ping"
        log = f"at the relay {relay}, because it did not answer a ping"
        return [Replace(holder, log, CloseCode.UNANSWERED, told)]

    def answered(self, holder: Session, payload: bytes) -> list[Step]:
        """A PONG of a session, which may answer a probe."""
        asked, answered = self._asked.get(payload, (None, None))
        if asked is holder and answered is not None:
            answered()
        probe = self._probes.get(holder.ip)
        if probe is None or probe.holder is not holder or probe.payload != payload:
            return []
        del self._probes[holder.ip]
        told = f"{holder.ip} is held by another member, which answers"
        return [Refuse(probe.waiting, f"{holder.ip} is held by {holder.source}, which answers", told)]

    def unanswered(self, session: Session) -> list[Step]:
        """The time of the probe is over that this session waits for. Decide its claim again behind these steps, unless
        they refuse it."""
        probe = self._probes.pop(session.ip)
        holder = probe.holder
        if holder is None:
            told = f"{session.ip} is held by a member at the relay {probe.relay}"
            return _refuse(session, f"{told}, which did not say whether it is there", told)
        told = f"another member got {session.ip}, because this one did not answer a ping"
        log = f"by {session.source}, because it did not answer a ping"
        return [Replace(holder, log, CloseCode.UNANSWERED, told)]

    def left(self, ip: IPv4Address) -> Session | None:
        """The holder of the address has left, or the session that waits for it: the latter, to decide its claim again
        in the first case."""
        probe = self._probes.pop(ip, None)
        return None if probe is None else probe.waiting

    def _come_back(self, session: Session, holder: Session, now: float) -> list[Step]:
        ip = session.ip
        steps: list[Step] = []
        probe = self._probes.pop(ip, None)
        if probe is not None:
            steps += _refuse(probe.waiting, f"{ip} was taken back by its holder")
        assert session.vmac is not None
        what = identity(session.vmac)
        told = f"another connection with the same {what} took {ip} over"
        why = f"by {session.source}, which has the same {what}"
        steps.append(Replace(holder, why, CloseCode.REPLACED, told))
        # A program may replace a connection of its own as often as its way to the relay changes.
        if session.instance == 0 or session.instance != holder.instance:
            steps += self._note_replacement(session, now)
        return [*steps, Admit(session)]

    def _probe(self, session: Session, holder: Session, now: float) -> list[Step]:
        payload = PROBE_PREFIX + self._realm.randbytes(8)
        until = now + self.probe_timeout
        self._probes[session.ip] = _Probe(holder, session, payload, until)
        log = session.line("debug", f"{session.ip} is held by {holder.source}: asking whether it is still there")
        return [Wait(session, until), Ping(holder.connection, payload), log]

    def _note_replacement(self, session: Session, now: float) -> list[Step]:
        """A warning, if this VMAC replaced itself a short while ago as well."""
        assert session.vmac is not None
        if not self._replacements.is_again(session.vmac, now):
            return []
        doubt = f"two machines use this {identity(session.vmac)}: remove its file from the state folder of one of them"
        text = f"replaced {session.ip} again within {REPLACED_AGAIN_S:g} s: {doubt}"
        return [session.did("replaced again", text, "warning")]


def _refuse(session: Session, why: str, told: str = "") -> list[Step]:
    return [Refuse(session, why, told or why)]


def _is_same_installation(one: Session, other: Session) -> bool:
    return one.vmac is not None and one.vmac == other.vmac
