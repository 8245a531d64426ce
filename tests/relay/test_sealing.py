"""The relay's own interface as a member that seals: in a network in memory, on an engine that notes what it is told."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
from kit.keyed import FIXED, Keyed
from kit.login import DEVICE, NETWORK, SEED, WALL, by_password
from kit.primitives import PRIMITIVES, pair
from kit.sealing_engine import TUN, Recorded
from kit.talk import ip

from candy._fastpath import EVENT_CLEAR, EVENT_CONFIRMED, EVENT_CONTROL, EVENT_MESSAGE, EVENT_WANTED, Engine
from candy.host.files import Folder
from candy.primitives import sign, signing_public
from candy.protocol import control
from candy.protocol.actions import Drop, Log, Send
from candy.protocol.control import Ask, Commit, Peer, State, Tell
from candy.protocol.handshake import HANDSHAKE, Message
from candy.protocol.keys import RelayKey, Succession
from candy.protocol.login import Asks
from candy.relay.sealing import OwnSealing, Times
from candy.relay.session import Action, Bind
from candy.sealing.joined import Joined, Own
from candy.sealing.pins import Pins
from candy.sealing.seals import Install, Seal, Wanted, Way
from candy.sealing.sessions import Sessions
from candy.sealing.stamps import Moment, Stamps, encode

HOST = IPv4Address("192.168.202.250")
KEYS = pair(bytes([0x33]) * 32)


class Relay:
    """A network, its interface, and what has become of actions."""

    def __init__(self, folder: Path, seal: Seal = Seal.PREFER) -> None:
        self.keyed = Keyed()
        self.engine = Recorded()
        self.acted: list[Action] = []
        self.wakes = 0
        network = self.keyed.network
        assert network.host(TUN, HOST) == [Bind(TUN, int(HOST))]
        self.times = Times(Folder(folder), folder / "handshake")
        engine = cast(Engine, self.engine)
        self.own = OwnSealing(engine, network, TUN, KEYS, seal, self.times, self.act, self._woken)

    def _woken(self) -> None:
        self.wakes += 1

    def act(self, actions: Iterable[Action]) -> None:
        """As the Actor does."""
        for action in actions:
            if isinstance(action, Send) and action.connection == TUN:
                self.own.told(action.payload)
            else:
                self.acted.append(action)

    def enter(self, last: int, device: Any = DEVICE, flags: Asks = Asks(0)) -> int:  # noqa: B008
        asked = replace(FIXED, address=IPv4Interface((ip(last), 24)), flags=Asks.IS_FIXED | flags, commit_bytes=65535)
        connection, _ = self.keyed.member(by_password(), device, asked)
        return connection

    def told(self, connection: int) -> list[Peer]:
        """By TELLs, to a member."""
        sent = [each.payload for each in self.acted if isinstance(each, Send) and each.connection == connection]
        decoded = [control.decode(payload) for payload in sent]
        return [peer for message in decoded if isinstance(message, Tell) for peer in message.peers]

    async def wants(self, address: IPv4Address) -> None:
        """Its kernel has a packet for this one."""
        self.own.on_event(EVENT_WANTED, address.packed)
        # Its ASK is answered in the next round, and what follows from the answer is sent in another.
        for _ in range(3):
            await asyncio.sleep(0)


@pytest.fixture
async def relay(tmp_path: Path) -> Relay:
    return Relay(tmp_path)


class Member:
    """Another member's sessions."""

    def __init__(self, relay: Relay, device: Any, last: int) -> None:
        self.own = Own(
            device=device,
            flags=Asks(0),
            commit_bytes=65535,
            primitives=PRIMITIVES,
            key_pair=pair,
            randbytes=Random(8).randbytes,
        )
        self.sessions = Sessions(self.own, Seal.PREFER, Pins(), Stamps())
        network = relay.keyed.talk.enrolment.network
        joined = Joined(connection=1, address=ip(last), lease=bytes([9]) * 8, network=network, secret=None)
        self.sessions.joined(joined, self.at)

    @property
    def at(self) -> Moment:
        return Moment(5000.0, 1_800_000_000 * 10**9)

    def hears(self, peers: list[Peer]) -> None:
        self.sessions.told(Tell(tuple(peers)), self.at)

    def answers(self, first: bytes) -> tuple[bytes, Install]:
        actions = self.sessions.received(first, self.at)
        [second] = [each.payload for each in actions if isinstance(each, Send) and each.payload[0] == HANDSHAKE]
        [install] = [each for each in actions if isinstance(each, Install)]
        return second, install


