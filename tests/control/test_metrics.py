"""Metrics: what Prometheus reads, what its own tool thinks of them, and the files for Prometheus and Grafana."""

import asyncio
import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from lab.member import Member
from lab.programs import PATIENCE_S, Program, RelayProgram
from prometheus_client.parser import text_string_to_metric_families

from candy.control.lag import BOUNDS_S, Lag
from candy.control.metrics import Exposition, Figures, Histogram

CONTRIB = Path(__file__).parents[2] / "contrib"
FIGURES = Figures(
    version="1.2",
    members={"/": 3, "/home": 0},
    connections={"member": 3, "guest": 1},
    connections_most=100,
    logins={"admitted": 4, "password": 2},
    packets_in=1,
    bytes_in=2,
    packets_out=3,
    bytes_out=4,
    copies=5,
    drops={"no_route": 6, "delay": 0},
    holds={"down": 11, "up": 12},
    over_quota={"/": 1, "/home": 0},
    queued_bytes=7,
    queue_delay=Histogram(bounds=(0.1, 0.2), counts=(1, 0, 2), sum=1.5),
    worker_cpu_s=(8.5, 9.5),
    loop_lag=Histogram(bounds=(0.5,), counts=(0, 0), sum=0.0),
    leases_used={"/": 10},
    leases_free={"/": 244},
    certificate_expiry=1_700_000_000.0,
    nats_up=True,
    relays=3,
    relay_members={"us": 7},
)


def samples(text: bytes) -> dict[str, float]:
    return {
        sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_exposition() -> None:
    found = samples(Exposition(lambda: FIGURES).text())
    ours = {name: value for name, value in found.items() if name.startswith("candy_")}
    assert ours == {
        "candy_build_info{1.2}": 1,
        "candy_members{/}": 3,
        "candy_members{/home}": 0,
        "candy_connections{member}": 3,
        "candy_connections{guest}": 1,
        "candy_connections_limit": 100,
        "candy_logins_total{admitted}": 4,
        "candy_logins_total{password}": 2,
        "candy_received_packets_total": 1,
        "candy_received_bytes_total": 2,
        "candy_sent_packets_total": 3,
        "candy_sent_bytes_total": 4,
        "candy_broadcast_copies_total": 5,
        "candy_dropped_packets_total{no_route}": 6,
        "candy_dropped_packets_total{delay}": 0,
        "candy_limit_holds_total{down}": 11,
        "candy_limit_holds_total{up}": 12,
        "candy_members_over_quota{/}": 1,
        "candy_members_over_quota{/home}": 0,
        "candy_queue_bytes": 7,
        "candy_queue_delay_seconds_bucket{0.1}": 1,
        "candy_queue_delay_seconds_bucket{0.2}": 1,
        "candy_queue_delay_seconds_bucket{+Inf}": 3,
        "candy_queue_delay_seconds_count": 3,
        "candy_queue_delay_seconds_sum": 1.5,
        "candy_worker_cpu_seconds_total{0}": 8.5,
        "candy_worker_cpu_seconds_total{1}": 9.5,
        "candy_event_loop_lag_seconds_bucket{0.5}": 0,
        "candy_event_loop_lag_seconds_bucket{+Inf}": 0,
        "candy_event_loop_lag_seconds_count": 0,
        "candy_event_loop_lag_seconds_sum": 0,
        "candy_leases_used{/}": 10,
        "candy_leases_free{/}": 244,
        "candy_certificate_expiry_timestamp_seconds": 1_700_000_000,
        "candy_nats_up": 1,
        "candy_relays": 3,
        "candy_relay_members{us}": 7,
    }
    assert found["process_resident_memory_bytes"] > 1_000_000


async def test_lag() -> None:
    lag = Lag(asyncio.get_running_loop())
    for late in (-1.0, 0.001, 0.0011, 99.0):
        lag.count(late)
    lag.stop()
    counted = lag.histogram()
    assert counted.bounds == BOUNDS_S
    assert counted.counts == (2, 1, *(0,) * (len(BOUNDS_S) - 2), 1)
    assert counted.sum == pytest.approx(99.0021)


# The files


def names_in(expression: str) -> set[str]:
    """The metrics that an expression is about."""
    return set(re.findall(r"\b(?:candy|process)_[a-z_]+", expression))


def known() -> set[str]:
    return {name.partition("{")[0] for name in samples(Exposition(lambda: FIGURES).text())}


def test_the_dashboard_is_about_metrics_that_there_are() -> None:
    dashboard = json.loads((CONTRIB / "grafana.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    named = set().union(*map(names_in, expressions))
    assert named <= known()
    # And about all of candy's.
    without_suffix = {re.sub("_(bucket|count|sum)$", "_bucket", name) for name in known() if name.startswith("candy_")}
    # Those of a cluster are not every relay's.
    assert without_suffix - named == {
        "candy_connections_limit",
        "candy_nats_up",
        "candy_relays",
        "candy_relay_members",
    }
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places)


def test_the_alerts_are_about_metrics_that_there_are() -> None:
    expressions = re.findall(r"expr: (?:\|\n)?(.*)", (CONTRIB / "alerts.yml").read_text())
    assert len(expressions) == 9
    assert set().union(*map(names_in, expressions)) <= known()


# Prometheus' own programs, and a relay


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}: run scripts/bootstrap.sh tools")
    return found


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProgram]:
    with RelayProgram(tmp_path_factory.mktemp("relay"), "--metrics", "127.0.0.1:0") as relay:
        yield relay


