"""What a reader of a document does: which blocks are run, and what they are held to."""

from pathlib import Path

import pytest
from kit.steps import Fault, Step, missing, pasted, steps_elsewhere, steps_of


def steps(folder: Path, text: str) -> list[Step]:
    document = folder / "document.md"
    document.write_text(text)
    return steps_of(document)


def test_a_document(tmp_path: Path) -> None:
    text = """# Words
<!-- file: relay /etc/candy/server.toml -->
```toml
dhcp = ""
```

<!-- run: relay, stays -->
```sh
candy-server
```

It prints:

<!-- run: laptop -->
```sh
ping -c 1 192.168.202.1
```

```text
64 bytes from …

1 received
```
<!-- run: no, needs a public name -->
```sh
certbot
```
<!-- end: relay -->
```text
nothing of a run
```
"""
    assert steps(tmp_path, text) == [
        Step(3, "file", "relay", 'dhcp = ""\n', "/etc/candy/server.toml"),
        Step(8, "stays", "relay", "candy-server\n"),
        Step(15, "run", "laptop", "ping -c 1 192.168.202.1\n", shown=("64 bytes from …", "1 received")),
        Step(25, "no", "needs a public name", "certbot\n"),
        Step(28, "end", "relay"),
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("```sh\nls\n```\n", "line 1: commands without a marker"),
        ("- so\n  ```sh\n  ls\n  ```\n", "line 2: commands without a marker"),
        ("<!-- run: relay -->\nwords\n```sh\nls\n```\n", "line 2: text between a marker and its block"),
        ("<!-- run: relay -->\n", "the last marker has no block"),
        ("<!-- run: relay -->\n<!-- run: relay -->\n```sh\nls\n```\n", "line 2: the marker before"),
        ("<!-- run: no -->\n```sh\nls\n```\n", "line 2: not run, and no reason"),
        ("<!-- run: relay, waits -->\n```sh\nls\n```\n", "line 2: 'waits' is nothing"),
        ("<!-- file: relay x -->\n```text\n```\n", "line 2: write <!-- file"),
        ("```text\n", "line 1: the block has no end"),
        ("<!-- usage -->\n```sh\nls\n```\n", "line 2: what may be typed is a block of text"),
        ("<!-- run: relay -->\n```text\nls\n```\n", "line 2: what is run is a block of sh"),
        ("<!-- run: make units, stays -->\n```sh\nls\n```\n", "line 2: 'stays' does not go with make units"),
    ],
)
def test_faults(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(Fault, match=why):
        steps(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("```\nls\n```\n", "line 1: a block is opened by"),
        ("``` sh\nls\n```\n", "line 1: a block is opened by"),
        ("```sh title\nls\n```\n", "line 1: a block is opened by"),
        ("````sh\nls\n````\n", "line 1: a block is opened by"),
        ("~~~\nls\n~~~\n", "line 1: a block is opened by"),
        ("> ```sh\n> ls\n> ```\n", "line 1: a block is opened by"),
        ("1. ```sh\n   ls\n   ```\n", "line 1: a block is opened by"),
        ("<pre>ls</pre>\n", "line 1: a block is opened by"),
        ("words\n\n    make build\n", "line 3: this is set in like a block"),
        ("words\n\n\tmake build\n", "line 3: this is set in like a block"),
        ("```zsh\nls\n```\n", "line 1: 'zsh' is no language here"),
        ("```text\nwords\n$ make build\n```\n", "line 3: a command in a block of text"),
        ("```text\nsudo env A='b c' candy-client -w ws://x\n```\n", "line 2: a command in a block of text"),
        ("```toml\n/opt/candy/bin/pip install .\n```\n", "line 2: a command in a block of toml"),
        ("```text\n.venv/bin/python x\n```\n", "line 2: a command in a block of text"),
        ("<!-- run: no, slow -->\n```sh\nls\n```\n```text\nmake build\n```\n", "line 6: a command in a block of text"),
        ("<!-- run: a -->\n```sh\nls\n```\n## B\n```text\nmake build\n```\n", "line 7: a command in a block"),
    ],
)
def test_blocks_that_would_evade(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(Fault, match=why):
        steps(tmp_path, text)


def test_what_no_machine_here_runs(tmp_path: Path) -> None:
    text = """<!-- usage -->
```text
candy-server invite [--name NAME]
```
<!-- run: make units -->
```sh
systemctl status x
```
```text
active
```
"""
    elsewhere = Step(6, "elsewhere", "make units", "systemctl status x\n", shown=("active",))
    assert steps(tmp_path, text) == [Step(2, "usage", "", "candy-server invite [--name NAME]\n"), elsewhere]
    assert steps_elsewhere("make units", tmp_path / "document.md") == [elsewhere]
    with pytest.raises(Fault, match="has no block for make image"):
        steps_elsewhere("make image", tmp_path / "document.md")


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("64 bytes: time=0.8 ms", "64 bytes: time=12.31 ms"),
        ("IN 620 B", "IN 1.2 kB"),
        ("ADDRESS  NAME  …", "ADDRESS        NAME     OS"),
        ("  indented", "indented"),
        ("it is (a) [b]", "it is (a) [b]"),
    ],
)
def test_lines_that_are_as_shown(shown: str, printed: str) -> None:
    assert missing([shown], ["before", printed, "after"]) is None


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("from 192.168.202.1", "from 192.168.202.2"),
        ("0 lost", "none lost"),
        ("up", "up and more"),
        ("a b", "ab"),
        ("IN 620 B", "IN 620 Bits"),
    ],
)
def test_lines_that_are_not(shown: str, printed: str) -> None:
    assert missing([shown], [printed]) == shown


def test_the_order_of_lines_counts() -> None:
    assert missing(["b", "c"], ["a", "b", "c"]) is None
    assert missing(["b", "a"], ["a", "b"]) == "a"


def test_what_is_pasted_is_the_last_that_was_printed() -> None:
    printed = ["first: run -w 'ws://a#one' now", "run -w 'ws://a#two' now"]
    assert pasted("run -w 'ws://a#…'\nls\n", printed) == "run -w 'ws://a#two'\nls\n"
    assert pasted("join 'ws://a#…' -n x\n", printed) == "join 'ws://a#two' -n x\n"
    with pytest.raises(Fault, match="nothing was printed"):
        pasted("walk …\n", printed)
    with pytest.raises(Fault, match="nothing was printed"):
        pasted("join 'ws://b#…'\n", printed)
