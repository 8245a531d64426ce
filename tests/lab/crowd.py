"""Members that behave well and come and go, in pairs whose two exchange numbered packets while both are there.

    crowd = Crowd(relay, …) ─▶ run() on a loop ─▶ stop() ─▶ tally, faults

Rules:
 1. Of what is sent while both are logged in every packet arrives once and in order. What was sent in the last EXCUSED_S
    before one of the two ended is what an end costs, and is excused.
 2. A connection ends because its member leaves, or because the relay is down; any other end is a fault.
 3. Nobody waits for a member: what it costs to play one does not depend on the others.
"""

import asyncio
import random
import socket
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface

from kit.peer import BINARY, CLOSE, FORWARD, PING, PONG, Frame, number_of, numbered, read_frame
from lab.member import Ended, Speaker, frame, upgrade_request
from lab.namespaces import Namespace
from lab.programs import PASSWORD

from candy.protocol import wire

EXCUSED_S = 2.0
ARRIVES_WITHIN_S = 15.0
"""A packet that took longer is lost."""
AWAY_S = (1.5, 10.0)
"""At least a second, for a second log-in with one address within one is a replay."""
PAUSE_S = (0.2, 0.8)
"""Between two packets."""
RETRY_S = 1.0
_FLOW = 4242
"""The crowd's, by which its packets are told from others'."""


@dataclass
class Direction:
    """Packets from one of a pair to the other."""

    next_number: int = 1
    last: int = 0
    """The number that arrived last."""
    waiting: dict[int, float] = field(default_factory=dict)
    """Those that have not arrived, with the time of their sending."""


