"""A relay's links to the others of its cluster: dialed, logged in, and where packets go by them.

    records of relays ─▶ know() ─▶ dialed, if its name is lower ─▶ LinkLogin ─▶ Engine.agree, open_trunk
    the door ─▶ opened() ─────────────────────────────────────────┘
    the directory ─▶ route(word, ip, name) ─▶ Engine.lead, unlead

Rules:
 1. Of two relays the one whose name is higher dials, LINKS connections; each is dialed again when it has ended, after a
    pause that grows with every failure and begins anew with a success.
 2. An address leads to the relay that the directory says, whether there is a link or not: what finds none is dropped
    under a name.
 3. Links are of the networks that were served when they logged in: one that comes or goes ends them all, and they are
    dialed again.
 4. Of more links to one relay than the engine has room for the oldest ends.
 5. A link that is not through its log-in within LOGIN_S is ended. Until then it counts as a stranger at the door, of
    whom there are STRANGERS_MOST at most: beyond that the oldest ends.
 6. A relay has a place, one of RELAYS_MOST, while it runs, has links, or addresses lead there. One that has ended and
    whose members are gone leaves its place to the next that needs one.
 7. Lines that strangers, or other relays, cause at will are limited by candy.relay.loglimit.

It carries out; what relays say to each other is candy.relay.cluster.linklogin.
"""

import asyncio
import logging
import os
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from candy._fastpath import EVENT_CLOSED, EVENT_MESSAGE, EVENT_PONG, Engine
from candy.carrier.secure import Secure
from candy.carrier.tls import Trust, trusting
from candy.errors import CandyError, OperationalError
from candy.primitives import NOISE, key_pair
from candy.protocol.actions import Log
from candy.protocol.addresses import source_of
from candy.protocol.closing import CloseCode
from candy.protocol.noise import KEY_BYTES, KeyPair
from candy.relay.cluster.linkdial import dial
from candy.relay.cluster.linklogin import Identity, LinkError, LinkLogin
from candy.relay.clustersettings import ClusterSettings
from candy.settings import split_url

LINKS: Final = 2
"""Connections to each other relay: so that two workers of either carry its packets."""
LOGIN_S: Final = 10.0
AGAIN_S: Final = 0.01
"""Until a message of a log-in is sent for which there was no room."""
PAUSE_S: Final = 0.2
PAUSE_MOST_S: Final = 2.0
PING: Final = b"candy-status"
PING_S: Final = 1.0
"""How long another relay may take to answer a ping that is sent for who asks."""
RELAYS_MOST: Final = 255
"""Others, as the engine has room for them."""
STRANGERS_MOST: Final = 1024
"""Links that are not through their log-ins; with RELAYS_MOST times the engine's eight less than LINK_SLOTS."""

log = logging.getLogger("candy.relay")


class _Link:
    """One connection, from its upgrade on."""

    def __init__(self, login: LinkLogin, source: str, deadline: asyncio.TimerHandle) -> None:
        self.login = login
        self.source = source
        """IP address of who has dialed, as text, or the name of the relay that was dialed."""
        self.deadline = deadline
        self.is_open = False
        self.unsent: list[bytes] = []
        """Of its log-in."""
        self.again: asyncio.TimerHandle | None = None
        """When that is sent; None: there is nothing."""
        self.waits = False
        """It is through its log-in, and opens when another one has ended."""
        self.pong: asyncio.Future[float] | None = None
        """When a ping was answered, for who waits for that."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class _Other:
    """Another relay, as its record has it."""

    def __init__(self, number: int) -> None:
        self.number = number
        """The engine's for it."""
        self.url = ""
        self.key = b""
        """None: it does not run."""
        self.epoch = 0
        self.open_links = 0
        self.routes = 0
        """Addresses that lead there."""
        self.has_failed = False
        """There is a line in the log that it can't be reached, since the last success."""
        self.dialing: list[asyncio.Task[None]] = []


