"""What is in certificates, which of several is shown whom, and a line on each mistake that files can have."""

import ssl
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from lab.tls import written

from candy.carrier import certificates
from candy.carrier.certificates import Chain, Facts, by_name, doubts, examine, facts, mistake

NOW = datetime(2026, 11, 27, 16, 30, tzinfo=UTC)
AUTHORITY = trustme.CA()
ONE = AUTHORITY.issue_cert("relay.test", "127.0.0.1", "*.Example.org")


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def convert(path: Path, *arguments: str) -> None:
    """Have openssl write a file anew."""
    out = path.with_suffix(".new")
    openssl(*arguments, "-in", str(path), "-out", str(out))
    out.replace(path)


def der(certificate: trustme.LeafCert) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode())


def test_facts() -> None:
    found = facts(der(ONE))
    assert found.names == ("relay.test", "*.example.org", "127.0.0.1")
    assert found.issuer == trustme_name(AUTHORITY)
    assert found.ends is not None
    assert found.begins < found.ends
    assert facts(None) == facts(b"") == facts(der(ONE)[:-1]) == Facts()


def trustme_name(authority: trustme.CA) -> str:
    certificate = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    [name] = certificate.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)
    return str(name.value)


@given(st.binary(max_size=4), st.integers(0, 2000), st.integers(0, 8))
def test_facts_of_anything(put: bytes, place: int, instead_of: int) -> None:
    """What a stranger sends is read, or has no facts."""
    whole = der(ONE)
    facts(whole[: place % len(whole)] + put + whole[place % len(whole) + instead_of :])


# ------------------------------------------------------------------------------------------------------------ by name


def of(*names: str, kind: str = "EC") -> Facts:
    return Facts(names, kind)


@pytest.mark.parametrize(
    ("shown", "default", "groups"),
    [
        ([of("a")], (0,), {"a": (0,)}),
        ([of()], (0,), {}),
        ([of("a"), of("b")], (0,), {"a": (0,), "b": (1,)}),
        # One of each kind of key, side by side.
        ([of("a"), of("a", kind="RSA"), of("a")], (0, 1), {"a": (0, 1)}),
        ([of("b", kind="RSA"), of("a"), of("b")], (0, 2), {"b": (0, 2), "a": (1,)}),
        # Of a wildcard's names those that have one of their own: which of the two was given first.
        ([of("*.x", kind="RSA"), of("a.x")], (0,), {"*.x": (0,), "a.x": (0, 1)}),
        ([of("*.x"), of("a.x")], (0,), {"*.x": (0,), "a.x": (0,)}),
        # The first is the first, although one before it has its second name.
        ([of("a", "b"), of("b", "c")], (0,), {"a": (0,), "b": (0,), "c": (1,)}),
    ],
)
def test_which_is_shown_whom(shown: list[Facts], default: tuple[int, ...], groups: dict[str, tuple[int, ...]]) -> None:
    assert by_name(shown) == (default, groups)


# ------------------------------------------------------------------------------------------------------------- doubts


def test_no_doubts() -> None:
    chain = Chain(Path("c.pem"), Facts(("a",), "EC", bytes(32), NOW.timestamp(), NOW.timestamp()))
    assert doubts([chain], NOW.timestamp()) == []
    # What can't be read is OpenSSL's to judge.
    assert doubts([Chain(Path("c.pem"), Facts())], NOW.timestamp()) == []


def test_doubts(tmp_path: Path) -> None:
    day = timedelta(days=1)
    middle = AUTHORITY.create_child_ca()
    made = {
        "soon": AUTHORITY.issue_cert("soon.test", not_before=NOW - 90 * day, not_after=NOW + 13 * day),
        "short": AUTHORITY.issue_cert("short.test", not_before=NOW - 4 * day, not_after=NOW + 2 * day),
        "expired": AUTHORITY.issue_cert("a.test", not_before=NOW - 2 * day, not_after=NOW - day),
        "early": AUTHORITY.issue_cert("b.test", not_before=NOW + day, not_after=NOW + 2 * day),
        "nameless": AUTHORITY.issue_cert(common_name="relay", not_before=NOW - day, not_after=NOW + day),
        "twin": AUTHORITY.issue_cert("a.test", not_before=NOW - day, not_after=NOW + day),
        "sound": middle.issue_cert("c.test", not_before=NOW - day, not_after=NOW + day),
    }
    paths = {name: written(tmp_path, name, certificate)[0] for name, certificate in made.items()}
    disordered = tmp_path / "disordered.pem"
    own, issuer = made["sound"].cert_chain_pems
    disordered.write_bytes(own.bytes() + AUTHORITY.cert_pem.bytes() + issuer.bytes())
    found = doubts([examine(path) for path in (*paths.values(), disordered)], NOW.timestamp())
    assert found == [
        f"{paths['soon']} ends soon, at 2026-12-10 16:30 UTC: renew it",
        f"{paths['expired']} has expired since 2026-11-26 16:30 UTC: renew it",
        f"{paths['early']} is valid from 2026-11-28 16:30 UTC on, and this machine's clock says 2026-11-27 16:30 UTC: "
        "put the clock right, if that is wrong",
        f"{paths['nameless']} names no host (subjectAltName): members refuse it unless they have its pin",
        f"{paths['nameless']} is shown to nobody: one before it has its names and its kind of key: remove it",
        f"{paths['twin']} is shown to nobody: one before it has its names and its kind of key: remove it",
        f"{disordered}: certificate 2 in it did not issue the one before: members may not find the way to their "
        "authority: put its own first, then each one's issuer",
        f"{disordered} is shown to nobody: one before it has its names and its kind of key: remove it",
    ]


