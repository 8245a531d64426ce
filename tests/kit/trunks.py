"""Relays of a cluster, as far as the engine knows of them: trunks between two of them, and a test at one's end."""

import socket
import struct

from kit import peer as peers
from kit.peer import EngineRelay, Peer

NETWORK = 24
CONTROL = b"\x16"


def network(number: int) -> bytes:
    """The message that says of which network those behind it are."""
    return struct.pack(">BH", NETWORK, number)


def trunk(relay: EngineRelay, number: int, networks: list[int], *, tcp: bool = False) -> Peer:
    """The end of a trunk to the relay with this number, which is the test's."""
    end = relay.adopt(trunk=True, tcp=tcp)
    assert relay.engine.agree(end.connection, number, networks)
    assert relay.engine.open_trunk(end.connection)
    return end


def connected(one: EngineRelay, other: EngineRelay) -> tuple[int, int]:
    """A trunk's numbers at both relays, which have not agreed on anything. Over TLS `one` is its client."""
    tls = peers.DEFAULT_TLS
    ends = socket.socketpair()
    first, second = (
        relay.engine.adopt(end.detach(), trunk=True, client=client, tls=tls.context(client=client) if tls else None)
        for relay, end, client in ((one, ends[0], True), (other, ends[1], False))
    )
    return first, second


def linked(
    one: EngineRelay,
    other: EngineRelay,
    *,
    numbers: tuple[int, int] = (1, 1),
    networks: tuple[list[int], list[int]] = ([0], [0]),
) -> tuple[int, int]:
    """The same once they have agreed: `numbers` are what each calls the other, `networks` what each has in common."""
    ends = connected(one, other)
    assert one.engine.agree(ends[0], numbers[0], networks[0])
    assert other.engine.agree(ends[1], numbers[1], networks[1])
    for relay, end in zip((one, other), ends, strict=True):
        assert relay.engine.open_trunk(end)
    return ends


def by_network(frames: list[bytes]) -> list[tuple[int, bytes]]:
    """What came by a trunk, each with the number of its network."""
    found, number = [], -1
    for frame in frames:
        if frame[0] == NETWORK:
            [number] = struct.unpack_from(">H", frame, 1)
        else:
            found.append((number, frame))
    return found
