"""A network as a relay serves it: settings, decisions, the engine's number for it, this machine's interface in it.

    serve(settings) ─▶ Served ─▶ make_interface() ─▶ change(settings, names) … ─▶ leave()
                                       └──── follow(): its kernel routes, by the rules

Rules:
 1. The engine has new rules and addresses before any member follows them.
 2. What the network decides is returned: its actions are the relay's to carry out.

This module reads no settings and knows no connection but the interface's.
"""

import os
import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from candy._fastpath import Engine
from candy.errors import OperationalError
from candy.options import DEFAULT_MTU
from candy.protocol.login import LOGIN, Credential
from candy.protocol.noise import KEY_BYTES
from candy.protocol.wire import SEALING_SUBPROTOCOL
from candy.relay.enrolment import Enrolment
from candy.relay.guessing import FailureLimiter
from candy.relay.keyring import Keyring, keyring_of
from candy.relay.keys import RelayKeys
from candy.relay.leases import Traffic
from candy.relay.limits import bytes_per_s
from candy.relay.login import LogIn
from candy.relay.network import Network
from candy.relay.networksettings import NetworkSettings
from candy.relay.passwords import Password, Passwords
from candy.relay.pool import Pool
from candy.relay.rules import Rules
from candy.relay.session import Action

if TYPE_CHECKING:
    from candy.host.interface import Interface
    from candy.relay.sealing import OwnSealing


@dataclass(slots=True)
class Served:
    """One network of a relay."""

    settings: NetworkSettings
    number: int
    """The engine's."""
    network: Network
    _engine: Engine
    interface: "Interface | None" = None
    keyring: Keyring | None = None
    """None: nobody logs in with a key."""
    sealing: "OwnSealing | None" = None
    """Of this machine's interface."""

    @property
    def label(self) -> str:
        """The beginning of its lines in the log."""
        return "" if self.settings.path == "/" else f"{self.settings.path}: "

    def change(self, settings: NetworkSettings, names: AbstractSet[str], now: float, wall: int) -> list[Action]:
        """Have these settings instead of those before, which differ in `names`. Call follow() afterwards."""
        self.settings = settings
        actions: list[Action] = []
        if names & {"password", "passwords"}:
            actions += self.network.set_passwords(Passwords(settings.every_password), now, wall)
        if "admit" in names:
            self.network.enrolment.admit = settings.admit
        if names & {"password", "passwords", "legacy", "admit"}:
            actions += self.network.set_legacy(settings.legacy, now)
        if "direct" in names:
            actions += self.network.set_direct(settings.direct)
        if "pool" in names and settings.pool is not None:
            self._engine.set_broadcast(self.number, int(settings.pool.broadcast_address))
            actions += self.network.enlarge(settings.pool, now)
        if "lease_days" in names:
            self.network.register.set_lease_days(settings.lease_days)
        if "reservations" in names:
            actions += self.network.set_reservations(settings.reservations, now)
        if "rules" in names:
            rules = Rules(settings.rules)
            self._set_rules(rules)
            actions += self.network.set_rules(rules, now)
        if "seal" in names and self.sealing is not None:
            self.sealing.set_seal(settings.seals)
        if names & {"limit_down", "limit_up", "quota", "quota_rate"}:
            actions += self.network.set_limits(settings.limits, wall)
        if names & {"network_limit_down", "network_limit_up"}:
            self._limit_network()
        if "max_members" in names:
            self.network.max_members = settings.max_members or None
        return actions

    def load_keys(self, folder: Path, wall: int, number: int | None = None) -> None:
        """Have members log in with keys, which are made at the first start.

        Args:
            folder: the relay's state folder.
            number: the relay's among others; None: it is alone.

        Raises:
            OperationalError: a file of keys is damaged, or others can read it; or keys can't be written, and members
                have no other way.
        """
        files = RelayKeys(folder, self.settings.path, os.urandom)
        self.keyring = keyring_of(files, self.network.enrolment, wall, self.label, number)
        if self.keyring is None and not self.settings.legacy:
            raise OperationalError(f"{self.label}without keys, and with legacy = false, nobody can log in")

    def log_in(self, offered: Sequence[str]) -> LogIn | None:
        """With a key, for a request that offers these subprotocols; None: an old client's log-in."""
        if self.keyring is None or SEALING_SUBPROTOCOL not in offered:
            return None
        return self.keyring.log_in(offered)

    @property
    def public_key(self) -> bytes:
        """The network's; empty if nobody logs in with a key."""
        return b"" if self.keyring is None else self.keyring.current.key.network

    def has_to_stretch(self, message: bytes) -> bool:
        """Whether this is a LOGIN by a password, and stretch() comes first."""
        is_by_password = message[:1] == bytes([LOGIN]) and message[3:4] == bytes([Credential.PASSWORD])
        return is_by_password and self.keyring is not None and not self.keyring.is_ready(self._passwords())

    async def stretch(self) -> None:
        """Have passwords be proven, as they are now."""
        assert self.keyring is not None
        await self.keyring.ready(self._passwords())

    def _passwords(self) -> list[Password]:
        return self.network.passwords.with_keys(time.time())

    def leave(self, now: float) -> list[Action]:
        """Serve it no more. The engine gives it up with its last connection."""
        actions = self.network.dissolve(now)
        self._engine.remove_network(self.number)
        return actions

    def make_interface(self, stack: ExitStack) -> list[Action]:
        """Make this machine's interface in the network, without an address yet; it is closed with the stack.

        Raises:
            OperationalError: it could not be created.
            OSError: the engine has no slot for it.
        """
        # Most relays have none.
        from candy.host.interface import Interface
        from candy.host.kernelroutes import KernelRoutes
        from candy.host.tun import Tun

        assert self.settings.tun is not None
        tun = Tun(self.settings.interface, DEFAULT_MTU)
        stack.callback(tun.close)
        self.interface = Interface(tun, KernelRoutes(tun.name), self._engine, self.number)
        return self.network.host(self.interface.connection, self.settings.tun.ip)

    async def follow(self) -> None:
        """Have the interface follow the rules.

        Raises:
            OperationalError: the interface is gone, or the kernel does not answer.
        """
        if self.interface is None or self.settings.tun is None:
            return
        own, rules = self.settings.tun.ip, Rules(self.settings.rules)
        # Without `relay`: the relay is here, so no route can be in its way.
        await self.interface.follow(rules.entries(own), is_gateway=bool(rules.lans(own)))

    def _limit_network(self) -> None:
        down, up = self.settings.network_limit_down, self.settings.network_limit_up
        self._engine.set_network_limits(self.number, down=bytes_per_s(down), up=bytes_per_s(up))

    def _set_rules(self, rules: Rules) -> None:
        self._engine.set_rules(self.number, [placement.numbers for placement in rules.placements])


