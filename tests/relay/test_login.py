"""The relay's half of a log-in, against the member's: what opens, what does not, and what both then have."""

from dataclasses import replace

import pytest
from kit.login import DEVICE, OTHER, PASSWORD, WALL, Talk, by_password, relay_key
from kit.primitives import PRIMITIVES

from candy.errors import WireError
from candy.member.login import Credentials, Ticket
from candy.protocol import control
from candy.protocol.hello import Hello
from candy.protocol.link import Invitation as Link
from candy.protocol.login import Asked, Told
from candy.protocol.noise import Cipher
from candy.relay.passwords import Password

ASKED = Asked(hello=Hello("linux", "7.0", "laptop"), instance=5)
SECOND = Password(b"battery staple", "second")


def test_a_log_in_by_password() -> None:
    talk = Talk(passwords=(PASSWORD, SECOND))
    relay, member = talk.relay(), talk.member(by_password(SECOND))
    claim = talk.read(relay, member.begin(relay.shown, ASKED))
    assert claim is not None
    assert (claim.key, claim.proof.by, claim.asked) == (DEVICE.public, SECOND, ASKED)
    answer = relay.answer(Told(text="welcome"))
    outcome = member.read(answer.message)
    assert outcome.told == Told(text="welcome")
    assert outcome.name == answer.name
    for sends, receives in ((answer.sends, outcome.receives), (outcome.sends, answer.receives)):
        sealed = control.seal(Cipher(PRIMITIVES, sends), b"\x28")
        assert control.opened(Cipher(PRIMITIVES, receives), sealed) == b"\x28"
    assert answer.sends != answer.receives


def test_then_the_devices_own_credential_takes_over() -> None:
    talk = Talk()
    first = talk.run(by_password(), asked=ASKED)
    assert first.ticket is not None
    own = Credentials(ticket=first.ticket, stretched=by_password().stretched)
    talk.enrolment.stretched = {}
    second = talk.run(own)
    assert second.is_in
    assert second.ticket is None
    [device] = talk.enrolment
    assert (device.name, device.has_come) == ("laptop", True)


def test_a_log_in_by_invitation() -> None:
    talk = Talk()
    its = talk.enrolment.invite("phone", None, 1, WALL + 60, WALL)
    link = Link(talk.keys.key.relay, 0, WALL, its.selector, its.secret, its.until)
    outcome = talk.run(Credentials(invitation=link))
    assert outcome.is_in
    assert outcome.ticket is not None
    assert [device.name for device in talk.enrolment] == ["phone"]
    # Another device comes too late.
    outcome = talk.run(Credentials(invitation=link), OTHER)
    assert outcome.is_final
    assert outcome.ticket is None


@pytest.mark.parametrize("credentials", [by_password(SECOND), Credentials(ticket=Ticket(bytes(15) + b"\1", bytes(32)))])
def test_what_proves_nothing_is_none(credentials: Credentials) -> None:
    talk = Talk()
    relay = talk.relay()
    assert talk.read(relay, talk.member(credentials).begin(relay.shown, ASKED)) is None


def test_an_unknown_selector_costs_no_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk()
    relay = talk.relay()
    message = talk.member(Credentials(ticket=Ticket(bytes([1]) * 16, bytes(32)))).begin(relay.shown, ASKED)
    monkeypatch.setattr("candy.relay.login.Handshake", None)
    assert talk.read(relay, message) is None


def test_a_devices_credential_with_another_key_proves_nothing() -> None:
    talk = Talk()
    ticket = talk.run(by_password()).ticket
    relay = talk.relay()
    message = talk.member(Credentials(ticket=ticket), OTHER).begin(relay.shown, ASKED)
    assert talk.read(relay, message) is None


def test_a_message_opens_on_its_own_connection_alone() -> None:
    talk = Talk()
    message = talk.member(by_password()).begin(talk.relay().shown, ASKED)
    assert talk.read(talk.relay(), message) is None


def test_under_a_key_that_was_rotated_away() -> None:
    talk = Talk()
    older = talk.relay()
    talk.keys = relay_key(0x15, WALL + 1)
    # One that was shown it may still log in; its failure is not the member's.
    claim = talk.read(older, talk.member(by_password()).begin(older.shown, ASKED))
    assert claim is not None
    assert older.relay_key != talk.keys.key
    assert older.answer(Told()).message


@pytest.mark.parametrize("at", range(20, 250, 3))
def test_a_changed_answer_is_none(at: int) -> None:
    talk = Talk()
    relay, member = talk.relay(), talk.member(by_password())
    assert talk.read(relay, member.begin(relay.shown, ASKED)) is not None
    message = bytearray(relay.answer(Told(text="a" * 120)).message)
    message[at] ^= 1
    with pytest.raises(WireError):
        member.read(bytes(message))


def test_a_low_order_key_proves_nothing() -> None:
    talk = Talk()
    relay = talk.relay()
    message = bytearray(talk.member(by_password()).begin(relay.shown, ASKED))
    message[20:52] = bytes(32)
    assert talk.read(relay, bytes(message)) is None


def test_a_payload_that_is_none_proves_nothing() -> None:
    class Short(Asked):
        def encode(self) -> bytes:
            return replace(ASKED).encode()[1:] + b"\0"

    talk = Talk()
    relay = talk.relay()
    assert talk.read(relay, talk.member(by_password()).begin(relay.shown, Short())) is None
