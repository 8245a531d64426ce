"""A member's conversation with a key, from message 1 to its end, against the relay's half and against a network."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Interface
from typing import Any

import pytest
from kit.joining import answer
from kit.login import DEVICE, NETWORK, SEED, WALL, Talk, by_password
from kit.primitives import PRIMITIVES
from kit.talk import network as a_network

from candy.member.acceptance import Acceptance
from candy.member.conversation import (
    Action,
    Admitted,
    Configure,
    Identity,
    Join,
    Keep,
    KeepKeys,
    LearnRelays,
    NetworkChanged,
    SetPlacements,
    SetRoutes,
    Shake,
    Tell,
)
from candy.member.cures import CURES, FINAL
from candy.member.keyed import ANSWER_S, KeyedConversation
from candy.member.login import Credentials, Ticket
from candy.member.routeset import RouteSet
from candy.primitives import sign, signing_public, verify
from candy.protocol import control, keys, wire
from candy.protocol.actions import Close, Drop, Log, Secure, Send
from candy.protocol.closing import CloseCode
from candy.protocol.control import Approved, Closing, Confirm
from candy.protocol.handshake import HANDSHAKE
from candy.protocol.login import Asked, Login, Tells, Told
from candy.relay.login import Claim, LogIn
from candy.relay.pool import Pool
from candy.relay.recording import Outcome as Recorded
from candy.relay.session import Bind, Record

ADDRESS = IPv4Interface("192.168.202.9/24")
TOLD = Told(address=ADDRESS, lease=bytes([7]) * 8, clock=WALL)
CONNECTION = 5


def identity(address: IPv4Interface | None = None) -> Identity:
    return Identity(
        password=b"", vmac=b"0" * 16, address=address, hello=b"", randbytes=bytes, acceptance=Acceptance(())
    )


class Spoken:
    """A conversation, and the relay's half of its log-in."""

    def __init__(self, talk: Talk | None = None, credentials: Credentials | None = None, **others: Any) -> None:
        self.talk = talk if talk is not None else Talk()
        self.relay: LogIn = self.talk.relay()
        asked = others.pop("asked", Asked())
        own = others.pop("identity", identity())
        self.said = KeyedConversation(
            own,
            CONNECTION,
            RouteSet(),
            log_in=self.talk.member(credentials or by_password(), **others),
            shown=self.relay.shown,
            asked=asked,
            verify=verify,
        )
        self.opened = self.said.opened(0.0)
        self.claim: Claim | None = None
        self.channel: control.Channel
        """The relay's end, behind its answer."""

    def tell(self, told: Told, now: float = 0.1) -> list[Action]:
        """The relay's answer."""
        [send] = self.opened
        assert isinstance(send, Send)
        self.claim = self.talk.read(self.relay, send.payload)
        assert self.claim is not None
        answer = self.relay.answer(told)
        self.channel = control.Channel(PRIMITIVES, answer.sends, answer.receives)
        return self.said.received(answer.message, now, WALL)

    def receive(self, message: bytes, now: float = 0.2) -> list[Action]:
        """Within a CONTROL of the relay's."""
        return self.said.received(self.channel.seal(message), now, WALL)

    def confirmed(self, actions: list[Action]) -> None:
        """These have the member's first CONTROL, and no other."""
        [send] = [action for action in actions if isinstance(action, Send)]
        assert send.connection == CONNECTION
        assert self.channel.opened(send.payload) == Confirm().encode()


def joined(**others: Any) -> Spoken:
    spoken = Spoken(**others)
    spoken.tell(TOLD)
    return spoken


def waiting() -> Spoken:
    spoken = Spoken()
    spoken.tell(Told(code=CloseCode.APPROVAL_AWAITED, text="wait"))
    return spoken


def test_a_log_in_takes_one_round_trip() -> None:
    spoken = Spoken()
    actions = spoken.tell(TOLD)
    # Packets go behind the confirmation, and what it gave is written before.
    assert [type(action) for action in actions] == [KeepKeys, Configure, SetRoutes, Send, Admitted, Join]
    assert actions[1] == Configure(ADDRESS)
    spoken.confirmed(actions)
    assert spoken.said.has_claimed
    assert spoken.said.deadline == pytest.approx(1.1)
    assert spoken.said.ponged(0.5) == []
    keep, log = spoken.said.expired(1.1)
    assert keep == Keep(ADDRESS)
    assert log == Log("info", "connected as 192.168.202.9/24 (the relay answers)")
    assert spoken.said.confirmed == 1.1


