"""Records: what is written comes back, and nobody else can write, read or move it."""

import os
from ipaddress import IPv4Network

import pytest
from kit.nats import SECRET
from kit.primitives import PRIMITIVES

from candy.relay.cluster import records
from candy.relay.cluster.ledger import Bucket
from candy.relay.cluster.records import Common, Credential, Envelope, FormatError, Grant, Record, Redeemable, Watermark
from candy.relay.enrolment import Device, Invitation, Standing

DEVICE = Device(
    b"k" * 32,
    7,
    b"s" * 16,
    b"p" * 32,
    Standing.WAITING,
    "laptop",
    "staff",
    b"",
    IPv4Network("10.0.0.0/28"),
    5,
    True,
    b"m" * 16,
)
INVITATION = Invitation(b"i" * 16, b"p" * 32, "guests", None, 3, 100, 1)


def envelope(secret: bytes = SECRET) -> Envelope:
    return Envelope(secret, PRIMITIVES, os.urandom)


@pytest.mark.parametrize(
    "record",
    [
        Grant(b"v" * 16, "eu", 1000, 900, "läptop", "linux", "1", "203.0.113.1", b"n" * 8),
        Grant(b"", "eu", 1000),
        Credential.of(DEVICE),
        Redeemable.of(INVITATION),
        Common(("eu", "us"), "10.0.0.0/8", ("a", "b"), ("rule",), "6b", (), True, False),
        Watermark(12),
    ],
)
def test_what_is_written_comes_back(record: Record) -> None:
    assert type(record).decode(record.encode()) == record


def test_of_a_device_and_an_invitation_everything() -> None:
    assert Credential.decode(Credential.of(DEVICE).encode()).device() == DEVICE
    assert Redeemable.decode(Redeemable.of(INVITATION).encode()).invitation() == INVITATION


def test_a_field_of_a_newer_version_is_passed_over() -> None:
    assert Watermark.decode(b'{"timestamp":1,"colour":"red"}') == Watermark(1)


@pytest.mark.parametrize("content", [b"{}", b"[]", b"\xff", b'{"timestamp":"1"}', b'{"timestamp":true}', b"1"])
def test_what_is_none(content: bytes) -> None:
    with pytest.raises(FormatError, match=r"^a record of candy's bucket networks is of another version"):
        Watermark.decode(content)


def test_sealed_for_a_place() -> None:
    own = envelope()
    value, identity = own.seal(Bucket.GRANTS, "a", b"secret words")
    assert b"words" not in value
    assert own.open(Bucket.GRANTS, "a", value) == (identity, b"secret words")
    assert envelope().open(Bucket.GRANTS, "a", value).content == b"secret words"
    changed = value[:-1] + bytes([value[-1] ^ 1])
    for bucket, key, what, by in (
        (Bucket.GRANTS, "b", value, own),
        (Bucket.DEVICES, "a", value, own),
        (Bucket.GRANTS, "a", changed, own),
        (Bucket.GRANTS, "a", value[:39], own),
        (Bucket.GRANTS, "a", b"", own),
        (Bucket.GRANTS, "a", value, envelope(SECRET + b"!")),
    ):
        with pytest.raises(FormatError, match="was written by a relay with another secret_file"):
            by.open(bucket, key, what)


def test_no_two_writings_are_alike() -> None:
    own = envelope()
    assert len({own.seal(Bucket.GRANTS, "a", b"x") for _ in range(100)}) == 100


def test_digests_of_passwords() -> None:
    own = envelope()
    assert own.digest(b"pw") == envelope().digest(b"pw")
    different = [b"", b"\0", b"pw", b"pw\0", b"p" * 31, b"p" * 32, b"p" * 62]
    assert len({own.digest(each) for each in different}) == len(different)
    assert own.digest(b"pw") != envelope(SECRET[:-1]).digest(b"pw")


@pytest.mark.parametrize(("path", "word"), [("/", "=2F"), ("/home", "=2Fhome"), ("/a.b/c~_-", "=2Fa=2Eb=2Fc=7E_-")])
def test_a_path_is_one_word(path: str, word: str) -> None:
    assert records.word(path) == word
    assert records.path_of(word) == path
    assert records.grant_key(path, 0x0A000001) == f"{word}.10.0.0.1"
