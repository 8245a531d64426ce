"""A program's control interface as a test asks it: every answer is held to the program's own document.

    with Control("relay", relay.control) as control: control.ask("GET", "/v1/members")

Rule: a refusal is an answer, too: refused() gives its words.
"""

import select
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kit.openapi import Document

from candy.control.client import Asking
from candy.control.sockets import Side
from candy.errors import RequestError


class Control:
    """One program's."""

    def __init__(self, side: Side, socket: Path) -> None:
        self._asking = Asking(side, socket)
        self._document = Document(self._asking.ask("GET", "/v1/openapi.json"))
        self.asked: set[tuple[str, str]] = set()
        """Operations that were answered."""
        self.answered: Any = None
        """What meanwhile() asked for."""

    @property
    def operations(self) -> set[tuple[str, str]]:
        """All that there are."""
        return self._document.operations

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._asking.close()

    def ask(self, method: str, path: str, body: object = None, **query: Any) -> Any:
        answer = self._asking.ask(method, path, body, **query)
        self.asked.add(self._document.check(method, path, 200, answer))
        return answer

    def stream(self, method: str, path: str, **query: Any) -> Iterator[bytes]:
        """The pieces of an answer that goes on until it is over, or until leave()."""
        for piece in self._asking.stream(method, path, **query):
            self.asked.add(self._document.check(method, path, 200, piece))
            yield piece

    def leave(self) -> None:
        """Want no more of a stream."""
        self._asking.hang_up()

    def meanwhile(self, method: str, path: str, **query: Any) -> Iterator[None]:
        """Ask, and give the caller a turn again and again until the answer is there: `answered`."""
        self._asking.begin(method, path, **query)
        while not select.select([self._asking], [], [], 0)[0]:
            yield
        self.answered = self._asking.answer()
        self.asked.add(self._document.check(method, path, 200, self.answered))

    def refused(self, method: str, path: str, body: object = None, **query: Any) -> tuple[int, str]:
        """Status and words."""
        try:
            answer = self._asking.ask(method, path, body, **query)
        except RequestError as error:
            self._document.check(method, path, error.status, {"error": str(error)})
            return error.status, str(error)
        raise AssertionError(f"{method} {path} is answered: {answer}")


def asked(member: Path, path: str) -> Any:
    """What a member answers, as it is; `member`: its control socket."""
    asking = Asking("member", member)
    try:
        return asking.ask("GET", path)
    finally:
        asking.close()


def sealing_of(member: Path, address: str) -> tuple[str | None, str | None]:
    """What becomes of a member's packets for an address, and the key that it knows there, as `candy-client members` has
    it."""
    found = [peer for peer in asked(member, "/v1/members")["members"] if peer["address"] == address]
    return (found[0]["sealing"], found[0]["key"]) if found else (None, None)


def drops_of(member: Path) -> Counter[str]:
    """What a member has dropped."""
    return Counter(asked(member, "/v1/status")["drops_by_reason"])
