"""The way to the relay, step by step, against relays of a test's own: what is found, and what the relay gets to see."""

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from kit.login import NETWORK
from kit.recorded import GRANTED, PASSWORD, WALL
from lab.answering import http, listening, no_proxy_of_the_machine, switching
from lab.keyedrelay import TOLD, KeyedRelay
from lab.setting import Setting

from candy._fastpath import Engine
from candy.errors import TookTooLong
from candy.member import parts
from candy.member.dial import PADDING, Dialer, Upgraded
from candy.member.doctor import PADDING_BYTES, Doctor
from candy.member.findings import NOT_REACHED, Finding, State
from candy.member.login import OLD_RELAY
from candy.member.machine import Running
from candy.member.settings import member_settings
from candy.member.state import MemberState
from candy.protocol.closing import CloseCode
from candy.protocol.login import Told
from candy.settings import Given

__all__ = ["no_proxy_of_the_machine"]
pytestmark = pytest.mark.usefixtures("no_proxy_of_the_machine")

CONNECTED = Running(state="connected", address=GRANTED, refused={})
Walk = asyncio.Task[tuple[list[Finding], Any]]


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(max_connections=4, max_guests=4)
    engine.add_network()
    yield engine
    engine.stop()


def walking(
    setting: Setting, engine: Engine, client: Running | None = None, *, wall: float = WALL, url: str = "", **more: Any
) -> Walk:
    url = url or f"ws://127.0.0.1:{setting.relay.port}"
    settings = member_settings({"websocket": Given(url, "-w")}, password=PASSWORD, state_dir=setting.folder, **more)
    doctor = Doctor(settings, client, parts.dialer(settings), setting.keyring(), engine, lambda: wall)
    return asyncio.create_task(doctor.walk())


async def walked(walk: Walk) -> dict[str, Finding]:
    found, _ = await walk
    assert [each.step for each in found] == [*("name", "TCP", "proxy", "TLS", "upgrade", "clock", "log-in", "path MTU")]
    return {each.step: each for each in found}


def states(found: dict[str, Finding]) -> dict[str, str]:
    """Of those that are not well."""
    return {step: each.state for step, each in found.items() if each.state in (State.WARNING, State.FAILED)}


async def closed_next(visitor: Any) -> None:
    """Nothing else comes: no confirmation, no AUTH."""
    kind, code = await visitor.receive()
    assert (kind, code) == (aiohttp.WSMsgType.CLOSE, CloseCode.GOING_AWAY)


async def test_half_a_log_in_with_a_key(setting: Setting, engine: Engine) -> None:
    """It ends before it is confirmed, so nobody is replaced by it; then comes a long request."""
    relay = KeyedRelay(setting)
    walk = walking(setting, engine)
    visitor = await relay.visitor()
    assert await visitor.read() is not None
    await visitor.answer(visitor.told())
    await closed_next(visitor.visitor)
    assert PADDING not in visitor.visitor.request.headers
    second = await relay.visitor()
    assert len(second.visitor.request.headers[PADDING]) == PADDING_BYTES
    found, address = await walk
    assert address == GRANTED
    told = {each.step: each for each in found}
    assert states(told) == {}
    assert told["upgrade"].text == "candy.3"
    assert told["clock"].text == "the relay's clock and this machine's say the same"
    assert told["log-in"].text == "the relay lets this device in"
    assert told["path MTU"].text.endswith(" bytes, and long segments arrive")
    assert (told["TLS"].state, told["proxy"].state, told["name"].state) == (State.SKIPPED,) * 3
    # The credential is for who confirms.
    assert not (setting.folder / "credential").exists()


async def test_half_a_log_in_as_old_clients_do(setting: Setting, engine: Engine) -> None:
    walk = walking(setting, engine)
    visitor = await setting.relay.member()
    await visitor.messages(2)
    await visitor.grant(GRANTED)
    await closed_next(visitor)
    await setting.relay.member()
    found = await walked(walk)
    assert states(found) == {}
    assert found["upgrade"].text == "as the original's relay does, without candy.2"


async def test_an_address_of_its_own_is_not_claimed(setting: Setting, engine: Engine) -> None:
    """One is asked for instead: that there is none to grant says that password and clock are right."""
    setting.relay.protocols = ("candy.2",)
    walk = walking(setting, engine, tun="192.168.202.9/24")
    visitor = await setting.relay.member()
    await visitor.messages(2)
    await visitor.socket.close(code=CloseCode.NO_POOL, message=b"no pool")
    await setting.relay.member()
    found, address = await walk
    assert {each.step: each.state for each in found}["log-in"] is State.OK
    assert str(address) == "192.168.202.9/24"


