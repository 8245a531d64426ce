"""What a ledger promises: the model of it in tests, and the one that relays use."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from secrets import token_hex

import pytest
from kit.ledger import ModelLedger
from kit.nats import Servers

from candy.relay.cluster.jetstream import JetStream, connected
from candy.relay.cluster.ledger import Bucket, Entry, Follow, Ledger, StaleError


@pytest.fixture(params=["model", "jetstream"])
async def ledger(request: pytest.FixtureRequest) -> AsyncIterator[Ledger]:
    if request.param == "model":
        yield ModelLedger()
        return
    servers: Servers = request.getfixturevalue("three")
    made: JetStream = await connected(servers.settings())
    yield made
    await made.close()


@pytest.fixture
def key() -> str:
    return f"=2F.{token_hex(4)}.10.0.0.1"


async def test_nothing_is_there(ledger: Ledger, key: str) -> None:
    assert await ledger.get(Bucket.GRANTS, key) is None


async def test_what_is_put_is_there_in_its_bucket(ledger: Ledger, key: str) -> None:
    revision = await ledger.put(Bucket.GRANTS, key, b"\0one\xff", 0)
    assert await ledger.get(Bucket.GRANTS, key) == Entry(key, b"\0one\xff", revision)
    assert await ledger.get(Bucket.DEVICES, key) is None
    again = await ledger.put(Bucket.GRANTS, key, b"", revision)
    assert again > revision
    assert await ledger.get(Bucket.GRANTS, key) == Entry(key, b"", again)


async def test_only_over_the_revision_that_is_there(ledger: Ledger, key: str) -> None:
    with pytest.raises(StaleError):
        await ledger.put(Bucket.GRANTS, key, b"x", 7_000_000)
    first = await ledger.put(Bucket.GRANTS, key, b"one", 0)
    with pytest.raises(StaleError):
        await ledger.put(Bucket.GRANTS, key, b"two", 0)
    second = await ledger.put(Bucket.GRANTS, key, b"two", first)
    with pytest.raises(StaleError):
        await ledger.put(Bucket.GRANTS, key, b"three", first)
    assert await ledger.get(Bucket.GRANTS, key) == Entry(key, b"two", second)


async def test_of_many_at_once_one_takes_effect(ledger: Ledger, key: str) -> None:
    puts = [ledger.put(Bucket.GRANTS, key, b"%d" % number, 0) for number in range(20)]
    outcomes = await asyncio.gather(*puts, return_exceptions=True)
    [(number, revision)] = [(n, each) for n, each in enumerate(outcomes) if isinstance(each, int)]
    assert all(isinstance(each, StaleError) for each in outcomes if not isinstance(each, int))
    assert await ledger.get(Bucket.GRANTS, key, after=0) == Entry(key, b"%d" % number, revision)


def until(entries: list[Entry], holds: Callable[[list[Entry]], bool]) -> tuple[asyncio.Event, Follow]:
    """What to follow with, and what is set once what came is as it has to be."""
    event = asyncio.Event()

    def take(entry: Entry) -> None:
        entries.append(entry)
        if holds(entries):
            event.set()

    return event, take


async def test_following_begins_with_what_is_there(ledger: Ledger, key: str) -> None:
    written = {}
    for number in range(300):
        own = f"{key}.{number}"
        written[own] = await ledger.put(Bucket.GRANTS, own, b"%d" % number, 0)
    entries: list[Entry] = []
    event, take = until(entries, lambda entries: entries[-1].value == b"new")
    await ledger.follow(Bucket.GRANTS, take)
    assert {entry.key: entry.revision for entry in entries if entry.key.startswith(key)} == written
    await ledger.put(Bucket.GRANTS, f"{key}.0", b"new", written[f"{key}.0"])
    await asyncio.wait_for(event.wait(), 20)


async def test_whole_words_are_forgotten(ledger: Ledger, key: str) -> None:
    name = key.replace(".", "-")
    for own in ("1.a", "1.b", "10.a"):
        await ledger.put(Bucket.DIGESTS, f"{name}.{own}", b"", 0)
    await ledger.forget(Bucket.DIGESTS, f"{name}.1")
    left = [own for own in ("1.a", "1.b", "10.a") if await ledger.get(Bucket.DIGESTS, f"{name}.{own}") is not None]
    assert left == ["10.a"]
    # As if it had never been.
    await ledger.put(Bucket.DIGESTS, f"{name}.1.a", b"", 0)


async def test_the_first_from_a_revision_on(ledger: Ledger, key: str) -> None:
    name = key.replace(".", "-")
    assert await ledger.first(Bucket.DIGESTS, name, 0) is None
    revisions = [await ledger.put(Bucket.DIGESTS, f"{name}.{own}", own.encode(), 0) for own in ("7.a", "6.a", "7.b")]
    await ledger.put(Bucket.DIGESTS, f"{name}0.6.a", b"", 0)
    for revision, found in ((0, 0), (revisions[0], 0), (revisions[0] + 1, 1), (revisions[2], 2)):
        own = ("7.a", "6.a", "7.b")[found]
        entry = Entry(f"{name}.{own}", own.encode(), revisions[found])
        assert await ledger.first(Bucket.DIGESTS, name, revision) == entry
    assert await ledger.first(Bucket.DIGESTS, name, revisions[2] + 1) is None


async def test_when_something_was_written(ledger: Ledger, key: str) -> None:
    before = int(time.time())
    if isinstance(ledger, ModelLedger):
        assert await ledger.written(Bucket.DIGESTS) == 0
        ledger.wall = before
    await ledger.put(Bucket.DIGESTS, key, b"", 0)
    # One clock, of this machine.
    assert before <= await ledger.written(Bucket.DIGESTS) <= time.time()


async def test_what_is_under_whole_words_is_given_once(ledger: Ledger, key: str) -> None:
    name = key.replace(".", "-")
    entries: list[Entry] = []
    await ledger.gather(Bucket.GRANTS, name, entries.append)
    assert entries == []
    written = {f"{name}.{number}": await ledger.put(Bucket.GRANTS, f"{name}.{number}", b"x", 0) for number in range(50)}
    await ledger.put(Bucket.GRANTS, f"{name}0.1", b"another", 0)
    await ledger.gather(Bucket.GRANTS, name, entries.append)
    assert {entry.key: entry.revision for entry in entries} == written
    await ledger.put(Bucket.GRANTS, f"{name}.50", b"later", 0)
    assert len(entries) == 50
