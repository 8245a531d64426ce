"""Why a certificate is not believed: what the engine tells of each kind, and the line that it becomes."""

import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from kit.peer import EngineRelay
from kit.secure import TlsSocket
from lab.tls import written

from candy._fastpath import EVENT_CERTIFICATE, EVENT_TLS, TlsContext
from candy.carrier import pin
from candy.carrier.certificates import examine, make
from candy.carrier.distrust import why
from candy.carrier.tls import BY_SYSTEM, Trust, trusting

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


@dataclass
class Shown:
    """What a relay shows, and what is known of it."""

    folder: Path
    authority: trustme.CA

    def issued(self, *names: str, **more: datetime) -> tuple[Path, Path]:
        return written(self.folder, "relay", self.authority.issue_cert(*names, **more))  # type: ignore[arg-type]

    def by_itself(self) -> tuple[Path, Path]:
        path = self.folder / "self-signed.pem"
        path.write_bytes(make())
        return path, path

    @property
    def ca_file(self) -> Path:
        self.authority.cert_pem.write_to_path(self.folder / "ca.pem")
        return self.folder / "ca.pem"


def refusal(context: TlsContext, files: tuple[Path, Path]) -> tuple[int, str, bytes]:
    """What the engine tells of a certificate that it refuses."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(*files)
    ours, theirs = socket.socketpair()
    with EngineRelay() as relay, ours:
        connection = relay.engine.adopt(theirs.detach(), client=True, tls=context)
        with suppress(ssl.SSLError, OSError):
            talk = TlsSocket(ours, serving, name=None)
            talk.handshake()
            assert talk.recv(1) == b""
        assert relay.cause(connection) == "handshake_failed"
        [certificate] = relay.details(connection, EVENT_CERTIFICATE)
        [detail] = relay.details(connection, EVENT_TLS)
    return int.from_bytes(detail[:2], "big"), detail[2:].decode(), certificate


Case = Callable[[Shown], tuple[tuple[Path, Path], str, Trust, str]]
"""To a relay's files, the host that is asked for, what is trusted, and the line."""


