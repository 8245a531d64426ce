"""Leases by themselves: what is known of a device, in which order they end, and what is noted for the store."""

import pytest

from candy.protocol.hello import Hello
from candy.relay import leases as module
from candy.relay.leases import (
    DAY_S,
    LEASES_PER_VMAC,
    SEEN_S,
    Lease,
    LeaseRow,
    Leases,
    Traffic,
    fresh_number,
    shown_vmac,
)

ONE, TWO = b"1" * 16, b"2" * 16
HOME = "203.0.113.1"


def leases_of(*ips: int, limit: int = 100) -> Leases:
    """Of as many devices that have left; the first one was seen longest ago."""
    leases = Leases(limit=limit)
    for ip in ips:
        leases.wall += 1
        assert leases.claim(ip, bytes([ip]) * 16, HOME) is not None
        leases.left(ip)
    return leases


def claimed(leases: Leases, ip: int, vmac: bytes = ONE, source: str = HOME) -> Lease:
    lease = leases.claim(ip, vmac, source)
    assert lease is not None
    return lease


def row(ip: int, vmac: bytes = ONE, *, seen: int = 1000, name: str = "vm") -> LeaseRow:
    return LeaseRow(ip, vmac, name, "linux", "6.1", 500, seen, HOME, 1, 2, 3, 4)


def test_what_is_known_of_a_device() -> None:
    leases = Leases()
    leases.wall = 1000
    lease = claimed(leases, 7)
    leases.tell(lease, Hello("linux", "6.1", "vm"))
    leases.carry(lease, Traffic(1, 2, 3, 4), Traffic())
    leases.wall = 1500
    leases.left(7)
    used = b"", 1970 * 12, 6
    assert lease.row() == LeaseRow(7, ONE, "vm", "linux", "6.1", 1000, 1500, HOME, 1, 2, 3, 4, *used)
    leases.wall = 2000
    assert claimed(leases, 7, source="203.0.113.2") is lease
    assert lease.row() == LeaseRow(7, ONE, "vm", "linux", "6.1", 1000, 2000, "203.0.113.2", 1, 2, 3, 4, *used)


def test_traffic_of_several_connections_adds_up() -> None:
    leases = Leases()
    lease = claimed(leases, 7)
    leases.carry(lease, Traffic(1, 10, 2, 20), Traffic())
    leases.carry(lease, Traffic(3, 30, 2, 20), Traffic(1, 10, 2, 20))
    leases.carry(lease, Traffic(5, 50, 0, 0), Traffic())
    assert lease.traffic == Traffic(8, 80, 2, 20)


@pytest.mark.parametrize("traffic", [Traffic(), Traffic(1, 2, 3, 2**63)])
def test_traffic_is_packed_and_unpacked(traffic: Traffic) -> None:
    assert Traffic.unpacked(traffic.packed()) == traffic


def test_what_a_device_says_again_is_in_memory_once() -> None:
    """After a restart each device says what its lease has already."""
    leases = Leases()
    leases.wall = 1000
    leases.restore([row(7)])
    lease = claimed(leases, 7)
    assert leases.tell(lease, Hello("linux", "6.1", "vm")) is lease.hello
    changed = Hello("linux", "6.2", "vm")
    assert leases.tell(lease, changed) is lease.hello is changed


def test_changes_are_told_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHANGES_MOST", 2)
    leases = leases_of(1, 2, 3)
    told = [leases.changes(), leases.changes()]
    assert [len(changes) for changes in told] == [2, 1]
    assert told[0].keys() | told[1].keys() == {1, 2, 3}
    assert leases.changes() == {}


def test_another_device_begins_anew() -> None:
    leases = Leases()
    old = claimed(leases, 7)
    leases.tell(old, Hello("linux", "6.1", "vm"))
    leases.left(7)
    new = claimed(leases, 7, TWO)
    assert new is not old
    assert new.hello == Hello()
    assert list(leases.of(ONE)) == []
    # What is told of the old one afterwards changes nothing.
    leases.changes()
    leases.carry(old, Traffic(1, 1, 1, 1), Traffic())
    assert leases.changes() == {}
    assert new.traffic == Traffic()


