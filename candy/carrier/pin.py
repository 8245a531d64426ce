"""Pins: a relay's public key by its digest, as members write it and relays print it.

    sha256/uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek=      SHA-256 of SubjectPublicKeyInfo (RFC 7469), base64

Rule: what is pinned is the key, not the certificate, so that a renewal that keeps the key keeps the pin.
"""

import binascii
from base64 import b64decode, b64encode

PREFIX = "sha256/"
DIGEST_BYTES = 32
_DIGEST_LETTERS = 44


def parse(text: str) -> bytes:
    """The digest in a pin. curl's form, with a second slash, is taken too.

    Raises:
        ValueError: it is none; the text says how one is written.
    """
    letters = text.removeprefix(PREFIX)
    if len(letters) == _DIGEST_LETTERS + 1:
        letters = letters.removeprefix("/")
    try:
        digest = b64decode(letters, validate=True)
    except binascii.Error:
        digest = b""
    if not text.startswith(PREFIX) or len(digest) != DIGEST_BYTES:
        raise ValueError(f"is not a pin: write it as the relay prints it, {PREFIX} and {_DIGEST_LETTERS} letters")
    return digest


def shown(digest: bytes) -> str:
    """The pin of a digest."""
    return PREFIX + b64encode(digest).decode()
