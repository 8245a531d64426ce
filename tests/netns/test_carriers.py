"""The same tunnel over TLS and through a proxy."""

import base64
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from lab import proxy
from lab.laboratory import PORT, Client, Laboratory
from lab.namespaces import Host
from lab.programs import Program, environment
from lab.traffic import ping

pytestmark = pytest.mark.netns

Files = tuple[Path, Path, Path]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A certificate authority's certificate, the relay's chain and key."""
    authority = trustme.CA()
    issued = authority.issue_cert("10.0.0.1")
    paths = tmp_path / "ca.pem", tmp_path / "relay.pem", tmp_path / "relay.key"
    authority.cert_pem.write_to_path(str(paths[0]))
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(paths[1]), append=True)
    issued.private_key_pem.write_to_path(str(paths[2]))
    return paths


@pytest.fixture
def tls(laboratory: Laboratory, files: Files) -> str:
    """A relay with TLS; its URL."""
    laboratory.relay("--tls-certificate", str(files[1]), "--tls-key", str(files[2]), scheme="wss")
    return f"wss://10.0.0.1:{PORT}"


def can_talk(here: Client, there: Client) -> None:
    here.connected()
    output = ping(here.host, there.connected(), "-c", "20", "-i", "0.02", "-s", "1372")
    # The last one is waited for no longer than two round trips, which a busy machine may exceed.
    assert {str(number) for number in range(1, 20)} <= set(re.findall(r"icmp_seq=(\d+)", output)), output


def test_a_ca_file(laboratory: Laboratory, files: Files, tls: str) -> None:
    here, there = (laboratory.client("--ca-file", str(files[0]), url=tls) for _ in range(2))
    can_talk(here, there)
    server = ["iperf3", "--forceflush", "-s", "-1", "-B", there.connected()]
    with there.host, Program("iperf3", server, environment(files[0].parent)) as listening:
        listening.wait_for("Server listening")
        here.host.run("iperf3", "-c", there.connected(), "-n", "20M", "--bidir")
        assert listening.wait() == 0


def test_insecure(laboratory: Laboratory, tls: str) -> None:
    here, there = (laboratory.client("--insecure", url=tls) for _ in range(2))
    here.wait_for("WARNING.*not verified")
    can_talk(here, there)


def test_a_certificate_that_is_not_trusted(laboratory: Laboratory, tls: str) -> None:
    client = laboratory.client(url=tls)
    client.wait_for("its TLS certificate was issued by .*, which this machine does not know: .*--ca-file.*--insecure")


def test_a_relay_and_members_without_an_authority(laboratory: Laboratory) -> None:
    """By the line that the relay prints, also behind its restart; and with another relay's pin not at all."""
    line = r"candy-client -w '(wss://10\.0\.0\.1:\d+)(#\S+)'$"
    with laboratory.relay("--tls-self-signed", scheme="wss") as relay:
        printed = relay.wait_for(line)
    with laboratory.relay("--tls-self-signed", scheme="wss") as relay:
        assert relay.wait_for(line).groups() == printed.groups()
        can_talk(*(laboratory.client(url=printed[1] + printed[2]) for _ in range(2)))
        stranger = laboratory.client("--pin", f"sha256/{'A' * 43}=", url=printed[1])
        told = stranger.wait_for(r"its TLS key is not the pinned one: there it is (sha256/\S{44}): give --pin as the ")
        laboratory.client("--pin", told[1], url=printed[1]).connected()


def test_ws_to_a_tls_port_and_back(laboratory: Laboratory, tls: str) -> None:
    laboratory.client().wait_for("WARNING ws://.*trying again")


def test_wss_to_a_port_without_tls(laboratory: Laboratory) -> None:
    laboratory.relay()
    laboratory.client(url=f"wss://10.0.0.1:{PORT}").wait_for("TLS failed.*ws://.*trying again")


@pytest.fixture
def start_proxy(laboratory: Laboratory) -> Callable[..., Program]:
    """Starts one on the hub, port 3128."""

    def start(*credentials: str) -> Program:
        argv = [sys.executable, proxy.__file__, "10.0.0.1", "3128", *credentials]
        with laboratory.hub:
            program = laboratory.enter(Program("proxy", argv, environment(Path("/nonexistent"))))
        program.wait_for("listening")
        return program

    return start


def barred(laboratory: Laboratory) -> Host:
    """A host from where the relay's port is reached through the proxy alone."""
    host = laboratory.host()
    host.run("ip", "rule", "add", "to", "10.0.0.1", "dport", str(PORT), "ipproto", "tcp", "unreachable")
    return host


def test_a_proxy_for_ws(laboratory: Laboratory, start_proxy: Callable[..., Program]) -> None:
    laboratory.relay()
    program = start_proxy()
    here = laboratory.client(host=barred(laboratory), HTTP_PROXY="http://10.0.0.1:3128")
    there = laboratory.client(host=barred(laboratory), http_proxy="10.0.0.1:3128")
    can_talk(here, there)
    program.wait_for(f"^CONNECT 10.0.0.1:{PORT} HTTP/1.1$")


def test_a_proxy_for_wss(laboratory: Laboratory, files: Files, tls: str, start_proxy: Callable[..., Program]) -> None:
    credentials = base64.b64encode(b"user:pass word").decode()
    program = start_proxy(credentials)
    flags = ["--ca-file", str(files[0])]
    url = "http://user:pass%20word@10.0.0.1:3128"
    here, there = (laboratory.client(*flags, host=barred(laboratory), url=tls, HTTPS_PROXY=url) for _ in range(2))
    can_talk(here, there)
    program.wait_for(f"^CONNECT 10.0.0.1:{PORT} HTTP/1.1$")
    refused = laboratory.client(*flags, host=barred(laboratory), url=tls, HTTPS_PROXY="http://10.0.0.1:3128")
    refused.wait_for("the proxy asks for a user and password.*trying again")


def test_no_proxy(laboratory: Laboratory) -> None:
    laboratory.relay()
    # Nobody listens there.
    client = laboratory.client(HTTP_PROXY="http://10.0.0.1:9", NO_PROXY="10.0.0.1")
    client.connected()
    client = laboratory.client(HTTP_PROXY="http://10.0.0.1:9")
    client.wait_for("cannot connect to the proxy at 10.0.0.1:9.*trying again")
