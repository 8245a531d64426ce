"""A member's relay is lost, and it goes on at another one: with its address, and with what is open through it.

    peer: at us ───── us 10.98.7.1 ══ links, NATS ══ eu 10.0.0.1 ───── mover: at eu, until that is lost

How long it takes is shown (pytest -rP); the issue allows 3 s after a reset and 15 s after silence.
"""

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from lab import nameserver
from lab.clustered import ADDRESSES, URLS, Clustered
from lab.control import asked, sealing_of
from lab.laboratory import PORT, Client, Laboratory
from lab.nameserver import resolving_by
from lab.namespaces import Ethernet
from lab.programs import PATIENCE_S, Program, environment
from lab.traffic import connect, ping

pytestmark = pytest.mark.netns

RESET_S, SILENCE_S = 3.0, 15.0


class Moving:
    """A member at `eu`, one at `us`, and a TCP connection between them."""

    def __init__(self, laboratory: Laboratory, cluster: Clustered, *urls: str) -> None:
        self.cluster = cluster
        self.peer = laboratory.client(host=cluster.host(), url=URLS["us"])
        self.there = self.peer.connected()
        more = [argument for url in urls[1:] for argument in ("-w", url)]
        self.client = laboratory.client(*more, host=cluster.host(), url=urls[0])
        self.address = self.client.connected()
        self.near, self.far = connect(self.client.host, self.peer.host, self.there)
        laboratory.stack.enter_context(self.near)
        laboratory.stack.enter_context(self.far)
        self.exchange()

    def exchange(self) -> None:
        """Bytes go both ways."""
        for one, other in ((self.near, self.far), (self.far, self.near)):
            one.sendall(b"across")
            assert _exactly(other, 6) == b"across"

    def lose(self, how: Callable[[Program], None], allowed_s: float) -> None:
        """Its relay, while bytes are on their way; then it is at the other one."""
        lines, began = len(self.client.lines), time.monotonic()
        how(self.cluster.relays["eu"])
        self.exchange()
        took = time.monotonic() - began
        print(f"bytes passed again after {took:.2f} s, of {allowed_s:g} allowed")
        assert self.client.connected(lines) == self.address
        self.cluster.relays["us"].wait_for(f"logged in as {self.address}")
        status = asked(self.client.control, "/v1/status")
        assert status["relay"] == f"{URLS['us']}/"
        assert status["other_relays"] == [f"{URLS['eu']}/"]
        # What eu gave it for a credential is one at us.
        assert status["log_in"] == "device"
        # Its interface has never lost its address: there was one log-in more, and no other.
        assert f"inet {self.address}/24 " in self.client.host.run("ip", "-o", "address", "show", "dev", "candy")
        assert " 0% packet loss" in ping(self.peer.host, self.address)


def _exactly(opened: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        assert select.select([opened], [], [], PATIENCE_S)[0], "nothing came"
        data = opened.recv(count - len(received))
        assert data, "the connection was lost"
        received += data
    return received


def kill(relay: Program) -> None:
    os.kill(relay.pid, signal.SIGKILL)


def hold(relay: Program) -> None:
    """As a machine does that hangs."""
    os.kill(relay.pid, signal.SIGSTOP)


@pytest.fixture
def cluster(laboratory: Laboratory) -> Clustered:
    made = Clustered(laboratory)
    made.both()
    return made


def told(client: Client) -> None:
    """It has heard of the other relay."""
    deadline = time.monotonic() + PATIENCE_S
    while not asked(client.control, "/v1/status")["other_relays"]:
        assert time.monotonic() < deadline, "it was not told of the other relay"


def test_killed(laboratory: Laboratory, cluster: Clustered) -> None:
    """It was given one relay, and was told of the other."""
    moving = Moving(laboratory, cluster, URLS["eu"])
    told(moving.client)
    moving.lose(kill, RESET_S)
    moving.client.wait_for(f"the connection was lost; trying {URLS['us']}/ in 0")


def test_fallen_silent(laboratory: Laboratory, cluster: Clustered) -> None:
    moving = Moving(laboratory, cluster, URLS["eu"], URLS["us"])
    moving.lose(hold, SILENCE_S)
    moving.client.wait_for("the relay says nothing: asking whether the connection holds$")


def test_a_member_and_its_operator_see_it(laboratory: Laboratory, cluster: Clustered) -> None:
    """What pinned the network at one relay has its key at the other: it seals, and reaches who is at the first."""
    moving = Moving(laboratory, cluster, URLS["eu"])
    told(moving.client)
    eu, us = (asked(client.control, "/v1/status") for client in (moving.client, moving.peer))
    assert eu["network_key"] == us["network_key"]
    assert sealing_of(moving.client.control, moving.there) == ("sealed", us["device_key"])
    [other] = cluster.status("eu")["cluster"]["others"]
    assert (other["relay"], other["there"], other["members"], other["links"]) == ("us", True, 1, 2)
    assert (other["url"], other["public_url"]) == (URLS["us"], URLS["us"])
    assert other["round_trip_ms"] > 0
    shown = cluster.shown("eu")
    assert "RELAY" in shown
    assert URLS["us"] in shown


def test_cut_off(laboratory: Laboratory, cluster: Clustered) -> None:
    moving = Moving(laboratory, cluster, URLS["eu"])
    told(moving.client)
    moving.lose(lambda _: cluster.cut("eu"), SILENCE_S)


def test_an_old_client_comes_back_by_its_name(laboratory: Laboratory, cluster: Clustered, tmp_path: Path) -> None:
    """It knows one URL, whose name leads to the other relay by then, and has its address by its VMAC."""

    def serve(name: str) -> Program:
        argv = [sys.executable, nameserver.__file__, Ethernet.ADDRESS, "relay.test", ADDRESSES[name]]
        with cluster.hub:
            made = laboratory.enter(Program("name server", argv, environment(tmp_path)))
        made.wait_for("listening")
        return made

    names = serve("eu")
    client = laboratory.client(
        "--no-extension",
        host=cluster.host(),
        url=f"ws://relay.test:{PORT}",
        before=resolving_by(tmp_path, Ethernet.ADDRESS),
    )
    address = client.connected()
    cluster.relays["eu"].wait_for(f"logged in as {address}")
    names.close()
    serve("us")
    lines = len(client.lines)
    kill(cluster.relays["eu"])
    assert client.connected(lines) == address
    cluster.relays["us"].wait_for(f"logged in as {address}")
    status = asked(client.control, "/v1/status")
    assert (status["log_in"], status["other_relays"]) == ("hash", [])
