"""What a member wraps for another: only what is its own, or from behind it, for what is the other's, comes out.

    forger .9 ═══╗
    one .1 ══ relay .254 ══ .2 gateway, 10.2.0.1 ── far 10.2.0.5, which lies behind it for `one` alone

The members that wrap are played, so that they wrap whatever they like. Who unwraps is candy-client, or the relay's own
interface.
"""

import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Network

import pytest
from kit.superpacket import ANY, tcp
from lab.laboratory import PORT, Client, Laboratory
from lab.lans import FAR, FAR_LAN, NEAR, NEAR_LAN, ONE, RULES, TWO, Lans, routed
from lab.member import Member, packet
from lab.namespaces import Ethernet, Namespace
from lab.original import entry
from lab.programs import PATIENCE_S

from candy.protocol import wire

pytestmark = pytest.mark.netns

FORGER, HOST = "192.168.202.9", "192.168.202.254"
NOT_ITS_OWN = [ONE, "8.8.8.8", NEAR, FAR, HOST, "10.0.0.1"]
"""Sources that are not the forger's: a member's, a public one, one of either LAN, and two of the relay's machine."""
UDP_PORT = 5000
Wrap = Callable[[str, str, bytes], bytes]


def datagram(source: str, destination: str, data: bytes) -> bytes:
    """By UDP, without a checksum."""
    return packet(source, destination, struct.pack(">HHHH", UDP_PORT, UDP_PORT, 8 + len(data), 0) + data)


def as_ours(source: str, destination: str, inner: bytes) -> bytes:
    """With a whole outer header: DF, and 0 for its id, as candy.engine.ipip says."""
    outer = bytes.fromhex("4500") + (20 + len(inner)).to_bytes(2, "big") + bytes.fromhex("0000 4000 4004 0000")
    return outer + IPv4Address(source).packed + IPv4Address(destination).packed + inner


def as_old(source: str, destination: str, inner: bytes) -> bytes:
    """field: "an outer header that is all zero but for protocol 4, source and destination"."""
    return bytes(9) + b"\x04" + bytes(2) + IPv4Address(source).packed + IPv4Address(destination).packed + inner


in_both_ways = pytest.mark.parametrize("wrap", [as_ours, as_old])


class Listener:
    """A host's socket for datagrams."""

    def __init__(self, stack: ExitStack, host: Namespace, address: str) -> None:
        with host:
            self.socket = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.socket.bind((address, UDP_PORT))
        self.socket.settimeout(PATIENCE_S)

    def next(self) -> tuple[bytes, str]:
        """The next datagram, and whose it seems to be."""
        data, (source, _) = self.socket.recvfrom(2000)
        return data, source


class Scene(Lans):
    """The two LANs; of their gateways the far one is candy-client, and all other members are played."""

    def __init__(self, laboratory: Laboratory, stack: ExitStack) -> None:
        super().__init__(laboratory, stack)
        self._stack = stack
        self._outside = laboratory.host()

    def far_gateway(self) -> Client:
        client = self.join(self.far)
        client.connected()
        routed(client, NEAR_LAN)
        return client

    def member(self, ip: str, *, extended: bool = False) -> Member:
        with self._outside:
            opened = socket.create_connection((Ethernet.ADDRESS, PORT), PATIENCE_S)
        return self._stack.enter_context(Member(opened, extended=extended)).log_in(ip)

    def listen(self, host: Namespace, address: str) -> Listener:
        return Listener(self._stack, host, address)


@pytest.fixture
def scene(laboratory: Laboratory, stack: ExitStack) -> Scene:
    return Scene(laboratory, stack)


@in_both_ways
def test_forged_sources_reach_nobody(scene: Scene, wrap: Wrap) -> None:
    behind_it = f"{ONE}/32,10.9.0.0/16,{HOST}"
    relay = scene.laboratory.relay("--sdwan", f"{RULES};{behind_it}", "-t", f"{HOST}/24")
    scene.far_gateway()
    forger = scene.member(FORGER, extended=True)
    victims = {TWO: scene.listen(scene.far.gateway, TWO), HOST: scene.listen(scene.laboratory.hub, HOST)}
    for address, victim in victims.items():
        before = relay.counters()
        for source in NOT_ITS_OWN:
            forger.forward(wrap(FORGER, address, datagram(source, address, b"forged")))
        forger.forward(wrap(FORGER, address, datagram(FORGER, address, b"its own")))
        assert victim.next() == (b"its own", FORGER)
        assert (relay.counters() - before)["dropped inner_source"] == len(NOT_ITS_OWN)


def test_forged_sources_of_super_packets_reach_nobody(scene: Scene) -> None:
    """Neither whole nor taken apart."""
    relay = scene.laboratory.relay("--sdwan", RULES)
    forger = scene.member(FORGER, extended=True)
    receivers = scene.member(ONE, extended=True), scene.member(TWO)
    for receiver in receivers:
        before = relay.counters()
        assert receiver.ip is not None
        for source, passes in ((NEAR, False), (str(receiver.ip), False), (FORGER, True)):
            inner = tcp(bytes(3000), source=int(IPv4Address(source)), to=int(receiver.ip))
            forger.send(bytes([wire.Kind.SUPER]) + bytes(ANY) + as_ours(FORGER, str(receiver.ip), inner))
            forger.settle()
            came = receiver.settle()
            assert len(came) == (0 if not passes else 1 if receiver is receivers[0] else 3)
        assert (relay.counters() - before)["dropped inner_source"] == 2


