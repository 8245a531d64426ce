"""Every kind of message against literal bytes, in both directions, and everything that is none."""

import ast
import inspect
import operator
import re
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

import pytest
from kit.recorded import MESSAGES

from candy.errors import WireError
from candy.protocol import wire

DIGEST = bytes(range(32))
DIGEST_HEX = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
HOST = IPv4Address("192.168.202.7")
OTHER = IPv4Address("192.168.202.9")

LITERALS: list[tuple[wire.Message, str]] = [
    (wire.Auth(HOST, 1700000000, DIGEST), f"00 c0a8ca07 000000006553f100 {DIGEST_HEX}"),
    (wire.Auth(HOST, -1, DIGEST), f"00 c0a8ca07 ffffffffffffffff {DIGEST_HEX}"),
    (wire.Auth(HOST, 2**63 - 1, DIGEST), f"00 c0a8ca07 7fffffffffffffff {DIGEST_HEX}"),
    (wire.Auth(HOST, -(2**63), DIGEST), f"00 c0a8ca07 8000000000000000 {DIGEST_HEX}"),
    (
        wire.Expttun(1700000000, IPv4Interface("192.168.202.7/24"), DIGEST),
        f"02 000000006553f100 3139322e3136382e3230322e372f3234 {'00' * 16} {DIGEST_HEX}",
    ),
    (
        wire.Expttun(1700000000, IPv4Interface("0.0.0.0/0"), DIGEST),
        f"02 000000006553f100 302e302e302e302f30 {'00' * 23} {DIGEST_HEX}",
    ),
    (wire.Udp4Conn(HOST, OTHER, IPv4Address("203.0.113.5"), 51820), "03 c0a8ca07 c0a8ca09 cb007105 ca6c"),
    (
        wire.Vmac(b"4510e588d451970f", 1700000000, DIGEST),
        f"04 34353130653538386434353139373066 000000006553f100 {DIGEST_HEX}",
    ),
    (wire.Discovery(HOST, wire.BROADCAST), "05 c0a8ca07 ffffffff"),
    (wire.Route(()), "06 00 00 00"),
    (
        wire.Route(
            (
                wire.RouteEntry(IPv4Network("10.1.0.0/16"), HOST),
                wire.RouteEntry(IPv4Network("0.0.0.0/0"), OTHER),
            ),
            flags=wire.Route.FIRST | wire.Route.LAST,
        ),
        "06 02 03 00  0a010000 ffff0000 c0a8ca07  00000000 00000000 c0a8ca09",
    ),
    (wire.Behind((), wire.Behind.FIRST | wire.Behind.LAST), "11 01 00 03"),
    (
        wire.Behind(
            (
                wire.Placement(IPv4Network("10.1.0.0/16"), HOST, IPv4Network("192.168.202.0/24")),
                wire.Placement(IPv4Network("0.0.0.0/0"), OTHER, IPv4Network("192.168.202.9/32")),
            ),
            wire.Behind.LAST,
        ),
        "11 01 02 02  0a010000 ffff0000 c0a8ca07 c0a8ca00 ffffff00  00000000 00000000 c0a8ca09 c0a8ca09 ffffffff",
    ),
    (
        wire.General(0, 0, HOST, OTHER, bytes.fromhex("c0a80105ca6c")),
        "ff 00 0000 c0a8ca07 c0a8ca09 c0a80105ca6c",
    ),
    (wire.General(7, 0xABCD, HOST, OTHER, b""), "ff 07 abcd c0a8ca07 c0a8ca09"),
]
BYTES = [bytes.fromhex(text) for _, text in LITERALS]


def reason_of(message: bytes) -> str:
    with pytest.raises(WireError) as caught:
        wire.decode(message)
    return caught.value.reason


@pytest.mark.parametrize(("message", "text"), LITERALS)
def test_literal_bytes_both_ways(message: wire.Message, text: str) -> None:
    assert message.encode() == bytes.fromhex(text)
    assert wire.decode(bytes.fromhex(text)) == message


