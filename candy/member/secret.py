"""The secret of a network's members, which no relay gets: as its file has it.

    candy-secret-1:AbC…     32 random bytes, base64url without padding: `candy-client secret new`
    any other line          a text, from which scrypt makes them

What it is for docs/protocol.md says.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Self

PREFIX: Final = "candy-secret-1:"
SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Secret:
    """What was written."""

    content: bytes = field(repr=False)
    is_text: bool
    """It is not random: it has to be stretched."""

    @classmethod
    def parse(cls, line: bytes) -> Self:
        """Of a file's only line, without its end. Raises ValueError: the text completes the sentence "<file> …"."""
        if not line:
            raise ValueError("is empty: make a secret with candy-client secret new")
        if b"\n" in line:
            raise ValueError("has more than one line: a secret is one")
        if not line.startswith(PREFIX.encode()):
            return cls(line, is_text=True)
        letters = line.removeprefix(PREFIX.encode())
        content = urlsafe_b64decode(letters + b"=") if re.fullmatch(rb"[A-Za-z0-9_-]{43}", letters) else b""
        if len(content) != SECRET_BYTES:
            raise ValueError("is cut off, or has too much: copy it whole, as candy-client secret new wrote it")
        return cls(content, is_text=False)


def fresh(randbytes: Callable[[int], bytes]) -> str:
    """A new one, as a line."""
    return PREFIX + urlsafe_b64encode(randbytes(SECRET_BYTES)).decode("ascii").rstrip("=")
