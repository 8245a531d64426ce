"""What a reader of a document does: its blocks of commands and of files, in order, each with who and where.

    <!-- run: relay -->               the ```sh block below is run on the machine `relay`, and has to end well
    <!-- run: relay, stays -->        its last command goes on, in a terminal of its own
    <!-- run: relay, fails -->        the block ends with a failure, as the text says
    <!-- run: make units -->          that runs it, with what the machines here do not have
    <!-- run: no, takes minutes -->   nobody runs it, for this reason
    <!-- usage -->                    what may be typed, in ```text, with `[--so FAR]`: the parsers are asked
    <!-- file: relay /etc/x.toml -->  the block below, of any kind, is what this file has
    <!-- end: relay -->               ^C in the terminals there, of what stays

Rules:
 1. No block evades: each is between ``` with a language. A block of commands has one of the first six markers, a block
    of data has no commands in it, and what is set in from the margin by four is no block at all. Else it is a fault:
    nobody would notice when a command works no more.
 2. The ```text block behind commands, before other ones, shows what they print, line by line. Numbers, sizes and
    the space between words may differ, addresses may not, `…` stands for anything, and further lines may come between.
 3. `…` in commands is what a reader would paste: the last line that was printed before and is like this one, else the
    last word.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

ANY = "…"
ELSEWHERE = {
    "make image": "scripts/image.py",
    "make try-wheel": "scripts/try_wheel.py",
    "make units": "scripts/units.py",
}
"""What runs blocks that the machines of tests/lab can't, and by which program."""
COMMANDS = re.compile(
    r"apt|apt-get|brew|candy-client|candy-server|cat|cd|chmod|cp|curl|docker|echo|export|install|ip|journalctl|make|mkdir"
    r"|mv|nft|nginx|openssl|ping|pip|pipx|podman|podman-compose|python3?|rm|scp|service|sqlite3|ssh|sysctl|systemctl|tar"
    r"|tcpdump|uv|wget|\.{0,2}(/[\w.-]+)+|\.?[\w-]+(/[\w.-]+)+\.(py|sh)|\.venv/bin/\S+"
)
"""Which words begin a command: programs, and paths of such. A test sees that each block of commands has one."""
_SHELL = frozenset({"sh", "bash", "console", "shell"})
_DATA = frozenset({"text", "toml", "ini", "nginx", "yaml", "json"})
_MARKER = re.compile(r"<!-- (run|file|end): (.+) -->|<!-- (usage) -->")
_FENCE = re.compile(r"( *)```(\w+)$")
_NO_FENCE = re.compile(r"[ >*\d.-]*(```|~~~)|<pre")
_BEFORE_COMMANDS = re.compile(r"(?:[$#] |sudo |env |\w+=(?:'[^']*'|\"[^\"]*\"|\S*) )*")
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
    kind: Literal["run", "fails", "stays", "file", "end", "elsewhere", "no", "usage"]
    machine: str
    """Its name; of a block that is run elsewhere by what, of one that is not the reason."""
    text: str = ""
    path: str = ""
    """Of a file."""
    shown: tuple[str, ...] = ()
    """What a run prints, among other lines."""


def steps_of(document: Path) -> list[Step]:
    """All of a document. Raises Fault."""
    return list(_steps(document.read_text().splitlines()))


def steps_elsewhere(target: str, *documents: Path) -> list[Step]:
    """Those of these documents that a target of the Makefile runs; a document has one at least. Raises Fault."""
    found: list[Step] = []
    for document in documents:
        of_it = [step for step in steps_of(document) if step.kind == "elsewhere" and step.machine == target]
        if not of_it:
            raise Fault(f"{document.name} has no block for {target}: <!-- run: {target} -->")
        found += of_it
    return found


