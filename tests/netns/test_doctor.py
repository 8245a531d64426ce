"""candy-client doctor on hosts with one fault each, beside a client that runs, and without one."""

import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from lab import proxy
from lab.laboratory import PORT, Laboratory
from lab.namespaces import Ethernet, Host
from lab.programs import PATIENCE_S, Program, RelayProgram, client, control_of, environment

pytestmark = pytest.mark.netns

PROXY_PORT = 3128
LATE = """
import time
read = time.time
time.time = lambda: read() - 1000
"""
Fault = dict[str, Any]


class Ward(Laboratory):
    """A relay with and one without TLS, a proxy that wants a password, and a host for all that is examined."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        super().__init__(stack, folder)
        self.relay()
        with self.hub:
            secure = RelayProgram(folder / "secure", "--tls-self-signed", host="10.0.0.1", port=PORT + 1, scheme="wss")
        stack.enter_context(secure)
        credentials = base64.b64encode(b"user:right").decode()
        argv = [sys.executable, proxy.__file__, Ethernet.ADDRESS, str(PROXY_PORT), credentials]
        with self.hub:
            program = self.enter(Program("proxy", argv, environment(folder)))
        program.wait_for("listening")
        self.patient = self.host()

    def examine(
        self, *flags: str, url: str | None = None, host: Host | None = None, **environ: str
    ) -> tuple[int, dict[str, Any]]:
        """The command's exit status, and what it finds by step."""
        host = host or self.patient
        state = self.state(host)
        # The socket is named, for clients of other tests are this machine's, too.
        flags = ("--control-socket", str(control_of(state)), *flags)
        with host:
            done = subprocess.run(
                client("-w", url or self.url, *flags, "doctor", "--json"),
                env=environment(state) | environ,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )
        assert done.stderr == ""
        answer = json.loads(done.stdout)
        assert (done.returncode == 0) == answer["well"]
        return done.returncode, {step["step"]: step for step in answer["steps"]}


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    with ExitStack() as stack:
        yield Ward(stack, tmp_path_factory.mktemp("ward"))


@pytest.mark.parametrize(
    ("step", "words", "fault"),
    [
        ("name", "name server", {"url": f"ws://relay.test:{PORT}"}),
        ("TCP", "connection refused: is it running there, and is the port right", {"url": "ws://10.0.0.1:9"}),
        ("proxy", "the proxy asks for a user and password", {"HTTP_PROXY": f"http://10.0.0.1:{PROXY_PORT}"}),
        ("TLS", "its TLS certificate is self-signed: give --pin", {"url": f"wss://10.0.0.1:{PORT + 1}"}),
        ("upgrade", "the server answered HTTP 407 .*: is this the address", {"url": f"ws://10.0.0.1:{PROXY_PORT}"}),
        ("clock", r"the relay's clock is \d+ s ahead of this machine's: set the one", {"PYTHONPATH": LATE}),
        ("log-in", "is the password right", {"CANDY_PASSWORD": "another"}),
    ],
)
def test_a_fault_is_named_with_its_cure(ward: Ward, tmp_path: Path, step: str, words: str, fault: Fault) -> None:
    """And nothing before it is."""
    if code := fault.get("PYTHONPATH"):
        (tmp_path / "sitecustomize.py").write_text(code)
        fault = {"PYTHONPATH": f"{tmp_path}:{environment(tmp_path)['PYTHONPATH']}"}
    status, found = ward.examine(**fault)
    assert status == 1
    assert [each for each in found if found[each]["state"] == "failed"] == [step]
    assert re.search(words, found[step]["text"])
    assert found[step]["ms"] > 0
    steps = list(found)
    assert all(found[each]["state"] in ("ok", "-") for each in steps[: steps.index(step)])


def test_beside_a_client_and_without(ward: Ward) -> None:
    """The client that runs is not disturbed."""
    host = ward.host()
    status, found = ward.examine(host=host)
    assert (status, found["log-in"]["text"]) == (0, "the relay lets this device in")
    assert found["address"]["text"].endswith("/24 would be given")
    assert "candy" not in host.run("ip", "-o", "link")
    patient = ward.client(host=host)
    address = patient.connected()
    lines = len(patient.lines)
    status, found = ward.examine(host=host)
    assert (status, found["log-in"]["text"]) == (0, f"the client that runs is connected as {address}/24")
    assert {each["state"] for each in found.values()} <= {"ok", "-"}
    assert found["address"]["text"] == f"{address}/24"
    assert [line for line in patient.lines[lines:] if "WARNING" in line or "connected" in line] == []


def test_this_machine_is_in_the_way(ward: Ward) -> None:
    """Another network with the pool's addresses; a firewall; no forwarding for a gateway that runs."""
    host = ward.host()
    host.run("ip", "link", "add", "lan", "type", "veth", "peer", "name", "far")
    host.run("ip", "address", "add", "192.168.202.50/24", "dev", "lan")
    host.run("ip", "link", "set", "lan", "up")
    host.run("nft", "add table ip f; add chain ip f fw { type filter hook forward priority 0; policy drop; }")
    status, found = ward.examine("--masquerade", host=host)
    assert status == 1
    assert found["address"]["state"] == found["firewall"]["state"] == "failed"
    assert "192.168.202.0/24 overlaps 192.168.202.0/24 of lan" in found["address"]["text"]
    assert "this machine's firewall drops what is forwarded" in found["firewall"]["text"]
    assert "nft 'insert rule ip f fw iifname \"candy\" accept'" in found["firewall"]["text"]
