"""Devices that keep to no relay: when one is lost they go to the next, and send packets to each other all the time.

    Wanderers(hub, relays) ─▶ add() … ─▶ live() on a loop, go_to() of a device ─▶ missing(), faults

Rules:
 1. A packet names its network, both addresses and the round in which it was sent; who gets one of another network, or
    for another address, notes a fault. So does who gets another address than ever before, or one of another device's.
 2. Rivals claim one address. While all is whole one of them has it; each that is refused tries again and again.
 3. A device does not end a connection that it has left for another: its relay has to.
 4. A relay is silent when it does not answer for SILENCE_S; from then on its connection is as good as left.
"""

import asyncio
import itertools
import os
import random
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Interface
from typing import Final

from kit.peer import BINARY, CLOSE, MAX_CANDY3_PAYLOAD, PING, PONG, Frame, build_frame, read_frame, take_mask_off
from kit.primitives import PRIMITIVES, pair
from lab.keyed import OFFERED, by_password
from lab.member import Ended, Speaker, frame, packet, upgrade_request
from lab.namespaces import Namespace

from candy.member.login import Credentials, LogIn, Ticket
from candy.primitives import verify
from candy.protocol import control, wire
from candy.protocol.control import Confirm
from candy.protocol.keys import Shown
from candy.protocol.login import Asked
from candy.protocol.noise import Cipher, KeyPair

SILENCE_S: Final = 4.0
PING_S: Final = 0.5
LOG_IN_S: Final = 5.0
"""A log-in waits up to 3 s for an answer of NATS."""
PAUSE_S: Final = (0.1, 0.4)
"""Between two attempts."""
SEND_S: Final = 0.2
BROADCAST: Final = IPv4Address("255.255.255.255")


