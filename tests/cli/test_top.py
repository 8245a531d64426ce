"""`top`: the order of its rows, its keys, and a real terminal that shows it in place."""

import os
import pty
import re
import select
import sys
import time
from contextlib import ExitStack

import pytest
from lab.member import Member
from lab.programs import PATIENCE_S, RelayProgram

from candy.cli.tables import MEMBERS, Row
from candy.cli.top import Order
from candy.errors import ConfigError


def row(**values: object) -> Row:
    return dict.fromkeys((column.key for column in MEMBERS), None) | values


ROWS = [
    row(address="10.0.0.10", name="b", bytes_out_per_s=1.0),
    row(address="10.0.0.9", name=None, bytes_out_per_s=None),
    row(address="10.0.0.11", name="A", bytes_out_per_s=2.0),
]


def ordered(order: Order) -> list[str]:
    return [one["address"].rpartition(".")[2] for one in order.sorted(ROWS)]


@pytest.mark.parametrize(
    ("sort", "expected"),
    [("OUT/S", ["11", "10", "9"]), ("address", ["9", "10", "11"]), ("NAME", ["11", "10", "9"])],
)
def test_order(sort: str, expected: list[str]) -> None:
    """Large numbers first, texts by the alphabet, addresses as numbers; who has no value comes last."""
    assert ordered(Order(sort)) == expected


def test_a_column_that_there_is_not() -> None:
    with pytest.raises(ConfigError, match=r"^--sort: 'nonsense' is not a column: use one of NETWORK, ADDRESS, NAME, "):
        Order("nonsense")


def test_keys() -> None:
    order = Order("ADDRESS")
    assert order.press("r")
    assert ordered(order) == ["11", "10", "9"]
    assert order.press(">")
    assert order.column.title == "NAME"
    assert ordered(order) == ["11", "10", "9"]
    assert order.press("<")
    assert ordered(order) == ["9", "10", "11"]
    for _ in MEMBERS:
        assert order.press("<")
    assert order.column.title == "ADDRESS"
    assert order.press("x")
    assert not order.press("q")


def test_on_a_terminal(relay: RelayProgram, stack: ExitStack) -> None:
    relay.wait_for("control socket")
    stack.enter_context(Member.connect(relay.address)).log_in("192.168.202.10")
    code = "from candy.cli.server import main; main()"
    argv = [sys.executable, "-c", code, "top", "--interval", "0.1", "--control-socket", str(relay.control)]
    child, terminal = pty.fork()
    if child == 0:
        os.execve(sys.executable, argv, os.environ | {"TERM": "xterm", "COLUMNS": "200", "LINES": "20"})
    said = ""

    def wait_for(pattern: str, pressed: str = "") -> None:
        nonlocal said
        os.write(terminal, pressed.encode())
        deadline = time.monotonic() + PATIENCE_S
        while not re.search(pattern, said, re.DOTALL):
            assert select.select([terminal], [], [], deadline - time.monotonic())[0], said
            said += os.read(terminal, 65536).decode()
        said = ""

    try:
        wait_for(r"\x1b\[1;7mOUT/S.*192\.168\.202\.10")
        wait_for(r"\x1b\[1;7mQUEUE", pressed=">")
        wait_for(r"\x1b\[1;7mOUT/S", pressed="<")
        # It goes on by itself.
        wait_for(r"192\.168\.202\.10")
        os.write(terminal, b"q")
        assert os.waitpid(child, 0)[1] == 0
    except BaseException:
        os.kill(child, 9)
        os.waitpid(child, 0)
        raise
    finally:
        os.close(terminal)
