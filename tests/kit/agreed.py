"""A network of devices with keys that other relays serve as well; what these answer a test says."""

from dataclasses import dataclass, field
from typing import Any

from kit.keyed import CONFIRM, Keyed
from kit.login import DEVICE, by_password

from candy.member.login import Credentials
from candy.protocol.noise import KeyPair
from candy.relay.enrolment import Device
from candy.relay.recording import Elsewhere, Outcome, Presented, Wanted
from candy.relay.session import Action, Record


@dataclass
class Others:
    """A Sharing: what is settled and written is what a test has put there."""

    settled: set[tuple[int, bytes]] = field(default_factory=set)
    written: list[Device] = field(default_factory=list)
    members: dict[int, Elsewhere] = field(default_factory=dict)
    told: list[object] = field(default_factory=list)

    def is_settled(self, ip: int, holder: bytes) -> bool:
        return (ip, holder) in self.settled

    def is_written(self, device: Device) -> bool:
        return device in self.written

    def elsewhere(self, ip: int) -> Elsewhere | None:
        return self.members.get(ip)

    def ask(self, ip: int, relay: str) -> None:
        self.told.append((ip, relay))

    def used_elsewhere(self, ip: int, holder: bytes, month: int) -> int:
        return 0

    def came(self, member: Presented) -> None:
        self.told.append(member)

    def went(self, ip: int) -> None:
        self.told.append(ip)


@dataclass
class Agreed(Keyed):
    """Each log-in waits until a test answers."""

    others: Others = field(default_factory=Others)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.network.share(self.others)

    def asks(self, credentials: Credentials | None = None, device: KeyPair = DEVICE) -> tuple[int, Any, Wanted | None]:
        """A log-in that waits for the others: its connection, its member, and for what."""
        connection, member, actions = self.begin(credentials or by_password(), device)
        [record] = actions
        assert isinstance(record, Record)
        return connection, member, record.wanted

    def answers(self, connection: int, outcome: Outcome) -> list[Action]:
        return self.keep(self.network.recorded(connection, outcome, self.now, self.wall))

    def confirms(self, connection: int) -> list[Action]:
        return self.receive(connection, CONFIRM)
