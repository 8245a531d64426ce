"""What networks decide, carried out: on the engine, in the store, in the log and the counters.

    Network ─▶ list[Action] ─▶ Actor ─┬─▶ engine    Send (sealed where that is due), Bind, Limit, Unbind, …
                                      ├─▶ keeper    Record ─▶ Network.recorded()
                                      └─▶ counters, log

Rules:
 1. Actions are carried out in order. What a network decides once something is written down, or a password stretched, is
    carried out then.
 2. A message that must not get lost and finds no room ends its connection.
 3. Lines that a peer can cause at will are limited by candy.relay.loglimit. Beyond the limit they are debug.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol

from candy._fastpath import Engine
from candy.errors import WireError
from candy.primitives import NOISE
from candy.protocol import control
from candy.protocol.actions import Close, Drop, Log, Ping, Secure, Send
from candy.protocol.closing import CloseCode
from candy.protocol.wire import Kind
from candy.relay.channels import Channels
from candy.relay.clock import Clock
from candy.relay.limits import bytes_per_s
from candy.relay.loglimit import LineLimiter
from candy.relay.recording import Outcome, Wanted
from candy.relay.served import Served
from candy.relay.session import Action, Bind, Limit, Record, Unbind

log = logging.getLogger("candy.relay")

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}


class Recorder(Protocol):
    """The store, or what stands before it."""

    def record(self, path: str = "", wanted: Wanted | None = None) -> "asyncio.Future[Outcome]":
        """Write down at once what is new of devices and invitations, and this of a network."""


class Actor:
    """See the rules above.

    Args:
        authenticated: called with each connection that is a member from now on.
        woken: called when a deadline may have changed for another reason than what was just carried out.
    """

    def __init__(
        self, engine: Engine, clock: Clock, authenticated: Callable[[int], None], woken: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._authenticated = authenticated
        self._woken = woken
        self.recorder: Recorder | None = None
        """None: nothing can be written down."""
        self.lines = LineLimiter()
        self.drops: Counter[str] = Counter()
        """What the networks have dropped, and this."""
        self._channels = Channels(NOISE)
        self._stretching: set[asyncio.Task[None]] = set()
        """Log-ins by password that wait."""

    def act(self, served: Served, actions: Iterable[Action]) -> None:
        """Carry these out, of a network's."""
        for action in actions:
            match action:
                case Send() if served.sealing is not None and served.sealing.connection == action.connection:
                    served.sealing.told(action.payload)
                case Send():
                    self._send(action)
                case Secure():
                    self._channels.secure(action.connection, action.sends, action.receives)
                case Record():
                    self._record(served, action)
                case Bind():
                    self._engine.bind(
                        action.connection, action.ip, takes_sealed=action.takes_sealed, circle=action.circle
                    )
                    self._authenticated(action.connection)
                case Limit():
                    down, up = bytes_per_s(action.down), bytes_per_s(action.up)
                    self._engine.set_limits(action.connection, down=down, up=up)
                case Unbind():
                    self._engine.unbind(action.connection)
                case Ping():
                    self._engine.ping(action.connection, action.payload)
                case Close():
                    self._engine.close(action.connection, action.code, action.reason)
                case Drop():
                    self.drops[action.reason] += 1
                case Log() if action.kind is not None or log.isEnabledFor(_LEVELS[action.level]):
                    about = {**action.about, "network": served.settings.path}
                    kind = action.kind and served.label + action.kind
                    self.log(replace(action, text=served.label + action.text, kind=kind, about=about))

    def received(self, served: Served, connection: int, payload: bytes, now: float, wall: int) -> list[Action]:
        """What follows from a message that came in; nothing yet, if it has to wait for a password to be stretched."""
        if served.has_to_stretch(payload):
            self._stretch(served, connection, payload)
            return []
        try:
            message, was_sealed = self._channels.arrived(connection, payload)
        except WireError:
            return served.network.broken(connection, now)
        act_on = served.network.controlled if was_sealed else served.network.received
        return act_on(connection, message, now, wall)

    def close(self, connection: int, code: CloseCode, reason: str) -> None:
        """End a connection for the relay's own sake; one with keys believes it."""
        if self._channels.has(connection):
            self._engine.send(connection, self._channels.leaving(connection, control.Closing(code, reason).encode()))
        self._engine.close(connection, code, reason)

    def forget(self, connection: int) -> None:
        """It has ended."""
        self._channels.forget(connection)

    def log(self, line: Log) -> None:
        """Write a line. One that is beyond the limit is debug."""
        if self.lines.passes(line, self._clock.time()):
            write(line)
            self._woken()
        else:
            write(replace(line, level="debug"))

    def _send(self, message: Send) -> None:
        if self._engine.send(message.connection, self._channels.leaving(message.connection, message.payload)):
            return
        # The engine counts control frames that find no room under the same name.
        self.drops["control"] += 1
        is_sealed = self._channels.has(message.connection) and message.payload[0] in control.WITHIN
        if is_sealed or message.payload[0] in (Kind.ROUTE, Kind.BEHIND):
            # A part of a set would be worse than none, and a CONTROL that is left out ends the connection anyway: the
            # member reconnects, and is told all of it.
            self._engine.close(message.connection, CloseCode.SERVICE_RESTART, "no room for what it is told")

    def _stretch(self, served: Served, connection: int, payload: bytes) -> None:
        def done(stretching: asyncio.Task[None]) -> None:
            self._stretching.discard(stretching)
            if not stretching.cancelled():
                stretching.result()
                # Passwords, or the network's key, may be others by now. Of one that has left nothing follows.
                now, wall = self._clock.time(), int(time.time())
                self.act(served, self.received(served, connection, payload, now, wall))
                self._woken()

        task = asyncio.create_task(served.stretch())
        self._stretching.add(task)
        task.add_done_callback(done)

    def _record(self, served: Served, record: Record) -> None:
        def done(outcome: Outcome) -> None:
            now, wall = self._clock.time(), int(time.time())
            self.act(served, served.network.recorded(record.connection, outcome, now, wall))
            self._woken()

        if self.recorder is None:
            done(Outcome.UNKEPT)
            return
        recording = self.recorder.record(served.settings.path, record.wanted)
        # At the relay's end it is not waited for any more.
        recording.add_done_callback(lambda recorded: None if recorded.cancelled() else done(recorded.result()))


def write(line: Log) -> None:
    """To the log."""
    log.log(_LEVELS[line.level], "%s", line.text, extra={"about": line.about})
