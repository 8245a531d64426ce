"""Certificates for loopback, authorities that nobody else trusts, what a client says first: known to all tests."""

import os
import ssl
from pathlib import Path

import pytest
import trustme


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The authority's certificate."""
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="session")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    """What a server on loopback, or relay.test, shows."""
    return tls_for(authority, "127.0.0.1", "relay.test")


def tls_for(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    """What a server of these names shows. Like a web server's, it would rather speak HTTP/2."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["h2", "http/1.1"])
    authority.issue_cert(*names).configure_cert(context)
    return context


class Renewed:
    """Certificates as certbot and Kubernetes keep them: links to one of several pairs, which are in folders."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.chain, self.key = folder / "chain.pem", folder / "key.pem"
        self.folder = folder
        self.use(self.make("first"))

    def make(self, name: str) -> Path:
        """A new pair in a folder of this name."""
        made = self.folder / name
        made.mkdir()
        certificate = self.authority.issue_cert("127.0.0.1", "relay.test")
        certificate.cert_chain_pems[0].write_to_path(str(made / "chain.pem"))
        certificate.private_key_pem.write_to_path(str(made / "key.pem"))
        return made

    def link(self, link: Path, target: Path) -> None:
        """Point the link at the target from now on."""
        made = self.folder / "new"
        made.symlink_to(target)
        os.replace(made, link)

    def use(self, pair: Path) -> None:
        self.link(self.chain, pair / "chain.pem")
        self.link(self.key, pair / "key.pem")


def written(folder: Path, name: str, certificate: trustme.LeafCert) -> tuple[Path, Path]:
    """A certificate's chain and its key, in files of this name."""
    chain, key = folder / f"{name}.pem", folder / f"{name}.key"
    chain.write_bytes(b"".join(each.bytes() for each in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(str(key))
    return chain, key


def flags_for(authority: trustme.CA, folder: Path, *names: str) -> list[str]:
    """A relay's flags, with a certificate for these names."""
    chain, key = written(folder, "chain", authority.issue_cert(*names))
    return ["--tls-certificate", str(chain), "--tls-key", str(key)]


def client_hello() -> bytes:
    """One whole record."""
    outgoing = ssl.MemoryBIO()
    talk = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="relay.test")
    with pytest.raises(ssl.SSLWantReadError):
        talk.do_handshake()
    return outgoing.read()
