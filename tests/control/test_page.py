"""The page of a relay in a real browser: its reader logs in, sees members and traffic, and kicks and reserves."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from kit.peer import PING
from lab.browser import PROGRAM, Chromium, Page
from lab.control import Control
from lab.member import Member, packet
from lab.programs import RelayProgram

from candy.protocol.closing import CloseCode

TOKEN, OTHER = "0123456789abcdef", "fedcba9876543210"
MARKUP = '<img src="//203.0.113.9/" onerror="alert(1)"><b>laptop</b>'
ALONE = "document.querySelectorAll('#members tbody tr').length === 1"
"""Who left with an earlier test is not listed any more."""
ROW = """[...document.querySelectorAll("#members tbody tr")].find((row) => row.cells[0].textContent === "%s")"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    if shutil.which(PROGRAM) is None:
        pytest.skip(f"needs {PROGRAM}: run scripts/bootstrap.sh browser")
    with Chromium(tmp_path_factory.mktemp("chromium")) as chromium:
        yield chromium


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens.touch(0o600)
    tokens.write_text(f"admin {TOKEN}\n")
    return tokens


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory, tokens: Path) -> Iterator[RelayProgram]:
    flags = ("--control", "127.0.0.1:0", "--control-token-file", str(tokens))
    with RelayProgram(tmp_path_factory.mktemp("relay"), *flags) as relay:
        yield relay


@pytest.fixture(scope="module")
def base(relay: RelayProgram) -> str:
    return f"http://{relay.wait_for(r'control on (127.0.0.1:[0-9]+)$')[1]}/"


@pytest.fixture
async def page(chromium: Chromium, base: str) -> AsyncIterator[Page]:
    """It has asked nobody but the relay at the end, and its policy was never broken."""
    async with chromium.page() as page:
        await page.open(base)
        yield page
        assert page.complaints == []
        assert [url for url in page.requests if not url.startswith(base)] == []


async def log_in(page: Page, token: str = TOKEN) -> None:
    await page.type("#token", token)
    await page.click("#log-in button")


def enter(stack: ExitStack, relay: RelayProgram, ip: str, name: str) -> Member:
    member = stack.enter_context(Member.connect(relay.address))
    member.send(member.greeting())
    member.log_in(ip)
    member.send(f"candy::linux::1.2.3::{name}".encode(), PING)
    member.settle()
    return member


async def test_a_wrong_token_sees_nothing(page: Page, relay: RelayProgram, stack: ExitStack) -> None:
    enter(stack, relay, "192.168.202.10", "laptop")
    await log_in(page, OTHER)
    await page.until("document.querySelector('#notice').textContent === \"This is no token of the relay's.\"")
    assert "laptop" not in await page.run("document.body.textContent")
    assert await page.run("document.querySelector('#relay').hidden")
    assert [url for url in page.requests if "/v1/" in url] == []
    # Not even by its own scripts' way.
    assert await page.run("fetch('v1/members').then((response) => response.status)") == 401


async def test_a_member_comes_sends_and_is_kicked(page: Page, relay: RelayProgram, stack: ExitStack) -> None:
    await log_in(page)
    await page.until("!document.querySelector('#relay').hidden")
    member = enter(stack, relay, "192.168.202.20", MARKUP)
    row = ROW % "192.168.202.20"
    # Its name is text, to the last character, and makes no element.
    await page.until(f"{row}?.cells[1].textContent === {MARKUP!r}")
    assert await page.run("document.querySelectorAll('#members td :not(button)').length") == 0

    # What the cookie is, no script gets to see.
    assert await page.run("document.cookie") == ""

    plot = "document.querySelector('#throughput path.bytes_in_per_s')?.getAttribute('d')"
    flat = await page.until(plot)
    for _ in range(200):
        member.forward(packet("192.168.202.20", "192.168.202.20", bytes(1000)))
    member.settle()
    # Of the figures under it all are at its foot but those of that step.
    await page.until(f"{plot} !== {flat!r} && new Set({plot}.match(/ [0-9.]+/g)).size > 1")
    await page.until(f"{row}.cells[5].textContent.endsWith(' kB')")

    await page.until(ALONE)
    await page.click("#members tbody tr button")
    asked = f"End the connection of {MARKUP} (192.168.202.20)? It may come back."
    await page.until(f"document.querySelector('#question').textContent === {asked!r}")
    await page.click("#yes")
    await page.until(f"!({row})")
    assert await asyncio.to_thread(member.end) == CloseCode.POLICY_VIOLATION


async def test_limits_are_a_column_once_there_are_some(page: Page, relay: RelayProgram, stack: ExitStack) -> None:
    enter(stack, relay, "192.168.202.25", "heavy")
    await log_in(page)
    await page.until(ALONE)
    heads = "[...document.querySelectorAll('#members th:not([hidden])')].map((cell) => cell.textContent.trim())"
    assert not any(head.startswith("Limits") for head in await page.run(heads))
    with Control("relay", relay.control) as control:
        limits = {"down": 10_000_000, "up": 2_000_000, "quota": 10**9}
        await asyncio.to_thread(control.ask, "POST", "/v1/leases/192.168.202.25/limits", limits)
        row = ROW % "192.168.202.25"
        cell = f"[...{row}.cells].find((cell) => cell.textContent.includes('\u2193'))?.textContent"
        shown = await page.until(cell)
        assert "\u2193 10.0 Mbit/s" in shown
        assert "\u2191 2.0 Mbit/s" in shown
        assert any(head.startswith("Limits") for head in await page.run(heads))
        await asyncio.to_thread(control.ask, "POST", "/v1/leases/192.168.202.25/limits", {"as_network": True})
        await page.until(f"!({cell})")


