"""The subcommands: what they ask of a real relay and print, whom they find, and what they say when nobody answers."""

import json
import os
import re
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme
from lab.commands import call, refuse
from lab.keyed import KeyedMember, device
from lab.member import Member, echo
from lab.programs import RelayProgram, environment
from lab.tls import flags_for

from candy.cli import client as client_command
from candy.cli import server as server_command
from candy.control import sockets
from candy.member.login import Credentials
from candy.options import Side
from candy.protocol.keys import fingerprint
from candy.protocol.link import Link

pytestmark = pytest.mark.usefixtures("state", "log_level")


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProgram]:
    folder = tmp_path_factory.mktemp("relay")
    (folder / "server.toml").write_text('dhcp = "192.168.202.0/24"\n')
    with RelayProgram(folder, "-c", str(folder / "server.toml")) as relay:
        relay.wait_for("control socket")
        yield relay


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder in place of /run/candy, without programs of this machine."""
    monkeypatch.setattr(sockets, "RUN", tmp_path / "run")
    monkeypatch.setattr(sockets, "UNITS", {"relay": tmp_path / "unit", "member": tmp_path / "unit"})
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def said(relay: RelayProgram, *line: str, side: Side = "server") -> str:
    command = server_command.main if side == "server" else client_command.main
    result = call(command, *line, "--control-socket", str(relay.control))
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def columns(text: str) -> list[dict[str, str]]:
    head, *rows = (line.split() for line in text.splitlines())
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_status(relay: RelayProgram) -> None:
    pairs = dict(line.split(None, 1) for line in said(relay, "status").splitlines())
    assert pairs["listening"] == f"127.0.0.1:{relay.address[1]}"
    assert pairs["pid"] == str(relay.pid)
    assert json.loads(said(relay, "status", "--json"))["pid"] == relay.pid


def test_members_and_one_of_them(relay: RelayProgram, stack: ExitStack) -> None:
    member = stack.enter_context(Member.connect(relay.address))
    member.send(member.greeting())
    member.log_in("192.168.202.10")
    [row] = [row for row in columns(said(relay, "members", "--interval", "0")) if row["ADDRESS"] == "192.168.202.10"]
    assert (row["NETWORK"], row["PATH"], row["SOURCE"], row["IN/S"]) == ("/", "relay", "127.0.0.1", "-")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row["SINCE"])
    assert float(row["RTT"]) > 0
    [row] = [row for row in columns(said(relay, "members", "--interval", "0.1")) if row["ADDRESS"] == "192.168.202.10"]
    assert row["IN/S"] == "0"
    pairs = dict(
        line.split(None, 1) for line in said(relay, "member", "192.168.202.10", "--interval", "0").splitlines()
    )
    assert pairs["vmac"] == member.vmac.decode()
    assert json.loads(said(relay, "member", f"vmac:{pairs['vmac']}", "--json"))["address"] == "192.168.202.10"
    assert columns(said(relay, "networks"))[0]["MEMBERS"] >= "1"
    top = said(relay, "top", "--interval", "0.1", "--count", "2", "--sort", "address")
    assert top.count("192.168.202.10") == 2
    first, second = (
        json.loads(line) for line in said(relay, "top", "--interval", "0.1", "--count", "2", "--json").splitlines()
    )
    assert len(first["members"]) == len(second["members"])


def test_why(relay: RelayProgram, stack: ExitStack) -> None:
    """First the answer, then what is known of both ends."""
    for address in ("192.168.202.15", "192.168.202.16"):
        member = stack.enter_context(Member.connect(relay.address))
        member.send(member.greeting())
        member.log_in(address)
    answer, rest = said(relay, "why", "192.168.202.15", "192.168.202.16", "--interval", "0").split("\n\n")
    assert answer.startswith("the relay lets packets from 192.168.202.15 to 192.168.202.16 pass")
    one, other = columns(rest)
    assert (one["END"], one["ADDRESS"], one["CONNECTED"], one["PKTS-IN/S"]) == ("from", "192.168.202.15", "yes", "-")
    assert (other["END"], other["THROUGH"], other["SEALS"]) == ("to", "192.168.202.16", "no")
    member.forward(echo("10.9.9.9", "192.168.202.15", 1))
    member.settle()
    hint = said(relay, "why", "192.168.202.16", "192.168.202.17", "--interval", "0.1").splitlines()[1]
    assert hint.startswith("since the log-in: 1 packets from 192.168.202.16 had a source that is not its own")
    assert json.loads(said(relay, "why", "192.168.202.16", "192.168.202.17", "--json"))["verdict"] == "no member there"


def test_changes(relay: RelayProgram, stack: ExitStack) -> None:
    member = stack.enter_context(Member.connect(relay.address))
    member.send(member.greeting())
    member.log_in("192.168.202.20")
    assert said(relay, "kick", "192.168.202.20") == "192.168.202.20 was kicked\n"
    assert said(relay, "reserve", "192.168.202.21", "printer") == "192.168.202.21 is reserved for printer\n"
    tables = said(relay, "leases").split("\n\n")
    [lease] = [row for row in columns(tables[0]) if row["ADDRESS"] == "192.168.202.20"]
    assert (lease["CONNECTED"], lease["RESERVED"], lease["VMAC"]) == ("no", "no", member.vmac.decode())
    assert columns(tables[1]) == [
        {"NETWORK": "/", "ADDRESS": "192.168.202.21", "RESERVED-FOR": "printer", "CONFIGURED": "no"}
    ]
    assert said(relay, "release", "192.168.202.21") == "192.168.202.21 is released\n"
    assert said(relay, "release", "192.168.202.20") == "192.168.202.20 is released\n"
    assert "192.168.202.2" not in said(relay, "leases")
    assert said(relay, "reload") == "applied: nothing\n"


def test_limit(relay: RelayProgram, stack: ExitStack) -> None:
    """What is not given stays as it is; 0 is none, whatever the network has."""
    member = stack.enter_context(Member.connect(relay.address))
    member.send(member.greeting())
    member.log_in("192.168.202.23")

    def limit(*flags: str) -> dict[str, str]:
        [row] = columns(said(relay, "limit", "192.168.202.23", *flags))
        return row

    row = limit("--down", "10M", "--quota", "200G")
    assert (row["DOWN-MOST"], row["UP-MOST"], row["QUOTA"], row["SPENT"]) == ("10000000", "-", str(200 * 10**9), "no")
    row = limit("--up", "64k", "--down", "0")
    assert (row["DOWN-MOST"], row["UP-MOST"], row["QUOTA"]) == ("-", "64000", str(200 * 10**9))
    [shown] = json.loads(said(relay, "members", "--json", "--interval", "0"))["members"]
    assert (shown["limit_down"], shown["limit_up"]) == (None, 64_000)
    row = limit("--as-network", "--forgive")
    assert (row["UP-MOST"], row["QUOTA"]) == ("-", "-")
    for flags, problem in ((("--down", "fast"), "fast"), (("--up", "7"), "8000"), (("--quota", "-1"), "-1")):
        result = call(server_command.main, "limit", "192.168.202.23", *flags, "--control-socket", str(relay.control))
        assert result.exit_code != 0
        assert problem in result.stderr, result.stderr
        assert result.stderr.count("\n") <= 3


def test_devices(relay: RelayProgram, stack: ExitStack) -> None:
    link = said(relay, "invite", "--name", "phone", "--address", "192.168.202.33", "--expires", "2h").strip()
    url, _, fragment = link.partition("#")
    invitation = Link.parse(fragment).invitation
    assert url == f"ws://127.0.0.1:{relay.address[1]}"
    assert invitation is not None
    assert 7000 < invitation.until - time.time() <= 7200
    member, key = stack.enter_context(KeyedMember.connect(relay.address)), device()
    member.enter(Credentials(invitation=invitation), key)
    # A fingerprint has spaces, which a pipe does not get to see.
    shown = fingerprint(key.public).replace(" ", "\\x20")
    [row] = columns(said(relay, "devices"))
    assert (row["NAME"], row["STANDING"], row["ADDRESS"], row["INVITED"]) == (
        "phone",
        "admitted",
        "192.168.202.33",
        "yes",
    )
    assert (row["BOUND-TO"], row["FINGERPRINT"]) == ("192.168.202.33/32", shown)
    assert said(relay, "rotate") == "/: log-ins are by a new key from now on\n"
    assert f"new members need {url}#" in said(relay, "rotate", "--network-key")
    revoked, warned = said(relay, "revoke", row["NUMBER"]).splitlines()
    assert revoked == f"phone ({fingerprint(key.public)}) is revoked"
    assert warned.startswith("who knows a password comes back as another device")
    result = call(server_command.main, "approve", "phone", "--control-socket", str(relay.control))
    assert (result.exit_code, result.stderr) == (
        1,
        "candy-server: 'phone' was revoked: have it join as another device\n",
    )
    result = call(server_command.main, "invite", "--expires", "soon", "--control-socket", str(relay.control))
    assert result.exit_code == 2
    assert "'soon' is not a time: write it like 30m, 12h or 7d" in result.stderr


def test_a_reload_of_which_a_part_failed(tmp_path: Path, authority: trustme.CA) -> None:
    (tmp_path / "server.toml").write_text("")
    flags = flags_for(authority, tmp_path, "127.0.0.1")
    with RelayProgram(tmp_path, "-c", str(tmp_path / "server.toml"), *flags, scheme="wss") as relay:
        relay.wait_for("control socket")
        chain = Path(flags[flags.index("--tls-certificate") + 1])
        chain.write_text("nonsense")
        result = call(server_command.main, "reload", "--control-socket", str(relay.control))
    assert (result.exit_code, result.stdout) == (1, "applied: nothing\n")
    assert result.stderr.startswith("candy-server: ")
    assert str(chain) in result.stderr


def test_a_refusal_is_one_line(relay: RelayProgram) -> None:
    result = call(server_command.main, "kick", "no\nbody", "--control-socket", str(relay.control))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "candy-server: no member is 'no\\nbody': the command members lists them\n"


def test_which_program(relay: RelayProgram, run: Path, tmp_path: Path) -> None:
    """The only one that runs here, or the one that is named on the line or in a file."""
    for side, command in (("relay", server_command.main), ("member", client_command.main)):
        result = call(command, "status")
        assert result.exit_code == 1
        assert result.stderr == (
            f"{command.name}: no {side} runs here, or it has no control socket: --control-socket names another one\n"
        )
    (run / "relay-1.sock").symlink_to(relay.control)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(run / "relay-2.sock"))
    assert call(server_command.main, "status").exit_code == 0
    (run / "relay-3.sock").symlink_to(relay.control)
    result = call(server_command.main, "status")
    assert result.exit_code == 1
    assert result.stderr.startswith("candy-server: 2 relays run here: choose one with --control-socket: ")
    assert call(server_command.main, "--control-socket", str(relay.control), "status").exit_code == 0
    file = tmp_path / "server.toml"
    file.write_text(f'control_socket = "{relay.control}"\npassword_file = "/nowhere"\n')
    assert call(server_command.main, "-c", str(file), "status").exit_code == 0


def test_nobody_listens(tmp_path: Path) -> None:
    result = call(server_command.main, "status", "--control-socket", str(tmp_path / "none"))
    assert result.exit_code == 1
    assert result.stderr == f"candy-server: no relay runs at {tmp_path}/none (No such file or directory)\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_socket_that_is_closed_to_the_user(relay: RelayProgram) -> None:
    assert stat.S_IMODE(relay.control.stat().st_mode) == 0o660
    # Through a link that everybody can reach, because pytest's folders are root's alone.
    code = (
        "import os, candy.control.client, candy.cli.files; from candy.cli.server import main; "
        "os.setgid(65534); os.setuid(65534); main()"
    )
    opened = os.open(relay.control, os.O_PATH)
    try:
        path = f"/proc/self/fd/{opened}"
        ran = subprocess.run(
            [sys.executable, "-c", code, "status", "--control-socket", path],
            env=environment(relay.control.parent.parent),
            pass_fds=[opened],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        os.close(opened)
    assert ran.returncode == 1
    assert ran.stderr == (
        f"candy-server: {path} is closed to this user: ask as root, or start the relay with --control-group\n"
    )


def test_check_is_a_subcommand_too(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text("workers = 3\n")
    for line in (["check"], ["check", "-c", str(file)], ["-c", str(file), "check"], ["check", "--workers", "2"]):
        result = call(server_command.main, *line)
        assert (result.exit_code, result.stdout) == (0, "candy-server: the settings are sound\n")
    file.write_text("workers = 0\n")
    assert "workers" in refuse(server_command.main, "-c", str(file), "check")
    assert call(server_command.main, "-c", str(file), "check", "--workers", "1").exit_code == 0


def test_completion_for_each_shell() -> None:
    """As docs/operation.md has it set up."""
    for shell in ("bash", "zsh", "fish"):
        ran = subprocess.run(
            [sys.executable, "-c", "from candy.cli.server import main; main()"],
            env=os.environ | {"_CANDY_SERVER_COMPLETE": f"{shell}_source"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        assert "_CANDY_SERVER_COMPLETE" in ran.stdout
    ran = subprocess.run(
        [sys.executable, "-c", "from candy.cli.server import main; main()"],
        env=os.environ
        | {"_CANDY_SERVER_COMPLETE": "bash_complete", "COMP_WORDS": "candy-server mem", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout.splitlines() == ["plain,member", "plain,members"]
