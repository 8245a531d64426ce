"""candy-server service, candy-client service NAME: units of systemd, for where this program lies.

    install ─▶ the configuration file, the program ─▶ /etc/systemd/system/candy-server.service
                                                      /etc/systemd/system/candy-client@.service, for all NAMEs
    uninstall ─▶ the unit ends, and its file goes; configuration and state stay

Rules:
 1. A relay runs as a user of its own (DynamicUser). Where its settings name files that others can't read, it runs as
    root, who owns them.
 2. It has the capabilities that its settings need, and no other, as root neither: an interface, a port below 1024.
 3. What a unit could not start with is an error here.

The units are templates in candy/units.
"""

import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from candy.cli.files import read_file
from candy.cli.gathering import gather
from candy.cli.judging import configure
from candy.errors import ConfigError, OperationalError

if TYPE_CHECKING:
    from candy.relay.settings import RelaySettings

UNITS = Path("etc/systemd/system")
CONFIGURATION = Path("/etc/candy")
PASSWORD = CONFIGURATION / "password"
PRIVILEGED_BELOW = 1024
NOTIFY_RELOAD = 253
"""The version of systemd that has it."""
HIDDEN = (Path("/home"), Path("/root"), Path("/run/user"), Path("/tmp"), Path("/var/tmp"))
"""What a unit does not see: ProtectHome, PrivateTmp."""
FILES = (
    *("password_file", "tls_certificate", "tls_key", "control_token_file", "file"),
    *("secret_file", "credentials", "ca_file"),
)
"""Keys of a configuration file that name files which the relay reads."""


def install_server(config: str | None, root: str) -> int:
    """Write the relay's unit, by its configuration file."""
    path = Path(config).absolute() if config is not None else CONFIGURATION / "server.toml"
    settings = _relay(path, root)
    closed = [file for file in (path, *_named_in(_below(root, path))) if not _is_open(_below(root, file))]
    rights = _rights(settings)
    unit = _template("candy-server.service").format(
        program=_program("candy-server"),
        config=path,
        **_password(settings, root),
        who="" if closed else "DynamicUser=yes",
        **rights,
        **_reloads(),
    )
    _write(root, "candy-server.service", unit)
    if closed:
        has = rights["named"] or "no capability"
        click.echo(f"it runs as root, with {has}, because others can't read {closed[0]}")
    return _tell(root, "candy-server")


def install_client(name: str, root: str) -> int:
    """Write the members' unit."""
    path = CONFIGURATION / f"{_checked(name)}.toml"
    if not _below(root, path).exists():
        raise ConfigError(f"{path} is missing: redeem an invitation with candy-client -c {path} join LINK, or write it")
    _write(
        root,
        "candy-client@.service",
        _template("candy-client@.service").format(program=_program("candy-client"), **_reloads()),
    )
    return _tell(root, f"candy-client@{name}")


def uninstall(unit: str, root: str) -> int:
    """End a unit, and remove its file; a template's only when no other instance is enabled."""
    folder = Path(root) / UNITS
    file = folder / (unit.partition("@")[0] + ("@" if "@" in unit else "") + ".service")
    if not file.exists():
        raise OperationalError(f"{file} is not there: nothing is installed")
    if _is_running(root):
        _systemctl("disable", "--now", f"{unit}.service")
    others = [link.name for link in folder.glob("*.wants/candy-client@*.service") if link.name != f"{unit}.service"]
    if "@" in unit and others:
        click.echo(f"{unit} is disabled; {file} stays for {', '.join(sorted(others))}")
        return 0
    file.unlink()
    if _is_running(root):
        _systemctl("daemon-reload")
    click.echo(f"{file} is removed; {CONFIGURATION} and the state in /var/lib are left")
    return 0


def _below(root: str, path: Path) -> Path:
    """Where a file of the machine with this root is now. A unit's working folder is the root."""
    return Path(root, str(path).lstrip("/"))


def _relay(path: Path, root: str) -> "RelaySettings":
    """What the file makes."""
    file = _below(root, path)
    if not file.exists():
        raise ConfigError(f"{file} is missing: write it, or name another one with -c before service")
    return configure(gather("server", str(file), None, {}, {}, lambda warning: None), True)


