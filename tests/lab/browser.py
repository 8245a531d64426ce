"""A headless Chromium that a test drives by its DevTools protocol, as a person would: it looks, types and clicks.

    with Chromium(folder) as chromium:
        async with chromium.page() as page: await page.open(url); await page.until("document.title === 'candy'")

Rules: each page has cookies and a store of its own. What is awaited is seen with the next change of the document. Every
address that a page asks for is kept, and so is whatever it complains about: a refusal of its policy, an error that
nobody caught. Other hosts than 127.0.0.1 have no address for it.
"""

import asyncio
import base64
import itertools
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
from lab.programs import PATIENCE_S, Program

PROGRAM = "chromium"
FLAGS = (
    "--headless=new",
    # Root has no sandbox, and the pages are ours.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-port=0",
)
WATCH = """new Promise((resolve) => {
  const observer = new MutationObserver(look);
  function look() {
    const found = (%s);
    if (!found) return;
    observer.disconnect();
    resolve(found);
  }
  observer.observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
  look();
})"""


class Chromium(Program):
    """A browser without pages."""

    def __init__(self, folder: Path) -> None:
        found = shutil.which(PROGRAM)
        assert found is not None
        argv = [found, *FLAGS, f"--user-data-dir={folder}/profile", "about:blank"]
        super().__init__(PROGRAM, argv, {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8"})
        self._url = self.wait_for(r"DevTools listening on (ws://\S+)")[1]

    @asynccontextmanager
    async def page(self, languages: str = "en-US") -> AsyncIterator["Page"]:
        """A page of its own.

        Args:
            languages: that its reader prefers, as in Accept-Language.
        """
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(self._url, max_msg_size=0) as devtools,
        ):
            page = Page(devtools)
            reading = asyncio.create_task(page.read())
            try:
                context = await page.ask("Target.createBrowserContext")
                await page.begin(context["browserContextId"], languages)
                yield page
                await page.end(context["browserContextId"])
            finally:
                reading.cancel()
                with suppress(asyncio.CancelledError):
                    await reading


class Page:
    """What a reader has before himself."""

    def __init__(self, devtools: aiohttp.ClientWebSocketResponse) -> None:
        self._devtools = devtools
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._session: str | None = None
        """None: the browser itself is asked."""
        self._loaded = asyncio.Event()
        self.requests: list[str] = []
        """All addresses that were asked for."""
        self.complaints: list[str] = []

    async def begin(self, context: str, languages: str) -> None:
        target = await self.ask("Target.createTarget", url="about:blank", browserContextId=context)
        attached = await self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self.ask(f"{domain}.enable")
        agent = await self.run("navigator.userAgent")
        await self.ask("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage=languages)

    async def end(self, context: str) -> None:
        self._session = None
        await self.ask("Target.disposeBrowserContext", browserContextId=context)

    async def read(self) -> None:
        """Take what the browser says, up to its end."""
        async for message in self._devtools:
            said = json.loads(message.data)
            if (asked := self._asked.pop(said.get("id"), None)) is not None:
                if "error" in said:
                    asked.set_exception(AssertionError(said["error"]["message"]))
                else:
                    asked.set_result(said["result"])
            elif "method" in said:
                self._note(said["method"], said["params"])

    def _note(self, event: str, of: Any) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(of["request"]["url"])
        elif event == "Page.loadEventFired":
            self._loaded.set()
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(str(of["exceptionDetails"]))
        elif event == "Log.entryAdded" and _is_complaint(**of["entry"]):
            self.complaints.append(of["entry"]["text"])

    async def ask(self, method: str, **parameters: Any) -> Any:
        """One command of the protocol."""
        number = next(self._numbers)
        self._asked[number] = asyncio.get_running_loop().create_future()
        command = {"id": number, "method": method, "params": parameters}
        await self._devtools.send_json(command if self._session is None else {**command, "sessionId": self._session})
        return await asyncio.wait_for(self._asked[number], PATIENCE_S)

    async def open(self, url: str) -> None:
        """Have the page there, with its scripts."""
        self._loaded.clear()
        await self.ask("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), PATIENCE_S)

    async def run(self, expression: str) -> Any:
        """The value of an expression, which may be a promise."""
        given = await self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in given, given["exceptionDetails"]
        return given["result"].get("value")

    async def until(self, expression: str) -> Any:
        """Its value once that is true."""
        try:
            return await self.run(WATCH % expression)
        except TimeoutError:
            shown = await self.run("document.body.innerText")
            raise AssertionError(f"{expression} did not come true:\n{shown}\n{self.complaints}") from None

    async def click(self, selector: str) -> None:
        """With the mouse, once it is there to be clicked."""
        x, y = await self.until(
            f"""((element) => {{
              if (!element || element.offsetParent === null && !element.closest("dialog[open]")) return null;
              element.scrollIntoView({{block: "center"}});
              const {{x, y, width, height}} = element.getBoundingClientRect();
              return width && [x + width / 2, y + height / 2];
            }})(document.querySelector({json.dumps(selector)}))"""
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def type(self, selector: str, text: str) -> None:
        """In place of what is there."""
        await self.click(selector)
        await self.run(f"document.querySelector({json.dumps(selector)}).select()")
        await self.ask("Input.insertText", text=text)

    async def picture(self, file: Path, width: int, height: int, *, dark: bool = False) -> None:
        """Of the page at this size, in CSS pixels, as PNG."""
        scheme = "dark" if dark else "light"
        await self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self.ask("Emulation.setDeviceMetricsOverride", **size)
        await self.run("new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
        taken = await self.ask("Page.captureScreenshot", format="png")
        file.write_bytes(base64.b64decode(taken["data"]))


def _is_complaint(source: str, level: str, **_: object) -> bool:
    # A status of 400 or more is an error of the network's, for Chromium.
    return source != "network" and level in ("warning", "error")
