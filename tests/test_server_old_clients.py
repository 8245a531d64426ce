"""Clients that were there before this relay, played at the wire: what they do, and that they get along.

A test that begins with "field:" shows one of the remarks of that name in the protocol's description, as far as it is
the relay's: how existing peers behave, which is not for us to choose.
"""

import hashlib
import socket
import struct
import time
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest
from lab.member import Member, Speaker, echo, frame, packet, upgrade_request
from lab.programs import PASSWORD, PATIENCE_S, Relay
from peer import CLOSE, PING, PONG

from candy import wire

pytestmark = pytest.mark.usefixtures("nobody_else_is_disturbed")

HELLO = b"candy::linux::6.1.8::vm"
TCPI_DATA_SEGS_IN = struct.Struct("<I")
TCPI_DATA_SEGS_IN_AT = 152
"""In struct tcp_info of <linux/tcp.h>: segments with data that were received."""


class OldClient(Member):
    """The original's client, or one before 2024 without a VMAC. Its timestamps never repeat for one address."""

    _last = 0

    @classmethod
    def now(cls) -> int:
        """A second that was not used yet: old clients wait for one, tests don't."""
        OldClient._last = max(OldClient._last + 1, int(time.time()))
        return OldClient._last

    def hello(self) -> None:
        """The PING right behind AUTH; its answer shows that the connection lives."""
        self.send(HELLO, PING)
        while True:
            opcode, payload = self.receive()
            assert opcode != CLOSE, payload
            if opcode == PONG:
                assert payload == HELLO
                return

    def log_in_as_original(self, vmac: bool, fixed: str | None) -> str:
        """VMAC, EXPTTUN and AUTH, as far as this client sends them, all with one timestamp; its address."""
        now = self.now()
        if vmac:
            self.send(self.greeting(now))
        ip = fixed
        if ip is None:
            self.send(self.request("0.0.0.0/0", now))
            answer = wire.decode(self.receive_message())
            assert isinstance(answer, wire.Expttun)
            ip = str(answer.address.ip)
        self.send(self.auth(ip, now))
        self.hello()
        self.ip = IPv4Address(ip)
        self.settle()
        return ip


def connect(relay: Relay, vmac: bytes | None = None) -> OldClient:
    return OldClient.connect(relay.address, vmac=vmac)


def exchange(one: Member, other: Member) -> None:
    """A packet each way, unchanged."""
    assert one.ip is not None
    assert other.ip is not None
    for sender, receiver in ((one, other), (other, one)):
        sent = echo(str(sender.ip), str(receiver.ip), 1, b"hello")
        sender.forward(sent)
        assert receiver.receive_packet() == sent


# The carrier


def test_the_upgrade_of_an_old_client(relay: Relay) -> None:
    """field: no subprotocol, no compression, no Origin, query string dropped by old clients.

    "permessage-deflate must never be agreed", whatever is offered.
    """
    deflate = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
    for headers in ([], [deflate], [deflate, "Origin: https://example.org"]):
        with socket.create_connection(relay.address, PATIENCE_S) as opened:
            opened.sendall(upgrade_request(*headers))
            head = opened.recv(65536)
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"Sec-WebSocket-Extensions" not in head
        assert b"Sec-WebSocket-Protocol" not in head


def test_no_payload_over_1500_bytes(relay: Relay, stack: ExitStack) -> None:
    """field: existing peers hold at most 1500 bytes of payload per frame and drop the connection beyond that."""
    sender = stack.enter_context(Member.connect(relay.address, extended=True)).log_in("192.168.202.10", OldClient.now())
    old = stack.enter_context(connect(relay)).log_in("192.168.202.11", OldClient.now())
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


def test_each_frame_is_a_segment(relay: Relay, stack: ExitStack) -> None:
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
        assert received < frames if extended else received == frames


def segments(member: Member) -> int:
    """Segments with data that this member's kernel has received."""
    info = member.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return int(TCPI_DATA_SEGS_IN.unpack_from(info, TCPI_DATA_SEGS_IN_AT)[0])


# Sessions