def serve(settings: NetworkSettings, engine: Engine, failures: FailureLimiter) -> Served:
    """Make a network that members may join.

    Args:
        failures: shared with the relay's other networks.
    """
    pool = settings.pool

    def traffic(connection: int) -> Traffic | None:
        found = engine.connection_stats(connection)
        return None if found is None else Traffic(*(found[name] for name in Traffic._fields))

    number = engine.add_network(
        int(pool.broadcast_address) if pool else 0xFFFFFFFF,
        forward_broadcast=settings.forward_broadcast,
        check_source=settings.check_source,
    )
    rules = Rules(settings.rules)
    network = Network(
        Passwords(settings.every_password),
        Pool(pool) if pool else None,
        randbytes=os.urandom,
        failures=failures,
        enrolment=Enrolment(bytes(KEY_BYTES), os.urandom, settings.admit),
        legacy=settings.legacy,
        direct=settings.direct,
        tolerance=settings.clock_tolerance,
        allow_outside_pool=settings.allow_outside_pool,
        forward_broadcast=settings.forward_broadcast,
        rules=rules,
        tell_gateways=settings.check_source,
        max_members=settings.max_members or None,
        new_devices_per_minute=settings.new_devices_per_minute,
        lease_days=settings.lease_days,
        reservations=settings.reservations,
        authentication_timeout=settings.auth_timeout,
        limits=settings.limits,
        traffic=traffic,
    )
    served = Served(settings, number, network, engine)
    served._set_rules(rules)
    served._limit_network()
    return served
