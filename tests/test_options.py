"""The table of options: what the examples and the documents say of them is what it says."""

import re
from dataclasses import fields
from importlib import resources
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, get_args

import pytest

from candy._fastpath import Engine
from candy.cli.operate import commands
from candy.member.settings import MemberSettings
from candy.options import OPTIONS, Option, Side, by_key
from candy.relay.networksettings import NetworkSettings
from candy.relay.settings import RelaySettings

ROOT = Path(__file__).parents[1]
ALL = [(side, option) for side in get_args(Side) for option in OPTIONS[side]]
SHOWN_OTHERWISE = {"websocket", "workers"}
"""What the examples show instead of a default: a URL, and a made-up count."""


def as_toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case str() | IPv4Network():
            return f'"{value}"'
        case _:
            return str(value)


@pytest.mark.parametrize("side", get_args(Side))
def test_examples_show_every_default(side: Side) -> None:
    lines = (resources.files("candy") / "examples" / f"{side}.toml").read_text().splitlines()
    shown = {line.removeprefix("#") for line in lines}
    for option in OPTIONS[side]:
        if option.default is not None and option.key not in SHOWN_OTHERWISE:
            assert f"{option.key} = {as_toml(option.default)}" in shown


def test_examples_name_the_bounds() -> None:
    for name in ("client.toml", "client.cfg"):
        [mtu] = [option for option in OPTIONS["client"] if option.key == "mtu"]
        assert f"{mtu.least} to {mtu.most}." in (resources.files("candy") / "examples" / name).read_text()


@pytest.mark.parametrize("side", get_args(Side))
def test_the_readme_says_of_options_what_they_are(side: Side) -> None:
    """Of the common ones, which it has in the order of all."""
    readme = (ROOT / "README.md").read_text()
    table = readme[readme.index(f"| `candy-{side}` |") :].partition("\n\n")[0].splitlines()
    # Behind the header; -c, --check and --version are click's.
    shown = [row for row in table[2:] if not re.search("`(-c|--check|--version)`", row)]
    rows = [row_of_readme(option) for option in OPTIONS[side] if option.is_flag]
    assert [row for row in rows if row in shown] == shown
    assert {row_of_readme(by_key(side)[key]) for key in ("websocket", "password", "password_file")} <= set(shown)


def row_of_readme(option: Option) -> str:
    names = "".join(f"`{name}`, " for name in (option.short,) if name) + f"`{option.flag}"
    names += f" {option.metavar}`" if option.metavar else "`"
    meaning, _, default = option.help.partition("  [")
    return f"| {names} | {meaning} | {default.removesuffix(']')} |".replace("|  |", "| |")


@pytest.mark.parametrize("document", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_documents_name_options_that_there_are(document: str) -> None:
    text = (ROOT / "docs" / document).read_text()
    known = {option.flag for _, option in ALL} | {"--config", "--check", "--help", "--version", "--mode"}
    for side in get_args(Side):
        known |= {flag for command in commands(side) for option in command.params for flag in option.opts}
    for command in re.findall(r"candy-(?:server|client)((?: +[^`\n|]+)?)", text):
        assert set(re.findall(r"(?<!\S)--[a-z-]+", command)) <= known


@pytest.mark.parametrize(("side", "option"), ALL, ids=lambda value: value.key if isinstance(value, Option) else value)
def test_each_decides_a_setting_with_its_default(side: Side, option: Option) -> None:
    models: tuple[Any, ...] = (RelaySettings, NetworkSettings) if side == "server" else (MemberSettings,)
    known = {each.name: each for model in models for each in fields(model)}
    for name in option.decides:
        assert name in known
    if option.default is not None and option.key != "websocket":
        assert known[option.decides[0]].default == (not option.default if option.is_opposite else option.default)


def test_a_bound_is_never_beyond_the_default() -> None:
    for _, option in ALL:
        if option.kind in (int, float) and option.default is not None:
            assert option.least is None or option.least <= option.default
            assert option.most is None or option.default <= option.most
            assert option.above is None or option.above < option.default


def test_the_engine_takes_every_size_of_a_queue() -> None:
    [queue_bytes] = [option for option in OPTIONS["server"] if option.key == "queue_bytes"]
    for size in (queue_bytes.least, queue_bytes.most):
        assert size is not None
        Engine(1, queue_bytes=size).stop()
