"""The page for browsers: its files, and what a browser may do with them.

    candy/control/page/ ─▶ Page ─┬─▶ GET /, /page.css, /page.js, …
                                 └─▶ HEADERS of every answer

Rules:
 1. The files are for everybody, as nothing of a relay is in them: what they show they ask for, with a cookie.
 2. They are served by their names, which were read at the start. No path of the file system comes from a request.
 3. The page asks this host alone, and runs no script but its own files: its policy has the browser hold it to that.
    Texts can't become markup (Trusted Types).

This module does not know what the page shows.
"""

import hashlib
from functools import partial
from importlib import resources
from pathlib import PurePath

from aiohttp import ETag, web

INDEX = "index.html"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Page:
    """All of its files."""

    def __init__(self) -> None:
        folder = resources.files("candy.control") / "page"
        self._files = {f"/{file.name}": file.read_bytes() for file in folder.iterdir()}
        self._files["/"] = self._files.pop(f"/{INDEX}")

    def __contains__(self, path: str) -> bool:
        """Whether a path is one of its files."""
        return path in self._files

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Have the files served."""
        for path, content in self._files.items():
            kind = TYPES[PurePath(path).suffix or ".html"]
            router.add_get(path, partial(_file, content, kind, hashlib.sha256(content).hexdigest()))

    @staticmethod
    def sign(response: web.StreamResponse) -> None:
        """Say what a browser may do. Files are asked about again each time, answers are not kept at all."""
        response.headers.update(HEADERS)
        response.headers.setdefault("Cache-Control", "no-store")


async def _file(content: bytes, kind: str, digest: str, request: web.Request) -> web.Response:
    if any(known.value == digest for known in request.if_none_match or ()):
        response = web.Response(status=304)
    else:
        response = web.Response(body=content, content_type=kind, charset="utf-8")
    response.etag = ETag(digest)
    response.headers["Cache-Control"] = "no-cache"
    return response
