"""Who asks over TCP: tokens in a header, the log-in of a browser, its cookie, and what a change needs beside that."""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from http.cookies import Morsel, SimpleCookie
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from kit.controlled import TOKEN, serve

from candy.control import visitors

BEARER = {"Authorization": f"Bearer {TOKEN}"}
KICK = "/v1/members/10.0.0.2/kick"


class Browser:
    """A session that keeps its own cookies, if it is told to."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self._session = session
        self.base = base
        self.cookie = ""

    async def ask(self, method: str, path: str, **headers: str) -> tuple[int, Any, list[str]]:
        """Status, answer, and the cookies that are set."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookie:
            given["Cookie"] = self.cookie
        async with self._session.request(method, self.base + path, headers=given) as response:
            answer = None if response.status == 204 else await response.json()
            return response.status, answer, response.headers.getall("Set-Cookie", [])

    async def log_in(self, **headers: str) -> Morsel[str]:
        status, _, [cookie] = await self.ask("POST", "/session", **BEARER, **headers)
        assert status == 200
        [morsel] = SimpleCookie(cookie).values()
        self.cookie = f"{morsel.key}={morsel.value}"
        return morsel

    async def csrf(self) -> str:
        _, answer, _ = await self.ask("GET", "/session")
        return str(answer["csrf"])


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def browser_at(stack: AsyncExitStack, folder: Path, **more: Any) -> Browser:
    base = await serve(stack, folder, **more)
    # What cookies there are is the test's to say.
    session = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
    return Browser(session, base)


@pytest.fixture
async def browser(stack: AsyncExitStack, tmp_path: Path) -> Browser:
    return await browser_at(stack, tmp_path)


async def test_log_in(browser: Browser) -> None:
    cookie = await browser.log_in()
    assert (cookie["httponly"], cookie["samesite"], cookie["secure"]) == (True, "Strict", "")
    # It ends with the browser, is for the folder that the page is in, and does not tell the token.
    assert (cookie["max-age"], cookie["expires"], cookie["path"], cookie["domain"]) == ("", "", "", "")
    assert TOKEN not in cookie.value
    assert await browser.ask("GET", "/v1/networks") == (200, {"networks": []}, [])
    status, answer, _ = await browser.ask("GET", "/session")
    assert (status, answer["who"]) == (200, "admin")


@pytest.mark.parametrize(
    "header",
    [
        {"X_Forwarded_Proto": "https"},
        {"Forwarded": "for=203.0.113.9;proto=https"},
        {"Forwarded": 'Proto="https"'},
    ],
)
async def test_behind_tls_the_cookie_is_for_tls_alone(browser: Browser, header: dict[str, str]) -> None:
    assert (await browser.log_in(**header))["secure"] is True


@pytest.mark.parametrize("header", [{"X_Forwarded_Proto": "http"}, {"Forwarded": "for=_https;proto=http"}])
async def test_and_else_it_is_not(browser: Browser, header: dict[str, str]) -> None:
    assert (await browser.log_in(**header))["secure"] == ""


