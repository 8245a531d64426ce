"""What the member keeps between runs, in the state folder.

    vmac/<name>           its VMAC, 16 ASCII hex characters
    address/<name>        its last address, CIDR text: 192.168.202.7/24
    timestamp/<name>      the last timestamp put into an AUTH, decimal Unix seconds
    relay/<name>          addresses by which a host was last reached, one host a line: relay.example.org 203.0.113.5
    relays/<name>         URLs of relays that a relay told, one a line, behind the network's key in hex
    segment/<name>        the longest TCP segment that the way to a host takes, one host a line: relay.example.org 1220
    pins/<name>           whose key each lease has (candy.sealing.pins)
    handshake/<name>      the time above which the next handshake is (candy.sealing.stamps)
    sealed/<name>         how many datagrams were sealed for old clients, one password a line: 7f 4194304

`<name>` is the member's --name, or `__noname__` without one; vmac and address are the original client's files, so that
a machine that migrates keeps its address. Members of several names on one machine have nothing in common: with one VMAC
they would take each other's address. (The original gave the nameless one's to all.)

Rule: garbage in a file costs its content and a warning, not the start; what can't be written is in memory until it can
(candy.host.files). Time and randomness are arguments. This module knows neither the protocol nor the settings.
"""

import logging
import re
from collections.abc import Callable, Sequence
from hashlib import sha256
from ipaddress import IPv4Interface, ip_address
from pathlib import Path

from candy.errors import ConfigError
from candy.host.files import Folder
from candy.protocol.auth import TOLERANCE_S
from candy.protocol.control import RELAYS_MAX
from candy.sealing.pins import Pins
from candy.sealing.stamps import Stamps

NONAME = "__noname__"
HOSTS_MAX = 8
WORDS_MAX = 8
"""Bounds of what is kept of hosts, such as addresses; the one reached longest ago is forgotten first."""
_VMAC = re.compile(rb"[0-9A-Fa-f]{16}")

_log = logging.getLogger(__name__)


