"""Devices with keys: who is let in by what, how often, and what is kept of it."""

from dataclasses import replace
from ipaddress import IPv4Network
from random import Random

import pytest

from candy.errors import RequestError
from candy.protocol.closing import CloseCode
from candy.protocol.keys import of_device, of_invitation
from candy.protocol.login import NO_SELECTOR, Credential, Login
from candy.relay import enrolment
from candy.relay.enrolment import AGAIN_S, FAILURES_MAX, WAITING_MAX, Admit, Device, Enrolment, Proof, Standing
from candy.relay.leases import DAY_S, Leases
from candy.relay.passwords import Password

WALL = 1_800_000_000
NETWORK = bytes([9]) * 32
KEY, OTHER = bytes([1]) * 32, bytes([2]) * 32
LAN = IPv4Network("10.0.0.16/28")
PASSWORD = Proof(bytes(32), Password(b"secret", "office", addresses=LAN))


def made(admit: Admit = Admit.PASSWORD) -> Enrolment:
    return Enrolment(NETWORK, Random(1).randbytes, admit)


def invited(its: Enrolment, uses: int = 1, name: str = "laptop") -> Proof:
    invitation = its.invite(name, LAN, uses, WALL + 60, WALL)
    return Proof(of_invitation(invitation.secret, NETWORK), invitation)


def again(its: Enrolment, proof: Proof) -> Proof:
    """The same credential, as it is looked up by the next log-in."""
    assert isinstance(proof.by, enrolment.Invitation)
    [found] = its.candidates(Login(1, Credential.INVITATION, proof.by.selector, b""), ())
    return found


def own(its: Enrolment, device: Device) -> Proof:
    [found] = its.candidates(Login(1, Credential.DEVICE, device.selector, b""), ())
    assert found.psk == of_device(device.secret, NETWORK)
    return found


def code(its: Enrolment, proof: Proof, key: bytes = KEY, wall: int = WALL) -> int:
    return its.judge(proof, key, wall).code


def test_a_password_lets_a_new_device_in() -> None:
    its = made()
    assert code(its, PASSWORD) == 0
    device = its.enrol(PASSWORD, KEY, "laptop", WALL)
    assert (device.key, device.name, device.by, device.addresses) == (KEY, "laptop", "office", LAN)
    assert device.standing is Standing.ADMITTED
    assert device.number != 0
    assert its.get(KEY) is device


def test_the_same_device_gets_the_same_credential() -> None:
    its = made()
    first = its.enrol(PASSWORD, KEY, "laptop", WALL)
    assert its.enrol(PASSWORD, KEY, "other", WALL + 5) == first
    assert its.enrol(PASSWORD, OTHER, "other", WALL).secret != first.secret
    assert len(list(its)) == 2


def test_candidates() -> None:
    its = made()
    passwords = [Password(b"one"), Password(b"two"), Password(b"not stretched yet")]
    its.stretched = {b"one": bytes([1]) * 32, b"two": bytes([2]) * 32}
    found = its.candidates(Login(1, Credential.PASSWORD, NO_SELECTOR, b""), passwords)
    assert found == [Proof(bytes([1]) * 32, passwords[0]), Proof(bytes([2]) * 32, passwords[1])]
    for credential in (Credential.INVITATION, Credential.DEVICE, Credential.NONE):
        assert its.candidates(Login(1, credential, bytes([5]) * 16, b""), passwords) == []


def test_a_devices_credential_is_its_keys_alone() -> None:
    its = made()
    proof = own(its, its.enrol(PASSWORD, KEY, "", WALL))
    assert its.is_of(proof, KEY)
    assert not its.is_of(proof, OTHER)
    assert its.is_of(PASSWORD, OTHER)
    assert code(its, proof) == 0
    assert its.enrol(proof, KEY, "", WALL).has_come


