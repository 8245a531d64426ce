"""A network and members that speak to it, in memory.

Rules: time stands still unless a test moves it; every message is a right one unless a test says otherwise.
"""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from math import inf
from typing import Any

import pytest

from candy.protocol import auth, wire
from candy.protocol.actions import Log, Ping, Send
from candy.relay.guessing import FailureLimiter
from candy.relay.network import Network
from candy.relay.passwords import Password, Passwords
from candy.relay.pool import Pool
from candy.relay.session import Action, Bind

PASSWORD = b"secret"
ONE, TWO = b"1111111111111111", b"2222222222222222"
"""VMACs."""
WALL = 1_700_000_000
FAILED = "authentication failed"
TAKEN_OVER = "another login took over the address"


def ip(last: int) -> IPv4Address:
    return IPv4Address(f"192.168.202.{last}")


def network(pool: Pool | None, *, password: bytes = PASSWORD, until: float = inf, **options: Any) -> Network:
    """With the limits that a relay has unless it is told otherwise."""
    limits: dict[str, Any] = {
        "failures": FailureLimiter(60),
        "new_devices_per_minute": 100,
        "authentication_timeout": 10.0,
        "randbytes": bytes,
    }
    return Network(Passwords([Password(password, until=until)]), pool, **(limits | options))


class Talk:
    """A network with members that speak to it; `now` and `wall` stand still unless a test moves them.

    Each method returns the actions without the log lines, which gather in `log`.
    """

    def __init__(
        self,
        pool: str | None = "192.168.202.0/24",
        randbytes: Callable[[int], bytes] = bytes,
        **options: Any,
    ) -> None:
        self.network = network(None if pool is None else Pool(IPv4Network(pool)), randbytes=randbytes, **options)
        self.now = 1000.0
        self.wall = WALL
        self.log: list[tuple[str, str]] = []
        self.connections = 0

    def keep(self, actions: list[Action]) -> list[Action]:
        self.log += [(action.level, action.text) for action in actions if isinstance(action, Log)]
        return [action for action in actions if not isinstance(action, Log)]

    def open(self, source: str | None = None, *, extended: bool = False, instance: int = 0) -> int:
        self.connections += 1
        source = source if source is not None else f"203.0.113.{self.connections}"
        opened = self.network.opened(self.connections, source, self.now, extended=extended, instance=instance)
        assert opened == []
        return self.connections

    def receive(self, connection: int, message: bytes) -> list[Action]:
        return self.keep(self.network.received(connection, message, self.now, self.wall))

    def vmac(self, connection: int, vmac: bytes, password: bytes = PASSWORD, skew: int = 0) -> list[Action]:
        timestamp = self.wall + skew
        digest = auth.vmac_digest(password, vmac, timestamp)
        return self.receive(connection, wire.Vmac(vmac, timestamp, digest).encode())

    def expttun(
        self, connection: int, asked: str = "0.0.0.0/0", password: bytes = PASSWORD, skew: int = 0
    ) -> list[Action]:
        timestamp = self.wall + skew
        digest = auth.expttun_digest(password, timestamp)
        return self.receive(connection, wire.Expttun(timestamp, IPv4Interface(asked), digest).encode())

    def auth(self, connection: int, address: IPv4Address, password: bytes = PASSWORD, skew: int = 0) -> list[Action]:
        timestamp = self.wall + skew
        digest = auth.auth_digest(password, address, timestamp)
        return self.receive(connection, wire.Auth(address, timestamp, digest).encode())

    def pong(self, connection: int, payload: bytes) -> list[Action]:
        return self.keep(self.network.ponged(connection, payload, self.now, self.wall))

    def close(self, connection: int, cause: str = "peer") -> list[Action]:
        return self.keep(self.network.closed(connection, self.now, self.wall, cause))

    def expire(self) -> list[Action]:
        return self.keep(self.network.expired(self.now, self.wall))

    def granted(self, connection: int, asked: str = "0.0.0.0/0") -> str:
        """The address that an EXPTTUN of this connection is answered with."""
        (send,) = self.expttun(connection, asked)
        assert isinstance(send, Send)
        assert send.connection == connection
        answer = wire.decode(send.payload)
        assert isinstance(answer, wire.Expttun)
        assert answer.timestamp == self.wall
        assert answer.digest == auth.expttun_digest(PASSWORD, self.wall)
        return str(answer.address)

    def member(self, address: IPv4Address, vmac: bytes | None = None, *, extended: bool = False) -> int:
        """A new connection that logged in; a second goes by, so that its AUTH is not a replay."""
        self.wall += 1
        connection = self.open(extended=extended)
        if vmac is not None:
            assert self.vmac(connection, vmac) == []
        assert self.auth(connection, address) == [Bind(connection, int(address))]
        return connection

    def newcomer(
        self, address: IPv4Address, vmac: bytes | None = None, *, extended: bool = False, instance: int = 0
    ) -> tuple[int, list[Action]]:
        """A new connection, and what its AUTH causes."""
        self.wall += 1
        connection = self.open(extended=extended, instance=instance)
        if vmac is not None:
            assert self.vmac(connection, vmac) == []
        return connection, self.auth(connection, address)

    def contest(self, address: IPv4Address, holder: int, vmac: bytes | None = None) -> tuple[int, bytes]:
        """A newcomer that waits for a held address, and the payload of the PING that its holder got."""
        newcomer, (ping,) = self.newcomer(address, vmac)
        assert isinstance(ping, Ping)
        assert ping.connection == holder
        return newcomer, ping.payload

    def logged(self, words: str) -> list[tuple[str, str]]:
        return [line for line in self.log if words in line[1]]


@pytest.fixture
def talk() -> Talk:
    """With a network as it is unless it is told otherwise."""
    return Talk()
