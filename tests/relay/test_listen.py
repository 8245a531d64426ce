"""Where a relay listens: `[::]` is both families, all else is what it says. And what is said when it can't."""

import errno
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trustme
from lab.member import Member
from lab.programs import PATIENCE_S, RelayProgram, environment, server

from candy.errors import OperationalError
from candy.relay import listen as listening
from candy.relay.listen import listen
from candy.relay.networksettings import NetworkSettings
from candy.relay.settings import RelaySettings


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[RelayProgram]:
    with RelayProgram(tmp_path, host="[::]") as relay:
        yield relay


def test_both_families_on_one_port(relay: RelayProgram) -> None:
    port = relay.address[1]
    relay.wait_for(rf"listening on \[::\]:{port} and 0\.0\.0\.0:{port}, addresses from ")
    for host, name in (("::1", "::1"), ("127.0.0.1", "127.0.0.1")):
        with Member.connect((host, port)) as member:
            ip = member.ask().ip
            member.log_in(str(ip))
            # Not ::ffff:127.0.0.1, which no limit and no reader would know.
            relay.wait_for(rf"INFO {re.escape(name)}: logged in as {ip}$")


def test_a_port_that_is_taken_in_one_family(tmp_path: Path) -> None:
    with closing(socket.create_server(("0.0.0.0", 0))) as holder:
        port = holder.getsockname()[1]
        why = f"0.0.0.0:{port} is in use: end what listens there, or choose another with -w"
        assert refusal(tmp_path, server("-w", f"ws://[::]:{port}")) == why


@pytest.mark.parametrize(("host", "other"), [("0.0.0.0", "::1"), ("[::1]", "127.0.0.1")])
def test_one_family_where_one_is_named(tmp_path: Path, host: str, other: str) -> None:
    with RelayProgram(tmp_path, host=host) as relay:
        relay.wait_for(rf"listening on {re.escape(host)}:{relay.address[1]}, ")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((other, relay.address[1]), PATIENCE_S)


def test_two_relays_share_a_port_when_each_has_a_family(tmp_path: Path) -> None:
    with (
        RelayProgram(tmp_path, host="0.0.0.0") as one,
        RelayProgram(tmp_path, host="[::1]", port=one.address[1]) as other,
    ):
        for host, relay in (("127.0.0.1", one), ("::1", other)):
            with Member.connect((host, relay.address[1])) as member:
                member.log_in(str(member.ask().ip))
            relay.wait_for(rf"{re.escape(host)}: logged in")


ROUTES = "Iface\tDestination\tGateway\n"
LOOPBACK = "00000000000000000000000000000001 01 80 10 80       lo\n"
GLOBAL = "20010db8000000000000000000000001 02 40 00 80     eth0\n"
LINK_LOCAL = "fe8000000000000000000000000000ff 02 40 20 80     eth0\n"


@pytest.mark.parametrize(
    ("routes", "addresses", "expected"),
    [
        (ROUTES, LOOPBACK + GLOBAL, ("::", "0.0.0.0")),
        # An address may yet come, of either family.
        (ROUTES, LOOPBACK + LINK_LOCAL, ("::", "0.0.0.0")),
        (ROUTES, LOOPBACK, ("0.0.0.0",)),
        (ROUTES, "", ("0.0.0.0",)),
        (ROUTES, None, ("0.0.0.0",)),
        (ROUTES + "eth0\t00000000\t0100000A\n", LOOPBACK + GLOBAL, ("0.0.0.0",)),
    ],
)
def test_where_it_listens_unless_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, routes: str, addresses: str | None, expected: tuple[str, ...]
) -> None:
    """ "A default listen on an IPv6-only host listens on both families", and what is written is done."""
    (tmp_path / "route").write_text(routes)
    if addresses is not None:
        (tmp_path / "if_inet6").write_text(addresses)
    monkeypatch.setattr(listening, "IPV4_ROUTES", tmp_path / "route")
    monkeypatch.setattr(listening, "IPV6_ADDRESSES", tmp_path / "if_inet6")
    networks = (NetworkSettings(password=b"a password"),)
    assert listening.hosts(RelaySettings(networks=networks)) == expected
    assert listening.hosts(RelaySettings(networks=networks, port=7)) == expected
    assert listening.hosts(RelaySettings(networks=networks, host="0.0.0.0")) == ("0.0.0.0",)


def refusal(folder: Path, argv: list[str]) -> str:
    """Why the relay does not start. It has no terminal from which it could ask anything."""
    done = subprocess.run(
        argv,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        start_new_session=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    return line.removeprefix("candy-server: ")


@pytest.mark.netns
def test_a_low_port(tmp_path: Path) -> None:
    without = ["unshare", "--net", "setpriv", "--bounding-set=-net_bind_service", "--"]
    assert refusal(tmp_path, [*without, *server("-w", "ws://0.0.0.0")]) == (
        "cannot listen on 0.0.0.0:80: low ports take root or CAP_NET_BIND_SERVICE: choose another with -w"
    )


def test_a_name_without_an_address(tmp_path: Path) -> None:
    why = refusal(tmp_path, server("-w", "ws://relay.invalid:26816"))
    assert re.fullmatch(r"cannot listen on relay\.invalid:26816: [A-Z][a-z ]+: choose another with -w", why)


def test_a_certificate_that_is_of_no_use(tmp_path: Path) -> None:
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    trustme.CA().issue_cert("relay.test").cert_chain_pems[0].write_to_path(chain)
    trustme.CA().issue_cert("other.test").private_key_pem.write_to_path(key)
    key.chmod(0o600)
    argv = server("-w", "wss://127.0.0.1:0", "--tls-certificate", str(chain), "--tls-key", str(key))
    why = "the key is of another certificate: give the one that this was made for"
    assert refusal(tmp_path, argv) == f"cannot use {chain} with {key}: {why}"


async def test_a_machine_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    class Without(socket.socket):
        def __init__(self, family: int = -1, *arguments: Any, **more: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
            super().__init__(family, *arguments, **more)

    settings = RelaySettings(networks=(NetworkSettings(password=b"a password"),), host="::", port=0)
    monkeypatch.setattr(socket, "socket", Without)
    with pytest.raises(OperationalError) as caught:
        await listen(settings)
    assert str(caught.value) == (
        "cannot listen on [::]:0: there is no socket for it: has this machine IPv6, and a descriptor left?"
    )
