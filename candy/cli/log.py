"""The program's lines on stderr, written by a thread of their own: a reader that stalls holds up nothing else.

    logging ──▶ emit() ───┐
    an error's line ──────┴─▶ say() ─┬─▶ up to LINES_MAX ─▶ thread ─┬─▶ stderr
                                     └─▶ no room: lost              └─▶ it refuses (EPIPE, ENOSPC, EIO, …): lost

Rules:
 1. Only the thread waits for stderr; and close(), at the end, for LAST_LINES_S.
 2. Lost lines are counted, and the count is a line of its own as soon as stderr takes lines again.
 3. The thread writes to the descriptor without Python's buffer, which has a lock that the process's end would wait for.

This module does not know what is logged: what a record is about (`about`, a dict) JsonFormatter passes on as it is.
"""

import json
import logging
import select
import sys
import threading
import time
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any

LINES_MAX = 4096
LAST_LINES_S = 1.0
"""How long the process's end waits for the reader; what it has already kept waiting is part of it."""


class JsonFormatter(logging.Formatter):
    """A record as one JSON object: time (RFC 3339, UTC), level and message, then what it is about.

    Args:
        timestamps: with the time.
    """

    def __init__(self, timestamps: bool) -> None:
        super().__init__()
        self._timestamps = timestamps

    def format(self, record: logging.LogRecord) -> str:
        line = {"level": record.levelname.lower(), "message": record.getMessage()}
        if self._timestamps:
            when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
            line = {"time": when.replace("+00:00", "Z"), **line}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line | getattr(record, "about", {}), ensure_ascii=False)


class StderrHandler(logging.Handler):
    """Writes lines, of the log and others, in the order in which they come."""

    def __init__(self) -> None:
        self._waiting = SimpleQueue[str | int | None]()
        """Lines; of lost ones their count, in their place; None at the end."""
        super().__init__()
        # None: the descriptor was closed when the process began, and may be another file's by now.
        buffer = getattr(sys.stderr, "buffer", None)
        # With PYTHONUNBUFFERED this is the descriptor already.
        self._stream: Any = getattr(buffer, "raw", buffer)
        # Reentrant, because what the collector of garbage ends may log.
        self._guard = threading.RLock()
        self._lost = 0
        self._is_torn = False
        """Only the beginning of the last line was written."""
        self._since: float | None = None
        """When the write began that has not returned."""
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Have its line written."""
        try:
            line = self.format(record)
        except Exception:
            # As logging has it: who logs does not fail of a record that does not fit its own words.
            self.handleError(record)
        else:
            self.say(line)

    def say(self, line: str) -> None:
        """Have a line written. Never waits, and never fails."""
        if self._stream is None:
            return
        with self._guard:
            if self._waiting.qsize() >= LINES_MAX:
                self._lost += 1
                return
            self._tell_lost()
            self._waiting.put(line)
            if self._thread is None:
                # A daemon, so that the process can end while this thread waits.
                self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Wait until all is written, for LAST_LINES_S or until the reader has taken nothing for so long. Idempotent."""
        super().close()
        thread, self._thread = self._thread, None
        if thread is None:
            return
        with self._guard:
            self._tell_lost()
            self._waiting.put(None)
        since = self._since
        thread.join(LAST_LINES_S if since is None else max(0.0, since + LAST_LINES_S - time.monotonic()))

    def _tell_lost(self) -> None:
        if self._lost:
            self._waiting.put(self._lost)
            self._lost = 0

    def _write_all(self) -> None:
        while (item := self._waiting.get()) is not None:
            is_written = self._write(item if isinstance(item, str) else self._line_of_lost(item))
            with self._guard:
                if not is_written:
                    self._lost += item if isinstance(item, int) else 1
                elif self._waiting.empty():
                    self._tell_lost()

    def _line_of_lost(self, count: int) -> str:
        text = f"{count} lines of this log were lost: stderr did not take them"
        return self.format(logging.root.makeRecord("candy", logging.WARNING, "", 0, text, (), None))

    def _write(self, line: str) -> bool:
        """Wait until stderr has taken the line. False: it refuses."""
        left = memoryview(("\n" * self._is_torn + line + "\n").encode("utf-8", "backslashreplace"))
        self._since = time.monotonic()
        try:
            while left:
                taken = self._stream.write(left)
                if taken is None:
                    # Another process has made the descriptor non-blocking, which they share.
                    select.select([], [self._stream], [])
                else:
                    self._is_torn, left = taken < len(left), left[taken:]
        except OSError:
            return False
        finally:
            self._since = None
        return True
