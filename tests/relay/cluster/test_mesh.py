"""A relay's links to others: who dials whom, where an address leads, and what becomes of a link that is none."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kit.peer import Peer, numbered

from candy import _fastpath
from candy.carrier.secure import Secure
from candy.checked import checked
from candy.errors import OperationalError
from candy.protocol.actions import Log
from candy.relay.cluster import mesh as meshes
from candy.relay.cluster.mesh import LINKS, Mesh
from candy.relay.clustersettings import ClusterSettings

PSK = bytes(range(32))
A, B = 0x0A090001, 0x0A090002
PATIENCE_S = 20.0
TRUNKS_MOST = 8
"""To one relay, as the engine has room for them."""


class Relay:
    """A mesh and its engine, as far as both are used here."""

    def __init__(self, name: str, folder: Path, words: list[str], psk: bytes = PSK) -> None:
        secret = folder / "secret"
        secret.write_bytes(bytes(32))
        given = {"nats": ["nats://127.0.0.1"], "name": name, "url": f"ws://{name}:80", "secret_file": secret}
        self.name = name
        self.settings = checked(ClusterSettings, given)
        self.engine = _fastpath.Engine(1, ping_after=0, dead_after=0)
        self.numbers = {word: self.engine.add_network() for word in words}
        self.linked: list[tuple[str, bool]] = []
        self.admitted: list[int] = []
        self.peers: list[Peer] = []
        self.lines: list[Log] = []
        self.mesh = Mesh(
            self.settings,
            self.engine,
            self.numbers,
            psk,
            lambda name, is_up: self._note(self.linked, (name, is_up)),
            self.admitted.append,
            self.lines.append,
        )
        self.changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(self.engine.fileno(), self._on_events)

    def _note(self, where: list[tuple[str, bool]], what: tuple[str, bool]) -> None:
        where.append(what)
        self.changed.set()

    def _on_events(self) -> None:
        for event in self.engine.events():
            self.mesh.on_event(*event)
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def member(self, word: str, address: int) -> Peer:
        ours, theirs = socket.socketpair()
        peer = Peer(ours)
        peer.connection = self.engine.adopt(theirs.detach(), network=self.numbers[word], extended=1)
        self.peers.append(peer)
        assert self.engine.bind(peer.connection, address)
        return peer

    def record(self) -> tuple[str, str, str, int]:
        return self.name, self.settings.url, self.mesh.key, 1

    async def stop(self) -> None:
        await self.mesh.stop()
        asyncio.get_running_loop().remove_reader(self.engine.fileno())
        self.engine.stop()
        for peer in self.peers:
            peer.close()


class Narrow:
    """An engine that has room for every second message only."""

    def __init__(self, engine: _fastpath.Engine) -> None:
        self._engine = engine
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def send(self, connection: int, message: bytes) -> bool:
        self.asked += 1
        return self.asked % 2 == 0 and self._engine.send(connection, message)


class World:
    """Relays by name, and a network between them."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.patch = patch
        self.relays: dict[str, Relay] = {}
        self.dialed: list[str] = []
        self.is_cut = False

    def relay(self, name: str, words: list[str], psk: bytes = PSK) -> Relay:
        made = self.relays[name] = Relay(name, self.folder, words, psk)
        return made

    async def dial(self, url: str, engine: _fastpath.Engine, secure: Secure, tls: object) -> int:
        name = url.removeprefix("ws://").removesuffix(":80")
        self.dialed.append(name)
        if self.is_cut:
            raise OperationalError(f"{url}: cut off")
        ours, theirs = socket.socketpair()
        other = self.relays[name]
        other.mesh.opened(other.engine.adopt(theirs.detach(), trunk=True), "203.0.113.5")
        return engine.adopt(ours.detach(), trunk=True)


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    made = World(tmp_path, monkeypatch)
    monkeypatch.setattr(meshes, "dial", made.dial)
    monkeypatch.setattr(meshes, "PAUSE_S", 0.001)
    yield made
    for relay in made.relays.values():
        await relay.stop()


