"""Health checks at a relay as users start it, as curl and a proxy make them, and when each of its answers is given."""

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from aiohttp import web
from lab.member import Member, everything, upgrade_request
from lab.programs import PATIENCE_S, RelayProgram, connect

from candy.relay import health

pytestmark = pytest.mark.carriers


def curl(relay: RelayProgram, *arguments: str, path: str = "/healthz") -> list[str]:
    """Status and body, in lines."""
    host, port = relay.address
    scheme, insecure = ("http", []) if relay.address.trust is None else ("https", ["--insecure"])
    argv = ["curl", "-sS", "--noproxy", "*", "-m", str(PATIENCE_S), "-w", "%{http_code}", *insecure, *arguments]
    done = subprocess.run([*argv, f"{scheme}://{host}:{port}{path}"], capture_output=True, text=True, check=True)
    *body, status = done.stdout.splitlines()
    return [status, *body]


@pytest.mark.parametrize("path", ["/healthz", "/healthz/", "/healthz?from=here"])
@pytest.mark.parametrize("arguments", [[], ["--http1.0"], ["-H", "Host: vpn.example.org"], ["-H", "Host:", "-0"]])
def test_a_check(relay: RelayProgram, arguments: list[str], path: str) -> None:
    assert curl(relay, *arguments, path=path) == ["200", "ok"]


def test_a_check_of_the_head_alone(relay: RelayProgram) -> None:
    """As haproxy's httpchk and many others make it."""
    with connect(relay.address) as opened:
        opened.sendall(b"HEAD /healthz HTTP/1.0\r\n\r\n")
        head, end, body = everything(opened).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 OK\r\n")
    assert b"Content-Length: 3" in head.split(b"\r\n")
    assert (end, body) == (b"\r\n\r\n", b"")


@pytest.mark.parametrize("arguments", [["-X", "POST"], ["-X", "DELETE"]])
def test_what_is_no_check(relay: RelayProgram, arguments: list[str]) -> None:
    assert curl(relay, *arguments)[0] == "426"
    assert curl(relay, path="/health")[0] == "426"


def test_an_upgrade_at_that_path(relay: RelayProgram) -> None:
    """Is for the network, because this relay's takes any path."""
    with connect(relay.address) as opened:
        opened.sendall(upgrade_request(path="/healthz"))
        assert opened.recv(65536).startswith(b"HTTP/1.1 101 ")


def test_all_connections_are_taken(tmp_path: Path, certified: trustme.CA | None) -> None:
    with RelayProgram(tmp_path, "--max-connections", "1", authority=certified) as relay:
        assert curl(relay) == ["200", "ok"]
        with Member.connect(relay.address) as member:
            assert curl(relay) == ["503", "all connections are taken: see --max-connections"]
            start = len(relay.lines)
            member.close()
            relay.wait_for("connection .* closed", start)
            assert curl(relay) == ["200", "ok"]


def test_a_relay_that_ends() -> None:
    response = health.answer(is_ending=True, free_slots=1)
    assert (response.status, response.text) == (503, "the relay ends\n")


@pytest.fixture
def no_descriptors() -> Iterator[None]:
    """None is left in this process. Those that are open can be used."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_descriptors_are_out(no_descriptors: None) -> None:
    response = health.answer(is_ending=False, free_slots=1)
    assert (response.status, response.text) == (503, "no descriptors are left: raise ulimit -n or LimitNOFILE=\n")


def test_nothing_is_kept_of_a_check() -> None:
    """The relay keeps no descriptor, and a proxy in between is told to keep no answer."""
    before = os.listdir("/proc/self/fd")
    response = health.answer(is_ending=False, free_slots=1)
    assert isinstance(response, web.Response)
    assert (response.status, response.headers["Cache-Control"]) == (200, "no-store")
    assert os.listdir("/proc/self/fd") == before
