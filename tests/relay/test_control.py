"""What a relay answers over its control interface, as a program with members; each answer is held to its document."""

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from kit import pcapng
from kit.peer import PING
from lab.control import Control
from lab.member import Member, echo
from lab.programs import PASSWORD, RelayProgram

from candy import __version__
from candy._fastpath import CAPTURE_MOST
from candy.control.paths import quoted
from candy.errors import RequestError

HOME = "home's password"


def write(file: Path, more: str = "") -> None:
    file.write_text(
        f"""dhcp = "192.168.202.0/24"
public_url = "wss://vpn.example.org/"
{more}
[network."/home"]
password = "{HOME}"
dhcp = "192.168.203.0/29"
"""
    )


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProgram]:
    folder = tmp_path_factory.mktemp("relay")
    write(folder / "server.toml")
    with RelayProgram(folder, "-c", str(folder / "server.toml")) as relay:
        relay.wait_for(r"control socket .*\.run/control$")
        yield relay


@pytest.fixture(scope="module")
def control(relay: RelayProgram) -> Iterator[Control]:
    with Control("relay", relay.control) as control:
        yield control


def say_hello(member: Member, name: str) -> Member:
    """As the original's clients do, behind the log-in."""
    member.send(f"candy::linux::1.2.3::{name}".encode(), PING)
    member.settle()
    return member


def enter(
    stack: ExitStack, relay: RelayProgram, ip: str, name: str = "", *, home: bool = False, extended: bool = False
) -> Member:
    path, password = ("/home", HOME) if home else ("/", PASSWORD)
    member = stack.enter_context(Member.connect(relay.address, path=path, password=password, extended=extended))
    member.send(member.greeting())
    member.log_in(ip)
    return say_hello(member, name) if name else member


def test_status(relay: RelayProgram, control: Control, stack: ExitStack) -> None:
    before = control.ask("GET", "/v1/status")
    assert (before["version"], before["pid"]) == (__version__, relay.pid)
    assert before["listening"] == [f"127.0.0.1:{relay.address[1]}"]
    assert before["public_url"] == "wss://vpn.example.org"
    assert (before["networks"], before["connections_most"]) == (2, 65536)
    assert before["since"] <= time.time()
    enter(stack, relay, "192.168.202.10")
    enter(stack, relay, "192.168.203.2", home=True)
    after = control.ask("GET", "/v1/status")
    assert len(after["worker_cpu_s"]) >= 1
    assert sum(after["worker_cpu_s"]) > 0
    assert after["members"] - before["members"] == 2
    assert after["connections"] - before["connections"] == 2
    assert after["logins"]["admitted"] - before["logins"].get("admitted", 0) == 2


def test_history(control: Control) -> None:
    history = control.ask("GET", "/v1/history")
    assert history["step_s"] == 5.0
    assert control.ask("GET", "/v1/status")["since"] - 1 <= history["until"] <= time.time()
    assert len({len(figures) for name, figures in history.items() if name not in ("step_s", "until")}) == 1


def test_members(relay: RelayProgram, control: Control, stack: ExitStack) -> None:
    began = time.time()
    one = enter(stack, relay, "192.168.202.20", "laptop", extended=True)
    other = enter(stack, relay, "192.168.202.21")
    for number in range(5):
        one.forward(echo("192.168.202.20", "192.168.202.21", number, bytes(100)))
        other.receive_packet()
    one.forward(echo("192.168.202.20", "192.168.202.77", 1))
    one.settle()
    listed = {member["address"]: member for member in control.ask("GET", "/v1/members", round_trip=True)["members"]}
    laptop, nameless = listed["192.168.202.20"], listed["192.168.202.21"]
    assert (laptop["name"], laptop["os"], laptop["version"]) == ("laptop", "linux", "1.2.3")
    assert (nameless["name"], nameless["os"], nameless["version"]) == (None, None, None)
    assert (laptop["network"], laptop["source"], laptop["path"]) == ("/", "127.0.0.1", "relay")
    assert (laptop["vmac"], laptop["extension"]) == (one.vmac.decode(), True)
    assert nameless["extension"] is False
    assert began - 1 <= laptop["since"] <= time.time()
    # Beside those with which it was made sure that all had arrived.
    assert laptop["packets_in"] >= 6
    assert nameless["packets_out"] >= 5
    assert nameless["bytes_out"] > 5 * 128
    assert laptop["drops"] == 1
    assert 0 < laptop["round_trip_ms"] < 10_000
    assert (laptop["queued_bytes"], laptop["queue_delay_ms"], laptop["bytes_in_per_s"]) == (0, 0, None)
    without = control.ask("GET", "/v1/members", network="/home")["members"]
    assert [member["network"] for member in without] == ["/home"] * len(without)
    assert all(member["round_trip_ms"] is None for member in control.ask("GET", "/v1/members")["members"])


