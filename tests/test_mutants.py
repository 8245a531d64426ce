"""The mutations of `make mutants` still apply, and the driver says of each what happened to it. Nothing is built."""

import sys
from pathlib import Path

import pytest
from mutants import PARTS, ROOT, Faulty, Mutant, Tree, check, missing_tests, read_tables, run

MUTANTS = read_tables()
TABLE = """
[name]
why = "it matters"
find = "a"
replace = "b"
tests = ["tests/test_mutants.py::test_there_are_enough"]
"""


def mutant(find: str = "a", *tests: str) -> Mutant:
    return Mutant("part/name", PARTS / "part.pxi", "it matters", find, "b", tests)


@pytest.mark.parametrize("one", MUTANTS, ids=lambda one: one.name)
def test_its_text_stands_in_the_engine_once(one: Mutant) -> None:
    source = (ROOT / one.file).read_text()
    assert one.apply(source) != source


def test_all_tests_that_are_named_exist() -> None:
    assert missing_tests(MUTANTS) == []


def test_there_are_enough() -> None:
    assert len(MUTANTS) >= 40
    assert len({one.name for one in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize(("source", "found"), [("cbc", 0), ("aba", 2)])
def test_text_that_does_not_stand_there_once(source: str, found: int) -> None:
    with pytest.raises(Faulty, match=f"part/name: its text stands {found} times in candy/engine/part.pxi"):
        mutant().apply(source)
    assert mutant().apply("cac") == "cbc"


@pytest.mark.parametrize(
    "test", ["tests/nowhere.py", "tests/nowhere.py::test_a", "tests/test_mutants.py::test_nothing"]
)
def test_a_test_that_does_not_exist_is_named(test: str) -> None:
    there = "tests/test_mutants.py::test_its_text_stands_in_the_engine_once[fastpath/unmask-tail]"
    assert missing_tests([mutant("a", there, "tests/test_mutants.py", test)]) == [test]


@pytest.mark.parametrize("line", ['tests = ["t"]', 'test = "t"'], ids=["without", "unknown"])
def test_a_table_that_is_not_as_it_should_be(line: str, tmp_path: Path) -> None:
    lines = TABLE.splitlines()
    (tmp_path / "websocket.toml").write_text("\n".join([*lines[:-1], line]))
    if line.startswith("tests"):
        (tmp_path / "websocket.toml").write_text("\n".join(lines[:-1]))
    with pytest.raises(Faulty, match="websocket/name: it has"):
        read_tables(tmp_path)


def test_a_table_is_named_after_its_part(tmp_path: Path) -> None:
    (tmp_path / "fastpath.toml").write_text(TABLE)
    [one] = read_tables(tmp_path)
    assert (one.name, one.file.name, one.tests) == ("fastpath/name", "fastpath.h", one.tests)
    (tmp_path / "nothing.toml").write_text(TABLE)
    with pytest.raises(Faulty, match=r"nothing.toml is named after no part"):
        read_tables(tmp_path)


def test_a_program_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    assert run(("sh", "-c", "sleep 600 & sleep 600"), tmp_path, {}, 0.2) == (None, "")
    assert run(("sh", "-c", "echo $NAME; exit 7"), tmp_path, {"NAME": "value"}, 60) == (7, "value\n")
    assert run(("sh", "-c", "kill -SEGV $$"), tmp_path, {}, 60) == (-11, "")


class Played(Tree):
    """A tree that builds nothing, whose tests end as they are told."""

    told: dict[str, int | None]

    def __init__(self, folder: Path) -> None:
        self.built = ""

    def build(self, mutant: Mutant | None) -> None:
        self.built = mutant.name if mutant else ""
        if self.built == "part/broken":
            raise Faulty("it does not build")

    def test(self, tests: tuple[str, ...]) -> int | None:
        return self.told.get(self.built, 0)


@pytest.mark.parametrize(
    ("told", "status", "line"),
    [
        ({"": 1}, 2, ""),
        ({"part/one": 1}, 0, "killed    part/one (fails, 0 s)"),
        ({"part/one": -11}, 0, "killed    part/one (crashes, 0 s)"),
        ({"part/one": None}, 0, "killed    part/one (hangs, 0 s)"),
        ({}, 1, "SURVIVED  part/one: it matters (tests/test_mutants.py)"),
        ({"part/broken": 1}, 2, "FAULTY    part/broken: it does not build"),
    ],
    ids=["before", "fails", "crashes", "hangs", "survives", "does not build"],
)
def test_what_it_says_and_how_it_ends(
    told: dict[str, int | None],
    status: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Played.told = told
    monkeypatch.setattr("mutants.Tree", Played)
    name = "part/broken" if "part/broken" in told else "part/one"
    # Its text stands in that file once, which is all that is asked of it.
    one = Mutant(name, Path("LICENSE"), "it matters", "MIT License", "b", ("tests/test_mutants.py",))
    if not line:
        with pytest.raises(Faulty, match="as it is"):
            check([one], 2)
        return
    assert check([one], 2) == status
    assert capsys.readouterr().out.splitlines()[0] == line


def test_the_program_lists_what_it_has() -> None:
    script = (sys.executable, "scripts/mutants.py", "--list")
    status, output = run((*script, "websocket/*"), ROOT, {}, 60)
    assert status == 0
    assert len(output.splitlines()) == sum(one.name.startswith("websocket/") for one in MUTANTS)
    assert run((*script, "nothing"), ROOT, {}, 60)[0] == 2
