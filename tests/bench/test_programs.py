"""The benchmarks around the engine: flows and stages by themselves, and each program once, for an instant."""

import json
import os
import socket
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def flows(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCH)
    return import_module("flows")


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCH)
    return import_module("stages")


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCH)
    return import_module("target")


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    ran = subprocess.run(
        [sys.executable, str(BENCH / program), *arguments], capture_output=True, text=True, check=False
    )
    # So short a run may miss anything; then, and only then, it ends with status 1.
    assert ran.returncode == ("missed  " in ran.stdout), ran.stderr
    return ran


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_frames_are_found_however_they_are_cut(flows: ModuleType, step: int) -> None:
    sent = b"".join(
        masked[:1] + bytes([masked[1] & 127]) + masked[2 : start - 4] + masked[start:]
        for masked, start in (
            (flows.frame(flows.PINGER, flows.MEMBER, 7, 1, 100), 6),
            (flows.frame(flows.BULK, flows.MEMBER, 9, 2, 1400), 8),
        )
    )
    frames = flows.Frames()
    found = [packet for at in range(0, len(sent), step) for packet in frames.feed(sent[at : at + step])]
    assert found == [(7, 1, 100), (9, 2, 1400)]


def test_a_window_opens_with_what_arrives_and_shrinks_once_for_a_loss(flows: ModuleType) -> None:
    bulk = flows.ClosedLoop()
    for _ in range(bulk.allowed(0.0)):
        bulk.send()
    assert bulk.allowed(0.0) == 0
    for sequence in range(1, 6):
        bulk.acknowledged(sequence, 0.0)
    assert bulk.allowed(0.0) == 10
    # 6 and 8 are lost of the same window.
    bulk.acknowledged(7, 0.0)
    bulk.acknowledged(9, 0.0)
    assert bulk.allowed(0.0) == int(15 * bulk.FACTOR) - 1


def test_a_window_opens_again_when_nothing_arrives(flows: ModuleType) -> None:
    bulk = flows.ClosedLoop()
    for _ in range(10):
        bulk.send()
    bulk.acknowledged(1, 1.0)
    assert bulk.allowed(1.0) == 2
    bulk.send()
    bulk.send()
    assert bulk.allowed(1.0) == 0
    assert bulk.allowed(1.0 + flows.LOST_AFTER_S + 0.1) == 2


def test_a_constant_rate_goes_by_the_clock(flows: ModuleType) -> None:
    bulk = flows.OpenLoop(8 * flows.BULK_SIZE * 1000)
    assert bulk.allowed(5.0) == 0
    assert bulk.allowed(5.0105) == 10
    bulk.send()
    assert bulk.allowed(5.0105) == 9


def test_unanswered_pings_are_lost(flows: ModuleType) -> None:
    ping = flows.Ping(0.01)
    ping.send(1.0)
    ping.send(1.5)
    ping.answered(2, 1.75)
    assert ping.round_trips_s == [0.25]
    assert ping.lost(1.9) == 0
    assert ping.lost(2.1) == 1


@pytest.mark.parametrize(
    ("stack", "stage"),
    [
        (("_copy_to_iter", "tcp_recvmsg", "__sys_recvfrom", "do_syscall_64", "__libc_recv"), "receive"),
        # What comes in on loopback is taken by the sender's own system call.
        (("tcp_v4_rcv", "__tcp_transmit_skb", "__sys_sendto", "__send"), "send"),
        (("do_epoll_wait", "epoll_wait"), "wait"),
        (("route_find", "forward", "process", "take_apart"), "look up"),
        (("emit", "forward", "process", "take_apart"), "queue"),
        (("candy_unmask_avx2",), "parse and unmask"),
        (("parse_frame", "process"), "parse and unmask"),
        (("malloc",), "other"),
    ],
)
def test_a_sample_is_of_the_stage_of_its_functions(stages: ModuleType, stack: tuple[str, ...], stage: str) -> None:
    assert stages.stage_of(stack) == stage


