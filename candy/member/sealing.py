"""Sealed sessions with other members, carried out: Sessions decides, this has the engine, the files and the clock.

    Member ── Admitted, Tell, Shake, lost() ──▶ Sealing ─▶ Sessions ─▶ actions ─┬─▶ engine: install(), set_peer(), …
    events of the engine ──── on_event() ─────▶   ▲                             ├─▶ say: Send, Drop, Log, for Member
    the clock ─────────────── go_on() ────────────┘                             └─▶ state: pins, handshake

Rules:
 1. Actions are carried out at once and in order: what a file has to hold is kept before the message that relies on it.
 2. Times are CLOCK_BOOTTIME's, so that keys grow old while the machine sleeps.
 3. A secret that is a text is stretched on a thread, once for each key of the network.
 4. The engine seals no groups yet: under a secret, and so under REQUIRE, it drops them (`group_not_sealed`).

This module decides nothing about others.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address
from math import inf
from typing import Final, assert_never

from candy._fastpath import EVENT_CLEAR, EVENT_CONFIRMED, EVENT_NOTED, EVENT_UNKNOWN, EVENT_WANTED, Engine
from candy.member import conversation
from candy.member.state import MemberState
from candy.primitives import NOISE, key_pair
from candy.protocol.actions import Drop, Log, Send
from candy.protocol.login import Asks
from candy.protocol.noise import KeyPair
from candy.protocol.secret import Secret
from candy.sealing.directory import Identity
from candy.sealing.handshakes import KeepStamp
from candy.sealing.joined import Joined, Own
from candy.sealing.seals import (
    Clear,
    CloseGroup,
    Confirmed,
    EngineEvent,
    ForgetPeer,
    Install,
    Noted,
    OpenGroup,
    Remove,
    Seal,
    SealGroups,
    Seen,
    SendSealed,
    SetPeer,
    SetSealing,
    Unknown,
    Wanted,
    Way,
)
from candy.sealing.sessions import Action, KeepPins, Sessions
from candy.sealing.stamps import Moment

Said = Send | Drop | Log
Say = Callable[[Said], None]
"""Carries out what is the Member's."""
COMMIT_BYTES: Final = 65535
"""It takes packets as long as they can be."""
_MODES: Final = {Seal.OFF: 0, Seal.PREFER: 1, Seal.REQUIRE: 2}
"""As set_sealing() has them."""


