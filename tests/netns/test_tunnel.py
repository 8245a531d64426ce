"""Packets between two hosts, through interfaces of the real clients and the real relay."""

import hashlib
import random
import signal
import socket
import threading

import pytest
from lab.programs import PATIENCE_S, Relay
from netns.conftest import Client, Laboratory

pytestmark = pytest.mark.netns

BYTES = 200 << 20
CHUNK = 1 << 20


@pytest.fixture
def relay(laboratory: Laboratory) -> Relay:
    return laboratory.relay()


@pytest.fixture
def clients(relay: Relay, laboratory: Laboratory) -> tuple[Client, Client]:
    """Two, connected, with dynamic addresses."""
    pair = laboratory.client(), laboratory.client()
    for one in pair:
        one.connected()
    return pair


def ping(source: Client, destination: str, *options: str) -> str:
    return source.host.run("ping", "-c", "3", "-i", "0.1", "-W", "10", *options, destination)


def test_ping_both_ways(clients: tuple[Client, Client]) -> None:
    here, there = clients
    for one, other in ((here, there), (there, here)):
        assert " 0% packet loss" in ping(one, other.connected())
        # The longest that the interface's MTU of 1400 takes, and one in two fragments.
        assert " 0% packet loss" in ping(one, other.connected(), "-M", "do", "-s", "1372")
        assert " 0% packet loss" in ping(one, other.connected(), "-s", "2000")


def send(opened: socket.socket, seed: int, digests: dict[str, str]) -> None:
    block = random.Random(seed).randbytes(CHUNK)
    digest = hashlib.sha256()
    for number in range(BYTES // CHUNK):
        # No two blocks are alike, so that one out of order would show.
        chunk = block[number:] + block[:number]
        digest.update(chunk)
        opened.sendall(chunk)
    opened.shutdown(socket.SHUT_WR)
    digests[f"sent {seed}"] = digest.hexdigest()


def receive(opened: socket.socket, seed: int, digests: dict[str, str]) -> None:
    digest = hashlib.sha256()
    buffer = bytearray(CHUNK)
    while size := opened.recv_into(buffer):
        digest.update(memoryview(buffer)[:size])
    digests[f"received {seed}"] = digest.hexdigest()


def test_200_megabytes_in_both_directions_at_once(relay: Relay, clients: tuple[Client, Client]) -> None:
    here, there = clients
    address = (there.connected(), 5000)
    with there.host:
        listener = socket.create_server(address)
    with listener:
        with here.host:
            near = socket.create_connection(address, PATIENCE_S)
        far, _ = listener.accept()
    with near, far:
        far.settimeout(PATIENCE_S)
        digests: dict[str, str] = {}
        threads = [
            threading.Thread(target=work, args=(opened, seed, digests))
            for work, opened, seed in ((send, near, 1), (receive, far, 1), (send, far, 2), (receive, near, 2))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert digests.keys() == {"sent 1", "received 1", "sent 2", "received 2"}
    assert digests["received 1"] == digests["sent 1"]
    assert digests["received 2"] == digests["sent 2"]
    assert relay.counters()["bytes_in"] > 2 * BYTES


def test_udp_of_all_sizes(clients: tuple[Client, Client]) -> None:
    here, there = clients
    with here.host:
        near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with there.host:
        far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with near, far:
        near.bind((here.connected(), 0))
        far.bind((there.connected(), 0))
        near.settimeout(PATIENCE_S)
        far.settimeout(PATIENCE_S)
        for size in (*range(0, 1373, 31), 1372, 1373, 4000, 9000, 30_000, 65_507):
            data = random.Random(size).randbytes(size)
            near.sendto(data, far.getsockname())
            received, sender = far.recvfrom(65536)
            assert (received, sender) == (data, near.getsockname())
            far.sendto(data[::-1], sender)
            assert near.recv(65536) == data[::-1]


def test_static_and_dynamic_addresses(laboratory: Laboratory) -> None:
    relay = laboratory.relay()
    static = laboratory.client("-t", "192.168.202.77/24", "--mtu", "1200")
    assert static.connected() == "192.168.202.77"
    link = static.host.run("ip", "-4", "address", "show", "candy")
    assert " inet 192.168.202.77/24 " in link
    assert " mtu 1200 " in link
    dynamic = laboratory.client("-n", "home")
    own = dynamic.connected()
    assert f" inet {own}/24 " in dynamic.host.run("ip", "-4", "address", "show", "candy-home")
    assert " 0% packet loss" in ping(dynamic, "192.168.202.77")
    # It asks for the same one again.
    dynamic.signal(signal.SIGTERM)
    assert dynamic.wait() == 0
    start = len(relay.lines)
    other = laboratory.client()
    assert other.connected() != own
    assert laboratory.client("-n", "home", host=dynamic.host).connected() == own  # type: ignore[arg-type]
    relay.wait_for(f"logged in as {own}", start)


def test_forty_clients_at_once(laboratory: Laboratory) -> None:
    relay = laboratory.relay()
    hosts = [laboratory.host() for _ in range(40)]
    clients = [laboratory.client(host=host) for host in hosts]
    addresses = [client.connected() for client in clients]
    assert len(set(addresses)) == 40
    for client, neighbour in zip(clients, addresses[1:] + addresses[:1], strict=True):
        assert " 0% packet loss" in client.host.run("ping", "-c", "1", "-W", "10", neighbour)
    for client in clients:
        client.signal(signal.SIGTERM)
    assert [client.wait() for client in clients] == [0] * 40
    assert relay.counters()["connections"] == 0
