"""The TLS contexts of both sides: files that can't be used, and certificates that are renewed."""

import socket
import ssl
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from cryptography.x509 import load_pem_x509_certificate
from kit.peer import EngineRelay
from lab.programs import PATIENCE_S
from lab.tls import Renewed, written

from candy._fastpath import TlsContext
from candy.carrier import pin, tls
from candy.carrier.certificates import examine
from candy.carrier.tls import Trust
from candy.errors import ConfigError, OperationalError


@pytest.fixture
def pem(tmp_path: Path) -> tuple[Path, Path]:
    """A chain and its key."""
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    certificate = trustme.CA().issue_cert("relay.test")
    certificate.cert_chain_pems[0].write_to_path(chain)
    certificate.private_key_pem.write_to_path(key)
    return chain, key


def test_a_chain_that_is_missing(pem: tuple[Path, Path], tmp_path: Path) -> None:
    _, key = pem
    missing = tmp_path / "missing.pem"
    with pytest.raises(OperationalError, match=rf"^cannot use {missing} with {key}: {missing}: No such file "):
        tls.Certificates([(missing, key)])


def test_what_only_openssl_finds(tmp_path: Path) -> None:
    """A key that is too short for its level of security, which is nothing that a certificate says of itself."""
    key, chain = tmp_path / "weak.key", tmp_path / "weak.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:1024", "-nodes", "-subj", "/CN=relay.test", "-days", "9"]
    subprocess.run([*request, "-keyout", str(key), "-out", str(chain)], check=True, capture_output=True)
    with pytest.raises(
        OperationalError, match=rf"^cannot use {chain} with {key}: OpenSSL does not take them: .*key too"
    ):
        tls.Certificates([(chain, key)])


def test_a_key_of_another_certificate(pem: tuple[Path, Path], tmp_path: Path) -> None:
    chain, _ = pem
    other = tmp_path / "other.pem"
    trustme.CA().issue_cert("other.test").private_key_pem.write_to_path(other)
    with pytest.raises(OperationalError, match="the key is of another certificate: give the one"):
        tls.Certificates([(chain, other)])


def shown(context: TlsContext, authority: trustme.CA, name: str | None = "relay.test", *, check: bool = True) -> str:
    """The serial number of the certificate that a peer gets to see, which names this server or none."""
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    trusting.check_hostname = name is not None and check
    ours, theirs = socket.socketpair()
    with EngineRelay(max_guests=1) as relay, ours:
        ours.settimeout(PATIENCE_S)
        relay.engine.begin_tls(theirs.detach(), tls=context)
        with trusting.wrap_socket(ours, server_hostname=name) as peer:
            certificate = peer.getpeercert()
    assert certificate is not None
    return str(certificate["serialNumber"])


@pytest.fixture
def folder(tmp_path: Path) -> Renewed:
    return Renewed(tmp_path)


@pytest.mark.parametrize("name", ["relay.test", None])
def test_a_renewed_certificate_is_shown_to_who_comes(folder: Renewed, name: str | None) -> None:
    certificate = tls.Certificates([(folder.chain, folder.key)])
    first = shown(certificate.serving, folder.authority, name)
    assert not certificate.renew()
    folder.use(folder.make("second"))
    assert shown(certificate.serving, folder.authority, name) == first
    assert certificate.renew()
    second = shown(certificate.serving, folder.authority, name)
    assert second != first
    assert not certificate.renew()
    folder.use(folder.make("third"))
    assert certificate.renew()
    assert shown(certificate.serving, folder.authority, name) not in (first, second)


def test_a_folder_behind_links_is_exchanged(folder: Renewed) -> None:
    """As Kubernetes does: the links themselves stay."""
    folder.link(folder.folder / "data", folder.folder / "first")
    folder.use(folder.folder / "data")
    certificate = tls.Certificates([(folder.chain, folder.key)])
    first = shown(certificate.serving, folder.authority)
    folder.link(folder.folder / "data", folder.make("second"))
    assert certificate.renew()
    assert shown(certificate.serving, folder.authority) != first


def test_files_are_used_when_they_are_the_same_in_two_looks(folder: Renewed) -> None:
    """The first look may have come between the chain and its key."""
    certificate = tls.Certificates([(folder.chain, folder.key)])
    assert [certificate.look() for _ in range(2)] == [False, False]
    second = folder.make("second")
    folder.link(folder.chain, second / "chain.pem")
    assert not certificate.look()
    folder.link(folder.key, second / "key.pem")
    assert [certificate.look() for _ in range(3)] == [False, True, False]


