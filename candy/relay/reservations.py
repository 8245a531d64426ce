"""Addresses of one network that are reserved: each for one VMAC, for one device's key, or for devices of one name.

    configuration ─▶ configure() ─┐
    a command ─────▶ add() ───────┴─▶ get(ip), of(vmac, name)

Rules:
 1. An address is reserved once. What the configuration reserves, a command can neither change nor release.
 2. A name is what a device says of itself, in any case of letters, so it is no more than an agreement among those who
    have the password. Of several devices with one name the first that comes gets the address.
 3. What is reserved by command is noted for the store, as in candy.relay.leases.

Addresses are integers, as in candy.relay.pool.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from typing import Self

from candy.errors import RequestError
from candy.protocol.hello import PART_MAX
from candy.protocol.keys import fingerprint
from candy.protocol.noise import KEY_BYTES
from candy.relay.leases import shown_vmac

RESERVATIONS_MAX = 4096
"""Of a network, in the configuration and by command each."""
VMAC_PREFIX = "vmac:"
VMAC_BYTES = 16
KEY_PREFIX = "key:"
FINGERPRINT = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Reservation:
    """For one VMAC, for one key, or for one name; the others are empty."""

    address: IPv4Address
    vmac: bytes | None = None
    name: str = ""
    key: str = ""
    """Its fingerprint, as 32 digits."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `192.168.202.10=laptop`, `192.168.202.10=vmac:0123456789abcdef`, or with `key:` and a fingerprint.

        Raises:
            ValueError: it is none of them; the text completes "<text> …".
        """
        address, _, device = text.partition("=")
        try:
            return cls.of(IPv4Address(address.strip()), device.strip())
        except AddressValueError:
            raise ValueError("does not begin with an address: write it like 192.168.202.10=laptop") from None

    @classmethod
    def of(cls, address: IPv4Address, device: str) -> Self:
        """`device` is a name, a VMAC behind `vmac:`, or a key's fingerprint behind `key:`.

        Raises:
            ValueError: it is none of them; the text completes "<text> …".
        """
        if device.startswith(VMAC_PREFIX):
            vmac = device.removeprefix(VMAC_PREFIX).encode()
            if len(vmac) != VMAC_BYTES:
                raise ValueError(f"has no VMAC behind {VMAC_PREFIX}: write its {VMAC_BYTES} characters")
            return cls(address, vmac=vmac)
        if device.startswith(KEY_PREFIX):
            key = _digits(device)
            if not FINGERPRINT.fullmatch(key):
                raise ValueError(
                    f"has no fingerprint behind {KEY_PREFIX}: write its 32 digits, as `devices` shows them"
                )
            return cls(address, key=key)
        if not device or len(device) > PART_MAX or not device.isprintable():
            prefixes = f"{KEY_PREFIX}… or {VMAC_PREFIX}…"
            raise ValueError(f"names no device: write its name, of at most {PART_MAX} characters, or {prefixes}")
        return cls(address, name=device)

    @property
    def device(self) -> str:
        """In the form that `of` reads."""
        if self.key:
            return KEY_PREFIX + self.key
        return self.name if self.vmac is None else VMAC_PREFIX + shown_vmac(self.vmac)

    def is_written(self, device: str) -> bool:
        """Whether it is for what is written so."""
        is_key = device.startswith(KEY_PREFIX)
        return self.device.casefold() == (KEY_PREFIX + _digits(device) if is_key else device.casefold())

    def is_for(self, vmac: bytes | None, name: str) -> bool:
        """Whether it is for the device with this VMAC, or key, which last said that this is its name."""
        if self.key:
            return self.key == _fingerprint(vmac)
        if self.vmac is not None:
            return self.vmac == vmac
        return vmac is not None and self.name.casefold() == name.casefold()


def is_meant(device: str, vmac: bytes | None, name: str) -> bool:
    """Whether who writes `device`, in the form that Reservation.of() reads, means the one with this VMAC, or key, and
    name."""
    if device.startswith(VMAC_PREFIX):
        return vmac is not None and shown_vmac(vmac) == device.removeprefix(VMAC_PREFIX)
    if device.startswith(KEY_PREFIX):
        return bool(digits := _digits(device)) and digits == _fingerprint(vmac)
    return name.casefold() == device.casefold() != ""


def _digits(device: str) -> str:
    """Of the fingerprint behind `key:`."""
    return device.removeprefix(KEY_PREFIX).replace(" ", "").lower()


def _fingerprint(vmac: bytes | None) -> str:
    """The digits of a key's; empty for a VMAC."""
    return fingerprint(vmac).replace(" ", "") if vmac is not None and len(vmac) == KEY_BYTES else ""


