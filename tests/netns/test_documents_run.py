"""Every block of commands in the documents, run as a reader would: on machines with the addresses and the files that
the documents name, one after the other."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from kit.steps import Fault, Step, missing, pasted, steps_of
from lab.machine import ROOT, Machines, why_no_machine

pytestmark = pytest.mark.netns

DOCUMENTS = sorted(
    path
    for folder in (ROOT, ROOT / "docs", ROOT / "contrib")
    for path in folder.glob("*.md")
    if "<!-- run: " in path.read_text()
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_it_says_works(document: Path, stack: ExitStack, tmp_path: Path) -> None:
    if why := why_no_machine():
        pytest.skip(why)
    machines = Machines(stack, tmp_path)
    for step in steps_of(document):
        try:
            do(step, machines)
        except (AssertionError, Fault) as error:
            raise AssertionError(f"{document.name}, line {step.line}: {error}") from None


def do(step: Step, machines: Machines) -> None:
    if step.kind in ("elsewhere", "no", "usage"):
        return
    machine = machines[step.machine]
    match step.kind:
        case "file":
            machine.write(step.path, step.text)
        case "end":
            machine.interrupt()
        case "stays":
            machine.stay(pasted(step.text, machines.printed), step.shown)
        case "run" | "fails":
            printed = machine.run(pasted(step.text, machines.printed), fails=step.kind == "fails")
            lost = missing(step.shown, printed)
            assert lost is None, f"{lost!r} is not among what was printed:\n" + "\n".join(printed)
