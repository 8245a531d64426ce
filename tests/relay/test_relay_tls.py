"""A relay that does TLS itself: its certificate is renewed while members are there."""

import re
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.member import Member
from lab.programs import PATIENCE_S, RelayProgram
from lab.tls import Renewed


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
            why = (
                f"cannot use {relay.pairs.chain} with {relay.pairs.key}: the key is of another certificate: give a PEM"
            )
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