def test_a_further_address_of_a_vmac_has_its_name_already() -> None:
    leases = Leases()
    leases.tell(claimed(leases, 7), Hello("linux", "6.1", "vm"))
    assert claimed(leases, 8).hello.name == "vm"
    assert [lease.ip for lease in leases.of(ONE)] == [8, 7]
    claimed(leases, 7)
    assert [lease.ip for lease in leases.of(ONE)] == [7, 8]


def test_who_has_no_vmac_has_no_lease_and_ends_that_of_another() -> None:
    leases = leases_of(7)
    assert leases.claim(7, None, HOME) is None
    assert len(leases) == 0


def test_at_the_limit_who_was_seen_longest_ago_is_forgotten() -> None:
    leases = leases_of(1, 2, limit=2)
    claimed(leases, 1, b"\1" * 16)
    claimed(leases, 3)
    assert {lease.ip for lease in leases} == {1, 3}
    # All are connected: nobody's lease ends for a newcomer.
    assert leases.claim(4, TWO, HOME) is None
    assert {lease.ip for lease in leases} == {1, 3}


def test_of_one_vmac_the_one_that_was_claimed_longest_ago_goes_first() -> None:
    leases = Leases()
    for ip in range(1, LEASES_PER_VMAC + 1):
        claimed(leases, ip)
    claimed(leases, 100, TWO)
    # All are connected.
    assert leases.claim(101, ONE, HOME) is None
    for ip in (9, 5):
        leases.left(ip)
    claimed(leases, 101)
    assert leases.get(5) is None
    assert [lease.ip for lease in leases.of(ONE)][:3] == [101, LEASES_PER_VMAC, LEASES_PER_VMAC - 1]
    assert len(leases) == LEASES_PER_VMAC + 1


def test_leases_end_in_the_order_in_which_their_devices_were_seen() -> None:
    leases = leases_of(1, 2, 3)
    claimed(leases, 1, b"\1" * 16)
    leases.wall = 10
    leases.left(1)
    assert [lease.ip for lease in leases.idle()] == [2, 3, 1]
    leases.wall = 3 + 30 * DAY_S
    leases.expire()
    assert [lease.ip for lease in leases.idle()] == [3, 1]
    leases.wall = 11 + 30 * DAY_S
    leases.expire()
    assert list(leases) == []


def test_a_connected_device_s_lease_does_not_end() -> None:
    leases = Leases()
    claimed(leases, 7)
    leases.wall = 1000 * DAY_S
    leases.expire()
    assert len(leases) == 1


def test_each_change_is_told_once() -> None:
    leases = Leases()
    leases.wall = 1000
    lease = claimed(leases, 7)
    assert leases.changes() == {7: lease.row()}
    assert leases.changes() == {}
    leases.tell(lease, Hello("linux", "6.1", "vm"))
    leases.tell(lease, Hello("linux", "6.1", "vm"))
    assert leases.changes() == {7: lease.row()}
    leases.carry(lease, Traffic(), Traffic())
    assert leases.changes() == {}
    leases.left(7)
    leases.end(7)
    assert leases.changes() == {7: None}
    assert leases.rows() == {}


def test_a_connected_device_is_seen_every_hour() -> None:
    """Else a relay that is killed would know it as one that was not seen for as long as it was connected."""
    leases = Leases()
    lease = claimed(leases, 7)
    leases.changes()
    leases.wall = SEEN_S - 1
    leases.carry(lease, Traffic(), Traffic())
    assert leases.changes() == {}
    leases.wall = SEEN_S
    leases.carry(lease, Traffic(), Traffic())
    assert leases.changes() == {7: lease.row()}
    assert lease.last_seen == SEEN_S


