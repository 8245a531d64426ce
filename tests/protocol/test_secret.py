"""The file of a secret: what is one, what is a text, and what neither."""

import json
from pathlib import Path

import pytest

from candy.protocol.keys import of_pair
from candy.protocol.secret import Secret

VECTORS = json.loads((Path(__file__).parent / "sealed_vectors.json").read_text())
NETWORK = bytes.fromhex(VECTORS["Candy-Key"])[2:34]
RANDOM = bytes([0x42]) * 32
LINE = "candy-secret-1:QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI"


def test_a_random_one() -> None:
    secret = Secret.parse(f"{LINE}\n".encode())
    assert secret == Secret(RANDOM)
    assert str(secret) == LINE
    assert secret.under(NETWORK) == RANDOM
    assert of_pair(secret.under(NETWORK), NETWORK).hex() == VECTORS["psk"]["pair"]


def test_a_text() -> None:
    secret = Secret.parse(b"  a text\n")
    assert of_pair(secret.under(NETWORK), NETWORK).hex() == VECTORS["psk"]["pair of a text"]


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "is empty"), (b"\n", "is empty"), (b"one\ntwo\n", "more than one")]
)
def test_it_is_one_line(content: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Secret.parse(content)


@pytest.mark.parametrize(
    "line", [LINE[:15], LINE[:-1], LINE + "Q", LINE + "=", LINE[:-1] + "J", LINE[:-1] + "é", LINE[:-2] + "*I"]
)
def test_what_was_cut_or_changed_is_no_text(line: str) -> None:
    with pytest.raises(ValueError, match="cut off or changed"):
        Secret.parse(line.encode())


def test_it_is_in_no_repr() -> None:
    shown = repr((Secret.parse(LINE.encode()), Secret.parse(b"a text")))
    assert "BBBB" not in shown
    assert "a text" not in shown
