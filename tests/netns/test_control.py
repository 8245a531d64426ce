"""What a real member and its relay answer to who asks them, in network namespaces of the test's own."""

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from lab.control import Control
from lab.laboratory import Laboratory
from lab.programs import control_of

from candy.host.kernelroutes import PROTOCOL

pytestmark = pytest.mark.netns

RULES = "192.168.202.0/24,172.16.0.0/16,192.168.202.9;192.168.202.0/24,10.0.0.0/24,192.168.202.9"
"""The second leads to where the members' machines are already."""


def test_a_member_with_routes(tmp_path: Path, stack: ExitStack) -> None:
    laboratory = Laboratory(stack, tmp_path)
    relay = laboratory.relay("--sdwan", RULES)
    client = laboratory.client("-t", "192.168.202.5/24", "--accept-routes", "all")
    client.connected()
    client.wait_for(r"10\.0\.0\.0/24 is not reached through the network: ")
    member = stack.enter_context(Control("member", control_of(laboratory.state(client.host))))
    status = member.ask("GET", "/v1/status")
    assert (status["state"], status["interface"], status["address"]) == ("connected", "candy", "192.168.202.5/24")
    assert (status["extension"], status["relay"]) == (True, f"{laboratory.url}/")
    assert status["round_trip_ms"] > 0
    routes = {route["destination"]: route for route in status["routes"]}
    assert (routes["172.16.0.0/16"]["state"], routes["172.16.0.0/16"]["reason"]) == ("installed", None)
    assert routes["10.0.0.0/24"]["state"] == "refused"
    assert routes["10.0.0.0/24"]["reason"].startswith("this machine is part of 10.0.0.0/24 by ")
    kernels = client.host.run("ip", "route", "show", "proto", str(PROTOCOL))
    assert [line.split()[0] for line in kernels.splitlines()] == ["172.16.0.0/16"]
    # The relay knows it by the name that it gave itself.
    asked = stack.enter_context(Control("relay", relay.control))
    found = asked.ask("GET", f"/v1/members/{socket.gethostname()}")
    assert (found["address"], found["os"]) == ("192.168.202.5", "linux")
    assert found["round_trip_ms"] > 0