# ----------------------------------------------------------------------------------------------------------- mistakes


def swap(chain: Path, key: Path) -> str:
    kept = chain.read_bytes()
    chain.write_bytes(key.read_bytes())
    key.write_bytes(kept)
    return f"{chain} is the key and {key} the certificate: exchange them"


def a_key_in_both(chain: Path, key: Path) -> str:
    chain.write_bytes(key.read_bytes())
    return f"{chain} is a private key: give the certificate there"


def a_certificate_in_both(chain: Path, key: Path) -> str:
    key.write_bytes(chain.read_bytes())
    return f"{key} has no private key in it: give a PEM file, with lines -----BEGIN PRIVATE KEY-----"


def a_request(chain: Path, key: Path) -> str:
    openssl("req", "-new", "-key", str(key), "-subj", "/CN=x", "-out", str(chain))
    return f"{chain} asks for a certificate and is none: give what the authority made of it"


def der_chain(chain: Path, key: Path) -> str:
    convert(chain, "x509", "-outform", "der")
    return f"{chain} is not PEM: convert it, with openssl x509 -inform der -in {chain} -out {chain}.pem"


def der_key(chain: Path, key: Path) -> str:
    convert(key, "pkey", "-outform", "der")
    return f"{key} is not PEM: convert it, with openssl pkey -inform der -in {key} -out {key}.pem"


def no_pem(chain: Path, key: Path) -> str:
    chain.write_text("nothing of the kind")
    return f"{chain} has no certificate in it: give a PEM file, with lines -----BEGIN CERTIFICATE-----"


def cut_key(chain: Path, key: Path) -> str:
    lines = key.read_text().splitlines()
    key.write_text("\n".join([lines[0], *lines[2:]]))
    return f"the key in {key} can't be read: was it cut off, or changed?"


def encrypted(chain: Path, key: Path) -> str:
    convert(key, "pkey", "-aes128", "-passout", "pass:secret")
    return f"{key} is encrypted: give it without its password, from openssl pkey -in {key} -out FILE"


def another_key(chain: Path, key: Path) -> str:
    AUTHORITY.issue_cert("other.test").private_key_pem.write_to_path(key)
    return "the key is of another certificate: give the one that this was made for"


def issuer_first(chain: Path, key: Path) -> str:
    chain.write_bytes(AUTHORITY.cert_pem.bytes() + chain.read_bytes())
    return "the key is of certificate 2 in the chain: put that first"


MISTAKES: list[Callable[[Path, Path], str]] = [
    swap,
    a_key_in_both,
    a_certificate_in_both,
    a_request,
    der_chain,
    der_key,
    no_pem,
    cut_key,
    encrypted,
    another_key,
    issuer_first,
]


@pytest.mark.parametrize("make", MISTAKES, ids=lambda make: make.__name__)
def test_mistakes(tmp_path: Path, make: Callable[[Path, Path], str]) -> None:
    """OpenSSL refuses each of these, too."""
    chain, key = written(tmp_path, "relay", ONE)
    line = make(chain, key)
    assert mistake(chain, key) == line
    with pytest.raises(ssl.SSLError):
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key, password="")


def test_a_certificate_that_was_changed(tmp_path: Path) -> None:
    chain, key = written(tmp_path, "relay", ONE)
    lines = chain.read_text().splitlines()
    chain.write_text("\n".join([lines[0], *lines[2:]]))
    assert mistake(chain, key).startswith(f"a certificate in {chain} can't be read (")
    assert mistake(chain, key).endswith("): was it cut off, or changed?")


def test_an_old_form_of_encryption(tmp_path: Path) -> None:
    chain, key = written(tmp_path, "relay", AUTHORITY.issue_cert("relay.test", key_type=trustme.KeyType.RSA))
    convert(key, "rsa", "-aes128", "-passout", "pass:secret", "-traditional")
    assert mistake(chain, key).startswith(f"{key} is encrypted: ")


def test_no_mistake(tmp_path: Path) -> None:
    """Also with all in one file, and with the curve's parameters before the key."""
    chain, key = written(tmp_path, "relay", ONE)
    assert mistake(chain, key) == ""
    both = tmp_path / "both.pem"
    both.write_bytes(chain.read_bytes() + key.read_bytes())
    assert mistake(both, both) == ""
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-out", str(key))
    openssl("req", "-x509", "-key", str(key), "-subj", "/CN=x", "-days", "9", "-out", str(chain))
    assert key.read_text().startswith("-----BEGIN EC PARAMETERS-----")
    assert mistake(chain, key) == ""


# --------------------------------------------------------------------------------------------------------------- made


def test_one_that_signs_itself(tmp_path: Path) -> None:
    path = tmp_path / "self-signed.pem"
    path.write_bytes(certificates.make())
    assert mistake(path, path) == ""
    chain = examine(path)
    assert doubts([chain], 0.0) != []
    assert doubts([chain], NOW.timestamp()) == doubts([chain], (NOW + timedelta(days=365_000)).timestamp()) == []
    [certificate] = x509.load_pem_x509_certificates(path.read_bytes())
    certificate.verify_directly_issued_by(certificate)
    other = tmp_path / "other.pem"
    other.write_bytes(certificates.make())
    assert examine(other).facts.digest != chain.facts.digest