@pytest.mark.parametrize("fixed", [None, "192.168.202.20"])
@pytest.mark.parametrize("vmac", [True, False])
def test_a_session_of_an_old_client(relay: Relay, stack: ExitStack, vmac: bool, fixed: str | None) -> None:
    """field: clients before 2024 send no VMAC.

    Dynamic or fixed, the conversation is the same but for what is left out.
    """
    client = stack.enter_context(connect(relay))
    peer = stack.enter_context(connect(relay))
    client.log_in_as_original(vmac, fixed)
    peer.log_in_as_original(vmac=not vmac, fixed=None)
    exchange(client, peer)


@pytest.mark.parametrize("vmac", [bytes(16), b"0" * 16])
def test_an_all_zero_vmac_is_none(relay: Relay, stack: ExitStack, vmac: bytes) -> None:
    """field: an all-zero VMAC means none.

    So nobody comes back by it, and none replaces another.
    """
    first = stack.enter_context(connect(relay, vmac))
    granted = first.log_in_as_original(vmac=True, fixed=None)
    second = stack.enter_context(connect(relay, vmac))
    second.send(second.greeting(OldClient.now()))
    assert str(second.ask(f"{granted}/24").ip) != granted
    second.send(second.auth(granted, OldClient.now()))
    opcode, payload = first.receive()
    assert (opcode, payload[:12]) == (PING, b"candy-probe:")
    assert second.end() is None
    first.settle()
    first.close()
    third = stack.enter_context(connect(relay, vmac))
    third.send(third.greeting(OldClient.now()))
    assert str(third.ask().ip) != granted


def test_clients_of_one_host_share_a_vmac(relay: Relay, stack: ExitStack) -> None:
    """field: several original clients on one host share one VMAC.

    Each has an address of its own, and comes back to it when it asks for it.
    """
    vmac = b"00000000feedbee1"
    clients = [stack.enter_context(connect(relay, vmac)) for _ in range(3)]
    ips = [client.log_in_as_original(vmac=True, fixed=None) for client in clients]
    assert len(set(ips)) == 3
    exchange(clients[0], clients[1])
    clients[0].close()
    back = stack.enter_context(connect(relay, vmac))
    back.send(back.greeting(OldClient.now()))
    assert str(back.ask(f"{ips[0]}/24").ip) == ips[0]
    back.log_in(ips[0], OldClient.now())
    exchange(back, clients[2])
    for client in clients[1:]:
        client.settle()


def test_the_answer_to_a_request_can_be_believed(relay: Relay, stack: ExitStack) -> None:
    """field: old clients don't check that hash; ours does.

    So every answer carries a fresh timestamp and the hash over it.
    """
    client = stack.enter_context(connect(relay))
    long_ago = int(time.time()) - 200
    client.send(client.request("0.0.0.0/0", long_ago))
    answer = wire.decode(client.receive_message())
    assert isinstance(answer, wire.Expttun)
    assert abs(answer.timestamp - time.time()) < 100
    covered = PASSWORD.encode() + answer.timestamp.to_bytes(8, "big")
    assert answer.digest == hashlib.sha256(covered).digest()


def test_two_clients_in_the_same_second(relay: Relay, stack: ExitStack) -> None:
    """The same EXPTTUN bytes on two connections are no replay: "it covers password and time alone"."""
    request = Speaker().request("0.0.0.0/0")
    ips = []
    for _ in range(2):
        client = stack.enter_context(connect(relay))
        client.send(request)
        answer = wire.decode(client.receive_message())
        assert isinstance(answer, wire.Expttun)
        ips.append(str(answer.address.ip))
        client.log_in(ips[-1], OldClient.now())
    assert ips[0] != ips[1]


def test_a_vmac_behind_the_request_for_an_address(relay: Relay, stack: ExitStack) -> None:
    """Out of order, and still known by it when it comes back."""
    vmac = b"00000000feedbee2"
    client = stack.enter_context(connect(relay, vmac))
    granted = client.ask()
    client.send(client.greeting(OldClient.now()))
    client.log_in(str(granted.ip), OldClient.now())
    client.close()
    back = stack.enter_context(connect(relay, vmac))
    back.send(back.greeting(OldClient.now()))
    assert back.ask() == granted


