"""Writes docs/reference.md: every option, key, subcommand and variable of both commands, from where they are defined.

    candy.options ────────────┐
    click's subcommands ──────┼─▶ reference() ─▶ docs/reference.md      (make reference)
    the text in this file ────┘

Rule: what a table of the program says stands nowhere in this file.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import click

from candy.cli import client, server
from candy.cli.operate import commands
from candy.cli.passwords import ENTRY_KEYS
from candy.options import NETWORK_OPTIONS, OPTIONS, Option, Side
from candy.relay.networksettings import RULE_KEYS

FILE = Path(__file__).parents[1] / "docs" / "reference.md"
COMMANDS: dict[Side, click.Group] = {"server": server.main, "client": client.main}

HEAD = """\
<!-- Made by `make reference` from candy/options.py and the subcommands. Change those, not this file. -->

# Reference

Every option, key, subcommand and variable of both commands. [operation.md](operation.md) says how to use them.

- **Key.** The name in a file, `-c FILE`. A row without an option is a key of TOML files alone.
- **Value.** `switch`: without a value on the command line, `true` or `false` in a file. A range has both of its ends.
  `…` behind a value: the option may be repeated, and in TOML it may be a list.
- **Default.** What holds if nothing is said. An empty cell: nothing.
- **Change.** `reload`: SIGHUP or `candy-server reload` applies it, if the command was started with `-c`. `restart`: it
  takes a restart.
- **cfg.** `yes`: a file in the original's grammar, `candy.cfg`, has the key too.

The command line wins over the file. A TOML file with a key that is not here is an error.
"""
OF_NETWORK = """\
On the command line and at the top of a file these are of the network `/`. The keys may also stand in a table
`[network."/path"]`, for a further network. There a key that is missing has its default, and not the value from above.

