"""What a member is at, for who asks: its connections, and how the ones before ended.

    began() ─▶ connecting ─▶ logging in ─▶ connected ─▶ ended() ─▶ waiting ─▶ began()
                              a PING that is sent for who asks ─▶ ponged() ─▶ its answer

This module knows no engine, and decides nothing.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Literal

from candy.member.conversation import Conversation
from candy.member.succession import Succession


@dataclass(slots=True)
class Progress:
    """Of one member, over all its connections."""

    _succession: Succession | None = None
    """Of the attempt at hand, and what came of it; None: waiting for the next one, or not begun."""
    last_end: tuple[float, str] | None = None
    """Unix seconds, and why."""
    _awaiting: set[asyncio.Future[None]] = field(default_factory=set)
    """Who waits for a PONG."""

    @property
    def conversation(self) -> Conversation | None:
        """That of the connection at hand."""
        return None if self._succession is None else self._succession.at_hand

    @property
    def connection(self) -> int | None:
        """The engine's number of it."""
        conversation = self.conversation
        return None if conversation is None else conversation.connection

    @property
    def state(self) -> Literal["connected", "logging in", "waiting", "connecting"]:
        """In one word or two."""
        conversation = self.conversation
        if conversation is not None:
            return "logging in" if conversation.confirmed is None else "connected"
        return "waiting" if self._succession is None and self.last_end is not None else "connecting"

    def began(self, succession: Succession) -> None:
        """An attempt to connect begins."""
        self._succession = succession

    def ended(self, why: str, wall: float) -> None:
        """It has failed, or all that came of it has ended, and the next one has to wait."""
        self.last_end = wall, why
        self._succession = None

    def ponged(self, connection: int) -> None:
        """The relay has answered a PING: perhaps an older one, for the original's answers don't tell."""
        if connection != self.connection:
            return
        for awaited in self._awaiting:
            if not awaited.done():
                awaited.set_result(None)

    async def pong(self) -> None:
        """Return with the next PONG."""
        awaited = asyncio.get_running_loop().create_future()
        self._awaiting.add(awaited)
        try:
            await awaited
        finally:
            self._awaiting.discard(awaited)
