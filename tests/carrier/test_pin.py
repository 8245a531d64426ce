"""Pins: read and written, and the same as openssl makes."""

import subprocess
from pathlib import Path

import pytest
import trustme

from candy.carrier import pin
from candy.carrier.certificates import examine

DIGEST = bytes(range(32))
PIN = "sha256/AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def test_a_pin_both_ways() -> None:
    assert pin.shown(DIGEST) == PIN
    assert pin.parse(PIN) == DIGEST
    # As curl writes it, also where the digest itself begins with a slash.
    assert pin.parse(PIN.replace("/", "//", 1)) == DIGEST
    slash = pin.shown(b"\xff" * 32)
    assert pin.parse(slash) == pin.parse(slash.replace("/", "//", 1)) == b"\xff" * 32


@pytest.mark.parametrize(
    "text", ["", "sha256/", PIN[:-1], PIN[7:], PIN.replace("256", "1"), PIN + "=", PIN.replace("A", "-")]
)
def test_what_is_no_pin(text: str) -> None:
    with pytest.raises(ValueError, match=r"^is not a pin: write it as the relay prints it, sha256/ and 44 letters$"):
        pin.parse(text)


@pytest.mark.parametrize("key_type", list(trustme.KeyType))
def test_openssl_has_the_same(tmp_path: Path, key_type: trustme.KeyType) -> None:
    """By the line in docs/operation.md."""
    chain = tmp_path / "relay.pem"
    trustme.CA().issue_cert("relay.test", key_type=key_type).cert_chain_pems[0].write_to_path(chain)
    shown = "openssl x509 -in /etc/ssl/vpn.example.org.pem"
    _, found, command = (Path(__file__).parents[2] / "docs/operation.md").read_text().partition(shown)
    assert found
    line = "openssl x509 -in relay.pem" + command.partition("\n")[0]
    made = subprocess.run(["sh", "-c", line], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert pin.shown(examine(chain).facts.digest) == f"sha256/{made.stdout.strip()}"