class Mesh:
    """See the rules above.

    Args:
        networks: the engine's numbers by networks' words, to begin with; serve() and leave() follow.
        psk: of the cluster's secret.
        linked: told when the first link to a relay opens, and when the last one is lost.
        admitted: told that a connection that came by the door is no stranger any more, or has ended.
        report: writes a line, within the limit of its kind and source.
    """

    def __init__(
        self,
        settings: ClusterSettings,
        engine: Engine,
        networks: Mapping[str, int],
        psk: bytes,
        linked: Callable[[str, bool], None],
        admitted: Callable[[int], None],
        report: Callable[[Log], None],
    ) -> None:
        self._name = settings.name
        self._trust = Trust(ca_file=settings.ca_file)
        self._engine = engine
        self._networks = dict(networks)
        self._linked = linked
        self._admitted = admitted
        self._report = report
        self._pair = key_pair(os.urandom(KEY_BYTES))
        self._psk = psk
        self._secure = Secure(engine)
        self._others: dict[str, _Other] = {}
        self._links: dict[int, _Link] = {}
        self._strangers: dict[int, None] = {}
        """Connections that came by the door and are not through their log-ins, the oldest first."""
        self._routes: dict[tuple[str, int], str] = {}
        self._is_over = False

    @property
    def key(self) -> str:
        """For this relay's record: another one at each start."""
        return self._pair.public.hex()

    def is_linked(self, name: str) -> bool:
        """Whether packets go to this relay."""
        other = self._others.get(name)
        return other is not None and other.open_links > 0

    def links(self) -> dict[str, int]:
        """How many there are to each relay of which this one has heard."""
        return {name: other.open_links for name, other in self._others.items()}

    async def round_trips(self) -> dict[str, float]:
        """Seconds to each relay that answers a ping in time, by one of its links."""
        loop = asyncio.get_running_loop()
        began, waiting = loop.time(), {}
        for connection, link in self._links.items():
            name = link.login.peer or ""
            if link.is_open and name not in waiting and self._engine.ping(connection, PING):
                # Who asks meanwhile has the answer to the same ping, or to one of a moment before.
                waiting[name] = link.pong = link.pong or loop.create_future()
        if waiting:
            await asyncio.wait(waiting.values(), timeout=PING_S)
        return {name: pong.result() - began for name, pong in waiting.items() if pong.done()}

    def know(self, name: str, url: str, key: str, epoch: int) -> None:
        """A relay's record, as it is now.

        Args:
            key: empty: it does not run, or knows no links.
        """
        if name == self._name or self._is_over or len(key) not in (0, 2 * KEY_BYTES):
            return
        # Who does not run needs no place.
        other = self._other(name) if key else self._others.get(name)
        if other is None or epoch < other.epoch:
            return
        has_changed = (other.url, other.key) != (url, bytes.fromhex(key))
        other.url, other.key, other.epoch = url, bytes.fromhex(key), epoch
        if not has_changed:
            return
        # What there is leads to what it was before.
        for task in other.dialing:
            task.cancel()
        for connection in self._links_to(name):
            self._engine.close(connection)
        other.dialing = []
        if other.key and self._name > name:
            loop = asyncio.get_running_loop()
            other.dialing = [loop.create_task(self._keep_dialing(name, other)) for _ in range(LINKS)]

    def serve(self, word: str, number: int) -> None:
        """A network is served from now on, by the engine's number for it."""
        if self._networks.get(word) != number:
            self._networks[word] = number
            self._log_in_anew()

    def leave(self, word: str) -> None:
        """A network is served no more; its number may be another's from now on."""
        if self._networks.pop(word, None) is not None:
            # The engine has given up what led anywhere in it.
            for key in [key for key in self._routes if key[0] == word]:
                self._others[self._routes.pop(key)].routes -= 1
            self._log_in_anew()

    def route(self, word: str, ip: int, name: str | None) -> None:
        """Which relay has an address now; None: this one, or none. In a network that is not served nothing leads
        anywhere."""
        network = self._networks.get(word)
        if network is None:
            return
        other = self._other(name) if name is not None else None
        before = self._routes.pop((word, ip), None)
        if before is not None:
            self._others[before].routes -= 1
        if other is not None and name is not None:
            self._engine.lead(network, ip, other.number)
            self._routes[word, ip] = name
            other.routes += 1
        elif before is not None:
            self._engine.unlead(network, ip, self._others[before].number)

    def opened(self, connection: int, source: str) -> None:
        """One that came by the door: another relay has dialed this one.

        Args:
            source: IP address as text.
        """
        self._strangers[connection] = None
        if len(self._strangers) > STRANGERS_MOST:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            self._engine.close(oldest)
        self._begin(connection, LinkLogin(self._own(), self._key_of, _drawn), source)

    def on_event(self, connection: int, kind: int, detail: bytes) -> bool:
        """Take an event of the engine's; False: it is none of a link's."""
        link = self._links.get(connection)
        if link is None:
            return self._secure.on_event(connection, kind, detail)
        if kind == EVENT_CLOSED:
            self._on_closed(connection, link, detail.decode().partition(" ")[0])
        elif kind == EVENT_MESSAGE:
            self._on_message(connection, link, detail)
        elif kind == EVENT_PONG and link.pong is not None:
            link.pong.set_result(asyncio.get_running_loop().time())
            link.pong = None
        return True

    async def stop(self) -> None:
        """End all links."""
        self._is_over = True
        tasks = [task for other in self._others.values() for task in other.dialing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in self._links:
            self._engine.close(connection, CloseCode.GOING_AWAY, "the relay ends")

    def _own(self) -> Identity:
        """What this relay is, for a log-in that begins."""
        return Identity(self._name, self._pair, self._psk, tuple(self._networks), NOISE)

    def _key_of(self, name: str) -> bytes | None:
        """Of a relay that runs."""
        other = self._others.get(name)
        return None if other is None else other.key or None

    def _warn(self, kind: str, about: str, text: str) -> None:
        """Of what a source, or a relay, can cause at will."""
        self._report(Log("warning", f"cluster: {text}", kind=kind, source=source_of(about), about={"source": about}))

    def _links_to(self, name: str | None) -> list[int]:
        """Connections, the oldest first."""
        return [connection for connection, link in self._links.items() if link.login.peer == name]

    def _log_in_anew(self) -> None:
        """What links have agreed on is not so any more."""
        for connection in self._links:
            self._engine.close(connection)

    def _other(self, name: str) -> _Other | None:
        other = self._others.get(name)
        if other is None:
            number = self._place()
            if number is None:
                # One line a minute, for all relays without a place together.
                text = f"no link to the relay {name}: there are {RELAYS_MOST} others"
                self._report(Log("warning", f"cluster: {text}", kind="no place for a relay"))
                return None
            other = self._others[name] = _Other(number)
        return other

    def _place(self) -> int | None:
        """A number that no relay has, or one that needs it no more."""
        if len(self._others) < RELAYS_MOST:
            taken = {other.number for other in self._others.values()}
            return next(number for number in range(RELAYS_MOST) if number not in taken)
        for name, other in self._others.items():
            if not other.key and not other.routes and not self._links_to(name):
                del self._others[name]
                return other.number
        return None

    async def _keep_dialing(self, name: str, other: _Other) -> None:
        """One of the links to a relay, again and again."""
        pause = PAUSE_S
        while True:
            try:
                link = await self._dial(name, other)
                await link.ended
                pause = PAUSE_S if link.is_open else pause
            except CandyError as error:
                if not other.has_failed:
                    log.warning("cluster: no link to the relay %s: %s", name, error)
                    other.has_failed = True
            # So that many do not come back to one in the same moment.
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, PAUSE_MOST_S)

    async def _dial(self, name: str, other: _Other) -> _Link:
        scheme, host = other.url.partition(":")[0], split_url(other.url).hostname
        if not host or scheme not in ("ws", "wss"):
            raise OperationalError(f"its url {other.url!r} can't be dialed")
        tls = trusting(host, self._trust) if scheme == "wss" else None
        connection = await dial(other.url, self._engine, self._secure, tls)
        login = LinkLogin(self._own(), self._key_of, _drawn, name)
        link = self._begin(connection, login, name)
        self._send(connection, [login.begin()])
        return link

    def _begin(self, connection: int, login: LinkLogin, source: str) -> _Link:
        deadline = asyncio.get_running_loop().call_later(LOGIN_S, self._engine.close, connection)
        link = self._links[connection] = _Link(login, source, deadline)
        return link

    def _on_message(self, connection: int, link: _Link, message: bytes) -> None:
        try:
            step = link.login.received(message)
            other = self._others.get(link.login.peer or "")
            if step.agreed is not None and other is not None:
                self._agree(connection, other, step.agreed)
        except LinkError as error:
            self._warn("link refused", link.source, f"a link with {link.login.peer or link.source} is refused: {error}")
            self._engine.close(connection, CloseCode.POLICY_VIOLATION, "this is no link of ours")
            return
        self._send(connection, step.messages)
        if step.is_open and other is not None:
            self._open(connection, link, other)

    def _send(self, connection: int, messages: Sequence[bytes] = ()) -> None:
        """Send what waits, and then these. The engine keeps little for who has not logged in: it is asked again until
        the link's deadline."""
        link = self._links.get(connection)
        if link is None:
            return
        link.unsent += messages
        while link.unsent and self._engine.send(connection, link.unsent[0]):
            del link.unsent[0]
        if link.again is not None:
            link.again.cancel()
        link.again = asyncio.get_running_loop().call_later(AGAIN_S, self._send, connection) if link.unsent else None

    def _agree(self, connection: int, other: _Other, words: Sequence[str]) -> None:
        """Raises LinkError."""
        try:
            self._engine.agree(connection, other.number, [self._networks[word] for word in words])
        except (KeyError, ValueError):
            # What came before its end was taken in is still told.
            raise LinkError("the networks of this relay have changed since its log-in began") from None

    def _open(self, connection: int, link: _Link, other: _Other) -> None:
        self._admitted(connection)
        self._strangers.pop(connection, None)
        try:
            self._engine.open_trunk(connection)
        except ValueError as error:
            # Of the oldest the other relay perhaps knows nothing any more: this one opens when that has ended.
            oldest = next(each for each in self._links_to(link.login.peer) if self._links[each].is_open)
            name = link.login.peer or ""
            self._warn("too many links", name, f"the oldest link with {name} ends for a new one: {error}")
            link.waits = True
            self._engine.close(oldest)
            return
        link.deadline.cancel()
        link.waits = False
        link.is_open = True
        other.has_failed = False
        other.open_links += 1
        if other.open_links == 1:
            log.info("cluster: linked with the relay %s", link.login.peer)
            self._linked(link.login.peer or "", True)

    def _on_closed(self, connection: int, link: _Link, cause: str) -> None:
        del self._links[connection]
        self._strangers.pop(connection, None)
        link.deadline.cancel()
        self._admitted(connection)
        if not link.ended.done():
            link.ended.set_result(None)
        name = link.login.peer or ""
        other = self._others.get(name)
        if not link.is_open or other is None:
            return
        other.open_links -= 1
        for waiting in self._links_to(name):
            if self._links[waiting].waits:
                self._open(waiting, self._links[waiting], other)
        if other.open_links == 0:
            if not self._is_over:
                log.warning("cluster: no link with the relay %s any more (%s)", name, cause)
            self._linked(name, False)


def _drawn() -> KeyPair:
    """Of one log-in alone."""
    return key_pair(os.urandom(KEY_BYTES))
