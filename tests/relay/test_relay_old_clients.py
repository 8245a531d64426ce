"""What clients that were there before this relay send and get, played at the wire: frames, packets, messages, rules.

Their sessions are in test_relay_old_sessions.py.

A test that begins with "field:" shows one of the remarks of that name in the protocol's description, as far as it is
the relay's: how existing peers behave, which is not for us to choose.
"""

import socket
import struct
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest
from kit.peer import PING, PONG
from lab.member import Member, echo, frame, packet, upgrade_request
from lab.oldclient import HELLO, OldClient, exchange
from lab.programs import PATIENCE_S, RelayProgram

from candy.protocol import wire

pytestmark = pytest.mark.usefixtures("nobody_else_is_disturbed")

TCPI_DATA_SEGS_IN = struct.Struct("<I")
TCPI_DATA_SEGS_IN_AT = 152
"""In struct tcp_info of <linux/tcp.h>: segments with data that were received."""


# The carrier


def test_the_upgrade_of_an_old_client(relay: RelayProgram) -> None:
    """field: no subprotocol, no compression, no Origin, query string dropped by old clients.

    "permessage-deflate must never be agreed", whatever is offered.
    """
    deflate = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
    for headers in ([], [deflate]):
        with socket.create_connection(relay.address, PATIENCE_S) as opened:
            opened.sendall(upgrade_request(*headers))
            head = opened.recv(65536)
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"Sec-WebSocket-Extensions" not in head
        assert b"Sec-WebSocket-Protocol" not in head


def test_no_payload_over_1500_bytes(relay: RelayProgram, stack: ExitStack) -> None:
    """field: existing peers hold at most 1500 bytes of payload per frame and drop the connection beyond that."""
    sender = stack.enter_context(Member.connect(relay.address, extended=True)).log_in("192.168.202.10", OldClient.now())
    old = stack.enter_context(OldClient.connect(relay.address)).log_in("192.168.202.11", OldClient.now())
    before = relay.counters()["dropped too_large"]
    largest = packet("192.168.202.10", "192.168.202.11", bytes(1499 - 20))
    too_large = packet("192.168.202.10", "192.168.202.11", bytes(1500 - 20))
    fragment_never = too_large[:6] + b"\x40\0" + too_large[8:]
    for sent in (too_large, largest, fragment_never, packet("192.168.202.10", "192.168.202.11", bytes(60_000))):
        sender.forward(sent)
    own, to = IPv4Address("192.168.202.10"), IPv4Address("192.168.202.11")
    sender.send(wire.General(0, 0, own, to, bytes(1489)).encode())
    assert old.receive_packet() == largest
    # "with ICMP fragmentation-needed to the source where DF is set"
    unreachable = sender.receive_packet()
    assert unreachable[9] == 1
    assert unreachable[20:22] == b"\x03\x04"
    assert int.from_bytes(unreachable[26:28], "big") == 1499
    sender.settle()
    old.settle()
    assert relay.counters()["dropped too_large"] - before == 4


def test_each_frame_is_a_segment(relay: RelayProgram, stack: ExitStack) -> None:
    """field: old clients lose the connection when a read finds part of a frame.

    Counted by the receiver's kernel: as many segments as frames, however many the relay gets at once. A member with
    candy.2, to which frames may be packed, shows that it would be otherwise.
    """
    sender = stack.enter_context(Member.connect(relay.address, extended=True)).log_in("192.168.202.12", OldClient.now())
    for number, extended in ((13, False), (14, True)):
        ip = f"192.168.202.{number}"
        receiver = stack.enter_context(OldClient.connect(relay.address, extended=extended)).log_in(ip, OldClient.now())
        before, frames = segments(receiver), 0
        for size in (0, 40, 100, 1300, 1380) * 20:
            sent = [packet("192.168.202.12", ip, bytes([n]) * size) for n in range(10)]
            sender.socket.sendall(b"".join(frame(bytes([wire.Kind.FORWARD]) + each) for each in sent))
            assert [receiver.receive_packet() for _ in sent] == sent
            frames += len(sent)
        received = segments(receiver) - before
        # On a busy machine a kernel sends some again, as it has no answer in time; what is packed would be far fewer.
        assert received < frames if extended else frames <= received < 1.02 * frames


def segments(member: Member) -> int:
    """Segments with data that this member's kernel has received."""
    info = member.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return int(TCPI_DATA_SEGS_IN.unpack_from(info, TCPI_DATA_SEGS_IN_AT)[0])


# Packets and messages


