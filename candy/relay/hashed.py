"""One connection of an old client, or of a member without a key: the log-in by hashes of a password.

                 VMAC, EXPTTUN (answered)
                     ┌────┐
                     ▼    │                  claimed(): free, or same VMAC
    opened ──────▶ GREETING ───AUTH──▶ CLAIMING ──────────────────────▶ MEMBER ──end(): replaced──▶ CLOSED
       its source ▲ │    │               │   │ waiting(): held             ▲
       fails too  │ ▼    │               │   └─────────────────────────▶ WAITING
       often     IN_LINE │               │                                 │  claimed(): holder silent or gone
       wrong hash or clock, replay, bad  │                                 │
       address, deadline, line or pool   │                                 │
       full, too many new devices        │                                 │
                         ▼               ▼                                 ▼
                    CLOSED ◀─────────────┴─refuse(): reserved, contested───┘  refuse(): holder answers

Rules:
 1. VMAC and EXPTTUN are optional and come before AUTH. An AUTH is never answered. The hash is checked first: only a
    peer that has a password learns why its log-in failed, and only with candy.2 (candy.protocol.closing has the
    codes). Any other failed log-in ends without a close frame. Of several passwords the first that a session proves is
    its own: the others count for nothing there, and an EXPTTUN is answered by it.
 2. The first right AUTH of a connection stands; later AUTH, VMAC and EXPTTUN are dropped and counted.
 3. Where several relays serve the network, an AUTH waits in RECORDING until its digest is written down for all of them,
    and again for an address that is not its device's yet. What it tells others meanwhile is kept, up to HELD_MAX
    messages, and passed on once it is let in.
"""

from collections.abc import Callable
from functools import partial

from candy.errors import PoolFull, WireError
from candy.protocol import auth, wire
from candy.protocol.actions import Drop, Send
from candy.protocol.closing import CloseCode
from candy.protocol.wire import DropReason
from candy.relay.passwords import Passwords
from candy.relay.recording import Wanted
from candy.relay.replays import DIGEST_LIMIT, KEPT_BYTES
from candy.relay.session import Action, Session, State

Hashed = wire.Vmac | wire.Expttun | wire.Auth


