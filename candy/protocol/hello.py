"""What a client says of itself: the text of the PING that it sends behind its AUTH.

    candy::linux::6.1.8::laptop
           os     version name

Rules: a name is not proven and not unique. Of each part the first PART_MAX characters are taken, and of these the
printable ones: who shows them escapes what is special there (a page, a terminal's markup), and nothing else.
"""

from dataclasses import dataclass
from sys import intern
from typing import Self

PREFIX = "candy"
SEPARATOR = "::"
PART_MAX = 63
"""Characters of a part: the longest host name (RFC 1035, section 2.3.4)."""
LONGEST_PING = 125
"""Bytes of a PING's payload (RFC 6455, section 5.5)."""


@dataclass(frozen=True, slots=True)
class Hello:
    """Operating system, candy's version and host name; empty where a client does not say."""

    os: str = ""
    version: str = ""
    name: str = ""

    @classmethod
    def parse(cls, payload: bytes) -> Self | None:
        """Of a PING's payload; None if it is no such text."""
        prefix, *parts = payload.decode(errors="replace").split(SEPARATOR, 3)
        if prefix != PREFIX or len(parts) != 3:
            return None
        return cls.of(*parts)

    @classmethod
    def of(cls, os: str, version: str, name: str) -> Self:
        """Of what a peer said, cut and cleaned."""
        os, version, name = map(printable, (os, version, name))
        # Interned, because thousands of members say the same.
        return cls(intern(os), intern(version), name)

    def encode(self) -> bytes:
        """The payload; a host name that is too long is cut."""
        return SEPARATOR.join((PREFIX, self.os, self.version, self.name)).encode()[:LONGEST_PING]


def printable(part: str, most: int = PART_MAX) -> str:
    """What may be shown of a text from a peer."""
    return "".join(c for c in part[:most] if c.isprintable())
