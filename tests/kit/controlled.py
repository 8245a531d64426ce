"""A control interface with a page, over TCP, in front of a side that answers two calls.

base = await serve(stack, folder) ─▶ http://127.0.0.1:…, for who has TOKEN
"""

from contextlib import AsyncExitStack
from pathlib import Path

from candy.checked import checked
from candy.control.model import Kicked, Networks
from candy.control.serving import Answering, serving
from candy.settings import Settings

TOKEN = "0123456789abcdef"


class Side:
    """Has no networks, and kicks any member that is named."""

    async def networks(self) -> Networks:
        return Networks(networks=[])

    async def kick(self, *, member: str, network: str | None = None) -> Kicked:
        return Kicked(network=network or "/", address=member)


def settings(folder: Path, token: str = TOKEN) -> Settings:
    """With a file of tokens, of which one is called admin."""
    tokens = folder / "tokens"
    tokens.touch(0o600)
    tokens.write_text(f"admin {token}\n")
    more = {"control_socket": str(folder / "control"), "control": "127.0.0.1:0", "control_token_file": tokens}
    return checked(Settings, {"state_dir": folder, **more})


async def serve(stack: AsyncExitStack, folder: Path, *, has_page: bool = True, token: str = TOKEN) -> str:
    """Where."""
    answering = Answering("relay", Side(), lambda: b"candy_up 1\n", has_page=has_page)
    lines = await stack.enter_async_context(serving(settings(folder, token), answering, folder / "control"))
    return "http://" + lines[-1].removeprefix("control on ")
