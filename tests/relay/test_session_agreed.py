"""Old clients where several relays serve the network: what they say while their log-ins wait for the others."""

import pytest
from kit.agreed import Others
from kit.talk import ONE, TWO, Talk, ip

from candy.protocol import wire
from candy.protocol.actions import Close, Drop, Send
from candy.protocol.wire import DropReason
from candy.relay.recording import Outcome
from candy.relay.session import HELD_MAX, Action, Bind, Record

SAID = wire.Discovery(ip(5), ip(5)).encode()
FOR_ALL = wire.General(7, 0, ip(5), wire.BROADCAST, b"x").encode()


class Shared(Talk):
    """A network that other relays serve as well; answer() is theirs."""

    def __init__(self) -> None:
        super().__init__(forward_broadcast=True)
        self.others = Others()
        self.network.share(self.others)

    def begin(self, vmac: bytes = ONE, last: int = 5) -> int:
        """An AUTH that waits for them."""
        connection = self.open()
        assert self.vmac(connection, vmac) == []
        [record] = self.auth(connection, ip(last))
        assert isinstance(record, Record)
        return connection

    def answer(self, connection: int, outcome: Outcome = Outcome.KEPT) -> list[Action]:
        return self.keep(self.network.recorded(connection, outcome, self.now, self.wall))

    def settle(self, connection: int) -> None:
        """Its digest is written down, and they know its address for its own; that is still to be answered."""
        [record] = self.answer(connection)
        assert isinstance(record, Record)
        assert record.wanted is not None
        assert record.wanted.ip is not None
        self.others.settled.add((record.wanted.ip, record.wanted.holder))

    def admitted(self, connection: int) -> list[Action]:
        """What follows once both are written down."""
        self.settle(connection)
        return self.answer(connection)


@pytest.fixture
def shared() -> Shared:
    return Shared()


def test_what_is_said_right_behind_the_auth_is_passed_on_once_it_is_let_in(shared: Shared) -> None:
    other = shared.begin(TWO, 6)
    shared.admitted(other)
    connection = shared.begin()
    assert shared.receive(connection, SAID) == []
    shared.settle(connection)
    # And while its address is written down.
    assert shared.receive(connection, FOR_ALL) == []
    bound = Bind(connection, int(ip(5)))
    assert shared.answer(connection) == [bound, Send(connection, SAID), Send(other, FOR_ALL)]


def test_what_is_kept_meanwhile_is_bounded(shared: Shared) -> None:
    connection = shared.begin()
    assert [shared.receive(connection, SAID) for _ in range(HELD_MAX)] == [[]] * HELD_MAX
    assert shared.receive(connection, SAID) == [Drop(connection, "events")]
    assert shared.admitted(connection) == [Bind(connection, int(ip(5))), *[Send(connection, SAID)] * HELD_MAX]


def test_a_member_is_held_to_its_address_then(shared: Shared) -> None:
    connection = shared.begin()
    assert shared.receive(connection, wire.Discovery(ip(6), ip(5)).encode()) == []
    spoofed = Drop(connection, DropReason.SPOOFED_SOURCE)
    assert shared.admitted(connection) == [Bind(connection, int(ip(5))), spoofed]


def test_of_one_that_is_refused_nothing_is_passed_on(shared: Shared) -> None:
    connection = shared.begin()
    assert shared.receive(connection, SAID) == []
    [close] = shared.answer(connection, Outcome.AWAY)
    assert isinstance(close, Close)