def test_an_invitation_lets_in_as_many_as_it_says() -> None:
    its = made(Admit.INVITE)
    proof = invited(its, uses=2)
    for key in (KEY, OTHER):
        assert code(its, again(its, proof), key) == 0
        device = its.enrol(again(its, proof), key, "says so", WALL)
        assert (device.name, device.by, device.addresses) == ("laptop", "laptop", LAN)
    assert code(its, again(its, proof), bytes(32)) == CloseCode.INVITATION_ENDED


def test_what_was_proven_before_counts_as_the_invitation_is_now() -> None:
    its = made(Admit.INVITE)
    proof = invited(its, uses=2)
    its.enrol(proof, KEY, "", WALL)
    assert code(its, proof, OTHER) == 0
    its.enrol(proof, OTHER, "", WALL)
    assert code(its, proof, bytes(32)) == CloseCode.INVITATION_ENDED
    its.expire(WALL + 60 + AGAIN_S)
    assert code(its, proof) == CloseCode.INVITATION_ENDED


def test_what_is_only_judged_uses_up_nothing() -> None:
    its = made()
    proof = invited(its)
    assert [code(its, again(its, proof), key) for key in (KEY, OTHER, KEY)] == [0, 0, 0]


def test_redeeming_is_idempotent() -> None:
    its = made()
    proof = invited(its)
    device = its.enrol(again(its, proof), KEY, "", WALL)
    # Message 2 was lost: also when the time is over, and for an hour.
    for wall in (WALL, WALL + 60, WALL + 59 + AGAIN_S):
        assert code(its, again(its, proof), wall=wall) == 0
        assert its.enrol(again(its, proof), KEY, "", wall) == device
    assert code(its, again(its, proof), wall=WALL + 60 + AGAIN_S) == CloseCode.INVITATION_ENDED
    # It has come by its credential.
    its.enrol(own(its, device), KEY, "", WALL)
    assert code(its, again(its, proof)) == CloseCode.INVITATION_ENDED


def test_an_invitation_ends_with_its_time() -> None:
    its = made()
    proof = invited(its)
    assert code(its, proof, wall=WALL + 59) == 0
    assert code(its, proof, wall=WALL + 60) == CloseCode.INVITATION_ENDED
    its.expire(WALL + 59 + AGAIN_S)
    assert list(its.invitations())
    its.expire(WALL + 60 + AGAIN_S)
    assert not list(its.invitations())
    assert list(its.changes()[1].values()) == [None]


def test_a_device_that_is_invited_again_keeps_its_credential() -> None:
    its = made()
    device = its.enrol(PASSWORD, KEY, "mine", WALL)
    its.enrol(own(its, device), KEY, "", WALL)
    proof = invited(its)
    later = its.enrol(proof, KEY, "", WALL + 5)
    assert (later.selector, later.secret, later.number) == (device.selector, device.secret, device.number)
    assert (later.by, later.has_come) == ("laptop", False)
    assert code(its, again(its, proof), OTHER) == CloseCode.INVITATION_ENDED


def test_invited_only() -> None:
    its = made(Admit.INVITE)
    assert code(its, PASSWORD) == CloseCode.INVITED_ONLY
    its.enrol(invited(its), KEY, "", WALL)
    assert code(its, PASSWORD) == 0


def test_new_devices_wait_for_approval() -> None:
    its = made(Admit.APPROVAL)
    assert code(its, PASSWORD) == CloseCode.APPROVAL_AWAITED
    device = its.enrol(PASSWORD, KEY, "laptop", WALL)
    assert device.standing is Standing.WAITING
    assert code(its, own(its, device)) == code(its, PASSWORD) == CloseCode.APPROVAL_AWAITED
    assert its.approve(KEY).standing is Standing.ADMITTED
    assert code(its, own(its, device)) == code(its, PASSWORD) == 0
    # The operator who gave an invitation has approved.
    assert code(its, invited(its), OTHER) == 0