class MemberState:
    """The files of one member.

    Args:
        folder: from state_folder(); made when something is first kept.
        name: the member's --name.

    Raises:
        ConfigError: the name can't be a file's name.
    """

    def __init__(self, folder: Path, name: str | None = None) -> None:
        if name and ("/" in name or "\0" in name or name in (".", "..")):
            raise ConfigError(f"the name {name!r} can't be used as a file name: choose letters and digits")
        self.folder = Folder(folder)
        self._name = name or NONAME

    def vmac(self, randomness: Callable[[int], bytes]) -> bytes:
        """This member's VMAC, 16 ASCII hex characters; made from randomness(8) at the first call."""
        path = self._path("vmac")
        kept = self.folder.read(path)
        if kept is None:
            return self.folder.create(path, randomness(8).hex().encode("ascii")).strip()
        if _VMAC.fullmatch(kept.strip()):
            return kept.strip()
        _log.warning("%s holds no VMAC (16 hex characters): not used", path)
        return self.renew_vmac(randomness)

    def renew_vmac(self, randomness: Callable[[int], bytes]) -> bytes:
        """A new VMAC in place of the one before, made from randomness(8), and kept."""
        vmac = randomness(8).hex().encode("ascii")
        self.folder.replace(self._path("vmac"), vmac)
        return vmac

    def address(self) -> IPv4Interface | None:
        """The address and prefix of last time, or None."""
        path = self._path("address")
        kept = self.folder.read(path)
        if kept is None:
            return None
        try:
            address = IPv4Interface(kept.decode("ascii").strip())
        except ValueError:
            _log.warning("%s holds no address: not used", path)
            return None
        return None if address.ip.is_unspecified else address

    def keep_address(self, address: IPv4Interface) -> None:
        """Remember the address for next time."""
        self.folder.replace(self._path("address"), address.with_prefixlen.encode("ascii"))

    def relays(self, network: bytes) -> tuple[str, ...]:
        """URLs of the relays of the network with this key, as they were told."""
        first, *urls = (self.folder.read(self._path("relays")) or b"").decode("utf-8", "replace").splitlines() or [""]
        return tuple(urls[:RELAYS_MAX]) if first == network.hex() else ()

    def keep_relays(self, network: bytes, urls: Sequence[str]) -> None:
        """Remember them."""
        if tuple(urls) != self.relays(network):
            lines = [network.hex(), *urls[:RELAYS_MAX]]
            self.folder.replace(self._path("relays"), "".join(f"{line}\n" for line in lines).encode("utf-8"))

    def pins(self) -> Pins:
        """Whose key each lease has."""
        pins = Pins(self.folder.read(path := self._path("pins")) or b"")
        if pins.damaged:
            _log.warning("%s: %d lines hold no lease and its key: not used", path, pins.damaged)
        return pins

    def keep_pins(self, content: bytes) -> None:
        """What Pins.encode() gave."""
        self.folder.replace(self._path("pins"), content)

    def stamps(self) -> Stamps:
        """The times of this member's handshakes."""
        stamps = Stamps(self.folder.read(path := self._path("handshake")))
        if stamps.is_damaged:
            _log.warning("%s holds no time: not used", path)
        return stamps

    def keep_stamp(self, content: bytes) -> None:
        """What Stamps.next() asked to be kept."""
        self.folder.replace(self._path("handshake"), content)

    def sealed(self, password: bytes) -> int:
        """How many datagrams this member has sealed for old clients with this password, or some more."""
        return self._sealed().get(_byte_of(password), 0)

    def keep_sealed(self, password: bytes, count: int) -> None:
        """Remember that for next time."""
        counts = self._sealed() | {_byte_of(password): count}
        lines = "".join(f"{byte:02x} {each}\n" for byte, each in sorted(counts.items()))
        self.folder.replace(self._path("sealed"), lines.encode("ascii"))

    def _sealed(self) -> dict[int, int]:
        """By a byte of the password's."""
        path = self._path("sealed")
        counts: dict[int, int] = {}
        for line in (self.folder.read(path) or b"").splitlines()[:256]:
            if re.fullmatch(rb"[0-9a-f]{2} [0-9]{1,19}", line):
                byte, count = line.split()
                counts[int(byte, 16)] = int(count)
            else:
                _log.warning("%s: a line holds no count of datagrams: not used", path)
        return counts

    def reached(self, host: str) -> tuple[str, ...]:
        """The addresses by which a relay or proxy of this name was last reached; none if that is not known."""
        return self._by_host("relay", _is_address).get(host, ())

    def keep_reached(self, host: str, addresses: Sequence[str]) -> None:
        """Remember by which addresses a host was reached."""
        self._keep_by_host("relay", _is_address, host, addresses[:WORDS_MAX])

    def segment(self, host: str) -> int | None:
        """The longest TCP segment that the way to this host takes; None if it is not known to take shorter ones."""
        [length] = self._by_host("segment", _is_length).get(host, ("0",))[:1]
        return int(length) or None

    def keep_segment(self, host: str, length: int) -> None:
        """Remember the longest TCP segment on the way to a host."""
        self._keep_by_host("segment", _is_length, host, [str(length)])

    def _keep_by_host(self, kind: str, is_one: Callable[[str], bool], host: str, words: Sequence[str]) -> None:
        before = self._by_host(kind, is_one)
        hosts = {host: tuple(words)} | {key: old for key, old in before.items() if key != host}
        lines = [" ".join((key, *kept)) + "\n" for key, kept in hosts.items()][:HOSTS_MAX]
        # It is the same nearly always: the folder may be on a card that wears out.
        if list(before.items()) != list(hosts.items()):
            self.folder.replace(self._path(kind), "".join(lines).encode("utf-8"))

    def _by_host(self, kind: str, is_one: Callable[[str], bool]) -> dict[str, tuple[str, ...]]:
        """All that is kept of hosts in a file, in its order: the words behind each, of which is_one() is true."""
        path = self._path(kind)
        hosts = {}
        for line in (self.folder.read(path) or b"").decode("utf-8", "replace").splitlines()[:HOSTS_MAX]:
            host, *words = line.split()[: 1 + WORDS_MAX] or [""]
            if not words or not all(map(is_one, words)):
                _log.warning("%s: a line holds no host and what is kept of it: not used", path)
                continue
            hosts[host] = tuple(words)
        return hosts

    def next_timestamp(self, now: int) -> int:
        """A timestamp for an AUTH that was never used before, also across restarts: max(now, last + 1), kept.

        A last one further ahead than relays tolerate is from a clock that was wrong, and is ignored: else this member
        could not log in again before that time.

        Args:
            now: Unix seconds.
        """
        path = self._path("timestamp")
        last = self._read_timestamp(path)
        if last - now > TOLERANCE_S:
            _log.warning("%s is %d s ahead of the clock: not used", path, last - now)
            last = 0
        timestamp = max(now, last + 1)
        self.folder.replace(path, b"%d" % timestamp)
        return timestamp

    def _read_timestamp(self, path: Path) -> int:
        kept = self.folder.read(path)
        if kept is None:
            return 0
        # 2**63 has 19 digits, and so has every timestamp at most.
        if not re.fullmatch(rb"[0-9]{1,19}", kept.strip()):
            _log.warning("%s holds no timestamp: not used", path)
            return 0
        return int(kept)

    def _path(self, kind: str) -> Path:
        return self.folder.path / kind / self._name


def _byte_of(password: bytes) -> int:
    """By which its count is kept: too little to try passwords on. Two with the same have one count, a higher one than
    each has."""
    return sha256(password).digest()[0]


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_length(text: str) -> bool:
    return bool(re.fullmatch("[1-9][0-9]{1,4}", text))
