"""The TLS contexts of both sides, made from paths.

    relay    serving(certificate, key)
    member   connecting(ca_file, insecure)

Rule: a file that can't be used is an error of one line that says what to do. This module does not know which settings
the paths come from, nor who connects.
"""

import ssl
from pathlib import Path

from candy.errors import ConfigError, OperationalError


def serving(certificate: Path, key: Path) -> ssl.SSLContext:
    """For the connections that a relay accepts.

    Args:
        certificate: the chain, PEM.
        key: its private key, PEM, not encrypted.

    Raises:
        OperationalError: the files can't be used.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # Without any password OpenSSL would ask the terminal for that of an encrypted key.
        context.load_cert_chain(certificate, key, password="")
    except OSError as error:
        if not isinstance(error, ssl.SSLError):
            why = error.strerror or str(error)
        elif error.reason == "KEY_VALUES_MISMATCH":
            why = "the key is of another certificate"
        else:
            why = "one of them is not what it should be"
        raise OperationalError(
            f"cannot use {certificate} with {key}: {why}: give a PEM chain and its unencrypted key"
        ) from None
    return context


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
