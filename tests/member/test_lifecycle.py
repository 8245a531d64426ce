"""How a member starts and ends: an interface that can't be created, and signals."""

import asyncio
import re
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import pytun
from kit.recorded import PASSWORD
from lab.namespaces import Namespace
from lab.programs import PATIENCE_S, Program, client, environment
from lab.unread import Unread, stderr_refused, stderr_to

from candy.checked import checked
from candy.errors import ConfigError, OperationalError
from candy.member import lifecycle
from candy.member.parts import Parts
from candy.member.settings import MemberSettings
from candy.sealing.seals import Seal


def settings(folder: Path, **more: object) -> MemberSettings:
    return checked(MemberSettings, {"password": PASSWORD, "state_dir": folder, "urls": "ws://127.0.0.1:1/", **more})


def test_without_the_right_to_make_an_interface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise pytun.Error(13, "Permission denied")

    monkeypatch.setattr(pytun, "TunTapDevice", refuse)
    with pytest.raises(OperationalError, match=r"^/dev/net/tun is closed to this user: run as root"):
        lifecycle.run(settings(tmp_path))
    assert list(tmp_path.iterdir()) == []


class Staying:
    """A member whose goodbye lasts until the test ends it."""

    def __init__(self) -> None:
        self.urls = ["ws://127.0.0.1:1/"]
        """That it was, one after another."""
        self.seals: list[Seal] = []
        """What it was told of sealing."""
        self.steps: asyncio.Queue[str] = asyncio.Queue()
        self.is_answered = asyncio.Event()

    async def stay(self) -> None:
        self.steps.put_nowait(f"stays at {self.urls[-1]}")
        try:
            await asyncio.Event().wait()
        finally:
            self.steps.put_nowait("says goodbye")
            await self.is_answered.wait()

    def renew(self, identity: str, keyring: object, relays: object, seal: Seal, secret: object) -> None:
        self.urls.append(identity)
        self.seals.append(seal)


@pytest.mark.usefixtures("log_level")
class TestSettingsThatAreReadAgain:
    """By the event loop's own rules for what is cancelled; with a real member in tests/netns/test_member_reload.py."""

    @pytest.fixture
    def member(self) -> Staying:
        return Staying()

    @pytest.fixture
    def stays(self, member: Staying, tmp_path: Path) -> Any:
        return lifecycle._Stays(
            cast(Any, member),
            settings(tmp_path),
            lambda other: Parts(
                cast(Any, other.url),
                cast(Any, None),
                cast(Any, SimpleNamespace(at_hand=SimpleNamespace(relay=other.url))),
                other.seals,
                other.secret,
            ),
        )

    async def test_another_stay(self, stays: Any, member: Staying, tmp_path: Path) -> None:
        """After the goodbye, and with what was read last: twice meanwhile is once."""
        leading = asyncio.create_task(stays.lead())
        assert await member.steps.get() == "stays at ws://127.0.0.1:1/"
        stays.reload(lambda: settings(tmp_path, urls="ws://127.0.0.1:2/"))
        assert await member.steps.get() == "says goodbye"
        stays.reload(lambda: settings(tmp_path, urls="ws://127.0.0.1:3/"))
        member.is_answered.set()
        assert await member.steps.get() == "stays at ws://127.0.0.1:3/"
        assert member.urls == ["ws://127.0.0.1:1/", "ws://127.0.0.1:3/"]
        assert member.seals == [Seal.PREFER]
        leading.cancel()
        await asyncio.wait([leading])
        assert leading.cancelled()

    async def test_an_end_while_it_says_goodbye(self, stays: Any, member: Staying, tmp_path: Path) -> None:
        leading = asyncio.create_task(stays.lead())
        await member.steps.get()
        stays.reload(lambda: settings(tmp_path, urls="ws://127.0.0.1:2/"))
        assert await member.steps.get() == "says goodbye"
        leading.cancel()
        await asyncio.wait([leading])
        assert leading.cancelled()
        assert member.urls == ["ws://127.0.0.1:1/"]

    async def test_settings_that_take_no_connection(
        self, stays: Any, member: Staying, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        def mistake() -> MemberSettings:
            raise ConfigError("client.toml:1: it is wrong")

        leading = asyncio.create_task(stays.lead())
        await member.steps.get()
        with caplog.at_level("INFO"):
            for reread in (mistake, lambda: settings(tmp_path), lambda: settings(tmp_path, mtu=1300)):
                stays.reload(reread)
        assert caplog.messages == [
            "not read again, nothing changes: client.toml:1: it is wrong",
            "the settings are read again",
            "the settings are read again",
            "changed, which needs a restart: mtu",
        ]
        leading.cancel()
        # Only now.
        assert await member.steps.get() == "says goodbye"
        member.is_answered.set()
        await asyncio.wait([leading])

    async def test_an_error_of_the_member(self, stays: Any, member: Staying, monkeypatch: pytest.MonkeyPatch) -> None:
        async def fail() -> None:
            raise TimeoutError("its own")

        monkeypatch.setattr(member, "stay", fail)
        with pytest.raises(TimeoutError, match="its own"):
            await stays.lead()


RUN = """
import logging, pathlib, signal, sys
from candy.checked import checked
from candy.member import lifecycle
from candy.member.settings import MemberSettings
logging.basicConfig(level=logging.INFO, format="%(message)s")
signal.signal(signal.SIGHUP, signal.SIG_DFL)
sys.exit(lifecycle.run(checked(MemberSettings, {
    "password": b"secret", "state_dir": pathlib.Path(sys.argv[1]), "urls": "ws://127.0.0.1:1/",
    "name": "test", "tun": "10.9.8.7/24", "mtu": 1300,
})))
"""


@pytest.mark.netns
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_program_ends_with_a_signal_and_takes_its_interface_along(
    tmp_path: Path, stack: ExitStack, number: int
) -> None:
    host = Namespace("host")
    stack.callback(host.close)
    with host:
        program = Program("client", [sys.executable, "-c", RUN, str(tmp_path)], environment(tmp_path))
    with program:
        refused = program.wait_for(r"connection refused: .*; trying again in 1\.\d s$")
        made = "interface candy-test is made; connecting to ws://127.0.0.1:1/"
        assert program.lines[:2] == [made, refused.string]
        assert "inet 10.9.8.7/24 " in host.run("ip", "-o", "address", "show", "dev", "candy-test")
        program.signal(number)
        assert program.wait() == 0
        assert program.lines[-1] == "ending"
    assert "candy-test" not in host.run("ip", "link")
    assert re.fullmatch(r"[0-9a-f]{16}", (tmp_path / "vmac" / "test").read_text())


@pytest.mark.netns
@pytest.mark.parametrize("how", ["stalled", "full", "gone", "closed"])
def test_a_log_that_nobody_takes(tmp_path: Path, stack: ExitStack, how: str) -> None:
    """The member goes on as ever, and ends when it is told to."""
    host = Namespace("host")
    stack.callback(host.close)
    stalled = stack.enter_context(Unread(tmp_path / "stalled"))
    with host:
        relay = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        relay.settimeout(PATIENCE_S)
        argv = client("-w", f"ws://127.0.0.1:{relay.getsockname()[1]}", "-t", "10.9.8.7/24", "--debug")
        argv = stderr_to(stalled.path, argv) if how == "stalled" else stderr_refused(how, tmp_path, argv)
        program = Program("client", argv, environment(tmp_path))
    with program:
        # Lines about each of these attempts are behind it.
        for _ in range(3):
            relay.accept()[0].close()
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    assert "candy" not in host.run("ip", "link")
