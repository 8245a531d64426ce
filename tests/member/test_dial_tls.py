"""Attempts through TLS, on loopback: what is trusted, what is not, and how each failure reads."""

import asyncio
import re
import ssl
from contextlib import suppress
from pathlib import Path

import pytest
import trustme
from lab.answering import SOON_S, failure, frames_pass, http, listening, securing, switching
from lab.programs import PATIENCE_S
from lab.tls import tls_for

from candy._fastpath import EVENT_MESSAGE
from candy.carrier import pin
from candy.carrier.certificates import facts
from candy.carrier.tls import Trust
from candy.errors import ConfigError
from candy.member.dial import Dialer, Tls

pytestmark = pytest.mark.usefixtures("no_proxy_of_the_machine")


async def test_tls_with_a_ca_file(server_tls: ssl.SSLContext, ca_file: Path) -> None:
    async with listening(switching, server_tls) as relay:
        with securing() as (engine, secure):
            upgraded = await Dialer(f"wss://127.0.0.1:{relay.port}", trust=Trust(ca_file)).dial(secure=secure)
            assert relay.alpn == "http/1.1"
            await frames_pass(upgraded, engine, relay)


@pytest.mark.parametrize("count", [1, 1000, 300_000])
async def test_frames_behind_the_answer(server_tls: ssl.SSLContext, ca_file: Path, count: int) -> None:
    frames = b"\x82\x02\x06x" * count

    async with listening(lambda head: switching(head) + frames, server_tls) as relay:
        with securing() as (engine, secure):
            upgraded = await Dialer(f"wss://127.0.0.1:{relay.port}", trust=Trust(ca_file)).dial(secure=secure)
            told = asyncio.Event()
            asyncio.get_running_loop().add_reader(engine.fileno(), told.set)
            with upgraded.outer:
                connection = upgraded.hand_over(engine, None)
                await told.wait()
                assert engine.events()[0] == (connection, EVENT_MESSAGE, b"\x06x")


async def test_a_connection_that_ends_before_it_is_used(server_tls: ssl.SSLContext, ca_file: Path) -> None:
    async with listening(switching, server_tls) as relay:
        with securing() as (engine, secure):
            upgraded = await Dialer(f"wss://127.0.0.1:{relay.port}", trust=Trust(ca_file)).dial(secure=secure)
            assert isinstance(upgraded.carrier, Tls)
            engine.close(upgraded.carrier.connection)
            while engine.stats()["guests"]:
                await asyncio.sleep(0)
            with pytest.raises(ConnectionResetError):
                upgraded.hand_over(engine, None)
            upgraded.close()


async def test_any_certificate_when_told_so(server_tls: ssl.SSLContext) -> None:
    async with listening(http("404 Not Found"), server_tls) as relay:
        assert "HTTP 404" in await failure(Dialer(f"wss://127.0.0.1:{relay.port}", trust=Trust(insecure=True)))


async def test_an_unknown_certificate(server_tls: ssl.SSLContext) -> None:
    async with listening(switching, server_tls) as relay:
        why = await failure(Dialer(f"wss://127.0.0.1:{relay.port}"))
    assert why.startswith("its TLS certificate was issued by 'trustme v")


async def test_a_certificate_for_another_name(authority: trustme.CA, ca_file: Path) -> None:
    async with listening(switching, tls_for(authority, "other.test")) as relay:
        why = await failure(Dialer(f"wss://127.0.0.1:{relay.port}", trust=Trust(ca_file)))
    assert why.startswith("its TLS certificate is for other.test, not for 127.0.0.1: ")


def digest_of(context: ssl.SSLContext) -> bytes:
    """Of the key of the certificate that a server shows."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    to_server, to_peer = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_peer, server_side=True)
    peer = trusting.wrap_bio(to_peer, to_server)
    for side in (peer, server, peer):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return facts(peer.getpeercert(binary_form=True)).digest


async def test_a_pin(server_tls: ssl.SSLContext) -> None:
    """Of a certificate that no authority which this machine knows has issued."""
    digest = digest_of(server_tls)
    async with listening(switching, server_tls) as relay:
        url = f"wss://127.0.0.1:{relay.port}"
        with securing() as (engine, secure):
            upgraded = await Dialer(url, trust=Trust(pins=(bytes(32), digest))).dial(secure=secure)
            await frames_pass(upgraded, engine, relay)
        why = await failure(Dialer(url, trust=Trust(pins=(bytes(32),))))
    assert why.startswith(f"its TLS key is not the pinned one: there it is {pin.shown(digest)}: give --pin ")


async def test_a_pin_with_an_authority(server_tls: ssl.SSLContext, ca_file: Path, tmp_path: Path) -> None:
    digest = digest_of(server_tls)
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    async with listening(switching, server_tls) as relay:
        url = f"wss://127.0.0.1:{relay.port}"
        with securing() as (_, secure):
            (await Dialer(url, trust=Trust(ca_file, pins=(digest,))).dial(secure=secure)).close()
        why = await failure(Dialer(url, trust=Trust(ca_file, pins=(bytes(32),))))
        assert why.startswith("its TLS key is not the pinned one: ")
        why = await failure(Dialer(url, trust=Trust(other, pins=(digest,))))
        assert why.startswith("its TLS certificate was issued by 'trustme v")


async def test_tls_to_a_port_without(ca_file: Path) -> None:
    ended = asyncio.Event()

    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()
        ended.set()

    async with await asyncio.start_server(hello, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        why = await failure(Dialer(f"wss://127.0.0.1:{port}", trust=Trust(ca_file)))
        await asyncio.wait_for(ended.wait(), PATIENCE_S)
    assert why.startswith("TLS failed (")
    assert why.endswith("): is it a wss:// port, or rather ws://?")


async def test_a_hang_up_during_the_tls_handshake(ca_file: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.transport.abort()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        why = await failure(Dialer(f"wss://127.0.0.1:{port}", trust=Trust(ca_file)))
    assert re.fullmatch(r"the connection was lost during the TLS handshake \([A-Za-z ]+\)", why)


async def test_an_end_of_the_stream_during_the_tls_handshake(ca_file: Path) -> None:
    """field: "lost during the TLS handshake ()" """

    async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.close()

    async with await asyncio.start_server(end, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        why = await failure(Dialer(f"wss://127.0.0.1:{port}", trust=Trust(ca_file)))
    assert why == "the connection was lost during the TLS handshake (the other side hung up)"


async def test_no_tls_answer_in_time(ca_file: Path) -> None:
    async with listening(lambda head: b"") as relay:
        why = await failure(Dialer(f"wss://127.0.0.1:{relay.port}", trust=Trust(ca_file)), attempt_s=SOON_S)
    assert why == "no success within 0.5 s, while negotiating TLS"


def test_ca_files_that_are_none(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    with pytest.raises(ConfigError, match=rf"^--ca-file {empty}: no PEM certificates in it$"):
        Dialer("wss://relay.test", trust=Trust(empty))
    missing = tmp_path / "missing.pem"
    with pytest.raises(ConfigError, match=rf"^--ca-file {missing}: No such file or directory: "):
        Dialer("wss://relay.test", trust=Trust(missing))
    Dialer("ws://relay.test", trust=Trust(missing))
