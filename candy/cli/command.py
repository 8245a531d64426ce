"""A command of candy: from what the user wrote to settings, a run and an exit status.

    command line ┐                 ┌ values by option, each with its origin
    environment  ┼─▶ gather() ─▶ Gathered ─▶ settings ─▶ run ─▶ exit status
    -c FILE      ┘                 └ password

Rules:
 1. What wins over what is candy.cli.gathering's.
 2. An error is one line on stderr, "candy-server: …", and exit status 2 for what the user wrote, 1 for a later
    failure, a stdout that takes no output (candy.cli.stdout) among them. Only here do candy's exceptions become lines.
 3. All lines for stderr, of the log too, go through candy.cli.log: nothing waits for their reader.
 4. Relay, member and engine are imported when they start: --help, --version and --check work without them, and so
    do subcommands (candy.cli.operate). --help and --version are there at once: what reads, judges and asks is imported
    by who needs it, click and candy.options alone at the top.
"""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TextIO, TypeVar, cast

import click

from candy import __version__
from candy.cli import operate
from candy.cli.log import JsonFormatter, StderrHandler
from candy.cli.stdout import Stdout
from candy.errors import ConfigError, OperationalError
from candy.host.memory import keep_private
from candy.options import OPTIONS, Option, Side, options_of_other_side, other_side

if TYPE_CHECKING:
    from candy.cli.gathering import Gathered
    from candy.member.settings import MemberSettings
    from candy.relay.settings import RelaySettings

log = logging.getLogger("candy")

Settings = TypeVar("Settings", "RelaySettings", "MemberSettings")


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
        configure: "Callable[[Gathered, bool], Settings]",
        run: Callable[[Settings, Callable[[], Settings] | None], int],
        doubts: "Callable[[Gathered, Settings], Sequence[str]]" = lambda gathered, settings: (),
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
        from candy.cli.gathering import gather

        told: set[str] = set()

        def collect(tell: Callable[[str], None]) -> "Gathered":
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
        # The library's own debugging.
        logging.getLogger("asyncio").setLevel(logging.WARNING)
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


def service_group(
    about: str, install: Callable[..., int], uninstall: Callable[..., int], *params: click.Parameter
) -> click.Group:
    """The subcommand service: what it does is candy.cli.service's."""
    settings: dict[str, Any] = {"context_settings": {"help_option_names": ["-h", "--help"]}}
    root = click.Option(["--root"], metavar="FOLDER", default="/", help="the machine whose root is this folder")
    group = click.Group("service", help=about, **settings)
    for name, callback, does in (
        ("install", install, "Write the unit, for where this program lies."),
        ("uninstall", uninstall, "End the unit and remove it; settings and state stay."),
    ):
        group.add_command(click.Command(name, params=[*params, root], callback=callback, help=does, **settings))
    return group


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
