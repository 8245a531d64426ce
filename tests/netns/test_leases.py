"""Leases with programs in namespaces: a device comes back after the relay did, and a state folder that fails."""

import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from lab.laboratory import Laboratory
from lab.member import Member
from lab.programs import PATIENCE_S, Program, RelayProgram, environment, server

pytestmark = pytest.mark.netns


def test_a_device_without_a_memory_gets_its_address_from_a_relay_that_was_killed(laboratory: Laboratory) -> None:
    relay = laboratory.relay()
    first = laboratory.client()
    address = first.connected()
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    # Its key is all that is left of it, and its VMAC.
    (laboratory.state(first.host) / "address" / "__noname__").unlink()
    relay.wait_for(rf"{address} logged out")
    relay.signal(signal.SIGTERM)
    assert relay.wait() == 0
    relay = laboratory.relay()
    assert laboratory.client().connected() != address
    relay.signal(signal.SIGKILL)
    relay.wait()
    laboratory.relay()
    assert laboratory.client(host=first.host).connected() == address


class Mounted(Program):
    """A relay whose state folder is mounted for it alone.

    Args:
        mount: the shell's words for that; $0 is the folder.
    """

    def __init__(self, state: Path, mount: str) -> None:
        self.state = state
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", f'{mount} && exec "$@"', str(state)]
        super().__init__("relay", [*argv, *server("-w", "ws://127.0.0.1:0", "--debug")], environment(state))
        self.address = ("127.0.0.1", int(self.wait_for(r"listening on 127\.0\.0\.1:(\d+)")[1]))

    def within(self, words: str) -> None:
        """Run a shell that sees what is mounted."""
        enter = ["nsenter", "--mount", "--target", str(self.pid), "sh", "-c", words, str(self.state)]
        subprocess.run(enter, check=True, capture_output=True, timeout=PATIENCE_S)


def log_in(address: tuple[str, int], last: int, vmac: bytes | None = None) -> None:
    with Member.connect(address, vmac=vmac) as member:
        member.send(member.greeting())
        member.log_in(f"192.168.202.{last}")


def warnings(relay: Program) -> int:
    """About leases."""
    return sum("WARNING leases" in line for line in relay.lines)


def test_a_full_disk_costs_one_warning_until_there_is_room(tmp_path: Path, stack: ExitStack) -> None:
    relay = stack.enter_context(Mounted(tmp_path, 'mount -t tmpfs -o size=256k none "$0"'))
    log_in(relay.address, 1)
    relay.within('dd if=/dev/zero of="$0/fill" bs=1k || :')
    # SQLite may have some room left.
    for last in range(2, 60):
        log_in(relay.address, last)
    relay.wait_for("WARNING leases are in memory alone: .*can't be written: no space is left: make room$")
    log_in(relay.address, 60)
    relay.within('rm "$0/fill"')
    relay.wait_for("INFO leases are written again$")
    assert warnings(relay) == 1


def test_a_read_only_folder_is_read_and_written_once_that_works(tmp_path: Path, stack: ExitStack) -> None:
    vmac = b"00000000feedbeef"
    with RelayProgram(tmp_path) as before:
        log_in(before.address, 9, vmac)
    read_only = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"'
    relay = stack.enter_context(Mounted(tmp_path, read_only))
    relay.wait_for(
        "WARNING leases are in memory alone: .*can't be written: Read-only file system: give this user access"
    )
    with Member.connect(relay.address, vmac=vmac) as member:
        member.send(member.greeting())
        assert str(member.ask().ip) == "192.168.202.9"
    relay.within('mount -o remount,bind,rw "$0"')
    relay.wait_for("INFO leases are written again$")
    assert warnings(relay) == 1