def _steps(lines: Sequence[str]) -> Iterator[Step]:
    marker: tuple[str, str] | None = None
    shown_at: int | None = None
    at = 0
    while at < len(lines):
        line, number = lines[at], at + 1
        if found := _MARKER.fullmatch(line):
            if marker is not None:
                raise Fault(f"line {number}: the marker before this one has no block")
            marker = found[1] or found[3], found[2] or ""
            if marker[0] == "end":
                yield Step(number, "end", marker[1])
                marker = None
        elif fence := _FENCE.fullmatch(line):
            end = _end_of(lines, at)
            block = "".join(each.removeprefix(fence[1]) + "\n" for each in lines[at + 1 : end])
            if marker is not None:
                step = _step(number, *marker, fence[2], block)
                if step.kind in ("run", "fails", "stays", "elsewhere") and (shown_at := _shown_behind(lines, end)):
                    shown = lines[shown_at + 1 : _end_of(lines, shown_at)]
                    step = replace(step, shown=tuple(each for each in shown if each.strip()))
                yield step
            elif at != shown_at:
                _judge_unmarked(number, fence[2], block)
            marker, at = None, end
        elif _NO_FENCE.match(line):
            raise Fault(f"line {number}: a block is opened by ``` and a language, like ```sh or ```text")
        elif line.startswith(("    ", "\t")) and at and not lines[at - 1].strip():
            raise Fault(f"line {number}: this is set in like a block: write ``` and a language above it")
        elif line.strip() and marker is not None:
            raise Fault(f"line {number}: text between a marker and its block")
        at += 1
    if marker is not None:
        raise Fault("the last marker has no block")


def _judge_unmarked(line: int, language: str, block: str) -> None:
    if language in _SHELL:
        raise Fault(f"line {line}: commands without a marker above them: <!-- run: MACHINE -->")
    if language not in _DATA:
        raise Fault(f"line {line}: {language!r} is no language here: take one of {', '.join(sorted(_SHELL | _DATA))}")
    for offset, text in enumerate(block.splitlines(), 1):
        if first_word(text):
            raise Fault(f"line {line + offset}: a command in a block of {language}: write it into one of sh")


def first_word(line: str) -> str | None:
    """That which says that a line is a command: its program. None: it is none."""
    [word, *_] = line.strip()[len(found[0]) if (found := _BEFORE_COMMANDS.match(line.strip())) else 0 :].split() or [""]
    return word if COMMANDS.fullmatch(word) else None


def _end_of(lines: Sequence[str], begin: int) -> int:
    """The line that closes the block which is opened there."""
    for at in range(begin + 1, len(lines)):
        if lines[at].strip() == "```":
            return at
    raise Fault(f"line {begin + 1}: the block has no end")


def _shown_behind(lines: Sequence[str], end: int) -> int | None:
    """The line that opens the block of what is printed."""
    for at in range(end + 1, len(lines)):
        if lines[at] == "```text":
            return at
        if lines[at].lstrip().startswith(("```", "<!-- ", "#")):
            break
    return None


def _step(line: int, kind: str, value: str, language: str, block: str) -> Step:
    if kind == "file":
        machine, _, path = value.partition(" ")
        if not path.startswith("/"):
            raise Fault(f"line {line}: write <!-- file: MACHINE /PATH -->")
        return Step(line, "file", machine, block, path)
    if kind == "usage":
        if language != "text":
            raise Fault(f"line {line}: what may be typed is a block of text")
        return Step(line, "usage", "", block)
    if language not in _SHELL:
        raise Fault(f"line {line}: what is run is a block of sh")
    machine, _, more = value.partition(", ")
    if machine == "no":
        if not more:
            raise Fault(f"line {line}: not run, and no reason: write <!-- run: no, REASON -->")
        return Step(line, "no", more, block)
    if machine in ELSEWHERE:
        if more:
            raise Fault(f"line {line}: {more!r} does not go with {machine}")
        return Step(line, "elsewhere", machine, block)
    match more:
        case "":
            return Step(line, "run", machine, block)
        case "stays" | "fails":
            return Step(line, more, machine, block)
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