def introduce(*relays: Relay) -> None:
    for relay in relays:
        for other in relays:
            relay.mesh.know(*other.record())


async def test_how_long_a_ping_takes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meshes, "PING_S", PATIENCE_S)
    eu, us = world.relay("eu", ["home"]), world.relay("us", ["home"])
    assert await us.mesh.round_trips() == {}
    introduce(eu, us)
    await us.until(lambda: us.mesh.links() == {"eu": LINKS})
    await eu.until(lambda: eu.mesh.links() == {"us": LINKS})
    for own, other in ((eu, "us"), (us, "eu")):
        one, both = await asyncio.gather(own.mesh.round_trips(), own.mesh.round_trips())
        assert one.keys() == both.keys() == {other}
        assert all(0 < seconds < PATIENCE_S for seconds in (one[other], both[other]))


async def test_the_higher_name_dials_and_packets_go(world: World) -> None:
    eu, us = world.relay("eu", ["home", "lab"]), world.relay("us", ["work", "home"])
    introduce(eu, us)
    await us.until(lambda: us.mesh.links() == {"eu": LINKS})
    await eu.until(lambda: eu.mesh.links() == {"us": LINKS})
    assert world.dialed == ["eu"] * LINKS
    assert eu.linked == [("us", True)] == [("us", up) for _, up in us.linked]
    assert (eu.mesh.is_linked("us"), eu.mesh.is_linked("ap")) == (True, False)
    assert len(set(eu.admitted)) == LINKS
    a, b = eu.member("home", A), us.member("home", B)
    eu.mesh.route("home", B, "us")
    us.mesh.route("home", A, "eu")
    a.forward(numbered(A, B, 1))
    assert b.receive().payload == numbered(A, B, 1)
    eu.mesh.route("home", B, None)
    eu.mesh.route("home", B, None)
    a.forward(numbered(A, B, 2))
    a.sync()
    assert eu.engine.drops()["no_route"] == 1
    # In a network that only one of them has.
    c = eu.member("lab", A)
    eu.mesh.route("lab", B, "us")
    c.forward(numbered(A, B, 3))
    c.sync()
    assert eu.engine.drops()["no_relay_link"] == 1


async def test_an_address_goes_from_relay_to_relay(world: World) -> None:
    eu = world.relay("eu", ["home"])
    a = eu.member("home", A)
    eu.mesh.route("home", B, "us")
    eu.mesh.route("home", B, "ap")
    a.forward(numbered(A, B, 1))
    a.sync()
    eu.mesh.route("home", B, None)
    a.forward(numbered(A, B, 2))
    a.sync()
    drops = eu.engine.drops()
    assert (drops["no_relay_link"], drops["no_route"]) == (1, 1)


async def test_a_link_that_ends_is_dialed_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    eu, us = world.relay("eu", ["home"]), world.relay("us", ["home"])
    introduce(eu, us)
    await us.until(lambda: us.mesh.links() == {"eu": LINKS})
    await eu.until(lambda: eu.mesh.links() == {"us": LINKS})
    world.is_cut = True
    for connection in list(us.admitted):
        us.engine.close(connection)
    await us.until(lambda: us.mesh.links() == {"eu": 0})
    await eu.until(lambda: eu.mesh.links() == {"us": 0})
    assert us.linked == [("eu", True), ("eu", False)]
    while len(world.dialed) < LINKS + 3:
        await asyncio.sleep(0)
    world.is_cut = False
    await us.until(lambda: us.mesh.links() == {"eu": LINKS})
    assert us.linked[-1] == ("eu", True)
    lines = [record.message for record in caplog.records]
    assert sum("no link with the relay eu any more" in line for line in lines) == 1
    # Once, however often it fails.
    assert sum("no link to the relay eu: ws://eu:80: cut off" in line for line in lines) == 1