def test_a_pair_that_does_not_fit_changes_nothing_and_is_complained_of_once(folder: Renewed) -> None:
    certificate = tls.Certificates([(folder.chain, folder.key)])
    first = shown(certificate.serving, folder.authority)
    second = folder.make("second")
    folder.link(folder.chain, second / "chain.pem")
    assert not certificate.look()
    with pytest.raises(OperationalError, match="the key is of another certificate"):
        certificate.look()
    assert not certificate.look()
    folder.key.unlink()
    with pytest.raises(OperationalError, match="No such file"):
        certificate.renew()
    assert shown(certificate.serving, folder.authority) == first
    folder.use(second)
    assert [certificate.look() for _ in range(2)] == [False, True]
    assert shown(certificate.serving, folder.authority) != first


def test_a_file_that_is_written_over(folder: Renewed) -> None:
    certificate = tls.Certificates([(folder.chain, folder.key)])
    first = shown(certificate.serving, folder.authority)
    second = folder.make("second")
    for path in (folder.chain, folder.key):
        path.write_bytes((second / path.name).read_bytes())
    assert certificate.renew()
    assert shown(certificate.serving, folder.authority) != first


def several(folder: Path, authority: trustme.CA) -> dict[str, tuple[Path, Path]]:
    """Certificates of one relay: one name by two kinds of key, a wildcard, and a name of its own below that."""
    names = {
        "ec": authority.issue_cert("relay.test", key_type=trustme.KeyType.ECDSA),
        "rsa": authority.issue_cert("relay.test", key_type=trustme.KeyType.RSA),
        "wild": authority.issue_cert("*.wild.test"),
        "own": authority.issue_cert("own.wild.test", key_type=trustme.KeyType.RSA),
    }
    return {name: written(folder, name, certificate) for name, certificate in names.items()}


def serial(chain: Path) -> str:
    return f"{load_pem_x509_certificate(chain.read_bytes()).serial_number:X}"


SHOWN = [("relay.test", "ec"), ("RELAY.test", "ec"), (None, "ec"), ("stranger.test", "ec"), ("a.wild.test", "wild")]


@pytest.mark.parametrize(("name", "expected"), SHOWN)
def test_certificates_by_name(tmp_path: Path, name: str | None, expected: str) -> None:
    authority = trustme.CA()
    files = several(tmp_path, authority)
    certificates = tls.Certificates([*files.values()])
    assert int(shown(certificates.serving, authority, name, check=False), 16) == int(serial(files[expected][0]), 16)


def test_what_is_known_of_them(tmp_path: Path) -> None:
    authority = trustme.CA()
    ends = [datetime(2026, 12, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)]
    files = [written(tmp_path, str(end.month), authority.issue_cert("relay.test", not_after=end)) for end in ends]
    certificates = tls.Certificates(files)
    assert certificates.expiry() == ends[1].timestamp()
    assert len(certificates.doubts(ends[1].timestamp() - 90 * 86400)) == 1
    [soon, _] = certificates.doubts(ends[1].timestamp() - 9)
    assert "11.pem ends soon" in soon
    [expired, _] = certificates.doubts(ends[1].timestamp() + 9)
    assert "11.pem has expired" in expired
    assert pin.parse(certificates.pin()) == examine(files[0][0]).facts.digest


def test_a_group_that_openssl_lacks(pem: tuple[Path, Path]) -> None:
    """Of either side, and one line."""
    if ssl.OPENSSL_VERSION_INFO >= (3, 5):
        tls.Certificates([pem], ml_kem=True)
        tls.trusting("relay.test", Trust(ml_kem=True))
        return
    with pytest.raises(OperationalError, match=r"^no TLS: OpenSSL .* has no X25519MLKEM768: it takes OpenSSL 3\.5 or"):
        tls.Certificates([pem], ml_kem=True)
    with pytest.raises(OperationalError, match=r"^no TLS: OpenSSL .* has no X25519MLKEM768: it takes OpenSSL 3\.5 or"):
        tls.trusting("relay.test", Trust(ml_kem=True))


def test_a_name_that_no_certificate_has() -> None:
    with pytest.raises(
        ConfigError, match=r"^a\.\.test can't be the name in a certificate \(.*\): write it as that does$"
    ):
        tls.trusting("a..test", Trust())


def test_ca_files_that_are_none(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    with pytest.raises(ConfigError, match=rf"^--ca-file {empty}: no PEM certificates in it$"):
        tls.trusting("relay.test", Trust(empty))
    missing = tmp_path / "missing.pem"
    with pytest.raises(ConfigError, match=rf"^--ca-file {missing}: No such file or directory: "):
        tls.trusting("relay.test", Trust(missing))
