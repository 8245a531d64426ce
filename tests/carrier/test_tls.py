"""The TLS contexts of both sides: files that can't be used, and what an insecure member accepts."""

import ssl
from pathlib import Path

import pytest
import trustme

from candy.carrier import tls
from candy.errors import ConfigError, OperationalError


@pytest.fixture
def pem(tmp_path: Path) -> tuple[Path, Path]:
    """A chain and its key."""
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    certificate = trustme.CA().issue_cert("relay.test")
    certificate.cert_chain_pems[0].write_to_path(chain)
    certificate.private_key_pem.write_to_path(key)
    return chain, key


def test_a_relay_asks_for_no_certificate(pem: tuple[Path, Path]) -> None:
    assert tls.serving(*pem).verify_mode == ssl.CERT_NONE


def test_a_chain_that_is_missing(pem: tuple[Path, Path], tmp_path: Path) -> None:
    _, key = pem
    missing = tmp_path / "missing.pem"
    with pytest.raises(OperationalError, match=rf"^cannot use {missing} with {key}: No such file or directory: give "):
        tls.serving(missing, key)


def test_a_key_of_another_certificate(pem: tuple[Path, Path], tmp_path: Path) -> None:
    chain, _ = pem
    other = tmp_path / "other.pem"
    trustme.CA().issue_cert("other.test").private_key_pem.write_to_path(other)
    with pytest.raises(OperationalError, match="the key is of another certificate: give a PEM chain"):
        tls.serving(chain, other)


@pytest.mark.parametrize("insecure", [False, True])
def test_what_a_member_verifies(insecure: bool) -> None:
    context = tls.connecting(None, insecure)
    assert context.check_hostname is not insecure
    assert context.verify_mode == (ssl.CERT_NONE if insecure else ssl.CERT_REQUIRED)


def test_ca_files_that_are_none(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    with pytest.raises(ConfigError, match=rf"^--ca-file {empty}: no PEM certificates in it$"):
        tls.connecting(empty, insecure=False)
    missing = tmp_path / "missing.pem"
    with pytest.raises(ConfigError, match=rf"^--ca-file {missing}: No such file or directory: "):
        tls.connecting(missing, insecure=False)
