"""The log-in of candy.3 in bytes: its two messages, what is within, and what both sides have to have seen alike.

    LOGIN       ┌──┬─────────┬─────────┬────────────┬─────────────┬───────────────┐
    145+, both  │21│ version │ message │ credential │ selector 16 │ Noise message │  512 at most
                └──┴─────────┴─────────┴────────────┴─────────────┴───────────────┘
    within 1    ┌──────────┬─────────┬──────┬────────┬───────┬──────────┬────────────┬────────┬─────────┬──────┐
    69+, C→S    │ zeros 32 │ vmac 16 │ ip 4 │ prefix │ flags │ commit 4 │ instance 8 │ system │ version │ name │~
                └──────────┴─────────┴──────┴────────┴───────┴──────────┴────────────┴────────┴─────────┴──────┘
    within 2    ┌────────┬───────┬──────┬────────┬─────────┬─────────┬─────────┬─────────────┬───────────┬──────┐
    77+, S→C    │ code 2 │ flags │ ip 4 │ prefix │ relay 4 │ lease 8 │ clock 8 │ selector 16 │ secret 32 │ text │~
                └────────┴───────┴──────┴────────┴─────────┴─────────┴─────────┴─────────────┴───────────┴──────┘

A text is a byte of length and so many bytes. A `~` marks what a later candy may add: bytes behind what is drawn are
ignored.

Rules: the length is checked before the first field is read. Bytes that are no LOGIN, or hold what none can, raise
WireError, which ends the connection. This module knows neither who may log in, nor where primitives come from.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv4Interface
from struct import Struct
from typing import ClassVar, Final, Self

from candy.errors import WireError
from candy.protocol import wire
from candy.protocol.hello import PART_MAX, Hello, printable
from candy.protocol.keys import NONCE_BYTES, SECRET_BYTES, SELECTOR_BYTES, RelayKey, expand
from candy.protocol.noise import KEY_BYTES, TAG_BYTES, Cipher
from candy.protocol.wire import DropReason

OFFERED: Final = (wire.SEALING_SUBPROTOCOL, wire.SUBPROTOCOL)
"""The subprotocols of a member's upgrade, in their order."""
LOGIN: Final = 21
"""The kind."""
VERSION: Final = 1
LOGIN_MAX: Final = 512
"""Bytes of a LOGIN. Short, so that no message can be made that opens under many guessed keys."""
NO_SELECTOR: Final = bytes(SELECTOR_BYTES)
ANY_ADDRESS: Final = IPv4Interface("0.0.0.0/0")
_NO_ADDRESS: Final = IPv4Address(0)
_LABEL: Final = b"candy.3 log-in\0\0"
_CONTROL: Final = b"candy.3 control"
_SENTENCE_MAX: Final = 123
"""Bytes, as many as behind the code of a close frame."""


class Credential(IntEnum):
    """What a member proves."""

    NONE = 0
    """In the answer."""
    PASSWORD = 1
    INVITATION = 2
    DEVICE = 3


class Asks(IntFlag):
    """Flags of what a member says; peers are told them."""

    IS_FIXED = 1
    """The address is the user's own choice."""
    HAS_AES = 2
    """Its processor has AES and carry-less multiplication."""
    REQUIRES_SEALING = 4
    SEALS_NOTHING = 8
    TAKES_DIRECT_LINKS = 16


class Tells(IntFlag):
    """Flags of the relay's answer."""

    GIVES_CREDENTIAL = 1
    CHECKS_NO_SOURCE = 2
    ADMITS_OLD = 4
    """Old clients may join."""
    SHARES_PASSWORD = 8
    """And do so by this password."""
    NO_DIRECT_LINKS = 16
    """Members reach each other through the relay alone."""


_NO_HELLO: Final = Hello()
_ASKS_NOTHING: Final = Asks(0)
_TELLS_NOTHING: Final = Tells(0)


