"""The devices of one network that log in by a key of their own: how each came in, and what it is let in by.

    candidates(login) ─▶ Proof …, of which one has to open message 1 ─▶ judge(proof, key) ─▶ 0, or why not
                                                                      enrol(proof, key) ─▶ Device: its credential
    invite(), approve(), revoke() ◀── commands         changes() ──▶ store ──▶ restore()

Rules:
 1. A device is its key. Its credential is given at the first log-in, and is the same whenever it is given again: a
    member that has lost message 2 comes again as it came, and counts once. By an invitation it may until AGAIN_S after
    that ended, or until it has confirmed, or come by its credential.
 2. A password lets new devices in under admit = "password"; under "invite" none, and under "approval" they wait until
    the operator has approved them. Who gives an invitation has approved its device.
 3. A revoked key is refused whatever it proves, and its device kept: it is told so. Its credential ends with it.
 4. judge() changes nothing: what is refused for another reason, such as a full pool, has used up no invitation. It is
    asked again right before enrol(), since a contested address takes a while.
 5. A selector that exists need not wait in line, until FAILURES_MAX failures within an hour came under it.
 6. WAITING_MAX devices wait for approval. Of those without a connection the one that has had none longest makes room.
 7. What is under a password is for who knows that one: a device that has shown that it does, at its enrolment or
    since. Another password of the same name makes strangers of them.
 8. A device that has neither confirmed nor a lease is forgotten after a day, a revoked one when it would have lost its
    lease; neither while there is the invitation by which it came. Its credential goes with it.

No I/O. `wall` is in Unix seconds, `now` in seconds of a monotonic clock.
"""

import hmac
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from ipaddress import IPv4Network
from typing import Final

from candy.errors import RequestError
from candy.protocol.closing import CloseCode
from candy.protocol.keys import SECRET_BYTES, SELECTOR_BYTES, RelayKey, fingerprint, of_device, of_invitation
from candy.protocol.login import Credential, Login
from candy.protocol.noise import KEY_BYTES
from candy.relay.allowance import Allowance
from candy.relay.leases import DAY_S, Leases
from candy.relay.passwords import Password

DEVICES_MAX: Final = 65536
INVITATIONS_MAX: Final = 4096
"""Of a network, each; for further devices the relay has no room."""
WAITING_MAX: Final = 64
AGAIN_S: Final = 3600
MARK_BYTES: Final = 16
FAILURES_MAX: Final = 10
HOUR_S: Final = 3600.0


class Admit(StrEnum):
    """Whom a password lets in that was not here before."""

    PASSWORD = "password"
    INVITE = "invite"
    APPROVAL = "approval"


class Standing(IntEnum):
    """Of a device, as the store has it."""

    ADMITTED = 1
    WAITING = 2
    REVOKED = 3


@dataclass(frozen=True, slots=True)
class Device:
    """One of them. Immutable; what changes of it is another one in its place."""

    key: bytes
    number: int
    """For people, random and not 0."""
    selector: bytes
    secret: bytes = field(repr=False)
    standing: Standing
    name: str
    """That it was invited by, or said of itself when it came."""
    by: str
    """The name of the password or invitation by which it came, for people."""
    invitation: bytes
    """The selector of that, empty for a password."""
    addresses: IPv4Network | None
    """Those that it may have; None: any."""
    since: int
    """Unix seconds: it came, or was revoked."""
    has_come: bool = False
    """It has confirmed a log-in, or come by its own credential, or was approved."""
    knows: bytes = field(default=b"", repr=False)
    """The password that it has shown to know, as mark() has it; empty: none, or a record of before says nothing."""

    def mark(self, password: Password) -> bytes:
        """What tells a password from others, in this device's record."""
        return hmac.digest(self.secret, password.secret, "sha256")[:MARK_BYTES]

    def has_shown(self, password: Password) -> bool:
        return hmac.compare_digest(self.knows, self.mark(password))

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.key)


@dataclass(frozen=True, slots=True)
class Invitation:
    """What lets in so many devices until a time."""

    selector: bytes
    secret: bytes = field(repr=False)
    name: str
    addresses: IPv4Network | None
    uses: int
    until: int
    used: int = 0


@dataclass(frozen=True, slots=True)
class Proof:
    """What a log-in may turn out to have proven, and the pre-shared key that shows it."""

    psk: bytes = field(repr=False)
    by: Password | Invitation | Device


@dataclass(frozen=True, slots=True)
class Verdict:
    """`code` 0, or why the device is not let in; `text` is for its user, in ASCII."""

    code: int = 0
    text: str = ""


