"""What one relay asks of another, over NATS: a call and what goes with it, and lines of JSON as the answer.

    ask("us", call, given) ─▶ candy.to.us.ask.OWN ─▶ taken() ─▶ Answers(call, given) ─▶ lines ─▶ Answer
                                                                  RequestError ─▶ RequestError

    question   sealed for "ask.ASKER.ASKED.EPOCH": the asker's epoch 8 ‖ number 8 ‖ JSON [call, given]
    answer     sealed for "answer.ASKED.ASKER.ID", the question's id: parts 2 ‖ one of them, or the first
    its parts  together: status 2, 0 for an answer ‖ zlib of lines

Rules:
 1. Who asks is in the subject, on which NATS lets it alone publish (docs/cluster.md). Questions and answers are sealed
    with the relays' secret: NATS reads none, and makes none.
 2. A question counts once: it is for one start of the relay that is asked (its epoch), and has a number of its own of
    the asker's start. An answer is that to one question.
 3. Who asks waits ASK_S, and what the call itself takes. Who does not answer by then is not reached.
 4. An answer of more than PART_BYTES is fetched in parts, which the asked one keeps for KEPT_MOST questions, until
    the last part is fetched, or the next one is not within KEPT_S.
 5. So many questions are answered at once (UNDER_WAY_MOST); beyond that none is.

This module does not know what calls do.
"""

import asyncio
import json
import struct
import zlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from candy.errors import RequestError
from candy.relay.cluster.jetstream import JetStream
from candy.relay.cluster.ledger import AwayError, Bucket
from candy.relay.cluster.records import Envelope, FormatError

ASK_S: Final = 3.0
UNDER_WAY_MOST: Final = 64
PART_BYTES: Final = 256 * 1024
PARTS_MOST: Final = 256
KEPT_MOST: Final = 16
KEPT_S: Final = 10.0
"""For the next part of an answer: who asks for it later has given up."""
WINDOW: Final = 1024
"""Numbers of questions by which one may come late."""
LINE_MOST: Final = 4 * 1024 * 1024
"""Bytes of one line of an answer."""
CHUNK_BYTES: Final = 64 * 1024
_PART: Final = "part"
"""The call that fetches one."""
_NUMBERS = struct.Struct("!QQ")
_COUNT = struct.Struct("!H")
_STATUS = struct.Struct("!H")

Answers = Callable[[str, Mapping[str, Any]], AsyncIterator[bytes]]
"""Lines for a call; raises RequestError."""


class Answer:
    """What a relay has answered, still packed: lines are read as they are asked for."""

    def __init__(self, packed: bytes) -> None:
        self._packed = packed

    def lines(self) -> Iterator[Any]:
        """Raises FormatError."""
        unpacking, held = zlib.decompressobj(), b""
        packed = self._packed
        while not unpacking.eof:
            try:
                piece = unpacking.decompress(packed, CHUNK_BYTES)
            except zlib.error:
                raise FormatError("the answer of a relay is damaged") from None
            packed = unpacking.unconsumed_tail
            *lines, held = (held + piece).split(b"\n")
            for line in lines:
                try:
                    plain = json.loads(line)
                except (ValueError, RecursionError):
                    raise FormatError("the answer of a relay is no JSON") from None
                yield plain
            if len(held) > LINE_MOST or not (piece or packed or unpacking.eof):
                raise FormatError("the answer of a relay is cut, or of another version")

    def only(self) -> Any:
        """Of an answer of one line. Raises FormatError."""
        for line in self.lines():
            return line
        raise FormatError("the answer of a relay is empty")


class _Heard(NamedTuple):
    """Of one asker's questions."""

    epoch: int
    highest: int = 0
    before: int = 0
    """Bit n: the number that is n lower came."""


