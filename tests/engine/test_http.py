"""HTTP between a TLS handshake and the frames: what passes up and down, what waits, and every way to end."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from kit.peer import BINARY, PATIENCE, PING, EngineRelay, Peer, numbered, patience_ms, sealed, tcp_pair
from kit.secure import APPLICATION_DATA, Secured, TlsSocket, records, sealer_of

from candy import _fastpath

pytestmark = pytest.mark.engine

A, B = 0x0A000001, 0x0A000002
REQUEST = b"GET /path HTTP/1.1\r\nHost: relay\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


class Guest:
    """A connection with TLS in the engine, Python's end of its HTTP, and the peer's end."""

    def __init__(
        self,
        relay: EngineRelay,
        secured: Secured,
        *,
        client: bool = False,
        deadline: float | None = None,
        version: ssl.TLSVersion | None = None,
        tcp: bool = True,
        candy3: bool = False,
    ) -> None:
        self.relay = relay
        ours, theirs = tcp_pair() if tcp else socket.socketpair()
        self.tls: TlsSocket = secured.peer(ours, client=client, version=version)
        self.peer = Peer(self.tls, masking=not client, candy3=candy3)
        relay.peers.append(self.peer)
        context = secured.context(client=client)
        self.fd = theirs.fileno()
        """The engine's, while the connection is there."""
        self.connection = relay.engine.begin_tls(theirs.detach(), tls=context, client=client, deadline=deadline)
        self.peer.connection = self.connection
        self.python: socket.socket

    def open(self) -> None:
        """The handshake, and Python's socket."""
        self.tls.handshake()
        assert self.relay.details(self.connection, _fastpath.EVENT_SECURED) == [b""]
        self.python, given = socket.socketpair()
        self.python.settimeout(PATIENCE)
        assert self.relay.engine.open_http(self.connection, given.detach())

    def up(self, size: int) -> bytes:
        """So many bytes that Python gets."""
        received = b""
        while len(received) < size:
            data = self.python.recv(size - len(received))
            assert data, received
            received += data
        return received

    def is_quiet(self) -> bool:
        """Python gets nothing more, once the engine has had a turn for this connection."""
        self.python.sendall(b"!")
        assert self.tls.recv(1) == b"!"
        return _some(self.python) == b""

    def down(self, size: int) -> bytes:
        """So many bytes that the peer gets."""
        received = b""
        while len(received) < size:
            data = self.tls.recv(size - len(received))
            assert data, received
            received += data
        return received

    def cause(self) -> str:
        return self.relay.cause(self.connection)


@contextmanager
def guest(
    secured: Secured,
    *,
    client: bool = False,
    version: ssl.TLSVersion | None = None,
    tcp: bool = True,
    candy3: bool = False,
) -> Iterator[Guest]:
    with EngineRelay(max_guests=4) as relay:
        made = Guest(relay, secured, client=client, version=version, tcp=tcp, candy3=candy3)
        made.open()
        with made.python:
            yield made


# ------------------------------------------------------------------------------------------------------------- a server


def test_a_head_passes_and_what_follows_waits(secured: Secured) -> None:
    with guest(secured) as one:
        assert one.relay.details(one.connection, _fastpath.EVENT_HELLO) == [b""]
        one.tls.sendall(REQUEST + b"behind" + REQUEST)
        assert one.up(len(REQUEST)) == REQUEST
        assert one.is_quiet()
        assert one.relay.engine.pass_http(one.connection)
        assert one.up(6 + len(REQUEST)) == b"behind" + REQUEST


@pytest.mark.parametrize(
    ("head", "behind"),
    [
        (b"\r\n\n" + REQUEST, b"x"),
        (REQUEST.replace(b"\r\n", b"\n"), b"x"),
        (b"G\n\n", b"\n"),
        (b"G\r\n\r\n", b"\r\n\r\n"),
        (b"G" + bytes(range(14, 256)) * 300 + b"\r\n\r\n", b"\r\n"),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 16384])