def boottime() -> float:
    """Seconds of CLOCK_BOOTTIME."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Sealing:
    """See above.

    Args:
        flags: of log-ins: how it seals.
        seal: the setting.
        secret: of the members; None: there is none.
        state: has the files.
        engine: has the device, `tun`.
        say: carries out what is the Member's.
        now: seconds of CLOCK_BOOTTIME.
        wall: Unix nanoseconds.
    """

    def __init__(
        self,
        flags: Asks,
        seal: Seal,
        secret: Secret | None,
        state: MemberState,
        engine: Engine,
        tun: int,
        say: Say,
        *,
        now: Callable[[], float] = boottime,
        wall: Callable[[], int] = time.time_ns,
    ) -> None:
        self.flags = flags
        self.seal = seal
        self._sessions: Sessions | None = None
        """Of the device that has logged in; None before the first one."""
        self._device: KeyPair | None = None
        self._secret = secret
        self._stretched: tuple[bytes, bytes] | None = None
        """A network's key, and the secret under it."""
        self._joined: Joined | None = None
        """The connection that leads."""
        self._state = state
        self._engine = engine
        self._tun = tun
        self._say = say
        self._now = now
        self._wall = wall

    @property
    def delay(self) -> float:
        """Seconds until go_on() has to be called; inf: not at all."""
        due = inf if self._sessions is None else self._sessions.deadline
        return due if due == inf else max(0.0, due - self._now())

    def members(self) -> Iterator[tuple[IPv4Address, Way, Identity | None]]:
        """Of whom it knows, what becomes of packets for them, and who they are."""
        return iter(()) if self._sessions is None else self._sessions.members(self._now())

    async def perform(self, action: conversation.Sealing) -> None:
        """Carry out what a conversation has decided."""
        match action:
            case conversation.Admitted():
                secret = await self._secret_under(action.network)
                self._joined = Joined(
                    connection=action.connection,
                    address=action.address,
                    lease=action.lease,
                    network=action.network,
                    secret=secret,
                    checks_source=action.checks_source,
                )
                self._carry_out(self._sessions_of(action.device).joined(self._joined, self._at()))
            case conversation.NetworkChanged():
                # One that waits for approval has not joined yet: it will by this key.
                if self._joined is not None and self._sessions is not None:
                    secret = await self._secret_under(action.network)
                    self._joined = replace(self._joined, network=action.network, secret=secret)
                    self._carry_out(self._sessions.changed(self._joined, self._at()))
            case conversation.Tell():
                if self._sessions is not None:
                    self._carry_out(self._sessions.told(action.message, self._at()))
            case conversation.Shake():
                if self._sessions is not None:
                    self._carry_out(self._sessions.received(action.payload, self._at()))
            case _:
                assert_never(action)

    def lost(self, connection: int) -> None:
        """A connection is gone: perhaps the one that leads."""
        if self._sessions is not None and self._joined is not None and self._joined.connection == connection:
            self._joined = None
            self._sessions.lost()

    def on_event(self, source: int, kind: int, detail: bytes) -> bool:
        """Act on an event of the engine's; False: it is none about sealing."""
        if source != self._tun or kind not in _EVENTS:
            return False
        assert self._sessions is not None
        self._carry_out(self._sessions.happened(_EVENTS[kind](detail), self._at()))
        return True

    def go_on(self) -> None:
        """Act on what time and traffic have brought, if that is due."""
        if self._sessions is not None and self.delay == 0:
            seen = [
                Seen(local, carried, packet_sent_at, unanswered_since, received_at, owes_since)
                for local, carried, packet_sent_at, unanswered_since, received_at, owes_since in self._engine.seen(
                    self._tun
                )
            ]
            self._carry_out(self._sessions.tick(seen, self._at()))

    def forget(self, address: IPv4Address) -> bool:
        """Believe what was refused of this address; False: nothing was."""
        actions = None if self._sessions is None else self._sessions.forget(address, self._at())
        if actions is None:
            return False
        self._carry_out(actions)
        return True

    def end(self) -> None:
        """The program ends, and the device goes: keep what is to be kept."""
        if self._sessions is not None:
            self._carry_out(self._sessions.ended(self._at()))

    def _sessions_of(self, device: KeyPair) -> Sessions:
        """They are between devices: another one has none of them."""
        if self._sessions is None or self._device != device:
            self.end()
            self._device = device
            own = Own(
                device=device,
                flags=self.flags,
                commit_bytes=COMMIT_BYTES,
                primitives=NOISE,
                key_pair=key_pair,
                randbytes=secrets.token_bytes,
            )
            self._sessions = Sessions(own, self.seal, self._state.pins(), self._state.stamps())
        return self._sessions

    def _at(self) -> Moment:
        return Moment(self._now(), self._wall())

    async def _secret_under(self, network: bytes) -> bytes | None:
        if self._secret is None:
            return None
        if self._stretched is None or self._stretched[0] != network:
            self._stretched = network, await asyncio.to_thread(self._secret.under, network)
        return self._stretched[1]

    def _carry_out(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Send() | Drop() | Log():
                    self._say(action)
                case KeepPins():
                    self._state.keep_pins(action.content)
                case KeepStamp():
                    self._state.keep_stamp(action.content)
                case _:
                    self._have_engine(action)

    def _have_engine(
        self,
        action: SetSealing | Install | Remove | SetPeer | ForgetPeer | SendSealed | SealGroups | OpenGroup | CloseGroup,
    ) -> None:
        match action:
            case SetSealing():
                mode, own = _MODES[action.seal], int(action.own)
                self._engine.set_sealing(self._tun, mode, own, checks_source=action.checks_source)
            case Install():
                self._engine.install(
                    self._tun,
                    local=action.local,
                    peer=int(action.peer),
                    remote=action.remote,
                    cipher=action.cipher,
                    sends=action.sends,
                    receives=action.receives,
                    sends_until=action.sends_until,
                    opens_until=action.opens_until,
                    confirmed=action.is_confirmed,
                )
            case Remove():
                self._engine.remove_session(self._tun, action.local)
            case SetPeer():
                # Its table may be full of addresses that it met itself: then packets for this one are dropped there.
                with suppress(MemoryError):
                    self._engine.set_peer(
                        self._tun,
                        int(action.address),
                        action.way,
                        session=action.session,
                        takes_clear=action.takes_clear,
                        longest=action.longest,
                        label_key=action.label_key,
                        tells_wanted=action.tells_wanted,
                        tells_clear=action.tells_clear,
                    )
            case ForgetPeer():
                self._engine.forget_peer(self._tun, int(action.address))
            case SendSealed():
                self._engine.send_sealed(self._tun, action.local, action.body)
            case SealGroups() | OpenGroup() | CloseGroup():
                # Rule 4.
                pass
            case _:
                assert_never(action)


def _number(detail: bytes) -> int:
    return int.from_bytes(detail[:4], "big")


_EVENTS: Final[dict[int, Callable[[bytes], EngineEvent]]] = {
    EVENT_WANTED: lambda detail: Wanted(IPv4Address(detail)),
    EVENT_CLEAR: lambda detail: Clear(IPv4Address(detail)),
    EVENT_UNKNOWN: lambda detail: Unknown(IPv4Address(detail)),
    EVENT_CONFIRMED: lambda detail: Confirmed(_number(detail)),
    EVENT_NOTED: lambda detail: Noted(_number(detail), detail[4:]),
}
