"""Sealed traffic between programs: what the wire shows of it, and other settings while it runs."""

import signal
from pathlib import Path

import pytest
from lab.capture import Capture
from lab.control import Control
from lab.laboratory import Client, Laboratory
from lab.programs import Program, control_of, environment
from lab.traffic import ping

pytestmark = pytest.mark.netns

MARKER = b"seen"
OWN = "192.168.202.1"
ROUNDS = 200
"""Answers of a ping after which something has to be so."""


def control(laboratory: Laboratory, client: Client) -> Control:
    """A member's. It holds the document to the rules of its kind, which takes a second: once is enough."""
    return laboratory.stack.enter_context(Control("member", control_of(laboratory.state(client.host))))


def sealing(member: Control, address: str) -> str | None:
    """What a member does with packets for an address."""
    found = {peer["address"]: peer["sealing"] for peer in member.ask("GET", "/v1/members")["members"]}
    said = found.get(address)
    assert said is None or isinstance(said, str)
    return said


def test_the_relay_s_own_interface_seals_as_members_do(laboratory: Laboratory, tmp_path: Path) -> None:
    """field: what a member sent to the relay's machine, and it to a member, was in the clear."""
    relay = laboratory.relay("-t", f"{OWN}/24")
    client, old = laboratory.client(), laboratory.client("--no-extension")
    for one, is_sealed in ((client, True), (old, False)):
        address = one.connected()
        capture = Capture(one.host, tmp_path)
        laboratory.enter(capture.program)
        assert " 0% packet loss" in ping(one.host, OWN, "-p", MARKER.hex())
        assert " 0% packet loss" in ping(laboratory.hub, address, "-p", MARKER.hex())
        came = b"".join(data for _, _, data in capture.stop())
        assert (MARKER in came) is not is_sealed
    assert sealing(control(laboratory, client), OWN) == "sealed"
    # Also where it is the first to have a packet, and with nothing in the clear; then old members don't reach it.
    strict = laboratory.client("--seal", "require")
    address = strict.connected()
    assert " 0% packet loss" in ping(laboratory.hub, address)
    assert sealing(control(laboratory, strict), OWN) == "sealed"
    counters = relay.counters()
    assert not any(counters[f"dropped {reason}"] for reason in ("not_sealed", "no_session", "bad_seal", "not_sealing"))


def test_other_settings_under_a_ping(laboratory: Laboratory, tmp_path: Path) -> None:
    """field: a changed `seal` took a restart."""
    laboratory.relay()
    neighbour, host, file = laboratory.client(), laboratory.host(), tmp_path / "client.toml"
    neighbour.connected()
    file.write_text(f'websocket = "{laboratory.url}"\n')
    client = Client(host, laboratory.state(host), "-c", str(file), "--debug")
    laboratory.enter(client)
    address = client.connected()
    member = control(laboratory, neighbour)
    with neighbour.host:
        pinging = Program("ping", ["ping", "-i", "0.05", "-O", address], environment(tmp_path))
    laboratory.enter(pinging)

    def answered() -> None:
        pinging.wait_for("bytes from", len(pinging.lines))

    def becomes(expected: str) -> None:
        for _ in range(ROUNDS):
            answered()
            if sealing(member, address) == expected:
                return
        raise AssertionError(f"packets for {address} are not {expected}")

    def reread(seal: str) -> None:
        file.write_text(f'websocket = "{laboratory.url}"\nseal = "{seal}"\n')
        lines = len(client.lines)
        client.signal(signal.SIGHUP)
        client.wait_for("INFO changed: seal$", lines)
        assert client.connected(lines) == address

    becomes("sealed")
    reread("require")
    becomes("sealed")
    # Who has sealed is not believed to do so no more, before its user says so.
    lines = len(neighbour.lines)
    reread("off")
    neighbour.wait_for(f"not believed of {address}: it has sealed before", lines)
    assert sealing(member, address) == "key refused"
    member.ask("POST", f"/v1/members/{address}/forget")
    becomes("clear")
    reread("prefer")
    becomes("sealed")