def test_rates_are_of_the_time_that_was_asked_for(relay: RelayProgram, control: Control, stack: ExitStack) -> None:
    enter(stack, relay, "192.168.202.25")
    began = time.monotonic()
    listed = control.ask("GET", "/v1/members", over=0.2)["members"]
    assert time.monotonic() - began >= 0.2
    [member] = [one for one in listed if one["address"] == "192.168.202.25"]
    assert (member["packets_in_per_s"], member["bytes_out_per_s"]) == (0, 0)


def test_who_asks_may_leave_before_the_answer(relay: RelayProgram, control: Control) -> None:
    """The relay's log, which is looked at when it ends, has no traceback."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.connect(str(relay.control))
        asking.send(b"GET /v1/members?over=0.1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    control.ask("GET", "/v1/members", over=0.2)


def test_one_member(relay: RelayProgram, control: Control, stack: ExitStack) -> None:
    """By address, by name in any case of letters, by VMAC."""
    member = enter(stack, relay, "192.168.202.30", "Büro 2")
    member.forward(echo("192.168.202.30", "192.168.202.78", 1))
    member.settle()
    for wanted in ("192.168.202.30", "büro 2", f"vmac:{member.vmac.decode()}"):
        found = control.ask("GET", f"/v1/members/{quoted(wanted)}")
        assert (found["address"], found["name"]) == ("192.168.202.30", "Büro 2")
        assert found["drops_by_reason"] == {"no_route": 1}
    assert control.refused("GET", "/v1/members/b%C3%BCro%202", network="/home")[0] == 404
    assert control.refused("GET", "/v1/members/192.168.202.31") == (
        404,
        "no member is '192.168.202.31': the command members lists them",
    )
    assert control.refused("GET", "/v1/members/x", network="/nowhere") == (
        404,
        "there is no network '/nowhere': the command networks lists them",
    )


def test_a_name_that_several_have(relay: RelayProgram, control: Control, stack: ExitStack) -> None:
    enter(stack, relay, "192.168.202.40", "twin")
    enter(stack, relay, "192.168.202.41", "twin")
    enter(stack, relay, "192.168.203.3", "twin", home=True)
    where = "192.168.202.40 in /, 192.168.202.41 in /, 192.168.203.3 in /home"
    for method, path in (("GET", "/v1/members/twin"), ("POST", "/v1/members/twin/kick")):
        assert control.refused(method, path) == (
            409,
            f"3 members are 'twin': {where}: name one by its address and network",
        )
    assert control.ask("GET", "/v1/members/twin", network="/home")["address"] == "192.168.203.3"


def test_no_device_passes_for_another(relay: RelayProgram, control: Control, stack: ExitStack) -> None:
    """By a name that is somebody's address or VMAC."""
    victim = enter(stack, relay, "192.168.202.50")
    enter(stack, relay, "192.168.202.51", "192.168.202.50")
    enter(stack, relay, "192.168.202.52", f"vmac:{victim.vmac.decode()}")
    for wanted in ("192.168.202.50", f"vmac:{victim.vmac.decode()}"):
        assert control.ask("GET", f"/v1/members/{quoted(wanted)}")["address"] == "192.168.202.50"


def test_why(relay: RelayProgram, control: Control, stack: ExitStack) -> None:
    """What the engine counts while it looks is the answer; what it counted before is a hint."""
    one = enter(stack, relay, "192.168.202.80", "sender", extended=True)
    enter(stack, relay, "192.168.202.81", extended=True)
    enter(stack, relay, "192.168.203.5", home=True)
    why = control.ask("GET", "/v1/why/sender/192.168.202.81")
    assert (why["verdict"], why["rule"], why["hints"], why["looked_s"]) == ("passes", None, [], 0)
    assert why["answer"].startswith("the relay lets packets from 192.168.202.80 (sender) to 192.168.202.81 pass: ")
    source = why["source"]
    assert (source["name"], source["through"], source["connected"]) == ("sender", "192.168.202.80", True)
    assert 0 <= source["heard_s"] < 60
    assert source["member"]["packets_in_per_s"] is None
    one.forward(echo("10.9.9.9", "192.168.202.81", 1))
    one.settle()
    earlier = control.ask("GET", "/v1/why/sender/192.168.202.81", over=0.1)
    assert (earlier["verdict"], earlier["source"]["drops_now"]) == ("passes", {})
    assert earlier["looked_s"] >= 0.1
    assert earlier["hints"][0].startswith("1 packets from 192.168.202.80 had a source that is not its own")
    for _ in control.meanwhile("GET", "/v1/why/sender/192.168.202.81", over=0.3):
        one.forward(echo("10.9.9.9", "192.168.202.81", 2))
        one.settle()
    now = control.answered
    assert now["verdict"] == "source refused"
    assert now["source"]["drops_now"]["spoofed_source"] >= 1
    assert now["source"]["member"]["drops_by_reason"]["spoofed_source"] >= 2
    for destination, verdict in (
        ("192.168.202.82", "no member there"),
        ("192.168.203.5", "not in this network"),
        ("10.9.9.9", "not in this network"),
    ):
        asked = control.ask("GET", f"/v1/why/192.168.202.80/{destination}")
        assert asked["verdict"] == verdict
        assert (asked["destination"]["member"] is not None) == (destination == "192.168.203.5")
    assert control.ask("GET", "/v1/why/192.168.202.83/192.168.202.80")["verdict"] == "no member there"
    assert control.refused("GET", "/v1/why/nobody/192.168.202.80")[0] == 404


