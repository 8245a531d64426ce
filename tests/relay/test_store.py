"""The store on real files: what is written is read, whatever happens to the file."""

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from candy.relay import store as module
from candy.relay.enrolment import Device, Invitation, Standing
from candy.relay.leases import LeaseRow
from candy.relay.register import Kept
from candy.relay.reservations import Reservation
from candy.relay.store import DAMAGED_MAX, FILE, SCHEMA, Store, StoreError

ONE = b"1" * 16


def row(ip: int, *, name: str = "vm") -> LeaseRow:
    return LeaseRow(ip, ONE, name, "linux", "6.1", 500, 1000, "203.0.113.1", 1, 2, 3, 2**62, bytes([ip]) * 8)


def device(key: int, **others: Any) -> Device:
    given = {
        "addresses": None,
        "has_come": False,
        "standing": Standing.WAITING,
        "invitation": b"",
        "knows": bytes([key]) * 16,
    } | others
    return Device(
        bytes([key]) * 32, 2**63 - 1, bytes([key]) * 16, bytes(32), name="vm", by="office", since=1000, **given
    )


def invitation(selector: int, addresses: str | None = None) -> Invitation:
    network = None if addresses is None else IPv4Network(addresses)
    return Invitation(bytes([selector]) * 16, bytes(32), "Jürgens", network, 3, 5000, 1)


def kept(*ips: int) -> Kept:
    """All kinds of what is kept; a digest and a device for each lease."""
    reservations = {9: Reservation(IPv4Address(9), ONE), 10: Reservation(IPv4Address(10), name="Jürgens Büro")}
    reservations[11] = Reservation(IPv4Address(11), key="0123456789abcdef" * 2)
    whole = Kept({ip: row(ip) for ip in ips}, {**reservations}, [(100, bytes([ip]) * 32) for ip in ips], 100, 99)
    whole.devices = {bytes([ip]) * 32: device(ip) for ip in ips}
    whole.invitations = {bytes([5]) * 16: invitation(5), bytes([6]) * 16: invitation(6, "10.0.0.0/28")}
    return whole


def written(folder: Path, *batches: dict[str, Kept]) -> None:
    store = Store(folder)
    store.open()
    for batch in batches:
        store.write(batch)
    store.close()


def read(folder: Path) -> dict[str, Kept]:
    store = Store(folder)
    try:
        return store.open()
    finally:
        store.close()


def same(one: Kept, other: Kept) -> bool:
    """Which digests need not be kept is not kept."""

    def all_of(its: Kept) -> tuple[object, ...]:
        return (its.leases, its.reservations, its.devices, its.invitations, sorted(its.digests), its.forgotten)

    return all_of(one) == all_of(other)


def failure(folder: Path) -> StoreError:
    store = Store(folder)
    with pytest.raises(StoreError) as caught:
        store.open()
    store.close()
    assert "\n" not in str(caught.value)
    return caught.value


# Written and read


def test_what_is_written_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "candy"
    assert read(folder) == {}
    written(folder, {"/": kept(1, 2), "/home": kept(2)})
    found = read(folder)
    assert found.keys() == {"/", "/home"}
    assert same(found["/"], kept(1, 2))
    assert same(found["/home"], kept(2))


def test_only_the_owner_reads_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "new")
    store.open()
    store.write({"/": kept(1)})
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new").iterdir()}
    store.close()
    assert modes.keys() >= {FILE, f"{FILE}-wal"}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_a_device_that_is_forgotten_is_gone(tmp_path: Path) -> None:
    change = Kept()
    [key] = kept(1).devices
    change.devices = {key: None}
    written(tmp_path, {"/": kept(1), "/home": kept(1)}, {"/": change})
    found = read(tmp_path)
    assert (found["/"].devices, found["/home"].devices) == ({}, kept(1).devices)


