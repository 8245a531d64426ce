"""The member's answers to its control interface: what candy.control.calls.MEMBER lists, one method each.

    candy.control.server ─▶ MemberControl ─▶ Member, Engine, Interface ─▶ an answer

This module does not know how it is asked, nor by whom.
"""

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from ipaddress import IPv4Address

from candy import __version__
from candy._fastpath import Engine
from candy.control.model import Ended, Forgotten, Linked, MemberStatus, Peer, Peers, Route, SealedOrNot
from candy.errors import KeysUnusable, RequestError
from candy.host.interface import Interface
from candy.member import peers
from candy.member.linkstate import LinkState
from candy.member.member import Member
from candy.protocol.keys import fingerprint
from candy.sealing.directory import Identity
from candy.sealing.seals import Seal, Way

PING_S = 1.0
"""How long the relay may take to answer a ping that is sent for who asks."""
PAYLOAD = b"candy-status"
"""Of that ping: the engine reports no PONG without one."""

WAYS: Mapping[Way, SealedOrNot] = {
    Way.WAIT: "waiting",
    Way.SEAL: "sealed",
    Way.CLEAR: "clear",
    Way.NO_ROUTE: "no route",
    Way.KEY_REFUSED: "key refused",
    Way.NOT_SEALING: "does not seal",
}
NOTHING = {"packets_in": 0, "bytes_in": 0, "packets_out": 0, "bytes_out": 0, "drops": 0, "queued_bytes": 0}


class MemberControl:
    """What the user of a member may ask it."""

    def __init__(self, member: Member, engine: Engine, interface: Interface) -> None:
        self._member = member
        self._engine = engine
        self._interface = interface

    async def status(self, *, over: float | None = None) -> MemberStatus:
        """The member, its connection and its routes."""
        progress = self._member.progress
        connection = progress.connection
        before, began = self._counters(connection), time.monotonic()
        if over is not None:
            await asyncio.sleep(over)
        round_trip_ms = await self._round_trip_ms()
        counted, seconds = self._counters(progress.connection), time.monotonic() - began
        conversation = progress.conversation
        delay_ns = counted.pop("queue_age_ns", 0)
        confirmed = None if conversation is None else conversation.confirmed
        address = self._interface.address
        try:
            network_key, device_key = self._member.keyring.fingerprints()
        except KeysUnusable:
            # The next attempt to connect says so.
            network_key = device_key = None
        status = MemberStatus(
            version=__version__,
            pid=os.getpid(),
            interface=self._interface.name,
            state=progress.state,
            relay=self._member.relay,
            other_relays=self._member.relays.others,
            address=None if address is None else str(address),
            network=None if address is None else str(address.network),
            extension=None if conversation is None else conversation.extended,
            log_in=None if conversation is None else conversation.came_by,
            network_key=network_key,
            device_key=device_key,
            seal=(Seal.OFF if self._member.sealing is None else self._member.sealing.seal).value,
            path="relay",
            links=self._links(),
            since=None if confirmed is None else time.time() - (asyncio.get_running_loop().time() - confirmed),
            round_trip_ms=round_trip_ms,
            routes=self._routes(),
            drops_by_reason={reason: count for reason, count in self._member.drops().items() if count},
            last_end=None if progress.last_end is None else Ended(at=progress.last_end[0], reason=progress.last_end[1]),
            **(NOTHING | {name: counted[name] for name in NOTHING.keys() & counted.keys()}),
            queue_delay_ms=delay_ns / 1e6,
        )
        if over is not None and before and counted and connection == progress.connection:
            status.set_rates(before, seconds)
        return status

    async def members(self) -> Peers:
        """The other members that this one knows of."""
        said = dict(self._member.peers)
        known = self._known()
        linked = () if self._member.linking is None else self._member.linking.legacy
        addresses = dict.fromkeys([*said, *known, *linked])
        return Peers(
            members=[
                _peer(self._linked(address), said.get(address), *known.get(address, (None, None)))
                for address in addresses
            ]
        )

    async def forget(self, *, address: IPv4Address) -> Forgotten:
        """Believe what was refused of a member."""
        sealing = self._member.sealing
        if sealing is None or not sealing.forget(address):
            raise RequestError(f"nothing was refused of {address}: candy-client members shows who is there", 404)
        return Forgotten(address=str(address))

    def _known(self) -> dict[IPv4Address, tuple[Way, Identity | None]]:
        """What becomes of packets for members, and who these are."""
        sealing = self._member.sealing
        return {} if sealing is None else {address: (way, who) for address, way, who in sealing.members()}

    def _links(self) -> list[Linked]:
        linked = () if self._member.linking is None else self._member.linking.legacy
        return [self._linked(address) for address in dict.fromkeys([*self._known(), *linked])]

    def _linked(self, address: IPv4Address) -> Linked:
        linking = self._member.linking
        state = LinkState(None, why="switched off") if linking is None else linking.state(address)
        is_direct = linking is not None and state.endpoint is not None
        return Linked(
            address=str(address),
            path="direct" if is_direct else "relay" if state.by is None else "peer",
            format="original" if state.is_old and (is_direct or state.by) else "sealed" if is_direct else None,
            endpoint=str(state.endpoint) if is_direct else None,
            round_trip_ms=state.round_trip_s * 1e3 if is_direct else None,
            mtu=state.mtu if is_direct else None,
            since=time.time() - linking.age(state.since) if linking is not None and is_direct else None,
            by=None if state.by is None else str(state.by),
            cost_ms=None if state.by is None else state.cost_ms,
            why=state.why or None,
        )

    def _counters(self, connection: int | None) -> dict[str, int]:
        counted = None if connection is None else self._engine.connection_stats(connection)
        return {} if counted is None else counted

    def _routes(self) -> list[Route]:
        installed, refused = self._interface.routes, self._interface.refused
        return [
            Route(
                destination=str(entry.destination),
                next_hop=str(entry.next_hop),
                state="installed" if entry.destination in installed else "refused",
                reason=refused.get(entry.destination),
            )
            for entry in self._member.routes
        ]

    async def _round_trip_ms(self) -> float | None:
        """By a ping; None without a connection, or an answer in time."""
        progress = self._member.progress
        if progress.connection is None or progress.state != "connected":
            return None
        began = time.monotonic()
        if not self._engine.ping(progress.connection, PAYLOAD):
            return None
        try:
            async with asyncio.timeout(PING_S):
                await progress.pong()
        except TimeoutError:
            return None
        return (time.monotonic() - began) * 1e3


def _peer(linked: Linked, said: peers.Peer | None, way: Way | None, who: Identity | None) -> Peer:
    """A member by what it said of itself, and by what is known of sealing for it."""
    said = said or peers.Peer()
    return Peer(
        **asdict(linked),
        public=None if said.public is None else str(said.public),
        lan=None if said.lan is None else str(said.lan),
        asks=said.asks,
        sealing=None if way is None else WAYS[way],
        key=None if who is None else fingerprint(who.key),
    )