def test_where_a_head_ends(secured: Secured, head: bytes, behind: bytes, step: int) -> None:
    if step == 1 and len(head) > 1000:
        step = 997
    with guest(secured) as one:
        whole = head + behind
        for at in range(0, len(whole), step):
            one.tls.sendall(whole[at : at + step])
        assert one.up(len(head)) == head
        assert one.is_quiet()


def test_answers_and_keep_alive(secured: Secured) -> None:
    with guest(secured) as one:
        for number in range(3):
            one.tls.sendall(REQUEST)
            assert one.up(len(REQUEST)) == REQUEST
            assert one.relay.engine.pass_http(one.connection)
            answer = b"HTTP/1.1 200 OK\r\n\r\n" + bytes([number]) * 50_000
            one.python.sendall(answer)
            assert one.down(len(answer)) == answer


@pytest.mark.parametrize("ahead", [1, 3])
def test_frames_come_behind_the_upgrade(secured: Secured, ahead: int) -> None:
    """Those that came together with the request among them."""
    with guest(secured) as one:
        frames = b"".join(one.peer.frame(PING, b"%d" % number) for number in range(ahead))
        one.tls.sendall(REQUEST + frames)
        assert one.up(len(REQUEST)) == REQUEST
        assert one.relay.engine.upgrade(one.connection, preamble=SWITCHING, extended=True)
        assert one.down(len(SWITCHING)) == SWITCHING
        assert [one.peer.receive().payload for _ in range(ahead)] == [b"%d" % number for number in range(ahead)]
        assert one.python.recv(1) == b""
        one.peer.send(PING, b"later")
        assert one.peer.receive().payload == b"later"
        assert one.relay.engine.stats()["guests"] == 0
        assert one.relay.engine.stats()["connections"] == 1


@pytest.mark.parametrize(("is_trunk", "expected_ms"), [(False, 45000), (True, 5000)])
def test_the_kernel_gives_a_link_between_relays_up_sooner(secured: Secured, is_trunk: bool, expected_ms: int) -> None:
    with guest(secured) as one:
        assert patience_ms(one.fd) == 45000
        assert one.relay.engine.upgrade(one.connection, preamble=SWITCHING, trunk=is_trunk)
        assert patience_ms(one.fd) == expected_ms


def test_an_upgrade_to_candy_3(secured: Secured) -> None:
    """Masks pass through to the peer and from it, in frames that are longer than any of candy.2."""
    with guest(secured, candy3=True) as one:
        engine = one.relay.engine
        one.tls.sendall(REQUEST + one.peer.frame(PING, b"1"))
        assert one.up(len(REQUEST)) == REQUEST
        assert engine.upgrade(one.connection, preamble=SWITCHING, extended=_fastpath.CANDY3)
        assert one.down(len(SWITCHING)) == SWITCHING
        assert one.peer.receive().payload == b"1"
        assert engine.bind(one.connection, A)
        other = one.relay.member(B, extended=_fastpath.CANDY3)
        for source, sender, destination, receiver in ((A, one.peer, B, other), (B, other, A, one.peer)):
            longest = sealed(source, destination, bytes(range(251)) * 261 + bytes(54))
            assert len(longest) == 65_589
            sender.forward(longest)
            frame = receiver.receive()
            assert (frame.payload, frame.passed) == (longest, True)
        assert one.relay.dropped() == {}


@pytest.mark.parametrize("cut", [1, 4, 5, 20])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_record_that_is_cut_at_the_upgrade(secured: Secured, version: ssl.TLSVersion, cut: int) -> None:
    """What has come of it moves to the connection's home, and both directions go on with the number that is next."""
    with guest(secured, version=version) as one:
        whole = one.tls.seal(REQUEST + one.peer.frame(PING, b"1"))
        last = one.tls.seal(one.peer.frame(PING, b"2"))
        one.tls.sock.sendall(whole + last[:cut])
        assert one.up(len(REQUEST)) == REQUEST
        assert one.is_quiet()
        assert one.relay.engine.upgrade(one.connection, preamble=SWITCHING, extended=True)
        assert one.down(len(SWITCHING)) == SWITCHING
        assert one.peer.receive().payload == b"1"
        one.tls.sock.sendall(last[cut:])
        assert one.peer.receive().payload == b"2"


