"""STUN answers: the test vectors of RFC 5769, and what is refused."""

from binascii import crc32
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candy.errors import WireError
from candy.protocol import stun
from candy.protocol.linking import Endpoint
from candy.protocol.stun import Seen

ID = bytes.fromhex("b7e7a701bc34d686fa87dfae")
IPV4 = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643"
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
)
"""RFC 5769, 2.2."""
IPV6 = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a147"
    "0113a9faa5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c"
)
"""RFC 5769, 2.3."""
V4 = Endpoint(ip_address("192.0.2.1"), 32853)


def response(*attributes: tuple[int, bytes], kind: int = 0x0101) -> bytes:
    body = b"".join(
        number.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + bytes(-len(value) % 4)
        for number, value in attributes
    )
    return kind.to_bytes(2, "big") + len(body).to_bytes(2, "big") + bytes.fromhex("2112a442") + ID + body


MAPPED = (0x0001, bytes.fromhex("00018055c0000201"))
XOR_MAPPED = (0x0020, bytes.fromhex("0001a147e112a643"))
OTHER = (0x802C, bytes.fromhex("00010d97cb007105"))


@pytest.mark.parametrize(
    ("datagram", "seen"),
    [
        (IPV4, Seen(V4, None)),
        (IPV6, Seen(Endpoint(ip_address("2001:db8:1234:5678:11:2233:4455:6677"), 32853), None)),
        (response(MAPPED), Seen(V4, None)),
        (response((0x0001, bytes.fromhex("000100010a000001")), XOR_MAPPED), Seen(V4, None)),
        (response(XOR_MAPPED, OTHER), Seen(V4, Endpoint(ip_address("203.0.113.5"), 3479))),
        (response((0x8022, b"odd"), XOR_MAPPED), Seen(V4, None)),
    ],
)
def test_what_it_says(datagram: bytes, seen: Seen) -> None:
    assert stun.answer(datagram, ID) == seen


def test_a_request() -> None:
    more = bytes.fromhex("8022002c") + b"candy" + b" " * 39
    assert stun.request(ID) == bytes.fromhex("000100302112a442") + ID + more


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        IPV4[:19],
        IPV4[:-4],
        IPV4 + bytes(4),
        response(XOR_MAPPED, kind=0x0111),
        response(XOR_MAPPED)[:4] + bytes(4) + response(XOR_MAPPED)[8:],
        response(),
        response(OTHER),
        response((0x0020, b"\0\1\xa1\x47\xe1\x12\xa6")),
        response((0x0020, b"\0\2\xa1\x47\xe1\x12\xa6\x43")),
        response((0x0020, b"\0\3\xa1\x47\xe1\x12\xa6\x43")),
        response((0x0020, b"\0\1")),
        response(XOR_MAPPED)[:2] + b"\0\x0e" + response(XOR_MAPPED)[4:],
        response((0x8022, b"text"))[:-4] + b"\0\x20\0\x08",
        IPV4[:-1] + bytes([IPV4[-1] ^ 1]),
        response(XOR_MAPPED, (0x8028, b"\0\0")),
    ],
)
def test_what_is_none(datagram: bytes) -> None:
    with pytest.raises(WireError, match="bad_stun"):
        stun.answer(datagram, ID)


def test_another_transaction_s() -> None:
    with pytest.raises(WireError, match="bad_stun"):
        stun.answer(IPV4, ID[::-1])


@given(st.binary(max_size=120))
def test_any_attributes(body: bytes) -> None:
    """Never anything but an answer, or the one error."""
    datagram = b"\x01\x01" + len(body).to_bytes(2, "big") + bytes.fromhex("2112a442") + ID + body
    try:
        seen = stun.answer(datagram, ID)
    except WireError:
        return
    assert seen.mapped.family in (4, 6)


def test_a_fingerprint_is_of_all_before_it() -> None:
    before = response(XOR_MAPPED, (0x8028, bytes(4)))[:-8]
    right = (crc32(before) ^ 0x5354554E).to_bytes(4, "big")
    assert stun.answer(before + b"\x80\x28\0\4" + right, ID).mapped == V4
