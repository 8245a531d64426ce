"""Where packets go for members that other relays have: what was learned early counts as what comes late. No NATS."""

import asyncio
import zlib
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, cast

import pytest
from kit.login import DEVICE
from kit.sharing import Site, _Host

from candy.checked import checked
from candy.relay.cluster.asking import Answer
from candy.relay.cluster.cluster import Cluster
from candy.relay.cluster.directory import Directory, Place
from candy.relay.cluster.mesh import Mesh
from candy.relay.cluster.records import word
from candy.relay.clustersettings import ClusterSettings

IP = int(IPv4Address("192.168.202.7"))


class Routes:
    """A mesh, as far as it is told where addresses are."""

    def __init__(self) -> None:
        self.served: dict[str, int] = {}
        self.routes: dict[tuple[str, int], str | None] = {}

    def serve(self, word: str, number: int) -> None:
        self.served[word] = number

    def leave(self, word: str) -> None:
        del self.served[word]

    def is_linked(self, name: str) -> bool:
        return False

    def route(self, word: str, ip: int, name: str | None) -> None:
        self.routes[word, ip] = name


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 48)
    given = {"nats": ["nats://127.0.0.1"], "name": "eu", "url": "ws://eu:80", "secret_file": secret}
    site = Site(path="/home")
    made = Cluster(checked(ClusterSettings, given), _Host(site), {site.path: site.network})
    made.mesh = cast(Mesh, Routes())
    return made


def said_by_us(*paths: str) -> bytes:
    """A member is there."""
    us = Directory("us", 1, lambda: 0.0)
    for path in paths:
        us.set((word(path), IP), Place(5, identity=DEVICE.public))
    update = us.flush()
    assert update is not None
    return update


async def test_what_was_learned_before_a_network_was_shared(cluster: Cluster) -> None:
    cluster._on_where("candy.from.us.where", said_by_us("/home", "/other"))
    cluster._share("/home", cluster._networks["/home"])
    assert cast(Routes, cluster.mesh).routes == {(word("/home"), IP): "us"}


@pytest.mark.parametrize("lines", [b"", b"[7]\n", b"[7, Infinity]\n", b"[7, 3]\n[[1]]\n", b"7\n"])
async def test_what_devices_carried_said_badly(cluster: Cluster, lines: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for again, and the other relays all the same."""
    asked: list[tuple[str, Any]] = []
    rows = b'[9, 4]\n[["=2Fhome", 1, "00", 3, 5]]\n'

    async def ask(relay: str, call: str, given: Any) -> Answer:
        asked.append((relay, given))
        return Answer(zlib.compress(lines if relay == "us" else rows))

    monkeypatch.setattr(cluster.asking, "ask", ask)
    cluster._share("/home", cluster._networks["/home"])
    for _ in range(2):
        await cluster.answering.exchange(["us", "ap"])
    none, had = {"epoch": 0, "after": 0}, {"epoch": 9, "after": 4}
    assert asked == [("us", none), ("ap", none), ("us", none), ("ap", had)]
    assert cluster.quotas.elsewhere("=2Fhome", 1, b"\0", 3) == 5
    # What was said of a network that is served later is asked for again.
    cluster.answering.shared("=2Flater")
    await cluster.answering.exchange(["ap"])
    assert asked[-1] == ("ap", none)


async def test_a_network_that_was_left_leads_nowhere(cluster: Cluster) -> None:
    routes = cast(Routes, cluster.mesh)
    shared = cluster._share("/home", cluster._networks["/home"])
    routes.serve(shared.word, 0)
    # A member has just left with it.
    shared.placed(IP)
    cluster.leave("/home")
    await asyncio.sleep(0)
    assert (routes.served, routes.routes) == ({}, {})
    cluster._on_where("candy.from.us.where", said_by_us("/home"))
    assert routes.routes == {}
    await cluster.stop()
