"""Health checks over HTTP: whether this relay can admit a known member now.

    GET /healthz, also HEAD ─▶ 200 ok
                            └▶ 503 and what is in the way: it ends, or lacks connections or descriptors

Rules: any host and any port that the relay listens on will do, and no password: the answer tells nothing of members.
An upgrade is no health check, so a relay whose only network is `/` still takes a member at this path.

This module knows neither networks nor members.
"""

import socket

from aiohttp import web

from candy.relay.settings import HEALTH_PATH, canonical_path


def is_asked(request: web.BaseRequest) -> bool:
    """Whether a request is a health check."""
    is_plain = request.method in ("GET", "HEAD") and "Upgrade" not in request.headers
    return is_plain and canonical_path(request.path) == HEALTH_PATH


def answer(*, is_ending: bool, free_slots: int) -> web.Response:
    """The response to one.

    Args:
        free_slots: connections that the engine has left.
    """
    if is_ending:
        return _response(503, "the relay ends")
    if free_slots <= 0:
        return _response(503, "all connections are taken: see --max-connections")
    if not _has_descriptors():
        return _response(503, "no descriptors are left: raise ulimit -n or LimitNOFILE=")
    return _response(200, "ok")


def _has_descriptors() -> bool:
    """Whether an upgrade would find those that it takes: two, with TLS."""
    try:
        one, other = socket.socketpair()
    except OSError:
        return False
    one.close()
    other.close()
    return True


def _response(status: int, text: str) -> web.Response:
    response = web.Response(status=status, text=text + "\n", headers={"Cache-Control": "no-store"})
    response.force_close()
    return response
