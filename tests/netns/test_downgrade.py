"""Somebody on the way takes candy.3 out of an upgrade: a member that knows the network's key says so and no more."""

import re
import socket
from collections.abc import Callable
from typing import NamedTuple

import pytest
from lab.laboratory import PORT, Laboratory
from lab.member import everything
from lab.namespaces import Ethernet, Namespace
from lab.programs import PATIENCE_S

pytestmark = pytest.mark.netns

Change = Callable[[bytes], bytes]


def as_it_is(head: bytes) -> bytes:
    return head


def without(name: bytes) -> Change:
    return lambda head: re.sub(rb"\r\n%s: [^\r]*" % name, b"", head)


def instead(before: bytes, after: bytes) -> Change:
    return lambda head: head.replace(before, after)


class Way(NamedTuple):
    """What somebody makes of the request's head and of the answer's, and what the member says to that."""

    request: Change
    answer: Change
    line: str


OLD = "the relay does not speak candy.3, but this member knows the network's key: something on the way has changed the "
WAYS = [
    Way(instead(b"candy.3, candy.2", b"candy.2"), as_it_is, OLD),
    Way(as_it_is, without(b"Candy-Key"), "the relay shows no Candy-Key: something on the way has taken it out"),
    Way(as_it_is, instead(b"Protocol: candy.3", b"Protocol: candy.2"), OLD),
]


def read_head(opened: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        head += opened.recv(65536)
    return head


class Path:
    """Between a member and the relay: a port of the hub."""

    def __init__(self, hub: Namespace) -> None:
        self._hub = hub
        with hub:
            self.listening = socket.create_server((Ethernet.ADDRESS, PORT + 1))
        self.listening.settimeout(PATIENCE_S)

    def carry(self, way: Way) -> bytes:
        """The upgrade of the next connection; what the member says behind it."""
        member, _ = self.listening.accept()
        with self._hub:
            relay = socket.create_connection((Ethernet.ADDRESS, PORT), PATIENCE_S)
        with member, relay:
            member.settimeout(PATIENCE_S)
            relay.sendall(way.request(read_head(member)))
            member.sendall(way.answer(read_head(relay)))
            return everything(member)


def test_nothing_less_than_before(laboratory: Laboratory) -> None:
    laboratory.relay()
    member = laboratory.client()
    address = member.connected()
    member.close()
    path = Path(laboratory.hub)
    strayed = laboratory.client(host=member.host, url=f"ws://{Ethernet.ADDRESS}:{PORT + 1}")
    with path.listening:
        for way in WAYS:
            lines = len(strayed.lines)
            assert path.carry(way) == b""
            strayed.wait_for(f" WARNING .*{re.escape(way.line)}", lines)
    strayed.close()
    assert laboratory.client(host=member.host).connected() == address
