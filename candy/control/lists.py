"""Answers that consist of lists, which may be long: made, encoded and sent a few items at a time.

    Lists(Members, members=iterator) ─▶ pieces() ─▶ {"members":[ · 200 items · 200 items · ]}

Rule: between two pieces everything else has the event loop, and no more than one of them is in memory. Ten thousand
items are a quarter of a second, which log-ins are not to wait.

This module does not know what the items are.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, get_type_hints

if TYPE_CHECKING:
    from pydantic import TypeAdapter

TURN = 200
"""Items of a piece."""


class Lists:
    """An answer of this shape, all of whose fields are lists; each takes its items as they are asked for."""

    def __init__(self, shape: type, **items: Iterable[object]) -> None:
        adapters = _adapters(shape)
        assert items.keys() == adapters.keys()
        self._lists = [(name, adapters[name], iter(of_list)) for name, of_list in items.items()]

    def pieces(self) -> Iterator[bytes]:
        """Of its JSON."""
        before = b"{"
        for name, adapter, items in self._lists:
            yield b'%s"%s":[' % (before, name.encode())
            yield from _joined(adapter, items)
            before = b"],"
        yield b"]}"


@cache
def _adapters(shape: type) -> "Mapping[str, TypeAdapter[Any]]":
    """Of its lists. Made once: it takes as long as hundreds of items."""
    # A program of whom nobody asks anything does without.
    from pydantic import TypeAdapter

    return {name: TypeAdapter(kind) for name, kind in get_type_hints(shape).items() if name != "__pydantic_config__"}


def _joined(adapter: "TypeAdapter[Any]", items: Iterator[object]) -> Iterator[bytes]:
    before = b""
    while turn := list(islice(items, TURN)):
        yield before + adapter.dump_json(turn)[1:-1]
        before = b","
