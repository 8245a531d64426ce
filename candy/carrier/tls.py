"""The TLS contexts of both sides, made from paths.

    relay    Certificate(chain, key).context ◀── renew(), look(): the files again; use(): other files
             record_bytes(head): whether a ClientHello is there
    member   connecting(ca_file, insecure)

Rules:
 1. A file that can't be used is an error of one line that says what to do.
 2. A relay's sockets keep one context for good. Each handshake is given the newest one instead, and connections that
    there are keep theirs, so nobody is dropped for a new certificate.

This module does not know which settings the paths come from, nor who connects.
"""

import ssl
from contextlib import suppress
from pathlib import Path

from candy.errors import ConfigError, OperationalError

RECORD_HEADER_BYTES = 5
HANDSHAKE = 22
LONGEST_RECORD_BYTES = RECORD_HEADER_BYTES + (1 << 14)
HANDSHAKE_S = 5.0
"""How long a peer may take for its half of the handshake, from TCP's accept on."""


class Certificate:
    """What a relay shows to those who connect, read again when its files change.

    Args:
        chain: PEM.
        key: its private key, PEM, not encrypted.

    Raises:
        OperationalError: the files can't be used.
    """

    def __init__(self, chain: Path, key: Path) -> None:
        self._files = (chain, key)
        self._used: tuple[tuple[int, ...] | None, ...] = self._versions()
        self._looked = self._used
        self._newest = self.context = _serving(chain, key)
        self._chain = chain.read_bytes()
        # Called in each handshake, also of a peer that names no server.
        self.context.sni_callback = self._give_newest

    def renew(self) -> bool:
        """Read the files now; whether they differ from those in use.

        Raises:
            OperationalError: the files can't be used; those before stay in use.
        """
        versions = self._looked = self._versions()
        if versions == self._used:
            return False
        # Also of files that can't be used: they are complained of once.
        self._used = versions
        self._newest = _serving(*self._files)
        self._chain = self._files[0].read_bytes()
        return True

    def use(self, chain: Path, key: Path) -> bool:
        """Read these files instead of those before, now and from now on; the result is renew()'s.

        Raises:
            OperationalError: they can't be used; what is shown stays, until they can.
        """
        self._files = (chain, key)
        self._used = ()
        return self.renew()

    def expiry(self) -> float:
        """When the first certificate in use ends, Unix seconds."""
        # Imported here, for it takes ten megabytes.
        from cryptography import x509

        return x509.load_pem_x509_certificates(self._chain)[0].not_valid_after_utc.timestamp()

    def look(self) -> bool:
        """renew() for files that have changed and are the same in two looks: a chain and its key are replaced one after
        the other.

        Raises:
            OperationalError: as in renew().
        """
        before = self._looked
        self._looked = self._versions()
        return self._looked == before and self.renew()

    def _versions(self) -> tuple[tuple[int, ...] | None, ...]:
        """Of the files that links lead to, what changes when they are replaced or written."""
        return tuple(_version(path) for path in self._files)

    def _give_newest(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._newest


def _version(path: Path) -> tuple[int, ...] | None:
    with suppress(OSError):
        found = path.stat()
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
    return None


def _serving(chain: Path, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # Without any password OpenSSL would ask the terminal for that of an encrypted key.
        context.load_cert_chain(chain, key, password="")
    except OSError as error:
        if not isinstance(error, ssl.SSLError):
            why = error.strerror or str(error)
        elif error.reason == "KEY_VALUES_MISMATCH":
            why = "the key is of another certificate"
        else:
            why = "one of them is not what it should be"
        raise OperationalError(
            f"cannot use {chain} with {key}: {why}: give a PEM chain and its unencrypted key"
        ) from None
    return context


def record_bytes(head: bytes) -> int:
    """How long the first TLS record is (RFC 8446, section 5.1), as far as its first bytes tell.

    Args:
        head: RECORD_HEADER_BYTES, or fewer: then a header is all that can be waited for.

    Returns:
        bytes with the header; no more than `head` has if this is no ClientHello, so that TLS will refuse it at once.
    """
    if len(head) < RECORD_HEADER_BYTES:
        return RECORD_HEADER_BYTES
    length = RECORD_HEADER_BYTES + int.from_bytes(head[3:5], "big")
    return length if head[0] == HANDSHAKE and length <= LONGEST_RECORD_BYTES else RECORD_HEADER_BYTES


def connecting(ca_file: Path | None, insecure: bool) -> ssl.SSLContext:
    """For a member's connection to its relay, or to a web server in front of that.

    Args:
        ca_file: PEM certificates to trust instead of the system's.
        insecure: accept any certificate.

    Raises:
        ConfigError: the CA file can't be used.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError as error:
        raise ConfigError(f"--ca-file {ca_file}: no PEM certificates in it") from error
    except OSError as error:
        raise ConfigError(f"--ca-file {ca_file}: {error.strerror}: give a file this user can read") from error
    context.set_alpn_protocols(["http/1.1"])
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
