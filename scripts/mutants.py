"""`make mutants`: small faults put into the engine, one at a time, that the tests named beside each must find.

    mutants.py [-j N] [PATTERN...]      PATTERN: names, with * and ?; all when there is none
    mutants.py --list [PATTERN...]

tests/mutants/PART.toml holds the mutations of candy/engine/PART.pxi (or PART.h), a table each:

    [name]
    why = "what goes wrong with it"
    find = "text that stands in the part exactly once"
    replace = "what stands there instead"
    tests = ["tests/engine/test_frames.py::test_name", ...]         as pytest takes them

Rules:
 1. A mutation is killed when its tests fail, crash or hang; all else is a fault of the table: text that is not there,
    an engine that does not compile, tests that pytest does not find.
 2. First the tests run with the engine as it is: what fails there can tell nothing.
 3. Nothing outside of build/mutants/ is written. Each job has a tree of its own there, with a copy of candy/.

Ends with 0 when all are killed, 1 when one survives, 2 when the table or the tests are at fault.
"""

import argparse
import ast
import contextlib
import fnmatch
import os
import queue
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLES = ROOT / "tests" / "mutants"
PARTS = Path("candy", "engine")
BUILD = ROOT / "build" / "mutants"
BUILD_PATIENCE_S = 600.0
TEST_PATIENCE_S = 240.0
"""After this long the tests hang. Many of them give a wait up only after 20 s."""
MEMORY_KIB = 8 << 20
"""Address space for the tests of an engine that may take what it gets."""
TEST_OPTIONS = ("-q", "-x", "--no-header", "--tb=line", "-p", "no:cacheprovider", "--hypothesis-seed=0")
"""Seeded, so that what a property test finds it finds again."""


class Faulty(Exception):
    """The table, or a test that it names, is wrong. Its text is for a person."""


@dataclass(frozen=True)
class Mutant:
    """One mutation; `name` is PART/NAME, `file` is relative to the checkout."""

    name: str
    file: Path
    why: str
    find: str
    replace: str
    tests: tuple[str, ...]

    def apply(self, source: str) -> str:
        """The part with the fault in it."""
        if (found := source.count(self.find)) != 1:
            raise Faulty(f"{self.name}: its text stands {found} times in {self.file}")
        return source.replace(self.find, self.replace)


def read_tables(folder: Path = TABLES) -> list[Mutant]:
    """All mutations, in the order of the files and of their tables."""
    found = []
    for table in sorted(folder.glob("*.toml")):
        files = [path.relative_to(ROOT) for path in (ROOT / PARTS).glob(f"{table.stem}.*")]
        if len(files) != 1:
            raise Faulty(f"{table.name} is named after no part of {PARTS}")
        for name, entry in tomllib.loads(table.read_text()).items():
            if set(entry) != {"why", "find", "replace", "tests"} or not entry["tests"]:
                raise Faulty(f"{table.stem}/{name}: it has why, find, replace and tests, and nothing else")
            found.append(
                Mutant(
                    name=f"{table.stem}/{name}",
                    file=files[0],
                    why=entry["why"],
                    find=entry["find"],
                    replace=entry["replace"],
                    tests=tuple(entry["tests"]),
                )
            )
    return found


def missing_tests(mutants: list[Mutant]) -> list[str]:
    """The tests that are named and don't exist, without running anything; parameters are not looked at."""
    functions: dict[str, set[str]] = {}
    missing = []
    for test in sorted({test for mutant in mutants for test in mutant.tests}):
        file, _, name = test.partition("::")
        if file not in functions:
            path = ROOT / file
            tree = ast.parse(path.read_text() if path.is_file() else "")
            functions[file] = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        if not functions[file] or (name and name.partition("[")[0] not in functions[file]):
            missing.append(test)
    return missing


