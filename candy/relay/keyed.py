"""One connection of a member that logs in with a key: what differs from candy.relay.session.

    GREETING ──LOGIN──▶ CLAIMING ──granted()──▶ RECORDING ──recorded()──▶ ANSWERED ──CONFIRM──▶ CLAIMING ──▶ MEMBER
        │      IN_LINE     │ WAITING                └── nothing new ──────▶   │
        │                  │                                                 └── it waits for approval ─▶ APPROVING
        ▼ proves nothing   ▼ refused: in message 2                         ▼ refused: CLOSING, CLOSE
      CLOSED ◀─────────────┴───────────────────────────────────────────────┘

Rules:
 1. The first message is a LOGIN, and there is no second. Who proves nothing is told nothing. Who has proven a
    credential is told everything, in message 2; behind that in CLOSING.
 2. Message 1 alone takes nothing from anybody: it may be forged by who has the relay's key. The address is kept, and
    bound with CONFIRM.
 3. What a device is let in by is written down before message 2 goes out. Where it can't be, an invitation is refused,
    and a password gives no credential.
 4. In place of the VMAC stands the key (candy.relay.leases).
"""

from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from math import inf

from candy.control.model import SealSetting
from candy.errors import PoolFull, WireError
from candy.protocol import control, wire
from candy.protocol.actions import Close, Drop, Secure, Send
from candy.protocol.closing import CloseCode
from candy.protocol.keys import SECRET_BYTES
from candy.protocol.login import ANY_ADDRESS, LOGIN, NO_SELECTOR, Asks, Credential, Login, Tells, Told
from candy.protocol.wire import DropReason
from candy.relay import lines
from candy.relay.enrolment import Device, Invitation, Proof, Standing
from candy.relay.leases import NUMBER_BYTES, Lease, fresh_number
from candy.relay.login import Answer, Claim, LogIn
from candy.relay.passwords import Password
from candy.relay.realm import Realm
from candy.relay.recording import Outcome, Presented, Wanted
from candy.relay.session import UNTOLD, Action, Record, Session, State, Unbind

ASKS_PER_S = 200
"""Addresses that one member may ask about in the long run: each is an entry of a message to it, and perhaps to
another."""
ASKS_AGAIN_MAX = 8
"""Addresses of which another relay may turn out to have given them away."""
ASKS_AHEAD_S = 5.0
"""How far it may be ahead of that rate."""


