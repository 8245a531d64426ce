"""Four workers, and members that come, go, re-use addresses and send all the while, from several threads.

What has to hold, whatever the threads' order:
 1. A packet only ever reaches a connection that owned its destination address at some time.
 2. Within one flow, from one sender connection to one receiver connection, numbers rise.
 3. In the end every packet that came in went out or was dropped under a name.
 4. What is captured are whole packets that its member has sent, or that were for it.

All is bounded in count. CANDY_STRESS (a factor, default 0.5) makes it longer or shorter: scripts/sanitize.sh sets it.
"""

import os
import random
import socket
import ssl
import struct
import threading
from collections import deque

import pytest
from kit.pcapng import read
from kit.peer import BINARY, CLOSE, FORWARD, PATIENCE, PONG, SEALED, EngineRelay, Frame, Peer, numbered, packet, sealed

from candy._fastpath import CANDY3, CAPTURE_MOST, kept_networks

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("carrier")]

FACTOR = float(os.environ.get("CANDY_STRESS", "0.5"))
SEEDS = range(max(1, round(FACTOR)))
SHARE = min(1.0, FACTOR)
"""Of the rounds, where less than one whole run is asked for."""
LABEL = struct.Struct(">II")
"""In a packet's body: the number of its sender's connection in this test, and a number that rises."""


