"""Interfaces and gateways, kept as they shall be: what another program takes away is put right.

    Notifications ─▶ Reconciler.notified() ─▶ deadline ─▶ Subject.reconcile(judge) ─▶ facts put right ─▶ log
                                                             looks └─▶ Reconciler.judge() ─┘

Rules: one task for each subject; what it looks at and changes it has for itself meanwhile. Where the kernel tells of no
changes there is a look every EVERY_S.

This module decides nothing, and does not know what there is to put right.
"""

import asyncio
import logging
from collections.abc import Collection
from collections.abc import Set as AbstractSet
from math import inf
from typing import NoReturn, Protocol

from candy.errors import InterfaceGone, OperationalError
from candy.host.notifications import Kind, Notifications
from candy.host.reconciler import Fact, Judge, Reconciler, Verdict

EVERY_S = 30.0

_log = logging.getLogger(__name__)


class Subject(Protocol):
    """What is watched."""

    @property
    def name(self) -> str:
        """Of the interface, for messages."""

    @property
    def kinds(self) -> Collection[Kind]:
        """Of changes that may concern it."""

    async def reconcile(self, judge: Judge) -> None:
        """Compare what is wanted with what there is, and put right what judge chooses."""


async def watch(subject: Subject, notifications: Notifications) -> NoReturn:
    """Keep it as it shall be, until cancelled.

    Raises:
        InterfaceGone: another program removed the interface.
    """
    now = asyncio.get_running_loop().time
    changed = asyncio.Event()
    verdict = Verdict()
    said = ""

    def hear(_: Kind) -> None:
        reconciler.notified(now())
        changed.set()

    def judge(wanted: AbstractSet[Fact], found: AbstractSet[Fact]) -> tuple[Fact, ...]:
        nonlocal verdict
        verdict = reconciler.judge(wanted, found, now())
        return verdict.facts

    reconciler = Reconciler(subject.name)
    try:
        notifications.subscribe(subject.kinds, hear)
    except OSError as error:
        _log.info("%s: looked at every %.0f s, for the kernel tells of no changes: %s", subject.name, EVERY_S, error)
        reconciler = Reconciler(subject.name, EVERY_S)
    # What was changed before.
    reconciler.notified(now())
    while True:
        await _wait(changed, reconciler.deadline)
        if now() < reconciler.deadline:
            continue
        reconciler.begin(now())
        verdict, failure = Verdict(), ""
        try:
            await subject.reconcile(judge)
        except InterfaceGone:
            raise
        except OperationalError as error:
            failure = str(error)
        for line in verdict.lines:
            _log.log(logging.getLevelNamesMapping()[line.level.upper()], "%s", line.text)
        if failure and failure != said:
            _log.warning("%s", failure)
        said = failure


async def _wait(changed: asyncio.Event, deadline: float) -> None:
    """Return at the deadline, or once something has changed."""
    try:
        async with asyncio.timeout_at(deadline if deadline < inf else None):
            await changed.wait()
    except TimeoutError:
        pass
    changed.clear()
