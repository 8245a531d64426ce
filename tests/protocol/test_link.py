"""What stands behind # in a URL, in bytes, both ways; and what is a mistake of its user."""

from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candy.protocol.link import Invitation, Link

NETWORK, RELAY, SECRET, PIN = (bytes([number]) * 32 for number in (1, 2, 3, 4))
SELECTOR = bytes([5]) * 16
INVITATION = Invitation(RELAY, 7, 1_800_000_000, SELECTOR, SECRET, 1_800_003_600)
BODY = RELAY + b"\0\7" + (1_800_000_000).to_bytes(6, "big") + SELECTOR + SECRET + (1_800_003_600).to_bytes(8, "big")


def text_of(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


@pytest.mark.parametrize(
    ("link", "data"),
    [
        (Link(NETWORK), b"\1\0" + NETWORK),
        (Link(NETWORK, INVITATION), b"\1\1" + NETWORK + BODY),
        (Link(NETWORK, None, PIN), b"\1\2" + NETWORK + PIN),
        (Link(NETWORK, INVITATION, PIN), b"\1\3" + NETWORK + BODY + PIN),
    ],
)
def test_each_link_both_ways(link: Link, data: bytes) -> None:
    assert link.encode() == text_of(data)
    assert Link.parse(link.encode()) == link


@pytest.mark.parametrize(
    ("fragment", "told"),
    [
        ("", "has no network's key"),
        ("A", "has no network's key"),
        ("AQ==", "has no network's key"),
        ("key", "does not know: update candy"),
        (text_of(b"\1\0" + NETWORK[1:]), "is cut off"),
        (text_of(b"\1\0" + NETWORK + b"\0"), "has too much"),
        (text_of(b"\1\1" + NETWORK + BODY[1:]), "is cut off, or"),
        (text_of(b"\1\2" + NETWORK), "is cut off, or"),
        (text_of(b"\1\4" + NETWORK), "update candy"),
        (text_of(b"\2\0" + NETWORK), "update candy"),
    ],
)
def test_anything_else_is_a_mistake_of_its_user(fragment: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Link.parse(fragment)


@given(st.text(max_size=60) | st.binary(max_size=240).map(text_of))
def test_any_text_is_a_link_or_a_value_error(fragment: str) -> None:
    try:
        link = Link.parse(fragment)
    except ValueError:
        return
    assert Link.parse(link.encode()) == link


def test_secrets_are_in_no_repr() -> None:
    assert str(SECRET) not in repr(Link(NETWORK, INVITATION))
