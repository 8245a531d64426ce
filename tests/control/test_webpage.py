"""The page's files: to whom they are served, as what, and what is in none of them."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from importlib import resources
from pathlib import Path

import aiohttp
import pytest
from kit.controlled import TOKEN, serve

from candy.control.webpage import POLICY

FILES = {
    "/": "text/html",
    "/page.css": "text/css",
    "/page.js": "text/javascript",
    "/relay.js": "text/javascript",
    "/chart.js": "text/javascript",
    "/table.js": "text/javascript",
    "/figures.js": "text/javascript",
    "/words.js": "text/javascript",
    "/icon.svg": "image/svg+xml",
}
TEXTS = {file.name: file.read_text() for file in (resources.files("candy.control") / "page").iterdir()}


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def base(stack: AsyncExitStack, tmp_path: Path) -> str:
    return await serve(stack, tmp_path)


@pytest.fixture
async def session(stack: AsyncExitStack) -> aiohttp.ClientSession:
    return await stack.enter_async_context(aiohttp.ClientSession())


def test_these_are_all() -> None:
    assert {f"/{name}" for name in TEXTS} == {*FILES, "/index.html"} - {"/"}


@pytest.mark.parametrize("path", FILES)
async def test_a_file(base: str, session: aiohttp.ClientSession, path: str) -> None:
    """Without a token."""
    async with session.get(base + path) as response:
        assert await response.text() == TEXTS[path[1:] or "index.html"]
        headers = response.headers
    assert (response.status, headers["Content-Type"]) == (200, f"{FILES[path]}; charset=utf-8")
    assert (headers["Content-Security-Policy"], headers["X-Content-Type-Options"]) == (POLICY, "nosniff")
    assert (headers["Cache-Control"], headers["Referrer-Policy"]) == ("no-cache", "no-referrer")
    assert "Set-Cookie" not in headers
    for tag, expected in ((headers["ETag"], 304), ('"another"', 200)):
        async with session.get(base + path, headers={"If-None-Match": tag}) as again:
            assert (again.status, again.headers["ETag"]) == (expected, headers["ETag"])
            assert (await again.read() == b"") is (expected == 304)


async def test_answers_are_not_kept(base: str, session: aiohttp.ClientSession) -> None:
    for headers, status in (({}, 401), ({"Authorization": f"Bearer {TOKEN}"}, 200)):
        async with session.get(f"{base}/v1/networks", headers=headers) as response:
            assert (response.status, response.headers["Cache-Control"]) == (status, "no-store")
            assert response.headers["Content-Security-Policy"] == POLICY


@pytest.mark.parametrize(
    "path",
    [
        "/index.html",
        "/page",
        "/page/",
        "/page/page.js",
        "//page.js",
        "/./page.js",
        "/x/../page.js",
        "/../server.py",
        "/..%2fserver.py",
        "/%2e%2e/server.py",
        "/page.js/../../server.py",
        "/page.js%00",
        "/..\\server.py",
        "/etc/passwd",
        "//etc/passwd",
        "/v1/status/../../page.js",
    ],
)
async def test_no_other_path_is_a_file(base: str, path: str) -> None:
    """As a client may write it that makes no sense of `..` before."""
    host, _, port = base.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 401 ", b"HTTP/1.1 400 "))
    if head.startswith(b"HTTP/1.1 401 "):
        assert json.loads(body) == {"error": "a token of --control-token-file is missing, or not known"}


async def test_there_is_none_elsewhere(base: str, stack: AsyncExitStack, tmp_path: Path) -> None:
    """Over the UNIX socket, or of a side that has none."""
    connector = aiohttp.UnixConnector(str(tmp_path / "control"))
    over_unix = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
    folder = tmp_path / "without"
    folder.mkdir()
    without = await serve(stack, folder, has_page=False)
    over_tcp = await stack.enter_async_context(
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}, raise_for_status=False)
    )
    for session, where in ((over_unix, "http://localhost"), (over_tcp, without)):
        for path in FILES:
            async with session.get(where + path) as response:
                assert response.status == 404
                assert "Content-Security-Policy" not in response.headers


# What is in the files


def test_nothing_stands_inline() -> None:
    """The policy would have it do nothing."""
    html = TEXTS["index.html"]
    assert re.findall(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|javascript:", html) == []
    assert "'unsafe" not in POLICY


@pytest.mark.parametrize("name", TEXTS)
def test_no_other_host_is_named(name: str) -> None:
    hosts = set(re.findall(r"\w+://[^\s\"'<>]*|url\([^)]*\)|@import", TEXTS[name]))
    assert hosts <= {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize("name", [name for name in TEXTS if name.endswith(".js")])
def test_texts_never_become_markup(name: str) -> None:
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", TEXTS[name]) == []


def words(language: str) -> dict[str, str]:
    [block] = re.findall(rf"^  {language}: \{{\n(.*?)^  \}},$", TEXTS["words.js"], re.MULTILINE | re.DOTALL)
    return dict(re.findall(r'^    (\w+): "(.*)",$', block, re.MULTILINE))


def test_both_languages_have_all_words() -> None:
    english, chinese = words("en"), words("zh")
    assert list(english) == sorted(english)
    assert list(chinese) == list(english)
    for key, text in english.items():
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", chinese[key]))


def test_the_words_are_those_that_are_used() -> None:
    used = set(re.findall(r'data-(?:word|label)="(\w+)"', TEXTS["index.html"]))
    scripts = "".join(text for name, text in TEXTS.items() if name.endswith(".js") and name != "words.js")
    quoted = set(re.findall(r'"(\w+)"', scripts))
    known = set(words("en"))
    asked = set(re.findall(r'word\("(\w+)"', scripts)) | used
    assert asked <= known
    questions = {f"{verb}_question" for verb in ("kick", "reserve", "release")}
    assert known <= quoted | used | questions
