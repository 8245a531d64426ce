"""A command's way to the program that it asks: the control interface over its UNIX socket.

    find(side, path) ─▶ Asking ─▶ ask("GET", "/v1/status") ─▶ the answer, as JSON has it

Rules: an answer is awaited as long as the program takes. That nobody listens, or another program, or that this user may
not ask, is an OperationalError; a refusal of the program's is a RequestError with its words.

This module does not know what is asked.
"""

import errno
import http.client
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from candy.control.sockets import SERVER, Side, candidates
from candy.errors import OperationalError, RequestError


class _Connection(http.client.HTTPConnection):
    """HTTP to a socket in the file system."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(os.fspath(self._path))


class Asking:
    """Questions to one program, over one connection.

    Args:
        what: the program, for errors: "relay" or "member".
    """

    def __init__(self, what: Side, path: Path) -> None:
        self._what = what
        self._path = path
        self._connection = _Connection(path)

    def close(self) -> None:
        """Idempotent."""
        self._connection.close()

    def fileno(self) -> int:
        """Readable once the answer to what was begun is there."""
        assert self._connection.sock is not None
        return self._connection.sock.fileno()

    def ask(self, method: str, path: str, body: object = None, **query: Any) -> Any:
        """The answer to a question.

        Args:
            path: with quoted() parts.
            query: None is left out.

        Raises:
            OperationalError: the program does not run, or has a fault; or this user may not ask it.
            RequestError: it refuses.
        """
        self.begin(method, path, body, **query)
        return self.answer()

    def stream(self, method: str, path: str, **query: Any) -> Iterator[bytes]:
        """The pieces of an answer that goes on until it is over, or until hang_up(). Raises what ask() raises, and
        OperationalError also when the program ends meanwhile."""
        self.begin(method, path, **query)
        response = self._response()
        if response.status != http.HTTPStatus.OK:
            self._read(response)
        try:
            while piece := response.read1():
                yield piece
        except (OSError, http.client.HTTPException):
            raise OperationalError(f"the {self._what} ended meanwhile") from None

    def hang_up(self) -> None:
        """End a stream; also from another thread, or within a signal handler."""
        if self._connection.sock is not None:
            with suppress(OSError):
                self._connection.sock.shutdown(socket.SHUT_RDWR)

    def begin(self, method: str, path: str, body: object = None, **query: Any) -> None:
        """Ask, and don't wait; answer() follows. Raises OperationalError, as ask()."""
        given = {name: str(value).lower() if value is True else value for name, value in query.items()}
        said = urlencode({name: value for name, value in given.items() if value not in (None, False)})
        content = None if body is None else json.dumps(body)
        try:
            self._connection.request(method, f"{path}?{said}" if said else path, content)
        except OSError as error:
            raise self._unreachable(error) from None

    def answer(self) -> Any:
        """Of what was begun. Raises what ask() raises."""
        return self._read(self._response())

    def _response(self) -> http.client.HTTPResponse:
        """Its head."""
        try:
            response = self._connection.getresponse()
        except (OSError, http.client.IncompleteRead) as error:
            raise self._cut_off(error) from None
        except http.client.HTTPException:
            raise self._another() from None
        if response.getheader("Server") != SERVER.format(self._what):
            raise self._another()
        return response

    def _read(self, response: http.client.HTTPResponse) -> Any:
        """What was answered; raises what was refused."""
        try:
            content = response.read()
        except (OSError, http.client.IncompleteRead) as error:
            raise self._cut_off(error) from None
        except http.client.HTTPException:
            raise self._another() from None
        if response.status == http.HTTPStatus.INTERNAL_SERVER_ERROR:
            raise OperationalError(f"a fault in the {self._what} kept it from answering: see its log")
        answer = json.loads(content)
        if response.status != http.HTTPStatus.OK:
            raise RequestError(answer["error"], response.status)
        return answer

    def _cut_off(self, error: Exception) -> OperationalError:
        return OperationalError(f"the {self._what} ended before it had answered ({error})")

    def _another(self) -> OperationalError:
        return OperationalError(f"{self._path} is not the control socket of a {self._what}: name another one")

    def _unreachable(self, error: OSError) -> OperationalError:
        if error.errno in (errno.EACCES, errno.EPERM):
            return OperationalError(
                f"{self._path} is closed to this user: ask as root, or start the {self._what} with --control-group"
            )
        return OperationalError(f"no {self._what} runs at {self._path} ({error.strerror or error})")


def find(what: Side, path: str | None, environ: Mapping[str, str], uid: int) -> Asking:
    """The program that is meant.

    Args:
        path: of its socket; None: the only one that there is.

    Raises:
        OperationalError: none runs, or more than one does.
    """
    if path is not None:
        return Asking(what, Path(path))
    found = candidates(what, environ, uid)
    alive = [candidate for candidate in found if _is_alive(candidate)]
    if len(alive) > 1:
        listed = ", ".join(str(candidate) for candidate in alive)
        raise OperationalError(f"{len(alive)} {what}s run here: choose one with --control-socket: {listed}")
    if not alive:
        raise OperationalError(f"no {what} runs here, or it has no control socket: --control-socket names another one")
    return Asking(what, alive[0])


def _is_alive(path: Path) -> bool:
    """Also where this user may not ask: then it is to be said so."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(os.fspath(path)) not in (errno.ECONNREFUSED, errno.ENOENT)