async def test_no_is_no(page: Page, relay: RelayProgram, stack: ExitStack) -> None:
    member = enter(stack, relay, "192.168.202.30", "desktop")
    await log_in(page)
    await page.until(ALONE)
    await page.click("#members tbody tr button")
    await page.click("#ask button[value='']")
    await page.until("!document.querySelector('#ask').open")
    assert [url for url in page.requests if url.endswith("/kick")] == []
    member.settle()


async def test_reserve_and_release(page: Page, relay: RelayProgram, stack: ExitStack) -> None:
    enter(stack, relay, "192.168.202.5", "first")
    await log_in(page)
    await page.click("#tab-leases")
    # For the device that has the address, by what no other can call itself.
    await page.until("document.querySelector('#leases-table td')?.textContent === '192.168.202.5'")
    await page.click("#leases-table tbody button")
    await page.click("#yes")
    await page.until("document.querySelector('#reservations-table td:nth-child(2)')?.textContent.startsWith('vmac:')")
    await page.click("#reservations-table tbody button")
    await page.click("#yes")
    await page.until("!document.querySelector('#reservations-table td')")
    # Or for any other.
    await page.type("#reserve-address", "192.168.202.77")
    await page.type("#reserve-device", "printer")
    await page.click("#reserve button")
    await page.click("#yes")
    await page.until("document.querySelector('#reservations-table td')?.textContent === '192.168.202.77'")
    # A refusal is shown in the relay's words.
    await page.type("#reserve-address", "192.168.202.777")
    await page.type("#reserve-device", "scanner")
    await page.click("#reserve button")
    await page.click("#yes")
    await page.until("document.querySelector('#notice').textContent.startsWith('the body: address: ')")
    await page.click("#reservations-table tbody button")
    await page.click("#yes")
    await page.until("!document.querySelector('#reservations-table td')")


async def test_languages(chromium: Chromium, relay: RelayProgram, base: str, stack: ExitStack) -> None:
    """The reader's own at first, then the one that was chosen."""
    enter(stack, relay, "192.168.202.40", "laptop")
    async with chromium.page("zh-CN,zh,en") as page:
        await page.open(base)
        await page.until("document.documentElement.lang === 'zh'")
        await page.until("document.querySelector('#log-in button').textContent === '登录'")
        await log_in(page)
        await page.until("document.querySelector('#members td')?.dataset.head === '地址'")
        await page.run(
            """{
              const select = document.querySelector("#language");
              select.value = "en";
              select.dispatchEvent(new Event("change"));
            }"""
        )
        await page.until("document.querySelector('#members td')?.dataset.head === 'Address'")
        await page.open("about:blank")
        # The cookie is still there, and so is the choice; which list is meant, the address says.
        await page.open(f"{base}#networks")
        await page.until("document.querySelector('#networks td')?.textContent === '/'")
        await page.until("document.querySelector('#tab-networks').textContent === 'Networks'")
        assert page.complaints == []


async def test_a_token_that_is_withdrawn(page: Page, tokens: Path) -> None:
    await log_in(page)
    await page.until("document.querySelector('#figures dd')")
    tokens.write_text(f"another {OTHER}\n")
    try:
        await page.until("!document.querySelector('#entry').hidden")
        assert await page.run("document.querySelector('#figures dd')") is None
        assert await page.run("document.querySelector('#members td')") is None
    finally:
        tokens.write_text(f"admin {TOKEN}\n")


async def test_log_out(page: Page) -> None:
    await log_in(page)
    await page.click("#log-out")
    await page.until("!document.querySelector('#entry').hidden")
    assert await page.run("fetch('session').then((response) => response.status)") == 401


async def test_no_more_rows_than_can_be_refreshed(page: Page) -> None:
    """Of 2,000 items, by the page's own table."""
    await page.run(
        """import("/table.js").then(({Table}) => {
          const place = document.body.appendChild(document.createElement("div"));
          place.id = "many";
          const number = {name: "address", text: (item) => String(item), sort: (item) => item};
          window.many = new Table(place, [number], (item) => item);
          window.many.show(Array.from({length: 2000}, (_, item) => 1999 - item));
        })"""
    )
    rows = "[...document.querySelectorAll('#many td')].map((cell) => Number(cell.textContent))"
    where = "document.querySelector('#many .pager span').textContent"
    for head, expected in (("1\u2013100 / 2000", range(100)), ("101\u2013200 / 2000", range(100, 200))):
        assert await page.run(where) == head
        assert await page.run(rows) == list(expected)
        await page.click("#many .pager button:last-child")
    # What is filtered begins at its first row, and where items have gone the last that are left are shown.
    await page.run("window.many.filter('77')")
    assert await page.run(rows) == [number for number in range(2000) if "77" in str(number)]
    await page.run("window.many.filter('')")
    for _ in range(3):
        await page.click("#many .pager button:last-child")
    await page.run("window.many.show([1, 3, 2])")
    assert await page.run(rows) == [1, 2, 3]
    assert await page.run("document.querySelector('#many .pager').hidden")