def test_new_keys_at_the_upgrade(secured: Secured, tmp_path: Path) -> None:
    """With the request, and again with what follows it: ours come before what is sealed next, on either thread."""
    with EngineRelay(max_guests=4) as relay:
        one = Guest(relay, secured)
        sealer = sealer_of(one.tls, tmp_path / "keys")
        one.open()
        with one.python:
            one.tls.sock.sendall(sealer.key_update(requested=True) + sealer.seal(REQUEST, APPLICATION_DATA))
            assert one.up(len(REQUEST)) == REQUEST
            assert one.is_quiet()
            assert relay.engine.upgrade(one.connection, preamble=SWITCHING, extended=True)
            assert one.down(len(SWITCHING)) == SWITCHING
            frame = one.peer.frame(PING, b"x")
            one.tls.sock.sendall(sealer.key_update(requested=True) + sealer.seal(frame, APPLICATION_DATA))
            assert one.peer.receive().payload == b"x"
            assert [len(r) for r in records(one.tls.raw)].count(27) == 2


def test_what_python_has_written_comes_before_the_101(secured: Secured) -> None:
    with guest(secured, tcp=False) as one:
        one.tls.sendall(REQUEST)
        assert one.up(len(REQUEST)) == REQUEST
        answer = bytes(150_000)
        one.python.sendall(answer)
        assert one.relay.engine.upgrade(one.connection, preamble=SWITCHING)
        one.python.close()
        assert one.down(len(answer)) == answer
        assert one.down(len(SWITCHING)) == SWITCHING
        one.peer.sync()


def test_packets_of_members_that_were_guests(secured: Secured) -> None:
    with EngineRelay(2, max_guests=4) as relay:
        members = []
        for address in (A, B):
            one = Guest(relay, secured)
            one.open()
            one.tls.sendall(REQUEST)
            with one.python:
                one.up(len(REQUEST))
                assert relay.engine.upgrade(one.connection, preamble=SWITCHING, extended=True)
                assert relay.engine.bind(one.connection, address)
                assert one.down(len(SWITCHING)) == SWITCHING
            members.append(one.peer)
        members[0].forward(*(numbered(A, B, n, 1000) for n in range(100)))
        assert [members[1].receive().payload for _ in range(100)] == [numbered(A, B, n, 1000) for n in range(100)]


def test_an_old_members_101_is_a_record_of_its_own(secured: Secured) -> None:
    with guest(secured) as one:
        one.tls.sendall(REQUEST)
        one.up(len(REQUEST))
        one.tls.raw = b""
        assert one.relay.engine.upgrade(one.connection, preamble=SWITCHING)
        one.relay.engine.send(one.connection, b"\6")
        assert one.down(len(SWITCHING)) == SWITCHING
        one.peer.receive()
        assert len([record for record in records(one.tls.raw) if record[0] == APPLICATION_DATA]) == 2


# ------------------------------------------------------------------------------------------------------------- a client