def test_kick(relay: RelayProgram, control: Control, stack: ExitStack) -> None:
    """The member is told, and may come back; the log has who asked."""
    kicked = enter(stack, relay, "192.168.202.60", extended=True)
    before = len(relay.lines)
    assert control.ask("POST", "/v1/members/192.168.202.60/kick") == {
        "network": "/",
        "address": "192.168.202.60",
        "relay": None,
    }
    assert kicked.end() == 1008
    relay.wait_for(
        r"INFO 127\.0\.0\.1: 192\.168\.202\.60 logged out .*: an operator of the relay ended the connection", before
    )
    who = rf"uid {os.geteuid()} \(pid {os.getpid()}\)"
    relay.wait_for(rf"INFO kick 192\.168\.202\.60, asked for by {who}: done$", before)
    assert control.refused("POST", "/v1/members/192.168.202.60/kick")[0] == 404
    # Of another second, for else its AUTH would be a replay.
    stack.enter_context(Member.connect(relay.address)).log_in("192.168.202.60", int(time.time()) + 1)


def test_leases_and_reservations(relay: RelayProgram, control: Control, stack: ExitStack) -> None:
    member = enter(stack, relay, "192.168.202.70", "leased")
    leases = {lease["address"]: lease for lease in control.ask("GET", "/v1/leases")["leases"]}
    lease = leases["192.168.202.70"]
    assert (lease["name"], lease["vmac"], lease["connected"]) == ("leased", member.vmac.decode(), True)
    body = {"address": "192.168.202.71", "device": "printer"}
    reserved = {"network": "/", "address": "192.168.202.71", "device": "printer", "configured": False}
    assert control.ask("POST", "/v1/reservations", body) == reserved
    assert reserved in control.ask("GET", "/v1/leases")["reservations"]
    for wrong in ({"address": "10.0.0.1"}, {"device": "vmac:short"}):
        status, why = control.refused("POST", "/v1/reservations", body | wrong)
        assert status in (400, 409), why
    assert control.refused("POST", "/v1/reservations", body | {"network": "/nowhere"})[0] == 404
    assert control.ask("DELETE", "/v1/leases/192.168.202.71") == {"network": "/", "address": "192.168.202.71"}
    assert control.ask("GET", "/v1/leases")["reservations"] == []
    assert control.refused("DELETE", "/v1/leases/leased")[1].endswith("its device is connected: kick it first")
    assert control.refused("DELETE", "/v1/leases/nobody")[0] == 409


def test_capture(relay: RelayProgram, control: Control, stack: ExitStack) -> None:
    """A stream of pcapng, whose interface is named as its device names itself, and whose end says why."""
    member = enter(stack, relay, "192.168.202.90", "büro")
    path = f"/v1/members/{quoted('192.168.202.90')}/capture"
    with Control("relay", relay.control) as other:
        pieces = other.stream("POST", path, snaplen=64)
        found = next(pieces)
        assert control.refused("POST", path) == (
            409,
            "büro, 192.168.202.90 in / is captured already: end that capture first",
        )
        assert control.refused("POST", path.replace("90", "91"))[0] == 404
        assert control.refused("POST", path, snaplen=63)[0] == 400
        member.forward(echo("192.168.202.90", "192.168.202.91", 1))
        member.close()
        found += b"".join(pieces)
        control.asked |= other.asked
    _, interface, packet, last = pcapng.read(found)
    assert interface.fields["snap"] == 64
    assert interface.options[3] == ["büro, 192.168.202.90 in /".encode()]
    assert (packet.comment, last.comment) == ("dropped: no_route", "the member has left")
    relay.wait_for(r"INFO capture 192\.168\.202\.90, drops False, snaplen 64, asked for by uid \d+ .*: done")


def first_piece(control: Control, path: str) -> bytes:
    """As soon as the relay has noticed that who had captured before is gone."""
    while True:
        with suppress(RequestError):
            return next(control.stream("POST", path))


