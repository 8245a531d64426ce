"""The engine's TLS contexts of both sides, made from paths.

    relay    Certificates(files).serving    for a new connection
                                            ◀── renew(), look(): the files again; use(): other files
                                .doubts(now), .expiry(), .pin()    what is in them
    member   trusting(host, trust)          for connections to this host

Rules:
 1. A file that can't be used is an error of one line that says what to do.
 2. Each handshake is given the newest context, and connections that there are keep theirs, so nobody is dropped for a
    new certificate.

This module does not know which settings the paths come from, nor who connects.
"""

import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from candy._fastpath import TlsContext
from candy.carrier import pin
from candy.errors import ConfigError, OperationalError

HANDSHAKE_S = 5.0
"""How long a peer may take for its half of the handshake, from TCP's accept on."""


@dataclass(frozen=True, slots=True)
class Trust:
    """What a member believes its relay's certificate by. A pin needs no authority and no name; where there is one, and
    `ca_file` as well, both have to agree."""

    ca_file: Path | None = None
    """PEM certificates to trust instead of the system's."""
    insecure: bool = False
    """Accept any certificate."""
    pins: tuple[bytes, ...] = ()
    """SHA-256 of public keys (SubjectPublicKeyInfo), of which the relay's has to be one; empty: it may be any."""
    ml_kem: bool = False
    """Prefer to exchange keys by X25519MLKEM768."""


BY_SYSTEM = Trust()
"""As browsers do."""


def trusting(host: str, trust: Trust) -> TlsContext:
    """The engine's context for connections to a relay, or to a web server in front of that.

    Args:
        host: a name, or an address without its zone.

    Raises:
        ConfigError: the CA file can't be used.
        OperationalError: there is no OpenSSL that will do.
    """
    _check_ca_file(trust.ca_file)
    try:
        return TlsContext.connecting(
            host.rstrip("."), ca_file=trust.ca_file, insecure=trust.insecure, pins=trust.pins, ml_kem=trust.ml_kem
        )
    except OSError as error:
        raise OperationalError(f"no TLS: {error}") from None
    except ValueError as error:
        raise ConfigError(f"{host} can't be the name in a certificate ({error}): write it as that does") from None


class Certificates:
    """What a relay shows to those who connect, read again when the files change.

    Args:
        files: of each its chain and that one's private key, PEM, the key not encrypted. A client is shown those that
            are for the name that it asks for, one of each kind of key; without such a name the first of all.
        ml_kem: let members exchange keys by X25519MLKEM768.

    Attributes:
        serving: the engine's context for a connection that is new. Those that there are keep theirs.

    Raises:
        OperationalError: the files can't be used.
    """

    serving: TlsContext

    def __init__(self, files: Sequence[tuple[Path, Path]], *, ml_kem: bool = False) -> None:
        self._files = tuple(files)
        self._ml_kem = ml_kem
        self._used: tuple[tuple[int, ...] | None, ...] = self._versions()
        self._looked = self._used
        self._load()

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
        self._load()
        return True

    def use(self, files: Sequence[tuple[Path, Path]], *, ml_kem: bool = False) -> bool:
        """Read these files instead of those before, now and from now on; the result is renew()'s.

        Raises:
            OperationalError: they can't be used; what is shown stays, until they can.
        """
        self._files = tuple(files)
        self._ml_kem = ml_kem
        self._used = ()
        return self.renew()

    def look(self) -> bool:
        """renew() for files that have changed and are the same in two looks: a chain and its key are replaced one after
        the other.

        Raises:
            OperationalError: as in renew().
        """
        before = self._looked
        self._looked = self._versions()
        return self._looked == before and self.renew()

    def doubts(self, now: float) -> list[str]:
        """What members will stumble over, a line each.

        Args:
            now: Unix seconds.
        """
        from candy.carrier.certificates import doubts

        return doubts(self._chains, now)

    def expiry(self) -> float | None:
        """When the first of them ends, Unix seconds; None: nobody knows."""
        return min((chain.facts.ends for chain in self._chains if chain.facts.ends is not None), default=None)

    def pin(self) -> str:
        """That of the first one's key."""
        return pin.shown(self._chains[0].facts.digest)

    def _load(self) -> None:
        # It takes ten megabytes, which a member and a relay without TLS need not spend.
        from candy.carrier.certificates import by_name, examine

        # OpenSSL reads them first: it has the last word.
        for pair in self._files:
            self._context(pair)
        chains = [examine(chain) for chain, _ in self._files]
        default, groups = by_name([chain.facts for chain in chains])
        files = {group: [self._files[place] for place in group] for group in {default, *groups.values()}}
        others = {group: self._context(*files[group]) for group in files.keys() - {default}}
        names = {name: others[group] for name, group in groups.items() if group in others}
        self.serving = self._context(*files[default], names=names)
        self._chains = chains

    def _context(self, *files: tuple[Path, Path], names: dict[str, TlsContext] | None = None) -> TlsContext:
        try:
            return TlsContext.server(*files, names=names, ml_kem=self._ml_kem)
        except OSError as error:
            raise OperationalError(f"no TLS: {error}") from None
        except ValueError as error:
            raise _unusable(*files[0], str(error)) from None

    def _versions(self) -> tuple[tuple[int, ...] | None, ...]:
        """Of the files that links lead to, what changes when they are replaced or written."""
        return tuple(_version(path) for pair in self._files for path in pair)


def _version(path: Path) -> tuple[int, ...] | None:
    with suppress(OSError):
        found = path.stat()
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
    return None


def _unusable(chain: Path, key: Path, words: str) -> OperationalError:
    """The error of files that OpenSSL can't use; `words` are its own."""
    from candy.carrier.certificates import mistake

    try:
        why = mistake(chain, key) or f"OpenSSL does not take them: {words}"
    except OSError as error:
        why = f"{error.filename}: {error.strerror}: give a file that this user can read"
    return OperationalError(f"cannot use {chain} with {key}: {why}")


def _check_ca_file(path: Path | None) -> None:
    if path is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError as error:
        raise ConfigError(f"--ca-file {path}: no PEM certificates in it") from error
    except OSError as error:
        raise ConfigError(f"--ca-file {path}: {error.strerror}: give a file this user can read") from error
