"""What was answered instead of an upgrade or a tunnel: one line that says who refused, why, and what to do about it.

    status, challenges, beginning of the body ─▶ by_server(…), by_proxy(…) ─▶ the text of an error

Rules:
 1. What a stranger says is quoted: of bounded length, in printable ASCII.
 2. Of a body the first line is enough, and of a page its title: there web servers and proxies give their reason.
 3. A wrong user and password are told from missing ones, and both from a kind of authorization that candy lacks.

No I/O. This module does not know how the answer was read.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from candy.carrier.handover import KEYS_ALONE, OLD_HTTP, RELAY_FULL

BODY_BYTES = 4096
"""Of a body, as much as is looked at."""
BODY_S = 1.0
"""How long the rest of an answer is waited for once its head is there."""
MAX_QUOTE = 200
"""Characters of a peer's text in a message."""


class Answer(NamedTuple):
    """As far as it matters here."""

    status: str
    """The code, and the reason if there is one: `404 Not Found`."""
    challenges: Sequence[str]
    """Values of WWW-Authenticate, or Proxy-Authenticate."""
    body: bytes
    """Its first BODY_BYTES."""


def by_server(answer: Answer, *, location: str | None, had_credentials: bool) -> str:
    """Why there is no upgrade.

    Args:
        location: of a redirect.
        had_credentials: the request had a user and password, those of the URL.
    """
    if answer.status.startswith("503") and answer.body == RELAY_FULL.encode("ascii"):
        return "the relay is full (HTTP 503): wait until a member leaves, or raise --max-connections there"
    said = f"the server answered {_told(answer)}"
    match answer.status[:3]:
        case code if code.startswith("3") and location:
            return f"{said} to {quoted(location)}: candy follows no redirects, give the address it leads to"
        case "400" if answer.body == OLD_HTTP.encode("ascii"):
            return f"{said}: a web server in front speaks HTTP/1.0: nginx needs `proxy_http_version 1.1;`"
        case "401" if unknown := _unknown_schemes(answer):
            return f"{said}: a web server in front asks for {unknown} authorization, and candy knows Basic alone"
        case "401" if had_credentials:
            return f"{said}: a web server in front does not take the user and password of the URL: correct them"
        case "401":
            return (
                f"{said}: a web server in front asks for a user and password: "
                "put them into the URL, like wss://user:password@host"
            )
        case "403" if answer.body == KEYS_ALONE.encode("ascii"):
            return f"{said}: remove --no-extension, by which this member speaks as old clients do"
        case "403":
            return f"{said}: a web server in front, or a filter on the way, does not allow it: have it allowed there"
        case "404":
            return f"{said}: no relay at this path, check the end of the URL"
        case "426":
            return f"{said}: a web server in front of the relay has to pass Upgrade and Connection on"
        case "502" | "503" | "504":
            return f"{said}: there is a web server in front, but it does not reach candy-server"
        case _:
            return f"{said}: is this the address of a candy relay?"


def by_proxy(answer: Answer, *, target: str, had_credentials: bool) -> str:
    """Why there is no tunnel.

    Args:
        target: where to, host:port.
        had_credentials: the request had a user and password, those of the variable that names the proxy.
    """
    if not answer.status.startswith("407"):
        return (
            f"the proxy refused to connect to {target}: {_told(answer)}: "
            "have it allowed there, or name the relay's host in NO_PROXY to go without"
        )
    if unknown := _unknown_schemes(answer):
        return f"the proxy asks for {unknown} authorization, and candy knows Basic alone"
    if had_credentials:
        return (
            "the proxy does not take the user and password in the variable: correct them, "
            "and write characters like @ : / % in them as %40 %3A %2F %25"
        )
    return "the proxy asks for a user and password: put http://user:password@host:port in the variable"


def quoted(text: str) -> str:
    """A peer's text, fit for a log: of bounded length, in printable ASCII."""
    return text[:MAX_QUOTE].encode("unicode_escape").decode("ascii")


def _told(answer: Answer) -> str:
    """Status and reason: HTTP 400 Bad Request ("An upgrade is a GET of HTTP/1.1.")"""
    # A server may show the request as it came, with what was in Authorization.
    line = re.sub(r"(?i)\bbasic\s+[a-z0-9+/=]+", "Basic ***", _first_line(answer.body))
    status = f"HTTP {quoted(answer.status)}".rstrip()
    # The title of many pages is the status once more.
    return f'{status} ("{quoted(line)}")' if line and line != answer.status else status


def _first_line(body: bytes) -> str:
    """Of a text the first line with anything in it, of a page its title; empty where there is none."""
    text = body.decode("utf-8", "replace").strip()
    if text.startswith("<"):
        # It has all names of characters: half a megabyte.
        from html import unescape

        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        return " ".join(unescape(title[1]).split()) if title else ""
    return text.partition("\n")[0].rstrip()


def _unknown_schemes(answer: Answer) -> str:
    """The kinds of authorization that are asked for, if Basic is not among them."""
    without_values = re.sub(r'"[^"]*"', '""', ", ".join(answer.challenges))
    schemes = re.findall(r"(?:^|,)\s*([\w-]+)(?=\s+[^\s=]|\s*(?:,|$))", without_values)
    return "" if any(scheme.lower() == "basic" for scheme in schemes) else quoted(" or ".join(dict.fromkeys(schemes)))