@pytest.mark.parametrize("step", MESSAGES)
def test_recorded_messages_both_ways(step: dict[str, Any]) -> None:
    payload = bytes.fromhex(step["hex"])
    message = wire.decode(payload)
    assert payload[0] == wire.Kind[step["kind"]]
    assert message.encode() == payload
    match message:
        case wire.Vmac():
            assert (message.vmac.decode(), message.timestamp) == (step["vmac"], step["timestamp"])
        case wire.Expttun():
            assert (str(message.address), message.timestamp) == (step["cidr"], step["timestamp"])
        case wire.Auth():
            assert (str(message.ip), message.timestamp) == (step["ip"], step["timestamp"])
        case _:
            pytest.fail(f"no such message was recorded: {message}")


@pytest.mark.parametrize("message", [m for m, _ in LITERALS if isinstance(m, wire.Auth | wire.Expttun | wire.Vmac)])
@pytest.mark.parametrize("confusion", [b"\0", bytes(range(64)), bytes(1000)])
def test_confusion_is_appended_and_ignored(message: wire.Auth | wire.Expttun | wire.Vmac, confusion: bytes) -> None:
    assert message.encode(confusion) == message.encode() + confusion
    assert wire.decode(message.encode(confusion)) == message


def test_confusion_is_drawn_from_the_given_randomness() -> None:
    drawn: list[int] = []

    def randbytes(count: int) -> bytes:
        drawn.append(count)
        return b"\xff" * count

    assert wire.draw_confusion(randbytes) == b"\xff" * 60  # 255 mod 65
    assert drawn == [1, 60]
    assert wire.draw_confusion(bytes) == b""


def test_confusion_has_every_length_up_to_the_bound() -> None:
    drawn = [wire.draw_confusion(partial(operator.mul, bytes([first]))) for first in range(256)]
    assert {len(confusion) for confusion in drawn} == set(range(65))


@pytest.mark.parametrize("payload", BYTES)
def test_cut_short_at_every_byte(payload: bytes) -> None:
    # The data of a GENERAL may have any length, so it is cut within its fixed part.
    fixed = 12 if payload[0] == wire.Kind.GENERAL else len(payload)
    assert reason_of(b"") == "empty_message"
    for length in range(1, fixed):
        assert reason_of(payload[:length]) == "too_short"


@pytest.mark.parametrize("kind", sorted(set(range(256)) - {0, 2, 3, 4, 5, 6, 17, 255}))
def test_other_kinds_are_unknown(kind: int) -> None:
    assert reason_of(bytes([kind]) * 100) == "unknown_kind"


@pytest.mark.parametrize(
    "field",
    [
        b"192.168.202.7/24".ljust(32, b" "),  # without NUL
        b"192.168.202.7/" + b"24".zfill(18),
        b"",
        b"192.168.202.7",  # without slash
        b"192.168.202.7/",
        b"192.168.202.7/33",
        b"192.168.202.7/100000",
        b"192.168.202.7/-1",
        b"192.168.202.7/+1",
        b"192.168.202.7/ 24",
        b"192.168.202.7/24 ",
        b"192.168.202.7/24/24",
        b"192.168.202.7/255.255.255.0",
        b"192.168.202/24",
        b"192.168.202.256/24",
        b"192.168.202.07/24",
        b"/24",
        b"/",
        "١٩٢.168.202.7/24".encode(),
        "192.168.202.7/٢".encode(),
        b"192.168.202.\xff/24",
        b"fd00::1/64",
    ],
)
def test_bad_cidr(field: bytes) -> None:
    message = bytes([2]) + bytes(8) + field.ljust(32, b"\0") + DIGEST
    assert len(message) == 73
    assert reason_of(message) == "bad_cidr"


def test_bytes_behind_the_nul_are_not_read() -> None:
    message = bytes([2]) + bytes(8) + b"10.0.0.1/8\0\xff\xfe/33".ljust(32, b"\xff") + DIGEST
    assert wire.decode(message) == wire.Expttun(0, IPv4Interface("10.0.0.1/8"), DIGEST)


@pytest.mark.parametrize("mask", ["00ffffff", "ff00ff00", "ffffff01", "7fffffff", "00000001"])
def test_bad_mask(mask: str) -> None:
    assert reason_of(bytes.fromhex(f"06010000 0a000000 {mask} 0a000001")) == "bad_mask"
    assert reason_of(bytes.fromhex(f"11010103 0a000000 {mask} 0a000001 0b000000 ffffffff")) == "bad_mask"
    assert reason_of(bytes.fromhex(f"11010103 0a000000 ffffffff 0a000001 0b000000 {mask}")) == "bad_mask"


