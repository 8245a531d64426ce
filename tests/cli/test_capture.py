"""The command capture, as a program beside a relay: what it writes, as tcpdump reads it as well, and how it ends."""

import os
import pty
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from kit.pcapng import Block, read
from lab.member import Member, echo
from lab.programs import PATIENCE_S, RelayProgram, environment, server

A, B = "192.168.202.10", "192.168.202.11"


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[RelayProgram]:
    (tmp_path / "server.toml").write_text('dhcp = "192.168.202.0/24"\n[network."/home"]\npassword = "home"\n')
    with RelayProgram(tmp_path, "-c", str(tmp_path / "server.toml")) as relay:
        relay.wait_for("control socket")
        yield relay


def enter(stack: ExitStack, relay: RelayProgram, ip: str, *, home: bool = False) -> Member:
    more = {"path": "/home", "password": "home"} if home else {}
    member = stack.enter_context(Member.connect(relay.address, **more))  # type: ignore[arg-type]
    member.send(member.greeting())
    member.log_in(ip)
    member.settle()
    return member


class Capture:
    """The command, which has begun to capture; its stdout in a file unless it is given."""

    def __init__(self, relay: RelayProgram, folder: Path, *line: str, stdout: int | None = None) -> None:
        self.file = folder / "capture.pcapng"
        before = len(relay.lines)
        with self.file.open("wb") as file:
            self.process = subprocess.Popen(
                server("capture", *line, "--control-socket", str(relay.control)),
                stdout=file if stdout is None else stdout,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(folder),
            )
        relay.wait_for("INFO capture .*: done", before)

    def ends(self) -> str:
        """Its only line on stderr, once it has ended as it should."""
        with self.process:
            _, said = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0, said
        assert said.count("\n") == 1
        return said.rstrip()

    def blocks(self) -> list[Block]:
        """Of its file, whose first two are what they are to be."""
        section, interface, *rest = read(self.file.read_bytes())
        assert (section.kind, interface.kind) == (0x0A0D0D0A, 1)
        return rest

    def wait_for_packets(self, count: int) -> None:
        """Until so many are in the file."""
        while self.file.read_bytes().count(b"\x06\0\0\0") < count:
            assert self.process.poll() is None


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_both_ways_until_ctrl_c(relay: RelayProgram, stack: ExitStack, tmp_path: Path) -> None:
    a, b = enter(stack, relay, A), enter(stack, relay, B)
    capture = Capture(relay, tmp_path, A)
    a.forward(echo(A, B, 1))
    assert b.receive_packet() == echo(A, B, 1)
    b.forward(echo(B, A, 2))
    assert a.receive_packet() == echo(B, A, 2)
    a.forward(echo(A, "192.168.202.99", 3))
    capture.wait_for_packets(3)
    capture.process.send_signal(signal.SIGINT)
    assert capture.ends() == "3 packets captured, 0 lost: interrupted"
    *packets, last = capture.blocks()
    assert [(block.direction, block.comment, block.data) for block in packets] == [
        ("in", "", echo(A, B, 1)),
        ("out", "", echo(B, A, 2)),
        ("in", "dropped: no_route", echo(A, "192.168.202.99", 3)),
    ]
    assert (last.kind, last.comment, int.from_bytes(last.options[4][0], "little")) == (5, "interrupted", 3)
    section, interface = read(capture.file.read_bytes())[:2]
    assert interface.options[2] == [f"candy {A}".encode()]
    assert interface.options[3] == [f"{A} in /".encode()]
    assert interface.fields == {"link": 101, "snap": 65535}
    assert section.options[4][0].startswith(b"candy ")


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="there is no tcpdump")
def test_tcpdump_reads_it(relay: RelayProgram, stack: ExitStack, tmp_path: Path) -> None:
    a, b = enter(stack, relay, A), enter(stack, relay, B)
    capture = Capture(relay, tmp_path, B, "--snaplen", "64")
    a.forward(echo(A, B, 7))
    assert b.receive_packet() == echo(A, B, 7)
    capture.wait_for_packets(1)
    capture.process.terminate()
    assert capture.ends() == "1 packets captured, 0 lost: interrupted"
    command = ["tcpdump", "-n", "-tt", "-r", str(capture.file)]
    told = subprocess.run(command, check=True, capture_output=True, text=True)
    assert re.fullmatch(rf"\d+\.\d+ IP {A} > {B}: ICMP echo request, id \d+, seq 7, length \d+\n", told.stdout)
    assert "truncated" not in told.stderr


def test_drops_alone(relay: RelayProgram, stack: ExitStack, tmp_path: Path) -> None:
    a, b = enter(stack, relay, A), enter(stack, relay, B)
    capture = Capture(relay, tmp_path, A, "--drops")
    a.forward(echo(A, B, 1))
    assert b.receive_packet() == echo(A, B, 1)
    a.forward(echo("10.9.9.9", B, 2))
    capture.wait_for_packets(1)
    capture.process.send_signal(signal.SIGINT)
    capture.ends()
    [block, _] = capture.blocks()
    assert (block.comment, block.data) == ("dropped: spoofed_source", echo("10.9.9.9", B, 2))


def test_the_member_leaves(relay: RelayProgram, stack: ExitStack, tmp_path: Path) -> None:
    a = enter(stack, relay, A)
    capture = Capture(relay, tmp_path, A)
    a.forward(echo(A, "192.168.202.99", 1))
    a.close()
    assert capture.ends() == "1 packets captured, 0 lost: the member has left"
    *_, last = capture.blocks()
    assert (last.kind, last.comment) == (5, "the member has left")


