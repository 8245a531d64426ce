"""One attempt after another to reach a relay, and how to log in there: beside all else that a member does.

    begin() ─▶ relay in turn ─▶ Dialer ─▶ Upgraded ─▶ keyring ─▶ Reached | Failed ─ taken()
                                                                     └─ abandon()

Rules: one attempt at a time; what has come of one that is given up is closed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass

from candy.carrier.secure import Secure
from candy.errors import ConfigError, KeysUnusable, OperationalError
from candy.member.dial import Dialer, Upgraded
from candy.member.keyring import Keyring
from candy.member.login import LogIn, why_not_by_hash
from candy.member.relays import Relays
from candy.member.state import MemberState


@dataclass(frozen=True, slots=True)
class Reached:
    """A relay, and how the member is to log in there; None: as old clients do."""

    upgraded: Upgraded
    dialer: Dialer
    log_in: LogIn | None


@dataclass(frozen=True, slots=True)
class Failed:
    """Why there is no connection to a relay. `refused`: there might be one, with another relay or other keys."""

    relay: str
    text: str
    refused: bool = False


class Dialing:
    """See above.

    Args:
        relays: says whose turn it is.
        keyring: what the member logs in by.
        state: keeps where a relay was reached.
        secure: has connections under TLS.
        seals_alone: whether the member is one only where all packets are sealed.
        follow: leads packets into the tunnel, or around it, as this machine is now.
        done: is called once an attempt is over.
    """

    def __init__(
        self,
        relays: Relays,
        keyring: Keyring,
        state: MemberState,
        secure: Secure,
        seals_alone: Callable[[], bool],
        follow: Callable[[], Awaitable[object]],
        done: Callable[[], object],
    ) -> None:
        self.relays = relays
        self.keyring = keyring
        self._state = state
        self._secure = secure
        self._seals_alone = seals_alone
        self._follow = follow
        self._done = done
        self._task: asyncio.Task[Reached | Failed] | None = None

    @property
    def is_under_way(self) -> bool:
        """An attempt is, or what has come of it was not taken."""
        return self._task is not None

    def begin(self, attempt_s: float) -> None:
        """Try the relay whose turn it is, for so long."""
        self._task = asyncio.create_task(self._dial(attempt_s))
        self._task.add_done_callback(lambda _: self._done())

    def taken(self) -> Reached | Failed | None:
        """What has come of the attempt, which is the caller's from here on; None: nothing yet."""
        if self._task is None or not self._task.done():
            return None
        task, self._task = self._task, None
        return task.result()

    async def abandon(self) -> None:
        """Give up the attempt that is under way, or what has come of it."""
        assert self._task is not None
        task, self._task = self._task, None
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is None and isinstance(late := task.result(), Reached):
            late.upgraded.close()

    async def _dial(self, attempt_s: float) -> Reached | Failed:
        url = self.relays.following
        if not self.relays.is_own(url) and not self.keyring.knows_network():
            # Its file was removed meanwhile: anybody could be there.
            return Failed(url, f"{url}: a relay told of this one, and this member knows no network's key any more")
        try:
            dialer = self.relays.next()
        except (ConfigError, OperationalError) as error:
            return Failed(url, f"{url}: {error}")
        # This machine, or the relay, may have moved into a network that one of the routes leads to.
        await self._follow()
        outer = dialer.outer
        name = outer.name
        outer.segment = self._state.segment(outer.host)
        try:
            known = self._state.reached(name) if name is not None else ()
            upgraded = await dialer.dial(attempt_s, secure=self._secure, known=known)
        except OperationalError as error:
            return Failed(url, str(error))
        if name is not None:
            self._state.keep_reached(name, outer.good)
        if outer.segment is not None:
            self._state.keep_segment(outer.host, outer.segment)
        return await self._prepare(upgraded, dialer)

    async def _prepare(self, upgraded: Upgraded, dialer: Dialer) -> Reached | Failed:
        """How to log in there."""
        with ExitStack() as unused:
            unused.callback(upgraded.close)
            try:
                log_in = None if upgraded.shown is None else await self.keyring.log_in(upgraded.shown)
                if log_in is None and (why := self._why_not_by_hash()) is not None:
                    return Failed(dialer.relay, why, refused=True)
            except KeysUnusable as error:
                return Failed(dialer.relay, str(error), refused=True)
            unused.pop_all()
        return Reached(upgraded, dialer, log_in)

    def _why_not_by_hash(self) -> str | None:
        """Raises KeysUnusable."""
        return why_not_by_hash(
            knows_network=self.keyring.knows_network(),
            extension=self.relays.extension,
            seals_alone=self._seals_alone(),
            has_password=self.keyring.has_password,
        )
