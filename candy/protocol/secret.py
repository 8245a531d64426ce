"""The secret that members share and no relay has, as its file holds it: one line.

    candy-secret-1:… base64url without padding, of 32 random bytes       or else a text, as its user chose it

Rules: a line that begins with the mark and is not such a secret is refused, as is a line with nothing on it. A text is
stretched under the network's key, so it is a secret for one network at a time.
"""

import hashlib
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Final, Self

from candy.protocol.keys import SECRET_BYTES, STRETCH

MARK: Final = "candy-secret-1:"
_LABEL: Final = b"candy.3 secret"


@dataclass(frozen=True, slots=True)
class Secret:
    """See above."""

    random: bytes | None = field(repr=False)
    """SECRET_BYTES; None: it is a text."""
    text: bytes = field(default=b"", repr=False)

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Of a file. Raises ValueError: the text completes the sentence "<file> …"."""
        line = content.strip()
        if not line:
            raise ValueError("is empty: make a secret with candy-client secret new")
        if len(line.splitlines()) > 1:
            raise ValueError("has more than one line: a secret is one")
        if not line.startswith(MARK.encode()):
            return cls(None, line)
        letters = line.removeprefix(MARK.encode())
        held = urlsafe_b64decode(letters + b"=") if re.fullmatch(rb"[A-Za-z0-9_-]{43}", letters) else b""
        secret = cls(held)
        # Base64 reads over bits that stand for nothing.
        if len(held) != SECRET_BYTES or str(secret).encode() != line:
            raise ValueError("was cut off or changed: copy it whole, as candy-client secret new wrote it")
        return secret

    def __str__(self) -> str:
        """The line of one that is random."""
        assert self.random is not None
        return MARK + urlsafe_b64encode(self.random).decode("ascii").rstrip("=")

    def under(self, network: bytes) -> bytes:
        """The secret in the network with this key, 32 bytes. Of a text that takes 0.2 s and 32 MB: call it on a thread,
        and once."""
        if self.random is not None:
            return self.random
        return hashlib.scrypt(self.text, salt=hashlib.sha256(_LABEL + network).digest(), **STRETCH)