def test_the_relay_ends(relay: RelayProgram, stack: ExitStack, tmp_path: Path) -> None:
    enter(stack, relay, A)
    capture = Capture(relay, tmp_path, A)
    relay.signal(signal.SIGTERM)
    assert capture.ends() == "0 packets captured, 0 lost: the relay ends"
    assert relay.wait() == 0


def test_the_relay_is_killed(relay: RelayProgram, stack: ExitStack, tmp_path: Path) -> None:
    a = enter(stack, relay, A)
    capture = Capture(relay, tmp_path, A)
    a.forward(echo(A, "192.168.202.99", 1))
    capture.wait_for_packets(1)
    relay.signal(signal.SIGKILL)
    with capture.process:
        _, said = capture.process.communicate(timeout=PATIENCE_S)
    assert capture.process.returncode == 1
    assert said.endswith("the relay ended meanwhile\n")
    assert len(capture.blocks()) == 1


def test_its_reader_is_gone(relay: RelayProgram, stack: ExitStack, tmp_path: Path) -> None:
    """Without a packet that would tell it."""
    enter(stack, relay, A)
    reader, writer = os.pipe()
    capture = Capture(relay, tmp_path, A, stdout=writer)
    os.close(writer)
    os.close(reader)
    assert capture.ends() == "0 packets captured, 0 lost: nobody reads them any more"
    again = Capture(relay, tmp_path, A)
    again.process.send_signal(signal.SIGINT)
    again.ends()


def test_a_reader_that_stalls_costs_only_packets(relay: RelayProgram, stack: ExitStack, tmp_path: Path) -> None:
    """The members' go on, and what was lost is said."""
    a, b = enter(stack, relay, A), enter(stack, relay, B)
    reader, writer = os.pipe()
    capture = Capture(relay, tmp_path, A, stdout=writer)
    os.close(writer)
    count = 6000
    packet = echo(A, B, 1) + bytes(1200)
    packet = packet[:2] + len(packet).to_bytes(2, "big") + packet[4:]
    for _ in range(count):
        a.forward(packet)
        b.receive_packet()
    capture.process.send_signal(signal.SIGINT)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    said = re.fullmatch(r"(\d+) packets captured, (\d+) lost: interrupted", capture.ends())
    assert said is not None
    captured = sum(block.kind == 6 for block in read(data))
    assert captured == int(said[1]) < count


def test_refusals(relay: RelayProgram, stack: ExitStack, tmp_path: Path) -> None:
    enter(stack, relay, A)
    enter(stack, relay, B)
    enter(stack, relay, B, home=True)

    def refused(*line: str) -> str:
        argv = server("capture", *line, "--control-socket", str(relay.control))
        done = subprocess.run(argv, capture_output=True, text=True, env=environment(tmp_path), check=False)
        assert done.stdout == ""
        assert done.returncode == 1
        return done.stderr

    assert "no member is 'nobody'" in refused("nobody")
    assert f"2 members are '{B}'" in refused(B)
    capture = Capture(relay, tmp_path, A)
    assert f"{A} in / is captured already: end that capture first" in refused(A)
    relay.wait_for(f"WARNING capture {A}.*: not done: {A} in / is captured already")
    capture.process.send_signal(signal.SIGINT)
    capture.ends()
    argv = server("capture", A, "--snaplen", "63")
    done = subprocess.run(argv, capture_output=True, text=True, env=environment(tmp_path), check=False)
    assert (done.returncode, "63 is not in the range 64<=x<=65535" in done.stderr) == (2, True)


def test_four_at_once(relay: RelayProgram, stack: ExitStack, tmp_path: Path) -> None:
    captures = []
    for n in range(5):
        enter(stack, relay, f"192.168.202.{20 + n}")
    for n in range(4):
        folder = tmp_path / str(n)
        folder.mkdir()
        captures.append(Capture(relay, folder, f"192.168.202.{20 + n}"))
    argv = server("capture", "192.168.202.24", "--control-socket", str(relay.control))
    done = subprocess.run(argv, capture_output=True, text=True, env=environment(tmp_path), check=False)
    assert "there are 4 captures already: end one of them first" in done.stderr
    for capture in captures:
        capture.process.send_signal(signal.SIGINT)
        capture.ends()
    again = Capture(relay, tmp_path, "192.168.202.24")
    again.process.send_signal(signal.SIGINT)
    again.ends()


def test_a_terminal_gets_no_packets(relay: RelayProgram, stack: ExitStack, tmp_path: Path) -> None:
    enter(stack, relay, A)
    ours, theirs = pty.openpty()
    done = subprocess.run(
        server("capture", A, "--control-socket", str(relay.control)),
        stdout=theirs,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(tmp_path),
        check=False,
    )
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 1
    assert "packets are not for a terminal: write `| wireshark -k -i -` behind it, or `> FILE`" in done.stderr


def test_one_address_in_two_networks(relay: RelayProgram, stack: ExitStack, tmp_path: Path) -> None:
    a, other = enter(stack, relay, A), enter(stack, relay, A, home=True)
    capture = Capture(relay, tmp_path, A, "--network", "/home")
    a.forward(echo(A, "192.168.202.99", 1))
    a.settle()
    other.forward(echo(A, "192.168.202.99", 2))
    capture.wait_for_packets(1)
    capture.process.send_signal(signal.SIGINT)
    assert capture.ends().startswith("1 packets captured")
    assert capture.blocks()[0].data == echo(A, "192.168.202.99", 2)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk(relay: RelayProgram, stack: ExitStack, tmp_path: Path) -> None:
    enter(stack, relay, A)
    command = server("capture", A, "--control-socket", str(relay.control))
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment(tmp_path), check=False
        )
    assert (done.returncode, done.stderr) == (1, "candy-server: cannot write to stdout: No space left on device\n")
