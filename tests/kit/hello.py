"""A ClientHello (RFC 8446, 4.1.2) taken apart, changed as no TLS library would, and put together again."""

from kit.secure import HANDSHAKE

SUPPORTED_GROUPS, SIGNATURE_ALGORITHMS, PADDING, EARLY_DATA, SUPPORTED_VERSIONS, KEY_SHARE = 10, 13, 21, 42, 43, 51
FALLBACK = b"\x56\x00"
"""What a client has among its ciphers that was refused with a later version (RFC 7507)."""


class Hello:
    """
    Args:
        record: the whole of it, in one TLS record.

    Attributes:
        extensions: by type, in their order.
    """

    def __init__(self, record: bytes) -> None:
        body = record[9:]
        self.version, self.random = body[:2], body[2:34]
        self.session, rest = _take(body[34:], 1)
        self.ciphers, rest = _take(rest, 2)
        self.compressions, rest = _take(rest, 1)
        self.extensions: dict[int, bytes] = {}
        rest, _ = _take(rest, 2)
        while rest:
            kind = int.from_bytes(rest[:2], "big")
            self.extensions[kind], rest = _take(rest[2:], 2)

    def as_of(self, minor: int) -> "Hello":
        """As a client of an older version has it: 0 SSL 3, 1 TLS 1.0, …"""
        self.version = bytes([3, minor])
        del self.extensions[SUPPORTED_VERSIONS]
        return self

    def message(self) -> bytes:
        body = self.version + self.random
        body += _vector(self.session, 1) + _vector(self.ciphers, 2) + _vector(self.compressions, 1)
        body += _vector(b"".join(kind.to_bytes(2, "big") + _vector(e, 2) for kind, e in self.extensions.items()), 2)
        return b"\1" + _vector(body, 3)

    def records(self, size: int = 16384) -> list[bytes]:
        message = self.message()
        return [record(message[at : at + size]) for at in range(0, len(message), size)]

    def bytes(self) -> bytes:
        return b"".join(self.records())


def record(content: bytes, kind: int = HANDSHAKE) -> bytes:
    """An unprotected record."""
    return bytes([kind, 3, 3]) + _vector(content, 2)


def _vector(content: bytes, size: int) -> bytes:
    return len(content).to_bytes(size, "big") + content


def _take(data: bytes, size: int) -> tuple[bytes, bytes]:
    """A vector and what is behind it."""
    end = size + int.from_bytes(data[:size], "big")
    return data[size:end], data[end:]
