"""The ledger in JetStream: what is refused at a start, and what servers that fail cost."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kit.nats import Servers, free_ports

from candy.errors import OperationalError
from candy.relay.cluster import jetstream as adapter
from candy.relay.cluster.jetstream import JetStream, connected
from candy.relay.cluster.ledger import AwayError, Bucket, Entry, LostError, StaleError


async def test_messages_between_relays(three: Servers, jetstream: JetStream) -> None:
    us = await connected(three.settings("us"))
    heard: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    def hear(subject: str, message: bytes) -> None:
        heard.put_nowait((subject, message))

    await us.listen("candy.from.>", hear)
    await us.listen("candy.to.us.>", lambda subject, message: message[::-1])
    assert await us.is_answering()
    assert await jetstream.publish("candy.from.eu.beat", b"x")
    assert await asyncio.wait_for(heard.get(), 5) == ("candy.from.eu.beat", b"x")
    assert await jetstream.request("candy.to.us.ask.eu", b"abc") == b"cba"
    with pytest.raises(AwayError, match=r"no answer from candy\.to\.ap\.ask\.eu"):
        await jetstream.request("candy.to.ap.ask.eu", b"abc")
    await us.close()


async def test_it_ends_although_the_library_is_cancelled(three: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself: it waits for a transport whose waiter is cancelled when a server was killed."""
    us = await connected(three.settings("us"))
    close = us._client.close

    async def cancelled() -> None:
        await close()
        raise asyncio.CancelledError

    monkeypatch.setattr(us._client, "close", cancelled)
    await us.close()


async def test_none_speaks_for_another(three: Servers, jetstream: JetStream) -> None:
    us = await connected(three.settings("us"))
    heard: list[bytes] = []
    came = asyncio.Event()

    def hear(subject: str, message: bytes) -> None:
        heard.append(message)
        came.set()

    await jetstream.listen("candy.from.>", hear)
    assert await jetstream.is_answering()
    await us.publish("candy.from.ap.beat", b"forged")
    await us.publish("candy.from.us.beat", b"own")
    await asyncio.wait_for(came.wait(), 5)
    assert heard == [b"own"]
    with pytest.raises(LostError):
        # The library learns of it by an error alone.
        await asyncio.wait_for(us.put(Bucket.RELAYS, "ap", b"x", 0), 10)
    assert "permissions violation" in us.error
    await us.close()


async def test_a_second_relay_finds_the_buckets(three: Servers, jetstream: JetStream) -> None:
    us = await connected(three.settings("us"))
    revision = await jetstream.put(Bucket.NETWORKS, "found", b"x", 0)
    assert await us.get(Bucket.NETWORKS, "found") == Entry("found", b"x", revision)
    await us.close()


async def refusal(servers: Servers, **changed: object) -> str:
    with pytest.raises(OperationalError) as caught:
        await connected(servers.settings("eu", **changed))
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_other_replicas_than_there_are(three: Servers, jetstream: JetStream) -> None:
    assert await refusal(three, replicas=1) == (
        "cluster: replicas = 1 here, and candy's bucket grants has 3: write the same at all relays, or change it with: "
        "nats stream edit KV_candy_grants --replicas 1"
    )


async def test_more_replicas_than_servers(tmp_path: Path) -> None:
    servers = Servers(tmp_path / "one", 1)
    servers.start()
    try:
        await servers.ready()
        said = await refusal(servers, replicas=3)
        assert said.startswith("cluster: replicas = 3 needs as many servers of NATS with JetStream, and 127.0.0.1:")
        assert said.endswith("start them, or write replicas = 1")
        one = await connected(servers.settings())
        assert await one.put(Bucket.GRANTS, "a", b"x", 0) == 1
        await one.close()
    finally:
        servers.kill()


async def test_wrong_credentials(three: Servers, tmp_path: Path) -> None:
    file = tmp_path / "wrong"
    file.write_text("eu:wrong\n")
    assert (await refusal(three, credentials=file)).endswith(
        "refuses the credentials: write the file that credentials names anew"
    )
    for content in ("", "eu", "eu:", ":x", "a:b\nc:d"):
        file.write_text(content)
        assert "is neither a line user:password nor a file that nsc has made" in await refusal(three, credentials=file)
    file.write_bytes(b"\xff")
    assert "cannot read credentials" in await refusal(three, credentials=file)