@in_both_ways
def test_a_lan_is_reached_by_whom_the_rule_names(scene: Scene, wrap: Wrap) -> None:
    """And nothing else behind the gateway is reached by anybody. `one` is an old member that wraps for itself."""
    relay = scene.laboratory.relay("--sdwan", RULES)
    scene.far_gateway()
    one, forger = scene.member(ONE), scene.member(FORGER)
    host, gateway = scene.listen(scene.far.host, FAR), scene.listen(scene.far.gateway, "0.0.0.0")
    beyond = (scene.far.gateway.address, Ethernet.ADDRESS, FORGER, "224.0.0.1", "255.255.255.255", "192.168.202.255")
    before = relay.counters()
    for destination in beyond:
        one.forward(wrap(ONE, TWO, datagram(ONE, destination, b"beyond the rule")))
    for destination in (*beyond, FAR, "10.2.0.1", "10.2.255.255"):
        forger.forward(wrap(FORGER, TWO, datagram(FORGER, destination, b"not for it")))
    # To everybody: old members unwrap whatever has protocol 4.
    forger.forward(wrap(FORGER, "192.168.202.255", datagram(FORGER, "192.168.202.255", b"to all")))
    forger.settle()
    assert [message for message in one.settle() if b"to all" in message] == []
    one.forward(wrap(ONE, TWO, datagram(ONE, FAR, b"by the rule")))
    assert host.next() == (b"by the rule", ONE)
    one.forward(wrap(ONE, TWO, datagram(NEAR, FAR, b"of its LAN")))
    assert host.next() == (b"of its LAN", NEAR)
    one.forward(wrap(ONE, TWO, datagram(ONE, TWO, b"to the gateway")))
    assert gateway.next() == (b"to the gateway", ONE)
    assert (relay.counters() - before)["dropped inner_destination"] == 2 * len(beyond) + 3 + 1
    # And back, as itself.
    host.socket.sendto(b"an answer", (ONE, UDP_PORT))
    while (answer := one.receive_packet())[12:16] != IPv4Address(FAR).packed:
        pass
    assert answer[28:] == b"an answer"


def placed(destination: str, next_hop: str, device: str) -> wire.Placement:
    return wire.Placement(IPv4Network(destination), IPv4Address(next_hop), IPv4Network(device))


@in_both_ways
def test_a_gateway_that_was_told_refuses_what_its_relay_let_pass(scene: Scene, wrap: Wrap) -> None:
    """One that was not, by an older relay with candy.2, leaves all of it to the relay."""
    relay = scene.original(extended=True)
    far = scene.join(scene.far)
    far.connected()
    victim, host = scene.listen(scene.far.gateway, TWO), scene.listen(scene.far.host, FAR)
    relay.forward(wrap(FORGER, TWO, datagram(ONE, TWO, b"untold")))
    assert victim.next() == (b"untold", ONE)
    relay.forward(wrap(FORGER, TWO, datagram(FORGER, FAR, b"untold")))
    assert host.next() == (b"untold", FORGER)
    relay.tell_behind(TWO, placed(FAR_LAN, TWO, ONE), placed(NEAR_LAN, ONE, TWO))
    # Told behind it, and acted upon after it.
    relay.tell_set(TWO, entry(NEAR_LAN, ONE))
    routed(far, NEAR_LAN)
    for source in NOT_ITS_OWN:
        relay.forward(wrap(FORGER, TWO, datagram(source, TWO, b"forged")))
        relay.forward(wrap(FORGER, TWO, datagram(source, FAR, b"forged")))
    for destination in (FAR, ONE, Ethernet.ADDRESS):
        relay.forward(wrap(FORGER, TWO, datagram(FORGER, destination, b"not for it")))
    relay.forward(wrap(FORGER, TWO, datagram(FORGER, TWO, b"its own")))
    relay.forward(wrap(ONE, TWO, datagram(NEAR, FAR, b"by the rule")))
    assert victim.next() == (b"its own", FORGER)
    assert host.next() == (b"by the rule", NEAR)
    counted = far.counters()
    assert counted["dropped inner_source"] == 2 * len(NOT_ITS_OWN)
    assert counted["dropped inner_destination"] == 3


def test_without_a_source_check_all_of_it_passes(scene: Scene) -> None:
    relay = scene.laboratory.relay("--sdwan", RULES, "--no-source-check")
    scene.far_gateway()
    forger = scene.member(FORGER, extended=True)
    victim, host = scene.listen(scene.far.gateway, TWO), scene.listen(scene.far.host, FAR)
    forger.forward(as_ours(FORGER, TWO, datagram(ONE, TWO, b"forged")))
    assert victim.next() == (b"forged", ONE)
    forger.forward(as_old(FORGER, TWO, datagram(FORGER, FAR, b"forged")))
    assert host.next() == (b"forged", FORGER)
    counted = relay.counters()
    assert counted["dropped inner_source"] == counted["dropped inner_destination"] == 0
