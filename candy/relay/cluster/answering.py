"""What relays ask of each other by themselves, and what comes of it; operators' questions are passed on.

    probe(shared, ip, relay) ─▶ "probe" there ─▶ PING to its member ─▶ answered, or it loses its address ─▶ is it there?
    revoked(path, device) ─▶ "revoked" there: the device is out ─▶ whom that did not reach
    exchange() ─▶ "used" there: what is new of what devices carried ─▶ candy.relay.cluster.quotas
    "members", "find", "kick" … ─▶ operators: candy.relay.control

No relay decides for another: it says what it has done.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from itertools import islice
from operator import index
from typing import TYPE_CHECKING, Any, Final

from candy.errors import RequestError
from candy.relay.cluster.asking import Answers
from candy.relay.cluster.ledger import AwayError
from candy.relay.cluster.quotas import Row
from candy.relay.cluster.records import Credential, FormatError
from candy.relay.enrolment import Device

if TYPE_CHECKING:
    from candy.relay.cluster.cluster import Cluster
    from candy.relay.cluster.shared import Shared


ROWS_AT_ONCE: Final = 1000


class Answering:
    """See above."""

    def __init__(self, cluster: "Cluster") -> None:
        self._cluster = cluster
        self.operators: Answers | None = None
        """None: none can ask yet."""
        self._contested: set[tuple[str, int]] = set()
        self._after: dict[str, tuple[int, int]] = {}
        """By relay: its epoch, and the number of its look that was had."""

    async def answers(self, call: str, given: Mapping[str, Any]) -> AsyncIterator[bytes]:
        """Lines for a call of another relay's. Raises RequestError."""
        try:
            match call:
                case "probe":
                    shared = self._shared(str(given["network"]))
                    is_there = await self._probe_own(shared, int(given["address"]), str(given["relay"]))
                    yield json.dumps(is_there).encode()
                case "revoked":
                    shared = self._shared(str(given["network"]))
                    device = Credential.decode(str(given["device"]).encode()).device()
                    self._cluster.learning.learn_device(shared, device)
                    yield b"true"
                case "used":
                    async for line in self._used(int(given["epoch"]), int(given["after"])):
                        yield line
                case "forgive":
                    shared, ip, holder = (
                        self._shared(str(given["network"])),
                        int(given["address"]),
                        str(given["holder"]),
                    )
                    self._cluster.quotas.forgive(shared.word, ip)
                    self._cluster.decide(
                        shared, lambda network, now, wall: network.forgiven(ip, bytes.fromhex(holder), wall)
                    )
                    yield b"true"
                case _ if self.operators is not None:
                    async for line in self.operators(call, given):
                        yield line
                case _:
                    raise RequestError("the relay is about to begin")
        except (KeyError, TypeError, ValueError, FormatError) as error:
            raise RequestError(f"the question {call} is of another version: update the relays ({error})") from None

    async def revoked(self, path: str, device: Device) -> list[str]:
        """Have all relays shut out a device; those that it did not reach, which learn of it later."""
        given = {"network": path, "device": Credential.of(device).encode().decode()}
        answers, _ = await self._cluster.ask_others("revoked", given)
        return [name for name in self._cluster.others if name not in answers]

    async def exchange(self, relays: list[str]) -> None:
        """Have these say what is new of what devices have carried there; who does not answer does so next time."""
        for relay in relays:
            epoch, after = self._after.get(relay, (0, 0))
            with suppress(AwayError, FormatError, RequestError, ValueError, TypeError):
                answer = await self._cluster.asking.ask(relay, "used", {"epoch": epoch, "after": after})
                lines = answer.lines()
                epoch, number = map(index, next(lines, ()))
                for line in lines:
                    self._cluster.quotas.take(relay, map(Row.of, line))
                    await asyncio.sleep(0)
                self._after[relay] = epoch, number

    def shared(self, word: str) -> None:
        """A network is served from now on: what others have said of it before was not kept."""
        self._cluster.quotas.share(word)
        self._after.clear()

    async def _used(self, epoch: int, after: int) -> AsyncIterator[bytes]:
        own, quotas = self._cluster.directory.epoch, self._cluster.quotas
        yield json.dumps([own, quotas.number]).encode()
        rows = quotas.since(after if epoch == own else 0)
        while turn := list(islice(rows, ROWS_AT_ONCE)):
            yield json.dumps([row.plain() for row in turn]).encode()
            await asyncio.sleep(0)

    async def probe(self, shared: "Shared", ip: int, relay: str) -> None:
        """For a newcomer who waits."""
        is_there = await self._is_there(shared, ip, relay)
        if is_there is not None:
            self._cluster.decide(shared, lambda network, now, wall: network.probed(ip, now, is_there=is_there))

    async def contest(self, shared: "Shared", ip: int, relay: str) -> None:
        """That relay has a member at an address at which another one is here."""
        if (shared.path, ip) in self._contested:
            return
        self._contested.add((shared.path, ip))
        try:
            if await self._is_there(shared, ip, relay) is not False:
                self._cluster.decide(shared, lambda network, now, wall: network.lost(ip, relay, now))
            else:
                await self._cluster.decisions.take(shared, ip)
        finally:
            self._contested.discard((shared.path, ip))

    async def _is_there(self, shared: "Shared", ip: int, relay: str) -> bool | None:
        """Whether that relay's member answers; None: the relay does not."""
        given = {"network": shared.path, "address": ip, "relay": self._cluster.settings.name}
        with suppress(AwayError, FormatError, RequestError):
            answer = await self._cluster.asking.ask(relay, "probe", given, shared.network.probe_timeout)
            return answer.only() is True
        return None

    async def _probe_own(self, shared: "Shared", ip: int, relay: str) -> bool:
        """Whether the member at an address here is still there; one that is not loses it."""
        answered, payload = asyncio.Event(), b""

        def ask(network: Any, now: float, wall: int) -> Any:
            nonlocal payload
            payload, actions = network.probe(ip, answered.set)
            return actions

        self._cluster.decide(shared, ask)
        if not payload:
            return False
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(answered.wait(), shared.network.probe_timeout)
        finally:
            is_there = answered.is_set()
            self._cluster.decide(
                shared, lambda network, now, wall: network.probe_over(payload, ip, relay, now, is_there=is_there)
            )
        # The asker is to see that it has left.
        await self._cluster.flush()
        return is_there

    def _shared(self, path: str) -> "Shared":
        shared = self._cluster.shares.get(path)
        if shared is None:
            raise RequestError(f"the relay does not serve the network {path!r}", 404)
        return shared
