"""What may be skipped: nothing in CI, and elsewhere what this machine can't do. Hooks of pytest.

Rules:
 1. A test marked `netns` needs root, /dev/net/tun, the right to make namespaces, and the programs below.
 2. With CI=true nothing is skipped: a skip is a failure that tells its reason. Tests with an older candy are deselected
    instead where git's history lacks it (lab/builds.py).
"""

import functools
import os
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

NETNS_TOOLS = ("ip", "ping", "iperf3", "curl", "tcpdump", "nft")
"""As scripts/bootstrap.sh installs them."""


@functools.cache
def why_no_netns() -> str | None:
    """What keeps this process from making network namespaces and TUN devices; None: nothing."""
    if os.geteuid() != 0:
        return "needs root"
    if missing := [tool for tool in NETNS_TOOLS if shutil.which(tool) is None]:
        return f"needs {', '.join(missing)}: run scripts/bootstrap.sh tools"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun: modprobe tun"
    probe = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        return f"cannot make a network namespace: {probe.stderr.strip()}"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("netns") and (reason := why_no_netns()):
            item.add_marker(pytest.mark.skip(reason=reason))


def fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Rule 2, for the report of a test or of a whole file."""
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"nothing may be skipped with CI=true: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    fail_if_skipped(report)
    return report