def test_a_capture_ends_with_who_asked(relay: RelayProgram, control: Control, stack: ExitStack) -> None:
    """Though nothing is written to it that would tell."""
    enter(stack, relay, "192.168.202.82")
    path = "/v1/members/192.168.202.82/capture"
    for _ in range(CAPTURE_MOST + 1):
        with Control("relay", relay.control) as other:
            assert first_piece(other, path).startswith(b"\x0a\x0d\x0d\x0a")
            other.leave()


def test_limits_of_a_device(relay: RelayProgram, control: Control, stack: ExitStack) -> None:
    enter(stack, relay, "192.168.202.75", "heavy")
    path = "/v1/leases/heavy/limits"
    answer = control.ask("POST", path, {"down": 10_000_000, "quota": 10**9})
    assert (answer["address"], answer["down"], answer["up"]) == ("192.168.202.75", 10_000_000, None)
    assert (answer["quota"], answer["spent"]) == (10**9, False)
    assert control.ask("POST", path, {"up": 8000})["down"] == 10_000_000
    shown = control.ask("GET", "/v1/members/heavy")
    assert (shown["limit_down"], shown["limit_up"], shown["held"]) == (10_000_000, 8000, None)
    assert 0 < shown["quota_left"] <= shown["quota"] == 10**9
    assert control.ask("POST", path, {"as_network": True})["down"] is None
    for wrong in ({"down": 7999}, {"up": -1}, {"quota": -1}, {"down": 10**12 + 1}):
        status, why = control.refused("POST", path, wrong)
        assert status == 400, why
    assert control.refused("POST", "/v1/leases/nobody/limits", {})[0] == 409
    assert control.refused("POST", "/v1/leases/192.168.202.76/limits", {}) == (
        409,
        "192.168.202.76 has no lease, by which limits are kept: `leases` lists them",
    )


def test_networks(relay: RelayProgram, control: Control) -> None:
    networks = {network["path"]: network for network in control.ask("GET", "/v1/networks")["networks"]}
    assert networks.keys() == {"/", "/home"}
    assert (networks["/home"]["pool"], networks["/home"]["rules"]) == ("192.168.203.0/29", 0)
    assert networks["/home"]["addresses_used"] + networks["/home"]["addresses_free"] == 6
    assert networks["/"]["interface"] is None


def test_reload(tmp_path: Path) -> None:
    """As on SIGHUP, with an answer."""
    file = tmp_path / "server.toml"
    write(file)
    with RelayProgram(tmp_path, "-c", str(file)) as relay:
        relay.wait_for("control socket")
        with Control("relay", relay.control) as control:
            assert control.ask("POST", "/v1/reload") == {"applied": [], "needs_restart": [], "failed": []}
            rule = 'routes = [{ device = "192.168.202.0/24", destination = "172.17.0.0/16", via = "192.168.202.2" }]'
            write(file, rule + "\nworkers = 3")
            answer = control.ask("POST", "/v1/reload")
            assert answer["applied"] == ["sdwan"]
            assert answer["needs_restart"] == ["workers"]
            write(file, "nonsense = 1")
            status, why = control.refused("POST", "/v1/reload")
            assert status == 409
            assert re.match(r"not read again, nothing changes: .*server\.toml:\d+: nonsense", why)
            relay.signal(signal.SIGHUP)
            relay.wait_for("ERROR not read again, nothing changes: ", len(relay.lines))


def test_reload_without_a_file(tmp_path: Path) -> None:
    with RelayProgram(tmp_path) as relay:
        relay.wait_for("control socket")
        with Control("relay", relay.control) as control:
            assert control.refused("POST", "/v1/reload") == (
                409,
                "the relay has no file to read again: start it with -c FILE",
            )


def test_every_operation_was_answered(control: Control) -> None:
    """By the tests above; a reload has a relay of its own, and devices with keys have a module."""
    of_devices = {
        ("GET", "/v1/devices"),
        ("POST", "/v1/devices/{device}/approve"),
        ("POST", "/v1/devices/{device}/revoke"),
        ("POST", "/v1/invitations"),
        ("POST", "/v1/rotate"),
    }
    assert control.operations - control.asked == {("POST", "/v1/reload")} | of_devices


def test_a_second_relay_goes_on_without(tmp_path: Path) -> None:
    """Where the usual socket is another program's."""
    with RelayProgram(tmp_path) as relay:
        relay.wait_for("control socket")
        with RelayProgram(tmp_path) as second:
            second.wait_for(r"WARNING the control socket .* is another program's, which runs: .*: no command can ask")
        with Control("relay", relay.control) as control:
            control.ask("GET", "/v1/status")
    assert not relay.control.exists()