def test_a_change_changes_what_it_names_alone(tmp_path: Path) -> None:
    change = Kept({1: None, 2: row(2, name="new"), 7: None}, {9: None}, [(101, b"n" * 32)], 101, 100)
    written(tmp_path, {"/": kept(1, 2, 3), "/home": kept(1)}, {"/": change})
    found = read(tmp_path)
    reservations = {at: kept().reservations[at] for at in (10, 11)}
    expected = Kept({2: row(2, name="new"), 3: row(3)}, reservations, [(101, b"n" * 32)], 0, 100)
    expected.devices, expected.invitations = kept(1, 2, 3).devices, kept().invitations
    assert same(found["/"], expected)
    assert same(found["/home"], kept(1))


def test_the_whole_replaces_what_there_was_of_its_network(tmp_path: Path) -> None:
    whole = Kept({5: row(5)}, {}, [], 100, 99, is_whole=True)
    written(tmp_path, {"/": kept(1, 2), "/home": kept(1)}, {"/": whole})
    found = read(tmp_path)
    assert same(found["/"], whole)
    assert same(found["/home"], kept(1))


def test_devices_and_invitations_change(tmp_path: Path) -> None:
    revoked = device(1, standing=Standing.REVOKED, has_come=True, addresses=IPv4Network("10.0.0.0/24"))
    change = Kept(devices={revoked.key: revoked}, invitations={bytes([5]) * 16: None, bytes([7]) * 16: invitation(7)})
    written(tmp_path, {"/": kept(1, 2), "/home": kept(1)}, {"/": change})
    found = read(tmp_path)
    assert found["/"].devices == {revoked.key: revoked, bytes([2]) * 32: device(2)}
    assert found["/"].invitations == {bytes([7]) * 16: invitation(7), bytes([6]) * 16: invitation(6, "10.0.0.0/28")}
    assert same(found["/home"], kept(1))


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE device SET secret = x'00'",
        "UPDATE device SET key = x'00'",
        "UPDATE device SET standing = 9",
        "UPDATE device SET addresses = 'here'",
        "UPDATE device SET name = NULL",
        "UPDATE invitation SET selector = x'00' WHERE name = 'Jürgens' AND addresses = ''",
        "UPDATE invitation SET uses = 'many'",
        "UPDATE lease SET number = 7",
    ],
)
def test_values_that_none_has_are_damage(tmp_path: Path, damage: str) -> None:
    written(tmp_path, {"/": kept(1)})
    with closing(sqlite3.connect(tmp_path / FILE)) as database, database:
        database.execute(damage)
    assert read(tmp_path) == {}
    assert (tmp_path / f"{FILE}.damaged-1").exists()


def test_a_file_of_before_there_were_keys_is_read(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / FILE)) as database, database:
        for statement in module.MIGRATIONS[0]:
            database.execute(statement)
        values = ("/", *row(1)[:12])
        database.execute(f"INSERT INTO lease VALUES (?{', ?' * (len(values) - 1)})", values)
        database.execute("PRAGMA user_version = 1")
    found = read(tmp_path)
    assert found["/"].leases == {1: row(1)._replace(number=b"")}
    assert found["/"].devices == {}
    written(tmp_path, {"/": kept(1)})
    assert same(read(tmp_path)["/"], kept(1))


def test_killed_at_any_moment_it_has_what_was_written(tmp_path: Path) -> None:
    program = (
        "import os, sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path; from test_store import *\n"
        "store = Store(Path(sys.argv[1])); store.open(); store.write({'/': kept(1, 2)})\n"
        "store._database.execute('BEGIN IMMEDIATE'); module._write(store._database, '/', kept(3))\n"
        "os.kill(os.getpid(), 9)"
    )
    python = [sys.executable, "-c", program, str(tmp_path), str(Path(__file__).parent)]
    assert subprocess.run(python, env={"PYTHONPATH": os.pathsep.join(sys.path)}, check=False).returncode == -9
    assert same(read(tmp_path)["/"], kept(1, 2))


# A file that can't be used