def test_what_is_kept() -> None:
    flags = Tells.GIVES_CREDENTIAL
    keep = Spoken().tell(replace(TOLD, flags=flags, selector=bytes([1]) * 16, secret=bytes([2]) * 32))[0]
    assert isinstance(keep, KeepKeys)
    assert keep.ticket is not None
    assert keep.ticket == Ticket(bytes([1]) * 16, bytes([2]) * 32)
    assert keep.known.network == NETWORK
    keep = Spoken().tell(TOLD)[0]
    assert isinstance(keep, KeepKeys)
    assert keep.ticket is None


def test_a_relay_that_is_not_believed_hears_nothing() -> None:
    spoken = Spoken(configured=bytes(32))
    assert spoken.opened == [Close(CONNECTION, CloseCode.POLICY_VIOLATION, "")]
    ending = spoken.said.closed("local", 1.0)
    assert ending.refused
    assert "of another network" in ending.text


@pytest.mark.parametrize("code", [CloseCode.POOL_FULL, CloseCode.TRY_AGAIN_LATER, *sorted(FINAL)])
def test_a_refusal_is_the_relays_word_in_message_2(code: CloseCode) -> None:
    spoken = Spoken()
    assert spoken.tell(Told(code=code, text="because")) == []
    ending = spoken.said.closed("peer", 1.0)
    assert (ending.refused, ending.final) == (True, code in FINAL)
    assert ending.text.startswith("refused by the relay: because")
    assert (code in CURES) == (": because: " in ending.text)


def test_a_close_frame_is_believed_for_nothing() -> None:
    forged = int(CloseCode.DEVICE_REVOKED).to_bytes(2, "big") + b"revoked"
    before = Spoken()
    before.said.closing(forged)
    ending = before.said.closed("peer", 1.0)
    assert (ending.refused, ending.final) == (True, False)
    assert ending.text == "the relay closed without a word: is the password right?"
    later = joined()
    later.said.closing(forged)
    ending = later.said.closed("peer", 9.0)
    assert (ending.text, ending.held, ending.final) == ("the connection was lost", True, False)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (CloseCode.DEVICE_REVOKED, {"refused": True, "final": True}),
        (CloseCode.REPLACED, {"replaced": True}),
        (CloseCode.PASSWORD_ENDED, {"refused": True}),
        (CloseCode.GOING_AWAY, {"held": False}),
    ],
)
def test_closing_says_what_the_close_frame_means(code: CloseCode, expected: dict[str, bool]) -> None:
    spoken = joined()
    assert spoken.receive(Closing(code, "because").encode()) == []
    ending = spoken.said.closed("peer", 9.0)
    assert {name: getattr(ending, name) for name in expected} == expected
    assert "because" in ending.text
    assert "\n" not in ending.text


BROKEN = [Drop(CONNECTION, "bad_control"), Close(CONNECTION, CloseCode.BROKEN_CONTROL, "")]


def test_control_is_the_next_and_opens_or_the_connection_ends() -> None:
    route = wire.Route(()).encode()
    spoils: list[Callable[[bytes], bytes]] = [
        lambda sealed: sealed[:-1] + bytes([sealed[-1] ^ 1]),
        lambda sealed: sealed[:11] + b"\1" + sealed[12:],
        lambda sealed: sealed[:-1],
        lambda sealed: sealed[:1],
    ]
    for spoil in spoils:
        spoken = joined()
        assert spoken.said.received(spoil(spoken.channel.seal(route)), 5.0, WALL) == BROKEN
        ending = spoken.said.closed("local", 5.0)
        assert (ending.refused, ending.final) == (False, False)
        assert "changed, left out or repeated on the way" in ending.text
    spoken = joined()
    sealed = spoken.channel.seal(route)
    assert spoken.said.received(sealed, 5.0, WALL) != BROKEN
    # The same once more; and what comes behind one that was left out.
    assert spoken.said.received(sealed, 5.0, WALL) == BROKEN
    spoken = joined()
    spoken.channel.seal(route)
    assert spoken.receive(route) == BROKEN


@pytest.mark.parametrize(
    "message",
    [
        wire.Route(()).encode(),
        wire.Behind((), 3).encode(control.BEHIND_VERSION),
        Closing(CloseCode.DEVICE_REVOKED, "forged").encode(),
        Approved(ADDRESS, bytes([7]) * 8).encode(),
    ],
)
def test_what_has_to_come_sealed_is_not_taken_in_the_clear(message: bytes) -> None:
    for spoken in (joined(), waiting()):
        assert spoken.said.received(message, 5.0, WALL) == BROKEN
        assert not spoken.said.closed("local", 5.0).final


def test_an_old_log_in_is_nothing_behind_a_key() -> None:
    for spoken in (joined(), waiting()):
        for forged in (answer(), bytes([21]) + bytes(144), b""):
            assert spoken.said.received(forged, 5.0, WALL) == [Drop(CONNECTION, "unexpected_kind")]


