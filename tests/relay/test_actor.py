"""What networks decide, carried out: on an engine that notes what it is told, and with a store that is asked."""

import asyncio
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import Any, cast

import pytest
from kit.primitives import PRIMITIVES

from candy._fastpath import Engine
from candy.protocol import control, wire
from candy.protocol.actions import Close, Drop, Secure, Send
from candy.protocol.closing import CloseCode
from candy.protocol.control import Confirm
from candy.protocol.noise import Cipher
from candy.relay.actor import Actor
from candy.relay.clock import Clock
from candy.relay.recording import Outcome, Wanted
from candy.relay.served import Served
from candy.relay.session import Action, Bind, Record

ONE, OTHER = bytes([1]) * 32, bytes([2]) * 32
ROUTE = wire.Route(()).encode()


@dataclass
class Noting:
    """In place of the engine."""

    done: list[tuple[Any, ...]] = field(default_factory=list)
    has_room: bool = True

    def send(self, connection: int, payload: bytes) -> bool:
        self.done.append(("send", connection, payload))
        return self.has_room

    def bind(self, connection: int, ip: int, *, takes_sealed: bool, circle: int) -> bool:
        self.done.append(("bind", connection, ip, takes_sealed, circle))
        return True

    def close(self, connection: int, code: int | None, reason: str) -> bool:
        self.done.append(("close", connection, code, reason))
        return True


@dataclass
class Deciding:
    """In place of a network: what it is asked, and one answer for all."""

    asked: list[tuple[Any, ...]] = field(default_factory=list)

    def received(self, connection: int, message: bytes, now: float, wall: int) -> list[Action]:
        self.asked.append(("received", connection, message))
        return []

    def controlled(self, connection: int, message: bytes, now: float, wall: int) -> list[Action]:
        self.asked.append(("controlled", connection, message))
        return []

    def broken(self, connection: int, now: float) -> list[Action]:
        self.asked.append(("broken", connection))
        return []

    def recorded(self, connection: int, outcome: Outcome, now: float, wall: int) -> list[Action]:
        self.asked.append(("recorded", connection, outcome))
        return [Close(connection, None, "")]


@dataclass
class Hearing:
    """In place of what seals for the relay's own interface."""

    connection: int = 99
    heard: list[bytes] = field(default_factory=list)

    def told(self, message: bytes) -> None:
        self.heard.append(message)


class Stretching:
    """In place of a network's passwords: which messages wait for them, and until when."""

    def __init__(self) -> None:
        self.waits = b""
        self.asked = 0
        self.may_go_on = asyncio.Event()

    def has_to_stretch(self, message: bytes) -> bool:
        return message == self.waits

    async def stretch(self) -> None:
        self.asked += 1
        await self.may_go_on.wait()
        self.waits = b""


class Acting:
    """An actor and what is around it."""

    def __init__(self) -> None:
        self.engine, self.network = Noting(), Deciding()
        self.members: list[int] = []
        self.wakes = 0
        clock = Clock(asyncio.get_running_loop())
        self.actor = Actor(cast(Engine, self.engine), clock, self.members.append, self._woken)
        clock.stop()
        self.sealing, self.stretching = Hearing(), Stretching()
        self.served = cast(
            Served,
            SimpleNamespace(
                network=self.network,
                label="",
                sealing=self.sealing,
                settings=SimpleNamespace(path="/"),
                has_to_stretch=self.stretching.has_to_stretch,
                stretch=self.stretching.stretch,
            ),
        )

    def _woken(self) -> None:
        self.wakes += 1

    def act(self, *actions: Action) -> None:
        self.actor.act(self.served, actions)

    def receive(self, payload: bytes) -> None:
        self.act(*self.actor.received(self.served, 1, payload, 0.0, 0))


@pytest.fixture
async def acting() -> Acting:
    return Acting()


async def test_what_is_sent_behind_the_keys_is_sealed(acting: Acting) -> None:
    acting.act(Secure(1, ONE, OTHER), Send(1, bytes([21]) * 200), Bind(1, 9, False), Send(1, ROUTE), Send(2, ROUTE))
    (_, _, answer), bind, (_, _, sealed), clear = acting.engine.done
    assert answer == bytes([21]) * 200
    assert bind == ("bind", 1, 9, False, 1)
    assert control.opened(Cipher(PRIMITIVES, ONE), sealed) == ROUTE
    assert clear == ("send", 2, ROUTE)
    assert acting.members == [1]


