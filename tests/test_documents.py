"""The documents, held to what there is: their links, the code map, and which settings take a restart."""

import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import api
import click
import pytest
import reference
from kit.steps import ELSEWHERE, Step, first_word, steps_of

from candy.options import OPTIONS, Side

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(path for folder in (".", "docs", "contrib", "bench") for path in (ROOT / folder).glob("*.md"))
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
OPERATION = (ROOT / "docs" / "operation.md").read_text()


def prose(text: str) -> str:
    """Without blocks of code."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(document: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(document.read_text()), re.MULTILINE)
    made = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
    assert len(made) == len(set(made)), f"two headings of {document.name} have one anchor"
    return set(made)


def section(text: str, heading: str) -> str:
    return re.split(r"^#+ ", text.split(f"# {heading}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> Iterator[tuple[str, str]]:
    """The first two cells of each row of its tables."""
    for line in text.splitlines():
        if line.startswith("| "):
            _, first, second, *_ = line.split("|")
            yield first, second


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose(path.read_text())):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


# Their commands, which tests/netns/test_documents_run.py runs


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_no_block_evades(path: Path) -> None:
    """Each has a language, and of commands a marker that says who runs them."""
    for step in steps_of(path):
        if step.kind in ("run", "stays", "fails", "elsewhere"):
            words = {first_word(line) for line in step.text.splitlines()}
            assert words - {None}, f"line {step.line}: add what its commands begin with to kit.steps.COMMANDS"


NOBODY = {
    "bench/throughput.py --topology 1-1 --profile": "takes minutes, and measures nothing beside other tests",
    "make lint types": "takes minutes; make test begins with both",
    "make wheel": "make try-wheel begins with it",
    "pytest -q tests/netns/test_documents_run.py -k quickstart": "a test of documents would run itself",
    "scripts/mutants.py -j 1 'checksum*'": "compiles the engine anew for each fault",
}
"""Commands that are run by nobody as they stand in a document, by their ends, and why not."""


def blocks(kind: str) -> Iterator[tuple[Path, Step]]:
    """Of all documents."""
    for path in DOCUMENTS:
        yield from ((path, step) for step in steps_of(path) if step.kind == kind)


def test_who_runs_what_is_not_run_here() -> None:
    found = {
        first.removeprefix(".venv/bin/python ").removeprefix("-m "): step.machine
        for _, step in blocks("no")
        for first in [step.text.splitlines()[0]]
    }
    assert found == NOBODY
    rules = dict(re.findall(r"^([a-z-]+): ([a-z ]+)  ##", MAKEFILE, re.MULTILINE))
    assert rules["test"] == "lint types"
    assert rules["try-wheel"] == "wheel"


@pytest.mark.parametrize("target", ELSEWHERE)
def test_what_runs_elsewhere_is_run_there(target: str) -> None:
    """By the program of that target, which takes the blocks from the documents that have them."""
    program = (ROOT / ELSEWHERE[target]).read_text()
    assert f'steps_elsewhere("{target}"' in program
    documents = {path.relative_to(ROOT).as_posix() for path, step in blocks("elsewhere") if step.machine == target}
    assert documents
    assert [name for name in documents if f'"{name}"' not in program] == []
    assert re.search(
        rf"^{target.removeprefix('make ')}:.*\n(?:\t.*\n)*?\t.*{ELSEWHERE[target]}$", MAKEFILE, re.MULTILINE
    )


def typed(line: str) -> None:
    """Ask the commands' own parsers. Raises UsageError: they do not take it."""
    words = shlex.split(re.sub(r"[\[\]]", "", re.split(r"   *| [|#] ", line.strip())[0]))
    if words[0] == "python":
        del words[0]
    command: click.Command | None = command_of(words[0])
    context = None
    while command is not None:
        context = click.Context(command, parent=context, info_name=words[0], **command.context_settings)
        try:
            _, words, _ = command.make_parser(context).parse_args(words[1:])
        except click.BadOptionUsage:
            # An option that is named without its value.
            return
        if not words:
            return
        if not isinstance(command, click.Group):
            raise click.UsageError(f"{words[0]} is too much")
        command = command.get_command(context, words[0])
    raise click.UsageError(f"there is no {words[0]}")


def command_of(program: str) -> click.Command:
    """One of candy's, or a file of bench/; which is one without options if it has no command of click's."""
    if program in SIDES:
        return reference.COMMANDS[SIDES[program]]
    folder, _, name = program.partition("/")
    assert (folder, name.endswith(".py")) == ("bench", True), program
    main = import_module(name.removesuffix(".py")).main
    return main if isinstance(main, click.Command) else click.Command(name)


SIDES: dict[str, Side] = {"candy-server": "server", "candy-client": "client"}


def test_what_may_be_typed_is_taken() -> None:
    typed("bench/throughput.py --topology 1-1 --profile")
    lines = [(path, line) for path, step in blocks("usage") for line in step.text.splitlines() if line[:1].strip()]
    assert len(lines) > 20
    for path, line in lines:
        try:
            typed(line)
        except click.UsageError as error:
            pytest.fail(f"{path.name}: {line}: {error.message}")