@dataclass(frozen=True, slots=True)
class Login:
    """One of the two messages; `noise` is within."""

    LAYOUT: ClassVar[Struct] = Struct(">BBBB16s")

    message: int
    credential: Credential
    selector: bytes
    noise: bytes

    @property
    def head(self) -> bytes:
        """All but the Noise message."""
        return self.LAYOUT.pack(LOGIN, VERSION, self.message, self.credential, self.selector)

    def encode(self) -> bytes:
        return self.head + self.noise

    @classmethod
    def decode(cls, data: bytes, message: int) -> Self:
        """A LOGIN of this number, 1 or 2."""
        keys = KEY_BYTES if message == 2 else KEY_BYTES + KEY_BYTES + TAG_BYTES
        least = Asked.LEAST if message == 1 else Told.LEAST
        if not cls.LAYOUT.size + keys + least + TAG_BYTES <= len(data) <= LOGIN_MAX:
            raise WireError(DropReason.BAD_LOGIN)
        kind, version, number, credential, selector = cls.LAYOUT.unpack_from(data)
        if (kind, version, number) != (LOGIN, VERSION, message):
            raise WireError(DropReason.BAD_LOGIN)
        possible = (Credential.NONE,) if message == 2 else (*Credential,)[1:]
        if credential not in possible or (credential < Credential.INVITATION and selector != NO_SELECTOR):
            raise WireError(DropReason.BAD_LOGIN)
        return cls(message, Credential(credential), selector, data[cls.LAYOUT.size :])


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The payload of message 1: what a member says of itself and asks for."""

    LAYOUT: ClassVar[Struct] = Struct(">32s16sIBBI8s")
    ZEROS: ClassVar[bytes] = bytes(32)
    """They commit the message to its key: AES-GCM alone does not."""
    LEAST: ClassVar[int] = LAYOUT.size + 3

    vmac: bytes = bytes(16)
    """Zeros: none."""
    address: IPv4Interface = ANY_ADDRESS
    """ANY_ADDRESS asks for any."""
    flags: Asks = _ASKS_NOTHING
    commit_bytes: int = 65535
    """The longest packet that it wants in one piece."""
    instance: int = 0
    hello: Hello = _NO_HELLO

    def encode(self) -> bytes:
        ip, prefix = int(self.address.ip), self.address.network.prefixlen
        instance = self.instance.to_bytes(8, "big")
        head = self.LAYOUT.pack(self.ZEROS, self.vmac, ip, prefix, self.flags, self.commit_bytes, instance)
        hello = self.hello
        return head + b"".join(_text(part, PART_MAX) for part in (hello.os, hello.version, hello.name))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        if len(data) < cls.LEAST:
            raise WireError(DropReason.BAD_LOGIN)
        zeros, vmac, ip, prefix, flags, commit_bytes, instance = cls.LAYOUT.unpack_from(data)
        if zeros != cls.ZEROS or prefix > 32:
            raise WireError(DropReason.BAD_LOGIN)
        os, at = _read_text(data, cls.LAYOUT.size, PART_MAX)
        version, at = _read_text(data, at, PART_MAX)
        name, at = _read_text(data, at, PART_MAX)
        return cls(
            vmac=vmac,
            address=IPv4Interface((ip, prefix)) if ip or prefix else ANY_ADDRESS,
            flags=Asks(flags),
            commit_bytes=commit_bytes,
            instance=int.from_bytes(instance, "big"),
            hello=Hello.of(*(text.decode(errors="replace") for text in (os, version, name))),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The payload of message 2: whether the member is let in, and as whom."""

    LAYOUT: ClassVar[Struct] = Struct(">HBIBI8sq16s32s")
    LEAST: ClassVar[int] = LAYOUT.size + 1

    code: int = 0
    """0, or the close code that says why not."""
    flags: Tells = _TELLS_NOTHING
    address: IPv4Interface = ANY_ADDRESS
    relay: IPv4Address = _NO_ADDRESS
    """The relay's own in the network; 0.0.0.0 for none."""
    lease: bytes = bytes(8)
    """Its number."""
    clock: int = 0
    """Unix seconds."""
    selector: bytes = NO_SELECTOR
    secret: bytes = field(default=bytes(SECRET_BYTES), repr=False)
    text: str = ""
    """A sentence for the user, in ASCII."""

    def encode(self) -> bytes:
        ip, prefix = int(self.address.ip), self.address.network.prefixlen
        own = (int(self.relay), self.lease, self.clock, self.selector, self.secret)
        return self.LAYOUT.pack(self.code, self.flags, ip, prefix, *own) + _text(self.text, _SENTENCE_MAX)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        if len(data) < cls.LEAST:
            raise WireError(DropReason.BAD_LOGIN)
        code, flags, ip, prefix, relay, lease, clock, selector, secret = cls.LAYOUT.unpack_from(data)
        if prefix > 32:
            raise WireError(DropReason.BAD_LOGIN)
        text, _ = _read_text(data, cls.LAYOUT.size, 255)
        return cls(
            code=code,
            flags=Tells(flags),
            address=IPv4Interface((ip, prefix)),
            relay=IPv4Address(relay),
            lease=lease,
            clock=clock,
            selector=selector,
            secret=secret,
            text=printable(text.decode("ascii", "replace"), _SENTENCE_MAX),
        )


def prologue(key: RelayKey, nonce: bytes, offered: Iterable[str], head: bytes) -> bytes:
    """What both sides have seen before the Noise messages, 173 bytes.

    Args:
        offered: the subprotocols of the upgrade, in their order.
        head: of message 1's LOGIN.
    """
    assert len(nonce) == NONCE_BYTES
    tokens = hashlib.sha256(",".join(offered).encode("latin-1")).digest()
    return _LABEL + key.signed + nonce + tokens + head[1:]


def control_key(cipher: Cipher) -> bytes:
    """The key of the CONTROL messages in the direction of one of split()'s ciphers."""
    return expand(cipher.key, _CONTROL)


def _text(text: str, most: int) -> bytes:
    """Cut, but not within a character."""
    data = text.encode()[:most].decode(errors="ignore").encode()
    return bytes([len(data)]) + data


def _read_text(data: bytes, at: int, most: int) -> tuple[bytes, int]:
    """The text at an offset, and the offset behind it."""
    end = at + 1 + data[at] if at < len(data) else len(data) + 1
    if end > len(data) or data[at] > most:
        raise WireError(DropReason.BAD_LOGIN)
    return data[at + 1 : end], end
