"""A relay that does TLS itself: its certificates, renewed while members are there, and one that it makes itself."""

import re
import signal
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography.x509 import load_der_x509_certificate, load_pem_x509_certificate
from lab.member import Member
from lab.programs import PATIENCE_S, Program, RelayProgram, environment, server
from lab.tls import Renewed, written


class TlsRelay(RelayProgram):
    """A relay with a file and a certificate that can be exchanged."""

    def __init__(self, folder: Path) -> None:
        self.pairs = Renewed(folder)
        self.file = folder / "server.toml"
        self.write()
        super().__init__(folder, "-c", str(self.file), scheme="wss")

    def write(self, more: str = "", *, pair: Path | None = None) -> None:
        chain, key = (self.pairs.chain, self.pairs.key) if pair is None else (pair / "chain.pem", pair / "key.pem")
        tls = f'tls_certificate = "{chain}"\ntls_key = "{key}"\n'
        self.file.write_text(f'dhcp = "192.168.202.0/24"\n{tls}{more}')

    def connect(self) -> tuple[Member, str]:
        """A member, and the serial number of the certificate that it was shown."""
        trusting = ssl.create_default_context()
        self.pairs.authority.configure_trust(trusting)
        opened = socket.create_connection(self.address, PATIENCE_S)
        secured = trusting.wrap_socket(opened, server_hostname=self.address[0])
        certificate = secured.getpeercert()
        assert certificate is not None
        return Member(secured), str(certificate["serialNumber"])


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[TlsRelay]:
    with TlsRelay(tmp_path) as relay:
        yield relay


def test_a_certificate_is_renewed_while_members_are_there(relay: TlsRelay) -> None:
    member, first = relay.connect()
    with member:
        member.log_in(str(member.ask().ip))
        # Nobody tells the relay.
        second = relay.pairs.make("second")
        relay.pairs.use(second)
        relay.wait_for("INFO the certificate is read again$")
        newcomer, serial = relay.connect()
        with newcomer:
            assert serial != first
            newcomer.log_in(str(newcomer.ask().ip))
            # A key of another one, as it may be for a moment.
            relay.pairs.link(relay.pairs.key, relay.pairs.make("third") / "key.pem")
            said = relay.wait_for("ERROR the certificate stays the one before: ")
            why = f"cannot use {relay.pairs.chain} with {relay.pairs.key}: the key is of another certificate: give the"
            assert why in said.string
            late, still = relay.connect()
            late.close()
            assert still == serial
            newcomer.settle()
        member.settle()


def test_sighup_reads_it_at_once_and_says_last_what_needs_a_restart(relay: TlsRelay) -> None:
    member, first = relay.connect()
    with member:
        member.log_in(str(member.ask().ip))
        relay.pairs.use(relay.pairs.make("second"))
        route = '{ device = "192.168.202.0/24", destination = "172.17.0.0/16", via = "192.168.202.2" }'
        relay.write(f"routes = [{route}]\nworkers = 3\nmax_members = 5\n")
        relay.counters()
        start = len(relay.lines)
        relay.signal(signal.SIGHUP)
        relay.wait_for("needs a restart", start)
        relay.counters()
        lines = [re.sub(r"^\S+ \S+ ", "", line) for line in relay.lines[start:]]
        usual = r"DEBUG .*|INFO [a-z_ 0-9]+: \d+|.* logged out .*"
        assert [line for line in lines if not re.fullmatch(usual, line)] == [
            "INFO the certificate is read again",
            "INFO the settings are read again",
            "INFO 1 SD-WAN rules from now on; members told: 0, closed to come back: 1",
            "INFO changed: max_members, sdwan",
            "WARNING changed, which needs a restart: workers",
        ]
        newcomer, serial = relay.connect()
        newcomer.close()
        assert serial != first


