"""candy-client doctor: what is wrong between this machine and its network, step by step.

    candy-client [OPTIONS] doctor [--json]

Rules:
 1. The options before it are the client's own. Without -c and -w they are those of the file that join writes.
 2. A client that runs with these settings is asked what it has, and is not disturbed. All else is looked at without.
 3. Exit status 0: all that matters is well.
 4. What the parts of a member would log is shown below the table, once each.

The engine is imported when it runs.
"""

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from candy.cli import tables
from candy.cli.device import usual_file
from candy.cli.gathering import gather
from candy.control.client import Asking
from candy.control.paths import VERSION
from candy.control.sockets import candidates, place
from candy.errors import OperationalError, RequestError
from candy.member.settings import MemberSettings, member_settings
from candy.options import OPTIONS

if TYPE_CHECKING:
    from candy.member.machine import Running


def doctor(is_json: bool) -> int:
    with _noting() as notes:
        settings = _settings(notes)
        # It takes a while, and is needed here alone.
        from candy.member.doctor import examine
        from candy.member.findings import is_well

        findings = examine(settings, _running(settings, notes))
    rows = [
        {"step": f.step, "state": f.state, "ms": None if f.seconds is None else f.seconds * 1e3, "text": f.text}
        for f in findings
    ]
    if is_json:
        answer = {"well": is_well(findings), "steps": rows, "notes": notes}
        click.echo(json.dumps(answer, indent=2, ensure_ascii=not sys.stdout.isatty()))
    else:
        tables.show(tables.FINDINGS, rows)
        for note in notes:
            click.echo(f"note: {note}")
    return 0 if is_well(findings) else 1


def _settings(notes: list[str]) -> MemberSettings:
    """The client's, by what stands before the subcommand."""
    parent = click.get_current_context().parent
    before = {} if parent is None else parent.params
    config = before.get("config")
    if config is None and not before.get("websocket") and (usual := usual_file(before.get("name"))).exists():
        config = str(usual)
    written = {option.key: before.get(option.key) for option in OPTIONS["client"] if option.is_flag}
    gathered = gather("client", config, None, written, os.environ, notes.append)
    password = gathered.password
    return member_settings(gathered.given, password=None if password is None else password.value)


def _running(settings: MemberSettings, notes: list[str]) -> "Running | None":
    """The client that runs with these settings."""
    for path in _sockets(settings):
        asking = Asking("member", path)
        try:
            status = asking.ask("GET", f"{VERSION}/status")
        except (OperationalError, RequestError) as error:
            if path.exists() and not os.access(path, os.W_OK):
                notes.append(str(error))
            continue
        finally:
            asking.close()
        if status["interface"] == settings.interface:
            return _as_running(status)
    return None


def _sockets(settings: MemberSettings) -> list[Path]:
    if settings.control_socket:
        return [Path(settings.control_socket)]
    usual = place("member", settings.interface, os.environ, os.geteuid())
    return list(dict.fromkeys([usual, *candidates("member", os.environ, os.geteuid())]))


def _as_running(status: Mapping[str, Any]) -> "Running":
    from candy.member.machine import Running

    routes, last_end = status["routes"], status["last_end"]
    return Running(
        state=status["state"],
        address=None if status["address"] is None else IPv4Interface(status["address"]),
        installed=frozenset(IPv4Network(route["destination"]) for route in routes if route["state"] == "installed"),
        refused={route["destination"]: route["reason"] for route in routes if route["state"] == "refused"},
        last_end=None if last_end is None or status["state"] == "connected" else last_end["reason"],
    )


class _Notes(logging.Handler):
    """Keeps lines, each once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if (line := record.getMessage()) not in self.lines:
            self.lines.append(line)


@contextmanager
def _noting() -> Iterator[list[str]]:
    """What is logged meanwhile."""
    handler, logger = _Notes(), logging.getLogger("candy")
    logger.addHandler(handler)
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)
