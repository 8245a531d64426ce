"""Members at other relays, for operators: who they are, where one is, and what is done to it there.

    RelayControl ─▶ Abroad ─▶ Cluster.ask_others() ─▶ Abroad.answers() of each other relay ─▶ its RelayControl's own

Rules:
 1. A relay that is alone has nobody else to ask, and one that can't reach the others goes by what it has.
 2. What is done is done by the relay that has the member, after all were asked who has it: a name may be at several.

This module does not know how relays are asked.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar

from candy.control.lists import TURN
from candy.control.model import Kicked, Member, MemberDetail
from candy.errors import CandyError, RequestError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

UNREADABLE: Final = (CandyError, ValueError, TypeError)
"""What comes of an answer that is damaged, or of another version: pydantic's too."""

_Answered = TypeVar("_Answered")


@cache
def _adapter(kind: Any) -> "TypeAdapter[Any]":
    """Made when it is needed, which it never is where one relay is alone."""
    # A program of whom nobody asks anything does without.
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


class Packed(Protocol):
    """What a relay has answered."""

    def lines(self) -> Iterator[Any]:
        """As they were made there."""

    def only(self) -> Any:
        """Of an answer of one line."""


class Others(Protocol):
    """The other relays; raises CandyError for one that was not reached."""

    @property
    def name(self) -> str:
        """This one's among them."""

    async def ask_others(
        self, call: str, given: Mapping[str, Any], takes_s: float = 0.0
    ) -> tuple[Mapping[str, Packed], list[str]]:
        """Ask all: what those said that did not refuse, and whom it did not reach."""

    async def ask_one(self, relay: str, call: str, given: Mapping[str, Any], takes_s: float = 0.0) -> Packed:
        """Ask one. Raises RequestError: it refuses, or was not reached."""


class Here(Protocol):
    """What this relay has itself; candy.relay.control."""

    async def members_here(self, network: str | None, round_trip: bool, over: float | None) -> Iterable[Member]:
        """All that are logged in."""

    def meant_here(self, member: str, network: str | None) -> list["Where"]:
        """Those that an operator may mean."""

    async def member_here(self, member: str, network: str | None, over: float | None) -> MemberDetail:
        """One of them."""

    def kick_here(self, member: str, network: str | None) -> Kicked:
        """End its connection."""


class Where(NamedTuple):
    """A member, and its relay; empty: this one."""

    network: str
    address: str
    relay: str = ""


class Abroad:
    """See the rules above.

    Args:
        others: None: this relay is alone.
    """

    def __init__(self, here: Here, others: Callable[[], Others | None]) -> None:
        self._here = here
        self._others = others

    async def members(
        self, network: str | None, round_trip: bool, over: float | None
    ) -> tuple[Iterator[Member], list[str]]:
        """All, this relay's first, and the relays of which not all are: that list is whole when all members were
        taken."""
        asked = self._ask("members", {"network": network, "round_trip": round_trip, "over": over}, over or 0.0)
        own, (answers, unreached) = await asyncio.gather(self._here.members_here(network, round_trip, over), asked)

        def all_members() -> Iterator[Member]:
            yield from own
            for relay, answer in answers.items():
                try:
                    for line in answer.lines():
                        yield from _adapter(list[Member]).validate_python(line)
                except UNREADABLE:
                    # Which is read after the members.
                    unreached.append(relay)

        return all_members(), unreached

    async def where(self, member: str, network: str | None) -> Where:
        """The member that an operator means.

        Raises:
            RequestError: there is none, or there are several.
        """
        answers, unreached = await self._ask("find", {"member": member, "network": network})
        found = self._here.meant_here(member, network)
        for relay, answer in answers.items():
            try:
                found += [Where(str(path), str(address), relay) for path, address in answer.only()]
            except UNREADABLE:
                unreached.append(relay)
        if not found:
            also = f", and the relays {', '.join(unreached)} were not reached" if unreached else ""
            raise RequestError(f"no member is {member!r}: the command members lists them{also}", 404)
        if len(found) > 1:
            listed = ", ".join(
                f"{each.address} in {each.network}" + (f" at the relay {each.relay}" if each.relay else "")
                for each in found
            )
            raise RequestError(f"{len(found)} members are {member!r}: {listed}: name one by its address and network")
        return found[0]

    async def member(self, member: str, network: str | None, over: float | None) -> MemberDetail:
        """One, wherever it is. Raises RequestError."""
        found = await self.where(member, network)
        if not found.relay:
            return await self._here.member_here(found.address, found.network, over)
        given = {"member": found.address, "network": found.network, "over": over}
        return await self._one(found.relay, "member", given, MemberDetail, over or 0.0)

    async def kick(self, member: str, network: str | None) -> Kicked:
        """End the connection of one, wherever it is. Raises RequestError."""
        found = await self.where(member, network)
        if not found.relay:
            return self._here.kick_here(found.address, found.network)
        return await self._one(found.relay, "kick", {"member": found.address, "network": found.network}, Kicked)

    async def answers(self, call: str, given: Mapping[str, Any]) -> AsyncIterator[bytes]:
        """Lines for another relay that asks. Raises RequestError."""
        network, here = given.get("network"), self._here
        match call:
            case "members":
                members = iter(await here.members_here(network, bool(given.get("round_trip")), given.get("over")))
                while turn := list(islice(members, TURN)):
                    yield _adapter(list[Member]).dump_json(turn)
                    await asyncio.sleep(0)
            case "find":
                found = here.meant_here(given["member"], network)
                yield json.dumps([[each.network, each.address] for each in found]).encode()
            case "member":
                yield _adapter(MemberDetail).dump_json(
                    await here.member_here(given["member"], network, given.get("over"))
                )
            case "kick":
                yield _adapter(Kicked).dump_json(here.kick_here(given["member"], network))
            case _:
                raise RequestError(f"this relay knows no question {call}: update it")

    async def _ask(
        self, call: str, given: Mapping[str, Any], takes_s: float = 0.0
    ) -> tuple[Mapping[str, Packed], list[str]]:
        others = self._others()
        if others is None:
            return {}, []
        answers, unreached = await others.ask_others(call, given, takes_s)
        return answers, list(unreached)

    async def _one(
        self, relay: str, call: str, given: Mapping[str, Any], kind: type[_Answered], takes_s: float = 0.0
    ) -> _Answered:
        others = self._others()
        assert others is not None
        answer = await others.ask_one(relay, call, given, takes_s)
        try:
            shape: Any = kind
            answered: _Answered = _adapter(shape).validate_python(answer.only())
        except UNREADABLE:
            raise RequestError(f"the relay {relay} is of another version: update it") from None
        return answered