class Wanderers:
    """All devices, and what they have seen.

    Args:
        hub: where they connect from.
        relays: where to, by name.
        passwords: of networks, by path.
    """

    def __init__(
        self, hub: Namespace, relays: Mapping[str, tuple[str, int]], passwords: Mapping[str, str], seed: int
    ) -> None:
        self.hub = hub
        self.relays = relays
        self.passwords = passwords
        self.random = random.Random(seed)
        self.devices: list[Device] = []
        self.faults: list[str] = []
        self.round = 0
        """Of packets that are sent."""
        self.reached: set[tuple[str, IPv4Address, IPv4Address]] = set()
        """Networks and addresses: from whom a packet of this round has reached whom; begin_round() empties it."""
        self.rival_s = 0.0
        """How long two rivals were in at once, at most."""
        self._group: asyncio.TaskGroup | None = None

    def add(self, path: str, *, has_key: bool = False, claims: IPv4Address | None = None) -> None:
        """One more, which begins to live at once where the others do.

        Args:
            has_key: it logs in by one; else as old clients do.
            claims: the address that rivals want.
        """
        device = Device(self, len(self.devices), path, has_key, claims)
        self.devices.append(device)
        if self._group is not None:
            self._group.create_task(device.live())

    def begin_round(self) -> None:
        self.round += 1
        self.reached.clear()

    def missing(self) -> list[str]:
        """What is not as it has to be while all is whole: each device has one connection, and reaches all others."""
        found, there = [], []
        for device in self.devices:
            if device.is_in:
                there.append(device)
            is_second = not device.members and any(rival.is_in for rival in self.rivals(device))
            if len(device.members) != 1 and not is_second:
                at = [each.relay for each in device.members]
                found.append(f"{device.name} has {len(at)} connections, at {at}: {device.why}")
        for one, other in itertools.permutations(there, 2):
            if one.path != other.path:
                continue
            if one.address == other.address:
                found.append(f"{one.name} and {other.name} both have {one.address}")
            elif (one.path, one.address, other.address) not in self.reached:
                found.append(f"{one.name} does not reach {other.name}")
        return found

    def rivals(self, device: "Device") -> list["Device"]:
        """Who else has its address, or wants it."""
        return [
            other
            for other in self.devices
            if other is not device and (other.path, other.address) == (device.path, device.address)
        ]

    def fault(self, text: str) -> None:
        self.faults.append(f"{time.strftime('%X')} round {self.round}: {text}")

    async def live(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as self._group:
            for device in self.devices:
                self._group.create_task(device.live())


class Device(Speaker):
    """One of them.

    Args:
        number: from 0 on.
        has_key, claims: see Wanderers.add().
    """

    def __init__(
        self, all_of_them: Wanderers, number: int, path: str, has_key: bool, claims: IPv4Address | None
    ) -> None:
        super().__init__(b"wanders%09x" % number, all_of_them.passwords[path])
        self._all = all_of_them
        self.number = number
        self.path = path
        self.name = f"{number}{path}{' by key' if has_key else ''}"
        self.key: KeyPair | None = pair(os.urandom(32)) if has_key else None
        self.ticket: Ticket | None = None
        self.claims = claims
        self.address = claims
        """The one that it claims, or was granted first, and so for good."""
        self.why = ""
        """Why its last attempt failed, or its last connection ended."""
        self.members: list[Connection] = []
        """Connections by which it is in, the last one last."""
        self.attempts = 0
        self._stamp = 0
        self._wants: asyncio.Queue[tuple[str, ...]] = asyncio.Queue()

    @property
    def identity(self) -> bytes:
        """As grants have it."""
        return self.vmac if self.key is None else self.key.public

    @property
    def is_in(self) -> bool:
        return bool(self.members)

    @property
    def stamp(self) -> int:
        """Of its next message with a hash: of a second in which there was none."""
        self._stamp = max(self._stamp + 1, int(time.time()))
        return self._stamp

    def go_to(self, *relays: str) -> None:
        """Log in there, at all of them in the same moment."""
        self._wants.put_nowait(relays)

    async def live(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._talk())
            while True:
                wanted: tuple[str, ...] = ()
                with suppress(TimeoutError):
                    async with asyncio.timeout(PING_S):
                        wanted = await self._wants.get()
                usable = [each for each in self.members if not each.is_silent]
                if not wanted and not usable:
                    wanted = (self._next_relay(),)
                if not wanted:
                    continue
                opened = [group.create_task(self._log_in(relay, group)) for relay in wanted]
                await asyncio.wait(opened)
                if not any(task.result() for task in opened):
                    await asyncio.sleep(self._all.random.uniform(*PAUSE_S))

    def _next_relay(self) -> str:
        self.attempts += 1
        names = list(self._all.relays)
        return names[(self.number + self.attempts) % len(names)]

    async def _log_in(self, relay: str, group: asyncio.TaskGroup) -> bool:
        """Whether it is in."""
        connection = Connection(self._all, self, relay)
        try:
            async with asyncio.timeout(LOG_IN_S):
                address = await connection.log_in()
        except (OSError, Ended, TimeoutError) as error:
            self.why = f"{relay}: {error or type(error).__name__}"
            connection.close()
            return False
        if self.address is None:
            self.address = address
        if address != self.address:
            self._all.fault(f"{self.name} has {address} at {relay}, and had {self.address}: its grant is lost")
        for rival in self._all.rivals(self):
            if rival.is_in and self.claims is None:
                self._all.fault(f"{self.name} and {rival.name} both have {address}")
        connection.ip = address
        connection.since = time.monotonic()
        self.members.append(connection)
        group.create_task(self._stay(connection))
        return True

    async def _stay(self, connection: "Connection") -> None:
        try:
            await connection.read()
        except (OSError, Ended) as error:
            self.why = f"{connection.relay}: {error}"
        finally:
            self.members.remove(connection)
            connection.close()
        now = time.monotonic()
        for rival in self._all.rivals(self):
            both = (now - max(connection.since, each.since) for each in rival.members)
            self._all.rival_s = max(self._all.rival_s, *both, 0.0)

    async def _talk(self) -> None:
        while True:
            if self.members:
                self.members[-1].send_packets()
            for each in self.members:
                each.ping()
            await asyncio.sleep(SEND_S)


class Connection:
    """One of a device's, from TCP on."""

    def __init__(self, all_of_them: Wanderers, device: Device, relay: str) -> None:
        self._all = all_of_them
        self._device = device
        self.relay = relay
        self.ip: IPv4Address | None = None
        """Once it is in."""
        self.since = 0.0
        self._reader = asyncio.StreamReader()
        self._writer: asyncio.StreamWriter | None = None
        self._data = b""
        self._heard = time.monotonic()
        self._pinged = 0.0
        self._receives: Cipher | None = None

    @property
    def is_silent(self) -> bool:
        return time.monotonic() - self._heard > SILENCE_S

    async def log_in(self) -> IPv4Address:
        """The address. Raises Ended, OSError."""
        device = self._device
        with self._all.hub:
            opened = socket.socket()
        opened.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(opened, self._all.relays[self.relay])
        except BaseException:
            opened.close()
            raise
        self._reader, self._writer = await asyncio.open_connection(sock=opened)
        offered = [f"Sec-WebSocket-Protocol: {', '.join(OFFERED)}"] if device.key is not None else []
        request = upgrade_request(*offered, path=device.path, extended=device.key is None)
        self._write(request)
        while b"\r\n\r\n" not in self._data:
            await self._more()
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101 "):
            raise Ended(head.split(b"\r\n")[0].decode())
        return await (self._log_in_by_hash() if device.key is None else self._log_in_by_key(head, device.key))

    async def _log_in_by_hash(self) -> IPv4Address:
        device = self._device
        self._send(device.greeting(device.stamp))
        ip = device.claims
        if ip is None:
            asked = IPv4Interface((device.address or "0.0.0.0", 24 if device.address else 0))
            self._send(device.request(str(asked), device.stamp))
            while not isinstance(granted := wire.decode(await self._message()), wire.Expttun):
                pass
            ip = granted.address.ip
        self._send(device.auth(str(ip), device.stamp))
        # What it says to itself is passed on once it is in.
        to_itself = wire.General(7, 0, ip, ip, b"wanderer").encode()
        self._send(to_itself)
        while await self._message() != to_itself:
            pass
        return ip

    async def _log_in_by_key(self, head: bytes, key: KeyPair) -> IPv4Address:
        device = self._device
        lines = (line.partition(": ") for line in head.decode().split("\r\n"))
        shown = Shown.parse({name: value for name, _, value in lines}.get)
        by = by_password(device.password.decode()) if device.ticket is None else Credentials(ticket=device.ticket)
        log_in = LogIn(
            key,
            by,
            configured=shown.key.network,
            known=None,
            offered=OFFERED,
            ephemeral=pair(os.urandom(32)),
            primitives=PRIMITIVES,
            verify=verify,
        )
        self._send(log_in.begin(shown, Asked()))
        outcome = log_in.read(await self._message())
        if not outcome.is_in:
            raise Ended(f"refused: {outcome.told}")
        device.ticket = outcome.ticket or device.ticket
        ip = outcome.told.address.ip
        sends, receives = Cipher(PRIMITIVES, outcome.sends), Cipher(PRIMITIVES, outcome.receives)
        self._send(control.seal(sends, Confirm().encode()))
        self._send(control.seal(sends, control.Ask((ip,)).encode()))
        while True:
            message = await self._message()
            if message[0] == control.CONTROL:
                told = control.decode(control.opened(receives, message))
                if isinstance(told, control.Tell):
                    return ip
                if isinstance(told, control.Closing):
                    raise Ended(f"closed: {told}")

    async def read(self) -> None:
        """What comes, up to the end. Raises Ended, OSError."""
        while True:
            message = await self._message()
            if message[:1] == bytes([wire.Kind.FORWARD]):
                self._took(message[1:])

    def _took(self, taken: bytes) -> None:
        device = self._device
        source, destination = IPv4Address(taken[12:16]), IPv4Address(taken[16:20])
        path, round_of, sender, receiver = taken[20:].decode().split(" ")
        if path != device.path:
            self._all.fault(f"{device.name} got a packet of the network {path}, from {source}")
        elif sender != str(source) or receiver != str(destination) or destination not in (self.ip, BROADCAST):
            self._all.fault(f"{device.name} got a packet from {sender} ({source}) for {receiver} ({destination})")
        elif int(round_of) == self._all.round and destination == self.ip and device.members[-1] is self:
            self._all.reached.add((path, source, destination))

    def send_packets(self) -> None:
        """One to each other device of its network, and one to all."""
        device = self._device
        others = {other.address for other in self._all.devices if other.path == device.path and other.address}
        for destination in {*others, BROADCAST} - {self.ip}:
            text = f"{device.path} {self._all.round} {self.ip} {destination}".encode()
            self._send(bytes([wire.Kind.FORWARD]) + packet(str(self.ip), str(destination), text, protocol=253))

    def ping(self) -> None:
        now = time.monotonic()
        if now - self._pinged >= PING_S:
            self._pinged = now
            self._write(frame(b"wanderer", PING))

    def close(self) -> None:
        """Idempotent."""
        if self._writer is not None:
            self._writer.transport.abort()

    def _send(self, message: bytes) -> None:
        # A mask that no kind begins like, as candy.3 has it.
        mask = bytes([128 + os.urandom(1)[0] % 127]) + os.urandom(3)
        self._write(build_frame(BINARY, message, mask=mask))

    def _write(self, data: bytes) -> None:
        assert self._writer is not None
        self._writer.write(data)

    async def _message(self) -> bytes:
        """The next binary message; a PING is answered. Raises Ended, OSError."""
        while True:
            while not (read := read_frame(self._data, MAX_CANDY3_PAYLOAD + 4)):
                await self._more()
            if not isinstance(read, Frame):
                raise Ended(f"the relay sent what deserves close code {read}")
            self._data = self._data[read.size :]
            if read.opcode == BINARY:
                return take_mask_off(read).payload if self._device.key is not None else read.payload
            if read.opcode == PING:
                self._write(frame(read.payload, PONG))
            elif read.opcode == CLOSE:
                raise Ended(f"closed with {int.from_bytes(read.payload[:2], 'big')} {read.payload[2:]!r}")

    async def _more(self) -> None:
        data = await self._reader.read(65536)
        if not data:
            raise Ended("end of stream")
        self._heard = time.monotonic()
        self._data += data