class Station:
    """One connection with what the test has to remember of it. A traffic thread owns the peer; only the main thread
    binds and closes."""

    def __init__(self, peer: Peer, label: int, *, lazy: bool) -> None:
        self.peer = peer
        self.label = label
        self.lazy = lazy
        self.owned: set[int] = set()
        self.address = 0
        self.sent = 0
        self.last: dict[tuple[bytes, int, int, int, int], int] = {}
        self.over = False
        self.received = 0
        peer.sock.settimeout(None)

    def check(self, frame: Frame) -> None:
        if frame.opcode in (PONG, CLOSE):
            return
        assert (frame.opcode, frame.payload[:1]) in ((BINARY, FORWARD), (BINARY, SEALED))
        if frame.payload[:1] == SEALED:
            assert self.peer.candy3, "sealed, for who takes no such"
            port, source, destination = struct.unpack_from(">HII", frame.payload, 2)
            label, number = LABEL.unpack_from(frame.payload, 24)
        else:
            source, destination, port = struct.unpack_from(">IIH", frame.payload, 13)
            label, number = LABEL.unpack_from(frame.payload, 29)
        assert destination in self.owned, f"a packet for {destination:#x} reached an owner of {self.owned}"
        flow = frame.payload[:1], label, source, destination, port
        assert number > self.last.get(flow, -1), "a flow out of order"
        self.last[flow] = number
        self.received += 1

    def read(self) -> None:
        """Take what is there, at most a turn's worth."""
        try:
            data = self.peer.sock.recv(200 if self.lazy else 65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.over = True
            return
        self.peer.buffer += data
        self.peer.take()
        while self.peer.unread:
            self.check(self.peer.unread.popleft())

    def settle(self) -> None:
        """Wait until the engine has taken in what was sent, or has ended the connection."""
        self.lazy = False
        self.peer.sock.settimeout(PATIENCE)
        try:
            for frame in self.peer.sync():
                self.check(frame)
        except (EOFError, ConnectionError, ssl.SSLError):
            self.over = True
        # With a time limit even a read that must not wait would wait.
        self.peer.sock.settimeout(None)

    def write(self, chance: random.Random, destinations: list[int]) -> None:
        """One burst: a run to one destination, or several taking turns."""
        frames = []
        targets = chance.sample(destinations, chance.choice((1, 1, 1, 3)))
        for _ in range(chance.choice((1, 4, 30))):
            for destination in targets:
                flow = chance.randrange(3)
                body = LABEL.pack(self.label, self.sent) + bytes(chance.choice((0, 60, 1300)))
                self.sent += 1
                if self.peer.candy3 and chance.random() < 0.5:
                    payload = sealed(self.address, destination, body + bytes(16), label=flow)
                else:
                    payload = FORWARD + packet(self.address, destination, body, flow=flow)
                frames.append(self.peer.frame(BINARY, payload))
        try:
            self.peer.sock.sendall(b"".join(frames))
        except OSError:
            self.over = True


class Traffic(threading.Thread):
    """Sends and reads for its stations until it is told to stop, then reads what is left."""

    def __init__(self, seed: int, destinations: list[int]) -> None:
        super().__init__(daemon=True)
        self.chance = random.Random(seed)
        self.destinations = destinations
        self.stations: deque[Station] = deque()
        self.arrivals: deque[Station] = deque()
        self.received = 0
        self.turned = threading.Event()
        self.stopping = False
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.stopping:
                while self.arrivals:
                    self.stations.append(self.arrivals.popleft())
                for station in list(self.stations):
                    if station.address and not station.over:
                        station.write(self.chance, self.destinations)
                    for _ in range(self.chance.choice((0, 1, 4))):
                        if not station.over:
                            station.read()
                    if station.over:
                        self.leave(station)
                self.turned.set()
        except AssertionError as error:
            self.error = error
        finally:
            self.turned.set()

    def leave(self, station: Station) -> None:
        self.stations.remove(station)
        self.received += station.received
        station.peer.close()


class Watch:
    """Captures of stations, one after another, with rings so small that they are full all the time."""

    def __init__(self, relay: EngineRelay, seed: int) -> None:
        self.engine = relay.engine
        self.chance = random.Random(seed)
        self.found: dict[int, tuple[Station, bytearray]] = {}
        self.packets = self.lost = 0

    def look(self, live: list[Station]) -> None:
        """Read of all, end one now and then, and begin with others."""
        for number, (_, found) in list(self.found.items()):
            found += self.engine.read_capture(number)
            if self.engine.capture_stats(number)[2] or self.chance.random() < 0.1:
                self.end(number)
        station = self.chance.choice(live)
        if len(self.found) < CAPTURE_MOST and all(station is not watched for watched, _ in self.found.values()):
            options = {"ring_bytes": self.chance.choice((4096, 65_537)), "snap": self.chance.choice((64, 65_535))}
            begun = self.engine.capture(station.peer.connection, drops_only=self.chance.random() < 0.2, **options)
            if begun is not None:
                self.found[begun] = station, bytearray()

    def end(self, number: int) -> None:
        station, found = self.found.pop(number)
        packets, lost, _ = self.engine.capture_stats(number)
        found += self.engine.read_capture(number)
        self.engine.end_capture(number)
        blocks = read(bytes(found[: whole(found)]))
        assert len(blocks) >= packets, "what was counted can be read"
        for block in blocks:
            source, destination = struct.unpack_from(">II", block.data, 12)
            assert (source if block.direction == "in" else destination) in station.owned
        self.packets += len(blocks)
        self.lost += lost


def whole(data: bytearray) -> int:
    """Bytes of the blocks that are whole."""
    at = 0
    while len(data) - at >= 8 and len(data) - at >= int.from_bytes(data[at + 4 : at + 8], "little"):
        at += int.from_bytes(data[at + 4 : at + 8], "little")
    return at


def commotion(relay: EngineRelay, *, rounds: int, seed: int, hub: bool, tcp: bool, watch: Watch | None = None) -> None:
    """Members come and go `rounds` times while three threads send. hub: nearly all of it goes to one address."""
    chance = random.Random(seed)
    addresses = [0x0A000001 + n for n in range(12)]
    destinations = [addresses[0]] * 12 + addresses[1:4] if hub else addresses
    threads = [Traffic(seed + n, destinations) for n in range(3)]
    live: list[Station] = []
    label = 0

    def arrive(address: int) -> None:
        nonlocal label
        peer = relay.adopt(extended=chance.choice((0, 1, CANDY3)), tcp=tcp)
        station = Station(peer, label, lazy=chance.random() < 0.25)
        label += 1
        own(station, address)
        live.append(station)
        threads[label % 3].arrivals.append(station)

    def own(station: Station, address: int) -> None:
        station.owned.add(address)
        relay.engine.bind(station.peer.connection, address)
        station.address = address

    for address in addresses:
        arrive(address)
    for thread in threads:
        thread.start()
    for _ in range(rounds):
        # Let every thread have its turn, so that there is traffic between any two changes.
        for thread in threads:
            thread.turned.clear()
            assert not thread.is_alive() or thread.turned.wait(PATIENCE), "a thread can't send: the engine doesn't read"
        relay.events += relay.engine.events()
        if watch is not None:
            watch.look(live)
        if any(thread.error for thread in threads):
            break
        station = live[0] if hub and chance.random() < 0.5 else chance.choice(live)
        match chance.randrange(6):
            case 0 | 1:
                relay.engine.close(station.peer.connection)
            case 2:
                relay.engine.close(station.peer.connection, 1012)
            case 3:
                station.peer.sock.shutdown(socket.SHUT_RDWR)
            case 4:
                own(station, chance.choice(addresses))
                continue
            case 5:
                relay.engine.unbind(station.peer.connection)
                continue
        live.remove(station)
        # The slot may be used again as soon as Python knows that it is free; the address at once.
        arrive(
            chance.choice(addresses) if not hub else addresses[0] if chance.random() < 0.5 else chance.choice(addresses)
        )
        live.insert(0, live.pop())
    for thread in threads:
        thread.stopping = True
    for thread in threads:
        thread.join()
    for thread in threads:
        if thread.error:
            raise thread.error
    # First all that was sent is taken in, then everybody who is left reads until nothing waits for anybody.
    for thread in threads:
        thread.stations.extend(thread.arrivals)
        for station in list(thread.stations):
            station.settle()
    turns = 0
    while left := relay.unaccounted():
        turns += 1
        assert turns < 20_000, f"{left} packets are neither out nor dropped; {relay.dropped()}"
        for thread in threads:
            for station in list(thread.stations):
                if not station.over:
                    station.read()
                if station.over:
                    thread.leave(station)  # our end closes too, and so the engine's needn't wait for it
        relay.events += relay.engine.events()
    for thread in threads:
        for station in list(thread.stations):
            thread.leave(station)
    assert relay.unaccounted() == 0
    stats = relay.engine.stats()
    assert sum(thread.received for thread in threads) <= stats["packets_out"]
    assert stats["packets_out"] > 0


@pytest.mark.parametrize("tcp", [False, True], ids=["socketpair", "tcp"])
@pytest.mark.parametrize("seed", SEEDS)
def test_members_come_and_go_under_traffic(seed: int, tcp: bool) -> None:
    with EngineRelay(4, queue_bytes=200_000, max_connections=64) as relay:
        commotion(relay, rounds=round(150 * SHARE), seed=seed, hub=False, tcp=tcp)


@pytest.mark.parametrize("tcp", [False, True], ids=["socketpair", "tcp"])
@pytest.mark.parametrize("seed", SEEDS)
def test_all_workers_to_one_slow_member_that_is_replaced_all_the_time(seed: int, tcp: bool) -> None:
    """Try-lock, inbox and owner hand over to each other, and the slot changes hands under them."""
    with EngineRelay(4, queue_bytes=140_000, max_connections=64) as relay:
        commotion(relay, rounds=round(200 * SHARE), seed=100 + seed, hub=True, tcp=tcp)


@pytest.mark.parametrize("hub", [False, True], ids=["all", "hub"])
@pytest.mark.parametrize("seed", SEEDS)
def test_captures_come_and_go_under_traffic(seed: int, hub: bool) -> None:
    with EngineRelay(4, queue_bytes=140_000, max_connections=64) as relay:
        watch = Watch(relay, seed)
        commotion(relay, rounds=round(150 * SHARE), seed=200 + seed, hub=hub, tcp=False, watch=watch)
        for number in list(watch.found):
            watch.end(number)
        assert watch.packets > 0
        assert watch.lost > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_networks_come_and_go_under_traffic(seed: int) -> None:
    """Each ends while its members send by its rules and to everybody in it; who is in another one loses nothing."""
    chance = random.Random(seed)
    lan = 0xC0A80101
    with EngineRelay(4, max_connections=64) as relay:
        one, other = relay.member(0x0A000001), relay.member(0x0A000002)
        for turn in range(round(150 * SHARE)):
            number = relay.engine.add_network(0x0A0000FF)
            members = [relay.member(0x0A000001 + n, network=number, extended=n % 3) for n in range(4)]
            relay.engine.set_rules(number, [(lan, 0xFFFFFFFF, members[0].address, 0, 0)])
            for member in members:
                burst = [numbered(member.address, chance.choice(members).address, n) for n in range(8)]
                burst += [numbered(member.address, 0x0A0000FF, 8), numbered(lan, chance.choice(members).address, 9)]
                member.forward(*burst)
            one.forward(numbered(one.address, other.address, turn))
            relay.engine.set_broadcast(number, 0x0A00FFFF)
            relay.engine.remove_network(number)
            for member in chance.sample(members, len(members)):
                if chance.random() < 0.5:
                    relay.engine.close(member.connection)
                else:
                    member.close()
            for member in members:
                relay.cause(member.connection)
                member.close()
            assert kept_networks(relay.engine) == 1
            assert other.receive().payload == numbered(one.address, other.address, turn)
            del relay.peers[2:]


@pytest.mark.parametrize("extended", [1, 0, CANDY3], ids=["stream", "segments", "sealed"])
def test_several_workers_to_one_destination_lose_nothing_uncounted(extended: int) -> None:
    """Without any coming and going the sum is exact at the receiver itself."""
    senders, bursts, burst = 6, round(40 * FACTOR), 50
    with EngineRelay(4, queue_bytes=300_000) as relay:
        hub = Station(relay.member(0x0A000063, extended=extended), 0, lazy=False)
        hub.owned.add(0x0A000063)
        stations = []
        for n in range(senders):
            station = Station(relay.member(0x0A000001 + n, extended=extended or 1), n + 1, lazy=False)
            station.address = 0x0A000001 + n
            stations.append(station)

        def send(station: Station) -> None:
            for _ in range(bursts):
                frames = []
                for _ in range(burst):
                    body = LABEL.pack(station.label, station.sent) + bytes(200)
                    flow = station.sent % 3
                    if station.peer.candy3:
                        payload = sealed(station.address, 0x0A000063, body, label=flow)
                    else:
                        payload = FORWARD + packet(station.address, 0x0A000063, body, flow=flow)
                    frames.append(station.peer.frame(BINARY, payload))
                    station.sent += 1
                station.peer.sock.sendall(b"".join(frames))
            station.peer.sync()

        threads = [threading.Thread(target=send, args=(station,)) for station in stations]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) or relay.unaccounted():
            hub.read()
        for thread in threads:
            thread.join()
        for frame in hub.peer.sync():
            hub.check(frame)
        assert relay.engine.stats()["packets_in"] == senders * bursts * burst
        assert hub.received + sum(relay.dropped().values()) == senders * bursts * burst