async def test_what_comes_is_told_apart(acting: Acting) -> None:
    member = Cipher(PRIMITIVES, OTHER)
    acting.receive(b"before")
    acting.act(Secure(1, ONE, OTHER))
    acting.receive(b"\x03 in the clear")
    acting.receive(control.seal(member, Confirm().encode()))
    acting.receive(Confirm().encode())
    acting.actor.forget(1)
    acting.receive(b"after")
    assert acting.network.asked == [
        ("received", 1, b"before"),
        ("received", 1, b"\x03 in the clear"),
        ("controlled", 1, Confirm().encode()),
        ("broken", 1),
        ("received", 1, b"after"),
    ]


async def test_what_finds_no_room(acting: Acting) -> None:
    acting.engine.has_room = False
    acting.act(Send(2, bytes([3]) * 20), Drop(2, "control"))
    assert acting.actor.drops == {"control": 2}
    assert len(acting.engine.done) == 1
    acting.act(Send(2, ROUTE), Secure(1, ONE, OTHER), Send(1, control.NotSealing(IPv4Address(1)).encode()))
    closed = [done for done in acting.engine.done if done[0] == "close"]
    assert [(connection, code) for _, connection, code, _ in closed] == [
        (2, CloseCode.SERVICE_RESTART),
        (1, CloseCode.SERVICE_RESTART),
    ]


async def test_who_has_keys_is_told_why_before_the_end(acting: Acting) -> None:
    acting.act(Secure(1, ONE, OTHER))
    for connection in (1, 2):
        acting.actor.close(connection, CloseCode.GOING_AWAY, "the relay ends")
    (_, _, sealed), *closed = acting.engine.done
    told = control.decode(control.opened(Cipher(PRIMITIVES, ONE), sealed))
    assert told == control.Closing(CloseCode.GOING_AWAY, "the relay ends")
    assert closed == [("close", connection, CloseCode.GOING_AWAY, "the relay ends") for connection in (1, 2)]


class _Recorder:
    def __init__(self, asked: "asyncio.Future[Outcome]") -> None:
        self._asked = asked

    def record(self, path: str = "", wanted: Wanted | None = None) -> "asyncio.Future[Outcome]":
        assert (path, wanted) == ("/", None)
        return self._asked


async def test_what_is_written_down_goes_on(acting: Acting) -> None:
    asked: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    acting.actor.recorder = _Recorder(asked)
    acting.act(Record(1))
    assert acting.network.asked == []
    asked.set_result(Outcome.KEPT)
    await asyncio.sleep(0)
    assert acting.network.asked == [("recorded", 1, Outcome.KEPT)]
    assert (acting.engine.done, acting.wakes) == ([("close", 1, None, "")], 1)


async def test_without_a_store_nothing_is(acting: Acting) -> None:
    acting.act(Record(1))
    assert acting.network.asked == [("recorded", 1, Outcome.UNKEPT)]


async def test_what_is_for_the_relay_s_own_interface_goes_over_no_wire(acting: Acting) -> None:
    acting.act(Send(99, b"told"), Send(1, ROUTE))
    assert (acting.sealing.heard, acting.engine.done) == ([b"told"], [("send", 1, ROUTE)])


async def test_who_logs_in_by_a_password_waits_for_it_and_nobody_else_does(acting: Acting) -> None:
    acting.stretching.waits = b"by password"
    acting.receive(b"by password")
    acting.receive(b"by a credential")
    await asyncio.sleep(0)
    assert acting.network.asked == [("received", 1, b"by a credential")]
    acting.stretching.may_go_on.set()
    while len(acting.network.asked) < 2:
        await asyncio.sleep(0)
    assert acting.network.asked[1] == ("received", 1, b"by password")
    assert (acting.stretching.asked, acting.wakes) == (1, 1)


async def test_where_passwords_have_changed_meanwhile_it_waits_again(acting: Acting) -> None:
    stretching = acting.stretching
    stretching.waits = b"by password"

    async def stretch() -> None:
        stretching.asked += 1
        if stretching.asked == 2:
            stretching.waits = b""

    acting.served.stretch = stretch  # type: ignore[method-assign]
    acting.receive(b"by password")
    while not acting.network.asked:
        await asyncio.sleep(0)
    assert (acting.network.asked, stretching.asked) == ([("received", 1, b"by password")], 2)