def test_an_outer_header_of_zeros(tmp_path: Path, stack: ExitStack) -> None:
    """field: do not insist on version/IHL/total length.

    SD-WAN packets of old clients "have an outer header that is all zero but for protocol 4, source and destination".
    """
    rules = "192.168.202.30/32,172.17.0.0/16,192.168.202.31;192.168.202.31/32,172.16.0.0/16,192.168.202.30"
    relay = stack.enter_context(RelayProgram(tmp_path, "--sdwan", rules))
    device = stack.enter_context(OldClient.connect(relay.address)).log_in("192.168.202.30", OldClient.now())
    gateway = stack.enter_context(OldClient.connect(relay.address)).log_in("192.168.202.31", OldClient.now())
    inner = echo("172.16.0.5", "172.17.0.5", 1, b"data")
    ends = IPv4Address("192.168.202.30").packed + IPv4Address("192.168.202.31").packed
    wrapped = bytes(9) + b"\x04" + bytes(2) + ends + inner
    device.forward(wrapped)
    assert gateway.receive_packet() == wrapped


def test_foreign_packets(relay: RelayProgram, stack: ExitStack) -> None:
    """field: peers legitimately re-send foreign packets for a moment when a direct link breaks.

    "Drop and count, never disconnect."
    """
    client = stack.enter_context(OldClient.connect(relay.address)).log_in("192.168.202.32", OldClient.now())
    peer = stack.enter_context(OldClient.connect(relay.address)).log_in("192.168.202.33", OldClient.now())
    before = relay.counters()["dropped spoofed_source"]
    for number in range(1000):
        client.forward(echo(f"192.168.202.{100 + number % 50}", "192.168.202.33", number))
    exchange(client, peer)
    assert relay.counters()["dropped spoofed_source"] - before == 1000


def test_what_old_clients_tell_each_other(tmp_path: Path, stack: ExitStack) -> None:
    """The way to a direct link: DISCOVERY to everybody, public and LAN endpoints to each other, byte for byte."""
    relay = stack.enter_context(RelayProgram(tmp_path))
    ips = [IPv4Address(f"192.168.202.{n}") for n in (34, 35, 36)]
    one, two, three = (
        stack.enter_context(OldClient.connect(relay.address)).log_in(str(ip), OldClient.now()) for ip in ips
    )
    discovery = bytes.fromhex("05 c0a8ca22 ffffffff")
    one.send(discovery)
    assert two.receive_message() == three.receive_message() == discovery
    endpoint = bytes.fromhex("03 c0a8ca23 c0a8ca22 cb007105 1f90")
    two.send(endpoint)
    assert one.receive_message() == endpoint
    lan = bytes.fromhex("ff 00 0000 c0a8ca22 c0a8ca23 c0a80105 1f90")
    one.send(lan)
    assert two.receive_message() == lan
    to_everybody = bytes.fromhex("ff 00 0000 c0a8ca24 ffffffff c0a80106 1f90")
    three.send(to_everybody)
    assert one.receive_message() == two.receive_message() == to_everybody
    for client in (one, two, three):
        client.settle()


# Rules


def test_routes_come_in_batches(tmp_path: Path, stack: ExitStack) -> None:
    """field: at most 100 entries a message.

    Behind AUTH, and byte by byte as the original writes them: no flags.
    """
    rules = ";".join(f"192.168.202.0/24,172.{16 + n // 256}.{n % 256}.0/24,192.168.202.2" for n in range(250))
    relay = stack.enter_context(RelayProgram(tmp_path, "--sdwan", rules))
    old = stack.enter_context(OldClient.connect(relay.address))
    old.send(old.greeting(OldClient.now()))
    granted = old.ask()
    assert granted == IPv4Interface("192.168.202.1/24")
    old.send(old.auth("192.168.202.1", OldClient.now()))
    told = [old.receive_message() for _ in range(3)]
    assert [(message[:4], len(message)) for message in told] == [
        (bytes([6, 100, 0, 0]), 4 + 100 * 12),
        (bytes([6, 100, 0, 0]), 4 + 100 * 12),
        (bytes([6, 50, 0, 0]), 4 + 50 * 12),
    ]
    assert told[0][4:16] == bytes.fromhex("ac100000 ffffff00 c0a8ca02")
    assert told[2][-12:] == bytes.fromhex("ac10f900 ffffff00 c0a8ca02")
    old.ip = IPv4Address("192.168.202.1")
    old.settle()
    gateway = stack.enter_context(OldClient.connect(relay.address))
    gateway.send(gateway.auth("192.168.202.2", OldClient.now()))
    gateway.send(HELLO, PING)
    assert gateway.receive() == (PONG, HELLO)
    gateway.ip = IPv4Address("192.168.202.2")
    gateway.settle()