@pytest.mark.parametrize("interim", [b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"])
@pytest.mark.parametrize("step", [1, 16384])
def test_what_follows_a_101_waits(secured: Secured, interim: bytes, step: int) -> None:
    with guest(secured, client=True) as one:
        one.python.sendall(REQUEST)
        assert one.down(len(REQUEST)) == REQUEST
        whole = interim + SWITCHING + one.peer.frame(PING, b"early")
        for at in range(0, len(whole), step):
            one.tls.sendall(whole[at : at + step])
        assert one.up(len(interim + SWITCHING)) == interim + SWITCHING
        assert one.is_quiet()
        assert one.relay.engine.upgrade(one.connection, extended=True)
        assert one.peer.receive().payload == b"early"
        one.peer.send(BINARY, b"\6 message")
        assert one.relay.details(one.connection, _fastpath.EVENT_MESSAGE) == [b"\6 message"]


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 OK\r\n\r\nbody\r\n\r\nand more\r\n\r\n", b"no\r\n\r\nHTTP at all", b"SSH-2.0-OpenSSH_9.2\r\n\r\n."],
)
def test_any_other_answer_passes_whole(secured: Secured, answer: bytes) -> None:
    with guest(secured, client=True) as one:
        one.tls.sendall(answer)
        assert one.up(len(answer)) == answer


# ----------------------------------------------------------------------------------------------------- bounds and ends


@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
def test_megabytes_both_ways_through_what_is_full(secured: Secured, client: bool) -> None:
    """Neither side reads before the other's sockets are full."""
    with guest(secured, client=client, tcp=False) as one:
        up, down = bytes(range(14, 256)) * 10_000, bytes(range(256)) * 10_000
        if not client:
            one.tls.sendall(REQUEST)
            one.up(len(REQUEST))
            assert one.relay.engine.pass_http(one.connection)
        for at in range(0, len(up), 16384):
            one.tls.object.write(up[at : at + 16384])
        sealed, left = one.tls.outgoing.read(), down
        got_up = got_down = b""
        while len(got_up) < len(up) or len(got_down) < len(down):
            before = len(sealed) + len(left)
            sealed, left = _push(one.tls.sock, sealed), _push(one.python, left)
            if len(sealed) + len(left) == before:
                got_up += _some(one.python)
                if data := _some(one.tls.sock):
                    one.tls.incoming.write(data)
                with suppress(ssl.SSLWantReadError):
                    while data := one.tls.object.read(1 << 20):
                        got_down += data
        assert got_up == up
        assert got_down == down


def _push(sock: socket.socket, data: bytes) -> bytes:
    """Send what the socket takes; the rest."""
    sock.settimeout(0)
    try:
        return data[sock.send(data) :] if data else data
    except BlockingIOError:
        return data
    finally:
        sock.settimeout(PATIENCE)


def _some(sock: socket.socket) -> bytes:
    """What has come by now."""
    sock.settimeout(0)
    try:
        return sock.recv(1 << 20)
    except BlockingIOError:
        return b""
    finally:
        sock.settimeout(PATIENCE)


def test_pythons_end_waits_for_the_peers(secured: Secured) -> None:
    """A reset would cost it the last answer."""
    with guest(secured) as one:
        one.tls.sendall(REQUEST + bytes(200_000))
        one.up(len(REQUEST))
        one.python.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        one.python.close()
        assert one.down(28) == b"HTTP/1.1 400 Bad Request\r\n\r\n"
        assert one.tls.recv(1) == b""
        one.tls.sock.sendall(bytes(100_000))
        one.tls.sock.close()
        assert one.cause() == "local"


def test_a_peer_that_does_not_end_behind_pythons_end(secured: Secured) -> None:
    with guest(secured) as one:
        one.python.close()
        assert one.tls.recv(1) == b""
        assert one.cause() == "local"


def test_a_peer_that_goes_on_and_on_behind_pythons_end(secured: Secured) -> None:
    with guest(secured, tcp=False) as one:
        one.python.close()
        sent = 0
        with suppress(BrokenPipeError, ConnectionResetError):
            while sent < 64 << 20:
                sent += one.tls.sock.send(bytes(1 << 20))
        assert 4 << 20 < sent < 6 << 20
        assert one.cause() == "local"


def test_the_peers_end(secured: Secured) -> None:
    with guest(secured) as one:
        one.tls.sendall(b"GET")
        one.tls.shutdown(socket.SHUT_WR)
        assert one.up(3) == b"GET"
        assert one.python.recv(1) == b""
        one.python.close()
        assert one.cause() == "local"


@pytest.mark.parametrize(
    ("last", "cause"), [(b"", "truncated"), (b"\x17\x03\x03\0\x20" + bytes(32), "tls_error"), (b"GET", "tls_error")]
)
def test_a_stream_that_breaks(secured: Secured, last: bytes, cause: str) -> None:
    with guest(secured) as one:
        one.tls.sock.sendall(last)
        if not last:
            one.tls.sock.shutdown(socket.SHUT_WR)
        else:
            one.tls.sock.sendall(bytes(20))
        assert one.python.recv(1) == b""
        assert one.cause() == cause


@pytest.mark.parametrize("at", ["begun", "secured", "opened", "held"])
def test_a_close_of_ours(secured: Secured, at: str) -> None:
    with EngineRelay(max_guests=1) as relay:
        one = Guest(relay, secured)
        if at == "secured":
            one.tls.handshake()
            assert relay.details(one.connection, _fastpath.EVENT_SECURED)
        elif at != "begun":
            one.open()
        if at == "held":
            one.tls.sendall(REQUEST)
            one.up(len(REQUEST))
        assert relay.engine.close(one.connection)
        assert one.cause() == "local"
        if at in ("opened", "held"):
            assert one.python.recv(1) == b""
            assert one.tls.recv(1) == b""
            one.python.close()
        assert not relay.engine.close(one.connection)
        assert not relay.engine.upgrade(one.connection)
        assert not relay.engine.pass_http(one.connection)
        assert not relay.engine.open_http(one.connection, 0)
        assert relay.engine.stats()["guests"] == 0


def test_the_deadline_is_the_handshakes(secured: Secured) -> None:
    with EngineRelay(max_guests=2) as relay:
        late = Guest(relay, secured, deadline=0.05)
        assert late.cause() == "handshake_timeout"
        one = Guest(relay, secured)
        one.open()
        with one.python:
            one.tls.sendall(REQUEST)
            assert one.up(len(REQUEST)) == REQUEST


def test_guests_are_counted_for_themselves(secured: Secured) -> None:
    with EngineRelay(max_guests=2, max_connections=1) as relay:
        guests = [Guest(relay, secured) for _ in range(2)]
        with pytest.raises(OSError, match="all 2 guests"):
            Guest(relay, secured)
        for one in guests:
            one.open()
            one.tls.sendall(REQUEST)
            one.up(len(REQUEST))
        assert relay.engine.upgrade(guests[0].connection, preamble=SWITCHING)
        with pytest.raises(OSError, match="all 1 connections"):
            relay.engine.upgrade(guests[1].connection)
        guests[1].python.sendall(b"HTTP/1.1 503 \r\n\r\n")
        assert guests[1].down(17) == b"HTTP/1.1 503 \r\n\r\n"
        for one in guests:
            one.python.close()
        assert relay.cause(guests[1].connection) == "local"
        assert relay.engine.stats()["guests"] == 0
        assert relay.engine.stats()["connections"] == 1


def test_what_a_guest_is_not_asked_for(secured: Secured) -> None:
    with guest(secured) as one:
        engine = one.relay.engine
        assert not engine.bind(one.connection, A)
        assert not engine.send(one.connection, b"\6")
        assert engine.connection_stats(one.connection) is None
        assert not engine.open_http(one.connection, one.python.fileno())
        with pytest.raises(ValueError, match="no network 7"):
            engine.upgrade(one.connection, network=7)
        with pytest.raises(ValueError, match="ping_after"):
            engine.upgrade(one.connection, ping_after=-1)
        with pytest.raises(ValueError, match="extended is 0, 1 or"):
            engine.upgrade(one.connection, extended=_fastpath.CANDY3 + 1)


def test_the_end_of_an_engine_with_guests(secured: Secured) -> None:
    with EngineRelay(max_guests=3) as relay:
        for step in range(3):
            one = Guest(relay, secured)
            if step:
                one.open()
                one.python.close()