class Crowd:
    """All pairs, and what became of their packets.

    Args:
        relay: its address.
        hosts: where members connect from, in turn.
        pairs: how many; of every second one both claim addresses, of the others both are granted theirs.
        claimed: the first address that is claimed.
        stay_s: how long a member stays, at least and at most.
        seed: of all that is drawn.
    """

    def __init__(
        self,
        relay: tuple[str, int],
        hosts: Sequence[Namespace],
        pairs: int,
        claimed: IPv4Address,
        stay_s: tuple[float, float],
        seed: int,
    ) -> None:
        self.relay = relay
        self.stay_s = stay_s
        self.random = random.Random(seed)
        self.tally: Counter[str] = Counter()
        self.faults: list[str] = []
        self.is_relay_up = True
        self.is_ending = False
        self.members: list[Member] = []
        for number in range(2 * pairs):
            address = claimed + number if number // 2 % 2 else None
            self.members.append(Member(self, hosts[number // 2 % len(hosts)], number, address))
        for one, other in zip(self.members[::2], self.members[1::2], strict=True):
            one.partner, other.partner = other, one

    async def run(self) -> None:
        """Until it is cancelled, or all have left because the crowd is ending."""
        async with asyncio.TaskGroup() as group:
            for member in self.members:
                group.create_task(member.live())

    async def settle(self) -> None:
        """Send no more, and wait for what is on its way; then nobody is excused any more."""
        self.is_ending = True
        end = time.monotonic() + ARRIVES_WITHIN_S
        while any(member.sent.waiting for member in self.members) and time.monotonic() < end:
            await asyncio.sleep(0.1)
        for member in self.members:
            member.part(excused=False)

    def fault(self, text: str) -> None:
        self.tally["faults"] += 1
        if len(self.faults) < 20:
            self.faults.append(f"{time.strftime('%X')} {text}")


class Member(Speaker):
    """One of them: its life is a row of connections.

    Args:
        number: from 0 on.
        address: that it claims; None: it has one granted.
    """

    def __init__(self, crowd: Crowd, host: Namespace, number: int, address: IPv4Address | None) -> None:
        super().__init__(b"c0ffee%010x" % number, PASSWORD)
        self._crowd = crowd
        self._host = host
        self._claimed = address
        self._last = IPv4Interface("0.0.0.0/0")
        self.partner = self
        self.ip: IPv4Address | None = None
        """While it is logged in."""
        self.sent = Direction()
        self._data = b""
        self._writer: asyncio.StreamWriter | None = None

    async def live(self) -> None:
        crowd = self._crowd
        await asyncio.sleep(crowd.random.uniform(0, AWAY_S[1]))
        while True:
            was_up = crowd.is_relay_up
            try:
                await self._visit()
            except (OSError, Ended, asyncio.IncompleteReadError, TimeoutError) as error:
                if was_up and crowd.is_relay_up:
                    where = "in the network" if self.ip is not None else "at the log-in"
                    crowd.fault(f"{self.vmac.decode()} {self.ip or self._last} {where}: {error or type(error)}")
                await asyncio.sleep(RETRY_S)
            finally:
                self._leave()
            await asyncio.sleep(crowd.random.uniform(*AWAY_S))

    async def _visit(self) -> None:
        """One connection, from its beginning to its leaving."""
        crowd = self._crowd
        async with asyncio.timeout(30):
            reader = await self._connect()
            ip = await self._log_in(reader)
        crowd.tally["log-ins"] += 1
        self.ip = ip
        leaves = time.monotonic() + crowd.random.uniform(*crowd.stay_s)
        reading = asyncio.create_task(self._read(reader))
        try:
            while time.monotonic() < leaves or crowd.is_ending:
                await asyncio.wait([reading], timeout=crowd.random.uniform(*PAUSE_S))
                if reading.done():
                    await reading
                elif not crowd.is_ending:
                    self._send_packet()
        finally:
            reading.cancel()

    def _leave(self) -> None:
        self.part(excused=True)
        self.partner.part(excused=True)
        self.ip = None
        self._data = b""
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None

    def part(self, *, excused: bool) -> None:
        """One of the two has ended: what is on its way to the other is excused or lost."""
        now = time.monotonic()
        for number, sent in self.sent.waiting.items():
            if excused and now - sent < EXCUSED_S:
                self._crowd.tally["excused"] += 1
            else:
                self._crowd.tally["lost"] += 1
                self._crowd.fault(f"packet {number} of {self.ip} to {self.partner.ip}, sent {now - sent:.1f} s before")
        self.sent.waiting.clear()

    def _send_packet(self) -> None:
        there = self.partner.ip
        if self.ip is None or there is None:
            return
        number = self.sent.next_number
        self.sent.next_number += 1
        self.sent.waiting[number] = time.monotonic()
        self._crowd.tally["packets"] += 1
        self._write(frame(numbered(int(self.ip), int(there), number, flow=_FLOW)))

    def _arrived(self, number: int) -> None:
        """A packet of the partner's."""
        direction = self.partner.sent
        sent = direction.waiting.pop(number, None)
        if number <= direction.last:
            self._crowd.fault(f"packet {number} of {self.partner.ip} to {self.ip} came twice or out of order")
        elif sent is not None and time.monotonic() - sent > ARRIVES_WITHIN_S:
            self._crowd.fault(f"packet {number} of {self.partner.ip} to {self.ip} took too long")
        direction.last = max(direction.last, number)

    # The conversation.

    async def _connect(self) -> asyncio.StreamReader:
        with self._host:
            opened = socket.socket()
        opened.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(opened, self._crowd.relay)
        except OSError:
            opened.close()
            raise
        reader, self._writer = await asyncio.open_connection(sock=opened)
        self._write(upgrade_request(extended=True))
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101 "):
            raise Ended(head.split(b"\r\n")[0].decode())
        return reader

    async def _log_in(self, reader: asyncio.StreamReader) -> IPv4Address:
        self._send(self.greeting())
        ip = self._claimed
        if ip is None:
            self._send(self.request(str(self._last)))
            while not isinstance(granted := wire.decode(await self._message(reader)), wire.Expttun):
                pass
            self._last = granted.address
            ip = granted.address.ip
        self._send(self.auth(str(ip)))
        # The first is passed on once Python has let us in, the second by the engine.
        to_self = wire.General(7, 0, ip, ip, b"crowd").encode()
        for message in (to_self, numbered(int(ip), int(ip), 0)):
            self._send(message)
            while await self._message(reader) != message:
                pass
        return ip

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while True:
            message = await self._message(reader)
            if message.startswith(FORWARD) and len(message) > 33:
                flow, number = number_of(message)
                if flow == _FLOW and self.partner.ip is not None and message[13:17] == self.partner.ip.packed:
                    self._arrived(number)

    async def _message(self, reader: asyncio.StreamReader) -> bytes:
        """The next binary message; a PING is answered.

        Raises:
            Ended: a close frame, or the end without one.
        """
        while True:
            while not isinstance(read := read_frame(self._data), Frame):
                if read:
                    raise Ended(f"the relay sent what deserves close code {read}")
                data = await reader.read(65536)
                if not data:
                    raise Ended("end of stream")
                self._data += data
            self._data = self._data[read.size :]
            if read.opcode == BINARY:
                return read.payload
            if read.opcode == PING:
                self._write(frame(read.payload, PONG))
            elif read.opcode == CLOSE:
                raise Ended(f"closed with {int.from_bytes(read.payload[:2], 'big')} {read.payload[2:]!r}")

    def _send(self, message: bytes) -> None:
        self._write(frame(message))

    def _write(self, data: bytes) -> None:
        if self._writer is not None:
            with suppress(ConnectionError):
                self._writer.write(data)
