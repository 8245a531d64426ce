"""Log-ins with keys, from message 1 to a member: a network and members of it, with the engine's part played here."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest
from kit.keyed import CONFIRM, FIXED, Keyed, link_of
from kit.login import DEVICE, OTHER, PASSWORD, WALL, Talk, by_password
from kit.primitives import PRIMITIVES, pair
from kit.talk import ONE, ip

from candy.member.login import Credentials, Ticket
from candy.protocol import auth, control, wire
from candy.protocol.actions import Close, Drop, Ping, Secure, Send
from candy.protocol.closing import CloseCode
from candy.protocol.control import Approved, Closing
from candy.protocol.hello import Hello
from candy.protocol.keys import fingerprint
from candy.protocol.login import Asked, Tells
from candy.protocol.noise import Cipher
from candy.relay import enrolment
from candy.relay.enrolment import Admit
from candy.relay.guessing import FailureLimiter
from candy.relay.passwords import Password, Passwords
from candy.relay.recording import Outcome
from candy.relay.reservations import Reservation
from candy.relay.rules import Rule
from candy.relay.session import Bind, Record, Unbind


@pytest.fixture
def keyed() -> Keyed:
    return Keyed()


def test_one_round_trip_and_a_confirmation(keyed: Keyed) -> None:
    connection, outcome = keyed.answered(by_password(), asked=Asked(hello=Hello("linux", "7.0", "laptop")))
    assert outcome.told.address == IPv4Interface("192.168.202.1/24")
    assert any(outcome.told.lease)
    assert outcome.told.clock == WALL
    assert outcome.ticket is not None
    # Until then it has nothing.
    assert keyed.network.members == 0
    assert keyed.receive(connection, CONFIRM) == [Bind(connection, int(ip(1)))]
    [lease] = keyed.network.register.leases(WALL)
    assert (lease.vmac, lease.name, lease.is_connected) == (DEVICE.public, "laptop", True)
    assert keyed.network.pool.leases.number(next(iter(keyed.network.pool.leases)), b"x" * 8) == outcome.told.lease


def test_no_ping_says_who_it_is(keyed: Keyed) -> None:
    connection, _ = keyed.member(by_password(), asked=Asked(hello=Hello("linux", "7.0", "laptop")))
    assert keyed.keep(keyed.network.pinged(connection, b"candy::linux::7.0::server", keyed.now, WALL)) == []
    [lease] = keyed.network.register.leases(WALL)
    assert lease.name == "laptop"


def test_it_comes_back_by_its_own_credential_to_its_own_lease(keyed: Keyed) -> None:
    connection, first = keyed.member(by_password())
    keyed.close(connection)
    keyed.member(by_password(), OTHER, replace(FIXED, address=IPv4Interface("192.168.202.77/24")))
    own = Credentials(ticket=first.ticket)
    connection, again = keyed.answered(own)
    assert (again.told.address, again.told.lease) == (first.told.address, first.told.lease)
    assert again.ticket is None


def test_what_proves_nothing_ends_without_a_word(keyed: Keyed) -> None:
    for credentials in (by_password(Password(b"wrong")), Credentials(ticket=Ticket(bytes([1]) * 16, bytes(32)))):
        connection, _, actions = keyed.begin(credentials)
        assert actions == [Close(connection, None, "authentication failed")]
        assert "wrong password in LOGIN" in keyed.log[-1]
        assert keyed.receive(connection, CONFIRM) == []


@pytest.mark.parametrize("message", [CONFIRM, bytes([21]), wire.Discovery(ip(1), ip(2)).encode()])
def test_the_first_message_is_a_log_in(keyed: Keyed, message: bytes) -> None:
    keyed.network.opened_with_keys(1, "203.0.113.1", keyed.now, keyed.talk.relay())
    drop, close = keyed.receive(1, message)
    assert (drop, close) == (Drop(1, "bad_login"), Close(1, None, "authentication failed"))


def test_there_is_no_second_log_in(keyed: Keyed) -> None:
    connection, _ = keyed.answered(by_password())
    relay, member = keyed.talk.relay(), keyed.talk.member(by_password())
    actions = keyed.receive(connection, member.begin(relay.shown, Asked()))
    assert actions[0] == Drop(connection, "bad_login")
    assert isinstance(actions[-1], Close)
    assert keyed.network.members == 0


def test_before_it_has_confirmed_it_is_nobody(keyed: Keyed) -> None:
    connection, _ = keyed.answered(by_password())
    for message in (wire.Discovery(ip(1), ip(2)).encode(), control.Ask((ip(2),)).encode()):
        [drop] = keyed.receive(connection, message)
        assert isinstance(drop, Drop)
    keyed.now += 10.0
    assert keyed.keep(keyed.network.expired(keyed.now, WALL)) == [Close(connection, None, "authentication timed out")]


def test_message_1_alone_replaces_nobody(keyed: Keyed) -> None:
    first, outcome = keyed.member(by_password())
    second, again = keyed.answered(Credentials(ticket=outcome.ticket))
    assert again.told.address == outcome.told.address
    assert keyed.network.members == 1
    unbind, closing, close, bind = keyed.receive(second, CONFIRM)
    told = "another connection with the same key took 192.168.202.1 over"
    assert (unbind, bind) == (Unbind(first), Bind(second, int(ip(1))))
    assert (closing, close) == (
        Send(first, Closing(CloseCode.REPLACED, told).encode()),
        Close(first, CloseCode.REPLACED, told),
    )


def test_a_fixed_address(keyed: Keyed) -> None:
    connection, outcome = keyed.member(by_password(), asked=FIXED)
    assert outcome.told.address == FIXED.address
    outside = replace(FIXED, address=IPv4Interface("10.0.0.1/24"))
    assert keyed.refused(by_password(), OTHER, outside).told.code == CloseCode.OUTSIDE_POOL
    # It is its own, as long as its lease is.
    for _ in range(2):
        why = "192.168.202.9 is leased to a device with a key of its own"
        assert keyed.refused(by_password(), OTHER, FIXED).told.text == why
        keyed.close(connection)


def test_a_fixed_address_that_an_old_client_has(keyed: Keyed) -> None:
    connection, _ = keyed.old(ip(9))
    newcomer, member, [ping] = keyed.begin(by_password(), OTHER, FIXED)
    assert isinstance(ping, Ping)
    assert ping.connection == connection
    send, close = keyed.keep(keyed.network.ponged(connection, ping.payload, keyed.now, WALL))
    assert isinstance(send, Send)
    assert member.read(send.payload).told.code == CloseCode.ADDRESS_HELD
    assert close == Close(newcomer, CloseCode.ADDRESS_HELD, "192.168.202.9 is held by another member, which answers")


def test_an_address_reserved_for_a_key(keyed: Keyed) -> None:
    keyed.network.reserve(Reservation.of(ip(9), f"key:{fingerprint(DEVICE.public)}"), keyed.now)
    assert keyed.refused(by_password(), OTHER, FIXED).told.text == "192.168.202.9 is reserved for another device"
    _, outcome = keyed.member(by_password())
    assert outcome.told.address == FIXED.address


def test_one_key_on_two_machines_is_worth_a_warning(keyed: Keyed) -> None:
    _, outcome = keyed.member(by_password())
    for _ in range(3):
        keyed.member(Credentials(ticket=outcome.ticket))
    assert any("two machines use this key" in line for line in keyed.log)


def test_an_address_whose_holder_is_silent(keyed: Keyed) -> None:
    holder, _ = keyed.old(ip(9))
    newcomer, member, [_] = keyed.begin(by_password(), OTHER, FIXED)
    keyed.now += 3.0
    unbind, close, record = keyed.keep(keyed.network.expired(keyed.now, WALL))
    assert unbind == Unbind(holder)
    assert close == Close(holder, CloseCode.REPLACED, "another login took over the address")
    assert record == Record(newcomer)
    _, send = keyed.keep(keyed.network.recorded(newcomer, Outcome.KEPT, keyed.now, WALL))
    assert isinstance(send, Send)
    assert member.read(send.payload).is_in
    assert keyed.receive(newcomer, CONFIRM) == [Bind(newcomer, int(ip(9)))]


def test_the_address_is_kept_until_it_has_confirmed(keyed: Keyed) -> None:
    connection, _ = keyed.answered(by_password(), asked=FIXED)
    _, actions = keyed.old(ip(9))
    assert isinstance(actions[-1], Close)
    assert "was granted to another member" in keyed.log[-1]
    assert keyed.receive(connection, CONFIRM) == [Bind(connection, int(ip(9)))]


def test_a_pool_that_is_full_is_told(keyed: Keyed) -> None:
    full = Keyed(options={"pool": "192.168.202.0/30"})
    full.member(by_password())
    full.member(by_password(), OTHER)
    third = pair(bytes([0x14]) * 32)
    assert full.refused(by_password(), third).told.code == CloseCode.POOL_FULL
    assert Keyed(options={"pool": None}).refused(by_password()).told.code == CloseCode.NO_POOL
    assert Keyed(options={"max_members": 0}).refused(by_password()).told.code == CloseCode.TRY_AGAIN_LATER


def test_a_lease_of_a_vmac_goes_on_under_the_key(keyed: Keyed) -> None:
    keyed.old(ip(50), ONE, close=True)
    connection, outcome = keyed.member(by_password(), asked=Asked(vmac=ONE))
    assert outcome.told.address.ip == ip(50)
    keyed.close(connection)
    # From then on the VMAC has it no more, connected or not.
    for vmac in (ONE, None):
        _, actions = keyed.old(ip(50), vmac)
        assert isinstance(actions[-1], Close)
        assert "is leased to a device with a key" in keyed.log[-1]
    assert keyed.answered(Credentials(ticket=outcome.ticket))[1].told.address.ip == ip(50)


def away_at_9(keyed: Keyed) -> None:
    """A device has its lease there, and is not connected."""
    connection, _ = keyed.member(by_password(), asked=FIXED)
    keyed.close(connection)


@pytest.mark.parametrize("ends", ["revoke", "release", "expire", "reserve"])
def test_a_key_s_address_goes_to_another_s_when_its_lease_counts_no_more(keyed: Keyed, ends: str) -> None:
    away_at_9(keyed)
    assert keyed.refused(by_password(), OTHER, FIXED).told.code == CloseCode.ADDRESS_HELD
    match ends:
        case "revoke":
            keyed.network.revoke(DEVICE.public, keyed.now, WALL)
        case "release":
            keyed.network.register.release(ip(9))
        case "expire":
            keyed.wall += 31 * 86400
        case "reserve":
            reservation = Reservation.of(ip(9), f"key:{fingerprint(OTHER.public)}")
            keyed.network.reserve(reservation, keyed.now)
    assert keyed.answered(by_password(), OTHER, FIXED)[1].told.address == FIXED.address


def test_a_name_gets_nobody_the_address_of_a_key(keyed: Keyed) -> None:
    keyed.network.reserve(Reservation.of(ip(9), "laptop"), keyed.now)
    laptop = Asked(hello=Hello("linux", "7.0", "laptop"))
    connection, outcome = keyed.member(by_password(), asked=laptop)
    # It has said its name with its first log-in, and has the address with its second.
    keyed.close(connection)
    connection, outcome = keyed.member(by_password(), asked=laptop)
    assert outcome.told.address.ip == ip(9)
    keyed.close(connection)
    for _ in range(2):
        connection, outcome = keyed.member(by_password(), OTHER, laptop)
        assert outcome.told.address.ip != ip(9)
        keyed.close(connection)


def test_a_full_pool_grants_what_a_key_has_to_another(keyed: Keyed) -> None:
    keyed = Keyed(options={"pool": "192.168.202.0/30"})
    for device in (DEVICE, OTHER):
        connection, _ = keyed.member(by_password(), device)
        keyed.close(connection)
    connection, outcome = keyed.member(by_password(), pair(bytes([0x14]) * 32))
    assert outcome.told.address.ip == ip(1)


def test_an_old_client_that_is_there_keeps_its_lease(keyed: Keyed) -> None:
    keyed.old(ip(50), ONE)
    _, outcome = keyed.member(by_password(), asked=Asked(vmac=ONE))
    assert outcome.told.address.ip != ip(50)


def test_addresses_of_a_password_bind(keyed: Keyed) -> None:
    bound = Password(b"bound", addresses=IPv4Network("192.168.202.64/30"))
    keyed = Keyed(Talk(passwords=(bound,)))
    connection, outcome = keyed.member(by_password(bound))
    assert outcome.told.address.ip == ip(64)
    assert keyed.refused(by_password(bound), OTHER, FIXED).told.code == CloseCode.OUTSIDE_POOL
    # They stay with the device.
    keyed.close(connection)
    assert keyed.refused(Credentials(ticket=outcome.ticket), asked=FIXED).told.code == CloseCode.OUTSIDE_POOL


def test_an_invitation_with_an_address(keyed: Keyed) -> None:
    its = keyed.talk.enrolment.invite("phone", IPv4Network("192.168.202.33/32"), 1, WALL + 60, WALL)
    link = link_of(its)
    _, outcome = keyed.member(Credentials(invitation=link))
    assert outcome.told.address == IPv4Interface("192.168.202.33/24")
    assert keyed.refused(Credentials(invitation=link), OTHER).told.code == CloseCode.INVITATION_ENDED


def test_two_that_wait_for_addresses_do_not_share_one_use(keyed: Keyed) -> None:
    its = keyed.network.enrolment.invite("", None, 1, WALL + 60, WALL)
    members = {}
    for last, device in ((50, DEVICE), (51, OTHER)):
        # Held by an old client that does not answer.
        keyed.old(ip(last))
        asked = replace(FIXED, address=IPv4Interface((ip(last), 24)))
        connection, member, [ping] = keyed.begin(Credentials(invitation=link_of(its)), device, asked)
        assert isinstance(ping, Ping)
        members[connection] = member
    keyed.now += 3.0
    first, second = members
    actions = keyed.keep(keyed.network.expired(keyed.now, WALL))
    [send] = [action for action in actions if isinstance(action, Send)]
    assert send.connection == second
    assert members[second].read(send.payload).told.code == CloseCode.INVITATION_ENDED
    assert Close(second, CloseCode.INVITATION_ENDED, "the invitation is used up or has expired") in actions
    assert Record(first) in actions
    assert [device.key for device in keyed.network.enrolment] == [DEVICE.public]
    assert keyed.receive(second, CONFIRM) == []


@pytest.mark.parametrize("change", ["password", "admit"])
def test_settings_that_change_while_it_waits_for_an_address_count(keyed: Keyed, change: str) -> None:
    keyed.old(ip(9))
    newcomer, member, [ping] = keyed.begin(by_password(), DEVICE, FIXED)
    assert isinstance(ping, Ping)
    if change == "admit":
        keyed.network.enrolment.admit = Admit.APPROVAL
        keyed.now += 3.0
        actions = keyed.network.expired(keyed.now, WALL)
        code = CloseCode.TRY_AGAIN_LATER
    else:
        # The old client goes, whose address it gets.
        actions = keyed.network.set_passwords(Passwords([Password(b"new")]), keyed.now, WALL)
        code = CloseCode.PASSWORD_ENDED
    actions = keyed.keep(actions)
    assert [member.read(action.payload).told.code for action in actions if isinstance(action, Send)] == [code]
    assert [action.code for action in actions if isinstance(action, Close) and action.connection == newcomer] == [code]
    assert list(keyed.network.enrolment) == []
    assert keyed.network.members == 0


def test_who_waits_for_approval_and_is_gone_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrolment, "WAITING_MAX", 1)
    keyed = Keyed(Talk(Admit.APPROVAL))
    connection, first = keyed.answered(by_password())
    assert keyed.refused(by_password(), OTHER).told.code == CloseCode.TRY_AGAIN_LATER
    keyed.close(connection)
    assert keyed.answered(by_password(), OTHER)[1].waits
    assert [device.key for device in keyed.network.enrolment] == [OTHER.public]
    connection, _, [close] = keyed.begin(Credentials(ticket=first.ticket))
    assert close == Close(connection, None, "authentication failed")


def test_who_has_confirmed_keeps_its_credential_without_a_lease(keyed: Keyed) -> None:
    connection, outcome = keyed.member(by_password())
    unconfirmed, lost = keyed.answered(by_password(), OTHER)
    for each in (connection, unconfirmed):
        keyed.close(each)
    keyed.wall += 100 * 86400
    assert keyed.member(Credentials(ticket=outcome.ticket))[1].is_in
    assert [device.key for device in keyed.network.enrolment] == [DEVICE.public]
    assert keyed.begin(Credentials(ticket=lost.ticket), OTHER)[2] == [Close(4, None, "authentication failed")]


def test_a_refusal_uses_up_no_invitation(keyed: Keyed) -> None:
    its = keyed.talk.enrolment.invite("phone", None, 1, WALL + 60, WALL)
    outside = replace(FIXED, address=IPv4Interface("10.0.0.1/24"))
    assert keyed.refused(Credentials(invitation=link_of(its)), asked=outside).told.code == CloseCode.OUTSIDE_POOL
    assert list(keyed.talk.enrolment) == []
    keyed.member(Credentials(invitation=link_of(its)), OTHER)


def test_what_can_not_be_written_down(keyed: Keyed) -> None:
    keyed.outcome = Outcome.UNKEPT
    its = keyed.talk.enrolment.invite("phone", None, 1, WALL + 60, WALL)
    assert keyed.refused(Credentials(invitation=link_of(its))).told.code == CloseCode.TRY_AGAIN_LATER
    assert list(keyed.talk.enrolment) == []
    _, outcome = keyed.member(by_password(), OTHER)
    assert outcome.ticket is None
    keyed.outcome = Outcome.KEPT
    keyed.member(Credentials(invitation=link_of(its)))


def test_a_device_without_a_credential_ends_with_its_password(keyed: Keyed) -> None:
    keyed.member(by_password())
    keyed.outcome = Outcome.UNKEPT
    without, _ = keyed.member(by_password(), OTHER)
    actions = keyed.keep(keyed.network.set_passwords(Passwords([Password(b"new")]), keyed.now, WALL))
    assert [action for action in actions if isinstance(action, Close)] == [
        Close(without, CloseCode.PASSWORD_ENDED, "the password by which this member logged in holds no more")
    ]


def test_a_device_waits_for_approval_and_is_let_in(keyed: Keyed) -> None:
    keyed = Keyed(Talk(Admit.APPROVAL))
    connection, outcome = keyed.answered(by_password())
    assert outcome.waits
    assert (outcome.told.address.ip, outcome.told.lease) == (IPv4Address(0), bytes(8))
    assert outcome.ticket is not None
    assert keyed.receive(connection, CONFIRM) == []
    assert keyed.receive(connection, wire.Discovery(ip(1), ip(2)).encode()) == [Drop(connection, "not_authenticated")]
    # It may take days.
    keyed.now += 86400.0
    assert keyed.keep(keyed.network.expired(keyed.now, WALL)) == []
    bind, send = keyed.keep(keyed.network.approve(DEVICE.public, keyed.now, WALL))
    assert bind == Bind(connection, int(ip(1)))
    assert isinstance(send, Send)
    approved = control.decode(send.payload)
    assert isinstance(approved, Approved)
    assert approved.address == IPv4Interface("192.168.202.1/24")
    assert any(approved.lease)
    keyed.close(connection)
    again = keyed.answered(Credentials(ticket=outcome.ticket))[1]
    assert (again.told.address, again.told.lease) == (approved.address, approved.lease)


def test_a_device_that_is_approved_before_it_has_confirmed(keyed: Keyed) -> None:
    keyed = Keyed(Talk(Admit.APPROVAL))
    connection, _ = keyed.answered(by_password())
    assert keyed.keep(keyed.network.approve(DEVICE.public, keyed.now, WALL)) == []
    assert keyed.receive(connection, CONFIRM)[0] == Bind(connection, int(ip(1)))


def test_a_revoked_device_is_out_at_once(keyed: Keyed) -> None:
    keyed = Keyed(Talk(Admit.PASSWORD))
    member, outcome = keyed.member(by_password())
    told = Closing(CloseCode.DEVICE_REVOKED, "this device was revoked").encode()
    actions = keyed.keep(keyed.network.revoke(DEVICE.public, keyed.now, WALL))
    close = Close(member, CloseCode.DEVICE_REVOKED, "this device was revoked")
    assert actions == [Unbind(member), Send(member, told), close]
    for credentials in (Credentials(ticket=outcome.ticket), by_password()):
        assert keyed.refused(credentials).told.code == CloseCode.DEVICE_REVOKED
    waiting = Keyed(Talk(Admit.APPROVAL))
    connection, _ = waiting.answered(by_password())
    actions = waiting.keep(waiting.network.revoke(DEVICE.public, waiting.now, WALL))
    assert actions == [Send(connection, told), Close(connection, CloseCode.DEVICE_REVOKED, "this device was revoked")]


def test_who_guesses_waits_in_line_and_who_has_a_credential_does_not(keyed: Keyed) -> None:
    keyed = Keyed(options={"failures": FailureLimiter(2)})
    _, outcome = keyed.member(by_password())
    for _ in range(2):
        keyed.begin(by_password(Password(b"wrong")), source="198.51.100.1")
    _, member, actions = keyed.begin(by_password(), OTHER, source="198.51.100.1")
    assert actions == []
    own = keyed.begin(Credentials(ticket=outcome.ticket), source="198.51.100.1")[2]
    assert isinstance(own[0], Secure)
    keyed.now += 0.25
    [record] = keyed.keep(keyed.network.expired(keyed.now, WALL))
    assert isinstance(record, Record)
    secure, send = keyed.keep(keyed.network.recorded(record.connection, Outcome.KEPT, keyed.now, WALL))
    assert isinstance(send, Send)
    assert isinstance(secure, Secure)
    assert member.read(send.payload).is_in


def test_the_old_log_in_is_not_spoken_there(keyed: Keyed) -> None:
    connection, _ = keyed.member(by_password())
    digest = auth.auth_digest(PASSWORD.secret, ip(5), WALL)
    drop = Drop(connection, "unexpected_kind")
    assert keyed.receive(connection, wire.Auth(ip(5), WALL, digest).encode()) == [drop]
    keyed.network.opened_with_keys(99, "203.0.113.99", keyed.now, keyed.talk.relay())
    assert keyed.receive(99, wire.Auth(ip(5), WALL, digest).encode())[0] == Drop(99, "bad_login")


def test_routes_and_what_lies_behind_are_told_within_control(keyed: Keyed) -> None:
    rule = Rule.parse("192.168.202.0/24,172.16.0.0/16,192.168.202.9")
    connection, _ = keyed.answered(by_password(), asked=FIXED)
    keyed.network.set_rules(keyed.network.rules.__class__([rule]), keyed.now)
    bind, behind = keyed.receive(connection, CONFIRM)
    assert isinstance(behind, Send)
    assert isinstance(control.decode(behind.payload), wire.Behind)
    assert bind == Bind(connection, int(ip(9)))


def test_the_answer_says_that_sources_are_not_checked(keyed: Keyed) -> None:
    assert not keyed.answered(by_password())[1].told.flags & Tells.CHECKS_NO_SOURCE
    unchecked = Keyed(options={"tell_gateways": False})
    assert unchecked.answered(by_password())[1].told.flags & Tells.CHECKS_NO_SOURCE


def test_keys_of_the_connection_seal_what_follows(keyed: Keyed) -> None:
    _, member, [secure, send] = keyed.begin(by_password())
    assert isinstance(secure, Secure)
    assert isinstance(send, Send)
    outcome = member.read(send.payload)
    sealed = control.seal(Cipher(PRIMITIVES, outcome.sends), CONFIRM)
    assert control.opened(Cipher(PRIMITIVES, secure.receives), sealed) == CONFIRM
