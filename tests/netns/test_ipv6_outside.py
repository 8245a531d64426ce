"""IPv6 between a member and its relay: link-local addresses, which need an interface, and machines without IPv4."""

import socket
from contextlib import closing
from pathlib import Path

import pytest
from lab.laboratory import PORT, Laboratory
from lab.namespaces import Namespace
from lab.programs import PATIENCE_S, Program, environment, server

pytestmark = pytest.mark.netns


def relay_on(laboratory: Laboratory, host: Namespace, folder: Path, *argv: str) -> Program:
    """A relay, without knowing where it will listen."""
    with host:
        return laboratory.enter(Program("relay", server(*argv), environment(folder)))


def test_a_link_local_address_with_its_interface(laboratory: Laboratory, tmp_path: Path) -> None:
    """RFC 6874: behind %25 in a URL, and behind % for the system; the relay is not told."""
    laboratory.hub.run("ip", "address", "add", "fe80::1/64", "dev", "bridge0", "nodad")
    relay = relay_on(laboratory, laboratory.hub, tmp_path, "-w", f"ws://[fe80::1%25bridge0]:{PORT}")
    relay.wait_for(rf"listening on \[fe80::1%bridge0\]:{PORT}, ")
    relay.wait_for(rf"candy-client -w 'ws://\[fe80::1%25bridge0\]:{PORT}#\S+'$")
    host = laboratory.host()
    host.run("ip", "address", "add", "fe80::2/64", "dev", "eth0", "nodad")
    absent = laboratory.client(host=host, url=f"ws://[fe80::1%25eth9]:{PORT}")
    absent.wait_for(r"fe80::1%eth9: this machine has no interface eth9; trying again")
    absent.close()
    address = laboratory.client(host=host, url=f"ws://[fe80::1%25eth0]:{PORT}").connected()
    relay.wait_for(f"INFO fe80::[0-9a-f:]+: logged in as {address} ")


def test_a_relay_without_an_option_on_a_machine_without_ipv4(laboratory: Laboratory, tmp_path: Path) -> None:
    """It listens on both families, because IPv4 may yet come, and names the address that members can reach."""
    here, there = laboratory.host(), laboratory.host()
    for number, host in enumerate((here, there), 1):
        host.run("ip", "-4", "address", "flush", "dev", "eth0")
        host.run("ip", "address", "add", f"2001:db8::{number}/64", "dev", "eth0", "nodad")
    relay = relay_on(laboratory, here, tmp_path)
    relay.wait_for(rf"listening on \[::\]:{PORT} and 0\.0\.0\.0:{PORT}, ")
    relay.wait_for(rf" candy-client -w 'ws://\[2001:db8::1\]:{PORT}#\S+'$")
    laboratory.client(host=there, url=f"ws://[2001:db8::1]:{PORT}").connected()
    with here, closing(socket.create_connection(("127.0.0.1", PORT), PATIENCE_S)):
        pass
