"""What tunnel.py --sealed says of its figures; and all of it once, for an instant."""

import json
import os
import stat
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parents[2] / "bench"
OPENSSL_30, OPENSSL_35 = "OpenSSL 3.0.16 11 Feb 2025", "OpenSSL 3.5.1 1 Jul 2025"


@pytest.fixture
def sealed(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCH)
    return import_module("tunnel_sealed")


@pytest.fixture
def wireguard(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCH)
    return import_module("wireguard")


def lines(sealed: ModuleType, samples: dict[str, dict[str, list[float]]], *, released: int | None = None) -> list[str]:
    """What is said of these figures, each of every round."""
    found = {name: sealed.Found(name, figures) for name, figures in samples.items()}
    return [str(line) for line in sealed.sealed_targets(found, OPENSSL_30, released)]


def test_figures_are_compared_round_by_round(sealed: ModuleType) -> None:
    plain = {"tcp1 to": [10.0, 5.0, 2.0], "udp100": [100.0, 50.0, 10.0], "ping idle p50": [0.2, 0.3, 0.4]}
    kept = {"tcp1 to": [7.0, 3.4, 1.5], "udp100": [80.0, 50.0, 9.0], "ping idle p50": [0.22, 0.35, 0.43]}
    said = lines(sealed, {"ext": plain, "sealed": kept})
    assert said[0].startswith("reached  sealed, 1 TCP stream →: 70.0% (68.0%..75.0%) of what it has in the clear")
    assert said[1].startswith("reached  sealed, UDP of 100 bytes delivered: 90.0% (80.0%..100.0%)")
    assert said[2].startswith("reached  sealed, idle ping: +30 (+20..+50) µs")
    slower = {name: [figure * 0.9 for figure in figures] for name, figures in kept.items()}
    slower["ping idle p50"] = [0.22, 0.331, 0.44]
    assert [line[:6] for line in lines(sealed, {"ext": plain, "sealed": slower})[:3]] == ["missed"] * 3


def test_a_new_pair_has_two_round_trips_before_its_own(sealed: ModuleType) -> None:
    for first, word in ((5.6, "reached"), (5.7, "missed")):
        said = lines(sealed, {"sealed": {"ping first": [first], "ping second": [0.2]}})
        assert said[0].startswith(word)


def test_newer_ciphers_have_to_reach_more(sealed: ModuleType) -> None:
    assert [sealed.of_plain(name) for name in (OPENSSL_30, OPENSSL_35, "OpenSSL 4.0.0")] == [0.68, 0.85, 0.85]


def test_wireguard_is_judged_from_the_release_on_that_has_offloads(sealed: ModuleType) -> None:
    samples = {"sealed": {"tcp1 to": [3.9]}, "wireguard": {"tcp1 to": [1.0]}}
    assert lines(sealed, samples, released=20220316)[-1].startswith("         (sealed, 1 TCP stream →: 3.9 ")
    assert lines(sealed, samples, released=20231211)[-1].startswith("missed   sealed, 1 TCP stream →: 3.9 ")
    assert "without wireguard-go" in lines(sealed, {"sealed": {"tcp1 to": [3.9]}})[-1]


def test_what_was_not_measured_in_every_round_is_not_judged(sealed: ModuleType) -> None:
    samples = {"ext": {"tcp1 to": [1.0, 2.0]}, "sealed": {"tcp1 to": [1.0]}}
    assert [line[:8].strip() for line in lines(sealed, samples)] == [""]


def test_the_release_is_that_which_it_says(
    wireguard: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert wireguard.released() is None
    program = tmp_path / "wireguard-go"
    program.write_text("#!/bin/sh\necho 'wireguard-go v0.0.20231211'\n")
    program.chmod(stat.S_IRWXU)
    assert wireguard.released() == 20231211


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_it_is_measured_in_turns(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    program = [sys.executable, str(BENCH / "tunnel.py"), "--sealed", "--seconds", "1", "--rounds", "1"]
    ran = subprocess.run([*program, "--json", str(figures)], capture_output=True, text=True, check=False)
    # So short a run may miss anything; then, and only then, it ends with status 1.
    assert ran.returncode == ("missed  " in ran.stdout), ran.stderr
    samples = json.loads(figures.read_text())["samples"]
    for name in ("tcp1 to", "udp100", "ping idle p50", "ping first", "ping second"):
        assert len(samples["ext"][name]) == len(samples["sealed"][name]) == 1
    for what in ("1 TCP stream →", "UDP of 100 bytes", "idle ping", "the first ping of a new pair"):
        assert f"sealed, {what}" in ran.stdout


def test_its_modes_are_its_own() -> None:
    program = [sys.executable, str(BENCH / "tunnel.py"), "--sealed", "--mode", "wss"]
    ran = subprocess.run(program, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "--sealed has modes of its own" in ran.stderr
