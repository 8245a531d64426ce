"""What the relay's engine notices of sealed packets is told to who sent them, within CONTROL: the whole way there."""

import select

from kit.peer import sealed
from lab.keyed import KeyedMember, by_password, device
from lab.member import frame
from lab.programs import RelayProgram
from lab.relay import Count

from candy.protocol.control import Ask, Commit, NotSealing, Tell
from candy.protocol.login import Asked, Asks

LONG = bytes(60_000)


def burst(member: KeyedMember, other: KeyedMember, body: bytes = bytes(16), count: int = 4) -> None:
    """Sealed packets from one to the other, with which the relay has nothing to do but pass them on."""
    assert member.ip is not None
    assert other.ip is not None
    member.socket.sendall(frame(sealed(int(member.ip), int(other.ip), body)) * count)


def test_not_sealing(relay: RelayProgram, counted: Count) -> None:
    with KeyedMember.connect(relay.address) as member, KeyedMember.connect(relay.address) as off:
        member.enter(by_password(), device())
        off.enter(by_password(), device(), Asked(flags=Asks.SEALS_NOTHING))
        burst(member, off)
        assert off.ip is not None
        member.tell(Ask((off.ip,)))
        # Once for all of them.
        assert member.heard() == NotSealing(off.ip)
        assert isinstance(member.heard(), Tell)
        assert counted("not_sealing") == 4


def test_commit(relay: RelayProgram) -> None:
    """A third member, whose packets are short, is told nothing."""
    with (
        KeyedMember.connect(relay.address) as member,
        KeyedMember.connect(relay.address) as slow,
        KeyedMember.connect(relay.address) as other,
    ):
        for each in (member, slow, other):
            each.enter(by_password(), device())
        while not select.select([member.socket], [], [], 0)[0]:
            burst(member, slow, LONG)
            burst(other, slow, count=1)
            for _ in range(2000):
                slow.socket.recv(64)
        told = member.heard()
        assert isinstance(told, Commit)
        assert told.address == slow.ip
        assert 4096 <= told.longest <= 2 * len(LONG)
        other.settle()
