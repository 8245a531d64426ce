"""Direct links between programs: in one LAN, through NATs, while networks change, and while the relay is away."""

from pathlib import Path

import pytest
from lab.control import asked
from lab.laboratory import Client, Laboratory
from lab.nats import SYMMETRIC, Router
from lab.programs import Program, environment
from lab.traffic import ping

pytestmark = pytest.mark.netns

ROUNDS = 200


def link(client: Client, address: str) -> dict[str, object]:
    """How a member reaches another one."""
    found = [each for each in asked(client.control, "/v1/status")["links"] if each["address"] == address]
    return found[0] if found else {"path": None, "why": None}


def pinged(client: Client, address: str, laboratory: Laboratory) -> Program:
    """A ping that goes on."""
    with client.host:
        return laboratory.enter(Program("ping", ["ping", "-n", "-i", "0.05", address], environment(laboratory.folder)))


def until(ping: Program, client: Client, address: str, **wanted: object) -> dict[str, object]:
    """Wait until a link is like this, for as many of ping's lines."""
    for _ in range(ROUNDS):
        found = link(client, address)
        if all(found[key] == value for key, value in wanted.items()):
            return found
        ping.wait_for("icmp_seq=", len(ping.lines))
    raise AssertionError(f"{client.name} to {address}: {found}")


def test_in_one_lan(laboratory: Laboratory) -> None:
    laboratory.relay()
    one, other = laboratory.client(), laboratory.client()
    a, b = one.connected(), other.connected()
    pinging = pinged(one, b, laboratory)
    found = until(pinging, one, b, path="direct", mtu=1500)
    assert str(found["endpoint"]).startswith(other.host.address)
    until(pinging, other, a, path="direct")
    assert " 0% packet loss" in ping(one.host, b)