def test_a_request_and_a_vmac_behind_auth(relay: Relay, stack: ExitStack) -> None:
    """Too late: dropped, not answered, and the session goes on."""
    client = stack.enter_context(connect(relay)).log_in("192.168.202.21", OldClient.now())
    before = relay.counters()
    client.send(client.request("0.0.0.0/0", OldClient.now()))
    client.send(client.greeting(OldClient.now()))
    client.settle()
    after = relay.counters() - before
    assert (after["dropped expttun_after_auth"], after["dropped vmac_after_auth"]) == (1, 1)


@pytest.mark.parametrize("second", ["192.168.202.22", "192.168.202.23"])
def test_a_second_auth(relay: Relay, stack: ExitStack, second: str) -> None:
    """field: the original disconnects or crashes here.

    "The first binding stays, the second is dropped and counted."
    """
    client = stack.enter_context(connect(relay)).log_in("192.168.202.22", OldClient.now())
    peer = stack.enter_context(connect(relay)).log_in("192.168.202.24", OldClient.now())
    before = relay.counters()["dropped second_auth"]
    client.send(client.auth(second, OldClient.now()))
    exchange(client, peer)
    client.settle()
    assert relay.counters()["dropped second_auth"] - before == 1


def test_an_old_clients_pings(relay: Relay, stack: ExitStack) -> None:
    """field: the client sends PING right after AUTH, and then each second; it answers a server's PING with the same
    bytes.

    Ours are answered with the same payload too, not with the original server's 1500 bytes.
    """
    client = stack.enter_context(connect(relay))
    client.send(client.auth("192.168.202.25", OldClient.now()))
    for number in range(30):
        client.send(HELLO + b"%d" % number, PING)
    assert [client.receive() for _ in range(30)] == [(PONG, HELLO + b"%d" % number) for number in range(30)]
    client.ip = IPv4Address("192.168.202.25")
    # Whatever else a PONG may be, it is no answer to anything.
    client.send(HELLO, PONG)
    client.settle()


def test_a_client_that_comes_back(relay: Relay, stack: ExitStack) -> None:
    """field: after any end a client waits 1 s and starts again from step 1.

    With its address and the next second's timestamp, while its old connection still looks alive.
    """
    vmac = b"00000000feedbee3"
    now = OldClient.now()
    old = stack.enter_context(connect(relay, vmac))
    old.send(old.greeting(now))
    ip = str(old.ask("192.168.202.26/24").ip)
    old.log_in(ip, now)
    peer = stack.enter_context(connect(relay)).log_in("192.168.202.27", OldClient.now())
    new = stack.enter_context(connect(relay, vmac))
    now = OldClient.now()
    new.send(new.greeting(now))
    assert str(new.ask(f"{ip}/24").ip) == ip
    new.log_in(ip, now)
    assert old.end() == 4001
    exchange(new, peer)


def test_a_client_without_vmac_that_comes_back(relay: Relay, stack: ExitStack) -> None:
    """While its old connection looks alive it is granted another address; a fixed one it gets when the old one is
    silent, after the relay's 3 s, which are awaited."""
    old = stack.enter_context(connect(relay))
    ip = old.log_in_as_original(vmac=False, fixed=None)
    old.answers_pings = False
    new = stack.enter_context(connect(relay))
    assert str(new.ask(f"{ip}/24").ip) != ip
    new.send(new.auth(ip, OldClient.now()))
    new.send(HELLO, PING)
    # It can't tell that it waits.
    assert new.receive() == (PONG, HELLO)
    assert old.end() == 4001
    new.ip = IPv4Address(ip)
    new.settle()


def test_a_holder_of_another_installation(relay: Relay, stack: ExitStack) -> None:
    """field: the original kicks the earlier holder, whoever asks; cacao refuses when the holder has another VMAC.

    Here whoever answers keeps its address.
    """
    holder = stack.enter_context(connect(relay, b"00000000feedbee4"))
    ip = holder.log_in_as_original(vmac=True, fixed="192.168.202.28")
    newcomer = stack.enter_context(connect(relay, b"00000000feedbee5"))
    newcomer.send(newcomer.greeting(OldClient.now()))
    newcomer.send(newcomer.auth(ip, OldClient.now()))
    assert holder.receive()[0] == PING
    assert newcomer.end() is None
    holder.settle()