async def test_it_has_a_session_from_the_first_packet_on(relay: Relay) -> None:
    connection = relay.enter(1)
    assert relay.engine.done[0] == ("set_sealing", {"sealing": 1, "own": int(HOST), "checks_source": True})
    await relay.wants(ip(1))
    [about] = relay.told(connection)
    assert (about.address, about.state, about.key) == (HOST, State.SEALS, KEYS.public)
    assert about.flags & Peer.UNASKED
    assert any(about.lease)
    [(to, first)] = relay.engine.sent
    assert (to, Message.decode(first).destination) == (connection, ip(1))
    member = Member(relay, DEVICE, 1)
    member.hears([about])
    second, theirs = member.answers(first)
    relay.own.on_event(EVENT_MESSAGE, second)
    [ours] = relay.engine.all("install")
    assert (ours["sends"], ours["receives"], ours["peer"]) == (theirs.receives, theirs.sends, int(ip(1)))
    assert relay.engine.all("set_peer")[-1]["way"] == Way.SEAL
    assert relay.wakes == 1
    # What it seals at once a slow member says.
    relay.own.on_event(EVENT_CONTROL, Commit(ip(1), 9000).encode())
    assert relay.engine.all("set_peer")[-1]["longest"] == 9000
    # From the time that it has used on goes the next start.
    assert relay.times.stamps().next(0)[0] > encode(time.time_ns())


async def test_it_answers_who_begins(relay: Relay) -> None:
    connection = relay.enter(1)
    relay.act(relay.keyed.receive(connection, Ask((HOST,)).encode()))
    [about] = relay.told(connection)
    assert (about.state, about.flags, about.commit_bytes) == (State.SEALS, about.flags & ~Peer.UNASKED, 65535)
    member = Member(relay, DEVICE, 1)
    member.sessions.happened(Wanted(HOST), member.at)
    actions = member.sessions.told(Tell((about,)), member.at)
    [first] = [each.payload for each in actions if isinstance(each, Send) and each.payload[0] == HANDSHAKE]
    relay.own.on_event(EVENT_MESSAGE, first)
    await asyncio.sleep(0)
    [(to, second)] = relay.engine.sent
    assert to == connection
    installs = [each for each in member.sessions.received(second, member.at) if isinstance(each, Install)]
    assert len(installs) == 1
    [ours] = relay.engine.all("install")
    assert not ours["confirmed"]
    relay.own.on_event(EVENT_CONFIRMED, ours["local"].to_bytes(4, "big"))
    assert relay.engine.all("set_peer")[-1]["way"] == Way.SEAL


async def test_who_does_not_seal_is_sent_to_in_the_clear(relay: Relay) -> None:
    relay.keyed.old(ip(3))
    relay.enter(1, flags=Asks.SEALS_NOTHING)
    for last in (1, 3):
        await relay.wants(ip(last))
        assert relay.engine.all("set_peer")[-1]["way"] == Way.CLEAR
        assert relay.engine.all("set_peer")[-1]["takes_clear"]
    await relay.wants(ip(4))
    assert relay.engine.all("set_peer")[-1]["way"] == Way.NO_ROUTE
    assert relay.engine.sent == []


async def test_where_all_is_to_be_sealed_old_members_are_not_reached(tmp_path: Path) -> None:
    relay = Relay(tmp_path, Seal.REQUIRE)
    relay.keyed.old(ip(3))
    await relay.wants(ip(3))
    assert relay.engine.all("set_peer")[-1]["way"] == Way.NOT_SEALING
    connection = relay.enter(1)
    relay.act(relay.keyed.receive(connection, Ask((HOST,)).encode()))
    [about] = relay.told(connection)
    assert about.flags & Asks.REQUIRES_SEALING


async def test_off_is_told_as_one_who_does_not_seal(tmp_path: Path) -> None:
    relay = Relay(tmp_path, Seal.OFF)
    connection = relay.enter(1)
    relay.act(relay.keyed.receive(connection, Ask((HOST,)).encode()))
    [about] = relay.told(connection)
    assert about.state is State.CLEAR
    assert relay.engine.all("set_sealing") == [{"sealing": 0, "own": int(HOST), "checks_source": True}]


