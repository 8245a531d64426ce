"""The relay's adapter between the engine's events and its networks."""

import asyncio
import socket
from pathlib import Path
from typing import cast

import pytest
import trustme
from lab.member import Member, everything, upgrade_request
from lab.programs import RelayProgram, connect

from candy._fastpath import EVENT_CLOSED, EVENT_MESSAGE, Engine
from candy.relay.network import Network
from candy.relay.relay import Relay
from candy.relay.settings import relay_settings

pytestmark = pytest.mark.carriers


class Told:
    """An engine that has these events to tell."""

    def __init__(self, *events: tuple[int, int, bytes]) -> None:
        self.told = list(events)
        self.readable, self.writing = socket.socketpair()

    def fileno(self) -> int:
        return self.readable.fileno()

    def add_network(self, *_: object, **__: object) -> int:
        return 0

    def set_rules(self, *_: object) -> None:
        pass

    def set_network_limits(self, *_: object, **__: object) -> None:
        pass

    def close(self, *_: object) -> bool:
        return True

    def connection_stats(self, *_: object) -> None:
        pass

    def members(self) -> bytes:
        return b""

    def events(self) -> list[tuple[int, int, bytes]]:
        self.readable.recv(1)
        told, self.told = self.told, []
        return told


async def test_a_fault_in_one_event_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """An end that is not seen would leave an address taken for ever."""
    engine = Told((1, EVENT_MESSAGE, b"\7"), (2, EVENT_CLOSED, b"eof"))
    relay = Relay(relay_settings({}, password=b"secret"), cast(Engine, engine))
    faults: list[object] = []
    ended = asyncio.Event()

    def fail(*_: object) -> list[object]:
        raise ZeroDivisionError

    def end(*_: object) -> list[object]:
        ended.set()
        return []

    monkeypatch.setattr(Network, "received", fail)
    monkeypatch.setattr(Network, "closed", end)
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["exception"]))
    served = relay._find("/")
    assert served is not None
    relay._connections |= {1: served, 2: served}
    with engine.readable, engine.writing:
        engine.writing.send(b"x")
        await ended.wait()
        relay.stop()
    assert [type(fault) for fault in faults] == [ZeroDivisionError]


def test_a_relay_without_a_free_connection_ends_http_too(tmp_path: Path, certified: trustme.CA | None) -> None:
    """The parser of a request that was refused then is gone: a further request would be swallowed."""
    with RelayProgram(tmp_path, "--max-connections", "1", authority=certified) as relay, Member.connect(relay.address):
        with connect(relay.address) as late:
            late.sendall(upgrade_request())
            answer = everything(late)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"connection: close" in head.lower()
        assert body == b"The relay is full; try again later.\n"
