"""A command of candy: from what the user wrote to settings, a run and an exit status.

    command line ┐                 ┌ values by option, each with its origin
    environment  ┼─▶ gather() ─▶ Gathered ─▶ settings ─▶ run ─▶ exit status
    -c FILE      ┘                 └ password

Rules:
 1. The command line wins over the file. The password: -p, --password-file, CANDY_PASSWORD, then the file. One that
    every user of the machine can see is used, with a warning.
 2. An error is one line on stderr, "candy-server: …", and exit status 2 for what the user wrote, 1 for a later
    failure, a stdout that takes no output (candy.cli.stdout) among them. Only here do candy's exceptions become lines.
 3. All lines for stderr, of the log too, go through candy.cli.log: nothing waits for their reader.
 4. Relay, member and engine are imported when they start: --help, --version and --check work without them, and so
    do subcommands (candy.cli.operate).
"""

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TextIO, TypeVar, cast

import click

from candy import __version__
from candy.cli import operate
from candy.cli.files import Written, is_exposed, read_file
from candy.cli.log import JsonFormatter, StderrHandler
from candy.cli.passwords import (
    exposed,
    holds_password,
    list_of,
    password_of,
    password_of_environment,
    secret_of,
    warn_of_shared,
    without_passwords,
)
from candy.cli.stdout import Stdout
from candy.errors import ConfigError, OperationalError
from candy.host.memory import keep_private
from candy.options import OPTIONS, Option, Side, by_key, options_of_other_side, other_side
from candy.relay.settings import GivenNetwork, RelaySettings
from candy.settings import Given

if TYPE_CHECKING:
    # A relay has no use for it at run time, and its model is half a megabyte.
    from candy.member.settings import MemberSettings

log = logging.getLogger("candy")

Settings = TypeVar("Settings", RelaySettings, "MemberSettings")


@dataclass(frozen=True)
class Gathered:
    """Everything the user wrote."""

    given: dict[str, Given]
    """By option name, without the passwords' options and without the other command's."""
    password: Given | None
    """Bytes."""
    passwords: tuple[Given, ...]
    """Of a file's list, each a Password."""
    networks: tuple[GivenNetwork, ...]
    """Of a file."""
    from_file: bool
    """A configuration file was read."""


class Command(click.Group, Generic[Settings]):
    """One of the two commands. Without a subcommand it runs its side; check is a subcommand as well as an option.

    Args:
        side: names the command and chooses its options.
        about: the first sentence of --help.
        configure: validates, and with the second argument set leaves no trace anywhere (--check).
        doubts: what --check says of settings that are sound and perhaps not meant.
        more: subcommands beside those that ask a program which runs.
        run: starts the side; returns its exit status. Its second argument reads the settings again and raises their
            errors; it is None without a file.
    """

    _stderr: StderrHandler
    _stdout: TextIO | None
    """While main() runs. A side that runs does with stdout what it likes."""

    def __init__(
        self,
        side: Side,
        about: str,
        configure: Callable[[Gathered, bool], Settings],
        run: Callable[[Settings, Callable[[], Settings] | None], int],
        doubts: Callable[[Gathered, Settings], Sequence[str]] = lambda gathered, settings: (),
        more: Sequence[click.Command] = (),
    ) -> None:
        written: list[click.Parameter] = [
            click.Option(["-c", "--config"], metavar="FILE", help="read options from this file, TOML or candy.cfg"),
            *(_click_option(option) for option in OPTIONS[side] if option.is_flag),
            click.Option(["-m", "--mode"], hidden=True),
            *(_click_option(option, hidden=True) for option in options_of_other_side(side)),
        ]
        context_settings: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
        super().__init__(
            f"candy-{side}",
            params=[*written, click.Option(["--check"], is_flag=True, help="check the settings and exit")],
            callback=self._start,
            invoke_without_command=True,
            subcommand_metavar="[COMMAND]",
            help=about,
            epilog=f"Options of the original that are candy-{other_side(side)}'s are accepted and ignored.",
            context_settings=context_settings,
        )
        click.version_option(__version__, message="%(prog)s %(version)s")(self)
        for command in (*operate.commands(side), *more):
            self.add_command(command)
        about_check = "Check the settings and exit, as --check does."
        self.add_command(
            click.Command(
                "check", params=written, callback=self._check, help=about_check, context_settings=context_settings
            )
        )
        self.side: Side = side
        self.configure: Callable[[Gathered, bool], Settings] = configure
        self.doubts: Callable[[Gathered, Settings], Sequence[str]] = doubts
        self.run: Callable[[Settings, Callable[[], Settings] | None], int] = run

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Run, and end the process with rule 2's exit status."""
        keep_private()
        self._stderr, self._stdout = StderrHandler(), sys.stdout
        try:
            with redirect_stdout(cast(TextIO, Stdout(sys.stdout))):
                status = super().main(args, self.name, complete_var, standalone_mode=False, **extra)
        except click.UsageError as error:
            status = self._fail(f"{error.format_message().removesuffix('.')} (see {self.name} --help)", 2)
        except (ConfigError, OperationalError) as error:
            status = self._fail(str(error), error.exit_status)
        except click.Abort:
            status = 130
        finally:
            logging.root.removeHandler(self._stderr)
            self._stderr.close()
        sys.exit(status)

    def _check(self, **written: Any) -> int:
        """What stands behind the subcommand wins over what stands before it."""
        context = click.get_current_context()
        before = {} if context.parent is None else context.parent.params
        given = {key: value for key, value in written.items() if value not in (None, ())}
        return self._run(**(before | given | {"check": True}))

    def _start(self, **written: Any) -> int:
        # A subcommand follows, which asks a program that runs.
        return 0 if click.get_current_context().invoked_subcommand is not None else self._run(**written)

    def _run(self, config: str | None, mode: str | None, check: bool, **written: Any) -> int:
        told: set[str] = set()

        def collect(tell: Callable[[str], None]) -> Gathered:
            def tell_once(warning: str) -> None:
                if warning not in told:
                    told.add(warning)
                    tell(warning)

            return gather(self.side, config, mode, written, os.environ, tell_once)

        def reread() -> Settings:
            return self.configure(collect(log.warning), True)

        # What is logged before the settings say how.
        self._stderr.setFormatter(logging.Formatter(f"{self.name}: warning: %(message)s"))
        logging.root.addHandler(self._stderr)
        gathered = collect(self._warn)
        settings = self.configure(gathered, check)
        if check:
            for doubt in self.doubts(gathered, settings):
                self._warn(doubt)
            click.echo(f"{self.name}: the settings are sound")
            return 0
        text = logging.Formatter(("%(asctime)s " if settings.timestamps else "") + "%(levelname)s %(message)s")
        self._stderr.setFormatter(JsonFormatter(settings.timestamps) if settings.log_format == "json" else text)
        logging.root.setLevel(logging.DEBUG if settings.debug else logging.INFO)
        # The libraries' own debugging. pyroute2 resets the level of its topmost logger when it is imported, later.
        for library in ("asyncio", "pyroute2.iproute", "pyroute2.netlink"):
            logging.getLogger(library).setLevel(logging.WARNING)
        try:
            with redirect_stdout(self._stdout):
                return self.run(settings, reread if config is not None else None)
        except ModuleNotFoundError as error:
            if error.name != "candy._fastpath":
                raise
            raise OperationalError("the engine is not compiled: run make build, or pip install .") from error

    def _fail(self, message: str, status: int) -> int:
        self._say(message)
        return status

    def _warn(self, message: str) -> None:
        self._say(f"warning: {message}")

    def _say(self, message: str) -> None:
        line = " ".join(message.splitlines())
        # A quoted value may be binary, and the terminal must not act on its control characters.
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)
        self._stderr.say(f"{self.name}: {shown}")


