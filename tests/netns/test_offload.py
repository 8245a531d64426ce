"""Super-packets through real interfaces: whoever speaks to whom, the same bytes arrive, with the right checksums."""

import hashlib
import random
import socket
import threading
from pathlib import Path

import pytest
from lab.namespaces import Namespace
from lab.programs import PATIENCE_S, Program, environment
from netns.conftest import Client, Laboratory
from netns.test_old_peers import Capture, frame_length

pytestmark = pytest.mark.netns

BYTES = 20 << 20
CHUNK = 1 << 20
OLD = "--no-extension"
PLAIN = "--no-offload"
PAIRINGS = {
    "both": ((), ()),
    "one without the extension": ((), (OLD,)),
    "both without the extension": ((OLD,), (OLD,)),
    "one without offloads": ((PLAIN,), ()),
    "both without offloads": ((PLAIN,), (PLAIN,)),
    "one without either": ((), (OLD, PLAIN)),
}


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


def transfer(here: Namespace, there: Namespace, address: str) -> None:
    """Bytes in both directions at once, compared by their SHA-256."""
    with there:
        listener = socket.create_server((address, 5000))
    with listener:
        with here:
            near = socket.create_connection((address, 5000), PATIENCE_S)
        far, _ = listener.accept()
    with near, far:
        far.settimeout(PATIENCE_S)
        digests: dict[str, str] = {}
        work = ((send, near, 1), (receive, far, 1), (send, far, 2), (receive, near, 2))
        threads = [threading.Thread(target=one, args=(opened, seed, digests)) for one, opened, seed in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert digests.keys() == {"sent 1", "received 1", "sent 2", "received 2"}
    assert digests["received 1"] == digests["sent 1"]
    assert digests["received 2"] == digests["sent 2"]


def exchange_datagrams(here: Namespace, there: Namespace, own: str, other: str, longest: int = 65_507) -> None:
    """Of all sizes: from nothing to the longest there is, in 48 fragments; the sender's checksum left out once."""
    with here:
        near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with there:
        far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with near, far:
        near.bind((own, 0))
        far.bind((other, 0))
        near.settimeout(PATIENCE_S)
        far.settimeout(PATIENCE_S)
        # A router on the way may cut them: with DF the first one too large for it would only teach its sender.
        for opened in (near, far):
            opened.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, 0)
        for size in (*range(0, 1373, 97), 1371, 1372, 1373, 4000, 9000, longest):
            near.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, size == 97)
            data = random.Random(size).randbytes(size)
            near.sendto(data, far.getsockname())
            received, sender = far.recvfrom(65536)
            assert (received, sender) == (data, near.getsockname())
            far.sendto(data[::-1], sender)
            assert near.recv(65536) == data[::-1]


SO_NO_CHECK = 11
"""From <asm-generic/socket.h>: UDP without a checksum."""
IP_MTU_DISCOVER = 10
"""From <linux/in.h>; 0 never sets DF."""


def segmented_datagrams(here: Namespace, there: Namespace, own: str, other: str) -> None:
    """One call for 40 datagrams and a shorter one, which the kernel may hand over in one piece."""
    data = random.Random(1).randbytes(40 * 1000 + 7)
    with here:
        near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with there:
        far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with near, far:
        near.bind((own, 0))
        far.bind((other, 0))
        far.settimeout(PATIENCE_S)
        near.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
        near.sendto(data, far.getsockname())
        assert b"".join(far.recv(65536) for _ in range(41)) == data


UDP_SEGMENT = 103
"""From <linux/udp.h>."""


def checksum_errors(place: Namespace) -> dict[str, int]:
    """What this host's kernel counted since it came to be."""
    names = ("TcpInCsumErrors", "UdpInCsumErrors", "IcmpInCsumErrors", "IpInHdrErrors", "IpExtInCsumErrors")
    lines = [line.split() for line in place.run("nstat", "-asz").splitlines() if not line.startswith("#")]
    found = {line[0]: int(line[1]) for line in lines}
    return {name: found[name] for name in names}


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_the_same_bytes_arrive(laboratory: Laboratory, tmp_path: Path, pairing: str) -> None:
    laboratory.relay()
    hosts = laboratory.host(), laboratory.host()
    here, there = (laboratory.client(*flags, host=host) for flags, host in zip(PAIRINGS[pairing], hosts, strict=True))
    own, other = here.connected(), there.connected()
    capture = Capture(hosts[1], tmp_path) if OLD in PAIRINGS[pairing][1] else None
    transfer(here.host, there.host, other)
    exchange_datagrams(here.host, there.host, own, other)
    exchange_datagrams(there.host, here.host, other, own)
    segmented_datagrams(here.host, there.host, own, other)
    for place in hosts:
        assert set(checksum_errors(place).values()) == {0}
    if capture is not None:
        with capture.program:
            segments = capture.stop()
        frames = [(length, head[:4].hex()) for _, length, head in segments]
        assert len(frames) > BYTES // 1400
        # Each is one frame, with at most 1500 bytes of payload behind its header.
        assert [one for one in frames if one[0] > 1504] == []
        assert [
            one for one, (_, length, head) in zip(frames, segments, strict=True) if frame_length(head) != length
        ] == []