class HashedSession(Session):
    """See above."""

    __slots__ = ()

    def _act_on(self, payload: bytes, now: float, wall: int) -> list[Action]:
        try:
            message = wire.decode(payload)
        except WireError as error:
            return [Drop(self.connection, error.reason)]
        match message:
            case wire.Vmac() | wire.Expttun() | wire.Auth():
                is_trusted = self._realm.devices.is_trusted(self._device(message))
                return self._in_turn(partial(self._judge, message), is_trusted, now, wall)
            case _:
                return self._on_other(message, payload, now)

    def _device(self, message: Hashed) -> bytes | None:
        """The VMAC that it is under, proven or not."""
        return message.identity if isinstance(message, wire.Vmac) else self.vmac

    def _judge(self, message: Hashed, now: float, wall: int) -> list[Action]:
        match message:
            case wire.Vmac():
                return self._on_vmac(message, now, wall)
            case wire.Expttun():
                return self._on_expttun(message, now, wall)
            case wire.Auth():
                return self._on_auth(message, now, wall)

    def _on_vmac(self, message: wire.Vmac, now: float, wall: int) -> list[Action]:
        if self.state is not State.GREETING:
            return [Drop(self.connection, DropReason.VMAC_AFTER_AUTH)]
        refusal = self._verify(
            message, lambda secret: auth.vmac_digest(secret, message.vmac, message.timestamp), now, wall
        )
        if not refusal:
            self.vmac = message.identity
        return refusal

    def _on_expttun(self, message: wire.Expttun, now: float, wall: int) -> list[Action]:
        if self.state is not State.GREETING:
            return [Drop(self.connection, DropReason.EXPTTUN_AFTER_AUTH)]
        realm = self._realm
        refusal = self._verify(message, lambda secret: auth.expttun_digest(secret, message.timestamp), now, wall)
        if refusal:
            return refusal
        assert self.password is not None
        may_keep = realm.sightings.may_keep(message.digest, message.timestamp, self._counted_as, now)
        try:
            granted = realm.pool.ask(
                message.address.ip,
                self.vmac,
                self.connection,
                self._counted_as,
                now,
                may_keep=may_keep,
                within=self.password.addresses,
            )
        except PoolFull as full:
            realm.logins["no_address"] += 1
            log = self.warning("no address", f"no address granted: {full}")
            code = CloseCode.NO_POOL if realm.pool.network is None else CloseCode.POOL_FULL
            return [log, *self.end(code, str(full))]
        answer = wire.Expttun(wall, granted, auth.expttun_digest(self.password.secret, wall))
        realm.sightings.answered(answer.digest, wall)
        self._granted = int(granted.ip)
        return [
            Send(self.connection, answer.encode(wire.draw_confusion(realm.randbytes))),
            self.line("debug", f"granted {granted}"),
        ]

    def _on_auth(self, message: wire.Auth, now: float, wall: int) -> list[Action]:
        if self.state is not State.GREETING:
            return [Drop(self.connection, DropReason.SECOND_AUTH)]
        realm = self._realm
        ip = message.ip
        refusal = self._verify(message, lambda secret: auth.auth_digest(secret, ip, message.timestamp), now, wall)
        if refusal:
            return refusal
        if not realm.replays.is_first(message.digest, message.timestamp, wall):
            if message.timestamp <= realm.replays.forgotten:
                return self.refuse(
                    f"AUTH for {ip} may be a replay: it is of a time whose log-ins are forgotten, because the clock "
                    f"was set back, or more than {DIGEST_LIMIT} came since",
                    kind="replay",
                )
            return self.refuse(f"AUTH for {ip} is a replay", kind="replay")
        assert self.password is not None
        refusal = self._judge_address(ip, self.password.addresses, now)
        if refusal:
            return refusal
        # What was offered was for its AUTH, and this is the AUTH, for any address.
        realm.pool.release(self.connection)
        self._ip = int(ip)
        self._granted = self._ip if self._granted == self._ip else None
        if realm.shared is not None and self.vmac is None:
            told = "several relays serve this network, where a member needs a VMAC or a key: update candy"
            return self.refuse("without a VMAC", code=CloseCode.POLICY_VIOLATION, told=told)
        if realm.shared is not None:
            return self.recording(Wanted(digest=(message.timestamp, message.digest[:KEPT_BYTES])))
        self.state = State.CLAIMING
        return []

    def _verify(self, message: Hashed, digest_of: Callable[[bytes], bytes], now: float, wall: int) -> list[Action]:
        """The refusal of a hashed message; empty when the hash is right and the timestamp timely.

        Args:
            digest_of: what the message's digest has to be, by the password's raw bytes.
        """
        realm = self._realm
        name = type(message).__name__.upper()
        passwords = realm.passwords if self.password is None else Passwords([self.password])
        proven = passwords.prove(digest_of, message.digest)
        if proven is None or not realm.passwords.holds(proven, wall):
            why = "wrong password" if proven is None else f"password that holds no more ({proven.name or 'nameless'})"
            refusal = self.refuse(f"{why} in {name}", kind="password")
            refusal += self._note_failure(now)
            if realm.devices.failed(self._device(message), now):
                many = "too many wrong passwords within an hour under one VMAC: it waits in line from now on, too"
                refusal.append(self.warning("many passwords of a device", many))
            return refusal
        if not auth.is_timely(message.timestamp, wall, realm.tolerance):
            skew, tolerance = message.timestamp - wall, realm.tolerance
            direction = "ahead of" if skew > 0 else "behind"
            return self.refuse(
                f"{name} is {skew:+d} s off this clock, {tolerance} s are tolerated",
                kind="clock",
                code=CloseCode.CLOCK_OFF,
                told=f"the member's clock is {abs(skew)} s {direction} the relay's, which tolerates {tolerance} s",
            )
        self.password = proven
        return []
