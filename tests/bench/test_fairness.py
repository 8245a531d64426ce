"""The loads of fairness.py are what they say, are counted rightly, and the program runs; nothing is timed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fairness_probe
import pytest
from fairness_loads import LOADS, SUPERS, Load, Way, frame, stream, super_payload
from fairness_probe import START, Delays, Payloads
from fairness_run import Child, Row, Run
from kit.peer import BINARY, PATIENCE, PING, Frame, build_frame, read_frame, read_messages

from candy import _fastpath

BENCH = Path(__file__).parents[2] / "bench"
RUN = Run(
    idle_before_ms=0.1,
    idle_after_ms=0.2,
    p50_ms=1.0,
    p99_ms=2.0,
    most_ms=3.0,
    probes=10,
    lost=0,
    busy=0.5,
    frames_per_second=1.0,
    returns_per_second=0.0,
    drops={},
)


@pytest.mark.parametrize(
    "load", [load for load in LOADS.values() if load.way is not Way.LINGER], ids=lambda load: load.name
)
def test_every_load_is_made_of_sound_frames(load: Load) -> None:
    for sent in [*load.frames[:1100], *([load.first] if load.first else [])]:
        read = read_frame(sent)
        assert isinstance(read, Frame)
        assert read.size == len(sent)
        assert read.mask is not None
    messages, fault = read_messages(load.first + b"".join(load.frames[:1100]), masked=True)
    assert fault == 0
    assert messages or load.first or not load.frames


@pytest.mark.parametrize(
    "load", [load for load in LOADS.values() if load.way is Way.LINGER], ids=lambda load: load.name
)
def test_who_lingers_deserves_to_be_closed(load: Load) -> None:
    assert [read_frame(sent) for sent in load.frames] == [1002]


@pytest.mark.parametrize("load", [load for load in LOADS.values() if load.frames], ids=lambda load: load.name)
def test_a_stream_is_whole_frames_and_knows_how_many(load: Load) -> None:
    data, count = stream(load)
    once = b"".join(load.frames)
    assert data == once * (count // len(load.frames))
    assert count % len(load.frames) == 0
    assert count == len(load.frames) * load.times or load.way is Way.FLOOD


@pytest.mark.parametrize(("segments", "size"), SUPERS[:2])
def test_the_smallest_segments_allowed_are_128(segments: int, size: int) -> None:
    cut = _fastpath.segment(*super_payload(1, segments, size))
    assert [len(packet) for packet in cut] == [40 + size] * 128


def test_the_pings_that_wait_are_those_of_the_fault() -> None:
    data, count = stream(LOADS["waiting: 60 pings before log-in, old, unread"])
    assert (len(data), count) == (7860, 60)


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65535])
@pytest.mark.parametrize("opcode", [BINARY, PING])
def test_frames_are_those_of_the_obvious_builder(opcode: int, length: int) -> None:
    payload = bytes(i & 255 for i in range(length))
    assert frame(opcode, payload) == build_frame(opcode, payload, mask=bytes.fromhex("37fa213d"))


@pytest.mark.parametrize("step", [1, 2, 7, 100000])
def test_payloads_are_found_however_they_are_cut(step: int) -> None:
    wanted = [b"", b"a", b"b" * 125, b"c" * 126, b"d" * 65535, b"e" * 65536]
    data = b"".join(
        build_frame(PING, b"ping") + build_frame(BINARY, payload) for payload in wanted[: 4 if step == 1 else 6]
    )
    payloads = Payloads()
    found = [payload for at in range(0, len(data), step) for payload in payloads.feed(data[at : at + step])]
    assert found == wanted[: len(found)]
    assert len(found) == (4 if step == 1 else 6)


def test_a_probe_is_a_packet_that_the_engine_forwards() -> None:
    [(opcode, payload)] = _fastpath.FrameParser().feed(frame(BINARY, START + b"\0\0\0\7"))
    assert opcode == BINARY
    assert len(payload) == 25
    assert payload[1] == 0x45
    assert int.from_bytes(payload[3:5], "big") == 24


def test_lost_packets_count_as_the_longest_delay() -> None:
    delays = Delays(4, [1_000_000, 2_000_000, 3_000_000])
    assert delays.lost == 1
    assert delays.percentile_ms(100) == fairness_probe.PATIENCE_S * 1000
    assert Delays(3, [1_000_000, 2_000_000, 3_000_000]).percentile_ms(50) == 2


def test_the_median_is_of_runs_that_count() -> None:
    runs = [replace(RUN, p99_ms=ms) for ms in (9.0, 1.0, 2.5)]
    row = Row(LOADS["tiny, to nobody"], [*runs, replace(RUN, p99_ms=0.1, idle_after_ms=1.1)])
    assert row.median == runs[2]
    assert row.reached
    assert not Row(row.load, runs[:2]).reached
    assert not Row(row.load, [replace(RUN, idle_after_ms=1.1)]).reached


def test_who_waits_is_judged_by_cpu_time() -> None:
    load = LOADS["waiting: 1 old member"]
    assert Row(load, [replace(RUN, busy=0.019)]).reached
    assert not Row(load, [RUN]).reached


def relay_and_members(load: str, until: Callable[[dict[str, dict[str, int]], dict[str, float]], bool]) -> None:
    """Play a load against a relay until its totals and the load's satisfy the condition."""
    cores = sorted(os.sched_getaffinity(0))
    with Child(
        "fairness_relay.py", {"worker_cores": cores, "other_cores": cores, "engine": {}, "device": False}
    ) as relay:
        order = {"load": load, "port": relay.first["port"], "cores": cores}
        with Child("fairness_members.py", order) as members:
            end = time.monotonic() + PATIENCE
            while relay.ask()["adopted"] < members.first["connected"]:
                assert time.monotonic() < end
            members.ask()
            while not until(relay.ask(), members.ask()):
                assert time.monotonic() < end, (relay.ask(), members.ask())


