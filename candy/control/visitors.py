"""Who asks over TCP: by a token in the header, or by the cookie of a browser that has logged in.

    Authorization: Bearer TOKEN ─────────────┐
    cookie: a ticket, and X-CSRF-Token where ├─▶ whose(request) ─▶ Token
            something is changed ────────────┘
    POST session, with a token ─▶ a ticket, in a cookie, and the CSRF token      DELETE session ─▶ the cookie ends
    GET session                ─▶ the CSRF token of the cookie at hand

Rules:
 1. A ticket is a time, and its HMAC under the token: it is good up to that time, and no longer than the token is in
    its file. A browser sends a host's cookies to all ports of the host, so the token itself is in none.
 2. A page of another site gets no cookie sent (SameSite=Strict), and can't read the CSRF token, which is an HMAC, too.
    Nothing is kept here.
 3. The cookie has no path, so that it is that of the page: a web server may have the page anywhere.

This module does not know what is asked.
"""

import hmac
import re
import time

from aiohttp import web

from candy.control.tokens import Token, Tokens
from candy.errors import RequestError

SESSION_PATH = "/session"
CSRF_HEADER = "X-CSRF-Token"
LASTS_S = 12 * 3600
"""A ticket."""


class Visitors:
    """Those with a token of these."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Let browsers log in, and out."""
        router.add_post(SESSION_PATH, self._log_in)
        router.add_get(SESSION_PATH, self._session)
        router.add_delete(SESSION_PATH, self._log_out)

    def whose(self, request: web.Request) -> Token:
        """The token by which a request is asked.

        Raises:
            RequestError: it has none, or not what it needs for a change.
        """
        found = self._by_header(request) if "Authorization" in request.headers else self._by_cookie(request)
        if found is None:
            raise RequestError("a token of --control-token-file is missing, or not known", 401)
        return found

    def _by_header(self, request: web.Request) -> Token | None:
        scheme, _, token = request.headers["Authorization"].partition(" ")
        if scheme.lower() != "bearer":
            return None
        given = _encoded(token.strip())
        return self._tokens.find(lambda secret: hmac.compare_digest(secret, given))

    def _by_cookie(self, request: web.Request) -> Token | None:
        ticket = request.cookies.get(_cookie(request), "")
        if not re.fullmatch(r"[0-9]{1,12}\.[0-9a-f]{64}", ticket):
            return None
        until = ticket.partition(".")[0]
        if int(until) <= time.time():
            return None
        found = self._tokens.find(lambda secret: hmac.compare_digest(_ticket(secret, until), ticket))
        if found is not None and request.method not in ("GET", "HEAD"):
            given = _encoded(request.headers.get(CSRF_HEADER, ""))
            if not hmac.compare_digest(_csrf(found.secret, ticket).encode(), given):
                raise RequestError(f"{CSRF_HEADER} is missing, or another session's: load the page again", 403)
        return found

    async def _log_in(self, request: web.Request) -> web.Response:
        # By a cookie as well, which renews the ticket.
        token = self.whose(request)
        ticket = _ticket(token.secret, str(int(time.time()) + LASTS_S))
        response = _shown(token, ticket)
        _set_cookie(request, response, ticket)
        return response

    async def _session(self, request: web.Request) -> web.Response:
        return _shown(self.whose(request), request.cookies.get(_cookie(request), ""))

    async def _log_out(self, request: web.Request) -> web.Response:
        response = web.Response(status=204)
        _set_cookie(request, response, "", max_age=0)
        return response


def _set_cookie(request: web.Request, response: web.Response, value: str, max_age: int | None = None) -> None:
    secure = _is_secure(request)
    # aiohttp leaves out a path that is empty.
    response.set_cookie(
        _cookie(request), value, max_age=max_age, path="", httponly=True, samesite="Strict", secure=secure
    )


def _shown(token: Token, ticket: str) -> web.Response:
    return web.json_response({"who": token.name, "csrf": _csrf(token.secret, ticket)})


def _ticket(secret: bytes, until: str) -> str:
    return f"{until}.{_mark(secret, f'candy ticket {until}')}"


def _csrf(secret: bytes, ticket: str) -> str:
    return _mark(secret, f"candy csrf {ticket}")


def _mark(secret: bytes, text: str) -> str:
    return hmac.digest(secret, _encoded(text), "sha256").hex()


def _encoded(text: str) -> bytes:
    """As aiohttp has decoded it."""
    return text.encode("utf-8", "surrogateescape")


def _cookie(request: web.Request) -> str:
    """Its name. It has the port that the browser knows: a host's cookies are those of all its ports."""
    port = re.search(r":([0-9]{1,5})$", request.host)
    return f"candy-{port[1]}" if port else "candy"


def _is_secure(request: web.Request) -> bool:
    """Whether the browser speaks TLS to a web server before this one. Who lies about that has a cookie that no browser
    sends, so it is believed without asking who says it."""
    protocol = request.headers.get("X-Forwarded-Proto", "").strip().lower()
    forwarded = request.headers.get("Forwarded", "")
    return protocol == "https" or re.search(r'(?i)(?:^|[;,\s])proto="?https\b', forwarded) is not None