def test_a_few_wait_and_no_more() -> None:
    its = made(Admit.APPROVAL)
    keys = [number.to_bytes(32, "big") for number in range(1, WAITING_MAX + 1)]
    for connection, key in enumerate(keys):
        its.enrol(PASSWORD, key, "", WALL)
        its.waits(connection, key)
    assert code(its, PASSWORD) == CloseCode.TRY_AGAIN_LATER
    assert code(its, PASSWORD, keys[0]) == CloseCode.APPROVAL_AWAITED
    its.revoke(keys[0], WALL)
    assert code(its, PASSWORD) == CloseCode.APPROVAL_AWAITED


def test_of_those_that_wait_the_one_away_longest_makes_room() -> None:
    its = made(Admit.APPROVAL)
    keys = [number.to_bytes(32, "big") for number in range(1, WAITING_MAX + 1)]
    for connection, key in enumerate(keys):
        its.enrol(PASSWORD, key, "", WALL)
        its.waits(connection, key)
    for connection in (5, 3):
        its.left(connection)
    its.changes()
    for newcomer, gone in ((KEY[:31] + b"x", keys[5]), (OTHER, keys[3])):
        assert code(its, PASSWORD, newcomer) == CloseCode.APPROVAL_AWAITED
        its.enrol(PASSWORD, newcomer, "", WALL)
        its.waits(len(keys) + newcomer[0], newcomer)
        assert its.get(gone) is None
        assert its.changes()[0] == {gone: None, newcomer: its.get(newcomer)}
    assert code(its, PASSWORD, bytes(32)) == CloseCode.TRY_AGAIN_LATER
    assert len(list(its)) == WAITING_MAX


def test_who_never_confirmed_is_forgotten_after_a_day() -> None:
    its, leases = made(), Leases()
    lost, leased = (its.enrol(PASSWORD, key, "", WALL) for key in (KEY, OTHER))
    leases.claim(9, OTHER, "203.0.113.1")
    came = its.enrol(PASSWORD, bytes([3]) * 32, "", WALL)
    its.confirmed(came, None)
    invitation = its.invite("", None, 2, WALL + 10 * DAY_S, WALL)
    invited = its.enrol(Proof(bytes(32), invitation), bytes([4]) * 32, "", WALL)
    its.admit = Admit.APPROVAL
    approved, waiting = (its.enrol(PASSWORD, bytes([number]) * 32, "", WALL) for number in (5, 6))
    its.approve(approved.key)
    proof = own(its, lost)
    its.tidy(WALL + DAY_S - 3600, leases)
    assert its.get(KEY) is lost
    its.tidy(WALL + DAY_S, leases)
    assert its.get(KEY) is None
    assert {device.key for device in its} == {each.key for each in (leased, came, invited, approved, waiting)}
    # Its credential is none any more.
    assert its.candidates(Login(1, Credential.DEVICE, lost.selector, b""), ()) == []
    assert its.changes()[0][KEY] is None
    assert proof.by == lost


def test_a_revoked_device_is_forgotten_when_it_would_have_lost_its_lease() -> None:
    its, leases = made(), Leases(days=30)
    invitation = its.invite("", None, 2, WALL + 40 * DAY_S, WALL)
    by_link = Proof(bytes(32), invitation)
    device = its.enrol(PASSWORD, KEY, "", WALL - 100 * DAY_S)
    its.enrol(by_link, OTHER, "", WALL)
    leases.wall = WALL
    leases.claim(9, KEY, "203.0.113.1")
    leases.left(9)
    for key in (KEY, OTHER):
        its.revoke(key, WALL)
    its.tidy(WALL + 31 * DAY_S, leases)
    assert len(list(its)) == 2
    leases.end(9)
    its.tidy(WALL + 32 * DAY_S, leases)
    assert its.get(KEY) is None
    assert its.candidates(Login(1, Credential.DEVICE, device.selector, b""), ()) == []
    # By its invitation it could come again.
    assert code(its, by_link, OTHER, WALL + 32 * DAY_S) == CloseCode.DEVICE_REVOKED
    its.expire(WALL + 40 * DAY_S + AGAIN_S)
    its.tidy(WALL + 41 * DAY_S, leases)
    assert list(its) == []
    forever = made()
    forever.enrol(PASSWORD, KEY, "", WALL)
    forever.revoke(KEY, WALL)
    forever.tidy(WALL + 1000 * DAY_S, Leases(days=0))
    assert forever.get(KEY) is not None


