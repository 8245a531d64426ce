"""The file in which the networks' memory outlives the relay: SQLite, with a write-ahead log.

    leases.db          in the state folder; leases.db-wal and -shm are SQLite's own
    leases.db.damaged-1    a damaged one, set aside; up to DAMAGED_MAX of them

Rules:
 1. open() leaves a file of a newer candy as it is, and moves a damaged one aside: neither is ever overwritten.
 2. A write is one transaction. What is written stays when the process is killed; when the machine fails, the last
    seconds may be lost, and no more.
 3. One process uses the file at a time: SQLite's lock is kept from open() to close().
 4. Every failure is a StoreError of one line that says how to mend it. Then close() and open() again.

All calls come from one thread, which is not the relay's (candy.relay.keeper): a disk may take long. What the rows mean
candy.relay.register knows.
"""

import logging
import os
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import fields
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from candy.errors import CandyError
from candy.protocol.keys import SECRET_BYTES, SELECTOR_BYTES
from candy.protocol.noise import KEY_BYTES
from candy.relay.enrolment import Device, Invitation, Standing
from candy.relay.leases import AS_NETWORK, LeaseRow
from candy.relay.register import Kept
from candy.relay.reservations import Reservation

FILE = "leases.db"
DAMAGED_MAX = 9
LOCK_S = 1.0
"""How long another program may hold the file."""
CACHE_KB = 256
"""Of pages: what is read is read once, and what is written is written once."""
IP_MAX = 2**32 - 1

MIGRATIONS = (
    (
        "CREATE TABLE lease (network TEXT, ip INTEGER, vmac BLOB, name TEXT, os TEXT, version TEXT,"
        " first_seen INTEGER, last_seen INTEGER, source TEXT,"
        " packets_in INTEGER, bytes_in INTEGER, packets_out INTEGER, bytes_out INTEGER,"
        " PRIMARY KEY (network, ip)) WITHOUT ROWID",
        "CREATE TABLE reservation (network TEXT, ip INTEGER, vmac BLOB, name TEXT,"
        " PRIMARY KEY (network, ip)) WITHOUT ROWID",
        "CREATE TABLE login (network TEXT, timestamp INTEGER, digest BLOB,"
        " PRIMARY KEY (network, timestamp, digest)) WITHOUT ROWID",
        "CREATE TABLE forgotten (network TEXT PRIMARY KEY, timestamp INTEGER) WITHOUT ROWID",
    ),
    (
        "ALTER TABLE lease ADD COLUMN number BLOB NOT NULL DEFAULT x''",
        "CREATE TABLE device (network TEXT, key BLOB, number INTEGER, selector BLOB, secret BLOB, standing INTEGER,"
        " name TEXT, by TEXT, invitation BLOB, addresses TEXT, since INTEGER, has_come INTEGER,"
        " PRIMARY KEY (network, key)) WITHOUT ROWID",
        "CREATE TABLE invitation (network TEXT, selector BLOB, secret BLOB, name TEXT, addresses TEXT, uses INTEGER,"
        " until INTEGER, used INTEGER, PRIMARY KEY (network, selector)) WITHOUT ROWID",
        "ALTER TABLE reservation ADD COLUMN key TEXT NOT NULL DEFAULT ''",
    ),
    (
        "ALTER TABLE lease ADD COLUMN month INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE lease ADD COLUMN used INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE lease ADD COLUMN limit_down INTEGER NOT NULL DEFAULT -1",
        "ALTER TABLE lease ADD COLUMN limit_up INTEGER NOT NULL DEFAULT -1",
        "ALTER TABLE lease ADD COLUMN quota INTEGER NOT NULL DEFAULT -1",
    ),
    ("ALTER TABLE device ADD COLUMN knows BLOB NOT NULL DEFAULT x''",),
)
"""What makes a file of each version from one of the version before. A file's version is its user_version."""
SCHEMA = len(MIGRATIONS)
TABLES = ("lease", "reservation", "device", "invitation", "login")
"""What a network has rows of, and `forgotten`."""
_LEASE_TYPES = (int, bytes, str, str, str, int, int, str, int, int, int, int, bytes, int, int, int, int, int)
_DEVICE_TYPES = (bytes, int, bytes, bytes, int, str, str, bytes, str, int, int, bytes)
_INVITATION_TYPES = (bytes, bytes, str, str, int, int, int)

log = logging.getLogger("candy.relay")


class StoreError(CandyError):
    """The file can't be used; one line that says how to mend it. `kept` is what could be read of it all the same."""

    def __init__(self, text: str, kept: dict[str, Kept] | None = None) -> None:
        super().__init__(text)
        self.kept = kept


class _DamagedError(Exception):
    pass