_YES: Final = Verdict()
_REVOKED: Final = Verdict(CloseCode.DEVICE_REVOKED, "this device was revoked")
_WAITS: Final = Verdict(CloseCode.APPROVAL_AWAITED, "this device waits for the relay's operator to approve it")
_INVITATION_ENDED: Final = Verdict(CloseCode.INVITATION_ENDED, "the invitation is used up or has expired")
_INVITED_ONLY: Final = Verdict(CloseCode.INVITED_ONLY, "a password admits no new device here")
_FULL: Final = Verdict(CloseCode.TRY_AGAIN_LATER, "the relay has no room for another device")


class Enrolment:
    """See the rules above.

    Args:
        network: its public key, which salts all pre-shared keys.
        relay: the relay's, by which members log in; empty: it does not matter which.
        draw: that many random bytes.
    """

    def __init__(
        self, network: bytes, draw: Callable[[int], bytes], admit: Admit = Admit.PASSWORD, relay: bytes = b""
    ) -> None:
        self.network = network
        self.relay = relay
        self.admit = admit
        self.stretched: dict[bytes, bytes] = {}
        """The pre-shared keys of passwords, by their raw bytes; those that are missing admit nobody."""
        self._draw = draw
        self._devices: dict[bytes, Device] = {}
        self._by_selector: dict[bytes, Device] = {}
        self._invitations: dict[bytes, Invitation] = {}
        self._failures: Allowance[bytes] = Allowance(FAILURES_MAX, HOUR_S)
        self._waiting: dict[bytes, None] = {}
        """Keys of devices that wait for approval; who has had no connection longest comes first, but for those here."""
        self._here: dict[int, bytes] = {}
        """Keys of such devices, by connection."""
        self._tidied = 0
        """When it was looked who is to be forgotten, in Unix seconds."""
        self._watchers: list[Callable[[bytes], None]] = []
        self._changed: set[bytes] = set()
        """Keys and selectors."""

    def renew(self, key: RelayKey) -> None:
        """The relay has this key from now on; with another network's key, the passwords' have to be stretched anew."""
        if key.network != self.network:
            self.stretched = {}
        self.network, self.relay = key.network, key.relay

    def __iter__(self) -> Iterator[Device]:
        return iter(self._devices.values())

    def get(self, key: bytes) -> Device | None:
        return self._devices.get(key)

    def invitation(self, selector: bytes) -> Invitation | None:
        return self._invitations.get(selector)

    def is_revoked(self, key: bytes) -> bool:
        device = self._devices.get(key)
        return device is not None and device.standing is Standing.REVOKED

    def invitations(self) -> Iterable[Invitation]:
        """All that have not ended, with those that were redeemed a short while ago."""
        return self._invitations.values()

    # A log-in.

    def is_trusted(self, login: Login, now: float) -> bool:
        """Whether it need not wait in line (rule 5)."""
        has = login.selector in self._by_selector or login.selector in self._invitations
        return has and not self._failures.is_used_up(login.selector, now)

    def candidates(self, login: Login, passwords: Iterable[Password]) -> list[Proof]:
        """What it may prove; nothing for a selector that there is not.

        Args:
            passwords: those that hold, and are not for old clients alone.
        """
        match login.credential:
            case Credential.PASSWORD:
                known = [(self.stretched.get(each.secret), each) for each in passwords]
                return [Proof(psk, each) for psk, each in known if psk is not None]
            case Credential.INVITATION:
                invitation = self._invitations.get(login.selector)
                return [] if invitation is None else [Proof(of_invitation(invitation.secret, self.network), invitation)]
            case Credential.DEVICE:
                device = self._by_selector.get(login.selector)
                return [] if device is None else [Proof(of_device(device.secret, self.network), device)]
        return []

    def failed(self, login: Login, now: float) -> None:
        """It proved nothing."""
        if login.selector in self._by_selector or login.selector in self._invitations:
            self._failures.use(login.selector, now)

    def is_of(self, proof: Proof, key: bytes) -> bool:
        """Whether a device with this key may prove this at all: a device's credential is that of its key alone."""
        return not isinstance(proof.by, Device) or hmac.compare_digest(proof.by.key, key)

    def judge(self, proof: Proof, key: bytes, wall: int) -> Verdict:
        """Whether a device with this key is let in, by what it has proven; see rule 4."""
        device = self._devices.get(key)
        if self.is_revoked(key):
            return _REVOKED
        match proof.by:
            case Invitation(selector=selector) if not self._may_redeem(selector, device, wall):
                return _INVITATION_ENDED
            case Password() if device is None and self.admit is Admit.INVITE:
                return _INVITED_ONLY
            case Password() if self._has_to_wait(device):
                return _WAITS if device is not None or self._has_place() else _FULL
            case Device() if self._has_to_wait(device):
                return _WAITS
        return _YES if device is not None or len(self._devices) < DEVICES_MAX else _FULL

    def learn(self, what: Device | Invitation) -> None:
        """Another relay has written this down."""
        if isinstance(what, Device):
            before = self._devices.get(what.key)
            if before is not None and before.selector != what.selector:
                del self._by_selector[before.selector]
            self._put(what)
        else:
            self._change(what)

    def forget(self, key: bytes, before: Device | None) -> None:
        """It was not let in after all: what it was before is so again."""
        if before is not None:
            self._put(before)
        elif (device := self._devices.get(key)) is not None:
            self._forget(device)

    def watch(self, watch: Callable[[bytes], None]) -> None:
        """Have this called with the key or selector of each device and invitation that changes here."""
        self._watchers.append(watch)

    def take_back(self, key: bytes, before: Device | None, invitation: Invitation) -> None:
        """What enrol() did by this invitation could not be written down."""
        self.forget(key, before)
        current = self._invitations.get(invitation.selector)
        if current is not None and current.used > invitation.used:
            self._change(replace(current, used=current.used - 1))

    def enrol(self, proof: Proof, key: bytes, name: str, wall: int) -> Device:
        """Let it in, or have it wait, as judge() has said: its device, with a credential."""
        device = self._devices.get(key)
        match proof.by:
            case Device():
                assert device is not None
                if not device.has_come:
                    device = self._put(replace(device, has_come=True))
                return device
            case Invitation(selector=selector):
                # As it is now: others may have come by it since it was proven.
                invitation = self._invitations[selector]
                if device is not None and device.invitation == selector:
                    return device
                self._change(replace(invitation, used=invitation.used + 1))
                how = (invitation.name, invitation.selector, invitation.addresses)
                return self._new(key, invitation.name or name, *how, Standing.ADMITTED, wall)
            case Password() as password:
                if device is not None:
                    return self._shown(device, password)
                standing = Standing.WAITING if self._has_to_wait(None) else Standing.ADMITTED
                if standing is Standing.WAITING and len(self._waiting) >= WAITING_MAX:
                    gone = self._longest_away()
                    assert gone is not None
                    self._forget(self._devices[gone])
                new = self._new(key, name, password.name, b"", password.addresses, standing, wall)
                return self._shown(new, password)

    def confirmed(self, device: Device, named: Password | None) -> Device:
        """It has shown that it can read message 2, and so has its credential.

        Args:
            named: the password that has the name of the one by which it came; None: there is none.

        Returns:
            the device as it is now.
        """
        # It may be just a day since it came first.
        current = self._devices.get(device.key, device)
        if not current.has_come:
            current = self._put(replace(current, has_come=True))
        if named is not None and not current.knows:
            # Of a record of before it is taken to be that one.
            current = self._shown(current, named)
        return current

    def waits(self, connection: int, key: bytes) -> None:
        """A connection of a device that waits for approval."""
        self._here[connection] = key

    def left(self, connection: int) -> None:
        """A connection has ended."""
        key = self._here.pop(connection, None)
        if key in self._waiting:
            del self._waiting[key]
            self._waiting[key] = None

    def tidy(self, wall: int, leases: Leases) -> None:
        """Forget devices by rule 8, once an hour."""
        if wall < self._tidied + HOUR_S:
            return
        self._tidied = wall
        for device in [each for each in self._devices.values() if self._is_over(each, wall, leases)]:
            self._forget(device)

    def _is_over(self, device: Device, wall: int, leases: Leases) -> bool:
        if device.invitation in self._invitations or any(leases.of(device.key)):
            return False
        if device.standing is Standing.REVOKED:
            return leases.days > 0 and wall >= device.since + leases.days * DAY_S
        return device.standing is Standing.ADMITTED and not device.has_come and wall >= device.since + DAY_S

    def _has_place(self) -> bool:
        """For one more that waits for approval."""
        return len(self._waiting) < WAITING_MAX or self._longest_away() is not None

    def _longest_away(self) -> bytes | None:
        """Of those that wait for approval; None: all are here."""
        here = set(self._here.values())
        return next((key for key in self._waiting if key not in here), None)

    def _shown(self, device: Device, password: Password) -> Device:
        """It knows this password: rule 7."""
        if device.invitation or device.has_shown(password):
            return device
        return self._put(replace(device, knows=device.mark(password)))

    def _has_to_wait(self, device: Device | None) -> bool:
        if device is not None:
            return device.standing is Standing.WAITING
        return self.admit is Admit.APPROVAL

    def _may_redeem(self, selector: bytes, device: Device | None, wall: int) -> bool:
        invitation = self._invitations.get(selector)
        if invitation is None:
            return False
        if device is not None and device.invitation == selector:
            return not device.has_come and wall < invitation.until + AGAIN_S
        return wall < invitation.until and invitation.used < invitation.uses

    def _new(
        self,
        key: bytes,
        name: str,
        by: str,
        invitation: bytes,
        addresses: IPv4Network | None,
        standing: Standing,
        wall: int,
    ) -> Device:
        """A device; one that was here keeps number and credential."""
        before = self._devices.get(key)
        if before is None:
            number = 1 + int.from_bytes(self._draw(8), "big") % ((1 << 63) - 1)
            selector, secret = self._draw(SELECTOR_BYTES), self._draw(SECRET_BYTES)
        else:
            number, selector, secret = before.number, before.selector, before.secret
        return self._put(Device(key, number, selector, secret, standing, name, by, invitation, addresses, wall))

    # Commands.

    def invite(self, name: str, addresses: IPv4Network | None, uses: int, until: int, wall: int) -> Invitation:
        """Raises RequestError when there are too many."""
        self.expire(wall)
        if len(self._invitations) >= INVITATIONS_MAX:
            raise RequestError(f"there are {INVITATIONS_MAX} invitations already: wait until some have ended")
        invitation = Invitation(self._draw(SELECTOR_BYTES), self._draw(SECRET_BYTES), name, addresses, uses, until)
        self._change(invitation)
        return invitation

    def uninvite(self, selector: bytes) -> None:
        """The invitation could not be written down."""
        self._invitations.pop(selector, None)
        self._changed.add(selector)

    def expire(self, wall: int) -> None:
        """Forget invitations by which nobody can come any more."""
        for invitation in [each for each in self._invitations.values() if wall >= each.until + AGAIN_S]:
            del self._invitations[invitation.selector]
            self._changed.add(invitation.selector)

    def find(self, text: str) -> Device:
        """The device of this name (in any case of letters), number, or beginning of a fingerprint, at least 8 digits.

        Raises:
            RequestError: there is none, or more than one.
        """
        plain = text.replace(" ", "").casefold()

        def is_it(device: Device) -> bool:
            is_print = len(plain) >= 8 and device.fingerprint.replace(" ", "").startswith(plain)
            return (bool(text) and device.name.casefold() == text.casefold()) or str(device.number) == plain or is_print

        found = [device for device in self._devices.values() if is_it(device)]
        if not found:
            raise RequestError(f"{text!r} is no device with a key: give its name, number or fingerprint")
        if len(found) > 1:
            listed = ", ".join(str(device.number) for device in found)
            raise RequestError(f"{text!r} is more than one device: give one of the numbers {listed}")
        return found[0]

    def approve(self, key: bytes) -> Device:
        """Raises RequestError for one that was revoked."""
        device = self._devices[key]
        if device.standing is Standing.REVOKED:
            raise RequestError(f"{device.name!r} was revoked: have it join as another device")
        # It may take days until it comes.
        return self._put(replace(device, standing=Standing.ADMITTED, has_come=True))

    def revoke(self, key: bytes, wall: int) -> Device:
        """No credential lets this key in from now on."""
        return self._put(replace(self._devices[key], standing=Standing.REVOKED, since=wall))

    # The store.

    def changes(self) -> tuple[dict[bytes, Device | None], dict[bytes, Invitation | None]]:
        """What is new since the last call: devices by key, invitations by selector; None: forgotten, or ended."""
        changed, self._changed = self._changed, set()
        devices = {key: self._devices.get(key) for key in changed if len(key) == KEY_BYTES}
        return devices, {each: self._invitations.get(each) for each in changed if len(each) == SELECTOR_BYTES}

    def rows(self) -> tuple[dict[bytes, Device | None], dict[bytes, Invitation | None]]:
        """Everything, in the form of changes() and instead of it."""
        self._changed = set()
        return dict(self._devices), dict(self._invitations)

    def restore(self, devices: Iterable[Device], invitations: Iterable[Invitation], wall: int) -> None:
        """Take back what was kept. What has happened since counts more."""
        for invitation in invitations:
            self._invitations.setdefault(invitation.selector, invitation)
        for device in devices:
            if device.key not in self._devices:
                self._set(device)
        self.expire(wall)

    def _put(self, device: Device) -> Device:
        self._changed.add(device.key)
        for watch in self._watchers:
            watch(device.key)
        return self._set(device)

    def _set(self, device: Device) -> Device:
        if device.standing is Standing.WAITING:
            self._waiting.setdefault(device.key)
        else:
            self._waiting.pop(device.key, None)
        self._devices[device.key] = self._by_selector[device.selector] = device
        return device

    def _forget(self, device: Device) -> None:
        del self._devices[device.key], self._by_selector[device.selector]
        self._waiting.pop(device.key, None)
        self._changed.add(device.key)

    def _change(self, invitation: Invitation) -> None:
        self._invitations[invitation.selector] = invitation
        self._changed.add(invitation.selector)
        for watch in self._watchers:
            watch(invitation.selector)
