"""The subcommands of candy-client that are about this device and its keys. They ask no program that runs.

    candy-client [OPTIONS] join LINK|-      redeem an invitation, and write the file to start with
                 accept KEY                 believe a key that was refused
                 secret new [FILE]          a secret for the members of a network

Rules:
 1. Which device, and where its state is: -n and CANDY_STATE_DIR, as for the member itself, and the file of -c, but for
    join, which writes that file.
 2. join writes the other options that stand before it into the file, and no password. A file that is there already is
    never written over.
 3. An invitation is in no message.

The engine is imported by join alone.
"""

import json
import os
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from candy.cli.gathering import gather
from candy.errors import CandyError, ConfigError, OperationalError
from candy.member.keys import MemberKeys
from candy.member.settings import MemberSettings, member_settings
from candy.member.trust import accepted
from candy.options import OPTIONS
from candy.protocol.keys import SECRET_BYTES, fingerprint
from candy.protocol.link import Invitation, Link
from candy.protocol.secret import Secret
from candy.settings import state_folder

_STANDARD_INPUT = "-"
_LINK_MAX = 4096
_UNWRITTEN = frozenset({"websocket", "password", "password_file"})
"""Options before join that go into no file."""


def join(link: str) -> int:
    before = _before()
    if before.get("websocket"):
        raise ConfigError("-w: the link names the relay: leave it out")
    line, network, invitation = _read(_from_standard_input() if link == _STANDARD_INPUT else link.strip())
    written = {key: value for key, value in before.items() if value not in (None, ()) and key not in _UNWRITTEN}
    path = Path(before["config"]) if before.get("config") else usual_file(written.get("name"))
    settings = _settings({**before, "config": None, "websocket": line})
    is_new = _write(path, line, written)
    # It takes a while, and is needed here alone.
    from candy.member import joining

    try:
        address = joining.join(settings, invitation)
    except CandyError:
        if is_new:
            path.unlink(missing_ok=True)
        raise
    device = MemberKeys(settings.state_dir, settings.name).device(secrets.token_bytes)
    click.echo(f"joined as {address}; this device is {fingerprint(device.public)}")
    click.echo(f"the network's key is {fingerprint(network)}")
    click.echo(f"start it with candy-client -c {path}")
    return 0


def _read(link: str) -> tuple[str, bytes, Invitation]:
    """The line for the configuration, the network's key, and what lets in."""
    url, _, fragment = link.partition("#")
    try:
        parsed = Link.parse(fragment)
    except ValueError as error:
        raise ConfigError(f"the link {error}") from None
    if parsed.invitation is None:
        raise ConfigError("the link invites nobody: it is the line of -w, which goes with a password or a credential")
    if parsed.invitation.until < time.time():
        ended = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(parsed.invitation.until))
        raise ConfigError(
            f"the invitation expired at {ended}, by this machine's clock: ask the relay's operator for another"
        )
    line = f"{url}#{Link(parsed.network, pin=parsed.pin).encode()}"
    return line, parsed.network, parsed.invitation


def _from_standard_input() -> str:
    text = sys.stdin.readline(_LINK_MAX).strip()
    if not text:
        raise ConfigError("there is no link on standard input: paste it there, and press return")
    return text


def _settings(before: Mapping[str, Any]) -> MemberSettings:
    """The member's, by what stands before the subcommand."""
    gathered = gather("client", before["config"], None, _options(before), {}, _pass_over)
    return member_settings(gathered.given, password=None)


def _options(before: Mapping[str, Any]) -> dict[str, Any]:
    return {option.key: before.get(option.key) for option in OPTIONS["client"] if option.is_flag}


def _pass_over(warning: str) -> None:
    """The member itself says it when it starts."""


def _write(path: Path, line: str, written: Mapping[str, Any]) -> bool:
    """Have the file hold the relay's line and these options; whether it is new."""
    settings: dict[str, Any] = {"websocket": line}
    for option in OPTIONS["client"]:
        if (value := written.get(option.key)) is not None:
            # The settings are validated, so a number is one.
            settings[option.key] = int(value) if option.kind is int else value
    text = "".join(f"{key} = {_toml(value)}\n" for key, value in settings.items()).encode()
    is_new = _create(path, text)
    if not is_new and path.read_bytes() != text:
        raise ConfigError(f"{path} is there already, and says something else: name another file with -c before join")
    return is_new


def _create(path: Path, content: bytes) -> bool:
    """Write a file for this user alone; False: there is one already."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
    except FileExistsError:
        return False
    except OSError as error:
        raise OperationalError(f"cannot write {path}: {error.strerror}: name another file") from None
    return True


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    # JSON's texts, numbers, true and false are TOML's as well.
    return json.dumps(value, ensure_ascii=False)


def usual_file(name: str | None) -> Path:
    """The one to start with unless another is named."""
    file = f"{name or 'client'}.toml"
    if os.geteuid() == 0:
        return Path("/etc/candy", file)
    xdg, home = os.environ.get("XDG_CONFIG_HOME", ""), os.environ.get("HOME")
    if xdg.startswith("/"):
        return Path(xdg, "candy", file)
    if home:
        return Path(home, ".config/candy", file)
    raise ConfigError("no HOME for the file to start with: name one with -c before join")


def accept(key: str) -> int:
    before = _before()
    name, configured = before.get("name"), None
    if before.get("config") or before.get("websocket"):
        settings = _settings(before)
        name, configured, folder = settings.name, settings.network_key, settings.state_dir
    else:
        folder = state_folder(os.environ, os.geteuid())
    kept = MemberKeys(folder, name)
    try:
        kept.keep_known(accepted(key, configured, kept.known()))
    except ValueError as error:
        raise ConfigError(f"the key {key!r} {error}") from None
    click.echo("accepted: it is believed from the next connection on")
    return 0


def secret_new(file: str | None) -> int:
    line = str(Secret(secrets.token_bytes(SECRET_BYTES)))
    if file is None:
        click.echo(line)
        return 0
    path = Path(file)
    if not _create(path, f"{line}\n".encode()):
        raise ConfigError(f"{path} is there already: name another file, or remove it if no member has its secret")
    click.echo(f"{path} has the secret: copy it to each member, and to no relay", err=True)
    return 0


def _before() -> Mapping[str, Any]:
    """What stands before the subcommand."""
    parent = click.get_current_context().parent
    return {} if parent is None else parent.params
