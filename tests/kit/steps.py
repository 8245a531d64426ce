"""What a reader of a document does: its blocks of commands and of files, in order, each with who and where.

    <!-- run: relay -->               the ```sh block below is run on the machine `relay`, and has to end well
    <!-- run: relay, stays -->        its last command goes on, in a terminal of its own
    <!-- run: relay, fails -->        the block ends with a failure, as the text says
    <!-- run: no, needs systemd -->   it is not run, for this reason
    <!-- file: relay /etc/x.toml -->  the block below, of any kind, is what this file has
    <!-- end: relay -->               ^C in the terminals there, of what stays

Rules:
 1. A block of commands without a marker is a fault: nobody would notice when it works no more.
 2. The ```text block behind commands, before other ones, shows what they print, line by line. Numbers, sizes and
    the space between words may differ, addresses may not, `…` stands for anything, and further lines may come between.
 3. `…` in commands is what a reader would paste: the last line that was printed before and is like this one, else the
    last word.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ANY = "…"
_SHELL = frozenset({"sh", "bash", "console", "shell"})
_MARKER = re.compile(r"<!-- (run|file|end): (.+) -->")
_FENCE = re.compile(r"( *)```(\w*)$")
_ADDRESS = r"\d+\.\d+\.\d+\.\d+"
_SIZE = r"\d[\d.]* [kMG]?B"
_NUMBER = r"\d[\d.]*"
_LOOSE = re.compile(rf"(?P<any>{ANY})|(?P<address>{_ADDRESS})|(?P<size>{_SIZE})\b|(?P<number>{_NUMBER})|(?P<space>\s+)")


class Fault(ValueError):
    """A marker is missing, or makes no sense; says which line."""


@dataclass(frozen=True)
class Step:
    """One thing that a reader does."""

    line: int
    """Of the document, from 1: the block's, or the marker's."""
    kind: Literal["run", "fails", "stays", "file", "end", "no"]
    machine: str
    """Its name; of a block that is not run the reason."""
    text: str = ""
    path: str = ""
    """Of a file."""
    shown: tuple[str, ...] = ()
    """What a run prints, among other lines."""


def steps_of(document: Path) -> list[Step]:
    """All of a document. Raises Fault."""
    return list(_steps(document.read_text().splitlines()))


def _steps(lines: Sequence[str]) -> Iterator[Step]:
    marker: tuple[str, str] | None = None
    at = 0
    while at < len(lines):
        line, number = lines[at], at + 1
        if found := _MARKER.fullmatch(line):
            if marker is not None:
                raise Fault(f"line {number}: the marker before this one has no block")
            marker = found[1], found[2]
            if marker[0] == "end":
                yield Step(number, "end", marker[1])
                marker = None
        elif fence := _FENCE.fullmatch(line):
            end = _end_of(lines, at)
            block = "".join(each.removeprefix(fence[1]) + "\n" for each in lines[at + 1 : end])
            if marker is not None:
                shown = _shown_after(lines, end)
                yield _step(number, *marker, block, shown)
            elif fence[2] in _SHELL:
                raise Fault(f"line {number}: commands without a marker above them: <!-- run: MACHINE -->")
            marker, at = None, end
        elif line.strip() and marker is not None:
            raise Fault(f"line {number}: text between a marker and its block")
        at += 1
    if marker is not None:
        raise Fault("the last marker has no block")


def _end_of(lines: Sequence[str], begin: int) -> int:
    """The line that closes the block which is opened there."""
    for at in range(begin + 1, len(lines)):
        if lines[at].strip() == "```":
            return at
    raise Fault(f"line {begin + 1}: the block has no end")


def _shown_after(lines: Sequence[str], end: int) -> tuple[str, ...]:
    for at in range(end + 1, len(lines)):
        if lines[at] == "```text":
            return tuple(line for line in lines[at + 1 : _end_of(lines, at)] if line.strip())
        if lines[at].startswith(("```", "<!-- ", "#")):
            break
    return ()


def _step(line: int, kind: str, value: str, block: str, shown: tuple[str, ...]) -> Step:
    if kind == "file":
        machine, _, path = value.partition(" ")
        if not path.startswith("/"):
            raise Fault(f"line {line}: write <!-- file: MACHINE /PATH -->")
        return Step(line, "file", machine, block, path)
    machine, _, more = value.partition(", ")
    if machine == "no":
        if not more:
            raise Fault(f"line {line}: not run, and no reason: write <!-- run: no, REASON -->")
        return Step(line, "no", more, block)
    match more:
        case "":
            return Step(line, "run", machine, block, shown=shown)
        case "stays" | "fails":
            return Step(line, more, machine, block, shown=shown)
    raise Fault(f"line {line}: {more!r} is nothing that a run can be: write <!-- run: MACHINE, stays -->")


def pattern_of(shown: str) -> str:
    """A regular expression for a whole line, as loose as rule 2 has it."""
    made, at = "", 0
    for found in _LOOSE.finditer(shown := shown.strip()):
        made += re.escape(shown[at : found.start()])
        loose = {"any": ".*", "size": _SIZE, "number": _NUMBER, "space": r"\s+"}
        made += loose.get(str(found.lastgroup)) or re.escape(found[0])
        at = found.end()
    return rf"\s*{made}{re.escape(shown[at:])}\s*"


def missing(shown: Sequence[str], printed: Sequence[str]) -> str | None:
    """The first of the lines shown that was not printed, in this order."""
    rest = iter(printed)
    for line in shown:
        pattern = re.compile(pattern_of(line))
        if not any(pattern.fullmatch(each) for each in rest):
            return line
    return None


def pasted(text: str, printed: Sequence[str]) -> str:
    """Commands with what a reader pastes in place of each line that has `…`. Raises Fault."""
    return "".join(_paste(line, printed) + "\n" if ANY in line else line + "\n" for line in text.splitlines())


def _paste(line: str, printed: Sequence[str]) -> str:
    if found := _last_like(line.strip(), printed):
        return found
    for word in re.findall(rf"[^\s'\"]*{ANY}[^\s'\"]*", line):
        found = None if word == ANY else _last_like(word, printed)
        if found is None:
            raise Fault(f"nothing was printed that could be pasted for {word!r} of {line.strip()!r}")
        line = line.replace(word, found)
    return line


def _last_like(text: str, printed: Sequence[str]) -> str | None:
    pattern = r"[^\s'\"]+".join(re.escape(part) for part in text.split(ANY))
    for each in reversed(printed):
        if found := re.search(pattern, each):
            return found[0]
    return None
