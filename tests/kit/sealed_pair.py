"""Two members who have met, or talked, and what tests ask of them and of what is under way (kit.sealed_world)."""

from ipaddress import IPv4Address
from typing import Any

from kit.sealed_world import A, B, Datagram, Node, Sealed, Shake, World

from candy.protocol.control import Peer, State
from candy.protocol.handshake import HANDSHAKE, NOTE
from candy.sealing.seals import Way

ONE, TWO, THREE = b"one", b"two", b"three"
SECRET, OTHER_SECRET = bytes([0x61]) * 32, bytes([0x62]) * 32


def met(one: dict[str, Any] | None = None, other: dict[str, Any] | None = None) -> tuple[World, Node, Node]:
    world = World()
    return world, world.add(A, **one or {}), world.add(B, **other or {})


def talked(**options: Any) -> tuple[World, Node, Node]:
    """A has begun a session with B, and both have sent a packet."""
    world, a, b = met(options, options)
    passes(world, a, b)
    passes(world, b, a)
    world.trace.clear()
    return world, a, b


def passes(world: World, source: Node, destination: Node, packet: bytes = ONE) -> None:
    destination.got.clear()
    world.send(source, destination.address, packet)
    world.run()
    assert destination.got == [packet]


def both_pass(world: World, a: Node, b: Node) -> None:
    passes(world, a, b)
    passes(world, b, a)


def is_note(datagram: Datagram) -> bool:
    return isinstance(datagram, Sealed) and datagram.body[:1] == bytes([NOTE])


def shakes(node: Node, number: int) -> int:
    return sum(payload[:2] == bytes([HANDSHAKE, number]) for payload in node.sent)


def changed(payload: bytes, at: int) -> bytes:
    """In one bit."""
    return payload[:at] + bytes([payload[at] ^ 1 << at % 8]) + payload[at + 1 :]


def way(node: Node, address: IPv4Address) -> Way:
    return node.engine.peers[address].way


def kinds(world: World) -> list[type]:
    return [type(datagram) for datagram in world.trace]


def old_client(address: IPv4Address, lease: bytes = b"old-leas") -> Peer:
    return Peer(address, State.CLEAR, lease=lease)


def rekeying(world: World, node: Node, after: float = 120.0) -> Sealed:
    """The note 1 that node sends when it is time."""
    world.now += after
    world.wall += int(after * 10**9)
    node.engine.send(B if node.address == A else A, ONE)
    world.run()
    node.tick()
    world.settle()
    notes = [datagram for datagram in world.wire if is_note(datagram)]
    world.wire.clear()
    [note] = notes
    assert isinstance(note, Sealed)
    return note


def crowd(world: World, count: int) -> list[Node]:
    return [world.add(IPv4Address("10.1.0.1") + number) for number in range(count)]


def first_of(world: World) -> bytes:
    first = world.wire.pop(0)
    assert isinstance(first, Shake)
    return first.payload
