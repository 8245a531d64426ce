"""How many handshakes there are, and what members agree on in them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from kit.sealed_pair import (
    ONE,
    both_pass,
    crowd,
    first_of,
    met,
    shakes,
)
from kit.sealed_world import A, B, Shake, World

from candy.protocol.handshake import Cipher
from candy.protocol.login import Asks


def test_of_one_source_two_a_second_are_looked_at() -> None:
    world, a, b = met()
    world.send(a, B, ONE)
    first = first_of(world)
    for _ in range(10):
        b.do(b.sessions.received(first, b.at))
    assert b.dropped.count("handshake_limit") == 8
    world.now += 0.5
    b.do(b.sessions.received(first, b.at))
    b.do(b.sessions.received(first, b.at))
    assert b.dropped.count("handshake_limit") == 9


def test_many_that_begin_at_once_are_answered_in_turn() -> None:
    world = World()
    b = world.add(B)
    nodes = crowd(world, 230)
    for node in nodes:
        world.send(node, B, ONE)
    for datagram in world.wire[:230]:
        world.deliver(datagram)
    assert shakes(b, 2) == 200
    assert b.sessions.deadline <= world.now + 0.1
    b.do(b.sessions.tick([], b.at._replace(now=world.now + 0.1)))
    assert shakes(b, 2) == 220
    b.do(b.sessions.tick([], b.at._replace(now=world.now + 0.2)))
    assert shakes(b, 2) == 230
    assert b.dropped == []


def test_a_member_begins_no_more_than_the_relay_lets_pass() -> None:
    world = World()
    a = world.add(A)
    nodes = crowd(world, 310)
    for node in nodes:
        a.engine.send(node.address, ONE)
    world.settle()
    assert shakes(a, 1) == 250
    world.pass_time(1, run=False)
    assert shakes(a, 1) == 300
    world.pass_time(1, run=False)
    assert shakes(a, 1) == 310


def test_as_many_messages_of_strangers_are_kept_as_there_is_room() -> None:
    world = World()
    b = world.add(B)
    nodes = crowd(world, 70)
    for node in nodes:
        world.relay.interests.add((B, node.address))
        world.send(node, B, ONE)
    for datagram in list(world.wire):
        assert isinstance(datagram, Shake)
        b.do(b.sessions.received(datagram.payload, b.at))
    assert b.dropped == ["handshake_limit"] * 6
    world.settle()
    assert shakes(b, 2) == 64


# What they agree on.


@pytest.mark.parametrize(
    ("one", "other", "cipher"),
    [
        ({}, {}, Cipher.AES_256_GCM),
        ({"flags": Asks(0)}, {}, Cipher.CHACHA20_POLY1305),
        ({}, {"flags": Asks(0)}, Cipher.CHACHA20_POLY1305),
        ({"ciphers": 1, "flags": Asks(0)}, {}, Cipher.AES_256_GCM),
        ({"ciphers": 2}, {}, Cipher.CHACHA20_POLY1305),
        ({}, {"ciphers": 2}, Cipher.CHACHA20_POLY1305),
    ],
)
def test_the_cipher(one: dict[str, Any], other: dict[str, Any], cipher: Cipher) -> None:
    world = World()
    a, b = world.add(A, **one), world.add(B, **other)
    both_pass(world, a, b)
    for node in (a, b):
        assert [session.install.cipher for session in node.engine.sessions.values()] == [cipher]


def test_without_a_cipher_that_both_have_there_is_no_session() -> None:
    world = World()
    a, b = world.add(A, ciphers=1), world.add(B, ciphers=2)
    world.send(a, B, ONE)
    world.run()
    assert b.dropped == ["bad_handshake"]
    assert b.engine.sessions == {}


def test_a_session_number_is_not_0_and_not_in_use() -> None:
    world, a, b = met()
    used: list[bytes] = []

    def draw(count: int, randbytes: Callable[[int], bytes] = a.random.randbytes) -> bytes:
        """Numbers come twice, and as 0."""
        if count != 4:
            return randbytes(count)
        drawn = bytes([0, 0, 0, len(used) // 2])
        used.append(drawn)
        return drawn

    a.own = replace(a.own, randbytes=draw)
    a.start()
    a.join()
    for _ in range(3):
        both_pass(world, a, b)
        # The one before is there while the next one gets its number.
        world.now += 121
        world.send(a, B, ONE)
        a.tick()
        world.run()
    assert used[0] == bytes(4)
    assert all(session != 0 for session in a.engine.sessions)
    assert len(a.engine.sessions) == 2
