"""A relay that has not got the password: what of the Internet it can draw into the tunnel."""

import re

import pytest
from lab.laboratory import PORT, Laboratory
from lab.namespaces import Ethernet
from lab.original import OriginalRelay, entry

from candy.protocol import wire

pytestmark = pytest.mark.netns

GRANTED, GATEWAY = "192.168.202.77", "192.168.202.1"
INTERNET = [f"{first}.0.0.0/8" for first in range(1, 224) if first not in (10, 127)]
"""All of it that a /8 can have."""


def rogue(laboratory: Laboratory, *, grant: str = f"{GRANTED}/24") -> OriginalRelay:
    relay = OriginalRelay(laboratory.hub, (Ethernet.ADDRESS, PORT), extended=True, grant=grant, echo=True)
    return laboratory.stack.enter_context(relay)


def tell(relay: OriginalRelay, *destinations: str) -> None:
    """A set, in as many messages as it takes."""
    parts = [destinations[at : at + 100] for at in range(0, len(destinations), 100)]
    for number, part in enumerate(parts):
        flags = (number == 0) * wire.Route.FIRST | (number == len(parts) - 1) * wire.Route.LAST
        relay.tell(GRANTED, [entry(destination, GATEWAY) for destination in part], flags)


def test_it_gets_nothing_of_the_internet(laboratory: Laboratory) -> None:
    """It echoes the member's own digest, which is right, and "told 245 routes: 8.8.8.8 and 1.1.1.1 went through it"."""
    relay = rogue(laboratory)
    client = laboratory.client()
    client.connected()
    client.host.run("ip", "route", "add", "default", "via", Ethernet.ADDRESS)
    tell(relay, *INTERNET, "0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "172.16.5.0/24")
    client.wait_for("172.16.5.0/24 is reached through")
    assert re.findall(r"^(\S+)", client.host.run("ip", "route", "show", "dev", "candy"), re.MULTILINE) == [
        "172.16.5.0/24",
        "192.168.202.0/24",
    ]
    for address in ("8.8.8.8", "1.1.1.1"):
        assert " dev eth0 " in client.host.run("ip", "route", "get", address)
    # In one line, with the option's name; it comes behind those of the routes that are taken.
    client.wait_for("--accept-routes")
    client.wait_for("128.0.0.0/1 are not reached")
    [line] = [line for line in client.lines if "--accept-routes" in line]
    assert line.endswith(
        "WARNING 1.0.0.0/8, 2.0.0.0/8, 3.0.0.0/8 and 218 more are not reached through the network: "
        "not private, and not among --accept-routes"
    )
    # The same again is not said again.
    tell(relay, *INTERNET, "172.16.6.0/24")
    client.wait_for("172.16.6.0/24 is reached through")
    assert len([line for line in client.lines if "--accept-routes" in line]) == 1


def test_what_is_named_is_taken(laboratory: Laboratory) -> None:
    relay = rogue(laboratory)
    client = laboratory.client("--accept-routes", "203.0.113.0/24", "--accept-routes", "8.8.8.8")
    client.connected()
    tell(relay, "203.0.113.0/25", "8.8.8.8/32", "8.8.4.4/32", "172.16.5.0/24")
    client.wait_for("8.8.4.4/32 is not reached through the network: not private, and not among --accept-routes")
    client.wait_for("172.16.5.0/24 is reached through")
    shown = client.host.run("ip", "route", "show", "proto", "202")
    assert re.findall(r"^(\S+)", shown, re.MULTILINE) == ["8.8.8.8", "172.16.5.0/24", "203.0.113.0/25"]


def test_none_takes_none(laboratory: Laboratory) -> None:
    relay = rogue(laboratory)
    client = laboratory.client("--accept-routes", "none")
    client.connected()
    tell(relay, "10.1.0.0/16", "172.16.5.0/24")
    client.wait_for("10.1.0.0/16, 172.16.5.0/24 are not reached through the network: --accept-routes is none")
    assert client.host.run("ip", "route", "show", "proto", "202") == ""


def test_a_granted_address_leads_into_the_tunnel_as_well(laboratory: Laboratory) -> None:
    rogue(laboratory, grant="8.8.8.7/8")
    client = laboratory.client()
    client.wait_for(
        r"the relay granted 8\.8\.8\.7/8, which is not private: take it with --accept-routes 8\.0\.0\.0/8; trying again"
    )
    assert "8." not in client.host.run("ip", "route", "show", "dev", "candy", check=False)
    client.close()
    client = laboratory.client("--accept-routes", "8.0.0.0/8", host=client.host)
    assert client.connected() == "8.8.8.7"