def test_without_perf_there_is_the_kernels_account(
    stages: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = stages.observe([os.getpid()], lambda: sum(range(2_000_000)), tmp_path / "file")
    assert found.samples == 0
    assert set(found.shares) == {"receive, send, wait", "parse, unmask, look up, queue"}


def test_a_missed_target_is_noticed(target: ModuleType) -> None:
    reached, remark, missed = target.Target("a", True), target.Target("b"), target.Target("c", False)
    assert [str(one) for one in (reached, remark, missed)] == ["reached  a", "         b", "missed   c"]
    assert not target.missed([reached, remark])
    assert target.missed([reached, missed, remark])


def test_the_profile_is_drawn_and_written(tmp_path: Path) -> None:
    arguments = ["--topology", "1-1", "--size", "100", "--rounds", "1", "--seconds", "0.02", "--no-programs"]
    ran = run("throughput.py", *arguments, "--profile", str(tmp_path), "--json", str(tmp_path / "figures.json"))
    assert "CPU time by stage" in ran.stdout
    [profile] = json.loads((tmp_path / "figures.json").read_text())["profiles"]
    assert sum(profile["shares"].values()) == pytest.approx(1)


def test_what_passes_with_its_mask_is_measured_alone(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    ran = run("throughput.py", "--topology", "candy.3", "--rounds", "1", "--seconds", "0.02", "--json", str(figures))
    for size in (100, 1300, 65000):
        assert f"candy.3, {size} bytes, in the clear: " in ran.stdout
        assert f"candy.3, {size} bytes, sealed: " in ran.stdout
    relays = [series["relay"] for series in json.loads(figures.read_text())["series"]]
    assert relays == ["candy", "limit", "candy, candy.3", "candy, sealed", "limit, sealed"] * 3


def test_members_log_in_and_forward(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    ran = run("members.py", "--members", "9", "--without-parts", "--json", str(figures))
    assert "reached  granted: 9 of 9 packets" in ran.stdout
    assert "reached  claimed: 9 of 9 packets" in ran.stdout
    assert "reached  keys: 9 of 9 packets" in ran.stdout
    assert json.loads(figures.read_text())["rows"][-1]["members"] == 9


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_round_trips_are_measured(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    ran = run("latency.py", "--seconds", "0.3", "--json", str(figures))
    rows = json.loads(figures.read_text())["rows"]
    loads = ("idle", "closed loop", "16 closed loops", "twice the link")
    assert [(row["extended"], row["load"]) for row in rows] == [(way, load) for way in (True, False) for load in loads]
    assert all(row["pings"] for row in rows)
    assert all((row["share"] > 0) == (row["load"] != "idle") for row in rows)
    assert ran.stdout.count("the bulk has") == 6


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_each_trial_of_a_load_is_measured(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    ran = run("latency.py", "--seconds", "0.2", "--load", "16", "--trials", "2", "--json", str(figures))
    rows = json.loads(figures.read_text())["rows"]
    trials = [("idle", 1), ("16 closed loops", 1), ("16 closed loops", 2)]
    assert [(row["extended"], row["load"], row["trial"]) for row in rows] == [
        (way, load, trial) for way in (True, False) for load, trial in trials
    ]
    assert ran.stdout.count("the bulk has") == 2


def test_a_load_that_there_is_not_is_told_by_those_that_there_are() -> None:
    program = [sys.executable, str(BENCH / "latency.py"), "--load", "flood"]
    ran = subprocess.run(program, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "none of idle, closed loop, 16 closed loops, twice the link has it in its name" in ran.stderr


def test_logins_program() -> None:
    """Every load once; what it measures is in its table."""
    ran = run("logins.py", "--logins", "2")
    assert "40 members: UDP4CONN" in ran.stdout
    assert "60 strangers" in ran.stdout


def test_a_flood_is_of_datagrams_of_one_length() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        sink.settimeout(10.0)
        said = run("udp_flood.py", "127.0.0.1", str(sink.getsockname()[1]), "--rate", "1000", "--seconds", "0.1").stdout
        lengths = [len(sink.recv(2048)) for _ in range(int(said.split()[0]))]
    assert set(lengths) == {100}