def _click_option(option: Option, hidden: bool = False) -> click.Option:
    flag = f"{option.flag}/--no-{option.key}" if option.kind is bool and option.default else option.flag
    names = [flag, option.key] if option.short is None else [option.short, flag, option.key]
    return click.Option(
        names,
        metavar=option.metavar,
        help=option.help,
        is_flag=option.kind is bool,
        multiple=option.repeats,
        default=None,
        hidden=hidden,
    )


def gather(
    side: Side,
    config: str | None,
    mode: str | None,
    written: Mapping[str, Any],
    environ: Mapping[str, str],
    warn: Callable[[str], None],
) -> Gathered:
    """Bring together what was written in all places.

    Args:
        config: the -c option.
        mode: the -m option.
        written: the other options by name; None where not given.
        environ: for CANDY_PASSWORD.
        warn: called with each warning.

    Raises:
        ConfigError: a file can't be read or understood, or this is the wrong command.
    """
    if config == "":
        raise ConfigError("--config: no file is named: give the path of one, or leave it out")
    file = Written() if config is None else read_file(Path(config), side)
    for warning in file.warnings:
        warn(warning)
    flags = {option.key: option.flag for option in (*OPTIONS[side], *options_of_other_side(side))}
    line = {key: Given(value, flags[key]) for key, value in written.items() if value not in (None, ())}
    _check_mode(side, Given(mode, "--mode") if mode is not None else file.given.get("mode"))

    if "password" in line:
        warn("--password: every user of this machine can see it: better CANDY_PASSWORD or --password-file")
    password = password_of(line, warn) or password_of_environment(environ) or password_of(file.given, warn)
    if config is not None and is_exposed(Path(config)) and holds_password(file):
        warn(f"{config}: {exposed(config, 'the password in it')}")

    given = file.given | line
    if (tls_key := given.get("tls_key")) is not None:
        # One in a file is text, several are a tuple.
        for key in (tls_key.value,) if isinstance(tls_key.value, str) else tls_key.value:
            if is_exposed(Path(key)):
                warn(f"{tls_key.origin}: {exposed(key)}")
    if (cluster := given.get("cluster")) is not None:
        for key in {"credentials", "secret_file"} & cluster.value.keys():
            if is_exposed(Path(cluster.value[key].value)):
                warn(f"{cluster.value[key].origin}: {exposed(cluster.value[key].value)}")
    if "sdwan" in line:
        # Rules on the command line replace the file's in either form.
        given.pop("routes", None)
    ours = by_key(side)
    for key, value in list(given.items()):
        option = ours.get(key)
        if option is not None and option.is_idle:
            warn(f"{value.origin}: has no effect yet")
        elif option is None and key != "mode":
            warn(f"{value.origin}: is an option of candy-{other_side(side)}: ignored")
        if option is None:
            del given[key]
    given |= secret_of(given, warn)
    main = GivenNetwork(Given("/", ""), without_passwords(given), password, list_of(file.given, warn))
    networks = tuple(
        GivenNetwork(path, without_passwords(table), password_of(table, warn), list_of(table, warn))
        for path, table in file.networks
    )
    warn_of_shared((main, *networks), warn)
    return Gathered(dict(main.given), password, tuple(main.passwords), networks, config is not None)


def _check_mode(side: Side, mode: Given | None) -> None:
    if mode is None or mode.value == side:
        return
    if mode.value == other_side(side):
        raise ConfigError(f"{mode.origin}: this is candy-{side}: run candy-{mode.value} for mode {mode.value}")
    raise ConfigError(f"{mode.origin}: {mode.value!r} is not a mode: use client or server, or leave it out")