class Store:
    """See the rules above."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / FILE
        self._database: sqlite3.Connection | None = None

    def open(self) -> dict[str, Kept]:
        """Open the file, or make one; returns all that is in it, by network.

        Raises:
            StoreError: it can't be read or written, or a newer candy made it.
        """
        try:
            return self._open()
        except _DamagedError as error:
            self.close()
            aside = self._set_aside()
            log.warning("%s is damaged (%s): it is %s now, and a new one is begun", self._path, error, aside.name)
        try:
            return self._open()
        except _DamagedError as error:
            raise StoreError(f"{self._path}: {error}") from None

    def write(self, batch: Mapping[str, Kept]) -> None:
        """Write what is new, by network.

        Raises:
            StoreError: nothing of it was written.
        """
        assert self._database is not None
        try:
            with self._transaction(self._database) as database:
                for network, kept in batch.items():
                    _write(database, network, kept)
        except sqlite3.Error as error:
            raise self._error(error) from error

    def close(self) -> None:
        """Idempotent."""
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
            self._database = None

    def _open(self) -> dict[str, Kept]:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # For its mode, which the file's companions get too.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            text = f"{self._path} can't be written: {error.strerror}: {_CURE}"
            raise StoreError(text, self._read_only()) from error
        try:
            self._database = database = sqlite3.connect(self._path, timeout=LOCK_S, isolation_level=None)
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute(f"PRAGMA cache_size = -{CACHE_KB}")
            version = _check(database)
            if version > SCHEMA:
                raise StoreError(f"{self._path} is a newer candy's: use that, or move the file away")
            database.execute("PRAGMA journal_mode = WAL")
            # A process that is killed loses nothing of what was written; without power seconds are lost.
            database.execute("PRAGMA synchronous = NORMAL")
            with self._transaction(database):
                for statements in MIGRATIONS[version:]:
                    for statement in statements:
                        database.execute(statement)
                # Also without a change: it shows that the file can be written.
                database.execute(f"PRAGMA user_version = {SCHEMA}")
                # Within: what turns out to be damaged is not changed first.
                return _read(database)
        except sqlite3.Error as error:
            if (error.sqlite_errorcode & 0xFF) in _DAMAGED:
                raise _DamagedError(str(error)) from error
            raise self._error(error) from error

    def _read_only(self) -> dict[str, Kept] | None:
        """What a file that can't be written holds; None if that can't be read either."""
        try:
            # Immutable: else SQLite wants to write a lock.
            address = f"{self._path.absolute().as_uri()}?mode=ro&immutable=1"
            with closing(sqlite3.connect(address, uri=True)) as database:
                return _read(database) if _check(database) == SCHEMA else None
        except (sqlite3.Error, _DamagedError):
            return None

    def _set_aside(self) -> Path:
        for number in range(1, DAMAGED_MAX + 1):
            aside = self._path.with_name(f"{FILE}.damaged-{number}")
            try:
                # Unlike a rename, a link never replaces.
                os.link(self._path, aside)
                os.unlink(self._path)
                with suppress(FileNotFoundError):
                    os.replace(f"{self._path}-wal", f"{aside}-wal")
                return aside
            except FileExistsError:
                continue
            except OSError as error:
                text = f"{self._path} is damaged, and can't be set aside: {error.strerror}: {_CURE}"
                raise StoreError(text) from error
        raise StoreError(f"{self._path} is damaged, as {DAMAGED_MAX} before it: look after the disk, and remove them")

    @contextmanager
    def _transaction(self, database: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
        # It commits at its end, and rolls back after an error.
        with database:
            database.execute("BEGIN IMMEDIATE")
            yield database

    def _error(self, error: sqlite3.Error) -> StoreError:
        what = _WHAT.get(error.sqlite_errorcode & 0xFF)
        return StoreError(f"{self._path} {what}" if what is not None else f"{self._path}: {error}")


_CURE = "give this user access, or set CANDY_STATE_DIR to a folder"
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
"""The last of them: it has other tables."""
_WHAT = {
    sqlite3.SQLITE_BUSY: "is in use by another program: give each relay a state folder of its own (CANDY_STATE_DIR)",
    sqlite3.SQLITE_FULL: "can't be written: no space is left: make room",
    sqlite3.SQLITE_READONLY: f"can't be written: {_CURE}",
    sqlite3.SQLITE_CANTOPEN: f"can't be opened: {_CURE}",
}


def _check(database: sqlite3.Connection) -> int:
    """The file's version."""
    [version] = database.execute("PRAGMA user_version").fetchone()
    if version <= SCHEMA:
        [answer] = database.execute("PRAGMA quick_check(1)").fetchone()
        if answer != "ok":
            raise _DamagedError(" ".join(answer.split()))
    return int(version)


