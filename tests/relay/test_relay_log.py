"""Lines that a peer can cause at will, as the relay's adapter writes them."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import make_mocked_request
from lab.member import upgrade_request
from lab.programs import PATIENCE_S

from candy._fastpath import Engine
from candy.relay import loglimit
from candy.relay.networksettings import NetworkSettings
from candy.relay.relay import Relay
from candy.relay.settings import RelaySettings


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    engine = Engine()
    relay = Relay(RelaySettings(networks=(NetworkSettings(password=b"a password"),)), engine)
    yield relay
    relay.stop()
    engine.stop()


async def refuse(relay: Relay, origin: str) -> None:
    lines = upgrade_request(f"Origin: {origin}").decode().split("\r\n")[1:]
    response = await relay.answer(make_mocked_request("GET", "/", dict(line.split(": ") for line in lines if line)))
    assert response.status == 403


def said(origin: str) -> str:
    return f"unknown: not let in: a web page of {origin!r}, which no --allow-origin names"


async def test_beyond_the_limit_they_are_debug_and_counted(
    relay: Relay, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loglimit, "PERIOD_S", 0.001)
    caplog.set_level("DEBUG", "candy.relay")
    for number in range(5):
        await refuse(relay, f"https://{number}.example")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", said("https://0.example")),
        *(("DEBUG", said(f"https://{number}.example")) for number in range(1, 5)),
    ]
    async with asyncio.timeout(PATIENCE_S):
        while len(caplog.records) == 5:
            await asyncio.sleep(0)
    last = caplog.records[-1]
    assert (last.levelname, last.getMessage()) == ("WARNING", f"{said('https://4.example')} … and 3 more")


async def test_a_long_origin_is_cut(relay: Relay, caplog: pytest.LogCaptureFixture) -> None:
    await refuse(relay, "https://" + "x" * 5000)
    assert caplog.messages == [said("https://" + "x" * 92)]