LAN_BEHIND, LAN_HOST = "10.9.0.1", "10.9.0.2"
MEMBER = "192.168.202.10"


@pytest.fixture
def lan(laboratory: Laboratory) -> tuple[Client, Namespace]:
    """A client whose kernel forwards, and a host of its LAN, which knows of no VPN."""
    host, behind = laboratory.host(), laboratory.host()
    behind.run("ip", "link", "set", "eth0", "down")
    host.run("ip", "link", "add", "lan0", "mtu", "1500", "type", "veth", "peer", "name", "lan0", "netns", behind.path)
    for place, address in ((host, LAN_BEHIND), (behind, LAN_HOST)):
        place.run("ip", "address", "add", f"{address}/24", "dev", "lan0")
        place.run("ip", "link", "set", "lan0", "mtu", "1500", "up")
    behind.run("ip", "route", "add", "default", "via", LAN_BEHIND)
    host.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    laboratory.relay("--sdwan", f"192.168.202.0/24,10.9.0.0/24,{MEMBER}")
    return laboratory.client("-t", f"{MEMBER}/24", host=host), behind


@pytest.mark.parametrize("flags", [(), (OLD,), (PLAIN,)], ids=["as it is", "without the extension", "without offloads"])
def test_a_lan_behind_a_member(laboratory: Laboratory, lan: tuple[Client, Namespace], flags: tuple[str, ...]) -> None:
    """Forwarded: from a LAN with an MTU of 1500, wrapped, into a tunnel whose MTU is 1400, and back."""
    gateway, behind = lan
    gateway.connected()
    far = laboratory.client(*flags)
    own = far.connected()
    far.wait_for("10.9.0.0/24")
    transfer(far.host, behind, LAN_HOST)
    # The gateway cuts each of the LAN's fragments in two, at once: no more of them than the interface's queue takes.
    exchange_datagrams(far.host, behind, own, LAN_HOST, longest=20_000)
    exchange_datagrams(behind, far.host, LAN_HOST, own, longest=20_000)
    segmented_datagrams(far.host, behind, own, LAN_HOST)
    segmented_datagrams(behind, far.host, LAN_HOST, own)
    for place in (far.host, gateway.host, behind):
        assert set(checksum_errors(place).values()) == {0}


@pytest.mark.parametrize("flags", [(), (OLD,)], ids=["as it is", "without the extension"])
def test_a_flood_takes_no_tunnel_down(laboratory: Laboratory, tmp_path: Path, flags: tuple[str, ...]) -> None:
    """UDP packets of 100 bytes as fast as they can be made, while a ping goes on."""
    relay = laboratory.relay()
    here, there = laboratory.client(*flags), laboratory.client(*flags)
    other = there.connected()
    here.connected()
    server = ["iperf3", "--forceflush", "-s", "-1", "-B", other]
    with there.host, Program("iperf3", server, environment(tmp_path)) as listening:
        listening.wait_for("Server listening")
        with (
            here.host,
            Program(
                "flood", ["iperf3", "-c", other, "-u", "-l", "100", "-b", "0", "-t", "3"], environment(tmp_path)
            ) as flood,
        ):
            flood.wait_for("connected to")
            # Each may be lost for want of room, but not all of them.
            assert ", 100% packet loss" not in here.host.run(
                "ping", "-c", "100", "-i", "0.02", "-W", "10", other, check=False
            )
            assert flood.wait() == 0
        assert listening.wait() == 0
    assert " 0% packet loss" in here.host.run("ping", "-c", "3", "-i", "0.1", "-W", "10", other)
    for client in (here, there):
        assert sum(" connected as " in line for line in client.lines) == 1
    assert relay.counters()["dropped bad_super"] == 0