def test_sighup_reads_other_files_and_stays_with_those_before_while_they_are_no_good(relay: TlsRelay) -> None:
    member, first = relay.connect()
    with member:
        member.log_in(str(member.ask().ip))
        other = relay.pairs.make("other")
        whole = (other / "chain.pem").read_bytes()
        (other / "chain.pem").write_bytes(b"no certificate")
        relay.write(pair=other)
        relay.signal(signal.SIGHUP)
        said = relay.wait_for("ERROR the certificate stays the one before: ").string
        assert f"cannot use {other}/chain.pem with {other}/key.pem" in said
        relay.wait_for("INFO changed: tls_certificate, tls_key$")
        still, serial = relay.connect()
        still.close()
        assert serial == first
        # From now on these are the files that are looked at.
        (other / "chain.pem").write_bytes(whole)
        relay.wait_for("INFO the certificate is read again$")
        newcomer, serial = relay.connect()
        newcomer.close()
        assert serial != first
        member.settle()


def serials(address: tuple[str, int], *names: str) -> list[str]:
    """Of the certificates that are shown for these names."""
    found = []
    for name in names:
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        opened = socket.create_connection(address, PATIENCE_S)
        with trusting.wrap_socket(opened, server_hostname=name) as secured:
            shown = secured.getpeercert(binary_form=True)
        assert shown is not None
        found.append(f"{load_der_x509_certificate(shown).serial_number:x}")
    return found


def serial_in(chain: Path) -> str:
    return f"{load_pem_x509_certificate(chain.read_bytes()).serial_number:x}"


def test_several_certificates_are_chosen_by_name_and_read_again(tmp_path: Path) -> None:
    authority = trustme.CA()
    first, other, renewed = (
        written(tmp_path, name, authority.issue_cert(f"{host}.test"))
        for name, host in (("first", "first"), ("other", "other"), ("renewed", "other"))
    )
    flags = [flag for chain, key in (first, other) for flag in ("--tls-certificate", str(chain), "--tls-key", str(key))]
    with RelayProgram(tmp_path / "state", *flags, scheme="wss") as relay:
        before = serials(relay.address, "first.test", "other.test", "stranger.test")
        assert before == [serial_in(first[0]), serial_in(other[0]), serial_in(first[0])]
        for new, used in zip(renewed, other, strict=True):
            new.replace(used)
        relay.wait_for("INFO the certificate is read again$")
        assert serials(relay.address, "first.test", "other.test") == [before[0], serial_in(other[0])]
        assert serial_in(other[0]) != before[1]


def test_a_certificate_that_has_expired_is_shown_and_said(tmp_path: Path) -> None:
    ended = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    made = trustme.CA().issue_cert("127.0.0.1", not_before=ended - timedelta(days=1), not_after=ended)
    chain, key = written(tmp_path, "expired", made)
    flags = "--tls-certificate", str(chain), "--tls-key", str(key)
    with RelayProgram(tmp_path / "state", *flags, scheme="wss") as relay:
        relay.wait_for(rf"WARNING {chain} has expired since 2026-01-02 03:04 UTC: renew it$")
        assert serials(relay.address, "127.0.0.1") == [serial_in(chain)]


def test_a_mistake_in_the_files_ends_it_with_one_line(tmp_path: Path) -> None:
    chain, key = written(tmp_path, "relay", trustme.CA().issue_cert("127.0.0.1"))
    argv = server("-w", "wss://127.0.0.1:0", "--tls-certificate", str(key), "--tls-key", str(chain))
    with Program("relay", argv, environment(tmp_path / "state")) as relay:
        assert relay.wait() == 1
        why = f"cannot use {key} with {chain}: {key} is the key and {chain} the certificate: exchange them"
        assert relay.lines[-1] == f"candy-server: {why}"


def test_a_certificate_of_its_own_is_replaced_without_a_restart(tmp_path: Path) -> None:
    chain, key = written(tmp_path, "relay", trustme.CA().issue_cert("127.0.0.1"))
    file = tmp_path / "server.toml"
    file.write_text('dhcp = "192.168.202.0/24"\ntls_self_signed = true\n')
    with RelayProgram(tmp_path / "state", "-c", str(file), scheme="wss") as relay:
        [own] = serials(relay.address, "127.0.0.1")
        assert own == serial_in(tmp_path / "state" / "self-signed.pem")
        file.write_text(f'dhcp = "192.168.202.0/24"\ntls_certificate = ["{chain}"]\ntls_key = ["{key}"]\n')
        relay.signal(signal.SIGHUP)
        relay.wait_for("INFO changed: tls_certificate, tls_key, tls_self_signed$")
        assert serials(relay.address, "127.0.0.1") == [serial_in(chain)]