class Tree:
    """A copy of the package in which the engine is built anew, over and over."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        kept_out = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(ROOT / "candy", folder / "candy", ignore=kept_out)
        for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, folder)

    def build(self, mutant: Mutant | None) -> None:
        """Build the engine with this fault, or as it is."""
        source = ""
        if mutant is not None:
            source = (ROOT / mutant.file).read_text()
            (self.folder / mutant.file).write_text(mutant.apply(source))
        # Forced: by their times a part that was put back looks older than what was built with its fault.
        command = (
            sys.executable,
            "setup.py",
            "-q",
            "build_ext",
            "--force",
            "--build-lib",
            ".",
            "--build-temp",
            "objects",
        )
        status, output = run(command, self.folder, {"CANDY_BUILD": "mutant"}, BUILD_PATIENCE_S)
        if mutant is not None:
            (self.folder / mutant.file).write_text(source)
        if status != 0:
            raise Faulty(f"{mutant.name if mutant else 'the engine'} does not build:\n{output}")

    def test(self, tests: tuple[str, ...]) -> int | None:
        """Run tests against what was built; pytest's status, below 0 after a crash, None when they hang."""
        environ = {"PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}
        # -P: the current folder holds the ordinary build, and would be found first.
        python = ("sh", "-c", f'ulimit -v {MEMORY_KIB} && exec "$@"', "sh", sys.executable, "-P")
        where = "import candy._fastpath as engine; print(engine.__file__)"
        status, output = run((*python, "-c", where), ROOT, environ, TEST_PATIENCE_S)
        if status == 0 and not output.startswith(f"{self.folder}/"):
            raise Faulty(f"tests would run against {output.strip()} instead of {self.folder}")
        status, output = run((*python, "-m", "pytest", *TEST_OPTIONS, *tests), ROOT, environ, TEST_PATIENCE_S)
        if status is not None and status > 1 and status < 128:
            raise Faulty(f"pytest could not run {' '.join(tests)}:\n{output}")
        return status


def run(command: tuple[str, ...], folder: Path, environ: dict[str, str], patience_s: float) -> tuple[int | None, str]:
    """A program's status, None when it had to be killed, and what it printed."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    with contextlib.ExitStack() as undo:
        undo.callback(_kill, process)
        try:
            output, _ = process.communicate(timeout=patience_s)
        except subprocess.TimeoutExpired:
            return None, ""
        undo.pop_all()
    return process.returncode, output


def _kill(process: subprocess.Popen[str]) -> None:
    """With all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def check(mutants: list[Mutant], jobs: int) -> int:
    """Build and test them all; returns the status to end with."""
    for mutant in mutants:
        mutant.apply((ROOT / mutant.file).read_text())
    if missing := missing_tests(mutants):
        raise Faulty(f"no such tests: {', '.join(missing)}")
    trees: queue.SimpleQueue[Tree] = queue.SimpleQueue()
    first = Tree(BUILD / "0")
    first.build(None)
    if first.test(tuple(sorted({test for mutant in mutants for test in mutant.tests}))) != 0:
        raise Faulty("the tests fail with the engine as it is: run them with make test")
    trees.put(first)
    for n in range(1, jobs):
        trees.put(Tree(BUILD / str(n)))

    def one(mutant: Mutant) -> tuple[Mutant, str]:
        tree = trees.get()
        start = time.monotonic()
        try:
            tree.build(mutant)
            status = tree.test(mutant.tests)
        except Faulty as fault:
            return mutant, f"FAULTY    {mutant.name}: {fault}"
        finally:
            trees.put(tree)
        took = f"{time.monotonic() - start:.0f} s"
        if status == 0:
            return mutant, f"SURVIVED  {mutant.name}: {mutant.why} ({', '.join(mutant.tests)})"
        how = "hangs" if status is None else "fails" if status == 1 else "crashes"
        return mutant, f"killed    {mutant.name} ({how}, {took})"

    words = []
    with ThreadPoolExecutor(jobs) as pool:
        for _, line in pool.map(one, mutants):
            print(line, flush=True)
            words.append(line.split()[0])
    killed, survived, faulty = (words.count(word) for word in ("killed", "SURVIVED", "FAULTY"))
    print(f"{killed} killed, {survived} survived" + (f", {faulty} at fault" if faulty else ""))
    return 2 if faulty else 1 if survived else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Put small faults into the engine and see whether tests find them.")
    parser.add_argument("-j", "--jobs", type=int, default=2, help="how many at a time (2)")
    parser.add_argument("-l", "--list", action="store_true", help="only name them")
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="which: PART/NAME, with * and ?")
    options = parser.parse_args()
    os.nice(10)
    # Either way it ends behind the mutants at hand, whose programs would otherwise be left alone.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        mutants = [
            mutant
            for mutant in read_tables()
            if not options.patterns or any(fnmatch.fnmatchcase(mutant.name, one) for one in options.patterns)
        ]
        if not mutants:
            raise Faulty("no mutation has such a name: see --list")
        if options.list:
            for mutant in mutants:
                print(f"{mutant.name:40} {mutant.why}")
            return 0
        start = time.monotonic()
        status = check(mutants, max(1, options.jobs))
        print(f"{(time.monotonic() - start) / 60:.1f} minutes")
        return status
    except Faulty as fault:
        print(f"mutants.py: {fault}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