async def test_a_relay_that_was_started_again(world: World) -> None:
    eu, us = world.relay("eu", ["home"]), world.relay("us", ["home"])
    introduce(eu, us)
    await us.until(lambda: us.mesh.links() == {"eu": LINKS})
    await eu.stop()
    again = world.relay("eu", ["home"])
    again.mesh.know(*us.record())
    name, url, key, _ = again.record()
    us.mesh.know(name, url, key, 2)
    await again.until(lambda: again.mesh.links() == {"us": LINKS})
    await us.until(lambda: us.mesh.links() == {"eu": LINKS})
    # What its record was before is old, whenever it comes.
    us.mesh.know(*eu.record())
    assert us.mesh.links() == {"eu": LINKS}


@pytest.mark.parametrize("fault", ["another secret", "an old record"])
async def test_who_is_no_relay_of_the_cluster(world: World, fault: str, caplog: pytest.LogCaptureFixture) -> None:
    eu = world.relay("eu", ["home"])
    us = world.relay("us", ["home"], bytes(32) if fault == "another secret" else PSK)
    if fault == "another secret":
        eu.mesh.know(*us.record())
    else:
        eu.mesh.know("us", us.settings.url, "00" * 32, 1)
    us.mesh.know(*eu.record())
    while len(world.dialed) < LINKS + 3:
        await asyncio.sleep(0)
    assert us.mesh.links() == {"eu": 0}
    # Where they are dialed, by a source of which there is one line a minute.
    assert eu.lines
    why = "secret_file" if fault == "another secret" else "record"
    for line in eu.lines:
        assert line.text.startswith("cluster: a link with 203.0.113.5 is refused: ")
        assert why in line.text
        assert (line.level, line.kind, line.source) == ("warning", "link refused", "203.0.113.5")
    assert "is refused" not in caplog.text


async def test_a_log_in_has_a_deadline(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meshes, "LOGIN_S", 0.01)
    eu = world.relay("eu", ["home"])
    ours, theirs = socket.socketpair()
    connection = eu.engine.adopt(theirs.detach(), trunk=True)
    eu.mesh.opened(connection, "203.0.113.5")
    with ours:
        await eu.until(lambda: connection in eu.admitted)
        assert ours.recv(100) == b""


async def test_a_record_without_a_key_is_an_older_relays(world: World) -> None:
    us = world.relay("us", ["home"])
    us.mesh.know("eu", "ws://eu:80", "", 1)
    us.mesh.know(*us.record())
    assert us.mesh.links() == {}


async def linked_by(world: World, *words: str) -> tuple[Relay, Relay]:
    """Two relays with all their links."""
    eu, us = world.relay("eu", list(words)), world.relay("us", list(words))
    introduce(eu, us)
    await us.until(lambda: us.mesh.links() == {"eu": LINKS})
    await eu.until(lambda: eu.mesh.links() == {"us": LINKS})
    return eu, us


def has_new_links(relay: Relay, other: str, admitted: int) -> bool:
    return relay.mesh.links() == {other: LINKS} and len(set(relay.admitted)) >= admitted


async def test_a_network_that_goes_and_one_that_comes(world: World) -> None:
    eu, us = await linked_by(world, "home", "lab")
    old = eu.numbers["lab"]
    eu.mesh.route("lab", B, "us")
    eu.engine.remove_network(old)
    eu.mesh.leave("lab")
    # What is still learned of it leads nowhere.
    eu.mesh.route("lab", B, "us")
    eu.mesh.route("lab", B, None)
    await eu.until(lambda: len(set(eu.admitted)) == 2 * LINKS and eu.mesh.links() == {"us": LINKS})
    await us.until(lambda: us.mesh.links() == {"eu": LINKS})
    # The number is another's now: nothing goes by what was agreed on before.
    eu.numbers["work"], us.numbers["work"] = eu.engine.add_network(), us.engine.add_network()
    assert eu.numbers["work"] == old
    for relay, other in ((eu, "us"), (us, "eu")):
        most = len(set(relay.admitted)) + LINKS
        relay.mesh.serve("work", relay.numbers["work"])
        relay.mesh.serve("work", relay.numbers["work"])
        await relay.until(partial(has_new_links, relay, other, most))
    a, b = eu.member("work", A), us.member("work", B)
    eu.mesh.route("work", B, "us")
    us.mesh.route("work", A, "eu")
    b.forward(numbered(B, A, 1))
    assert a.receive().payload == numbered(B, A, 1)


