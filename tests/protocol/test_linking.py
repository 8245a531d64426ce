"""What members tell each other of direct links: literal bytes both ways, and what is refused."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candy.errors import WireError
from candy.protocol.linking import Answer, Candidate, Endpoint, Kind, Offer, Reason, Says, probe

LAN = Candidate(Kind.LAN, Endpoint(ip_address("192.168.1.7"), 4660))
SEEN = Candidate(Kind.REFLEXIVE, Endpoint(ip_address("203.0.113.5"), 65535))
GLOBAL = Candidate(Kind.GLOBAL6, Endpoint(ip_address("2001:db8::7"), 1))
FIXED = Candidate(Kind.FIXED, Endpoint(ip_address("198.51.100.1"), 443))
OFFERS = [
    ("8003000000000001 00", Offer(1)),
    ("8003040100000002 00", Offer(2, Says.IS_OFF, Reason.SWITCHED_OFF)),
    (
        "80030303fffffffe 04 0104c0a801071234 0204cb007105ffff 030620010db80000000000000000000000070001"
        "0404c633640101bb",
        Offer(0xFFFFFFFE, Says.ANSWER_ME | Says.IS_SYMMETRIC, Reason.NO_UDP, (LAN, SEEN, GLOBAL, FIXED)),
    ),
]


@pytest.mark.parametrize(("data", "offer"), OFFERS)
def test_an_offer(data: str, offer: Offer) -> None:
    note = bytes.fromhex(data)
    assert offer.encode() == note
    assert Offer.decode(note) == offer
    assert Offer.decode(note + b"later") == offer


def test_the_longest_offer() -> None:
    assert len(Offer(1, candidates=(GLOBAL,) * 8).encode()) == 169


@pytest.mark.parametrize(
    "data",
    [
        "",
        "80030000000000 01",
        "8002000000000001 00",
        "0003000000000001 00",
        "8003000000000001 09" + 9 * "0104c0a801071234",
        "8003000000000001 01",
        "8003000000000001 01 0104c0a8010712",
        "8003000000000001 01 0106c0a801071234",
        "8003000000000001 01 0105c0a801071234",
        "8003000000000001 02 0104c0a801071234",
    ],
)
def test_what_is_no_offer(data: str) -> None:
    with pytest.raises(WireError, match="bad_offer"):
        Offer.decode(bytes.fromhex(data))


def test_what_a_later_candy_may_say() -> None:
    """Other flags, reasons, kinds and families; what can't be an address is left out."""
    note = bytes.fromhex(
        "8003f0ff00000001 04 0904c0a801071234 0104c0a801070000 010520010db800000000000000000000000700010104c0a801071234"
    )
    offer = Offer.decode(note)
    assert (offer.flags & Says.IS_OFF, offer.reason, offer.candidates) == (Says(0), Reason.NONE, (LAN,))


@given(st.binary(max_size=60))
def test_any_note(data: bytes) -> None:
    """Never anything but an offer, which is a fix-point, or the one error."""
    try:
        offer = Offer.decode(b"\x80\x03" + data)
    except WireError:
        return
    assert Offer.decode(offer.encode()) == offer


def test_a_probe_is_as_long_as_it_is_to_be() -> None:
    assert probe(b"12345678") == b"\x0112345678" + bytes(21)
    assert probe(b"12345678", 70) == b"\x0112345678" + bytes(29)


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (
            "02 6162636465666768 04 c0a80107 000000000000000000000000 1234 0500",
            Answer(b"abcdefgh", LAN.endpoint, 1280),
        ),
        ("02 6162636465666768 06 20010db8000000000000000000000007 0001 ffff", Answer(b"abcdefgh", GLOBAL[1], 65535)),
    ],
)
def test_an_answer(data: str, answer: Answer) -> None:
    assert answer.encode() == bytes.fromhex(data)
    assert Answer.decode(answer.encode()) == answer


@pytest.mark.parametrize("data", ["", "02" + 28 * "04", "01" + 29 * "04", "02" + 8 * "00" + "05" + 20 * "00"])
def test_what_is_no_answer(data: str) -> None:
    with pytest.raises(WireError, match="bad_answer"):
        Answer.decode(bytes.fromhex(data))


def test_how_an_endpoint_is_written() -> None:
    assert [str(each.endpoint) for each in (LAN, GLOBAL)] == ["192.168.1.7:4660", "[2001:db8::7]:1"]
