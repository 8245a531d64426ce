"""The file of a secret: what is one, what is a text, and what neither."""

import json
from pathlib import Path

import pytest

from candy.errors import ConfigError
from candy.protocol.keys import of_pair
from candy.protocol.secret import Secret

VECTORS = json.loads((Path(__file__).parent / "sealed_vectors.json").read_text())
NETWORK = bytes.fromhex(VECTORS["Candy-Key"])[2:34]
RANDOM = bytes([0x42]) * 32
LINE = "candy-secret-1:QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI"


def test_a_random_one() -> None:
    secret = Secret.parse(LINE + "\n")
    assert secret == Secret(RANDOM)
    assert str(secret) == LINE
    assert secret.under(NETWORK) == RANDOM
    assert of_pair(secret.under(NETWORK), NETWORK).hex() == VECTORS["psk"]["pair"]


def test_a_text() -> None:
    secret = Secret.parse("  a text\n")
    assert of_pair(secret.under(NETWORK), NETWORK).hex() == VECTORS["psk"]["pair of a text"]


@pytest.mark.parametrize("content", ["", "\n", "one\ntwo\n"])
def test_it_is_one_line(content: str) -> None:
    with pytest.raises(ConfigError, match="one line"):
        Secret.parse(content)


@pytest.mark.parametrize(
    "line", [LINE[:-1], LINE + "Q", LINE + "=", LINE[:-1] + "J", LINE[:-1] + "é", LINE[:-2] + "*I"]
)
def test_what_was_cut_or_changed_is_no_text(line: str) -> None:
    with pytest.raises(ConfigError, match="cut or changed"):
        Secret.parse(line)


def test_it_is_in_no_repr() -> None:
    shown = repr((Secret.parse(LINE), Secret.parse("a text")))
    assert "BBBB" not in shown
    assert "a text" not in shown
