"""Where a relay listens: `[::]` is both families, all else is what it says."""

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from lab.member import Member
from lab.programs import PATIENCE_S, Relay, environment, server


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    with Relay(tmp_path, host="[::]") as relay:
        yield relay


def test_both_families_on_one_port(relay: Relay) -> None:
    port = relay.address[1]
    relay.wait_for(rf"listening on \[::\]:{port} and 0\.0\.0\.0:{port}, addresses from ")
    for host, name in (("::1", "::1"), ("127.0.0.1", "127.0.0.1")):
        with Member.connect((host, port)) as member:
            ip = member.ask().ip
            member.log_in(str(ip))
            # Not ::ffff:127.0.0.1, which no limit and no reader would know.
            relay.wait_for(rf"INFO {re.escape(name)}: logged in as {ip}$")


def test_a_port_that_is_taken_in_one_family(tmp_path: Path) -> None:
    with closing(socket.create_server(("0.0.0.0", 0))) as holder:
        port = holder.getsockname()[1]
        argv = server("-w", f"ws://[::]:{port}")
        done = subprocess.run(argv, env=environment(tmp_path), capture_output=True, text=True, timeout=PATIENCE_S)
    line = f"candy-server: 0.0.0.0:{port} is in use: end what listens there, or choose another with -w\n"
    assert (done.returncode, done.stderr) == (1, line)


@pytest.mark.parametrize(("host", "other"), [("0.0.0.0", "::1"), ("[::1]", "127.0.0.1")])
def test_one_family_where_one_is_named(tmp_path: Path, host: str, other: str) -> None:
    with Relay(tmp_path, host=host) as relay:
        relay.wait_for(rf"listening on {re.escape(host)}:{relay.address[1]}, ")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((other, relay.address[1]), PATIENCE_S)


def test_two_relays_share_a_port_when_each_has_a_family(tmp_path: Path) -> None:
    with Relay(tmp_path, host="0.0.0.0") as one, Relay(tmp_path, host="[::1]", port=one.address[1]) as other:
        for host, relay in (("127.0.0.1", one), ("::1", other)):
            with Member.connect((host, relay.address[1])) as member:
                member.log_in(str(member.ask().ip))
            relay.wait_for(rf"{re.escape(host)}: logged in")
