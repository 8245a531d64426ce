"""TLS records, changed on the way in every manner: what is opened is what was sent, in order, and nothing else.

An attacker between a member and its relay turns bits over; leaves out, doubles, exchanges and cuts records and parts of
them; and puts bytes in between. `make asan` runs it with the address sanitizer, `make fuzz` for longer.
"""

import socket
import ssl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.meeting import Meeting, member
from kit.peer import BINARY, EngineRelay, numbered
from kit.secure import Secured, records

pytestmark = pytest.mark.engine

A, B = 0x0A000001, 0x0A000002
SIZES = st.integers(21, 3000) | st.sampled_from((16370, 16384, 40000, 65000))
PLACE = st.integers(0, 1 << 17)
"""Modulo what there is."""
CHANGES = st.one_of(
    st.tuples(st.just("flip"), PLACE, st.integers(1, 255)),
    st.tuples(st.just("cut"), PLACE, st.integers(1, 5000)),
    st.tuples(st.just("insert"), PLACE, st.binary(min_size=1, max_size=60)),
    st.tuples(st.just("leave out"), PLACE, st.none()),
    st.tuples(st.just("double"), PLACE, st.none()),
    st.tuples(st.just("exchange"), PLACE, st.none()),
    st.tuples(st.just("header"), PLACE, st.binary(min_size=5, max_size=5)),
)
CAUSES = {"eof", "truncated", "tls_error"}


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Secured:
    folder: Path = tmp_path_factory.mktemp("secured")
    return Secured(folder)


def changed(stream: bytes, kind: str, place: int, detail: object) -> bytes:
    parts = records(stream)
    n = place % len(parts)
    at = place % len(stream)
    match kind, detail:
        case "flip", int(mask):
            return stream[:at] + bytes([stream[at] ^ mask]) + stream[at + 1 :]
        case "cut", int(size):
            return stream[:at] + stream[at + size :]
        case "insert", bytes(more):
            return stream[:at] + more + stream[at:]
        case "header", bytes(header):
            parts[n] = header + parts[n][5:]
        case "leave out", _:
            del parts[n]
        case "double", _:
            parts.insert(n, parts[n])
        case "exchange", _:
            parts[n], parts[0] = parts[0], parts[n]
    return b"".join(parts)


@given(
    version=st.sampled_from((ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)),
    sizes=st.lists(SIZES, min_size=1, max_size=6),
    changes=st.lists(CHANGES, max_size=3),
    steps=st.lists(st.integers(1, 70000), max_size=4),
    closed=st.booleans(),
)
def test_changed_records(
    secured: Secured,
    version: ssl.TLSVersion,
    sizes: list[int],
    changes: list[tuple[str, int, object]],
    steps: list[int],
    closed: bool,
) -> None:
    sent = [numbered(A, B, n, size) for n, size in enumerate(sizes)]
    with EngineRelay() as relay:
        one = member(relay, secured, A, version=version)
        other = relay.member(B)
        one.peer.sync()
        sealed = b"".join(one.tls.seal(one.peer.frame(BINARY, payload)) for payload in sent)
        whole = sealed
        for kind, place, detail in changes:
            sealed = changed(sealed, kind, place, detail) if sealed else sealed
        if closed:
            sealed += _farewell(one)
        stream = sealed
        for step in steps:
            send(one, stream[:step])
            stream = stream[step:]
        send(one, stream)
        one.raw.shutdown(socket.SHUT_WR)
        cause = one.cause()
        received = [frame.payload for frame in other.sync()]
        assert received == sent[: len(received)]
        assert cause in CAUSES
        if sealed.startswith(whole):
            assert received == sent
            assert cause == ("eof" if closed else "truncated") or sealed != whole


def _farewell(one: Meeting) -> bytes:
    with pytest.raises(ssl.SSLWantReadError):
        one.tls.object.unwrap()
    return one.tls.outgoing.read()


def send(one: Meeting, data: bytes) -> None:
    """What comes behind the end is nobody's."""
    try:
        one.raw.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        return
    if data:
        one.peer.wait_until_read()
