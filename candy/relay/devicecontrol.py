"""The relay's answers about devices that log in with keys: who they are, and who may come.

    candy.relay.control.RelayControl ─▶ DeviceControl ─▶ Relay: Network.approve(), revoke(), renew(); Keyring; Keeper

Rules:
 1. What lets somebody in, or shuts him out, is written down before it is said to be done. A revocation ends connections
    first, and is said to have failed if it can't be written down; among several relays it is said whom it did not
    reach.
 2. Without `network` a device is looked for in all networks, and keys are rotated in all.
"""

import time
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Literal

from candy.carrier import pin as pins
from candy.control.lists import Lists
from candy.control.model import Device, Devices, Invite, Invited, Revoked, RotatedKey, RotatedKeys
from candy.errors import OperationalError, RequestError
from candy.protocol.hello import PART_MAX, printable
from candy.protocol.link import Invitation, Link
from candy.relay.enrolment import Admit, Standing
from candy.relay.enrolment import Device as KeptDevice
from candy.relay.keyring import Keyring
from candy.relay.network import Network
from candy.relay.relay import Relay
from candy.relay.served import Served
from candy.relay.settings import canonical_path

USES_MAX = 1000
EXPIRES_MAX_S = 365 * 86400


class DeviceControl:
    """See the rules above.

    Args:
        url_of: where members reach a network, and the pin of what they meet there, None for the usual check.
    """

    def __init__(self, relay: Relay, url_of: Callable[[Served], tuple[str, str | None]]) -> None:
        self._relay = relay
        self._url_of = url_of

    async def devices(self, *, network: str | None = None) -> Lists:
        """All that have a key."""
        found = [(served, device) for served in self._served(network) for device in served.network.enrolment]
        return Lists(Devices, devices=(self._shown(served, device) for served, device in found))

    async def invite(self, *, body: Invite) -> Invited:
        """A link that lets new devices in."""
        [served] = self._served(body.network)
        network, wall = served.network, int(time.time())
        key = self._keyring(served).current.key
        addresses = _addresses(body.address, network)
        if not 1 <= body.uses <= USES_MAX or not 1 <= body.expires_s <= EXPIRES_MAX_S:
            raise RequestError(f"an invitation is for 1 to {USES_MAX} devices, and for a year at most", 400)
        if printable(body.name) != body.name:
            raise RequestError(f"a name has at most {PART_MAX} characters, and all can be printed", 400)
        made = network.enrolment.invite(body.name, addresses, body.uses, wall + int(body.expires_s), wall)
        if not await self._relay.record():
            network.enrolment.uninvite(made.selector)
            raise RequestError("the invitation can't be written down: see the relay's log for why")
        url, pin = self._url_of(served)
        its = Invitation(key.relay, key.number, key.generation, made.selector, made.secret, made.until)
        link = Link(key.network, its, None if pin is None else pins.parse(pin))
        return Invited(
            network=served.settings.path,
            link=f"{url}#{link.encode()}",
            name=body.name or None,
            uses=made.uses,
            until=float(made.until),
        )

    async def approve(self, *, device: str, network: str | None = None) -> Device:
        """Let a device in that waits."""
        served, found = self._find(device, network)
        if found.standing is Standing.ADMITTED:
            raise RequestError(f"{found.name!r} does not wait: it was let in before")
        key = found.key
        self._relay.decide(served, lambda network, now, wall: network.approve(key, now, wall))
        if not await self._relay.record():
            raise RequestError("it is let in, but that can't be written down: approve it again after a restart")
        return self._shown(served, self._kept(served, key))

    async def revoke(self, *, device: str, network: str | None = None) -> Revoked:
        """Shut a device out, at once and from now on."""
        served, found = self._find(device, network)
        key = found.key
        self._relay.decide(served, lambda network, now, wall: network.revoke(key, now, wall))
        is_kept, cluster = await self._relay.record(), self._relay.cluster
        if not is_kept and cluster is None:
            raise RequestError(
                "its connection is ended, but that it was revoked can't be written down, so it can come back after a "
                "restart: see the relay's log for why, and revoke it again"
            )
        enrolment = served.network.enrolment
        admits = enrolment.admit is Admit.PASSWORD and bool(served.network.passwords.with_keys(time.time()))
        kept = self._kept(served, key)
        unreached = [] if cluster is None else await cluster.revoked(served.settings.path, kept)
        return Revoked(device=self._shown(served, kept), password_admits=admits, unreached=unreached)

    async def rotate(self, *, network: str | None = None, network_key: bool = False) -> RotatedKeys:
        """Make new keys, and tell members."""
        served = self._served(network)
        return RotatedKeys(keys=[self._rotate(each, network_key=network_key) for each in served])

    def _rotate(self, served: Served, *, network_key: bool) -> RotatedKey:
        keyring, wall = self._keyring(served), int(time.time())
        try:
            current = keyring.rotate_network(wall) if network_key else keyring.rotate(wall)
        except OperationalError as error:
            raise RequestError(f"{served.label}{error}") from None
        succession = current.successions[-1] if network_key else None
        self._relay.decide(served, lambda network, now, wall: network.renew(current.key, succession))
        url, pin = self._url_of(served)
        line = Link(current.key.network, None, None if pin is None else pins.parse(pin)).encode()
        return RotatedKey(network=served.settings.path, generation=current.key.generation, url=f"{url}#{line}")

    def _served(self, network: str | None) -> list[Served]:
        """The one that is meant, or all."""
        return [self._relay.served[path] for path in paths(self._relay, network)]

    @staticmethod
    def _keyring(served: Served) -> Keyring:
        if served.keyring is None:
            raise RequestError(f"the network {served.settings.path} has no keys: see the relay's log for why")
        return served.keyring

    def _find(self, device: str, network: str | None) -> tuple[Served, KeptDevice]:
        served = self._served(network)
        found: list[tuple[Served, KeptDevice]] = []
        for each in served:
            try:
                found.append((each, each.network.enrolment.find(device)))
            except RequestError:
                if len(served) == 1:
                    raise
        if not found:
            raise RequestError(f"{device!r} is no device with a key: the command devices lists them", 404)
        if len(found) > 1:
            raise RequestError(f"{device!r} is a device of several networks: say which with --network")
        return found[0]

    @staticmethod
    def _kept(served: Served, key: bytes) -> KeptDevice:
        device = served.network.enrolment.get(key)
        assert device is not None
        return device

    @staticmethod
    def _shown(served: Served, device: KeptDevice) -> Device:
        lease = next(served.network.pool.leases.of(device.key), None)
        return Device(
            network=served.settings.path,
            number=str(device.number),
            name=device.name or None,
            fingerprint=device.fingerprint,
            standing=_STANDINGS[device.standing],
            came_by=device.by or None,
            invited=bool(device.invitation),
            since=float(device.since),
            addresses=None if device.addresses is None else str(device.addresses),
            address=None if lease is None else str(IPv4Address(lease.ip)),
            connected=lease is not None and lease.is_connected,
        )


def _addresses(text: str | None, network: Network) -> IPv4Network | None:
    if text is None:
        return None
    try:
        addresses = IPv4Network(text)
    except ValueError:
        raise RequestError(
            f"{text!r} is neither address nor network: write it like 192.168.202.9 or 192.168.202.64/28", 400
        ) from None
    pool = network.pool.network
    if pool is not None and not addresses.subnet_of(pool) and not network.allows_outside_pool:
        raise RequestError(f"{addresses} is not within the pool {pool}", 400)
    return addresses


def paths(relay: Relay, network: str | None) -> list[str]:
    """Of the network that is meant, or of all. Raises RequestError."""
    if network is None:
        return list(relay.served)
    path = canonical_path(network)
    if path not in relay.served:
        raise RequestError(f"there is no network {network!r}: the command networks lists them", 404)
    return [path]


_STANDINGS: Mapping[Standing, Literal["admitted", "waiting", "revoked"]] = {
    Standing.ADMITTED: "admitted",
    Standing.WAITING: "waiting",
    Standing.REVOKED: "revoked",
}
