"""Why a member does not believe its relay's certificate: one line that says what is wrong with it, and what to do.

    OpenSSL's verdict, the certificate, the host that was asked for, the time ─▶ why()

Rules:
 1. A certificate that is not believed may hold anything: of its texts what is plain is shown, and not much of it.
 2. This module decides nothing: the certificate is refused already. Like `certificates` it is imported when needed.
"""

from collections.abc import Sequence

from candy.carrier import pin
from candy.carrier.certificates import Facts, facts, moment

NOT_PINNED = 0
"""Of X509_verify_cert() it says that all is well."""
NOT_YET_VALID, EXPIRED, SELF_SIGNED = 9, 10, 18
UNKNOWN_AUTHORITY = (2, 19, 20, 21)
OTHER_HOST = (62, 64)
"""X509_V_ERR_… of OpenSSL's x509_vfy.h."""
NAMES_SHOWN = 5
LETTERS_SHOWN = 64


def why(verdict: int, words: str, certificate: bytes | None, host: str, now: float) -> str:
    """The line, to stand behind the relay's URL.

    Args:
        verdict: what X509_verify_cert() says; NOT_PINNED: its key is none of those that were pinned.
        words: the same in OpenSSL's words.
        certificate: DER, as the relay sent it; None where nobody has it.
        host: the name or address that the certificate was to be for.
        now: Unix seconds, by this machine's clock.
    """
    its = facts(certificate)
    if verdict == NOT_PINNED:
        there = f": there it is {pin.shown(its.digest)}" if its.digest else ""
        return (
            f"its TLS key is not the pinned one{there}: give --pin as the relay prints it, if that is another one now"
        )
    if verdict in (EXPIRED, NOT_YET_VALID):
        return _out_of_time(verdict, its, now)
    if verdict in OTHER_HOST:
        return f"{other_host(certificate, host)}: have {host} added to it, or use a name of its in -w"
    if verdict == SELF_SIGNED:
        there = f", here it is {pin.shown(its.digest)}" if its.digest else ""
        return f"its TLS certificate is self-signed: give --pin as the relay prints it{there}; {_ANY}"
    if verdict in UNKNOWN_AUTHORITY:
        by = f"{_plain(its.issuer)!r}" if its.issuer else "an authority"
        return (
            f"its TLS certificate was issued by {by}, which this machine does not know: name that authority with "
            f"--ca-file, or have the relay send its whole chain; {_ANY}"
        )
    return f"its TLS certificate is not trusted ({words}): name its authority with --ca-file; {_ANY}"


def other_host(certificate: bytes | None, host: str) -> str:
    """What is wrong with one that is not for this host, as why() has it."""
    its = facts(certificate)
    names = _names(its.names) if its.digest else "another host"
    return f"its TLS certificate is for {names}, not for {host}"


_ANY = "--insecure accepts any certificate"


def _out_of_time(verdict: int, its: Facts, now: float) -> str:
    clock = f"if this machine's clock is right, which says {moment(now)}"
    if its.ends is not None and verdict == EXPIRED and its.ends < now:
        return f"its TLS certificate has expired since {moment(its.ends)}: have it renewed, {clock}"
    if its.ends is not None and verdict == NOT_YET_VALID and its.begins > now:
        return f"its TLS certificate is valid from {moment(its.begins)} on: have it made anew, {clock}"
    what = "has expired" if verdict == EXPIRED else "is not valid yet"
    return f"its TLS certificate, or one that it depends on, {what}: have the whole chain renewed, {clock}"


def _names(names: Sequence[str]) -> str:
    if not names:
        return "no host"
    shown = [_plain(name) for name in names[:NAMES_SHOWN]]
    if len(names) > NAMES_SHOWN:
        return f"{', '.join(shown)} and {len(names) - NAMES_SHOWN} more"
    return " and ".join((", ".join(shown[:-1]), shown[-1])) if len(shown) > 1 else shown[0]


def _plain(text: str) -> str:
    shown = "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in text[:LETTERS_SHOWN])
    return shown + "…" if len(text) > LETTERS_SHOWN else shown