class Asking:
    """See the rules above.

    Args:
        epoch_of: of a relay's last start, as far as that is known; 0: it is not.
        answers: None: this relay answers nothing yet.
    """

    def __init__(self, nats: JetStream, envelope: Envelope, name: str, epoch_of: Callable[[str], int]) -> None:
        self._nats = nats
        self._envelope = envelope
        self._name = name
        self._epoch_of = epoch_of
        self.answers: Answers | None = None
        self._number = 0
        self._heard: dict[str, _Heard] = {}
        """By asker."""
        self._kept: OrderedDict[tuple[str, str], tuple[list[bytes], asyncio.TimerHandle]] = OrderedDict()
        """Answers in parts, by asker and the question's id, and what forgets them."""

    async def listen(self) -> None:
        """Answer from now on."""
        await self._nats.serve(f"candy.to.{self._name}.ask.*", self._taken, UNDER_WAY_MOST)

    async def ask(self, relay: str, call: str, given: Mapping[str, Any], takes_s: float = 0.0) -> Answer:
        """Ask another relay.

        Args:
            takes_s: what the call itself takes.

        Raises:
            RequestError: it refuses.
            AwayError: it was not reached.
        """
        own, first, count = await self._ask_part(relay, call, given, ASK_S + takes_s)
        parts = [first]
        for part in range(1, count):
            _, piece, _ = await self._ask_part(relay, _PART, {"id": own, "part": part}, ASK_S)
            parts.append(piece)
        whole = b"".join(parts)
        try:
            [status] = _STATUS.unpack_from(whole)
            answer = Answer(whole[_STATUS.size :])
            if status:
                raise RequestError(str(answer.only()), status)
        except (FormatError, struct.error) as error:
            raise AwayError(f"the answer of {relay} can't be read: {error}") from None
        return answer

    async def _ask_part(self, relay: str, call: str, given: Mapping[str, Any], wait_s: float) -> tuple[str, bytes, int]:
        """The question's id, the part, and how many there are."""
        self._number += 1
        content = _NUMBERS.pack(self._epoch_of(self._name), self._number) + json.dumps([call, given]).encode()
        about = f"ask.{self._name}.{relay}.{self._epoch_of(relay)}"
        sealed, own = self._envelope.seal(Bucket.RELAYS, about, content)
        answer = await self._nats.request(f"candy.to.{relay}.ask.{self._name}", sealed, wait_s)
        try:
            about = f"answer.{relay}.{self._name}.{own.hex()}"
            opened = self._envelope.open(Bucket.RELAYS, about, answer).content
            [count] = _COUNT.unpack_from(opened)
        except (FormatError, struct.error) as error:
            raise AwayError(f"the answer of {relay} can't be read: {error}") from None
        return own.hex(), opened[_COUNT.size :], min(count, PARTS_MOST)

    async def _taken(self, subject: str, message: bytes) -> bytes | None:
        """Answer a question; None: it is none."""
        asker = subject.rpartition(".")[2]
        try:
            own, call, given = self._opened(asker, message)
        except FormatError:
            return None
        if call == _PART:
            key, part = (asker, str(given.get("id"))), given.get("part")
            parts = self._forget(key)
            if parts and part != len(parts) - 1:
                self._keep(key, parts)
            if not isinstance(part, int) or not 0 <= part < len(parts):
                return None
            return self._sealed(asker, own, len(parts), parts[part])
        parts = await self._parts(call, given)
        if len(parts) > 1:
            self._keep((asker, own.hex()), parts)
        return self._sealed(asker, own, len(parts), parts[0])

    def _keep(self, key: tuple[str, str], parts: list[bytes]) -> None:
        """For who asks for the next part."""
        self._kept[key] = parts, asyncio.get_running_loop().call_later(KEPT_S, self._forget, key)
        while len(self._kept) > KEPT_MOST:
            self._forget(next(iter(self._kept)))

    def _forget(self, key: tuple[str, str]) -> list[bytes]:
        """What was kept; empty: nothing."""
        if key not in self._kept:
            return []
        parts, timer = self._kept.pop(key)
        timer.cancel()
        return parts

    def _opened(self, asker: str, message: bytes) -> tuple[bytes, str, dict[str, Any]]:
        """A question's id, its call and what goes with it, if it is new (rule 2). Raises FormatError."""
        about = f"ask.{asker}.{self._name}.{self._epoch_of(self._name)}"
        opened = self._envelope.open(Bucket.RELAYS, about, message)
        try:
            epoch, number = _NUMBERS.unpack_from(opened.content)
            call, given = json.loads(opened.content[_NUMBERS.size :])
            call, given = str(call), dict(given)
        except (struct.error, ValueError, TypeError, RecursionError):
            raise FormatError("a question is of another version") from None
        heard = self._heard.get(asker, _Heard(0))
        if epoch < heard.epoch:
            raise FormatError("a question is of a start before")
        if epoch > heard.epoch:
            heard = _Heard(epoch)
        # Those under way at once may overtake each other.
        ahead = number - heard.highest
        if ahead <= -WINDOW:
            raise FormatError("a question came too late")
        # A number may be any of 8 bytes: what is shifted by it is looked at before.
        before = 0 if ahead >= WINDOW else heard.before << max(0, ahead)
        own = 1 << max(0, -ahead)
        if before & own:
            raise FormatError("a question came before")
        self._heard[asker] = _Heard(epoch, max(number, heard.highest), (before | own) & ((1 << WINDOW) - 1))
        return opened.id, call, given

    def _sealed(self, asker: str, own: bytes, count: int, piece: bytes) -> bytes:
        about = f"answer.{self._name}.{asker}.{own.hex()}"
        return self._envelope.seal(Bucket.RELAYS, about, _COUNT.pack(count) + piece)[0]

    async def _parts(self, call: str, given: Mapping[str, Any]) -> list[bytes]:
        """A status of 2 bytes, 0 for an answer, and its lines, packed."""
        packing, packed = zlib.compressobj(1), bytearray(_STATUS.pack(0))
        try:
            if self.answers is None:
                raise RequestError("the relay is about to begin")
            async for line in self.answers(call, given):
                packed += packing.compress(line + b"\n")
                if len(packed) > PARTS_MOST * PART_BYTES - CHUNK_BYTES:
                    raise RequestError("the answer is too long")
        except RequestError as error:
            packing, packed = zlib.compressobj(1), bytearray(_STATUS.pack(error.status))
            packed += packing.compress(json.dumps(str(error)).encode() + b"\n")
        whole = bytes(packed) + packing.flush()
        return [whole[at : at + PART_BYTES] for at in range(0, len(whole), PART_BYTES)]


async def ask_all(
    asking: Asking, relays: list[str], call: str, given: Mapping[str, Any], takes_s: float = 0.0
) -> tuple[dict[str, Answer], list[str]]:
    """Ask several at once: what those said that did not refuse, and whom it did not reach."""

    async def ask(relay: str) -> Answer | None:
        try:
            return await asking.ask(relay, call, given, takes_s)
        except RequestError:
            return None

    outcomes = await asyncio.gather(*(ask(relay) for relay in relays), return_exceptions=True)
    answers: dict[str, Answer] = {}
    unreached = []
    for relay, outcome in zip(relays, outcomes, strict=True):
        if isinstance(outcome, AwayError):
            unreached.append(relay)
        elif isinstance(outcome, BaseException):
            raise outcome
        elif outcome is not None:
            answers[relay] = outcome
    return answers, unreached
