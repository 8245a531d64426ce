"""Names that have no address, and a name server that does not answer."""

import socket
import threading

import pytest
from lab.answering import SOON_S, failure

from candy.member.dial import Dialer
from candy.member.resolve import literal, text_of

pytestmark = pytest.mark.usefixtures("no_proxy_of_the_machine")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            "relay.test: name not found: check the spelling, and this machine's name server",
        ),
        (
            socket.gaierror(socket.EAI_NODATA, "No address associated with hostname"),
            "relay.test: name not found: check the spelling, and this machine's name server",
        ),
        (
            socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
            "relay.test: the name server does not answer: is this machine online?",
        ),
        (UnicodeError("label too long"), "relay.test: not a host name (label too long)"),
    ],
)
async def test_names_that_are_not_found(monkeypatch: pytest.MonkeyPatch, error: Exception, text: str) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert await failure(Dialer("ws://relay.test:26816")) == text


async def test_an_interface_that_is_not_there() -> None:
    why = await failure(Dialer("ws://[fe80::1%25nowhere0]:26816"))
    assert why == "fe80::1%nowhere0: this machine has no interface nowhere0"


def test_addresses_keep_their_interface() -> None:
    """The system has it as a number beside the address, and a text that is kept would lose that."""
    own = socket.if_nametoindex("lo")
    known = [
        text_of(address) for address in (("fe80::1", 26816, 0, own), ("2001:db8::1", 26816, 0, 0), ("10.0.0.1", 1))
    ]
    assert known == ["fe80::1%lo", "2001:db8::1", "10.0.0.1"]
    assert [address[4] for address in literal(known, 7)] == [("fe80::1%lo", 7), ("2001:db8::1", 7), ("10.0.0.1", 7)]
    assert [text_of(address[4]) for address in literal(known, 7)] == known


async def test_a_silent_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    late = threading.Event()

    def wait(*_: object, **__: object) -> list[object]:
        late.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", wait)
    try:
        why = await failure(Dialer("ws://relay.test"), attempt_s=SOON_S)
    finally:
        # Nothing else ends its thread.
        late.set()
    assert why == "no success within 0.5 s, while looking up relay.test"