async def test_a_certificate_authority_that_is_none(three: Servers, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("x")
    assert "is no certificate authority (PEM)" in await refusal(three, ca_file=file)


async def test_no_server(three: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "START_S", 0.5)
    [port] = free_ports(1)
    said = await refusal(three, nats=[f"nats://127.0.0.1:{port}"])
    assert said.startswith(f"cluster: no server of NATS answers at nats://127.0.0.1:{port} (")
    assert said.endswith("start it, or mend nats")


async def _old(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b'INFO {"server_id":"x","version":"2.9.10","headers":true,"max_payload":1048576}\r\n')
    while line := await reader.readline():
        if line.startswith(b"PING"):
            writer.write(b"PONG\r\n")
    writer.close()


@pytest.fixture
async def old_server() -> AsyncIterator[int]:
    """One as Debian 12 has it, as far as the log-in."""
    server = await asyncio.start_server(_old, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_a_server_that_is_too_old(three: Servers, old_server: int) -> None:
    said = await refusal(three, nats=[f"nats://127.0.0.1:{old_server}"])
    assert said == (
        f"cluster: 127.0.0.1:{old_server} is nats-server 2.9.10, which may give an address to two members: "
        "update it to 2.11 or later"
    )


async def test_another_version_of_the_records(
    three: Servers, jetstream: JetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "SCHEMA", 2)
    assert "candy's bucket grants is of version 1, this relay's is 2: have all relays run one version" in (
        await refusal(three)
    )


async def test_while_disconnected_nothing_is_kept(servers: Servers) -> None:
    states: asyncio.Queue[bool] = asyncio.Queue()
    eu = await connected(servers.settings(), states.put_nowait)
    assert await states.get()
    revision = await eu.put(Bucket.GRANTS, "a", b"before", 0)
    entries: asyncio.Queue[Entry] = asyncio.Queue()
    await eu.follow(Bucket.GRANTS, entries.put_nowait)
    assert (await entries.get()).value == b"before"
    servers.kill()
    while await states.get():
        pass
    assert not eu.is_up
    assert not await eu.publish("candy.from.eu.beat", b"stale")
    assert not await eu.is_answering()
    for call in (eu.put(Bucket.GRANTS, "a", b"stale", revision), eu.get(Bucket.GRANTS, "a"), eu.request("x", b"")):
        with pytest.raises(AwayError):
            await call
    servers.start()
    while not await states.get():
        pass

    async def written() -> int:
        while True:
            try:
                return await eu.put(Bucket.GRANTS, "a", b"behind", revision)
            except (AwayError, LostError):
                await asyncio.sleep(0.1)

    # What was not sent stays so: the revision is the one before. And who follows goes on.
    assert await asyncio.wait_for(written(), 60) > revision
    assert (await asyncio.wait_for(entries.get(), 60)).value == b"behind"
    await eu.close()


async def test_the_leader_is_killed(servers: Servers) -> None:
    """Whatever was answered stays; what was not is settled by who asks again."""
    eu = await connected(servers.settings())
    found = await eu._api("STREAM.INFO.KV_candy_grants", {})
    leader = int(found["cluster"]["leader"].removeprefix("n"))
    revision, written = 0, b""
    for number in range(20):
        written = b"%d" % number
        revision = await eu.put(Bucket.GRANTS, "a", written, revision)
    servers.kill(leader)

    async def again() -> int:
        lost = False
        while True:
            try:
                return await eu.put(Bucket.GRANTS, "a", b"behind", revision)
            except StaleError:
                # The one whose answer was lost.
                assert lost
                entry = await eu.get(Bucket.GRANTS, "a", after=revision)
                assert entry is not None
                assert entry.value == b"behind"
                return entry.revision
            except LostError:
                lost = True
            except AwayError:
                await asyncio.sleep(0.1)

    assert await asyncio.wait_for(again(), 60) > revision
    await eu.close()


async def test_without_a_majority_nothing_is_written(servers: Servers) -> None:
    eu = await connected(servers.settings())
    revision = await eu.put(Bucket.GRANTS, "a", b"x", 0)
    servers.kill(1, 2)
    with pytest.raises((AwayError, LostError)):
        await eu.put(Bucket.GRANTS, "a", b"y", revision)
    await eu.close()


def test_without_a_cluster_the_library_is_not_imported() -> None:
    import subprocess

    code = (
        "import sys; import candy.relay.lifecycle, candy.cli.server, candy.relay.clustersettings; "
        "print([name for name in sys.modules if name.split('.')[0] in ('nats', 'nkeys')])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
