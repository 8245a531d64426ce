"""A command's way to the program that it asks: what it says of answers that are no such program's, or of none."""

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from candy.control.client import Asking
from candy.errors import OperationalError, RequestError


def http(status: str, server: str | None, content: str) -> bytes:
    head = "" if server is None else f"Server: {server}\r\n"
    return f"HTTP/1.1 {status}\r\n{head}Content-Length: {len(content)}\r\n\r\n{content}".encode()


def asked(path: Path, said: bytes) -> Any:
    """What a relay's command makes of a program that listens at this path and says just that."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            connected, _ = listener.accept()
            with connected:
                connected.recv(1000)
                connected.sendall(said)

        answering = threading.Thread(target=answer)
        answering.start()
        asking = Asking("relay", path)
        try:
            return asking.ask("GET", "/v1/status")
        finally:
            asking.close()
            answering.join()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control"


def test_an_answer_and_a_refusal(path: Path) -> None:
    assert asked(path, http("200 OK", "candy-relay", '{"pid": 1}')) == {"pid": 1}
    path.unlink()
    with pytest.raises(RequestError, match=r"^no such member$") as caught:
        asked(path, http("404 Not Found", "candy-relay", '{"error": "no such member"}'))
    assert caught.value.status == 404


@pytest.mark.parametrize(
    "said",
    [
        http("200 OK", "candy-member", '{"pid": 1}'),
        http("404 Not Found", "Docker/25.0 (linux)", '{"message": "page not found"}'),
        http("200 OK", None, "<html>"),
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
)
def test_another_programs_socket(path: Path, said: bytes) -> None:
    with pytest.raises(OperationalError) as caught:
        asked(path, said)
    assert str(caught.value) == f"{path} is not the control socket of a relay: name another one"


def test_a_fault_in_the_program(path: Path) -> None:
    with pytest.raises(OperationalError, match=r"^a fault in the relay kept it from answering: see its log$"):
        asked(path, http("500 Internal Server Error", "candy-relay", "500 Internal Server Error"))


@pytest.mark.parametrize("said", [b"", http("200 OK", "candy-relay", '{"pid": 1}')[:-1]])
def test_a_program_that_ends_meanwhile(path: Path, said: bytes) -> None:
    with pytest.raises(OperationalError, match=r"^the relay ended before it had answered \("):
        asked(path, said)
