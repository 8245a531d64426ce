"""A relay with candy.3 for lab.setting's member: its half of the log-in, and what it says behind that, by hand.

    keyed(setting) ─▶ KeyedRelay ─▶ visitor = await relay.visitor() ─▶ await visitor.let_in() ─▶ visitor.tell(message)

Passwords are stretched by kit.login's psk_of, for speed.
"""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace

import aiohttp
from kit.login import Talk, psk_of
from kit.primitives import PRIMITIVES
from kit.recorded import GRANTED, PASSWORD, WALL
from lab.setting import Setting, StagedRelay, Visitor

from candy.member.keyring import Keyring
from candy.member.keys import MemberKeys
from candy.protocol import control
from candy.protocol.link import Invitation
from candy.protocol.login import Login, Told
from candy.relay.login import Claim, LogIn
from candy.relay.passwords import Password

TOLD = Told(address=GRANTED, lease=bytes([7]) * 8, clock=WALL)


class KeyedVisitor:
    """One connection as the relay sees it."""

    def __init__(self, talk: Talk, log_in: LogIn, visitor: Visitor) -> None:
        self._talk = talk
        self._log_in = log_in
        self.visitor = visitor
        self.login: Login
        self.claim: Claim | None = None
        self.channel: control.Channel

    async def read(self) -> Claim | None:
        """Message 1, and who it is by; None: it proves nothing."""
        self.login = Login.decode(await self.visitor.binary(), 1)
        self.claim = self._talk.read(self._log_in, self.login.encode())
        return self.claim

    async def answer(self, told: Told) -> None:
        """Message 2."""
        answer = self._log_in.answer(told)
        self.channel = control.Channel(PRIMITIVES, answer.sends, answer.receives)
        await self.visitor.socket.send_bytes(answer.message)

    def told(self) -> Told:
        """What the relay's enrolment makes of the claim; who is let in has GRANTED."""
        assert self.claim is not None
        told = self._talk.told(self.claim)
        return told if told.code else replace(TOLD, flags=told.flags, selector=told.selector, secret=told.secret)

    async def let_in(self) -> None:
        """The whole log-in, up to the member's confirmation."""
        assert await self.read() is not None
        await self.answer(self.told())
        assert await self.hear() == control.Confirm()

    async def hear(self) -> control.FromMember | control.FromRelay:
        """The next message within a CONTROL."""
        return control.decode(self.channel.opened(await self.visitor.binary()))

    async def tell(self, message: bytes) -> None:
        """Within a CONTROL."""
        await self.visitor.socket.send_bytes(self.channel.seal(message))

    async def close(self, code: int, text: str = "") -> None:
        """A CLOSE, in the clear."""
        await self.visitor.socket.close(code=code, message=text.encode())

    async def end(self) -> int:
        """The code with which the member closes."""
        while True:
            kind, data = await self.visitor.receive()
            if kind is aiohttp.WSMsgType.CLOSE:
                assert isinstance(data, int)
                return data


class KeyedRelay:
    """A network with the setting's password, and log-ins with it.

    Args:
        setting: its member becomes one with a key.
        relay: becomes this; None: the setting's.
    """

    def __init__(self, setting: Setting, talk: Talk | None = None, relay: StagedRelay | None = None) -> None:
        self.talk = talk if talk is not None else Talk(passwords=(Password(PASSWORD),))
        self._relay = relay if relay is not None else setting.relay
        self._log_ins: asyncio.Queue[LogIn] = asyncio.Queue()
        self._relay.protocols = ("candy.3", "candy.2")
        self._relay.headers = self._show
        self._folder = setting.folder
        self.has(setting)

    def has(
        self,
        setting: Setting,
        *,
        password: bytes | None = PASSWORD,
        network: bytes | None = None,
        invitation: Invitation | None = None,
    ) -> None:
        """What the member logs in by, and knows, from its next start on."""
        setting.keyring = lambda: Keyring(
            MemberKeys(self._folder),
            password=password,
            network=network,
            invitation=invitation,
            randbytes=os.urandom,
            stretch=lambda password, network: psk_of(password),
        )

    async def visitor(self) -> KeyedVisitor:
        """The next connection."""
        visitor = await self._relay.member()
        return KeyedVisitor(self.talk, self._log_ins.get_nowait(), visitor)

    def _show(self) -> Mapping[str, str]:
        log_in = self.talk.relay()
        self._log_ins.put_nowait(log_in)
        return log_in.shown.headers()