def test_a_newer_file_is_left_as_it_is(tmp_path: Path) -> None:
    written(tmp_path, {"/": kept(1)})
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    database.close()
    before = (tmp_path / FILE).read_bytes()
    assert "is a newer candy's: use that, or move the file away" in str(failure(tmp_path))
    assert (tmp_path / FILE).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_an_older_file_is_brought_up_to_date_and_keeps_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, {"/": kept(1)})
    monkeypatch.setattr(module, "MIGRATIONS", (*module.MIGRATIONS, ("CREATE TABLE later (x INTEGER)",)))
    monkeypatch.setattr(module, "SCHEMA", SCHEMA + 1)
    assert same(read(tmp_path)["/"], kept(1))
    assert same(read(tmp_path)["/"], kept(1))
    with sqlite3.connect(tmp_path / FILE) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA + 1,)
        assert database.execute("SELECT * FROM later").fetchall() == []
    database.close()


def test_while_another_process_has_it_it_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_S", 0.01)
    first = Store(tmp_path)
    first.open()
    first.write({"/": kept(1)})
    assert "is in use by another program: give each relay a state folder of its own" in str(failure(tmp_path))
    first.close()
    assert same(read(tmp_path)["/"], kept(1))


def test_a_folder_that_can_t_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "can't be written: Not a directory: give this user access" in str(failure(tmp_path / "file" / "state"))


def spoilt_header(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 500)


def spoilt_page(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def other_tables(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("ALTER TABLE lease RENAME TO something")
    database.close()


def wrong_values(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("UPDATE lease SET name = x'00ff'")
    database.commit()
    database.close()


def less_than_nothing(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("UPDATE lease SET bytes_in = -1")
    database.commit()
    database.close()


DAMAGES = [spoilt_header, spoilt_page, cut_short, other_tables, wrong_values, less_than_nothing]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_set_aside_and_a_new_one_begun(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    written(tmp_path, {"/": kept(*range(1, 200))})
    damage(tmp_path / FILE)
    damaged = (tmp_path / FILE).read_bytes()
    store = Store(tmp_path)
    assert store.open() == {}
    [line] = caplog.messages
    assert "is damaged" in line
    assert f"it is {FILE}.damaged-1 now, and a new one is begun" in line
    assert (tmp_path / f"{FILE}.damaged-1").read_bytes() == damaged
    store.write({"/": kept(1)})
    store.close()
    assert same(read(tmp_path)["/"], kept(1))


def test_no_damaged_file_is_overwritten(tmp_path: Path) -> None:
    for number in range(1, DAMAGED_MAX + 1):
        (tmp_path / FILE).write_text(f"damaged {number}" * 500)
        assert read(tmp_path) == {}
    contents = [(tmp_path / f"{FILE}.damaged-{number}").read_text() for number in range(1, DAMAGED_MAX + 1)]
    assert contents == [f"damaged {number}" * 500 for number in range(1, DAMAGED_MAX + 1)]
    (tmp_path / FILE).write_text("one too many" * 500)
    assert "look after the disk, and remove them" in str(failure(tmp_path))
    assert (tmp_path / FILE).read_text() == "one too many" * 500


def test_a_full_file_keeps_what_it_had_and_takes_more_later(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open()
    store.write({"/": kept(1)})
    assert store._database is not None
    store._database.execute("PRAGMA max_page_count = 12")
    with pytest.raises(StoreError, match="no space is left: make room"):
        store.write({"/": kept(*range(1, 256))})
    store.close()
    assert same(store.open()["/"], kept(1))
    store.write({"/": kept(2)})
    store.close()
    assert same(read(tmp_path)["/"], kept(1, 2))


def test_what_leases_have_in_common_is_in_memory_once(tmp_path: Path) -> None:
    written(tmp_path, {"/": Kept({7: row(7), 8: row(8)})})
    one, other = read(tmp_path)["/"].leases.values()
    assert one is not None
    assert other is not None
    assert (one.os, one.version, one.source) == ("linux", "6.1", "203.0.113.1")
    for name in ("os", "version", "source", "first_seen", "last_seen"):
        assert getattr(one, name) is getattr(other, name)
