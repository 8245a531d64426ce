"""The engine's parts stand in an order, and each uses those before it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECURSION = {
    ("send", "tun"): {"tun_write"},
    ("receive", "message"): {"handle_frame"},
    ("receive", "trunkreceive"): {"trunk_process"},
}
"""The uses against the order: a packet may be for a device, and what does not take the short way, or came from another
relay, may come back as a packet."""

_DEFINED = re.compile(r"^cdef (?!extern|enum|struct|class)[^()\n]*?\b(\w+)\(", re.MULTILINE)
_USED = re.compile(r"(?<![\w.])(\w+)(?=\()|\b(\w+_main)\b")
"""Called, or handed over as the entry of a thread."""


def uses(parts: dict[str, str]) -> dict[tuple[str, str], set[str]]:
    """The functions that a part uses of a later one, by (user, owner); `parts` are sources by name, in order."""
    sources = {name: _without_text(text) for name, text in parts.items()}
    order = list(sources)
    owners = {function: name for name, source in sources.items() for function in _DEFINED.findall(source)}
    found: dict[tuple[str, str], set[str]] = {}
    for name, source in sources.items():
        for function in {called or entry for called, entry in _USED.findall(source)}:
            owner = owners.get(function, name)
            if order.index(owner) > order.index(name):
                found.setdefault((name, owner), set()).add(function)
    return found


def _without_text(source: str) -> str:
    """Without docstrings and comments, which name functions as well."""
    source = re.sub(r'""".*?"""', "", source, flags=re.DOTALL)
    return re.sub(r"#.*", "", source)


def included() -> dict[str, str]:
    names = re.findall(r'^include "engine/(\w+)\.pxi"', (ROOT / "candy/_fastpath.pyx").read_text(), re.MULTILINE)
    return {name: (ROOT / f"candy/engine/{name}.pxi").read_text() for name in names}


def test_each_part_uses_those_before_it() -> None:
    assert uses(included()) == RECURSION


def test_every_part_is_included() -> None:
    assert sorted(included()) == sorted(path.stem for path in (ROOT / "candy/engine").glob("*.pxi"))


def test_the_table_of_contents_explains_every_part() -> None:
    lines = (ROOT / "candy/_fastpath.pyx").read_text().splitlines()
    bare = [line for line in lines if line.startswith("include ") and not re.search(r"# \S", line)]
    assert bare == []


@pytest.mark.parametrize(
    ("first", "found"),
    [
        ("cdef void a() noexcept nogil:\n    b(1)\n", {("one", "two"): {"b"}}),
        ("cdef void a() noexcept nogil:\n    pthread_create(b_main)\n", {("one", "two"): {"b_main"}}),
        ('cdef void a() noexcept nogil:\n    """b() follows."""\n    s.b(1)    # b()\n', {}),
    ],
)
def test_uses_finds(first: str, found: dict[tuple[str, str], set[str]]) -> None:
    second = (
        "cdef inline int b(int n) noexcept nogil:\n    return a(n)\n\n\ncdef void *b_main(void *w) noexcept nogil:\n"
    )
    assert uses({"one": first, "two": second}) == found
