"""Both halves of a log-in with keys, in memory: a relay's network with passwords, and members of it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

from kit.primitives import PRIMITIVES, pair

from candy.member.login import Credentials, Outcome
from candy.member.login import LogIn as MemberLogIn
from candy.member.trust import Known
from candy.primitives import sign, signing_public, verify
from candy.protocol.closing import CloseCode
from candy.protocol.keys import RelayKey
from candy.protocol.login import Asked, Login, Tells, Told
from candy.protocol.noise import KeyPair
from candy.relay.enrolment import Admit, Device, Enrolment
from candy.relay.login import Claim, LogIn, RelayKeyPair
from candy.relay.passwords import Password

WALL = 1_800_000_000
OFFERED = ("candy.3", "candy.2")
SEED = bytes([0x21]) * 32
NETWORK = signing_public(SEED)
PASSWORD = Password(b"correct horse")
DEVICE, OTHER = pair(bytes([0x11]) * 32), pair(bytes([0x13]) * 32)


def psk_of(password: bytes) -> bytes:
    """In place of scrypt, for speed."""
    return password.ljust(32, b".")[:32]


def by_password(password: Password = PASSWORD) -> Credentials:
    return Credentials(stretched=lambda network: psk_of(password.secret))


def relay_key(private: int = 0x12, generation: int = WALL) -> RelayKeyPair:
    its = pair(bytes([private]) * 32)
    return RelayKeyPair(its, RelayKey.make(sign, SEED, NETWORK, its.public, 0, generation))


@dataclass
class Talk:
    """A network, and log-ins with it."""

    admit: Admit = Admit.PASSWORD
    passwords: Iterable[Password] = (PASSWORD,)
    keys: RelayKeyPair = field(default_factory=relay_key)
    random: Random = field(default_factory=lambda: Random(3))
    enrolment: Enrolment = field(init=False)

    def __post_init__(self) -> None:
        self.enrolment = Enrolment(NETWORK, self.random.randbytes, self.admit)
        self.enrolment.stretched = {each.secret: psk_of(each.secret) for each in self.passwords}

    def relay(self) -> LogIn:
        return LogIn(self.keys, OFFERED, self.random.randbytes, PRIMITIVES, pair)

    def member(
        self,
        credentials: Credentials,
        device: KeyPair = DEVICE,
        *,
        configured: bytes | None = NETWORK,
        known: Known | None = None,
    ) -> MemberLogIn:
        return MemberLogIn(
            device,
            credentials,
            configured=configured,
            known=known,
            offered=OFFERED,
            ephemeral=pair(self.random.randbytes(32)),
            primitives=PRIMITIVES,
            verify=verify,
        )

    def read(self, relay: LogIn, message: bytes) -> Claim | None:
        return relay.read(Login.decode(message, 1), self.enrolment, self.passwords)

    def run(self, credentials: Credentials, device: KeyPair = DEVICE, asked: Asked | None = None) -> Outcome:
        """A whole log-in, let in as Enrolment judges."""
        relay, member = self.relay(), self.member(credentials, device)
        claim = self.read(relay, member.begin(relay.shown, asked if asked is not None else Asked()))
        assert claim is not None
        return member.read(relay.answer(self.told(claim)).message)

    def told(self, claim: Claim, wall: int = WALL) -> Told:
        verdict = self.enrolment.judge(claim.proof, claim.key, wall)
        if verdict.code not in (0, CloseCode.APPROVAL_AWAITED):
            return Told(code=verdict.code, text=verdict.text)
        device = self.enrolment.enrol(claim.proof, claim.key, claim.asked.hello.name, wall)
        if isinstance(claim.proof.by, Device):
            return Told(code=verdict.code)
        flags = Tells.GIVES_CREDENTIAL
        return Told(code=verdict.code, flags=flags, selector=device.selector, secret=device.secret)
