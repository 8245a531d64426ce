"""This machine's interfaces in a relay's networks: what becomes of their keys, and of events about them."""

import asyncio
from contextlib import ExitStack
from ipaddress import IPv4Interface
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from kit.keyed import Keyed
from kit.primitives import pair
from kit.sealing_engine import TUN, Recorded

from candy._fastpath import EVENT_LOST, EVENT_WANTED, Engine
from candy.errors import OperationalError, UnwritableError
from candy.host import watch as module
from candy.protocol.noise import KeyPair
from candy.relay.interfaces import Interfaces
from candy.relay.served import Served
from candy.relay.session import Action
from candy.sealing.seals import Seal

HOST = IPv4Interface("192.168.202.250/24")


class Keys:
    """In place of a network's keyring."""

    def __init__(self, folder: Path) -> None:
        self.times = folder / "handshake"
        self.error: OperationalError | None = None

    def own_device(self) -> KeyPair:
        if self.error is not None:
            raise self.error
        return pair(bytes([0x33]) * 32)


class Relay:
    """A network with an interface, and what is done with it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine = Recorded()
        self.acted: list[Action] = []
        self.keys = Keys(folder)
        self.steps: list[str] = []
        network = Keyed().network
        interface = SimpleNamespace(connection=TUN, name="candy-server", configure=self._configure)
        self.served: Any = SimpleNamespace(
            settings=SimpleNamespace(tun=HOST, seals=Seal.PREFER),
            network=network,
            interface=interface,
            keyring=self.keys,
            sealing=None,
            label="",
            make_interface=lambda stack: network.host(TUN, HOST.ip),
            follow=self._follow,
        )

        async def watched(interface: object, notifications: object) -> None:
            self.steps.append("watched")

        monkeypatch.setattr(module, "watch", watched)
        engine = cast(Engine, self.engine)
        self.interfaces = Interfaces(engine, folder, lambda served, actions: self.acted.extend(actions), lambda: None)

    async def _configure(self, address: IPv4Interface) -> None:
        self.steps.append(f"configured {address}")

    async def _follow(self) -> None:
        self.steps.append("follows")

    async def make(self) -> None:
        with ExitStack() as stack:
            self.interfaces.open(stack)
            await self.interfaces.make(cast(Served, self.served))
            await asyncio.sleep(0)


@pytest.fixture
async def relay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Relay:
    return Relay(tmp_path, monkeypatch)


async def test_it_seals_before_it_is_up(relay: Relay) -> None:
    await relay.make()
    assert [name for name, _ in relay.engine.done] == ["set_sealing", "seal_groups"]
    assert relay.steps == [f"configured {HOST}", "follows", "watched"]
    assert relay.interfaces.delay == float("inf")
    assert relay.interfaces.on_event(TUN, EVENT_WANTED, bytes([192, 168, 202, 1]))
    assert relay.interfaces.delay < float("inf")
    relay.interfaces.go_on()
    assert not relay.interfaces.on_event(TUN + 1, EVENT_WANTED, bytes(4))
    relay.interfaces.stop()
    assert relay.engine.done[-1][0] == "forget_peer"


async def test_a_network_without_one(relay: Relay) -> None:
    relay.served.settings.tun = None
    await relay.make()
    assert (relay.acted, relay.steps) == ([], [])


async def test_without_keys_it_does_not_seal(relay: Relay) -> None:
    relay.served.keyring = None
    await relay.make()
    assert relay.engine.done == []
    assert relay.interfaces.on_event(TUN, EVENT_WANTED, bytes(4))


async def test_a_key_that_can_t_be_written_costs_its_sealing(relay: Relay, caplog: pytest.LogCaptureFixture) -> None:
    relay.keys.error = UnwritableError("cannot write device.key: Read-only file system")
    await relay.make()
    assert caplog.messages[0] == (
        "interface candy-server does not seal: cannot write device.key: Read-only file system"
    )
    assert (relay.engine.done, relay.steps[0]) == ([], f"configured {HOST}")


async def test_a_key_that_is_damaged_ends_the_start(relay: Relay) -> None:
    relay.keys.error = OperationalError("device.key is damaged")
    with pytest.raises(OperationalError, match="is damaged"):
        await relay.make()
    assert relay.steps == []


async def test_one_that_was_removed_is_said(relay: Relay, caplog: pytest.LogCaptureFixture) -> None:
    await relay.make()
    assert relay.interfaces.on_event(TUN, EVENT_LOST, b"")
    assert caplog.messages == ["interface candy-server was removed from outside: restart to have it back"]