@pytest.mark.parametrize("prefix", range(33))
def test_every_mask_and_host_bits_are_cleared(prefix: int) -> None:
    network = IPv4Network(("10.255.255.255", prefix), strict=False)
    head = bytes.fromhex("06010000 0affffff") + network.netmask.packed
    assert wire.decode(head + HOST.packed) == wire.Route((wire.RouteEntry(network, HOST),))
    part = bytes.fromhex("0affffff") + network.netmask.packed
    behind = bytes.fromhex("11010103") + part + HOST.packed + part
    assert wire.decode(behind) == wire.Behind((wire.Placement(network, HOST, network),), 3)


def test_route_with_fewer_entries_than_its_count() -> None:
    entry = wire.RouteEntry(IPv4Network("10.0.0.0/8"), HOST).encode()
    assert reason_of(b"\x06\x03\0\0" + entry * 2) == "too_short"
    assert reason_of(b"\x06\xff\0\0" + entry * 254 + entry[:-1]) == "too_short"
    whole = wire.decode(b"\x06\xff\0\0" + entry * 255)
    assert isinstance(whole, wire.Route)
    assert len(whole.entries) == 255


def test_behind_with_fewer_entries_than_its_count() -> None:
    entry = wire.Placement(IPv4Network("10.0.0.0/8"), HOST, IPv4Network("192.168.202.0/24")).encode()
    assert reason_of(b"\x11\x01\x03\x03" + entry * 2) == "too_short"
    assert reason_of(b"\x11\x01\x01\x03" + entry[:-1]) == "too_short"
    longest = wire.decode(b"\x11\x01\x4a\x03" + entry * wire.MAX_PLACEMENTS)
    assert isinstance(longest, wire.Behind)
    assert len(longest.placements) == 74
    assert wire.LEGACY_PAYLOAD - len(entry) < len(longest.encode()) <= wire.LEGACY_PAYLOAD


@pytest.mark.parametrize("version", [0, 2, 255])
def test_behind_of_another_version(version: int) -> None:
    """Whatever it has behind its head."""
    assert reason_of(bytes([17, version, 1, 3])) == "unknown_version"


@pytest.mark.parametrize(
    ("vmac", "identity"),
    [
        (bytes(16), None),
        (b"0" * 16, None),
        (b"4510e588d451970f", b"4510e588d451970f"),
        (b"0" * 15 + b"1", b"0" * 15 + b"1"),
    ],
)
def test_an_all_zero_vmac_means_none(vmac: bytes, identity: bytes | None) -> None:
    assert wire.Vmac(vmac, 0, DIGEST).identity == identity


def test_every_kind_is_drawn_with_its_length() -> None:
    assert wire.__doc__ is not None
    drawn = {
        (name, int(minimum), int(kind))
        for name, minimum, kind in re.findall(r"^    ([A-Z0-9]+) +┌.*\n +(\d+)\+?, .*?│ *(\d+)│", wire.__doc__, re.M)
    }
    minimum = {
        wire.Kind.AUTH: wire.Auth.LAYOUT.size,
        wire.Kind.FORWARD: 1 + 20,
        wire.Kind.EXPTTUN: wire.Expttun.LAYOUT.size,
        wire.Kind.UDP4CONN: wire.Udp4Conn.LAYOUT.size,
        wire.Kind.VMAC: wire.Vmac.LAYOUT.size,
        wire.Kind.DISCOVERY: wire.Discovery.LAYOUT.size,
        wire.Kind.ROUTE: wire.Route.LAYOUT.size,
        wire.Kind.SUPER: 1 + 10 + 20,
        wire.Kind.BEHIND: wire.Behind.LAYOUT.size,
        wire.Kind.GENERAL: wire.General.LAYOUT.size,
    }
    assert drawn == {(kind.name, minimum[kind], kind.value) for kind in wire.Kind}


def test_every_drop_reason_has_words() -> None:
    body = ast.parse(inspect.getsource(wire.DropReason)).body[0]
    assert isinstance(body, ast.ClassDef)
    statements = body.body[1:]
    for name, words in zip(statements[::2], statements[1::2], strict=True):
        assert isinstance(name, ast.Assign)
        assert isinstance(words, ast.Expr), f"{ast.unparse(name)} is not explained"
        assert isinstance(words.value, ast.Constant)
        assert len(str(words.value.value)) > 20
    assert len(statements) == 2 * len(wire.DropReason)
