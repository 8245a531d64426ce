"""By which addresses others see this member's UDP sockets, as STUN servers say; and whether its NAT is symmetric.

    ask() ─▶ request to each server, again after AGAIN_S ─▶ answered() ─▶ seen, and a request to its other address
                                             └─ no answer at all: is_mute        └─▶ is another one seen there?

Rules:
 1. Only an answer to a request that is under way counts, from where that went.
 2. An outage ends: asked again is with each ask(), once in FRESH_S at most unless something has changed.
 3. A server's other address is asked only if its IP is the server's own or 0.0.0.0: a STUN answer is not
    authenticated, and may name any machine.

No I/O, no clock: randomness is an argument, `now` is in seconds of CLOCK_BOOTTIME.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Final

from candy.protocol import stun
from candy.protocol.addresses import may_be_elsewhere
from candy.protocol.linking import Endpoint

AGAIN_S: Final = (0.5, 1.0, 2.0, 1.5)
"""Between one request and the next; behind the last one it has failed."""
FRESH_S: Final = 25.0
SERVERS_MOST: Final = 4
"""Asked at once; each may have another address."""


@dataclass(frozen=True, slots=True)
class Request:
    """Send this datagram."""

    endpoint: Endpoint
    datagram: bytes


@dataclass(slots=True)
class _Transaction:
    id: bytes
    server: Endpoint
    first: Endpoint | None
    """What was seen where the server was asked first, if this is its other address."""
    due: float
    times: int = 0


class Reflexive:
    """See above. `randbytes`: n random bytes."""

    def __init__(self, randbytes: Callable[[int], bytes]) -> None:
        self._randbytes = randbytes
        self._servers: tuple[Endpoint, ...] = ()
        self._underway: list[_Transaction] = []
        self._asked_at = -inf
        self._has_answer = False
        self.seen: dict[int, Endpoint] = {}
        """By family, what was seen last."""
        self._symmetric: dict[int, bool] = {}
        """By family, whether two ports were seen for two of a server's."""
        self.is_mute = False
        """No server has answered, the last time that all were asked."""

    @property
    def deadline(self) -> float:
        """When tick() has to be called; inf: not at all."""
        return min((each.due for each in self._underway), default=inf)

    @property
    def is_symmetric(self) -> bool:
        """The NAT has another port for each destination: that of IPv4, where both are known."""
        return self._symmetric.get(4, self._symmetric.get(6, False))

    @property
    def has_servers(self) -> bool:
        return bool(self._servers)

    @property
    def ids(self) -> list[bytes]:
        """Of what is under way."""
        return [each.id for each in self._underway]

    def use(self, servers: Iterable[Endpoint]) -> bool:
        """Ask these from the next time on; whether they are others."""
        before, self._servers = self._servers, tuple(dict.fromkeys(servers))[:SERVERS_MOST]
        return self._servers != before

    def ask(self, now: float, *, is_changed: bool = False) -> None:
        """Have the servers asked, unless they are being or have just been; changed is what they would see."""
        if self._servers and (is_changed or now - self._asked_at >= FRESH_S):
            self._asked_at = now
            self._has_answer = False
            self._underway = [self._transaction(server, None, now) for server in self._servers]

    def tick(self, now: float) -> Iterator[Request]:
        """What is to be sent now."""
        for each in [each for each in self._underway if now >= each.due]:
            if each.times == len(AGAIN_S):
                self._underway.remove(each)
                self._settle()
                continue
            each.due = now + AGAIN_S[each.times]
            each.times += 1
            yield Request(each.server, stun.request(each.id))

    def answered(self, source: Endpoint, datagram: bytes, now: float) -> bool:
        """A datagram of a server; whether something is known now that was not before.

        Raises:
            WireError: it is no answer.
        """
        for each in self._underway:
            if each.server == source and datagram[8:20] == each.id:
                break
        else:
            return False
        found = stun.answer(datagram, each.id)
        self._underway.remove(each)
        self._has_answer, before = True, (dict(self.seen), self.is_symmetric, self.is_mute)
        self.is_mute = False
        if each.first is not None:
            self._symmetric[found.mapped.family] = each.first != found.mapped
            return self.is_symmetric != before[1]
        family = found.mapped.family
        if family in self.seen and self.seen[family].address != found.mapped.address:
            # This is another NAT, and whether a server's second port says how it is, nobody knows yet.
            self._symmetric.pop(family, None)
        self.seen[family] = found.mapped
        if found.other is not None and (other := _other(source, found.other)) is not None:
            self._underway.append(self._transaction(other, found.mapped, now))
        return (self.seen, self.is_symmetric, self.is_mute) != before

    def _transaction(self, server: Endpoint, first: Endpoint | None, now: float) -> _Transaction:
        return _Transaction(self._randbytes(stun.ID_BYTES), server, first, now)

    def _settle(self) -> None:
        if not self._underway and not self._has_answer:
            self.is_mute = True
            self.seen.clear()


def _other(server: Endpoint, other: Endpoint) -> Endpoint | None:
    """Where the other address is; None: nowhere that may be asked (rule 3)."""
    address = server.address if other.address.is_unspecified else other.address
    right = address == server.address or (
        address.version == server.family and address.is_global and may_be_elsewhere(address)
    )
    return Endpoint(address, other.port) if right and other.port else None