def text(when: datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M UTC")


def expired(shown: Shown) -> tuple[tuple[Path, Path], str, Trust, str]:
    files = shown.issued("relay.test", not_before=NOW - 2 * DAY, not_after=NOW - DAY)
    line = (
        f"its TLS certificate has expired since {text(NOW - DAY)}: have it renewed, "
        f"if this machine's clock is right, which says {text(NOW)}"
    )
    return files, "relay.test", Trust(shown.ca_file), line


def early(shown: Shown) -> tuple[tuple[Path, Path], str, Trust, str]:
    files = shown.issued("relay.test", not_before=NOW + DAY, not_after=NOW + 2 * DAY)
    line = (
        f"its TLS certificate is valid from {text(NOW + DAY)} on: have it made anew, "
        f"if this machine's clock is right, which says {text(NOW)}"
    )
    return files, "relay.test", Trust(shown.ca_file), line


def other_name(shown: Shown) -> tuple[tuple[Path, Path], str, Trust, str]:
    line = (
        "its TLS certificate is for relay.test, *.example.org and 127.0.0.1, not for other.test: "
        "have other.test added to it, or use a name of its in -w"
    )
    return shown.issued("relay.test", "*.example.org", "127.0.0.1"), "other.test", Trust(shown.ca_file), line


def other_address(shown: Shown) -> tuple[tuple[Path, Path], str, Trust, str]:
    line = (
        "its TLS certificate is for relay.test, not for 127.0.0.2: "
        "have 127.0.0.2 added to it, or use a name of its in -w"
    )
    return shown.issued("relay.test"), "127.0.0.2", Trust(shown.ca_file), line


def self_signed(shown: Shown) -> tuple[tuple[Path, Path], str, Trust, str]:
    files = shown.by_itself()
    its = pin.shown(examine(files[0]).facts.digest)
    line = (
        f"its TLS certificate is self-signed: give --pin as the relay prints it, here it is {its}; "
        "--insecure accepts any certificate"
    )
    return files, "relay.test", BY_SYSTEM, line


def unknown_authority(shown: Shown) -> tuple[tuple[Path, Path], str, Trust, str]:
    files = shown.issued("relay.test")
    line = (
        f"its TLS certificate was issued by '{examine(files[0]).facts.issuer}', which this machine does not know: name "
        "that authority with --ca-file, or have the relay send its whole chain; --insecure accepts any certificate"
    )
    return files, "relay.test", BY_SYSTEM, line


def unknown_root(shown: Shown) -> tuple[tuple[Path, Path], str, Trust, str]:
    """The authority signs itself, and comes along."""
    files, host, trust, line = unknown_authority(shown)
    files[0].write_bytes(files[0].read_bytes() + shown.authority.cert_pem.bytes())
    return files, host, trust, line


def another_key(shown: Shown) -> tuple[tuple[Path, Path], str, Trust, str]:
    files = shown.by_itself()
    its = pin.shown(examine(files[0]).facts.digest)
    line = (
        f"its TLS key is not the pinned one: there it is {its}: give --pin as the relay prints it, "
        "if that is another one now"
    )
    return files, "relay.test", Trust(pins=(bytes(32), bytes(range(32)))), line


def another_key_of_an_authority(shown: Shown) -> tuple[tuple[Path, Path], str, Trust, str]:
    """That one which is trusted issued it is not enough."""
    files = shown.issued("relay.test")
    its = pin.shown(examine(files[0]).facts.digest)
    _, _, _, line = another_key(shown)
    before = line.partition("sha256/")[0]
    return (
        files,
        "relay.test",
        Trust(shown.ca_file, pins=(bytes(32),)),
        f"{before}{its}: give --pin as the relay prints it, if that is another one now",
    )


def pinned_and_unknown(shown: Shown) -> tuple[tuple[Path, Path], str, Trust, str]:
    """With --ca-file as well both have to agree."""
    files, host, _, line = unknown_authority(shown)
    other = shown.folder / "other-ca.pem"
    trustme.CA().cert_pem.write_to_path(other)
    return files, host, Trust(other, pins=(examine(files[0]).facts.digest,)), line


CASES: list[Case] = [
    expired,
    early,
    other_name,
    other_address,
    self_signed,
    unknown_authority,
    unknown_root,
    another_key,
    another_key_of_an_authority,
    pinned_and_unknown,
]


@pytest.mark.engine
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_a_line_on_each(tmp_path: Path, case: Case) -> None:
    files, host, trust, line = case(Shown(tmp_path, trustme.CA()))
    verdict, words, certificate = refusal(trusting(host, trust), files)
    assert why(verdict, words, certificate, host, NOW.timestamp()) == line


@pytest.mark.parametrize(
    ("verdict", "line"),
    [
        (10, "its TLS certificate, or one that it depends on, has expired: have the whole chain renewed, if "),
        (9, "its TLS certificate, or one that it depends on, is not valid yet: have the whole chain renewed, if "),
        (62, "its TLS certificate is for another host, not for relay.test: "),
        (18, "its TLS certificate is self-signed: give --pin as the relay prints it; --insecure "),
        (20, "its TLS certificate was issued by an authority, which this machine does not know: "),
        (0, "its TLS key is not the pinned one: give --pin "),
        (26, "its TLS certificate is not trusted (the words): name its authority with --ca-file; --insecure "),
    ],
)
@pytest.mark.parametrize("certificate", [None, b"", b"no certificate", os.urandom(999)])
def test_without_a_certificate_that_can_be_read(verdict: int, line: str, certificate: bytes | None) -> None:
    assert why(verdict, "the words", certificate, "relay.test", NOW.timestamp()).startswith(line)


def test_a_certificate_of_the_chain_that_has_expired() -> None:
    """Not the relay's own."""
    der = ssl.PEM_cert_to_DER_cert(trustme.CA().issue_cert("relay.test").cert_chain_pems[0].bytes().decode())
    assert "or one that it depends on, has expired" in why(10, "", der, "relay.test", NOW.timestamp())


def test_of_many_and_strange_names_a_few_plain_letters() -> None:
    names = [f"{number}.test" for number in range(9)]
    certificate = trustme.CA().issue_cert("a" * 60 + ".test", *names)
    der = ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode())
    line = why(62, "", der, "x", 0.0)
    assert f"is for {'a' * 60}.tes…, 0.test, 1.test, 2.test, 3.test and 5 more, not for x: " in line
    strange = trustme.CA(organization_name="Evil\n\x1b[31mÄuthority")
    issued = ssl.PEM_cert_to_DER_cert(strange.issue_cert("x").cert_chain_pems[0].bytes().decode())
    assert "issued by 'Evil??[31m?uthority', which" in why(20, "", issued, "x", 0.0)


def test_no_names() -> None:
    certificate = trustme.CA().issue_cert(common_name="relay.test")
    der = ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode())
    assert why(62, "", der, "relay.test", 0.0).startswith("its TLS certificate is for no host, not for relay.test: ")