# Packets and messages


def test_an_outer_header_of_zeros(relay: Relay, stack: ExitStack) -> None:
    """field: do not insist on version/IHL/total length.

    SD-WAN packets of old clients "have an outer header that is all zero but for protocol 4, source and destination".
    """
    device = stack.enter_context(connect(relay)).log_in("192.168.202.30", OldClient.now())
    gateway = stack.enter_context(connect(relay)).log_in("192.168.202.31", OldClient.now())
    inner = echo("172.16.0.5", "172.17.0.5", 1, b"data")
    ends = IPv4Address("192.168.202.30").packed + IPv4Address("192.168.202.31").packed
    wrapped = bytes(9) + b"\x04" + bytes(2) + ends + inner
    device.forward(wrapped)
    assert gateway.receive_packet() == wrapped


def test_foreign_packets(relay: Relay, stack: ExitStack) -> None:
    """field: peers legitimately re-send foreign packets for a moment when a direct link breaks.

    "Drop and count, never disconnect."
    """
    client = stack.enter_context(connect(relay)).log_in("192.168.202.32", OldClient.now())
    peer = stack.enter_context(connect(relay)).log_in("192.168.202.33", OldClient.now())
    before = relay.counters()["dropped spoofed_source"]
    for number in range(1000):
        client.forward(echo(f"192.168.202.{100 + number % 50}", "192.168.202.33", number))
    exchange(client, peer)
    assert relay.counters()["dropped spoofed_source"] - before == 1000


def test_what_old_clients_tell_each_other(tmp_path: Path, stack: ExitStack) -> None:
    """The way to a direct link: DISCOVERY to everybody, public and LAN endpoints to each other, byte for byte."""
    relay = stack.enter_context(Relay(tmp_path))
    ips = [IPv4Address(f"192.168.202.{n}") for n in (34, 35, 36)]
    one, two, three = (stack.enter_context(connect(relay)).log_in(str(ip), OldClient.now()) for ip in ips)
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


def test_many_calls_to_everybody(tmp_path: Path, stack: ExitStack) -> None:
    """Each costs a message for every member, so one member's are bounded."""
    relay = stack.enter_context(Relay(tmp_path))
    loud = stack.enter_context(connect(relay)).log_in("192.168.202.37", OldClient.now())
    others = [stack.enter_context(connect(relay)).log_in(f"192.168.202.{n}", OldClient.now()) for n in range(40, 60)]
    call = wire.Discovery(IPv4Address("192.168.202.37"), wire.BROADCAST).encode()
    calls = 400
    for number in range(calls):
        loud.send(call)
        if number % 16 == 15:
            loud.settle()
    dropped = relay.counters()["dropped broadcast_limit"]
    assert dropped > 0
    received = 0
    for other in others:
        to_self = wire.General(7, 0, other.ip or wire.BROADCAST, other.ip or wire.BROADCAST, b"end").encode()
        other.send(to_self)
        while (message := other.receive_message()) != to_self:
            assert message == call
            received += 1
    assert received == (calls - dropped) * len(others)
    loud.settle()


# Rules


def test_routes_come_in_batches(tmp_path: Path, stack: ExitStack) -> None:
    """field: at most 100 entries a message.

    Behind AUTH, and byte by byte as the original writes them: no flags.
    """
    rules = ";".join(f"192.168.202.0/24,172.{16 + n // 256}.{n % 256}.0/24,192.168.202.2" for n in range(250))
    relay = stack.enter_context(Relay(tmp_path, "--sdwan", rules))
    old = stack.enter_context(connect(relay))
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
    gateway = stack.enter_context(connect(relay))
    gateway.send(gateway.auth("192.168.202.2", OldClient.now()))
    gateway.send(HELLO, PING)
    assert gateway.receive() == (PONG, HELLO)
    gateway.ip = IPv4Address("192.168.202.2")
    gateway.settle()
