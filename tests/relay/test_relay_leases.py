"""Leases of a relay as users start it: what a restart leaves as it was, however the relay ended, and what a reload
changes."""

import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing
from ipaddress import IPv4Address
from pathlib import Path

from kit.peer import PING
from lab.member import Member, packet
from lab.programs import PASSWORD, PATIENCE_S, RelayProgram

from candy.relay.store import FILE

VMAC = b"00000000feedbeef"
HELLO = b"candy::linux::6.1::laptop"


def written(state: Path, text: bytes) -> None:
    """Wait until this stands in the store, which is locked for who reads it as such."""
    deadline = time.monotonic() + PATIENCE_S
    files = state / FILE, state / f"{FILE}-wal"
    while not any(text in file.read_bytes() for file in files if file.exists()):
        assert time.monotonic() < deadline, f"{text!r} was not written"
        time.sleep(0.01)


def leases(state: Path) -> list[tuple[str, str, str, int, int]]:
    """Network, address, name, and packets both ways, once the relay has ended."""
    with closing(sqlite3.connect(state / FILE)) as database:
        rows = database.execute("SELECT network, ip, name, packets_in, packets_out FROM lease ORDER BY network, ip")
        return [(network, str(IPv4Address(ip)), *rest) for network, ip, *rest in rows]


def granted(relay: RelayProgram, vmac: bytes, cidr: str = "0.0.0.0/0") -> str:
    with Member.connect(relay.address, vmac=vmac) as member:
        member.send(member.greeting())
        return str(member.ask(cidr).ip)


def test_an_address_stays_with_its_device_when_the_relay_is_killed(tmp_path: Path) -> None:
    with RelayProgram(tmp_path) as relay, Member.connect(relay.address, vmac=VMAC) as member:
        member.send(member.greeting())
        member.log_in("192.168.202.9")
        member.send(HELLO, PING)
        written(tmp_path, b"laptop")
        relay.signal(signal.SIGKILL)
        relay.wait()
    with RelayProgram(tmp_path) as relay:
        assert granted(relay, b"%016x" % 1, "192.168.202.9/24") == "192.168.202.1"
        assert granted(relay, VMAC) == "192.168.202.9"
    [lease] = leases(tmp_path)
    assert lease[:3] == ("/", "192.168.202.9", "laptop")


def test_a_recorded_log_in_does_not_work_again_after_a_restart(tmp_path: Path) -> None:
    with RelayProgram(tmp_path) as relay, Member.connect(relay.address, vmac=VMAC) as member:
        recorded = member.auth("192.168.202.9")
        member.send(recorded)
        member.ip = IPv4Address("192.168.202.9")
        member.settle()
    with RelayProgram(tmp_path) as relay, Member.connect(relay.address, vmac=VMAC) as member:
        member.send(recorded)
        member.end()
        relay.wait_for(r"AUTH for 192\.168\.202\.9 is a replay")


def test_what_a_device_carried_is_added_up(tmp_path: Path) -> None:
    carried: Counter[str] = Counter()
    for packets in (3, 4):
        with RelayProgram(tmp_path) as relay:
            with Member.connect(relay.address, vmac=VMAC) as member:
                member.send(member.greeting())
                # So that the second one is no replay.
                member.log_in("192.168.202.9", int(time.time()) + packets)
                for _ in range(packets):
                    member.forward(packet("192.168.202.9", "192.168.202.9"))
                    member.receive_packet()
            relay.wait_for(r"192\.168\.202\.9 logged out")
            carried += relay.counters()
    assert carried["packets_in"] >= 7
    assert leases(tmp_path) == [("/", "192.168.202.9", "", carried["packets_in"], carried["packets_out"])]


def test_a_relay_without_a_state_folder_goes_on_and_says_so_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with RelayProgram(tmp_path / "file" / "state") as relay:
        line = relay.wait_for(r"WARNING leases are in memory alone: .*leases\.db can't be written: Not a directory: ")
        assert "give this user access, or set CANDY_STATE_DIR to a folder" in line.string
        with Member.connect(relay.address, vmac=VMAC) as member:
            member.send(member.greeting())
            member.log_in("192.168.202.9")
        assert granted(relay, b"%016x" % 1, "192.168.202.9/24") != "192.168.202.9"


def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"damaged" * 1000)
    with RelayProgram(tmp_path) as relay:
        relay.wait_for(r"WARNING .*leases\.db is damaged .*: it is leases\.db\.damaged-1 now, and a new one is begun$")
        with Member.connect(relay.address, vmac=VMAC) as member:
            member.send(member.greeting())
            member.log_in("192.168.202.9")
    assert [lease[1] for lease in leases(tmp_path)] == ["192.168.202.9"]
    assert (tmp_path / f"{FILE}.damaged-1").read_bytes() == b"damaged" * 1000


def test_two_relays_can_t_share_a_file_and_both_go_on(tmp_path: Path) -> None:
    with RelayProgram(tmp_path) as relay, RelayProgram(tmp_path) as other:
        other.wait_for(r"WARNING leases are in memory alone: .* is in use by another program: give each relay a state")
        for one in (relay, other):
            with Member.connect(one.address, vmac=VMAC) as member:
                member.send(member.greeting())
                member.log_in("192.168.202.9")


def test_reservations_of_the_file_count_from_its_reload_on(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"

    def write(*reservations: str) -> None:
        file.write_text(f'dhcp = "192.168.202.0/24"\nlease_days = 1\nreserve = {list(reservations)}\n')

    write("192.168.202.50=vmac:" + VMAC.decode())
    with RelayProgram(tmp_path, "-c", str(file)) as relay:
        assert granted(relay, VMAC) == "192.168.202.50"
        assert granted(relay, b"%016x" % 1, "192.168.202.50/24") == "192.168.202.1"
        with Member.connect(relay.address, extended=True, vmac=VMAC) as member:
            member.send(member.greeting())
            member.log_in(str(member.ask().ip))
            write("192.168.202.50=nobody", "192.168.202.60=vmac:" + VMAC.decode())
            relay.signal(signal.SIGHUP)
            assert member.end() == 1012
        assert granted(relay, VMAC, "192.168.202.50/24") == "192.168.202.60"
        assert PASSWORD not in "\n".join(relay.lines)
        assert not any("needs a restart" in line for line in relay.lines)