async def test_a_wrong_password(setting: Setting, engine: Engine) -> None:
    relay = KeyedRelay(setting)
    walk = walking(setting, engine)
    visitor = await relay.visitor()
    visitor.visitor.hang_up()
    await relay.visitor()
    found = await walked(walk)
    assert states(found) == {"log-in": "failed"}
    assert found["log-in"].text == "the relay closed without a word: is the password right?"
    assert found["clock"].state is State.SKIPPED


@pytest.mark.parametrize("wall", [WALL + 301, WALL - 301])
async def test_a_clock_that_is_off(setting: Setting, engine: Engine, wall: float) -> None:
    """With a key the log-in goes well all the same."""
    relay = KeyedRelay(setting)
    walk = walking(setting, engine, wall=wall)
    visitor = await relay.visitor()
    await visitor.read()
    await visitor.answer(visitor.told())
    await relay.visitor()
    found = await walked(walk)
    assert states(found) == {"clock": "failed"}
    assert found["clock"].text.endswith("set the one that is wrong, for example by NTP")


async def test_a_clock_that_keeps_it_out(setting: Setting, engine: Engine) -> None:
    setting.relay.protocols = ("candy.2",)
    walk = walking(setting, engine)
    visitor = await setting.relay.member()
    await visitor.messages(2)
    await visitor.socket.close(code=CloseCode.CLOCK_OFF, message=b"the member's clock is 900 s ahead")
    await setting.relay.member()
    found = await walked(walk)
    assert states(found) == {"clock": "failed"}
    assert found["clock"].text.startswith("refused by the relay: the member's clock is 900 s ahead: set the one")
    assert found["log-in"].text == NOT_REACHED


async def test_one_that_is_refused_or_waits(setting: Setting, engine: Engine) -> None:
    relay = KeyedRelay(setting)
    for told, words in (
        (
            Told(code=CloseCode.DEVICE_REVOKED, text="revoked"),
            "refused by the relay: revoked: ask the relay's operator",
        ),
        (Told(code=CloseCode.APPROVAL_AWAITED, text="waits"), "waits: show the operator this device's fingerprint: "),
    ):
        walk = walking(setting, engine)
        visitor = await relay.visitor()
        await visitor.read()
        await visitor.answer(told)
        if told.code == CloseCode.DEVICE_REVOKED:
            await visitor.close(CloseCode.DEVICE_REVOKED)
        await relay.visitor()
        found = await walked(walk)
        assert states(found)["log-in"] == "failed"
        assert words in found["log-in"].text


async def test_a_relay_that_fell_back(setting: Setting, engine: Engine) -> None:
    """A member that knows the network's key does not log in as old clients do, and neither does its doctor."""
    KeyedRelay(setting).has(setting, network=NETWORK)
    setting.relay.protocols, setting.relay.headers = (), dict
    found = await walked(walking(setting, engine))
    assert states(found) == {"log-in": "failed"}
    assert found["log-in"].text == OLD_RELAY


async def test_beside_a_client_that_is_connected(setting: Setting, engine: Engine) -> None:
    """That one counts: another log-in may fail where a network is full."""
    relay = KeyedRelay(setting)
    for told, state, words in (
        (TOLD, State.OK, f"the client that runs is connected as {GRANTED}"),
        (Told(code=CloseCode.TRY_AGAIN_LATER, text="full"), State.WARNING, "; another log-in fails: refused by the"),
    ):
        walk = walking(setting, engine, CONNECTED)
        visitor = await relay.visitor()
        await visitor.read()
        await visitor.answer(told)
        if told.code:
            await visitor.close(told.code)
        await relay.visitor()
        found = await walked(walk)
        assert found["log-in"].state is state
        assert words in found["log-in"].text


@pytest.mark.parametrize(
    "last_end",
    [
        "replaced: another connection with the same key took 192.168.202.7 over",  # F10
        "the connection was lost after 12 s of silence",  # F14
    ],
)
async def test_beside_a_client_that_is_not_connected(setting: Setting, engine: Engine, last_end: str) -> None:
    relay = KeyedRelay(setting)
    walk = walking(setting, engine, Running(state="waiting", address=None, refused={}, last_end=last_end))
    visitor = await relay.visitor()
    await visitor.read()
    await visitor.answer(visitor.told())
    await relay.visitor()
    found = await walked(walk)
    assert states(found) == {"log-in": "warning"}
    assert found["log-in"].text == f"the relay lets this device in; the client that runs says: {last_end}"


