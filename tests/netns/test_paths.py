"""Ways to the relay that do not say what they do: a proxy that cuts silent connections, a router that takes no long
packets and tells nobody.

hub: relay 10.0.0.1 ── eth0 10.0.0.2, router: MTU 1300, 10.9.0.1 ── eth0 10.9.0.2, host
"""

import shutil
import socket
import sys
from pathlib import Path

import pytest
import trustme
from lab.laboratory import PORT, Laboratory
from lab.namespaces import Ethernet, Host, Namespace
from lab.programs import Program, RelayProgram, environment
from lab.traffic import connect

pytestmark = pytest.mark.netns

CLIENT = "from candy.cli.client import main; main()"
SOON_GIVES_UP = """
from candy.cli.client import main
from candy.member import lifecycle
lifecycle.PING_AFTER_S, lifecycle.DEAD_AFTER_S = 1.0, 8.0
main()
"""
SOON_CUT = """
from candy.cli.client import main
from candy.member import conversation, sequel
conversation.SILENCE_S = sequel.SILENCE_S = 2.0
main()
"""
SILENCE_S = 3
"""Of haproxy below."""
HAPROXY = f"""
global
    hard-stop-after 100ms
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel {SILENCE_S}s
frontend public
    bind {Ethernet.ADDRESS}:8080
    default_backend relay
backend relay
    server relay 127.0.0.1:{PORT}
"""
BULK = 200_000
VANISH = rf"WARNING long TCP segments vanish on the way to {Ethernet.ADDRESS}:{PORT}, .* at most 1220 bytes$"
QUIET = """
table ip quiet {
    chain output {
        type filter hook output priority 0;
        icmp type destination-unreachable drop
    }
}
"""


def start(laboratory: Laboratory, where: Namespace, name: str, script: str, *flags: str) -> Program:
    """A command with other constants; one state for all of a name."""
    state = laboratory.folder / name.replace(" ", "")
    with where:
        program = Program(name, [sys.executable, "-c", script, *flags, "--debug"], environment(state))
    return laboratory.enter(program)


@pytest.fixture
def narrow(laboratory: Laboratory) -> Host:
    """A host behind the router."""
    router = laboratory.host()
    host = Host("narrow", "10.9.0.2", "narrow0")
    laboratory.stack.callback(host.close)
    router.run("ip", "link", "add", host.port, "type", "veth", "peer", "name", "eth0", "netns", host.path)
    router.run("ip", "address", "add", "10.9.0.1/24", "dev", host.port)
    for interface in (host.port, "eth0"):
        router.run("ip", "link", "set", interface, "mtu", "1300", "up")
    host.run("ip", "address", "add", f"{host.address}/24", "dev", "eth0")
    host.run("ip", "link", "set", "eth0", "up")
    host.run("ip", "route", "add", "default", "via", "10.9.0.1")
    laboratory.hub.run("ip", "route", "add", "10.9.0.0/24", "via", router.address)
    router.run("nft", QUIET)
    with router:
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    return host


def arrives(sender: socket.socket, receiver: socket.socket) -> None:
    """Much at once, however long that takes."""
    with sender, receiver:
        sender.sendall(bytes(BULK))
        left = BULK
        while left:
            left -= len(receiver.recv(65536))


@pytest.mark.parametrize("upwards", [True, False])
def test_long_segments_vanish(laboratory: Laboratory, narrow: Host, upwards: bool) -> None:
    """F15: "tunnel dead for 45 s at each bulk transfer"; now at the first, and what was on its way arrives."""
    laboratory.relay()
    behind = start(laboratory, narrow, "client", SOON_GIVES_UP, "-w", laboratory.url)
    address = behind.wait_for(r"connected as ([0-9.]+)/")[1]
    other = laboratory.client()
    if upwards:
        near, far = connect(narrow, other.host, other.connected())
    else:
        other.connected()
        near, far = connect(other.host, narrow, address)
    arrives(near, far)
    behind.wait_for(VANISH)
    assert len([line for line in behind.lines if " trying again in " in line]) == 1
    kept = laboratory.folder / "client" / "segment" / "__noname__"
    assert kept.read_text() == f"{Ethernet.ADDRESS} 1220\n"
    # The next run knows, the other way round too.
    behind.close()
    again = start(laboratory, narrow, "client", CLIENT, "-w", laboratory.url)
    assert again.wait_for(r"connected as ([0-9.]+)/")[1] == address
    arrives(*connect(narrow, other.host, other.connected()))
    arrives(*connect(other.host, narrow, address))
    assert not any("segments vanish" in line or "trying again" in line for line in again.lines)


def test_a_certificate_does_not_come(laboratory: Laboratory, narrow: Host, tmp_path: Path) -> None:
    """Its end does, and so does what is sent."""
    authority = trustme.CA(key_type=trustme.KeyType.RSA)
    issued = authority.issue_cert(Ethernet.ADDRESS, key_type=trustme.KeyType.RSA)
    chain, key, ca = (str(tmp_path / name) for name in ("chain.pem", "key.pem", "ca.pem"))
    authority.cert_pem.write_to_path(ca)
    issued.private_key_pem.write_to_path(key)
    issued.cert_chain_pems[0].write_to_path(chain)
    laboratory.relay("--tls-certificate", chain, "--tls-key", key, scheme="wss")
    url = f"wss://{Ethernet.ADDRESS}:{PORT}"
    client = start(laboratory, narrow, "client", CLIENT, "-w", url, "--ca-file", ca)
    client.wait_for("WARNING .* no success within 5 s, while negotiating TLS")
    client.wait_for(VANISH)
    client.wait_for("connected as")


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="needs haproxy: run scripts/bootstrap.sh tools")
def test_silent_connections_are_cut(laboratory: Laboratory, tmp_path: Path) -> None:
    """F14: "at 10 s taken for a refusal, so that the pause grows to 30 s"; the worst of all, without candy.2."""
    configuration = tmp_path / "haproxy.conf"
    configuration.write_text(HAPROXY)
    with laboratory.hub:
        laboratory.enter(RelayProgram(tmp_path / "relay", port=PORT))
        laboratory.enter(Program("haproxy", ["haproxy", "-db", "-f", str(configuration)], environment(tmp_path)))
    url = f"ws://{Ethernet.ADDRESS}:8080"
    flags = "-w", url, "-t", "192.168.202.9/24", "--no-extension"
    host = laboratory.host()
    pings = ["tcpdump", "-l", "-n", "-i", "eth0", "tcp dst port 8080 and tcp[tcpflags] & tcp-push != 0"]
    with host:
        dump = laboratory.enter(Program("tcpdump", pings, environment(tmp_path)))
    dump.wait_for("listening on eth0")
    client = start(laboratory, host, "client", SOON_CUT, *flags)
    client.wait_for(rf"WARNING cut after {SILENCE_S} s of silence, 3 times in a row: .* after 1\.0 s .* in 1\.\d s$")
    lines = len(client.lines)
    client.wait_for("connected as", lines)
    # Pings of a time in which it would have been cut; no two come in one second.
    for _ in range(SILENCE_S + 1):
        dump.wait_for(r"Flags \[P", len(dump.lines))
    assert not any("trying again" in line for line in client.lines[lines:])
    assert not any("taken" in line or "password" in line for line in client.lines)
