"""The member's half of a log-in: which credential it uses, whom it refuses, and what it makes of an answer."""

from dataclasses import replace

import pytest
from kit.login import DEVICE, NETWORK, SEED, WALL, Talk, by_password, psk_of, relay_key

from candy.errors import TrustError
from candy.member.cures import CURES, FINAL
from candy.member.login import Credentials, Ticket, refusal
from candy.member.trust import Known
from candy.primitives import sign
from candy.protocol.closing import CloseCode
from candy.protocol.keys import RelayKey, of_device, of_invitation
from candy.protocol.link import Invitation
from candy.protocol.login import NO_SELECTOR, Asked, Credential, Login, Tells, Told
from candy.relay.enrolment import Admit

TICKET = Ticket(bytes([1]) * 16, bytes([2]) * 32)
INVITATION = Invitation(bytes(32), 0, WALL, bytes([3]) * 16, bytes([4]) * 32, WALL + 60)


def test_the_strongest_credential_alone_is_used() -> None:
    network = bytes([9]) * 32
    everything = Credentials(ticket=TICKET, invitation=INVITATION, stretched=lambda network: bytes(32))
    assert everything.choose(network) == (Credential.DEVICE, TICKET.selector, of_device(TICKET.secret, network))
    two = Credentials(invitation=INVITATION, stretched=lambda network: bytes(32))
    psk = of_invitation(INVITATION.secret, network)
    assert two.choose(network) == (Credential.INVITATION, INVITATION.selector, psk)
    assert by_password().choose(network) == (Credential.PASSWORD, NO_SELECTOR, psk_of(b"correct horse"))
    with pytest.raises(TrustError, match="run candy-client join"):
        Credentials().choose(network)


def test_a_refused_credential_is_not_followed_by_a_weaker_one() -> None:
    talk = Talk()
    everything = Credentials(ticket=TICKET, stretched=by_password().stretched)
    for _ in range(3):
        relay = talk.relay()
        message = talk.member(everything).begin(relay.shown, Asked())
        assert Login.decode(message, 1).credential is Credential.DEVICE
        assert talk.read(relay, message) is None


def test_nothing_is_said_to_a_relay_that_is_not_believed() -> None:
    talk = Talk()
    member = talk.member(by_password(), configured=bytes(32))
    with pytest.raises(TrustError, match="of another network"):
        member.begin(talk.relay().shown, Asked())
    kept = Known(0, relay_key().key.relay, WALL + 1, (NETWORK,))
    with pytest.raises(TrustError, match="that was replaced"):
        talk.member(by_password(), known=kept).begin(talk.relay().shown, Asked())


def test_a_relay_whose_key_is_of_low_order_is_refused() -> None:
    talk = Talk()
    talk.keys = replace(talk.keys, key=RelayKey.make(sign, SEED, NETWORK, bytes(32), 0, WALL))
    with pytest.raises(TrustError, match="can't be one"):
        talk.member(by_password()).begin(talk.relay().shown, Asked())


def test_what_is_kept_comes_with_the_answer() -> None:
    talk = Talk()
    outcome = talk.run(by_password())
    assert outcome.known == Known(0, talk.keys.key.relay, WALL, (NETWORK,))
    assert outcome.ticket is not None
    [device] = talk.enrolment
    assert outcome.ticket == Ticket(device.selector, device.secret)
    assert Ticket.decode(outcome.ticket.encode()) == outcome.ticket


def test_a_refusal_gives_no_credential() -> None:
    talk = Talk()
    relay, member = talk.relay(), talk.member(by_password())
    assert talk.read(relay, member.begin(relay.shown, Asked())) is not None
    told = Told(code=CloseCode.POOL_FULL, flags=Tells.GIVES_CREDENTIAL, selector=bytes([1]) * 16, text="full")
    outcome = member.read(relay.answer(told).message)
    assert (outcome.is_in, outcome.waits, outcome.is_final, outcome.ticket) == (False, False, False, None)


def test_one_that_waits_for_approval_has_its_credential() -> None:
    talk = Talk(Admit.APPROVAL)
    outcome = talk.run(by_password())
    assert (outcome.is_in, outcome.waits, outcome.is_final) == (False, True, False)
    assert outcome.ticket is not None
    talk.enrolment.approve(DEVICE.public)
    assert talk.run(Credentials(ticket=outcome.ticket)).is_in


def test_a_revoked_device_is_told_so_and_stops() -> None:
    talk = Talk()
    ticket = talk.run(by_password()).ticket
    talk.enrolment.revoke(DEVICE.public, WALL)
    for credentials in (Credentials(ticket=ticket), by_password()):
        outcome = talk.run(credentials)
        assert (outcome.told.code, outcome.is_final) == (CloseCode.DEVICE_REVOKED, True)
        assert "this device was revoked: ask the relay's operator" in refusal(outcome.told)


def test_only_a_member_without_a_key_may_log_in_as_old_ones_do() -> None:
    talk = Talk()
    assert talk.member(by_password()).has_key
    assert not talk.member(by_password(), configured=None).has_key
    assert talk.member(by_password(), configured=None, known=Known(0, bytes(32), 0, (NETWORK,))).has_key


def test_each_refusal_is_one_line() -> None:
    for code in (*CURES, 4999):
        line = refusal(Told(code=code, text="some reason"))
        assert line.startswith("refused by the relay: some reason")
        assert "\n" not in line
    assert set(CURES) >= FINAL