class KeyedSession(Session):
    """See above.

    Args:
        log_in: of this connection; its headers went out with the 101.
    """

    __slots__ = (
        "_asked_again",
        "_asked_until",
        "_before",
        "_claim",
        "_is_answered",
        "_is_confirmed",
        "_lease_number",
        "_log_in",
        "commit_bytes",
        "device",
        "flags",
    )

    def __init__(self, realm: Realm, connection: int, source: str, now: float, log_in: LogIn) -> None:
        super().__init__(realm, connection, source, True, now)
        self._log_in: LogIn | None = log_in
        """None once message 2 was sent: it has no more use."""
        self._claim: Claim | None = None
        """None again for a member, which has made it true."""
        self._before: Device | None = None
        """Its device, before it was enrolled again."""
        self._is_answered = False
        self._is_confirmed = False
        self._asked_again = 0
        """How often another relay was first with its address."""
        self._lease_number = bytes(NUMBER_BYTES)
        self._asked_until = -inf
        """The time until which it has used its allowance of addresses that it asks about, at ASKS_PER_S."""
        self.flags = Asks(0)
        """As it said of itself; a member's."""
        self.commit_bytes = 0
        """The longest packet that it wants in one piece; a member's."""
        self.device: Device | None = None
        """As it was enrolled."""

    @property
    def is_confirmed(self) -> bool:
        return self._is_confirmed

    @property
    def takes_sealed(self) -> bool:
        return not self.flags & Asks.SEALS_NOTHING

    @property
    def seal(self) -> SealSetting:
        if not self.takes_sealed:
            return "off"
        return "require" if self.flags & Asks.REQUIRES_SEALING else "prefer"

    @property
    def came_by(self) -> str:
        return "" if self.device is None else self.device.by

    @property
    def known_password(self) -> Password | None:
        if self.device is None or self.is_invited:
            return None
        return next(filter(self.device.has_shown, self._realm.passwords), None)

    @property
    def is_invited(self) -> bool:
        return self.device is not None and bool(self.device.invitation)

    def end(self, code: CloseCode | None, reason: str) -> list[Action]:
        unbind: list[Action] = [Unbind(self.connection)] if self.is_member else []
        self.state = State.CLOSED
        if code is None or not (self._is_answered or self._claim is not None):
            return [*unbind, Close(self.connection, None, UNTOLD if code is not None else reason)]
        close = Close(self.connection, code, reason)
        if self._is_answered:
            return [*unbind, Send(self.connection, control.Closing(code, reason).encode()), close]
        return [Send(self.connection, self._answer(Told(code=code, text=reason)).message), close]

    def granted_address(self, wall: int) -> list[Action]:
        """The network keeps the address for it: answer, once that is written down."""
        claim = self._claim
        assert claim is not None
        # Others may have used up its invitation while it waited for its address, or settings have changed.
        verdict = self._realm.enrolment.judge(claim.proof, claim.key, wall)
        if verdict.code not in (0, CloseCode.APPROVAL_AWAITED):
            return self.refuse(verdict.text, code=CloseCode(verdict.code), told=verdict.text)
        if isinstance(claim.proof.by, Password) and not self._realm.passwords.holds(claim.proof.by, wall):
            told = "the password by which this member logged in holds no more"
            return self.refuse(told, code=CloseCode.PASSWORD_ENDED, told=told)
        if verdict.code and self.ip != lines.UNSPECIFIED:
            told = "a password alone admits no new device any more: try again"
            return self.refuse(told, code=CloseCode.TRY_AGAIN_LATER, told=told)
        self._before = self._realm.enrolment.get(claim.key)
        self.device = self._realm.enrolment.enrol(claim.proof, claim.key, claim.asked.hello.name, wall)
        if self.device.standing is Standing.WAITING:
            self._realm.enrolment.waits(self.connection, claim.key)
        wanted = self._wanted(claim)
        if wanted is not None:
            return self.recording(wanted)
        if self.device == self._before or self._is_written(self.device):
            return self._tell(wall, is_kept=True)
        self.state = State.RECORDING
        return [Record(self.connection)]

    def _wanted(self, claim: Claim) -> Wanted | None:
        """What other relays have to agree on."""
        if self._realm.shared is None:
            return None
        waits = self.ip == lines.UNSPECIFIED
        wanted = None if waits else self._realm.address_wanted(self._ip, claim.key)
        # Another connection may have enrolled it, and still wait for the others to agree.
        if self._is_written(self.device):
            return wanted
        selector = claim.proof.by.selector if isinstance(claim.proof.by, Invitation) else b""
        return replace(wanted or Wanted(), device=claim.key, selector=selector)

    def _is_written(self, device: Device | None) -> bool:
        shared = self._realm.shared
        return device is not None and shared is not None and shared.is_written(device)

    def claimed(self, lease: Lease | None, now: float) -> None:
        super().claimed(lease, now)
        if lease is not None:
            self._lease_number = self._realm.pool.leases.number(lease, self._lease_number)
        claim, self._claim, self._before = self._claim, None, None
        assert claim is not None
        assert self.device is not None
        self.device = self._realm.enrolment.confirmed(self.device, self._realm.passwords.named(self.came_by))
        self.flags, self.commit_bytes = claim.asked.flags, claim.asked.commit_bytes

    def welcome(self) -> list[Action]:
        """What a member is told first, once it has its address: one that waited for approval, which."""
        if any(self._lease_number):
            return []
        self._lease_number = self._number()
        return [Send(self.connection, control.Approved(self._interface(), self._lease_number).encode())]

    def recorded(self, outcome: Outcome, now: float, wall: int) -> list[Action]:
        """Whether what it was let in by is written down."""
        claim, enrolment = self._claim, self._realm.enrolment
        if self.state is not State.RECORDING or claim is None:
            return []
        if self._is_answered:
            # It has confirmed, and its address was another's meanwhile, or this is not known.
            return super().recorded(outcome, now, wall)
        if outcome in (Outcome.AWAY, Outcome.USED_UP) and self.device != self._before:
            self._take_back(claim)
        if outcome is Outcome.USED_UP:
            told = "the invitation is used up or has expired"
            return self.refuse(f"{told}, by another relay", code=CloseCode.INVITATION_ENDED, told=told)
        if outcome is Outcome.AWAY:
            return super().recorded(outcome, now, wall)
        # Another relay may have been first.
        self.device = enrolment.get(claim.key) or self.device
        if enrolment.is_revoked(claim.key):
            told = "this device was revoked"
            return self.refuse(f"{told}, by another relay", code=CloseCode.DEVICE_REVOKED, told=told)
        if outcome is Outcome.HELD:
            return self._ask_again(claim, now)
        is_kept = outcome is Outcome.KEPT
        if not is_kept and isinstance(claim.proof.by, Invitation):
            if self.device != self._before:
                self._take_back(claim)
            told = "the relay can't write down who comes by an invitation: try again later"
            return self.refuse("its invitation can't be written down", code=CloseCode.TRY_AGAIN_LATER, told=told)
        return self._tell(wall, is_kept)

    def _take_back(self, claim: Claim) -> None:
        """It is not let in by what it has proven, unless another connection of its has come by that meanwhile."""
        enrolment = self._realm.enrolment
        if self._is_written(enrolment.get(claim.key)):
            return
        if isinstance(claim.proof.by, Invitation):
            enrolment.take_back(claim.key, self._before, claim.proof.by)
        else:
            enrolment.forget(claim.key, self._before)

    def _ask_again(self, claim: Claim, now: float) -> list[Action]:
        """Another relay has given the address away. There are others, unless it has to be that one."""
        self._asked_again += 1
        if claim.asked.flags & Asks.IS_FIXED or self._asked_again > ASKS_AGAIN_MAX:
            return super().recorded(Outcome.HELD, now, 0)
        self._realm.pool.release(self.connection)
        return self._claim_address(claim, now)

    def presented(self) -> Presented:
        number = 0 if self.device is None else self.device.number
        own = super().presented()
        return own._replace(lease=self._lease_number, flags=self.flags, commit_bytes=self.commit_bytes, device=number)

    def _act_on(self, payload: bytes, now: float, wall: int) -> list[Action]:
        if self.is_member:
            return self._on_members(payload, now)
        if self.state is State.GREETING or payload[:1] == bytes([LOGIN]):
            return self._on_first(payload, now, wall)
        return [Drop(self.connection, DropReason.NOT_AUTHENTICATED)]

    def controlled(self, message: control.FromMember, now: float) -> tuple[list[Action], bool, bool]:
        """Act on what came within a CONTROL, with received()'s result. What it asks about others answers the
        network."""
        return self.outcome(self._on_control(message, now))

    def _on_control(self, message: control.FromMember, now: float) -> list[Action]:
        if self._is_confirmed or not isinstance(message, control.Confirm):
            is_early = not self.is_member
            return [Drop(self.connection, DropReason.NOT_AUTHENTICATED if is_early else DropReason.UNEXPECTED_KIND)]
        self._is_confirmed = True
        if self.state is State.ANSWERED:
            self.state = State.CLAIMING
            return []
        return self.approved(now)

    def may_ask(self, addresses: int, now: float) -> bool:
        """Whether it may ask about so many addresses now; then they are counted."""
        if self._asked_until > now + ASKS_AHEAD_S:
            return False
        self._asked_until = max(self._asked_until, now) + addresses / ASKS_PER_S
        return True

    @property
    def lease_number(self) -> bytes:
        """A member's, as others are told it."""
        return self._lease_number

    def approved(self, now: float) -> list[Action]:
        """The operator has approved its device, or it has confirmed that it waits: it claims an address once both are
        so."""
        claim = self._claim
        device = self._realm.enrolment.get(claim.key) if claim is not None else None
        if claim is None or device is None or device.standing is Standing.WAITING or not self._is_confirmed:
            return []
        return self._claim_address(claim, now)

    def _on_members(self, payload: bytes, now: float) -> list[Action]:
        try:
            message = wire.decode(payload)
        except WireError as error:
            return [Drop(self.connection, error.reason)]
        return self._on_other(message, payload, now)

    def _on_first(self, payload: bytes, now: float, wall: int) -> list[Action]:
        try:
            if self.state is not State.GREETING:
                raise WireError(DropReason.BAD_LOGIN)
            login = Login.decode(payload, 1)
        except WireError as error:
            drop = Drop(self.connection, error.reason)
            return [drop, *self.refuse("it began with another message than a log-in, or sent a second", kind="login")]
        is_trusted = login.credential is not Credential.PASSWORD and self._realm.enrolment.is_trusted(login, now)
        return self._in_turn(partial(self._on_login, login), is_trusted, now, wall)

    def _on_login(self, login: Login, now: float, wall: int) -> list[Action]:
        realm = self._realm
        assert self._log_in is not None
        realm.enrolment.tidy(wall, realm.pool.leases)
        claim = self._log_in.read(login, realm.enrolment, realm.passwords.with_keys(wall))
        if claim is None:
            if self._log_in.relay_key.relay != (realm.enrolment.relay or self._log_in.relay_key.relay):
                return self.refuse("it was under way while the relay's key was rotated", kind="rotated")
            realm.enrolment.failed(login, now)
            refusal = self.refuse("wrong password in LOGIN", kind="password")
            return refusal + self._note_failure(now)
        self._claim = claim
        self.vmac, self.hello, self.instance = claim.key, claim.asked.hello, claim.asked.instance
        verdict = realm.enrolment.judge(claim.proof, claim.key, wall)
        if verdict.code == CloseCode.APPROVAL_AWAITED:
            return self.granted_address(wall)
        if verdict.code:
            return self.refuse(verdict.text, code=CloseCode(verdict.code), told=verdict.text)
        return self._claim_address(claim, now)

    def _claim_address(self, claim: Claim, now: float) -> list[Action]:
        realm, asked = self._realm, claim.asked.address.ip
        lease = next(realm.pool.leases.of(claim.key), None)
        within = self._bounds(claim.proof, realm.enrolment.get(claim.key))
        if claim.asked.flags & Asks.IS_FIXED:
            ip = asked
        elif lease is None and (leased := self._leased_to_vmac(claim, within)) is not None:
            ip = leased
            self._granted = int(ip)
        else:
            # Unlike a VMAC, a key is one device's: it gets its lease although its older connection is there.
            asked = IPv4Address(lease.ip) if lease is not None else asked
            try:
                granted = realm.pool.ask(asked, claim.key, self.connection, self._counted_as, now, within=within)
            except PoolFull as full:
                code = CloseCode.NO_POOL if realm.pool.network is None else CloseCode.POOL_FULL
                return self.refuse(f"no address granted: {full}", kind="no address", code=code, told=str(full))
            ip = granted.ip
            self._granted = int(ip)
        refusal = self._judge_address(ip, within, now)
        if not refusal:
            self._ip = int(ip)
            self.state = State.CLAIMING
        return refusal

    def _leased_to_vmac(self, claim: Claim, within: IPv4Network | None) -> IPv4Address | None:
        """The address that its machine had before it had a key, unless somebody is there: its lease goes on."""
        leases = self._realm.pool.leases.of(claim.asked.vmac) if any(claim.asked.vmac) else ()
        idle = (IPv4Address(lease.ip) for lease in leases if not lease.is_connected)
        return next((ip for ip in idle if within is None or ip in within), None)

    @staticmethod
    def _bounds(proof: Proof, device: Device | None) -> IPv4Network | None:
        if isinstance(proof.by, Invitation) or device is None:
            return proof.by.addresses
        return device.addresses

    def _tell(self, wall: int, is_kept: bool) -> list[Action]:
        """Message 2: let in, or waiting for approval."""
        claim, device, realm = self._claim, self.device, self._realm
        assert claim is not None
        assert device is not None
        waits = self.ip == lines.UNSPECIFIED
        flags, ticket = realm.tells, (NO_SELECTOR, bytes(SECRET_BYTES))
        if is_kept and not isinstance(claim.proof.by, Device):
            flags |= Tells.GIVES_CREDENTIAL
            ticket = (device.selector, device.secret)
        elif isinstance(claim.proof.by, Password):
            # It ends with its password.
            self.password = claim.proof.by
        if not waits:
            self._lease_number = self._number()
        told = Told(
            code=CloseCode.APPROVAL_AWAITED if waits else 0,
            flags=flags,
            address=ANY_ADDRESS if waits else self._interface(),
            relay=realm.pool.address_of(realm.host),
            lease=self._lease_number,
            clock=wall,
            selector=ticket[0],
            secret=ticket[1],
        )
        self.state = State.APPROVING if waits else State.ANSWERED
        answer = self._answer(told)
        self._is_answered = True
        return [
            Secure(self.connection, answer.sends, answer.receives),
            Send(self.connection, answer.message),
            self.line("debug", f"log-in {answer.name} is answered"),
        ]

    def _interface(self) -> IPv4Interface:
        claim, pool = self._claim, self._realm.pool
        assert claim is not None
        if claim.asked.flags & Asks.IS_FIXED or pool.network is None:
            return IPv4Interface((self._ip, claim.asked.address.network.prefixlen))
        # From the number: from an address it would be made by its text.
        return IPv4Interface((self._ip, pool.network.prefixlen))

    def _number(self) -> bytes:
        """That of its lease, or of the one that it gets when it confirms."""
        lease = self._realm.pool.leases.get(int(self.ip))
        has_one = lease is not None and lease.vmac == self.vmac and lease.number
        return lease.number if lease is not None and has_one else fresh_number(self._realm.randbytes)

    def _answer(self, told: Told) -> Answer:
        log_in, self._log_in = self._log_in, None
        assert log_in is not None
        return log_in.answer(told)
