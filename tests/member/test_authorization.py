"""User and password of a URL in HTTP's Basic authorization."""

import base64

import pytest
from yarl import URL

from candy.member.authorization import basic


@pytest.mark.parametrize(
    ("url", "credentials"),
    [
        ("ws://alice:secret@relay/", b"alice:secret"),
        ("ws://alice:p%C3%A9@relay/", "alice:pé".encode()),
        ("ws://alice:pé@relay/", "alice:pé".encode()),
        ("ws://alice:%E2%82%AC@relay/", "alice:€".encode()),
        ("http://me%40here:p%3Aw%2F%25+@proxy:3128", b"me@here:p:w/%+"),
        # Who needs Latin-1 can have it.
        ("ws://alice:p%E9@relay/", b"alice:p\xe9"),
        ("ws://alice@relay/", b"alice:"),
        ("ws://:secret@relay/", b":secret"),
    ],
)
def test_basic(url: str, credentials: bytes) -> None:
    """F8: "é goes out as latin-1 (nginx: 401), € and the colon are tracebacks"."""
    assert basic(URL(url)) == f"Basic {base64.b64encode(credentials).decode()}"


def test_without_user_and_password() -> None:
    assert basic(URL("ws://relay/")) is None
