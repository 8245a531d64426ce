"""What members with keys are told of each other and of what lies behind whom, in memory."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface
from random import Random

import pytest
from kit.agreed import Others
from kit.keyed import CONFIRM, FIXED, Keyed
from kit.login import DEVICE, OTHER, by_password, relay_key
from kit.primitives import pair
from kit.talk import ONE, ip

from candy.protocol import control, wire
from candy.protocol.actions import Drop, Send
from candy.protocol.control import Ask, Peer, State, Tell
from candy.protocol.login import Asks
from candy.protocol.noise import KeyPair
from candy.relay.enrolment import Admit
from candy.relay.recording import Elsewhere
from candy.relay.rules import Rule, Rules
from candy.relay.session import Action
from candy.relay.telling import ASKERS_AT_ONCE, PAUSE_S

THIRD = pair(bytes([0x15]) * 32)


@pytest.fixture
def keyed() -> Keyed:
    return Keyed(options={"randbytes": Random(5).randbytes})


def enter(keyed: Keyed, last: int, device: KeyPair = DEVICE, flags: Asks = Asks(0)) -> int:  # noqa: B008
    asked = replace(FIXED, address=IPv4Interface((ip(last), 24)), flags=Asks.IS_FIXED | flags)
    return keyed.member(by_password(), device, asked)[0]


def ask(keyed: Keyed, connection: int, *addresses: int) -> list[Action]:
    return keyed.receive(connection, Ask(tuple(map(ip, addresses))).encode())


def told(actions: list[Action]) -> list[tuple[int, Peer]]:
    """By TELLs, and to which connection."""
    found = []
    for action in actions:
        if isinstance(action, Send) and isinstance(message := control.decode(action.payload), Tell):
            found += [(action.connection, peer) for peer in message.peers]
    return found


def owed(keyed: Keyed) -> list[tuple[int, Peer]]:
    """When its time has come."""
    due = keyed.network.next_deadline()
    keyed.now = max(keyed.now, due if due is not None else keyed.now)
    return told(keyed.keep(keyed.network.expired(keyed.now, keyed.wall)))


def test_who_is_asked_about_hears_of_it_once(keyed: Keyed) -> None:
    one, other = enter(keyed, 1), enter(keyed, 2, OTHER)
    (to_one, about_other), (to_other, about_one) = told(ask(keyed, one, 2))
    assert (to_one, about_other.key, about_other.flags) == (one, OTHER.public, Asks.IS_FIXED)
    assert (to_other, about_one.key, about_one.flags) == (other, DEVICE.public, Asks.IS_FIXED | Peer.UNASKED)
    assert len(told(ask(keyed, one, 2))) == 1
    # From then on it is told of changes, as of one that it did not ask about.
    keyed.close(one)
    [(connection, gone)] = owed(keyed)
    assert (connection, gone.state, gone.flags) == (other, State.AWAY, Peer.UNASKED)


def test_who_does_not_seal_does_not_hear(keyed: Keyed) -> None:
    one = enter(keyed, 1)
    enter(keyed, 2, OTHER, Asks.SEALS_NOTHING)
    keyed.old(ip(3), ONE)
    states = [peer.state for _, peer in told(ask(keyed, one, 1, 2, 3, 4))]
    assert states == [State.SEALS, State.CLEAR, State.CLEAR, State.NOBODY]


def test_an_old_client_without_a_lease_has_a_number_for_its_connection(keyed: Keyed) -> None:
    one = enter(keyed, 1)
    old, _ = keyed.old(ip(3))
    [(_, first)], [(_, again)] = told(ask(keyed, one, 3)), told(ask(keyed, one, 3))
    assert first.lease == again.lease != bytes(8)
    keyed.close(old)
    [(_, gone)] = owed(keyed)
    assert (gone.state, gone.lease) == (State.NOBODY, bytes(8))
    keyed.old(ip(3))
    [(_, another)] = owed(keyed)
    assert another.lease not in (first.lease, bytes(8))


def test_who_comes_and_goes_again_and_again_costs_no_more(keyed: Keyed) -> None:
    one = enter(keyed, 1)
    ask(keyed, one, 2)
    other = enter(keyed, 2, OTHER)
    assert [peer.state for _, peer in owed(keyed)] == [State.SEALS]
    for _ in range(5):
        keyed.close(other)
        other = enter(keyed, 2, OTHER)
    # Within a tenth of a second nobody is told anything, and then once, how it is.
    assert told(keyed.keep(keyed.network.expired(keyed.now + 0.05, keyed.wall))) == []
    assert [peer.state for _, peer in owed(keyed)] == [State.SEALS]
    assert owed(keyed) == []


def test_another_device_at_an_address_has_another_lease(keyed: Keyed) -> None:
    one, other = enter(keyed, 1), enter(keyed, 2, OTHER)
    [(_, before), _] = told(ask(keyed, one, 2))
    keyed.close(other)
    keyed.network.register.release(ip(2))
    enter(keyed, 2, THIRD)
    [(_, after)] = owed(keyed)
    assert (after.state, after.key) == (State.SEALS, THIRD.public)
    assert after.lease != before.lease
    assert after.device != before.device


def test_a_lease_that_ends_is_told(keyed: Keyed) -> None:
    one, other = enter(keyed, 1), enter(keyed, 2, OTHER)
    ask(keyed, one, 2)
    keyed.close(other)
    owed(keyed)
    keyed.network.register.release(ip(2))
    [(_, nobody)] = owed(keyed)
    assert nobody == Peer(ip(2), State.NOBODY)


def test_a_revocation_goes_to_all_at_once(keyed: Keyed) -> None:
    one, thief = enter(keyed, 1), enter(keyed, 2, OTHER)
    keyed.old(ip(3))
    actions = keyed.keep(keyed.network.revoke(OTHER.public, keyed.now, keyed.wall))
    [(connection, revoked)] = told(actions)
    assert (connection, revoked.state, revoked.key, revoked.address) == (one, State.REVOKED, OTHER.public, ip(2))
    assert thief not in {connection for connection, _ in told(actions)}
    # Also who asks later, until the address is another's.
    assert [peer.state for _, peer in told(ask(keyed, one, 2))] == [State.REVOKED]
    enter(keyed, 2, THIRD)
    assert [peer.state for _, peer in owed(keyed)] == [State.SEALS]


def test_a_revocation_is_no_business_of_who_waits_for_approval(keyed: Keyed) -> None:
    one, _ = enter(keyed, 1), enter(keyed, 2, OTHER)
    keyed.network.enrolment.admit = Admit.APPROVAL
    waiting, outcome = keyed.answered(by_password(), THIRD)
    assert outcome.waits
    assert keyed.receive(waiting, CONFIRM) == []
    actions = keyed.keep(keyed.network.revoke(OTHER.public, keyed.now, keyed.wall))
    assert {connection for connection, _ in told(actions)} == {one}


def test_who_many_ask_about_is_told_of_most_in_a_few_messages(keyed: Keyed) -> None:
    asked_about = enter(keyed, 1)
    askers = [enter(keyed, 2 + number, pair(bytes([0x40 + number]) * 32)) for number in range(40)]
    owed(keyed)
    at_once = [to for asker in askers for to, _ in told(ask(keyed, asker, 1)) if to == asked_about]
    assert len(at_once) == ASKERS_AT_ONCE
    messages, heard = 0, set[tuple[IPv4Address, int]]()
    while (due := keyed.network.next_deadline()) is not None and len(heard) < 40 - ASKERS_AT_ONCE:
        keyed.now = max(keyed.now, due)
        actions = keyed.keep(keyed.network.expired(keyed.now, keyed.wall))
        messages += len(actions)
        heard |= {(peer.address, peer.flags & Peer.UNASKED) for to, peer in told(actions) if to == asked_about}
    assert messages == 2
    assert heard == {(ip(2 + number), Peer.UNASKED) for number in range(ASKERS_AT_ONCE, 40)}
    # One at a time is told at once.
    keyed.now += 1.0
    late = enter(keyed, 60, OTHER)
    assert [to for to, _ in told(ask(keyed, late, 1))] == [late, asked_about]


def test_questions_have_an_allowance(keyed: Keyed) -> None:
    one = enter(keyed, 1)
    answered = 0
    while (actions := ask(keyed, one, *range(1, 65))) != [Drop(one, "ask_limit")]:
        answered += len(told(actions))
    assert 1000 < answered <= 1064 + 64
    keyed.now += 1.0
    assert told(ask(keyed, one, 1))


def test_nobody_asks_before_it_is_a_member(keyed: Keyed) -> None:
    connection, _ = keyed.answered(by_password())
    assert ask(keyed, connection, 1) == [Drop(connection, "not_authenticated")]


def test_new_keys_are_told_to_who_has_one(keyed: Keyed) -> None:
    one = enter(keyed, 1)
    keyed.old(ip(3))
    keyed.answered(by_password(), OTHER)
    key = relay_key(0x19).key
    assert keyed.network.renew(key) == [Send(one, control.RelayKey(key).encode())]
    assert keyed.talk.enrolment.relay == key.relay


def test_who_has_a_route_is_told_what_lies_behind_whom_and_the_key_of_the_next_hop(keyed: Keyed) -> None:
    rules = Rules([Rule.parse("192.168.202.0/24,172.16.0.0/16,192.168.202.9")])
    keyed.network.set_rules(rules, keyed.now)
    connection, _ = keyed.answered(by_password(), asked=FIXED)
    keyed.receive(connection, CONFIRM)
    other, _ = keyed.answered(by_password(), OTHER)
    _, *sent = keyed.receive(other, CONFIRM)
    decoded = [control.decode(send.payload) for send in sent if isinstance(send, Send)]
    assert [type(message) for message in decoded] == [Tell, wire.Behind, wire.Route]
    [hop] = decoded[0].peers  # type: ignore[union-attr]
    assert (hop.address, hop.key, hop.state) == (IPv4Address("192.168.202.9"), DEVICE.public, State.SEALS)
    # It has not asked: without the flag it would not listen.
    assert hop.flags & Peer.UNASKED
    # Where nothing leads there any more, both take that back.
    actions = keyed.keep(keyed.network.set_rules(Rules(), keyed.now))
    kinds = [(send.connection, type(control.decode(send.payload))) for send in actions if isinstance(send, Send)]
    assert sorted(kinds, key=str) == sorted(
        [(connection, wire.Behind), (other, wire.Behind), (other, wire.Route)], key=str
    )


def relays(actions: list[Action]) -> list[tuple[int, tuple[str, ...]]]:
    """By RELAYS, and to which connection."""
    found = []
    for action in actions:
        if isinstance(action, Send) and action.payload[:1] == bytes([control.Kind.RELAYS]):
            message = control.decode(action.payload)
            assert isinstance(message, control.Relays)
            found.append((action.connection, message.urls))
    return found


def test_members_with_keys_are_told_of_the_relays(keyed: Keyed, monkeypatch: pytest.MonkeyPatch) -> None:
    """At their log-in, and when they change; so many in a while."""
    one, (old, _) = enter(keyed, 1), keyed.old(ip(3), ONE)
    assert keyed.network.next_deadline() is None
    keyed.network.set_relays(["wss://a/", "wss://b/"])
    due = keyed.network.next_deadline()
    assert due is not None
    assert relays(keyed.keep(keyed.network.expired(keyed.now, keyed.wall))) == [(one, ("wss://a/", "wss://b/"))]
    assert keyed.network.next_deadline() is None
    asked = replace(FIXED, address=IPv4Interface((ip(2), 24)))
    other, _ = keyed.answered(by_password(), OTHER, asked)
    assert relays(keyed.receive(other, CONFIRM)) == [(other, ("wss://a/", "wss://b/"))]
    monkeypatch.setattr("candy.relay.telling.TELLS_AT_ONCE", 1)
    keyed.network.set_relays([])
    told = relays(keyed.keep(keyed.network.expired(keyed.now + PAUSE_S, keyed.wall)))
    # Who has left meanwhile is owed nothing.
    keyed.close({one, other}.difference(connection for connection, _ in told).pop())
    assert len(told) == 1
    assert relays(keyed.keep(keyed.network.expired(keyed.now + 2 * PAUSE_S, keyed.wall))) == []
    assert old not in [connection for connection, _ in told]


def test_who_is_at_another_relay_is_told_of_as_one_that_is_here(keyed: Keyed) -> None:
    """field: to a member that asked nobody was there, so the two had no session."""
    one, others = enter(keyed, 1), Others()
    keyed.network.share(others)
    theirs = (bytes([7]) * 8, Asks.HAS_AES, 1400, 9)
    others.members = {
        int(ip(2)): Elsewhere("us", OTHER.public, *theirs),
        int(ip(3)): Elsewhere("us", THIRD.public, bytes([8]) * 8, Asks.SEALS_NOTHING),
        int(ip(4)): Elsewhere("us", ONE, bytes([6]) * 8),
        int(ip(5)): Elsewhere("us", b""),
    }
    sealing, clear, old, unknown, nobody = (peer for _, peer in told(ask(keyed, one, 2, 3, 4, 5, 6)))
    assert sealing == Peer(ip(2), State.SEALS, Asks.HAS_AES, bytes([7]) * 8, 1400, OTHER.public, 9)
    assert (clear.state, clear.key) == (State.CLEAR, THIRD.public)
    assert (old.state, old.lease, old.key) == (State.CLEAR, bytes([6]) * 8, bytes(32))
    # It has a number for the relay that it is at, too.
    assert (unknown.state, any(unknown.lease)) == (State.CLEAR, True)
    assert nobody.state is State.NOBODY
    # It leaves: who has asked hears of it.
    del others.members[int(ip(2))]
    assert keyed.network.placed(int(ip(2))) == []
    [(connection, gone)] = owed(keyed)
    assert (connection, gone.address, gone.state) == (one, ip(2), State.NOBODY)
