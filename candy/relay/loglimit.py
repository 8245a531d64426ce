"""The limit on lines of the log that peers cause at will: one a minute of each kind and source, or their `at_once`.

    passes(line, now) ─▶ True: one of the first, to be written
                      └▶ False: counted ──when the minute is over: expired(now)──▶ the last of them, … and N more

Rules:
 1. Each kind has a limit of its own, so a flood of one kind hides no line of another. Of one kind SOURCES_MAX sources
    are told apart at a time, and all others count as one, so a flood from everywhere is a few lines as well.
 2. What was counted is told when the minute is over, because there may be no further line to tell it with.
 3. What members do is limited by device, so none that comes and goes all the time fills a disk. A mass reconnection
    hides nothing: of each kind DEVICES_MAX devices are told apart at a time, and lines of others are all written.

This module writes nothing. `now` is in seconds of a monotonic clock.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass

from candy.protocol.actions import Log

PERIOD_S = 60.0
SOURCES_MAX = 64
DEVICES_MAX = 1024

_Key = tuple[str, str | None]
"""A kind and a source, or None for all those beyond SOURCES_MAX."""


@dataclass(slots=True)
class _Minute:
    """Of lines with one key, after the first."""

    ends: float
    left: int
    """How many may be written yet."""
    last: Log | None = None
    count: int = 0


class LineLimiter:
    """The lines of one log."""

    __slots__ = ("_minutes", "_sources")

    def __init__(self) -> None:
        self._minutes: OrderedDict[_Key, _Minute] = OrderedDict()
        """In the order of their ends, because all last equally long."""
        self._sources: Counter[str] = Counter()
        """How many are told apart, by kind."""

    def __len__(self) -> int:
        return len(self._minutes)

    def passes(self, line: Log, now: float) -> bool:
        """Whether this line is to be written now; otherwise it is counted."""
        if line.kind is None:
            return True
        key: _Key = (line.kind, line.source)
        if key not in self._minutes and self._sources[line.kind] >= (DEVICES_MAX if line.of_member else SOURCES_MAX):
            if line.of_member:
                return True
            key = (line.kind, None)
        minute = self._minutes.get(key)
        if minute is None:
            self._begin(key, line, now)
            return True
        if minute.left:
            minute.left -= 1
            return True
        minute.last = line
        minute.count += 1
        return False

    def next_deadline(self) -> float | None:
        """When `expired` has to be called next, in the seconds of `now`; None for never."""
        return next(iter(self._minutes.values())).ends if self._minutes else None

    def expired(self, now: float) -> list[Log]:
        """A line for each minute that is over and in which lines were counted. It begins the next minute."""
        lines = []
        while (when := self.next_deadline()) is not None and when <= now:
            key, minute = self._minutes.popitem(last=False)
            self._sources[key[0]] -= key[1] is not None
            if minute.last is not None:
                lines.append(_summary(key, minute.last, minute.count))
                self._begin(key, minute.last, now)
        return lines

    def rest(self) -> list[Log]:
        """The same for all minutes that are not over: nothing is limited afterwards."""
        return [_summary(key, minute.last, minute.count) for key, minute in self._minutes.items() if minute.last]

    def _begin(self, key: _Key, line: Log, now: float) -> None:
        """With this line as its first."""
        self._minutes[key] = _Minute(now + PERIOD_S, line.at_once - 1)
        self._sources[key[0]] += key[1] is not None


def _summary(key: _Key, last: Log, count: int) -> Log:
    if count == 1:
        return last
    others = "" if key[1] is not None else " from several addresses"
    return Log(last.level, f"{last.text} … and {count - 1} more{others}", about=last.about)