def _read(database: sqlite3.Connection) -> dict[str, Kept]:
    networks: defaultdict[str, Kept] = defaultdict(Kept)
    once: dict[object, Any] = {}
    """What thousands of leases have in common is in memory once."""
    for network, ip, vmac, name, *row in database.execute("SELECT * FROM lease"):
        found = LeaseRow(ip, vmac, name, *(once.setdefault(value, value) for value in row[:-6]), *row[-6:])
        if not all(map(isinstance, found, _LEASE_TYPES)) or not _is_possible(found):
            raise _DamagedError(f"the lease of {ip!r} has values that none has")
        networks[network].leases[ip] = found
    for network, ip, vmac, name, key in database.execute("SELECT * FROM reservation"):
        if not isinstance(ip, int) or not 0 <= ip <= IP_MAX or not isinstance(name, str) or not isinstance(key, str):
            raise _DamagedError(f"the reservation of {ip!r} has values that none has")
        networks[network].reservations[ip] = Reservation(IPv4Address(ip), vmac, name, key)
    for network, *row in database.execute("SELECT * FROM device"):
        device = _device(row)
        networks[network].devices[device.key] = device
    for network, *row in database.execute("SELECT * FROM invitation"):
        invitation = _invitation(row)
        networks[network].invitations[invitation.selector] = invitation
    for network, timestamp, digest in database.execute("SELECT * FROM login"):
        networks[network].digests.append((timestamp, digest))
    for network, timestamp in database.execute("SELECT * FROM forgotten"):
        networks[network].forgotten = timestamp
    return dict(networks)


def _is_possible(row: LeaseRow) -> bool:
    counted = (row.packets_in, row.bytes_in, row.packets_out, row.bytes_out, row.month, row.used)
    limits = (row.limit_down, row.limit_up, row.quota)
    return 0 <= row.ip <= IP_MAX and min(counted) >= 0 and min(limits) >= AS_NETWORK


def _write(database: sqlite3.Connection, network: str, kept: Kept) -> None:
    if kept.is_whole:
        for table in TABLES:
            database.execute(f"DELETE FROM {table} WHERE network = ?", (network,))
    ended = [(network, ip) for ip, row in kept.leases.items() if row is None]
    database.executemany("DELETE FROM lease WHERE network = ? AND ip = ?", ended)
    rows = ((network, *row) for row in kept.leases.values() if row is not None)
    database.executemany(f"REPLACE INTO lease VALUES (?{', ?' * len(LeaseRow._fields)})", rows)
    for ip, reservation in kept.reservations.items():
        if reservation is None:
            database.execute("DELETE FROM reservation WHERE network = ? AND ip = ?", (network, ip))
        else:
            values = (network, ip, reservation.vmac, reservation.name, reservation.key)
            database.execute("REPLACE INTO reservation VALUES (?, ?, ?, ?, ?)", values)
    for key, kept_device in kept.devices.items():
        if kept_device is None:
            database.execute("DELETE FROM device WHERE network = ? AND key = ?", (network, key))
        else:
            _replace(database, "device", network, kept_device)
    for selector, invitation in kept.invitations.items():
        if invitation is None:
            database.execute("DELETE FROM invitation WHERE network = ? AND selector = ?", (network, selector))
        else:
            _replace(database, "invitation", network, invitation)
    database.execute("DELETE FROM login WHERE network = ? AND timestamp < ?", (network, kept.earliest))
    database.executemany("REPLACE INTO login VALUES (?, ?, ?)", [(network, *login) for login in kept.digests])
    database.execute("REPLACE INTO forgotten VALUES (?, ?)", (network, kept.forgotten))


def _device(row: list[Any]) -> Device:
    if not all(map(isinstance, row, _DEVICE_TYPES)):
        raise _DamagedError(f"the device {row[1]!r} has values that none has")
    key, number, selector, secret, standing, name, by, invitation, addresses, since, has_come, knows = row
    lengths = (len(key), len(selector), len(secret))
    if lengths != (KEY_BYTES, SELECTOR_BYTES, SECRET_BYTES) or standing not in iter(Standing):
        raise _DamagedError(f"the device {number!r} has values that none has")
    own = (Standing(standing), name, by, invitation, _addresses(addresses), since, bool(has_come), knows)
    return Device(key, number, selector, secret, *own)


def _invitation(row: list[Any]) -> Invitation:
    if not all(map(isinstance, row, _INVITATION_TYPES)) or (len(row[0]), len(row[1])) != (SELECTOR_BYTES, SECRET_BYTES):
        raise _DamagedError(f"the invitation of {row[2]!r} has values that none has")
    selector, secret, name, addresses, *numbers = row
    return Invitation(selector, secret, name, _addresses(addresses), *numbers)


def _addresses(text: str) -> IPv4Network | None:
    try:
        return IPv4Network(text) if text else None
    except ValueError:
        raise _DamagedError(f"{text!r} are no addresses") from None


def _replace(database: sqlite3.Connection, table: str, network: str, row: Device | Invitation) -> None:
    # Their fields are in the order of the columns.
    values = [getattr(row, column.name) for column in fields(row)]
    texts = [str(value) if isinstance(value, IPv4Network) else "" if value is None else value for value in values]
    database.execute(f"REPLACE INTO {table} VALUES (?{', ?' * len(texts)})", (network, *texts))
