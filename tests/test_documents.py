"""The documents, held to what there is: their links, the code map, and which settings take a restart."""

import re
from collections.abc import Iterator
from pathlib import Path

import api
import pytest
import reference
from kit.steps import steps_of

from candy.options import OPTIONS, Side

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(path for folder in (".", "docs", "contrib", "bench") for path in (ROOT / folder).glob("*.md"))
OF_USERS = [path for path in DOCUMENTS if path.parent.name != "bench"]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
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


@pytest.mark.parametrize("path", OF_USERS, ids=lambda path: path.name)
def test_each_block_of_commands_says_where_it_is_run(path: Path) -> None:
    assert all(step.machine for step in steps_of(path))


def test_few_blocks_are_not_run() -> None:
    kinds = [step.kind for path in OF_USERS for step in steps_of(path) if step.kind != "file"]
    assert kinds.count("no") * 4 <= len(kinds)


# docs/architecture.md


def test_the_tree_is_the_trees() -> None:
    [tree] = re.findall(r"^## The tree\n\n```\n(.*?)^```$", ARCHITECTURE, re.MULTILINE | re.DOTALL)
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
    makefile = (ROOT / "Makefile").read_text()
    [phony] = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    told = re.findall(r"^([a-z][a-z -]*):.*## \S", makefile, re.MULTILINE)
    assert sorted(" ".join(told).split()) == sorted(phony.split())
