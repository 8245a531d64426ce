"""A member's sealed sessions with others: what its conversations decide of them, for the device that has logged in.

    Member ── Admitted, Tell, Shake, lost() ──▶ Sealing ─▶ Sealer of the device ─▶ engine, state, say
    SIGHUP ── change() ───────────────────────▶    └─ the secret, under the network's key

Rules:
 1. Sessions are between devices: with another key of its own a member has none.
 2. A secret that is a text is stretched on a thread, once for each key of the network.
 3. Under another secret everything begins anew. So it does behind seal = "off"; between the other two sessions go on.

This module decides nothing about others.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from math import inf
from typing import assert_never

from candy._fastpath import Engine
from candy.member import conversation
from candy.member.state import MemberState
from candy.primitives import NOISE, key_pair
from candy.protocol.login import Asks
from candy.protocol.noise import KeyPair
from candy.protocol.secret import Secret
from candy.sealing.directory import Identity
from candy.sealing.joined import Joined, Own
from candy.sealing.sealer import COMMIT_BYTES, FLAGS, Say, Sealer, Watch
from candy.sealing.seals import Seal, Way
from candy.sealing.stamps import Moment


def boottime() -> float:
    """Seconds of CLOCK_BOOTTIME."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Sealing:
    """See above.

    Args:
        can: what it says of itself beside the setting.
        seal: the setting.
        secret: of the members; None: there is none.
        state: has the files.
        engine: has the device, `tun`.
        say: carries out what is the Member's.
        prefix, watch: of direct links, for Own and Sealer.
        now: seconds of CLOCK_BOOTTIME.
        wall: Unix nanoseconds.
    """

    def __init__(
        self,
        can: Asks,
        seal: Seal,
        secret: Secret | None,
        state: MemberState,
        engine: Engine,
        tun: int,
        say: Say,
        *,
        prefix: int = 0,
        watch: Watch = lambda action: None,
        now: Callable[[], float] = boottime,
        wall: Callable[[], int] = time.time_ns,
    ) -> None:
        self._can = can
        self.seal = seal
        self._sealer: Sealer | None = None
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
        self._prefix = prefix
        self._watch = watch
        self._now = now
        self._wall = wall

    @property
    def flags(self) -> Asks:
        """Of log-ins: how it seals."""
        return self._can | FLAGS[self.seal]

    @property
    def delay(self) -> float:
        """Seconds until go_on() has to be called; inf: not at all."""
        return inf if self._sealer is None else self._sealer.delay

    def members(self) -> Iterator[tuple[IPv4Address, Way, Identity | None]]:
        """Of whom it knows, what becomes of packets for them, and who they are."""
        return iter(()) if self._sealer is None else self._sealer.members()

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
                self._sealer_of(action.device).joined(self._joined)
            case conversation.NetworkChanged():
                # One that waits for approval has not joined yet: it will by this key.
                if self._joined is not None and self._sealer is not None:
                    secret = await self._secret_under(action.network)
                    self._joined = replace(self._joined, network=action.network, secret=secret)
                    self._sealer.changed(self._joined)
            case conversation.Tell():
                if self._sealer is not None:
                    self._sealer.told(action.message)
            case conversation.Shake():
                if self._sealer is not None:
                    self._sealer.shook(action.payload)
            case _:
                assert_never(action)

    def lost(self, connection: int) -> None:
        """A connection is gone: perhaps the one that leads."""
        if self._sealer is not None and self._joined is not None and self._joined.connection == connection:
            self._joined = None
            self._sealer.lost()

    def change(self, seal: Seal, secret: Secret | None) -> None:
        """Be set so from now on. The relay hears of it by the next log-in."""
        is_another = secret != self._secret
        self.seal, self._secret = seal, secret
        if is_another:
            self._stretched = None
        if self._sealer is not None:
            if is_another:
                self._sealer.end()
            self._sealer.set_seal(seal, self.flags)

    def on_event(self, source: int, kind: int, detail: bytes) -> bool:
        """Act on an event of the engine's; False: it is none about sealing."""
        return source == self._tun and self._sealer is not None and self._sealer.on_event(kind, detail)

    def linked(self, address: IPv4Address, is_linked: bool) -> None:
        """A member answers by a direct link, or does so no more."""
        if self._sealer is not None:
            self._sealer.linked(address, is_linked)

    def look_up(self, address: IPv4Address) -> None:
        """Have the relay say who has this address."""
        if self._sealer is not None:
            self._sealer.look_up(address)

    def has_key(self, address: IPv4Address) -> bool:
        """Whether who has this address does not seal, though it could: it is none of the original's clients."""
        return self._sealer is not None and self._sealer.has_key(address)

    def go_on(self) -> None:
        """Act on what time and traffic have brought, if that is due."""
        if self._sealer is not None:
            self._sealer.go_on()

    def forget(self, address: IPv4Address) -> bool:
        """Believe what was refused of this address; False: nothing was."""
        return self._sealer is not None and self._sealer.forget(address)

    def end(self) -> None:
        """The program ends, and the device goes: keep what is to be kept."""
        if self._sealer is not None:
            self._sealer.end()

    def _sealer_of(self, device: KeyPair) -> Sealer:
        """Rule 1."""
        if self._sealer is None or self._device != device:
            self.end()
            self._device = device
            own = Own(
                device=device,
                flags=self.flags,
                commit_bytes=COMMIT_BYTES,
                primitives=NOISE,
                key_pair=key_pair,
                randbytes=secrets.token_bytes,
                prefix=self._prefix,
            )
            self._sealer = Sealer(
                own, self.seal, self._state, self._engine, self._tun, self._say, self._at, self._watch
            )
        return self._sealer

    def _at(self) -> Moment:
        return Moment(self._now(), self._wall())

    async def _secret_under(self, network: bytes) -> bytes | None:
        if self._secret is None:
            return None
        if self._stretched is None or self._stretched[0] != network:
            self._stretched = network, await asyncio.to_thread(self._secret.under, network)
        return self._stretched[1]
