"""What is asked of a running relay: leases and reservations of its networks, and what its connections carried."""

import socket
import struct
from collections.abc import Iterator
from typing import cast

import pytest
from kit.talk import ONE, PASSWORD, WALL, ip

from candy._fastpath import MEMBER_FORMAT, Engine
from candy.errors import RequestError
from candy.protocol import auth, wire
from candy.protocol.closing import CloseCode
from candy.relay.leases import Traffic
from candy.relay.network import Network
from candy.relay.relay import Relay
from candy.relay.reservations import Reservation
from candy.relay.settings import relay_settings
from candy.settings import Given, GivenNetwork

CONNECTION = 1


class Silent:
    """An engine that says nothing and notes what it is told to close."""

    def __init__(self) -> None:
        self.readable, self.writing = socket.socketpair()
        self.closed: list[tuple[int, int | None, str]] = []

    def fileno(self) -> int:
        return self.readable.fileno()

    def add_network(self, *_: object, **__: object) -> int:
        return 0

    def set_rules(self, *_: object) -> None:
        pass

    def set_network_limits(self, *_: object, **__: object) -> None:
        pass

    def unbind(self, *_: object) -> bool:
        return True

    def close(self, connection: int, code: int | None, reason: str) -> bool:
        self.closed.append((connection, code, reason))
        return True

    def connection_stats(self, *_: object) -> None:
        pass

    def members(self) -> bytes:
        """This machine's interface as well, which is no session."""
        return struct.pack(MEMBER_FORMAT, 77, *[9] * 9) + struct.pack(
            MEMBER_FORMAT, CONNECTION, 1, 2, 3, 4, 5, 6, 7, 0, 0
        )


@pytest.fixture
def engine() -> Iterator[Silent]:
    engine = Silent()
    with engine.readable, engine.writing:
        yield engine


def relay_of(engine: Silent) -> Relay:
    home = GivenNetwork(Given("/home", "file"), {}, Given(b"other", "file"))
    return Relay(relay_settings({}, password=PASSWORD, networks=[home]), cast(Engine, engine))


def log_in(relay: Relay) -> Network:
    """A member of `/`."""
    served = relay._find("/")
    assert served is not None
    relay._connections[CONNECTION] = served
    network = served.network
    network.opened(CONNECTION, "203.0.113.1", 0.0, extended=True)
    digest = auth.vmac_digest(PASSWORD, ONE, WALL)
    network.received(CONNECTION, wire.Vmac(ONE, WALL, digest).encode(), 0.0, WALL)
    digest = auth.auth_digest(PASSWORD, ip(9), WALL)
    network.received(CONNECTION, wire.Auth(ip(9), WALL, digest).encode(), 0.0, WALL)
    return network


async def test_each_network_has_leases_of_its_own(engine: Silent) -> None:
    relay = relay_of(engine)
    network = log_in(relay)
    assert relay.network("/") is network
    assert relay.registers().keys() == {"/", "/home"}
    assert [lease.address for lease in relay.network("/").register.leases(WALL)] == [ip(9)]
    assert list(relay.network("/home/").register.leases(WALL)) == []
    relay.stop()


async def test_a_reservation_by_command_is_carried_out_at_once(engine: Silent) -> None:
    relay = relay_of(engine)
    log_in(relay)
    relay.reserve("/", Reservation(ip(9), name="laptop"))
    why = "192.168.202.9 is reserved for another device"
    assert engine.closed == [(CONNECTION, CloseCode.SERVICE_RESTART, why)]
    relay.release("/", ip(9))
    assert list(relay.network("/").register.reservations()) == []
    relay.stop()


async def test_a_network_that_is_not_there(engine: Silent) -> None:
    relay = relay_of(engine)
    with pytest.raises(RequestError, match="'/office' is no network of this relay: it has /, /home"):
        relay.release("/office", ip(9))
    relay.stop()


async def test_what_connections_carry_is_asked_for(engine: Silent) -> None:
    relay = relay_of(engine)
    log_in(relay)
    # A row each time.
    relay.look()
    relay.look()
    [lease] = relay.network("/").register.leases(WALL)
    assert lease.traffic == Traffic(1, 2, 3, 4)
    relay.stop()
