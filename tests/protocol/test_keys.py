"""Keys as they are shown: the bytes of sealed_vectors.json both ways, and everything else refused."""

import json
from base64 import b64encode
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candy.errors import TrustError
from candy.primitives import key_pair, sign, signing_public, verify
from candy.protocol import keys
from candy.protocol.keys import KEY_HEADER, NONCE_HEADER, SUCCESSION_HEADER, RelayKey, Shown, Succession

VECTORS = json.loads((Path(__file__).parent / "sealed_vectors.json").read_text())
CANDY_KEY = bytes.fromhex(VECTORS["Candy-Key"])
SUCCESSION = bytes.fromhex(VECTORS["Candy-Succession entry"])
SEED, NEXT_SEED = bytes([0x21]) * 32, bytes([0x22]) * 32
NETWORK, NEXT = signing_public(SEED), signing_public(NEXT_SEED)
RELAY = key_pair(bytes([0x12]) * 32).public
SECRET = bytes([0x42]) * 32
NONCE = bytes([0x31]) * 32


def test_candy_key_both_ways() -> None:
    made = RelayKey.make(sign, SEED, NETWORK, RELAY, 0, 1_800_000_000)
    assert made.encode() == CANDY_KEY
    assert RelayKey.decode(CANDY_KEY) == made
    assert made.is_signed(verify)


def test_succession_both_ways() -> None:
    made = Succession.make(sign, SEED, NETWORK, NEXT, 1)
    assert made.encode() == SUCCESSION
    assert Succession.decode(SUCCESSION) == made
    assert made.is_signed(verify)


@pytest.mark.parametrize("at", range(0, len(CANDY_KEY) * 8, 7))
def test_a_changed_bit_of_a_candy_key_shows(at: int) -> None:
    changed = bytearray(CANDY_KEY)
    changed[at // 8] ^= 1 << at % 8
    if at < 8:
        with pytest.raises(TrustError):
            RelayKey.decode(bytes(changed))
    else:
        assert not RelayKey.decode(bytes(changed)).is_signed(verify)


@pytest.mark.parametrize("at", range(0, len(SUCCESSION) * 8, 7))
def test_a_changed_bit_of_a_succession_shows(at: int) -> None:
    changed = bytearray(SUCCESSION)
    changed[at // 8] ^= 1 << at % 8
    assert not Succession.decode(bytes(changed)).is_signed(verify)


def test_flags_that_are_not_known_do_not_count() -> None:
    signed = b"\x01\x80" + CANDY_KEY[2:74]
    key = RelayKey.decode(signed + sign(SEED, b"candy.3 relay key" + signed))
    assert key.is_signed(verify)
    assert key.relay == RELAY


@pytest.mark.parametrize("data", [b"", CANDY_KEY[:-1], CANDY_KEY + b"\0", b"\2" + CANDY_KEY[1:]])
def test_another_length_or_version_is_no_candy_key(data: bytes) -> None:
    with pytest.raises(TrustError, match="the relay's key"):
        RelayKey.decode(data)


def test_pre_shared_keys() -> None:
    found = {
        "password": keys.of_password(b"correct horse battery staple", NETWORK),
        "invitation": keys.of_invitation(SECRET, NETWORK),
        "device": keys.of_device(SECRET, NETWORK),
        "pair": keys.derive(SECRET, NETWORK, b"candy.3 pair"),
    }
    assert found == {name: bytes.fromhex(VECTORS["psk"][name]) for name in found}


def test_headers_both_ways() -> None:
    key = RelayKey.decode(CANDY_KEY)
    for shown in (Shown(key, NONCE), Shown(key, NONCE, (Succession.decode(SUCCESSION),) * 8)):
        headers = shown.headers()
        assert Shown.parse(headers.get) == shown
        assert headers[KEY_HEADER] == b64encode(CANDY_KEY).decode()
        assert (SUCCESSION_HEADER in headers) == bool(shown.successions)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        (KEY_HEADER, None, "shows no Candy-Key"),
        (NONCE_HEADER, None, "shows no Candy-Nonce"),
        (KEY_HEADER, "???", "is not base64"),
        (KEY_HEADER, "é", "is not base64"),
        (NONCE_HEADER, b64encode(NONCE + b"\0").decode(), "has 33 bytes"),
        (SUCCESSION_HEADER, b64encode(SUCCESSION[1:]).decode(), "have 135 bytes"),
        (SUCCESSION_HEADER, b64encode(SUCCESSION * 9).decode(), "have 1224 bytes"),
    ],
)
def test_other_headers_are_refused(name: str, value: str | None, told: str) -> None:
    headers: dict[str, str | None] = dict(Shown(RelayKey.decode(CANDY_KEY), NONCE).headers())
    headers[name] = value
    with pytest.raises(TrustError, match=told):
        Shown.parse(headers.get)


@given(st.text(max_size=300), st.text(max_size=60), st.none() | st.text(max_size=300))
def test_any_headers_are_keys_or_a_trust_error(key: str, nonce: str, succession: str | None) -> None:
    headers = {KEY_HEADER: key, NONCE_HEADER: nonce, SUCCESSION_HEADER: succession}
    with pytest.raises(TrustError):
        Shown.parse(headers.get)


def test_fingerprint() -> None:
    assert keys.fingerprint(bytes(32)) == "6668 7aad f862 bd77 6c8f c18b 8e9f 8e20"


def test_a_signature_is_of_what_it_says() -> None:
    key = RelayKey.decode(CANDY_KEY)
    assert not replace(key, number=1).is_signed(verify)
    assert not replace(key, network=NEXT).is_signed(verify)