def test_a_device_that_the_relay_has_forgotten() -> None:
    ending = Spoken(credentials=Credentials(ticket=Ticket(bytes(16), bytes(32)))).said.closed("peer", 1.0)
    assert ending.refused
    assert "it does not know this device" in ending.text
    assert "candy-client join" in ending.text


def test_an_answer_that_was_changed() -> None:
    spoken = Spoken()
    [send] = spoken.opened
    assert isinstance(send, Send)
    assert spoken.talk.read(spoken.relay, send.payload) is not None
    message = bytearray(spoken.relay.answer(TOLD).message)
    message[-1] ^= 1
    drop, close = spoken.said.received(bytes(message), 0.2, WALL)
    assert (drop, close) == (Drop(CONNECTION, "bad_login"), Close(CONNECTION, CloseCode.POLICY_VIOLATION, ""))


def test_no_answer_in_time() -> None:
    spoken = Spoken()
    assert spoken.said.received(wire.Route(()).encode(), 0.2, WALL) == [Drop(CONNECTION, "unexpected_kind")]
    assert spoken.said.deadline == ANSWER_S
    assert spoken.said.expired(ANSWER_S) == [Close(CONNECTION, CloseCode.POLICY_VIOLATION, "")]
    assert "did not answer the log-in within 20 s" in spoken.said.closed("local", 21.0).text


@pytest.mark.parametrize("address", ["224.0.0.1/24", "10.0.0.0/24", "203.0.113.5/24"])
def test_an_address_that_can_not_be_is_refused(address: str) -> None:
    spoken = Spoken()
    actions = spoken.tell(replace(TOLD, address=IPv4Interface(address)))
    assert actions[-1] == Close(CONNECTION, CloseCode.POLICY_VIOLATION, "")
    assert not any(isinstance(action, Send) for action in actions)
    assert spoken.said.closed("local", 1.0).refused


def test_an_address_of_its_own_is_given_or_nothing() -> None:
    own = IPv4Interface("203.0.113.5/24")
    assert Configure(own) in Spoken(identity=identity(own)).tell(replace(TOLD, address=own))
    spoken = Spoken(identity=identity(own))
    actions = spoken.tell(TOLD)
    assert actions[-1] == Close(CONNECTION, CloseCode.POLICY_VIOLATION, "")
    assert not any(isinstance(action, Send) for action in actions)
    assert "in place of 203.0.113.5/24" in spoken.said.closed("local", 1.0).text


def test_it_waits_for_approval() -> None:
    spoken = Spoken()
    actions = spoken.tell(Told(code=CloseCode.APPROVAL_AWAITED, text="wait"))
    assert [type(action) for action in actions] == [KeepKeys, Send, Log]
    [log] = [action for action in actions if isinstance(action, Log)]
    assert log.text.endswith(f"show the operator this device's fingerprint: {keys.fingerprint(DEVICE.public)}")
    spoken.confirmed(actions)
    assert not spoken.said.has_claimed
    assert spoken.said.expired(10_000.0) == []
    actions = spoken.receive(Approved(ADDRESS, bytes([7]) * 8).encode(), 10_000.0)
    assert [type(action) for action in actions] == [Configure, SetRoutes, Admitted, Join]
    assert isinstance(admitted := actions[2], Admitted)
    assert (admitted.address, admitted.lease) == (ADDRESS.ip, bytes([7]) * 8)
    assert spoken.receive(Approved(ADDRESS, bytes([7]) * 8).encode()) == [Drop(CONNECTION, "unexpected_kind")]


def test_routes_and_what_lies_behind() -> None:
    spoken = joined()
    route = wire.Route((wire.RouteEntry(ADDRESS.network, ADDRESS.ip + 1),), 3)
    [told] = spoken.receive(route.encode())
    assert isinstance(told, SetRoutes)
    assert told.routes == route.entries
    behind = wire.Behind((), 3)
    assert spoken.receive(behind.encode(control.BEHIND_VERSION)) == [SetPlacements(())]
    drop, log = spoken.receive(behind.encode())
    assert drop == Drop(CONNECTION, "unknown_version")
    assert isinstance(log, Log)
    peers = control.Tell((control.Peer(ADDRESS.ip + 1, control.State.NOBODY),))
    for message in (peers, control.NotSealing(ADDRESS.ip), control.Commit(ADDRESS.ip, 3000)):
        assert spoken.receive(message.encode()) == [Tell(message)]
        assert waiting().receive(message.encode()) == [Drop(CONNECTION, "unexpected_kind")]
    assert spoken.receive(b"\x2a") == [Drop(CONNECTION, "unknown_kind")]


