"""What ends, how it ends, and what goes on: relay and clients killed, stopped and started again."""

import re
import signal
import socket
import subprocess
import time

import pytest
from lab.laboratory import PORT, Laboratory
from lab.member import Member
from lab.programs import PATIENCE_S

pytestmark = pytest.mark.netns

LONGEST_WAIT_S = 4.0
"""Between two attempts while the relay can't be reached; so "traffic back within 5 s of the relay being back"."""


def test_the_relay_is_killed_and_comes_back(laboratory: Laboratory) -> None:
    relay = laboratory.relay()
    here, there = laboratory.client(), laboratory.client()
    addresses = here.connected(), there.connected()
    with there.host:
        listener = socket.create_server((addresses[1], 5000))
    with listener:
        with here.host:
            near = socket.create_connection((addresses[1], 5000), PATIENCE_S)
        far, _ = listener.accept()
    with near, far:
        far.settimeout(PATIENCE_S)
        near.sendall(b"before")
        assert far.recv(100) == b"before"
        starts = len(here.lines), len(there.lines)
        relay.signal(signal.SIGKILL)
        relay.wait()
        for client, start in zip((here, there), starts, strict=True):
            # The growing delays are at their longest now.
            client.wait_for(r"cannot connect to the relay.*trying again in (2\.[7-9]|3\.|4\.)", start)
        near.sendall(b"meanwhile")
        # One that is sent again and again until the first arrives.
        with here.host:
            probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with there.host:
            target = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with probe, target:
            target.bind((addresses[1], 5001))
            target.settimeout(0.1)
            laboratory.relay()
            deadline = time.monotonic() + PATIENCE_S
            while True:
                probe.sendto(b"are you back?", (addresses[1], 5001))
                try:
                    assert target.recv(100) == b"are you back?"
                    break
                except TimeoutError:
                    assert time.monotonic() < deadline, "no traffic came back"
        # The interface and its address stayed, and so did what is open over it.
        assert (here.connected(starts[0]), there.connected(starts[1])) == addresses
        assert far.recv(100) == b"meanwhile"
        far.sendall(b"after")
        near.settimeout(PATIENCE_S)
        assert near.recv(100) == b"after"
    waits = [
        float(wait)
        for one in (here, there)
        for wait in re.findall(r"trying again in ([0-9.]+) s", "\n".join(one.lines))
    ]
    assert waits
    assert all(1.0 <= wait <= LONGEST_WAIT_S for wait in waits), waits


def test_a_client_is_killed_and_others_notice_nothing(laboratory: Laboratory) -> None:
    relay = laboratory.relay()
    here, there, third = (laboratory.client() for _ in range(3))
    own = third.connected()
    here.connected()
    lines = len(here.lines), len(there.lines)
    with here.host:
        arguments = ["ping", "-i", "0.02", "-c", "100", "-W", "10", there.connected()]
        pinging = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    with pinging:
        assert pinging.stdout is not None
        while " bytes from " not in pinging.stdout.readline():
            assert pinging.poll() is None
        third.signal(signal.SIGKILL)
        third.wait()
        relay.wait_for(f"{re.escape(own)} logged out")
        # Its interface is gone with it, so it may come back, to the same address.
        again = laboratory.client(host=third.host)
        assert again.connected() == own
        assert " 0% packet loss" in pinging.stdout.read()
    assert [line for line in here.lines[lines[0] :] + there.lines[lines[1] :] if "trying again" in line] == []
    assert here.host.run("ping", "-c", "1", "-W", "10", own)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_client_leaves_nothing(laboratory: Laboratory, number: int) -> None:
    relay = laboratory.relay()
    client = laboratory.client()
    own = client.connected()
    before = client.host.run("ip", "route")
    assert "192.168.202.0/24 dev candy " in before
    client.signal(number)
    assert client.wait() == 0
    assert "candy" not in client.host.run("ip", "link") + client.host.run("ip", "route")
    relay.wait_for(f"{re.escape(own)} logged out")


def test_a_client_without_a_relay_can_be_stopped(laboratory: Laboratory) -> None:
    client = laboratory.client()
    client.wait_for("connection refused.*trying again")
    client.signal(signal.SIGTERM)
    assert client.wait() == 0
    assert "candy" not in client.host.run("ip", "link")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_relay_tells_its_members(laboratory: Laboratory, number: int) -> None:
    relay = laboratory.relay()
    client, host = laboratory.client(), laboratory.host()
    client.connected()
    with host:
        opened = socket.create_connection(("10.0.0.1", PORT), PATIENCE_S)
    with Member(opened) as member:
        member.log_in("192.168.202.90")
        relay.signal(number)
        assert member.end() == 1001
        assert relay.wait(3) == 0
    client.wait_for("closed .*trying again in 1")