async def test_a_name_that_is_not_found(setting: Setting, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a fault although the addresses of last time lead on."""

    def unknown(host: str, port: int, **_: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    url = f"ws://relay.test:{setting.relay.port}"
    found = await walked(walking(setting, engine, url=url))
    assert states(found) == {"name": "failed"}
    assert found["name"].text.startswith("relay.test: name not found: check the spelling")
    assert found["TCP"].text == found["log-in"].text == NOT_REACHED
    MemberState(setting.folder).keep_reached("relay.test", ["127.0.0.1"])
    walk = walking(setting, engine, url=url)
    visitor = await setting.relay.member()
    await visitor.messages(2)
    await visitor.grant(GRANTED)
    await setting.relay.member()
    found = await walked(walk)
    assert states(found) == {"name": "failed"}
    assert found["name"].text.endswith("; tried on at the addresses of last time: 127.0.0.1")


async def test_f13_a_web_server_says_why(setting: Setting, engine: Engine) -> None:
    answers: list[tuple[Any, str]] = [
        (http("401 Unauthorized", 'WWW-Authenticate: Basic realm="x"'), "put them into the URL"),
        (http("426 Upgrade Required"), "has to pass Upgrade and Connection on"),
        (http("502 Bad Gateway"), "it does not reach candy-server"),
    ]
    for answer, words in answers:
        async with listening(answer) as server:
            found = await walked(walking(setting, engine, url=f"ws://127.0.0.1:{server.port}"))
        assert states(found) == {"upgrade": "failed"}
        assert words in found["upgrade"].text


async def test_f12_a_proxy_that_refuses(setting: Setting, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(http("403 Forbidden")) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        found = await walked(walking(setting, engine, url="ws://relay.example:80"))
        assert states(found) == {"proxy": "failed"}
        assert "have it allowed there, or name the relay's host in NO_PROXY" in found["proxy"].text
        monkeypatch.setenv("no_proxy", "127.0.0.0/8")
        walk = walking(setting, engine)
        visitor = await setting.relay.member()
        await visitor.messages(2)
        await visitor.grant(GRANTED)
        await setting.relay.member()
        assert (await walked(walk))["proxy"].state is State.SKIPPED


@pytest.mark.parametrize("is_cured", [True, False])
async def test_f15_long_segments_vanish(
    setting: Setting, engine: Engine, monkeypatch: pytest.MonkeyPatch, is_cured: bool
) -> None:
    """The second attempt uses shorter ones, which is what a client would learn."""
    dial, lengths = Dialer.dial, list[int]()

    async def vanish(self: Dialer, *, padding: int = 0, **more: Any) -> Upgraded:
        if not padding:
            return await dial(self, padding=padding, **more)
        lengths.append(padding)
        if len(lengths) == 1 or not is_cured:
            raise TookTooLong(f"{self.relay}: no success within 10 s, while waiting")
        self.outer.segment = 1220
        return await dial(self, padding=padding, **more)

    monkeypatch.setattr(Dialer, "dial", vanish)
    walk = walking(setting, engine)
    visitor = await setting.relay.member()
    await visitor.messages(2)
    await visitor.grant(GRANTED)
    found = await walked(walk)
    assert lengths == [PADDING_BYTES] * 2
    if is_cured:
        assert states(found) == {"path MTU": "warning"}
        assert "TCP segments of more than 1220 bytes vanish on the way" in found["path MTU"].text
    else:
        assert states(found) == {"path MTU": "failed"}
        assert "a long request is not answered, where a short one is: no success" in found["path MTU"].text


async def test_a_web_server_that_takes_no_long_request(setting: Setting, engine: Engine) -> None:
    """It has answered, so the segments have arrived."""

    def answer(head: str) -> bytes:
        refused = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\n\r\n"
        return refused if PADDING in head else switching(head)

    async with listening(answer) as server:
        walk = walking(setting, engine, url=f"ws://127.0.0.1:{server.port}")
        reader, writer = await server.peers.get()
        await reader.readexactly(2)
        writer.close()
        found = await walked(walk)
    assert states(found) == {"log-in": "failed", "path MTU": "warning"}
    assert "a long request is refused, where a short one is not: the server answered HTTP 431" in found["path MTU"].text


async def test_the_other_relays_are_looked_for(setting: Setting, engine: Engine) -> None:
    """As far as the upgrade; a member does without them."""
    url, nobody = f"ws://127.0.0.1:{setting.relay.port}/", "ws://127.0.0.1:1/"
    settings = member_settings({"websocket": Given((nobody, url), "-w")}, password=PASSWORD, state_dir=setting.folder)
    others = [parts.dialer(settings, None, each) for each in settings.urls]
    doctor = Doctor(settings, None, others[0], setting.keyring(), engine, others=others)
    lost, found = await doctor.others()
    assert (lost.step, lost.state) == ("other relay", State.WARNING)
    assert lost.text.startswith(f"{nobody}: cannot connect to the relay at 127.0.0.1:1: connection refused")
    assert (found.state, found.text) == (State.OK, f"{url} answers, to go to when another one is lost")
    assert await (await setting.relay.member()).receive() == (aiohttp.WSMsgType.CLOSED, None)
