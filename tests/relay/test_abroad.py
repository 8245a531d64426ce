"""Members at other relays, as operators ask for them: listed, found and kicked wherever they are."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pytest

from candy.control.model import Kicked, Member, MemberDetail
from candy.errors import CandyError, OperationalError, RequestError
from candy.relay.abroad import Abroad, Where


def member_of(relay: str | None, address: str, name: str) -> Member:
    given: dict[str, Any] = dict.fromkeys(Member.__dataclass_fields__, 0)
    texts = {"os": None, "version": None, "vmac": None, "path": "relay", "seal": None, "source": "203.0.113.1"}
    return Member(
        **given
        | texts
        | {"held": None, "extension": True, "network": "/", "address": address, "name": name, "relay": relay}
    )


class Relay:
    """One of them."""

    def __init__(self, name: str | None, *members: tuple[str, str]) -> None:
        self.name = name
        self.members = [member_of(name, *each) for each in members]
        self.kicked: list[str] = []

    async def members_here(self, network: str | None, round_trip: bool, over: float | None) -> Iterable[Member]:
        return iter(self.members)

    def meant_here(self, member: str, network: str | None) -> list[Where]:
        return [Where("/", each.address) for each in self.members if member in (each.name, each.address)]

    async def member_here(self, member: str, network: str | None, over: float | None) -> MemberDetail:
        [found] = [each for each in self.members if each.address == member]
        given = {name: getattr(found, name) for name in Member.__dataclass_fields__}
        return MemberDetail(**given, drops_by_reason={"queue": 1})

    def kick_here(self, member: str, network: str | None) -> Kicked:
        self.kicked.append(member)
        return Kicked(network="/", address=member, relay=self.name)


class Lines:
    def __init__(self, lines: list[bytes]) -> None:
        self._lines = lines

    def lines(self) -> Iterator[Any]:
        return map(json.loads, self._lines)

    def only(self) -> Any:
        return json.loads(self._lines[0])


class Others:
    """Those that one asks; who is away does not answer."""

    def __init__(self, *relays: Relay, away: Iterable[str] = ()) -> None:
        self.name = "eu"
        self.relays = {relay.name or "": relay for relay in relays}
        self.away = list(away)

    async def ask_one(self, relay: str, call: str, given: Mapping[str, Any], takes_s: float = 0.0) -> Lines:
        # As it goes over the wire.
        given = json.loads(json.dumps(given))
        return Lines([line async for line in Abroad(self.relays[relay], lambda: None).answers(call, given)])

    async def ask_others(
        self, call: str, given: Mapping[str, Any], takes_s: float = 0.0
    ) -> tuple[dict[str, Lines], list[str]]:
        return {name: await self.ask_one(name, call, given, takes_s) for name in self.relays}, self.away


EU = (("10.0.0.1", "laptop"), ("10.0.0.2", "printer"))
US = (("10.0.0.3", "laptop"), ("10.0.0.4", "phone"))


async def test_one_that_is_alone() -> None:
    alone = Relay(None, *EU)
    abroad = Abroad(alone, lambda: None)
    members, unreached = await abroad.members(None, False, None)
    assert list(members) == alone.members
    assert unreached == []
    assert (await abroad.kick("printer", None)).address == "10.0.0.2"
    with pytest.raises(RequestError, match=r"^no member is 'phone': the command members lists them$") as caught:
        await abroad.kick("phone", None)
    assert caught.value.status == 404


async def test_members_of_all() -> None:
    eu, us = Relay("eu", *EU), Relay("us", *US)
    members, unreached = await Abroad(eu, lambda: Others(us, away=["ap"])).members(None, True, None)
    assert list(members) == eu.members + us.members
    assert unreached == ["ap"]


async def test_many_come_in_turns() -> None:
    us = Relay("us", *((f"10.1.{number // 256}.{number % 256}", "x") for number in range(450)))
    lines = [line async for line in Abroad(us, lambda: None).answers("members", {"network": None})]
    assert [len(json.loads(line)) for line in lines] == [200, 200, 50]


@pytest.mark.parametrize(("who", "where"), [("phone", "us"), ("10.0.0.3", "us"), ("printer", "eu")])
async def test_one_is_kicked_where_it_is(who: str, where: str) -> None:
    relays = {"eu": Relay("eu", *EU), "us": Relay("us", *US)}
    kicked = await Abroad(relays["eu"], lambda: Others(relays["us"])).kick(who, None)
    assert kicked.relay == where
    assert {name: relay.kicked for name, relay in relays.items()} == {"eu": [], "us": []} | {where: [kicked.address]}


async def test_a_name_at_two_relays_is_nobodys() -> None:
    eu, us = Relay("eu", *EU), Relay("us", *US)
    said = "2 members are 'laptop': 10.0.0.1 in /, 10.0.0.3 in / at the relay us: name one by its address"
    with pytest.raises(RequestError, match=said):
        await Abroad(eu, lambda: Others(us)).kick("laptop", None)
    assert eu.kicked == us.kicked == []


async def test_who_is_not_found_may_be_at_one_that_was_not_reached() -> None:
    abroad = Abroad(Relay("eu", *EU), lambda: Others(away=["ap", "us"]))
    with pytest.raises(RequestError, match=r"lists them, and the relays ap, us were not reached"):
        await abroad.kick("phone", None)


class Damaged(Others):
    """One of whom no answer can be read."""

    def __init__(self, fault: Any) -> None:
        super().__init__(Relay("us"), Relay("ap", *US))
        self.fault = fault

    async def ask_one(self, relay: str, call: str, given: Mapping[str, Any], takes_s: float = 0.0) -> Lines:
        return await super().ask_one(relay, call, given, takes_s) if relay == "ap" else Faulty(self.fault)


class Faulty(Lines):
    def __init__(self, fault: Any) -> None:
        self.fault = fault

    def lines(self) -> Iterator[Any]:
        if isinstance(self.fault, CandyError):
            raise self.fault
        yield self.fault

    def only(self) -> Any:
        return next(self.lines())


@pytest.mark.parametrize("fault", [OperationalError("it is damaged"), 7, [["/"]], {"a": 1}], ids=str)
async def test_an_answer_that_cannot_be_read(fault: Any) -> None:
    abroad = Abroad(Relay("eu"), lambda: Damaged(fault))
    members, unreached = await abroad.members(None, False, None)
    assert len(list(members)) == len(US)
    assert unreached == ["us"]
    assert (await abroad.where("phone", None)).relay == "ap"
    with pytest.raises(RequestError, match=r"lists them, and the relays us were not reached"):
        await abroad.where("printer", None)
    with pytest.raises(RequestError, match="the relay us is of another version"):
        await abroad._one("us", "kick", {}, Kicked)


async def test_one_with_its_drops() -> None:
    us = Relay("us", *US)
    found = await Abroad(Relay("eu"), lambda: Others(us)).member("phone", None, None)
    assert (found.address, found.relay, found.drops_by_reason) == ("10.0.0.4", "us", {"queue": 1})


async def test_a_question_of_a_later_version() -> None:
    asking = Abroad(Relay("eu"), lambda: None).answers("dance", {})
    with pytest.raises(RequestError, match="this relay knows no question dance: update it"):
        await anext(asking)