async def test_another_setting_counts_at_once_and_is_told(relay: Relay) -> None:
    connection = relay.enter(1)
    await relay.wants(ip(1))
    [before] = relay.told(connection)
    for seal, state, flags, mode in (
        (Seal.REQUIRE, State.SEALS, Asks.REQUIRES_SEALING, 2),
        (Seal.OFF, State.CLEAR, Asks.SEALS_NOTHING, 0),
        (Seal.PREFER, State.SEALS, Asks(0), 1),
    ):
        relay.acted.clear()
        relay.own.set_seal(seal)
        relay.keyed.now += 1
        relay.act(relay.keyed.network.expired(relay.keyed.now, relay.keyed.wall))
        [after] = relay.told(connection)
        assert (after.state, after.lease, after.key) == (state, before.lease, before.key)
        assert after.flags & (Asks.REQUIRES_SEALING | Asks.SEALS_NOTHING) == flags
        assert relay.engine.all("set_sealing")[-1]["sealing"] == mode


async def test_changes_are_told_to_it_and_of_it(relay: Relay) -> None:
    connection = relay.enter(1)
    await relay.wants(ip(1))
    relay.keyed.close(connection)
    due = relay.keyed.network.next_deadline()
    assert due is not None
    relay.act(relay.keyed.network.expired(max(due, relay.keyed.now), relay.keyed.wall))
    assert relay.engine.all("set_peer")[-1]["way"] == Way.NO_ROUTE
    # One who sealed, and comes back with another setting, is believed: the relay has let it in by its key.
    relay.keyed.now += 1
    relay.enter(1, flags=Asks.SEALS_NOTHING)
    relay.act(relay.keyed.network.expired(relay.keyed.now + 1, relay.keyed.wall))
    assert relay.engine.all("set_peer")[-1]["way"] == Way.CLEAR


async def test_a_revocation_reaches_it_at_once(relay: Relay) -> None:
    relay.enter(1)
    await relay.wants(ip(1))
    relay.act(relay.keyed.network.revoke(DEVICE.public, relay.keyed.now, relay.keyed.wall))
    assert relay.engine.all("set_peer")[-1]["way"] == Way.NO_ROUTE


async def test_another_key_of_the_network_counts_for_its_next_handshake(relay: Relay) -> None:
    connection, seed = relay.enter(1), bytes([0x44]) * 32
    key = RelayKey.make(sign, seed, signing_public(seed), pair(bytes([0x19]) * 32).public, 0, WALL + 1)
    entry = Succession.make(sign, SEED, NETWORK, key.network, 1)
    relay.act(relay.keyed.network.renew(key, entry))
    await relay.wants(ip(1))
    member = Member(relay, DEVICE, 1)
    member.hears(relay.told(connection))
    [(_, first)] = relay.engine.sent
    member.answers(first)


async def test_what_can_t_be_read_is_dropped_under_a_name(relay: Relay) -> None:
    relay.own.on_event(EVENT_MESSAGE, bytes([HANDSHAKE]) + bytes(147))
    assert relay.acted == [Drop(TUN, "bad_handshake")]


async def test_who_speaks_in_the_clear_is_asked_about(relay: Relay) -> None:
    relay.keyed.old(ip(3))
    relay.own.on_event(EVENT_CLEAR, ip(3).packed)
    for _ in range(2):
        await asyncio.sleep(0)
    assert relay.engine.all("set_peer")[-1] | {"label_key": b""} == {
        "address": int(ip(3)),
        "way": Way.CLEAR,
        "session": 0,
        "takes_clear": True,
        "longest": 65535,
        "label_key": b"",
        "tells_wanted": False,
        "tells_clear": False,
    }


async def test_a_damaged_file_is_said_and_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "handshake").write_text("nonsense\n")
    Relay(tmp_path)
    assert [record.message for record in caplog.records] == [f"{tmp_path / 'handshake'} holds no time: not used"]


async def test_its_end_wipes_all(relay: Relay) -> None:
    relay.enter(1)
    await relay.wants(ip(1))
    relay.own.end()
    assert relay.engine.done[-1] == ("forget_peer", {"address": int(ip(1))})
    assert not [each for each in relay.acted if isinstance(each, Log)]