def _named_in(path: Path) -> Iterator[Path]:
    """Files that the relay reads besides."""
    written = read_file(path, "server")
    for table in (written.given, *(table for _, table in written.networks)):
        entries: list[Mapping[str, Any]] = [{key: value.value for key, value in table.items()}]
        if "passwords" in table:
            entries += [each.value for each in table["passwords"].value]
        if "cluster" in table:
            entries.append({key: value.value for key, value in table["cluster"].value.items()})
        for entry in entries:
            for key in sorted(entry.keys() & set(FILES)):
                named = entry[key]
                yield from map(Path, (named,) if isinstance(named, str) else named)


def _is_open(file: Path) -> bool:
    """Every user can read it."""
    try:
        folders = all(parent.stat().st_mode & stat.S_IXOTH for parent in file.absolute().parents)
        return folders and bool(file.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False


def _rights(settings: "RelaySettings") -> dict[str, str]:
    """What its settings need of the kernel, as the template has it."""
    has_interface = any(network.tun for network in settings.networks)
    needs_port = any(0 < port < PRIVILEGED_BELOW for port in settings.ports.values())
    capabilities = ["CAP_NET_ADMIN"] * has_interface + ["CAP_NET_BIND_SERVICE"] * needs_port
    named = " ".join(capabilities)
    devices = "DevicePolicy=closed\nDeviceAllow=/dev/net/tun rw" if has_interface else "PrivateDevices=yes"
    group = "" if settings.control_group is None else f"\nSupplementaryGroups={settings.control_group}"
    # A user namespace of its own has no rights in the machine's network, and knows none of its groups.
    users = "" if capabilities or group else "\nPrivateUsers=yes"
    return {
        "named": named,
        "capabilities": f"CapabilityBoundingSet={named}\nAmbientCapabilities={named}{group}{users}",
        "devices": devices,
    }


def _reloads() -> dict[str, str]:
    """How systemd has the process read its settings again: by itself from 253 on, which waits for the end of it."""
    ran = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=False) if _has() else None
    version = None if ran is None else re.match(r"systemd (\d+)", ran.stdout)
    if version is not None and int(version[1]) >= NOTIFY_RELOAD:
        return {"kind": "Type=notify-reload", "reload": ""}
    # The shell's own kill, for a small system has no other.
    return {"kind": "Type=notify", "reload": "ExecReload=/bin/sh -c 'kill -HUP $MAINPID'"}


def _has() -> bool:
    return shutil.which("systemctl") is not None


def _password(settings: "RelaySettings", root: str) -> dict[str, str]:
    """The file beside the configuration, which the service alone is given, unless the settings have a password."""
    if not settings.networks[0].password_is_generated or not _below(root, PASSWORD).exists():
        return {"credential": "", "password": ""}
    return {
        "credential": f"LoadCredential=password:{PASSWORD}",
        "password": " --password-file ${CREDENTIALS_DIRECTORY}/password",
    }


def _checked(name: str) -> str:
    if not name or not all(c.isascii() and (c.isalnum() or c in "_.") for c in name) or name.startswith("."):
        raise ConfigError(f"the name {name!r} is none for a unit: use letters, digits, _ and .")
    return name


def _program(name: str) -> Path:
    """Where the command lies, and its Python, whose places a unit has to see."""
    program = Path(sys.executable).parent / name
    if not program.exists():
        raise OperationalError(f"{program} is missing: install candy-vpn into that environment")
    for place in (program, Path(sys.executable), Path(sys.executable).resolve()):
        if any(place.is_relative_to(hidden) for hidden in HIDDEN):
            raise OperationalError(f"{place} is where a unit can't see it: install candy-vpn into /opt/candy, say")
    return program


def _template(name: str) -> str:
    return (files("candy") / "units" / name).read_text()


def _write(root: str, name: str, unit: str) -> None:
    file = Path(root) / UNITS / name
    # What a relay does not need leaves empty lines.
    text = "\n".join(line for line in unit.splitlines() if line) + "\n"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace("\n[", "\n\n["))
    except OSError as error:
        raise OperationalError(f"cannot write {file}: {error.strerror}: run it as root") from None
    click.echo(f"{file} is written")


def _tell(root: str, unit: str) -> int:
    if _is_running(root):
        _systemctl("daemon-reload")
    click.echo(f"start it with systemctl enable --now {unit}")
    return 0


def _is_running(root: str) -> bool:
    """systemd has booted this machine."""
    return root == "/" and Path("/run/systemd/system").is_dir() and _has()


def _systemctl(*arguments: str) -> None:
    ran = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise OperationalError(f"systemctl {' '.join(arguments)}: {ran.stderr.strip() or ran.returncode}")