async def test_many_networks(world: World) -> None:
    """Their words are more than the engine takes of a stranger at once, or keeps for one."""
    words = [f"=2Fnetwork-{number:03}" for number in range(300)]
    eu, us = await linked_by(world, *words)
    a, b = eu.member(words[-1], A), us.member(words[-1], B)
    eu.mesh.route(words[-1], B, "us")
    us.mesh.route(words[-1], A, "eu")
    a.forward(numbered(A, B, 1))
    assert b.receive().payload == numbered(A, B, 1)


async def test_messages_of_a_log_in_wait_for_room(world: World) -> None:
    words = [f"=2Fnetwork-{number:03}" for number in range(100)]
    for name in ("eu", "us"):
        relay = world.relay(name, words)
        world.patch.setattr(relay.mesh, "_engine", Narrow(relay.engine))
    introduce(*world.relays.values())
    for name, other in (("eu", "us"), ("us", "eu")):
        relay = world.relays[name]
        await relay.until(lambda relay=relay, other=other: relay.mesh.links() == {other: LINKS})  # type: ignore[misc]
    assert world.dialed == ["eu"] * LINKS


async def test_a_network_that_goes_during_a_log_in(world: World, caplog: pytest.LogCaptureFixture) -> None:
    eu, us = world.relay("eu", ["home"]), world.relay("us", ["home"])
    agree = Mesh._agree

    def gone(mesh: Mesh, *given: Any) -> None:
        if mesh is eu.mesh and "home" in mesh._networks:
            # Its end is told after what came before.
            mesh.leave("home")
        agree(mesh, *given)

    world.patch.setattr(Mesh, "_agree", gone)
    introduce(eu, us)
    await us.until(lambda: us.mesh.links() == {"eu": LINKS})
    assert any("a link with us is refused: the networks of this relay have changed" in each.text for each in eu.lines)


async def test_a_relay_with_another_key_has_no_link_of_the_one_before(world: World) -> None:
    """Also where it is the one that dials."""
    eu, us = await linked_by(world, "home")
    world.is_cut = True
    name, url, _, epoch = us.record()
    eu.mesh.know(name, url, "11" * 32, epoch + 1)
    await eu.until(lambda: eu.mesh.links() == {"us": 0})
    await us.until(lambda: us.mesh.links() == {"eu": 0})


async def test_the_newest_link_takes_the_oldests_place(world: World) -> None:
    """Links that end without a word are not known to have ended."""
    eu, us = world.relay("eu", ["home"]), world.relay("us", ["home"])
    eu.mesh.know(*us.record())
    other = us.mesh._other("eu")
    assert other is not None
    other.url, other.key = eu.settings.url, bytes.fromhex(eu.mesh.key)
    links = []
    for number in range(TRUNKS_MOST):
        links.append(await us.mesh._dial("eu", other))
        await eu.until(lambda number=number: eu.mesh.links() == {"us": number + 1})  # type: ignore[misc]
    await us.until(lambda: all(link.is_open for link in links))
    newest = [await us.mesh._dial("eu", other) for _ in range(2)]
    await us.until(lambda: all(link.is_open for link in newest))
    await eu.until(lambda: len(set(eu.admitted)) == TRUNKS_MOST + 2 and eu.mesh.links() == {"us": TRUNKS_MOST})
    assert [link.ended.done() for link in links] == [True] * 2 + [False] * (TRUNKS_MOST - 2)
    assert us.mesh.links() == {"eu": TRUNKS_MOST}