def test_frames_sent_once_are_counted() -> None:
    relay_and_members(
        "waiting: 1 old member",
        lambda relay, members: members["sent"] == relay["stats"]["packets_in"] == 20,
    )


def test_connections_that_come_back_are_counted() -> None:
    relay_and_members(
        "close and return, logged in",
        lambda relay, members: members["returns"] > 100 and members["sent"] == members["returns"] + 64,
    )


def test_a_flood_goes_on() -> None:
    """More than one stream's worth, each frame of it a packet without a destination."""
    _, count = stream(LOADS["tiny, to nobody"])
    relay_and_members(
        "tiny, to nobody",
        lambda relay, members: members["sent"] > 3 * count and relay["drops"]["no_route"] > 3 * count,
    )


def test_the_table_is_drawn_and_written(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    names = ["text frames, logged in", "tiny, to nobody", "waiting: 60 pings before log-in, old, unread"]
    arguments = [argument for name in names for argument in ("--load", name)]
    command = [sys.executable, str(BENCH / "fairness.py"), "--probes", "20", "--runs", "1", *arguments]
    ran = subprocess.run([*command, "--json", str(figures)], capture_output=True, text=True, check=False)
    # So short a run may miss anything; then, and only then, it ends with status 1.
    assert ran.returncode == ("missed  " in ran.stdout), ran.stderr
    last = ran.stdout.splitlines()[-1]
    rows = json.loads(figures.read_text())["rows"]
    assert [row["load"] for row in rows] == names
    for row in rows:
        assert row["load"] in ran.stdout
        assert (row["load"] in last) == (not row["reached"])
        for run in row["runs"]:
            assert run["probes"] == (0 if row["waits"] else 20)
            assert run["lost"] == 0
    assert all(set(run["drops"]) == {"no_route"} for run in rows[1]["runs"])


def test_a_load_that_is_none_is_refused() -> None:
    command = [sys.executable, str(BENCH / "fairness.py"), "--load", "kindness"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "no load has 'kindness' in its name" in ran.stderr
