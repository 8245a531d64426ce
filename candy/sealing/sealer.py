"""Sealed sessions of one device, carried out: Sessions decides, this has the engine, and who made it the rest.

    joined(), told(), shook(), lost() ─▶ Sealer ─▶ Sessions ─▶ actions ─┬─▶ engine: install(), set_peer(), …
    events of the engine ─ on_event() ──▶  ▲                            ├─▶ say: Send, Drop, Log
    the clock ──────────── go_on() ────────┘                            └─▶ files: pins, handshake

Rules:
 1. Actions are carried out at once and in order: what a file has to hold is kept before the message that relies on it.
 2. Times are CLOCK_BOOTTIME's, so that keys grow old while the machine sleeps.

A member has one (candy.member.sealing), and so has the relay's own interface (candy.relay.sealing). This module decides
nothing about others, and does not know how the relay is reached.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from ipaddress import IPv4Address
from math import inf
from typing import Final, Protocol, assert_never

from candy._fastpath import (
    EVENT_CLEAR,
    EVENT_CONFIRMED,
    EVENT_GROUPED,
    EVENT_NOTED,
    EVENT_UNKNOWN,
    EVENT_WANTED,
    Engine,
)
from candy.protocol import control
from candy.protocol.actions import Drop, Log, Send
from candy.protocol.login import Asks
from candy.sealing.directory import Identity
from candy.sealing.handshakes import KeepStamp
from candy.sealing.joined import Joined, Own
from candy.sealing.pins import Pins
from candy.sealing.seals import (
    Clear,
    CloseGroup,
    Confirmed,
    EngineEvent,
    ForgetPeer,
    Grouped,
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
from candy.sealing.stamps import Moment, Stamps

Said = Send | Drop | Log
Say = Callable[[Said], None]
"""Carries out what concerns neither engine nor files."""
Watch = Callable[[Install | Remove | SetPeer | ForgetPeer], object]
"""For direct links (candy.member.linking)."""
COMMIT_BYTES: Final = 65535
"""A device takes packets as long as they can be."""
FLAGS: Final = {Seal.OFF: Asks.SEALS_NOTHING, Seal.PREFER: Asks(0), Seal.REQUIRE: Asks.REQUIRES_SEALING}
"""What is said of the setting to others."""
_MODES: Final = {Seal.OFF: 0, Seal.PREFER: 1, Seal.REQUIRE: 2}
"""As set_sealing() has them."""


class Files(Protocol):
    """Where pins and times are kept."""

    def pins(self) -> Pins: ...
    def keep_pins(self, content: bytes) -> None: ...
    def stamps(self) -> Stamps: ...
    def keep_stamp(self, content: bytes) -> None: ...


class Sealer:
    """See above.

    Args:
        own: the member.
        seal: the setting.
        engine: has the device, `tun`.
        say: carries out what concerns neither engine nor files.
        at: when it is.
        watch: hears of sessions and peers, once the engine has.
    """

    def __init__(
        self,
        own: Own,
        seal: Seal,
        files: Files,
        engine: Engine,
        tun: int,
        say: Say,
        at: Callable[[], Moment],
        watch: Watch = lambda action: None,
    ) -> None:
        self._sessions = Sessions(own, seal, files.pins(), files.stamps())
        self._files = files
        self._engine = engine
        self._tun = tun
        self._say = say
        self._at = at
        self._watch = watch

    @property
    def delay(self) -> float:
        """Seconds until go_on() has to be called; inf: not at all."""
        due = self._sessions.deadline
        return due if due == inf else max(0.0, due - self._at().now)

    def members(self) -> Iterator[tuple[IPv4Address, Way, Identity | None]]:
        """Of whom it knows, what becomes of packets for them, and who they are."""
        return self._sessions.members(self._at().now)

    def joined(self, joined: Joined) -> None:
        """Let in on a connection, which leads from now on."""
        self._carry_out(self._sessions.joined(joined, self._at()))

    def changed(self, joined: Joined) -> None:
        """The network has another key, on the same connection."""
        self._carry_out(self._sessions.changed(joined, self._at()))

    def told(self, message: control.Tell | control.NotSealing | control.Commit) -> None:
        """What the relay says of other members."""
        self._carry_out(self._sessions.told(message, self._at()))

    def shook(self, payload: bytes) -> None:
        """Another member's HANDSHAKE."""
        self._carry_out(self._sessions.received(payload, self._at()))

    def lost(self) -> None:
        """The connection that leads is gone."""
        self._sessions.lost(self._at().now)

    def set_seal(self, seal: Seal, flags: Asks) -> None:
        """The setting is another one, and with it what is said to others."""
        self._carry_out(self._sessions.set_seal(seal, flags, self._at()))

    def on_event(self, kind: int, detail: bytes) -> bool:
        """Act on an event of the engine's about the device; False: it is none about sealing."""
        if kind not in _EVENTS:
            return False
        self._carry_out(self._sessions.happened(_EVENTS[kind](detail), self._at()))
        return True

    def linked(self, address: IPv4Address, is_linked: bool) -> None:
        """A member answers by a direct link, or does so no more."""
        self._carry_out(self._sessions.linked(address, is_linked, self._at()))

    def look_up(self, address: IPv4Address) -> None:
        """Have the relay say who has this address."""
        self._carry_out(self._sessions.happened(Clear(address), self._at()))

    def has_key(self, address: IPv4Address) -> bool:
        """Whether the relay has told a key of one that does not seal."""
        return self._sessions.has_key(address)

    def go_on(self) -> None:
        """Act on what time and traffic have brought, if that is due."""
        if self.delay == 0:
            seen = [
                Seen(local, carried, packet_sent_at, unanswered_since, received_at, owes_since)
                for local, carried, packet_sent_at, unanswered_since, received_at, owes_since in self._engine.seen(
                    self._tun
                )
            ]
            self._carry_out(self._sessions.tick(seen, self._at()))

    def forget(self, address: IPv4Address) -> bool:
        """Believe what was refused of this address; False: nothing was."""
        actions = self._sessions.forget(address, self._at())
        if actions is None:
            return False
        self._carry_out(actions)
        return True

    def end(self) -> None:
        """End all sessions, and keep what is to be kept."""
        self._carry_out(self._sessions.ended(self._at()))

    def _carry_out(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Send() | Drop() | Log():
                    self._say(action)
                case KeepPins():
                    self._files.keep_pins(action.content)
                case KeepStamp():
                    self._files.keep_stamp(action.content)
                case _:
                    self._have_engine(action)
                    if isinstance(action, Install | Remove | SetPeer | ForgetPeer):
                        self._watch(action)

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
            case SealGroups():
                self._engine.seal_groups(self._tun, action.epoch, action.key, action.label_key)
            case OpenGroup():
                self._engine.open_group(self._tun, int(action.source), action.epoch, action.key, action.message)
            case CloseGroup():
                self._engine.close_group(self._tun, int(action.source), action.epoch)
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
    EVENT_GROUPED: Grouped,
}