@pytest.fixture(scope="module")
def target(relay: RelayProgram) -> str:
    return relay.wait_for(r"metrics on (127\.0\.0\.1:\d+)$")[1]


def scrape(target: str) -> bytes:
    with urllib.request.urlopen(f"http://{target}/metrics") as response:
        content: bytes = response.read()
    return content


def test_a_relay_is_scraped(target: str, member: Member) -> None:
    """`member` is upgraded, and no more."""
    before = samples(scrape(target))
    assert before["candy_connections{greeting}"] == 1
    member.log_in("192.168.202.9")
    after = samples(scrape(target))
    assert after["candy_members{/}"] == 1
    assert (after["candy_connections{greeting}"], after["candy_connections{member}"]) == (0, 1)
    assert after["candy_logins_total{admitted}"] == 1
    assert after["candy_received_packets_total"] > before["candy_received_packets_total"]
    assert after["candy_leases_free{/}"] + after["candy_leases_used{/}"] == 254
    assert "candy_dropped_packets_total{no_route}" in after
    assert after["candy_event_loop_lag_seconds_count"] >= 0


def test_promtool_finds_no_fault(target: str) -> None:
    checked = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=scrape(target), capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_promtool_finds_no_fault_in_the_alerts() -> None:
    argv = [tool("promtool"), "check", "rules", str(CONTRIB / "alerts.yml")]
    checked = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "SUCCESS: 9 rules found" in checked.stdout


def test_each_alert_fires() -> None:
    cases = Path(__file__).with_name("alerts.yml")
    alerts = re.findall(r"alert: (\w+)", (CONTRIB / "alerts.yml").read_text())
    assert set(alerts) == set(re.findall(r"alertname: (\w+)", cases.read_text()))
    argv = [tool("promtool"), "test", "rules", str(cases)]
    checked = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_prometheus_scrapes_a_relay(target: str, member: Member, tmp_path: Path, stack: ExitStack) -> None:
    member.log_in("192.168.202.10")
    (tmp_path / "prometheus.yml").write_text(
        f"""global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{CONTRIB}/alerts.yml"]
scrape_configs: [{{job_name: candy, static_configs: [{{targets: ["{target}"]}}]}}]
"""
    )
    argv = [
        tool("prometheus"),
        f"--config.file={tmp_path}/prometheus.yml",
        f"--storage.tsdb.path={tmp_path}/data",
        "--web.listen-address=127.0.0.1:0",
    ]
    prometheus = stack.enter_context(Program("prometheus", argv, {"PATH": "/usr/bin:/bin"}))
    where = prometheus.wait_for(r"Listening on.*address=(127\.0\.0\.1:\d+)")[1]
    prometheus.wait_for("Server is ready to receive web requests")

    def query(expression: str) -> list[Any]:
        with urllib.request.urlopen(f"http://{where}/api/v1/query?query={quote(expression)}") as response:
            result: list[Any] = json.loads(response.read())["data"]["result"]
        return result

    # It scrapes within its interval, and tells nobody of it.
    deadline = time.monotonic() + PATIENCE_S
    while not (found := query("candy_members")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    [series] = found
    assert series["value"][1] == "1"
    assert (series["metric"]["job"], series["metric"]["network"]) == ("candy", "/")
    assert query('up{job="candy"}')[0]["value"][1] == "1"
