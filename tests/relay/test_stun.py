"""The relay's STUN responder: where it listens, and what it says where it can't."""

import re
import socket
from ipaddress import ip_address

import pytest

from candy._fastpath import Engine
from candy.protocol import stun as protocol
from candy.protocol.linking import Endpoint
from candy.relay import stun


def asked(address: tuple[str, int]) -> tuple[protocol.Seen, Endpoint]:
    """What is answered at an address, and to whom."""
    id = b"twelve bytes"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.settimeout(10)
        opened.bind(("127.0.0.1", 0))
        opened.connect(address)
        opened.send(protocol.request(id))
        own = opened.getsockname()
        return protocol.answer(opened.recv(1500), id), Endpoint(ip_address(own[0]), own[1])


@pytest.mark.parametrize("is_next_taken", [False, True])
def test_it_answers_on_two_ports(is_next_taken: bool) -> None:
    engine = Engine(1)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(type=socket.SOCK_DGRAM) as other:
        port = listener.getsockname()[1]
        if is_next_taken:
            other.bind(("127.0.0.1", port + 1))
        try:
            stun.serve(stun.places(None, [listener]), engine)
            seen, own = asked(("127.0.0.1", port))
            assert seen.mapped == own
            assert seen.other is not None
            assert (seen.other.port == port + 1) is not is_next_taken
            again, own = asked(("127.0.0.1", seen.other.port))
            assert again.mapped == own
        finally:
            engine.stop()


def test_a_taken_port_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine(1)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(type=socket.SOCK_DGRAM) as other:
        other.bind(listener.getsockname())
        stun.serve(stun.places(None, [listener]), engine)
    engine.stop()
    [line] = caplog.messages
    assert re.match(r"no STUN on UDP 127\.0\.0\.1:\d+: Address already in use: members behind NATs", line)


def test_it_answers_where_the_settings_say() -> None:
    """Not where the relay listens, which is for a web server."""
    engine = Engine(1)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(type=socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.2", 0))
        wanted = free.getsockname()
        free.close()
        try:
            stun.serve(stun.places(wanted, [listener]), engine)
            seen, own = asked(wanted)
            assert seen.mapped == own
            with pytest.raises(ConnectionRefusedError):
                asked(listener.getsockname())
        finally:
            engine.stop()


def test_it_answers_by_ipv6() -> None:
    assert stun.places(("::1", 443), []) == [(socket.AF_INET6, ("::1", 443))]
