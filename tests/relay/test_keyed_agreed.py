"""Log-ins with keys where several relays serve the network: what one of them waits for, another does not go by."""

import pytest
from kit.agreed import Agreed
from kit.keyed import link_of
from kit.login import DEVICE, OTHER, WALL, by_password

from candy.member.login import Credentials
from candy.protocol.actions import Send
from candy.protocol.closing import CloseCode
from candy.relay.enrolment import Standing
from candy.relay.recording import Outcome
from candy.relay.session import Action


@pytest.fixture
def agreed() -> Agreed:
    return Agreed()


def told(member: object, actions: list[Action]) -> int:
    """The code of message 2."""
    [send] = [action for action in actions if isinstance(action, Send)]
    return int(member.read(send.payload).told.code)  # type: ignore[attr-defined]


def invited(agreed: Agreed, uses: int = 1) -> Credentials:
    made = agreed.network.enrolment.invite("guest", None, uses, WALL + 1000, WALL)
    return Credentials(invitation=link_of(made))


def test_a_second_connection_waits_as_the_first_one_does(agreed: Agreed) -> None:
    """Its device is here already, by the first, and is nobody's yet."""
    invitation = invited(agreed)
    _, _, first = agreed.asks(invitation)
    _, _, second = agreed.asks(invitation)
    assert first is not None
    assert second is not None
    assert (second.device, second.selector) == (first.device, first.selector) == (DEVICE.public, first.selector)


@pytest.mark.parametrize("outcome", [Outcome.AWAY, Outcome.USED_UP, Outcome.UNKEPT])
def test_neither_comes_in_if_the_others_can_not_agree(agreed: Agreed, outcome: Outcome) -> None:
    invitation = invited(agreed)
    waiting = [agreed.asks(invitation)[:2] for _ in range(2)]
    codes = [told(member, agreed.answers(connection, outcome)) for connection, member in waiting]
    assert 0 not in codes
    assert agreed.network.enrolment.get(DEVICE.public) is None
    [left] = agreed.network.enrolment.invitations()
    assert left.used == 0


def test_one_that_was_let_in_stays_when_the_other_is_not(agreed: Agreed) -> None:
    invitation = invited(agreed)
    (first, one, _), (second, two, _) = agreed.asks(invitation), agreed.asks(invitation)
    device = agreed.network.enrolment.get(DEVICE.public)
    assert device is not None
    agreed.others.written.append(device)
    assert told(two, agreed.answers(second, Outcome.KEPT)) == 0
    assert told(one, agreed.answers(first, Outcome.AWAY)) == CloseCode.TRY_AGAIN_LATER
    assert agreed.network.enrolment.get(DEVICE.public) == device


def test_an_invitation_is_for_another_when_the_first_was_not_let_in(agreed: Agreed) -> None:
    invitation = invited(agreed)
    connection, _, _ = agreed.asks(invitation)
    agreed.answers(connection, Outcome.AWAY)
    connection, member, _ = agreed.asks(invitation, OTHER)
    assert told(member, agreed.answers(connection, Outcome.KEPT)) == 0


def test_whom_the_others_know_need_not_wait(agreed: Agreed) -> None:
    """That it comes for the first time is no matter of theirs."""
    connection, member, _ = agreed.asks()
    actions = agreed.answers(connection, Outcome.KEPT)
    [send] = [action for action in actions if isinstance(action, Send)]
    ticket = member.read(send.payload).ticket
    known = agreed.network.enrolment.get(DEVICE.public)
    assert known is not None
    assert not known.has_come
    agreed.others.is_written = lambda device: device.key == known.key  # type: ignore[method-assign]
    agreed.others.is_settled = lambda ip, holder: True  # type: ignore[method-assign]
    agreed.close(connection)
    _, outcome = agreed.answered(Credentials(ticket=ticket))
    assert outcome.is_in
    assert known.standing is Standing.ADMITTED


def test_who_is_known_by_a_password_waits_for_its_address_alone(agreed: Agreed) -> None:
    connection, _, _ = agreed.asks()
    device = agreed.network.enrolment.get(DEVICE.public)
    assert device is not None
    agreed.close(connection)
    agreed.others.written.append(device)
    _, _, wanted = agreed.asks(by_password())
    assert wanted is not None
    assert (wanted.holder, wanted.device) == (DEVICE.public, b"")