def test_more_changes_than_leases_are_not_noted_one_by_one() -> None:
    leases = leases_of(*range(1, 6), limit=2)
    assert leases.has_lost_count
    assert leases.rows().keys() == {4, 5}
    assert not leases.has_lost_count


def test_what_was_kept_comes_back_in_the_order_in_which_it_was_seen() -> None:
    leases = Leases()
    leases.wall = 2000
    leases.restore([row(2, TWO, seen=1000), row(3, seen=1400), row(1, seen=1500)])
    assert [lease.ip for lease in leases.idle()] == [2, 3, 1]
    assert [lease.ip for lease in leases.of(ONE)] == [1, 3]
    assert leases.hello_of(TWO) == Hello("linux", "6.1", "vm")
    assert leases.rows() == {1: row(1, seen=1500), 2: row(2, TWO, seen=1000), 3: row(3, seen=1400)}
    assert leases.changes() == {}


def test_what_was_kept_in_another_order_ends_in_this_one_as_well() -> None:
    leases = Leases()
    leases.restore([row(1, seen=1500), row(2, seen=1000), row(3, seen=1400)])
    assert [lease.ip for lease in leases.idle()] == [2, 3, 1]


def test_what_has_happened_since_counts_more_than_what_was_kept() -> None:
    leases = Leases()
    leases.wall = 2000
    lease = claimed(leases, 1, TWO)
    leases.restore([row(1), row(2)])
    assert leases.get(1) is lease
    assert {lease.ip for lease in leases.idle()} == {2}


def test_what_was_kept_for_too_long_ends_and_is_told() -> None:
    leases = Leases()
    leases.wall = 1001 + 30 * DAY_S
    leases.restore([row(1, seen=1000), row(2, seen=1001)])
    assert leases.changes() == {1: None}


def test_no_more_are_taken_back_than_the_limit() -> None:
    leases = Leases(limit=2)
    leases.restore([row(ip, seen=ip) for ip in (3, 1, 2)])
    assert {lease.ip for lease in leases} == {2, 3}


@pytest.mark.parametrize(("vmac", "shown"), [(ONE, "1" * 16), (b"\x00\xff\n" + b"a" * 13, r"\x00\xff\n" + "a" * 13)])
def test_a_vmac_is_shown_in_ascii(vmac: bytes, shown: str) -> None:
    assert shown_vmac(vmac) == shown


def test_the_log_names_a_device_by_its_name_else_by_its_vmac() -> None:
    leases = Leases()
    lease = claimed(leases, 7)
    assert lease.device == f"the VMAC {'1' * 16}"
    leases.tell(lease, Hello("linux", "6.1", "vm"))
    assert lease.device == "'vm'"


def test_a_lease_has_a_number_once_it_was_told() -> None:
    leases = Leases()
    lease = leases.claim(7, ONE, "")
    assert lease is not None
    leases.changes()
    first, second = b"1" * 8, b"2" * 8
    assert leases.number(lease, first) == leases.number(lease, second) == first
    [row] = leases.changes().values()
    assert row is not None
    later = Leases()
    later.wall = row.last_seen
    later.restore([row])
    kept = later.get(7)
    assert kept is not None
    assert later.number(kept, second) == first
    # Another device, or the same one later, has another.
    leases.end(7)
    again = leases.claim(7, ONE, "")
    assert again is not None
    assert leases.number(again, second) == second


def test_no_number_is_0() -> None:
    assert fresh_number(bytes) == bytes(7) + b"\1"
    assert fresh_number(lambda count: b"\xff" * count) == bytes(7) + b"\1"
    assert fresh_number(lambda count: b"\5" * count) == b"\5" * 7 + b"\6"


def test_a_key_is_shown_as_its_fingerprint() -> None:
    lease = Leases().claim(7, bytes(32), "")
    assert lease is not None
    assert lease.device == "the key 6668 7aad f862 bd77 6c8f c18b 8e9f 8e20"
