"""The command capture: packets from a relay to stdout, as they come.

    relay ─▶ whole blocks ─▶ stdout: a file, or Wireshark

Rules:
 1. Ctrl-C, SIGTERM, and a reader that is gone end it, as do the member's end and the relay's. What was written is a
    whole file in each case, and stderr says what there was.
 2. A second Ctrl-C ends it at once.

This module does not know what is in a packet.
"""

import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from types import FrameType

import click

from candy.control.client import Asking
from candy.control.pcapng import Blocks, statistics
from candy.errors import OperationalError

GONE = select.POLLERR | select.POLLHUP | select.POLLNVAL


def run(asking: Asking, path: str, **query: object) -> None:
    """Write until one end closes.

    Raises:
        OperationalError: stdout is a terminal, or takes nothing; the relay can't be asked, or is gone.
        RequestError: it refuses.
    """
    if sys.stdout.isatty():
        raise OperationalError("packets are not for a terminal: write `| wireshark -k -i -` behind it, or `> FILE`")
    sys.stdout.write("")  # raises what there is to say of a stdout that is closed
    out = sys.stdout.fileno()
    blocks = Blocks()
    with _ended_by_signals(asking) as signals:
        Thread(target=_hang_up_with_reader, args=(asking, out), daemon=True).start()
        try:
            for piece in asking.stream("POST", path, **query):
                _write(out, blocks.feed(piece))
            why = blocks.comment
        except BrokenPipeError:
            why = "nobody reads them any more"
        except OperationalError:
            if _is_gone(out):
                why = "nobody reads them any more"
            elif signals:
                why = "interrupted"
                _write(out, statistics(time.time_ns(), blocks.packets, blocks.lost, why))
            else:
                raise
    click.echo(f"{blocks.packets} packets captured, {blocks.lost} lost: {why}", err=True)


@contextmanager
def _ended_by_signals(asking: Asking) -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM end the stream: what has come is written first. The list has those that came."""
    came: list[int] = []

    def hang_up(signum: int, frame: FrameType | None) -> None:
        came.append(signum)
        signal.signal(signum, signal.SIG_DFL)
        asking.hang_up()

    before = {signum: signal.signal(signum, hang_up) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _hang_up_with_reader(asking: Asking, out: int) -> None:
    """For a member that is silent: without a packet to write nothing tells that stdout's reader is gone."""
    poll = select.poll()
    poll.register(out, 0)
    poll.poll()
    asking.hang_up()


def _is_gone(out: int) -> bool:
    poll = select.poll()
    poll.register(out, 0)
    return any(event & GONE for _, event in poll.poll(0))


def _write(out: int, data: bytes) -> None:
    """All of it. Raises BrokenPipeError, and OperationalError: it does not take it."""
    while data:
        try:
            data = data[os.write(out, data) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OperationalError(f"cannot write to stdout: {error.strerror}") from None