def test_a_revoked_key_is_told_so_whatever_it_proves() -> None:
    its = made()
    device = its.enrol(PASSWORD, KEY, "laptop", WALL)
    its.revoke(KEY, WALL)
    for proof in (PASSWORD, invited(its), own(its, device)):
        assert code(its, proof) == CloseCode.DEVICE_REVOKED
        assert code(its, PASSWORD, OTHER) == 0
    with pytest.raises(RequestError, match="was revoked"):
        its.approve(KEY)


def test_there_is_room_for_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrolment, "DEVICES_MAX", 1)
    monkeypatch.setattr(enrolment, "INVITATIONS_MAX", 1)
    its = made()
    its.enrol(PASSWORD, KEY, "", WALL)
    proof = invited(its)
    assert code(its, PASSWORD, OTHER) == code(its, proof, OTHER) == CloseCode.TRY_AGAIN_LATER
    assert code(its, PASSWORD) == 0
    with pytest.raises(RequestError, match="1 invitations"):
        invited(its)


def test_who_need_not_wait_in_line() -> None:
    its = made()
    device = its.enrol(PASSWORD, KEY, "", WALL)
    login = Login(1, Credential.DEVICE, device.selector, b"")
    strange = replace(login, selector=bytes([5]) * 16)
    assert its.is_trusted(login, 0.0)
    assert not its.is_trusted(strange, 0.0)
    for number in range(FAILURES_MAX):
        assert its.is_trusted(login, float(number))
        its.failed(login, float(number))
        its.failed(strange, float(number))
    assert not its.is_trusted(login, 100.0)
    assert its.is_trusted(login, 3700.0)


def test_a_device_is_found() -> None:
    its = made()
    device = its.enrol(PASSWORD, KEY, "Laptop", WALL)
    for text in ("laptop", str(device.number), device.fingerprint, device.fingerprint[:9].upper()):
        assert its.find(text) == device
    for text in ("lap", device.fingerprint[:7], ""):
        with pytest.raises(RequestError, match="is no device"):
            its.find(text)
    its.enrol(PASSWORD, OTHER, "laptop", WALL)
    with pytest.raises(RequestError, match="more than one"):
        its.find("laptop")


def test_what_is_kept_comes_back() -> None:
    its = made()
    device = its.enrol(PASSWORD, KEY, "laptop", WALL)
    proof = invited(its)
    devices, invitations = its.changes()
    assert devices == {KEY: device}
    assert invitations == {_selector(proof): proof.by}
    assert its.changes() == ({}, {})
    assert its.rows() == (devices, invitations)
    later = made()
    later.restore([device], [each for each in invitations.values() if each is not None], WALL)
    assert later.get(KEY) == device
    assert later.rows() == its.rows()
    assert later.changes() == ({}, {})
    assert code(later, again(later, proof), OTHER) == 0


def _selector(proof: Proof) -> bytes:
    assert isinstance(proof.by, enrolment.Invitation)
    return proof.by.selector


def test_what_has_happened_since_counts_more() -> None:
    its = made()
    device = its.enrol(PASSWORD, KEY, "laptop", WALL)
    its.revoke(KEY, WALL)
    its.restore([device], [], WALL)
    found = its.get(KEY)
    assert found is not None
    assert found.standing is Standing.REVOKED


def test_secrets_are_in_no_repr() -> None:
    its = made()
    device = its.enrol(PASSWORD, KEY, "", WALL)
    proof = invited(its)
    assert isinstance(proof.by, enrolment.Invitation)
    for text in (repr(device), repr(proof), repr(own(its, device))):
        assert str(device.secret) not in text
        assert str(proof.by.secret) not in text
        assert str(proof.psk) not in text