class Reservations:
    """See the rules above."""

    def __init__(self) -> None:
        self._configured: dict[int, Reservation] = {}
        self._commanded: dict[int, Reservation] = {}
        self._by_device: dict[bytes | str, list[int]] = {}
        """Addresses by VMAC, by name in lower case, and by `key:` and fingerprint, which is no name."""
        self._changed: set[int] = set()
        self._watchers: list[Callable[[int], None]] = []

    def watch(self, watch: Callable[[int], None]) -> None:
        """Have this called with each address that is reserved or released by command."""
        self._watchers.append(watch)

    def commanded(self) -> Iterable[Reservation]:
        """Those by command."""
        return self._commanded.values()

    def commanded_at(self, ip: int) -> Reservation | None:
        """What a command has reserved an address for."""
        return self._commanded.get(ip)

    def learn(self, ip: int, reservation: Reservation | None) -> None:
        """A command to another relay has reserved this address, or released it."""
        if reservation is not None:
            self._commanded[ip] = reservation
        else:
            self._commanded.pop(ip, None)
        self._changed.add(ip)
        self._index()

    def __len__(self) -> int:
        return len(self._configured.keys() | self._commanded.keys())

    def __iter__(self) -> Iterator[Reservation]:
        """All of them, by address."""
        return iter([reservation for _, reservation in sorted((self._commanded | self._configured).items())])

    def get(self, ip: int) -> Reservation | None:
        return self._configured.get(ip) or self._commanded.get(ip)

    def is_configured(self, ip: int) -> bool:
        return ip in self._configured

    def of(self, vmac: bytes | None, name: str) -> Iterable[int]:
        """The addresses for a device; those for its VMAC or key come first."""
        if vmac is None:
            return ()
        by_name = self._by_device.get(name.casefold(), ()) if name else ()
        own = KEY_PREFIX + _fingerprint(vmac) if len(vmac) == KEY_BYTES else vmac
        return (*self._by_device.get(own, ()), *by_name)

    def configure(self, reservations: Iterable[Reservation]) -> None:
        """What the configuration has, instead of what it had."""
        self._configured = {int(reservation.address): reservation for reservation in reservations}
        self._index()

    def add(self, reservation: Reservation) -> None:
        """By command, instead of what a command has reserved the address for.

        Raises:
            RequestError: rule 1, or there are too many.
        """
        ip = int(reservation.address)
        self._check(ip)
        if ip not in self._commanded and len(self._commanded) >= RESERVATIONS_MAX:
            raise RequestError(f"{RESERVATIONS_MAX} addresses are reserved already: release some first")
        self._commanded[ip] = reservation
        self._change(ip)

    def remove(self, ip: int) -> bool:
        """By command; whether it was reserved.

        Raises:
            RequestError: rule 1.
        """
        self._check(ip)
        if self._commanded.pop(ip, None) is None:
            return False
        self._change(ip)
        return True

    def changes(self) -> dict[int, Reservation | None]:
        """What is new by command since the last call, by address; None: released."""
        changed, self._changed = self._changed, set()
        return {ip: self._commanded.get(ip) for ip in changed}

    def rows(self) -> dict[int, Reservation | None]:
        """All that commands have reserved, in the form of changes() and instead of it."""
        self._changed = set()
        return dict(self._commanded)

    def restore(self, reservations: Iterable[Reservation]) -> None:
        """Take back what was kept. What has happened since counts more."""
        self._commanded = {int(reservation.address): reservation for reservation in reservations} | self._commanded
        self._index()

    def _change(self, ip: int) -> None:
        self._changed.add(ip)
        self._index()
        for watch in self._watchers:
            watch(ip)

    def _check(self, ip: int) -> None:
        if ip in self._configured:
            raise RequestError(f"{IPv4Address(ip)} is reserved in the configuration: change it there, and reload")

    def _index(self) -> None:
        self._by_device = {}
        for ip, reservation in (self._commanded | self._configured).items():
            key = reservation.vmac if reservation.vmac is not None else reservation.device.casefold()
            self._by_device.setdefault(key, []).append(ip)
