"""Where the relay's time goes: receive, parse and unmask, look up, queue, send.

    perf record, of the engine's threads ──▶ FILE.data, for perf report
                                        ──▶ FILE.folded, for flamegraph.pl: one line for each stack and its samples
                                        ──▶ Stages: each sample is of the stage that its functions belong to

What the compiler put into one function addr2line takes apart again. Samples are taken by the clock (cpu-clock), for
many virtual machines have no counters. Without perf the kernel's own account is all there is: its time, and the
engine's.
"""

import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from candy import _fastpath

FREQUENCY_HZ = 4000
STAGES: dict[str, tuple[str, ...]] = {
    # How names of functions begin: the kernel's and libc's entries, then the engine's own. The first stage with one of
    # a sample's functions has it.
    "receive": ("__sys_recv", "___sys_recv", "__x64_sys_recv", "__libc_recv", "__recv", "recv", "transport_read"),
    "send": ("__sys_send", "___sys_send", "__x64_sys_send", "__libc_send", "__send", "send", "transport_write"),
    "wait": ("do_epoll_wait", "__x64_sys_epoll", "epoll_wait", "ep_"),
    "look up": ("route_find", "foreign_source", "lan_holds"),
    "queue": ("place", "emit", "run_end", "queue_", "inbox_", "records_", "flow_", "codel_", "frame_", "block"),
    "parse and unmask": (
        "candy_unmask",
        "unmask",
        "parse_frame",
        "process",
        "forward",
        "write_header",
        "take_",
        "handle_",
    ),
}
OTHER = "other"
_OWN = "__pyx_f_5candy_9_fastpath_"
"""What the compiled module's names have before them."""


@dataclass(frozen=True)
class Stages:
    """Shares of the relay's CPU time, 0 to 1, the largest first."""

    shares: dict[str, float]
    samples: int
    """0: by the kernel's account."""
    hottest: dict[str, float]
    """The functions that the processor was in most often."""
    file: Path | None
    """What perf report reads."""


def observe(threads: Iterable[int], run: Callable[[], object], file: Path) -> Stages:
    """Let it run, and see what these threads of this process do meanwhile.

    Args:
        file: without suffix; .data and .folded are written where perf is there.

    Raises:
        RuntimeError: perf is there and does not work; says what it said.
    """
    perf = shutil.which("perf")
    if perf is None:
        return _account(list(threads), run)
    data = file.with_suffix(".data")
    _record(perf, list(threads), run, data)
    stacks = Counter(_stacks(perf, data))
    file.with_suffix(".folded").write_text("".join(f"{';'.join(stack[::-1])} {n}\n" for stack, n in stacks.items()))
    found: Counter[str] = Counter()
    leaves: Counter[str] = Counter()
    for stack, n in stacks.items():
        found[stage_of(stack)] += n
        leaves[stack[0]] += n
    total = max(1, stacks.total())
    return Stages(
        shares={stage: n / total for stage, n in found.most_common()},
        samples=stacks.total(),
        hottest={name: n / total for name, n in leaves.most_common(8)},
        file=data,
    )


def stage_of(stack: Iterable[str]) -> str:
    """The stage of a sample, by the names of all functions that it was in."""
    names = list(stack)
    for stage, beginnings in STAGES.items():
        if any(name.startswith(beginnings) for name in names):
            return stage
    return OTHER


def _record(perf: str, threads: list[int], run: Callable[[], object], data: Path) -> None:
    control, acknowledged = os.pipe(), os.pipe()
    command = [perf, "record", "--quiet", "-e", "cpu-clock", "-F", str(FREQUENCY_HZ), "-g", "--delay=-1"]
    command += [f"--control=fd:{control[0]},{acknowledged[1]}", "-t", ",".join(map(str, threads)), "-o", str(data)]
    with subprocess.Popen(
        command, pass_fds=[control[0], acknowledged[1]], stderr=subprocess.PIPE, text=True
    ) as recorder:
        os.close(control[0])
        os.close(acknowledged[1])
        try:
            # It takes a while to start. It answers when it has begun, or ends, which ends the pipe.
            os.write(control[1], b"enable\n")
            if os.read(acknowledged[0], 16):
                run()
        finally:
            recorder.send_signal(signal.SIGINT)
            _, said = recorder.communicate()
            os.close(control[1])
            os.close(acknowledged[0])
    if recorder.returncode not in (0, -signal.SIGINT):
        raise RuntimeError(f"perf record: {said.strip()}")


def _stacks(perf: str, data: Path) -> Iterator[tuple[str, ...]]:
    """The functions of each sample, the innermost first."""
    command = [perf, "script", "-i", str(data), "-F", "ip,sym,dso", "--no-inline"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"perf script: {done.stderr.strip()}")
    samples = [[_entry(line) for line in block.splitlines() if line.strip()] for block in done.stdout.split("\n\n")]
    samples = [sample for sample in samples if sample]
    module = str(_fastpath.__file__)
    inlined = _inlined(
        module, sorted({address for sample in samples for address, _, where in sample if where == module})
    )
    for sample in samples:
        names: list[str] = []
        for address, name, where in sample:
            # Without frame pointers what lies behind the first function outside of the kernel is made up.
            if where == "[unknown]":
                break
            names += inlined[address] if where == module else [name]
            if where != "[kernel.kallsyms]":
                break
        if names:
            yield tuple(names)


def _entry(line: str) -> tuple[str, str, str]:
    """Address, function and file of one line."""
    address, _, rest = line.strip().partition(" ")
    name, _, where = rest.rpartition(" (")
    return address, name, where.removesuffix(")")


def _inlined(module: str, addresses: list[str]) -> dict[str, list[str]]:
    """All functions at each address of the compiled module, the innermost first."""
    if not addresses:
        return {}
    command = ["addr2line", "--inlines", "--functions", "--addresses", "-e", module]
    done = subprocess.run(command, input="\n".join(addresses), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"addr2line: {done.stderr.strip()}")
    found: list[list[str]] = []
    lines = iter(done.stdout.splitlines())
    for line in lines:
        if line.startswith("0x"):
            found.append([])
        else:
            found[-1].append(line.removeprefix(_OWN))
            next(lines)  # its file and line
    return dict(zip(addresses, found, strict=True))


def _account(threads: list[int], run: Callable[[], object]) -> Stages:
    """The kernel's account: its own time for the threads, and theirs."""
    before = [_times(thread) for thread in threads]
    run()
    after = [_times(thread) for thread in threads]
    own = sum(b[0] - a[0] for a, b in zip(before, after, strict=True))
    kernel = sum(b[1] - a[1] for a, b in zip(before, after, strict=True))
    total = max(1, own + kernel)
    return Stages({"receive, send, wait": kernel / total, "parse, unmask, look up, queue": own / total}, 0, {}, None)


def _times(thread: int) -> tuple[int, int]:
    """Ticks in the program and in the kernel."""
    fields = Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]), int(fields[12])
