"""Digests against recorded ones, and the clock window at its bounds."""

from ipaddress import IPv4Address

import pytest
from kit.recorded import COMPUTED, MESSAGES, PASSWORD

from candy.protocol import auth, wire

WALL = 1_700_000_000


def digest_of(message: wire.Message) -> bytes:
    match message:
        case wire.Vmac():
            return auth.vmac_digest(PASSWORD, message.vmac, message.timestamp)
        case wire.Expttun():
            return auth.expttun_digest(PASSWORD, message.timestamp)
        case wire.Auth():
            return auth.auth_digest(PASSWORD, message.ip, message.timestamp)
        case _:
            pytest.fail(f"{message} has no digest")


@pytest.mark.parametrize("step", MESSAGES)
def test_digests_of_the_recorded_messages(step: dict[str, str]) -> None:
    payload = bytes.fromhex(step["hex"])
    digest = digest_of(wire.decode(payload))
    assert digest == payload[-32:]
    assert auth.digest_matches(digest, payload[-32:])


@pytest.mark.parametrize("entry", COMPUTED)
def test_computed_auth(entry: dict[str, str]) -> None:
    ip, timestamp = IPv4Address(entry["ip"]), int(entry["timestamp"])
    digest = auth.auth_digest(entry["password"].encode(), ip, timestamp)
    assert wire.Auth(ip, timestamp, digest).encode().hex() == entry["hex"]


def test_there_is_a_computed_auth() -> None:
    assert len(COMPUTED) == 1


@pytest.mark.parametrize("bit", [0, 7, 100, 255])
def test_one_wrong_bit_does_not_match(bit: int) -> None:
    digest = auth.expttun_digest(PASSWORD, WALL)
    wrong = (int.from_bytes(digest) ^ 1 << bit).to_bytes(32)
    assert not auth.digest_matches(digest, wrong)
    assert auth.digest_matches(digest, bytes(digest))


@pytest.mark.parametrize("timestamp", [-(2**63), 2**63 - 1, 0, -1])
def test_digests_take_every_int64(timestamp: int) -> None:
    digests = {
        auth.auth_digest(PASSWORD, IPv4Address("10.0.0.1"), timestamp),
        auth.expttun_digest(PASSWORD, timestamp),
        auth.vmac_digest(PASSWORD, bytes(16), timestamp),
    }
    assert [len(digest) for digest in digests] == [32, 32, 32]


@pytest.mark.parametrize(
    ("timestamp", "timely"),
    [
        (WALL, True),
        (WALL - 300, True),
        (WALL + 300, True),
        (WALL - 301, False),
        (WALL + 301, False),
        (0, False),
        (-(2**63), False),
        (2**63 - 1, False),
    ],
)
def test_the_clock_window(timestamp: int, timely: bool) -> None:
    assert auth.is_timely(timestamp, WALL) is timely


def test_the_clock_window_has_the_given_width() -> None:
    assert auth.is_timely(WALL + 5, WALL, 5)
    assert not auth.is_timely(WALL + 6, WALL, 5)
