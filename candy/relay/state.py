"""What the relay keeps between runs, in its state folder: the password that it generated, and its own certificate.

password              one line
self-signed.pem       a private key and its certificate (--tls-self-signed)

Rules:
 1. What can't be read is an error, for members have the password, and the key's pin, already.
 2. A password that can't be written yet is in memory until it can (candy.host.files). That a key can't be written is an
    error, too, because OpenSSL reads files.
"""

import functools
from collections.abc import Callable
from pathlib import Path

from candy.errors import OperationalError
from candy.host import files
from candy.relay.settings import RelaySettings

folder_at = functools.cache(files.Folder)
"""This process's one Folder at a path: what it could not write yet is nowhere else."""


def kept_password(folder: Path, token: Callable[[], str]) -> bytes:
    """The password, made from token() at the first call.

    Raises:
        OperationalError: the file can't be read, or is empty.
    """
    path = folder / "password"
    kept = files.read(path)
    if kept is None:
        kept = folder_at(folder).create(path, token().encode() + b"\n")
    password = kept.rstrip(b"\r\n")
    if not password:
        raise OperationalError(f"{path} is empty: remove it to have a new password made")
    return password


def certificate_files(settings: RelaySettings) -> tuple[tuple[Path, Path], ...]:
    """What the relay shows to those who connect, each chain with its key; empty: no TLS. Its own certificate is made if
    it is wanted and not there yet.

    Raises:
        OperationalError: that can't be written.
    """
    if settings.tls_self_signed:
        path = settings.state_dir / "self-signed.pem"
        if files.read(path) is None:
            # It takes ten megabytes.
            from candy.carrier.certificates import make

            files.create(settings.state_dir, path, make())
        return ((path, path),)
    return tuple(zip(settings.tls_certificate, settings.tls_key, strict=True))