async def test_more_relays_than_there_is_room_for(world: World) -> None:
    eu = world.relay("eu", ["home"])
    a = eu.member("home", A)
    for number in range(300):
        eu.mesh.route("home", B + number, f"relay{number}")
    assert len(eu.mesh.links()) == meshes.RELAYS_MOST
    assert len(eu.lines) == 45
    # Of all of them together one a minute is written.
    assert {(line.kind, line.source) for line in eu.lines} == {("no place for a relay", "")}
    assert eu.lines[0].text == "cluster: no link to the relay relay255: there are 255 others"
    # What led to one of them before leads nowhere.
    eu.mesh.route("home", B, "relay255")
    a.forward(numbered(A, B, 1))
    a.sync()
    assert eu.engine.drops()["no_route"] == 1
    # Its place is another's, once no address leads there.
    eu.mesh.route("home", B, "relay256")
    assert "relay256" in eu.mesh.links()
    assert "relay0" not in eu.mesh.links()
    a.forward(numbered(A, B, 2))
    a.sync()
    assert eu.engine.drops()["no_relay_link"] == 1


async def test_relays_that_come_and_go_under_new_names(world: World) -> None:
    """Records stay for ever; who has ended has no place, and is not dialed."""
    eu, us = world.relay("eu", ["home"]), world.relay("us", ["home"])
    introduce(eu, us)
    for number in range(600):
        us.mesh.know(f"dc{number}", "ws://eu:80", "11" * 32, 1)
        us.mesh.know(f"dc{number}", "ws://eu:80", "", 1)
    assert us.lines == []
    await us.until(lambda: us.mesh.links().get("eu") == LINKS)
    await eu.until(lambda: eu.mesh.links() == {"us": LINKS})
    assert us.mesh.links()["eu"] == LINKS
    # One that runs again is dialed again.
    us.mesh.know("eu", "ws://eu:80", "", 1)
    await us.until(lambda: us.mesh.links()["eu"] == 0)
    us.mesh.know(*eu.record())
    await us.until(lambda: us.mesh.links()["eu"] == LINKS)


async def test_strangers_are_bounded_and_the_oldest_pays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meshes, "STRANGERS_MOST", 2)
    eu, us = world.relay("eu", ["home"]), world.relay("us", ["home"])
    introduce(eu, us)
    await eu.until(lambda: eu.mesh.links() == {"us": LINKS})
    ends = []
    for _ in range(3):
        ours, theirs = socket.socketpair()
        connection = eu.engine.adopt(theirs.detach(), trunk=True)
        eu.mesh.opened(connection, "203.0.113.5")
        ends.append((ours, connection))
    await eu.until(lambda: ends[0][1] in eu.admitted)
    for ours, connection in ends:
        with ours:
            ours.setblocking(False)
            assert (connection in eu.admitted) == (connection == ends[0][1])
    # Who has logged in is none of them.
    assert eu.mesh.links() == {"us": LINKS}


async def test_a_stranger_costs_no_keys(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the members' door: before it has proven who it is, none is drawn for it."""
    eu = world.relay("eu", ["home"])
    drawn: list[None] = []
    monkeypatch.setattr(meshes, "key_pair", lambda secret: drawn.append(None))
    ours, theirs = socket.socketpair()
    connection = eu.engine.adopt(theirs.detach(), trunk=True)
    eu.mesh.opened(connection, "2001:db8::5")
    with ours:
        Peer(ours, masking=False, trunk=True).forward(b"\x16\x01" + bytes(98))
        await eu.until(lambda: connection in eu.admitted)
    assert drawn == []
    [line] = eu.lines
    # A host has a whole /64.
    assert (line.source, line.about) == ("2001:db8::/64", {"source": "2001:db8::5"})