def test_relays_are_told_in_whole_sets() -> None:
    spoken = joined()
    one, two, three = (f"wss://{name}/" for name in "abc")
    assert spoken.receive(control.Relays(0, 3, (one, two)).encode()) == []
    assert spoken.receive(control.Relays(2, 3, (three,)).encode()) == [LearnRelays(NETWORK, (one, two, three))]
    assert spoken.receive(control.Relays(0, 1, (two,)).encode()) == [LearnRelays(NETWORK, (two,))]
    assert spoken.receive(control.Relays(0, 0, ()).encode()) == [LearnRelays(NETWORK, ())]
    # One of a set that did not begin, and a set that begins anew.
    assert spoken.receive(control.Relays(1, 2, (two,)).encode()) == []
    assert spoken.receive(control.Relays(0, 2, (one,)).encode()) == []
    assert spoken.receive(control.Relays(0, 2, (three,)).encode()) == []
    assert spoken.receive(control.Relays(1, 2, (two,)).encode()) == [LearnRelays(NETWORK, (three, two))]


def test_new_keys_are_kept_if_they_are_signed() -> None:
    spoken = joined()
    relay = bytes([0x77]) * 32
    later = keys.RelayKey.make(sign, SEED, NETWORK, relay, 0, WALL + 1)
    keep, _ = spoken.receive(control.RelayKey(later).encode())
    assert isinstance(keep, KeepKeys)
    assert (keep.known.relay, keep.known.generation, keep.ticket) == (relay, WALL + 1, None)
    [log] = spoken.receive(control.RelayKey(replace(later, generation=WALL + 2)).encode())
    assert isinstance(log, Log)
    assert log.text.startswith("not believed: ")
    seed = bytes([0x22]) * 32
    entry = keys.Succession.make(sign, SEED, NETWORK, signing_public(seed), 1)
    keep, log, changed = spoken.receive(control.NetworkKey(entry).encode())
    assert isinstance(keep, KeepKeys)
    assert keep.known.network == signing_public(seed)
    assert log == Log("info", f"the network has another key: {keys.fingerprint(signing_public(seed))}")
    assert changed == NetworkChanged(signing_public(seed))


@pytest.mark.parametrize("flags", [Tells(0), Tells.CHECKS_NO_SOURCE])
def test_what_is_sealed_by(flags: Tells) -> None:
    actions = Spoken().tell(replace(TOLD, flags=flags, lease=bytes([7]) * 8))
    [admitted] = [action for action in actions if isinstance(action, Admitted)]
    assert (admitted.connection, admitted.device, admitted.network) == (CONNECTION, DEVICE, NETWORK)
    assert (admitted.address, admitted.lease) == (ADDRESS.ip, bytes([7]) * 8)
    assert admitted.checks_source is not bool(flags)


def test_handshakes_are_looked_at_once_it_has_an_address() -> None:
    message = bytes([HANDSHAKE]) + bytes(147)
    assert joined().said.received(message, 0.2, WALL) == [Shake(message)]
    assert waiting().said.received(message, 0.2, WALL) == [Drop(CONNECTION, "unexpected_kind")]


def test_a_whole_log_in_with_a_network() -> None:
    talk = Talk()
    network = a_network(Pool(ADDRESS.network), enrolment=talk.enrolment, password=b"correct horse")
    spoken = Spoken(talk)
    network.opened_with_keys(1, "203.0.113.1", 0.0, spoken.relay)
    [send] = spoken.opened
    assert isinstance(send, Send)
    assert network.received(1, send.payload, 0.1, WALL) == [Record(1)]
    [secure, answer] = [
        action for action in network.recorded(1, Recorded.KEPT, 0.1, WALL) if isinstance(action, Secure | Send)
    ]
    assert isinstance(secure, Secure)
    assert isinstance(answer, Send)
    spoken.channel = control.Channel(PRIMITIVES, secure.sends, secure.receives)
    actions = spoken.said.received(answer.payload, 0.2, WALL)
    spoken.confirmed(actions)
    [configure] = [action for action in actions if isinstance(action, Configure)]
    assert Bind(1, int(configure.address.ip)) in network.controlled(1, Confirm().encode(), 0.2, WALL)
    [keep] = [action for action in actions if isinstance(action, KeepKeys)]
    assert keep.ticket is not None
    # From then on by its own credential alone.
    again = Spoken(talk, Credentials(ticket=keep.ticket), known=keep.known)
    network.opened_with_keys(2, "203.0.113.1", 1.0, again.relay)
    [send] = again.opened
    assert isinstance(send, Send)
    assert Login.decode(send.payload, 1).selector == keep.ticket.selector
    # The relay knows since CONFIRM that it has come, so there is nothing to be recorded before the answer.
    answered = network.received(2, send.payload, 1.0, WALL)
    assert [type(action) for action in answered if not isinstance(action, Log)] == [Secure, Send]
    [device] = talk.enrolment
    assert device.key == DEVICE.public