@pytest.mark.parametrize(
    "line",
    [
        "candy-server status --jason",
        "candy-server stat",
        "candy-server --tunn",
        "candy-server status more",
        "candy-client service begin",
        "python bench/throughput.py --topologie 1-1",
        "python bench/cluster_directory.py --relays 3",
    ],
)
def test_what_may_not_be_typed_is_noticed(line: str) -> None:
    with pytest.raises(click.UsageError):
        typed(line)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_what_the_text_names_is_taken(path: Path) -> None:
    for code in re.findall(r"`([^`]+)`", prose(path.read_text())):
        if code.split()[0] in SIDES:
            try:
                typed(code.replace("\n", " "))
            except click.UsageError as error:
                pytest.fail(f"`{code}`: {error.message}")
        elif code.startswith("-") and path.parent.name != "bench":
            assert set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", code)) <= options_of(*reference.COMMANDS.values()), code


def test_targets_that_the_text_names_are_there() -> None:
    there = set(re.findall(r"^([a-z-]+)(?: [a-z-]+)*:", MAKEFILE, re.MULTILINE)) | {"tsan"}
    for path in DOCUMENTS:
        assert set(re.findall(r"`make ([a-z-]+)", path.read_text())) <= there, path.name


def options_of(*commands: click.Command) -> set[str]:
    """Of these and all below them."""
    found = set()
    for command in commands:
        context = click.Context(command, **command.context_settings)
        found |= {name for each in command.get_params(context) for name in (*each.opts, *each.secondary_opts)}
        if isinstance(command, click.Group):
            found |= options_of(*(command.commands[name] for name in command.commands))
    return found


# docs/architecture.md


def test_the_tree_is_the_trees() -> None:
    [tree] = re.findall(r"^## The tree\n\n```text\n(.*?)^```$", ARCHITECTURE, re.MULTILINE | re.DOTALL)
    above = [ROOT]
    for line in tree.splitlines():
        names = re.match(r"( *)(\S+(?:, \S+)*)(?:  |$)", line)
        assert names is not None, line
        above = above[: len(names[1]) // 2 + 1]
        for name in names[2].split(", "):
            found = next(above[-1].glob(f"*{name}" if name.startswith(".") else name.rstrip("/")), None)
            assert found is not None, line
        if found is not None and found.is_dir():
            above.append(found)


def test_the_map_has_each_file_once() -> None:
    """Of the control plane."""
    folder, named = Path(), []
    for first, second in rows(section(ARCHITECTURE, "Code map")):
        if opened := re.search(r"`(candy/[\w/]+/)`", first):
            folder = Path(opened[1])
        for name in re.findall(r"`([\w/]+\.py)`", first + second if opened else first):
            named.append(Path(name) if "/" in name else folder / name)
    there = {path.relative_to(ROOT) for path in (ROOT / "candy").rglob("*.py")}
    assert sorted(named) == sorted(path for path in there if path.name != "__init__.py" or len(path.parts) == 2)


def test_the_map_has_each_part_of_the_engine() -> None:
    parts = section(ARCHITECTURE, "Code map").split("Data plane, ")[1]
    named = [name for first, _ in rows(parts) for name in re.findall(r"`([\w.]+)`", first)]
    there = {path.name.removesuffix(".pxi") for path in (ROOT / "candy" / "engine").iterdir() if path.is_file()}
    assert sorted(named) == sorted(there)


def test_files_that_are_named_are_there() -> None:
    there = [
        f"/{path.relative_to(ROOT)}" for folder in ("candy", "tests", "bench") for path in (ROOT / folder).rglob("*")
    ]
    there += [f"/{path.name}" for path in ROOT.iterdir()]
    named = re.findall(r"`([\w./]*\w\.(?:py|pyx|pyi|pxi|pxd|h|toml|yml|json))`", ARCHITECTURE)
    assert [name for name in named if not any(path.endswith(f"/{name}") for path in there)] == []


# docs/operation.md


def keys(side: Side, *, reload: bool) -> set[str]:
    return {option.key for option in OPTIONS[side] if option.reloads is reload}


def words(text: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", text))


def test_what_a_relay_applies_and_what_takes_a_restart() -> None:
    applied, _, restart = section(OPERATION, "Changing settings without a restart").partition("**A restart is needed**")
    changed = words("".join(first for first, _ in rows(applied)))
    # Networks come and go, which the table says in words. A larger pool is applied, and any other takes a restart.
    assert changed | {"network"} == keys("server", reload=True) | {"dhcp"}
    assert words(restart) == keys("server", reload=False)


def test_what_a_member_applies() -> None:
    [applied] = re.findall(
        r"`systemctl reload candy-client@NAME`.* has it read file and(.*?)other changes a restart", OPERATION, re.DOTALL
    )
    assert words(applied) | {"websocket", "password", "password_file"} == keys("client", reload=True)


# docs/reference.md and docs/api.md


def test_the_api_is_up_to_date() -> None:
    assert api.FILE.read_text() == api.api(), "run make reference"


def test_the_reference_is_up_to_date() -> None:
    assert reference.FILE.read_text() == reference.reference(), "run make reference"


def test_the_reference_has_each_option_and_each_subcommand() -> None:
    text = reference.FILE.read_text()
    for side, command in reference.COMMANDS.items():
        of_side = section(text, f"candy-{side}") + (section(text, "Of a network") if side == "server" else "")
        for option in OPTIONS[side]:
            assert f"| `{option.key}` |" in of_side
        for name in command.commands:
            assert f"**`candy-{side} {name}" in text


# Makefile


def test_make_help_has_each_target() -> None:
    [phony] = re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    told = re.findall(r"^([a-z][a-z -]*):.*## \S", MAKEFILE, re.MULTILINE)
    assert sorted(" ".join(told).split()) == sorted(phony.split())
