"""The relay's own interface in a network, one more member that seals: here is its part of the wire, which it has not.

    Network ── Send to it: TELL, NETWORK_KEY ─▶ told() ─┐
    engine ── HANDSHAKE, COMMIT, about sealing ─▶ on_event() ─▶ Sealer ─▶ engine
    the clock ────────────────────────────── go_on() ───┘         └─▶ ASK ─▶ Network.asked();  HANDSHAKE ─▶ a member

Rules:
 1. What it says is carried out by the loop's next round, as over a wire: an answer finds it through with what it did.
 2. It has a key of its own, and no pins: who tells it of others is the relay, which has let them in by their keys.
 3. It has no `--secret`, so members that have one can't reach it.

This module decides nothing: neither about others (candy.sealing) nor what is told of them (candy.relay.telling).
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from candy._fastpath import EVENT_CONTROL, EVENT_MESSAGE, Engine
from candy.host.files import Folder
from candy.host.processor import has_aes
from candy.primitives import NOISE, key_pair
from candy.protocol import control
from candy.protocol.actions import Send
from candy.protocol.handshake import HANDSHAKE, Message
from candy.protocol.login import Asks
from candy.protocol.noise import KeyPair
from candy.relay.network import Network
from candy.relay.session import Action
from candy.sealing.joined import Own
from candy.sealing.pins import Pins, Unpinned
from candy.sealing.sealer import COMMIT_BYTES, FLAGS, Said, Sealer
from candy.sealing.seals import Seal
from candy.sealing.stamps import Moment, Stamps

log = logging.getLogger("candy.relay")


class Times:
    """Keeps the times of its handshakes in a file, and nothing of others."""

    def __init__(self, folder: Folder, path: Path) -> None:
        self._folder = folder
        self._path = path

    def pins(self) -> Pins:
        return Unpinned()

    def keep_pins(self, content: bytes) -> None:
        """There are none."""

    def stamps(self) -> Stamps:
        stamps = Stamps(self._folder.read(self._path))
        if stamps.is_damaged:
            log.warning("%s holds no time: not used", self._path)
        return stamps

    def keep_stamp(self, content: bytes) -> None:
        self._folder.replace(self._path, content)


class OwnSealing:
    """See above.

    Args:
        connection: the interface's, which has its address.
        device: its keys.
        act: carries out what is the network's.
        woken: called when go_on() may be due sooner.
    """

    def __init__(
        self,
        engine: Engine,
        network: Network,
        connection: int,
        device: KeyPair,
        seal: Seal,
        times: Times,
        act: Callable[[Iterable[Action]], None],
        woken: Callable[[], None],
    ) -> None:
        self.connection = connection
        self._engine = engine
        self._network = network
        self._act = act
        self._woken = woken
        self._loop = asyncio.get_running_loop()
        self._own = Own(
            device=device,
            flags=_flags(seal),
            commit_bytes=COMMIT_BYTES,
            primitives=NOISE,
            key_pair=key_pair,
            randbytes=os.urandom,
        )
        self._joined = network.seal_own(self._own)
        self._sealer = Sealer(self._own, seal, times, engine, connection, self._say, _now)
        self._sealer.joined(self._joined)

    @property
    def delay(self) -> float:
        """Seconds until go_on() has to be called; inf: not at all."""
        return self._sealer.delay

    def go_on(self) -> None:
        """Act on what time and traffic have brought, if that is due."""
        self._sealer.go_on()

    def set_seal(self, seal: Seal) -> None:
        """The setting is another one, which members are told that have asked."""
        self._own = replace(self._own, flags=_flags(seal))
        self._joined = self._network.seal_own(self._own)
        self._sealer.set_seal(seal, self._own.flags)

    def told(self, message: bytes) -> None:
        """What goes to other members within a CONTROL."""
        match control.decode(message):
            case control.Tell() | control.NotSealing() | control.Commit() as about:
                self._sealer.told(about)
            case control.NetworkKey():
                self._joined = replace(self._joined, network=self._network.enrolment.network)
                self._sealer.changed(self._joined)

    def on_event(self, kind: int, detail: bytes) -> None:
        """Act on an event of the engine's about the interface."""
        match kind:
            case _ if kind == EVENT_MESSAGE:
                self._sealer.shook(detail)
            case _ if kind == EVENT_CONTROL:
                self.told(detail)
            case _:
                self._sealer.on_event(kind, detail)

    def end(self) -> None:
        """End all sessions."""
        self._sealer.end()

    def _say(self, action: Said) -> None:
        if isinstance(action, Send):
            self._loop.call_soon(self._send, action.payload)
        else:
            self._act([action])

    def _send(self, payload: bytes) -> None:
        if payload[0] == HANDSHAKE:
            connection = self._network.pool.holder(Message.decode(payload).destination)
            if connection is not None:
                self._engine.send(connection, payload)
            return
        self._act(self._network.asked(control.Ask.decode(payload)))
        self._woken()


def _flags(seal: Seal) -> Asks:
    return FLAGS[seal] | (Asks.HAS_AES if has_aes() else Asks(0))


def _now() -> Moment:
    return Moment(time.clock_gettime(time.CLOCK_BOOTTIME), time.time_ns())