A file without `dhcp` means no pool, for each of its networks. A reload applies a `dhcp` that has the one before in it.
"""
LISTS = """\
An entry of `passwords` has the keys {entry}
([examples](operation.md#replacing-a-password)), an entry of `routes` the keys {rule}.
"""
SUBCOMMANDS: dict[Side, str] = {
    "server": "Of the options that stand before a subcommand `-c` and `--control-socket` count, which say whom to ask.",
    "client": "Of the options that stand before a subcommand `-c` and `--control-socket` count, which say whom to ask. "
    "`join`,\n`accept` and `doctor` ask nobody, or not only, and take the others as well.",
}
VARIABLES = """\
## Variables

| variable | what it says |
|---|---|
| `CANDY_PASSWORD` | the password of the network `/`; `-p` and `--password-file` win over it, and it wins over a file |
| `CANDY_STATE_DIR` | where state is; else in `STATE_DIRECTORY`, `/var/lib/candy` for root, or `~/.local/state/candy` |
| `STATE_DIRECTORY`, `RUNTIME_DIRECTORY` | systemd's: where state and the control socket are |
| `XDG_RUNTIME_DIR` | where the control socket is for a user other than root, in `candy/` there |
| `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY` | of a member: [through a proxy](operation.md#through-a-proxy) |

## Exit status

| status | what it says |
|---|---|
| 0 | ended as asked, or the settings are sound |
| 1 | a failure of the machine, of the network or of the program that was asked |
| 2 | a mistake in options or file; a restart does not mend it |
| 130 | interrupted at a question |
"""


def reference() -> str:
    """The whole document."""
    parts = [HEAD, *(part for side in get_args(Side) for part in _of_command(side)), VARIABLES]
    return "\n".join(parts)


def _of_command(side: Side) -> Iterator[str]:
    yield f"## candy-{side}\n\n{_sentence(COMMANDS[side].help)}\n"
    own = [option for option in OPTIONS[side] if side == "client" or option not in NETWORK_OPTIONS]
    yield "\n".join(_table(own)) + "\n"
    yield "\n".join(_rows_of_click(_of_click_alone(side))) + "\n"
    if side == "server":
        lists = LISTS.format(entry=_listed(ENTRY_KEYS), rule=_listed(RULE_KEYS))
        yield "\n".join(["### Of a network\n", OF_NETWORK, *_table(NETWORK_OPTIONS), "", lists])
    asking = commands(side)
    common = [param for param in asking[0].params if all(_is_of(param, command) for command in asking)]
    yield f"### Subcommands of candy-{side}\n\n{SUBCOMMANDS[side]}\nAll that ask a program have these options:\n"
    yield "\n".join(_rows_of_click(common)) + "\n"
    yield "\n\n".join(_of_group(f"candy-{side}", COMMANDS[side], common)) + "\n"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


# Options of candy.options


def _table(options: Sequence[Option]) -> Iterator[str]:
    yield "| option | key | value | default | change | cfg | meaning |"
    yield "|---|---|---|---|---|---|---|"
    yield from map(_row, options)


def _row(option: Option) -> str:
    flags = ", ".join(f"`{name}`" for name in (option.short, option.flag) if name) if option.is_flag else ""
    if option.kind is bool and option.default:
        flags += f", `--no-{option.key.replace('_', '-')}`"
    meaning, _, default = option.help.partition("  [")
    change = "reload" if option.reloads else "restart"
    cells = [
        flags,
        f"`{option.key}`",
        _value(option),
        _default(option, default.removesuffix("]")),
        change,
        "yes" if option.is_original else "",
        meaning,
    ]
    return _line(cells)


def _line(cells: Sequence[str]) -> str:
    written = (cell.replace("|", "\\|") for cell in cells)
    return "|" + "|".join(f" {cell} " if cell else " " for cell in written) + "|"


def _value(option: Option) -> str:
    if option.kind is bool:
        return "switch"
    if option.kind is dict:
        return "tables"
    text = f"`{option.metavar}`"
    if option.above is not None:
        text += f" over {option.above}, to {option.most}"
    elif option.least is not None:
        text += f" {option.least} to {option.most}"
    return text + " …" if option.repeats else text


def _default(option: Option, shown: str) -> str:
    """As --help shows it, if it does."""
    match option.default:
        case None:
            return shown
        case bool():
            return "on" if option.default else "off"
        case float():
            return f"{option.default:g}"
        case _:
            return f"`{option.default}`"


# Subcommands, and what click itself has


def _of_click_alone(side: Side) -> list[click.Parameter]:
    known = {option.key for options in OPTIONS.values() for option in options}
    command = COMMANDS[side]
    params = command.get_params(click.Context(command, **command.context_settings))
    return [param for param in params if param.name not in known and not getattr(param, "hidden", False)]


def _is_of(param: click.Parameter, command: click.Command) -> bool:
    return param.to_info_dict() in [own.to_info_dict() for own in command.params]


def _of_group(name: str, group: click.Group, common: Sequence[click.Parameter]) -> Iterator[str]:
    """Of each of its commands what it is, and the options that are not common to all."""
    for command in sorted(group.commands.values(), key=lambda command: str(command.name)):
        if isinstance(command, click.Group):
            yield from _of_group(f"{name} {command.name}", command, common)
            continue
        # check takes what the command itself takes.
        params = [] if command.name == "check" else command.params
        words = [_word(param) for param in params if isinstance(param, click.Argument)]
        text = f"**`{' '.join([name, str(command.name), *words])}`** {_sentence(command.help)}"
        known = [param.to_info_dict() for param in common]
        options = [each for each in params if isinstance(each, click.Option) and each.to_info_dict() not in known]
        yield "\n".join([text, "", *_rows_of_click(options)]) if options else text


def _word(argument: click.Argument) -> str:
    word = argument.metavar or str(argument.name).upper()
    return word if argument.required else f"[{word}]"


def _sentence(text: str | None) -> str:
    return (text or "").replace("|", "\\|")


def _rows_of_click(params: Sequence[click.Parameter]) -> Iterator[str]:
    yield "| option | value | default | meaning |"
    yield "|---|---|---|---|"
    for param in params:
        assert isinstance(param, click.Option)
        flags = ", ".join(f"`{name}`" for name in sorted(param.opts, key=len))
        value = "switch" if param.is_flag else f"`{param.metavar}`{_range(param.type)}"
        yield _line([flags, value, _shown(param), param.help or ""])


def _range(kind: Any) -> str:
    if not isinstance(kind, click.IntRange | click.FloatRange):
        return ""
    return f" {kind.min:g} or more" if kind.max is None else f" {kind.min:g} to {kind.max:g}"


def _shown(param: click.Option) -> str:
    if param.is_flag:
        return "off"
    # click has a value of its own for an option without a default.
    return f"`{param.default}`" if isinstance(param.default, str | int | float) and param.default != "" else ""


if __name__ == "__main__":
    FILE.write_text(reference())