async def test_a_wrong_token_gives_no_cookie(browser: Browser) -> None:
    for headers in ({}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": f"Basic {TOKEN}"}):
        status, answer, cookies = await browser.ask("POST", "/session", **headers)
        assert (status, answer, cookies) == (
            401,
            {"error": "a token of --control-token-file is missing, or not known"},
            [],
        )


async def test_a_token_of_any_script(stack: AsyncExitStack, tmp_path: Path) -> None:
    """Its bytes are those of the file."""
    browser = await browser_at(stack, tmp_path, token="пароль-из-букв-и-чёрточек")
    status, _, cookies = await browser.ask("POST", "/session", Authorization="Bearer пароль-из-букв-и-чёрточек")
    assert (status, len(cookies)) == (200, 1)


async def test_a_change_needs_the_csrf_token(browser: Browser, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await browser.log_in()
    csrf = await browser.csrf()
    for method, path in (("POST", KICK), ("POST", "/session"), ("DELETE", "/session")):
        for headers in ({}, {"X_CSRF_Token": ""}, {"X_CSRF_Token": csrf[:-1]}, {"X_CSRF_Token": "ä"}):
            status, answer, cookies = await browser.ask(method, path, **headers)
            assert (status, cookies) == (403, [])
            assert answer["error"] == "X-CSRF-Token is missing, or another session's: load the page again"
    assert caplog.records == []
    assert await browser.ask("POST", KICK, X_CSRF_Token=csrf) == (
        200,
        {"network": "/", "address": "10.0.0.2", "relay": None},
        [],
    )
    assert caplog.records[-1].getMessage() == "kick 10.0.0.2, asked for by token admin: done"
    # A token in the header is no browser's, and needs no other.
    browser.cookie = ""
    assert (await browser.ask("POST", KICK, **BEARER))[0] == 200


async def test_a_header_counts_before_a_cookie(browser: Browser) -> None:
    await browser.log_in()
    assert (await browser.ask("GET", "/v1/networks", Authorization="Bearer nonsense"))[0] == 401


async def test_a_ticket_ends(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    await browser.log_in()
    began = time.time()
    for later, expected in ((visitors.LASTS_S - 60, 200), (visitors.LASTS_S + 60, 401)):
        monkeypatch.setattr(visitors, "time", SimpleNamespace(time=lambda later=later: began + later))
        assert (await browser.ask("GET", "/v1/networks"))[0] == expected


async def test_a_ticket_is_renewed(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    await browser.log_in()
    csrf, began = await browser.csrf(), time.time()
    monkeypatch.setattr(visitors, "time", SimpleNamespace(time=lambda: began + visitors.LASTS_S - 60))
    status, answer, [cookie] = await browser.ask("POST", "/session", X_CSRF_Token=csrf)
    assert status == 200
    browser.cookie = cookie.partition(";")[0]
    monkeypatch.setattr(visitors, "time", SimpleNamespace(time=lambda: began + visitors.LASTS_S + 60))
    assert (await browser.ask("POST", KICK, X_CSRF_Token=answer["csrf"]))[0] == 200


async def test_a_ticket_that_was_made_up(browser: Browser) -> None:
    ticket = (await browser.log_in()).value
    until, _, mark = ticket.partition(".")
    name = browser.cookie.partition("=")[0]
    for made_up in (
        f"{int(until) + 1}.{mark}",
        f"{until}.{'0' * 64}",
        f"{until}.",
        f"{'9' * 5000}.{mark}",
        f"٣.{mark}",
        f"-{until}.{mark}",
        TOKEN,
        "",
    ):
        browser.cookie = f"{name}={made_up}"
        assert (await browser.ask("GET", "/v1/networks"))[0] == 401, made_up
    browser.cookie = f"{name}={ticket}"
    assert (await browser.ask("GET", "/v1/networks"))[0] == 200


async def test_a_ticket_goes_with_its_token(browser: Browser, tmp_path: Path) -> None:
    await browser.log_in()
    (tmp_path / "tokens").write_text(f"admin {TOKEN[::-1]}-another\n")
    assert (await browser.ask("GET", "/v1/networks"))[0] == 401


async def test_the_cookie_is_of_one_port(browser: Browser) -> None:
    """Another relay on this host, or one behind a tunnel, has one of its own."""
    port = browser.base.rpartition(":")[2]
    assert (await browser.log_in()).key == f"candy-{port}"
    assert (await browser.log_in(Host="vpn.example.org")).key == "candy"
    assert (await browser.log_in(Host="[::1]:7")).key == "candy-7"


async def test_log_out(browser: Browser) -> None:
    key = (await browser.log_in()).key
    status, _, [cookie] = await browser.ask("DELETE", "/session", X_CSRF_Token=await browser.csrf())
    [morsel] = SimpleCookie(cookie).values()
    assert (status, morsel.key, morsel.value, morsel["max-age"]) == (204, key, "", "0")


async def test_a_side_without_a_page_has_no_log_in(stack: AsyncExitStack, tmp_path: Path) -> None:
    browser = await browser_at(stack, tmp_path, has_page=False)
    for method in ("GET", "POST", "DELETE"):
        assert (await browser.ask(method, "/session", **BEARER))[0] == 404
