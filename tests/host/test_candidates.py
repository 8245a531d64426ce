"""This machine's addresses, and what it reaches beside our devices; in a namespace of its own."""

import asyncio
import subprocess
from ipaddress import ip_address

import pytest
from lab.namespaces import in_new_namespace

from candy.host.candidates import look, reaches

pytestmark = pytest.mark.netns


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def test_addresses_and_tunnels() -> None:
    def body() -> None:
        run("ip", "link", "set", "lo", "up")
        for name in ("eth0", "down0"):
            run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}-end")
            run("ip", "link", "set", f"{name}-end", "up")
        for name in ("candy", "candy-home", "cs-x", "tun0"):
            run("ip", "tuntap", "add", name, "mode", "tun")
        addresses = {
            "eth0": ("192.168.1.5/24", "169.254.1.1/16", "2001:db8::5/64"),
            "down0": ("192.168.2.5/24",),
            "candy": ("10.99.0.1/24",),
            "candy-home": ("10.98.0.1/24",),
            "tun0": ("10.97.0.1/24",),
        }
        for name, given in addresses.items():
            for address in given:
                run("ip", "address", "add", address, "dev", name, *(["nodad"] if ":" in address else []))
            if name != "down0":
                run("ip", "link", "set", name, "up")
        run("ip", "route", "add", "172.16.0.0/12", "dev", "candy")
        run("ip", "route", "add", "172.30.0.0/16", "dev", "candy", "src", "192.168.1.5")
        run("ip", "route", "add", "default", "via", "192.168.1.1")
        machine = asyncio.run(look())
        assert {str(address) for address in machine.addresses} == {"192.168.1.5", "2001:db8::5", "10.97.0.1"}
        assert {str(address) for address in machine.tunnels if address.version == 4} == {"10.99.0.1", "10.98.0.1"}
        reached = {
            text: reaches(ip_address(text), machine)
            for text in (
                "192.168.1.7",
                "8.8.8.8",
                "2001:db8::7",
                "10.99.0.9",
                "10.98.0.9",
                "172.17.0.1",
                "172.30.0.9",
                "2001:db9::1",
            )
        }
        assert reached == {
            "192.168.1.7": True,
            "8.8.8.8": True,
            "2001:db8::7": True,
            "10.99.0.9": False,
            "10.98.0.9": False,
            "172.17.0.1": False,
            "172.30.0.9": False,
            "2001:db9::1": False,
        }

    in_new_namespace(body)
