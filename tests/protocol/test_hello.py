"""What a client says of itself: every PING text that there is, and what is no such text."""

import pytest

from candy.protocol.hello import LONGEST_PING, PART_MAX, Hello


@pytest.mark.parametrize(
    ("payload", "hello"),
    [
        (b"candy::linux::6.1.8::vm", Hello("linux", "6.1.8", "vm")),
        (b"candy::windows::5.0::DESKTOP-1", Hello("windows", "5.0", "DESKTOP-1")),
        ("candy::macos::6.1::Jürgens Büro".encode(), Hello("macos", "6.1", "Jürgens Büro")),
        (b"candy::::::", Hello()),
        # Whatever stands behind the third separator is the name.
        (b"candy::linux::6.1::a::b", Hello("linux", "6.1", "a::b")),
    ],
)
def test_each_text_is_read_and_written(payload: bytes, hello: Hello) -> None:
    assert Hello.parse(payload) == hello
    assert hello.encode() == payload


@pytest.mark.parametrize("payload", [b"", b"candy::linux::6.1", b"candy-probe:12345678", b"other::linux::6.1::vm"])
def test_any_other_payload_is_none(payload: bytes) -> None:
    assert Hello.parse(payload) is None


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"a\x1b[31mb\r\n\x00c", "a[31mbc"),
        # Text that turns the direction of what follows, and none at all.
        ("a\u202eb\u200bc\u00a0d".encode(), "abcd"),
        (b"\xff\xfe-vm", "��-vm"),
        (b"x" * 100, "x" * PART_MAX),
        (b"<b>'\"&amp;", "<b>'\"&amp;"),
    ],
)
def test_of_each_part_63_printable_characters_are_taken(name: bytes, shown: str) -> None:
    hello = Hello.parse(b"candy::" + name + b"::" + name + b"::" + name)
    assert hello == Hello(shown, shown, shown)


def test_a_text_fits_into_a_ping() -> None:
    assert len(Hello("linux", "1.0", "x" * 200).encode()) == LONGEST_PING
