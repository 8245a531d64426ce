"""TLS in the engine, at either end, against Python's ssl on memory BIOs: handshakes, records, and every way to end.

What does not depend on the carrier is tested over both by the modules that use the fixture `carrier`.
"""

import hashlib
import os
import resource
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate
from hypothesis import given
from hypothesis import strategies as st
from kit.meeting import Insider, Meeting, member
from kit.peer import BINARY, CLOSE, FORWARD, PATIENCE, PING, PONG, EngineRelay, numbered, packet
from kit.secure import ALERT, APPLICATION_DATA, HANDSHAKE, NAME, Secured, TlsSocket, records

from candy import _fastpath
from candy._fastpath import TlsContext

pytestmark = pytest.mark.engine

A, B = 0x0A000001, 0x0A000002
CIPHERS = {
    ssl.TLSVersion.TLSv1_2: ("ECDHE-ECDSA-AES128-GCM-SHA256", "TLSv1.2", 128),
    ssl.TLSVersion.TLSv1_3: ("TLS_AES_128_GCM_SHA256", "TLSv1.3", 128),
}
"""What a server of ours chooses of all that Python's client offers."""
VERSIONS = list(CIPHERS)


def public_key(secured: Secured) -> bytes:
    """SHA-256 of what a pin is over."""
    key = load_pem_x509_certificate(secured.chain.read_bytes()).public_key()
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


# ------------------------------------------------------------------------------------------------------------ library


def test_the_library_is_pythons() -> None:
    assert _fastpath.openssl_version() == ssl.OPENSSL_VERSION


def test_pythons_queue_of_errors_is_left_empty(secured: Secured, tmp_path: Path) -> None:
    """An error that OpenSSL's queue still had would be told of Python's next connection."""
    with pytest.raises(ValueError, match="no start line"):
        TlsContext.server((__file__, secured.key))
    with pytest.raises(ValueError, match=r"\w"):
        TlsContext.server((secured.chain, _encrypted(tmp_path)))
    one, other = socket.socketpair()
    with one, other:
        tls = TlsSocket(one, ssl.create_default_context(), name=NAME)
        other.sendall(b"no TLS at all")
        with pytest.raises(ssl.SSLError, match="WRONG_VERSION_NUMBER"):
            tls.handshake()


def _encrypted(folder: Path) -> Path:
    key = folder / "encrypted.pem"
    command = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
    subprocess.run([*command, "-aes128", "-pass", "pass:x", "-out", str(key)], check=True, capture_output=True)
    return key


@pytest.mark.parametrize("other", [trustme.KeyType.ECDSA, trustme.KeyType.RSA])
def test_a_key_of_another_certificate(secured: Secured, tmp_path: Path, other: trustme.KeyType) -> None:
    foreign = Secured(tmp_path, key_type=other)
    with pytest.raises(ValueError, match=r"key values mismatch|no certificate assigned|key type mismatch"):
        TlsContext.server((secured.chain, foreign.key))


def test_contexts_that_can_not_be() -> None:
    with pytest.raises(TypeError):
        TlsContext()
    with pytest.raises(ValueError, match="certificate"):
        TlsContext.server()
    with pytest.raises(ValueError, match="32 bytes"):
        TlsContext.connecting(NAME, pins=(b"short",))
    with pytest.raises(ValueError, match=r"\w"):
        TlsContext.connecting(NAME, ca_file="/nonexistent")


def test_a_context_of_the_other_side(secured: Secured) -> None:
    with EngineRelay() as relay:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            for client in (False, True):
                with pytest.raises(ValueError, match="other side"):
                    relay.engine.adopt(theirs.fileno(), tls=secured.context(client=not client), client=client)
            with pytest.raises(ValueError, match="nothing"):
                relay.engine.adopt(theirs.fileno(), tls=secured.server, tail=b"x")
            assert relay.engine.stats()["connections"] == 0


# ---------------------------------------------------------------------------------------------------------- handshakes


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
def test_frames_both_ways(secured: Secured, version: ssl.TLSVersion, client: bool) -> None:
    with EngineRelay() as relay:
        meeting = Meeting(relay, secured, client=client, version=version)
        meeting.peer.send(PING, b"one")
        assert meeting.peer.receive().payload == b"one"
        assert client or meeting.tls.object.cipher() == CIPHERS[version]
        relay.engine.send(meeting.connection, b"\6 from Python")
        assert meeting.peer.receive().payload == b"\6 from Python"
        meeting.peer.send(BINARY, b"\6 for Python")
        assert relay.details(meeting.connection, _fastpath.EVENT_MESSAGE) == [b"\6 for Python"]


@pytest.mark.parametrize("cipher", ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"])
@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
def test_each_cipher_of_tls12(secured: Secured, cipher: str, client: bool) -> None:
    with EngineRelay() as relay:
        meeting = Meeting(
            relay, secured, client=client, version=ssl.TLSVersion.TLSv1_2, ciphers=f"ECDHE-ECDSA-{cipher}"
        )
        for size in (0, 1, 125):
            meeting.peer.send(PING, bytes(size))
            assert meeting.peer.receive().payload == bytes(size)
        assert cipher in str(meeting.tls.object.cipher())


OPENSSL = ["openssl", "s_client", "-quiet", "-connect"]


@pytest.mark.parametrize(
    "options",
    [
        ["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"],
        ["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"],
        ["-tls1_3", "-maxfraglen", "512"],
        ["-tls1_2", "-maxfraglen", "512"],
    ],
    ids=lambda options: options[-1] + options[0],
)
def test_what_only_openssls_client_can(secured: Secured, options: list[str]) -> None:
    """The other suites of TLS 1.3, and records no longer than a client asks for (RFC 6066): it refuses longer ones."""
    with EngineRelay() as relay, socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        command = [*OPENSSL, f"127.0.0.1:{listener.getsockname()[1]}", *options]
        client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        with client:
            connection = relay.engine.adopt(listener.accept()[0].detach(), tls=secured.server)
            relay.engine.send(connection, b"\6" * 1400)
            assert client.stdout is not None
            assert client.stdout.read(1404) == b"\x82\x7e\x05\x78" + b"\6" * 1400
            relay.engine.close(connection)
            assert client.stdout.read() == b""


@pytest.mark.parametrize("key_type", list(trustme.KeyType))
def test_both_kinds_of_key(tmp_path: Path, key_type: trustme.KeyType) -> None:
    secured = Secured(tmp_path, key_type=key_type)
    with EngineRelay() as relay:
        for client in (False, True):
            Meeting(relay, secured, client=client).peer.sync()


def test_a_handshake_byte_by_byte(secured: Secured) -> None:
    with EngineRelay() as relay:
        meeting = Meeting(relay, secured, tcp=True)
        with pytest.raises(ssl.SSLWantReadError):
            meeting.tls.object.do_handshake()
        for byte in meeting.tls.outgoing.read():
            meeting.raw.sendall(bytes([byte]))
        meeting.peer.sync()


def test_what_comes_with_the_last_flight(secured: Secured) -> None:
    """The client's Finished and its first frames in one: the thread of handshakes leaves those to the worker."""
    with EngineRelay() as relay:
        meeting = Meeting(relay, secured, version=ssl.TLSVersion.TLSv1_3)
        with pytest.raises(ssl.SSLWantReadError):
            meeting.tls.object.do_handshake()
        meeting.tls.flush()
        while True:
            meeting.tls.fill()
            try:
                meeting.tls.object.do_handshake()
            except ssl.SSLWantReadError:
                continue
            break
        meeting.tls.object.write(meeting.peer.frame(PING, b"early"))
        meeting.tls.object.write(meeting.peer.frame(PING, b"bird"))
        meeting.tls.flush()
        assert [meeting.peer.receive().payload for _ in range(2)] == [b"early", b"bird"]


def test_the_preamble_is_the_first_that_is_sealed(secured: Secured) -> None:
    for extended in (True, False):
        with EngineRelay() as relay:
            meeting = Meeting(relay, secured, preamble=b"HTTP/1.1 101 !\r\n\r\n", extended=extended)
            relay.engine.send(meeting.connection, b"\6")
            assert meeting.tls.recv(18) == b"HTTP/1.1 101 !\r\n\r\n"
            assert meeting.peer.receive().payload == b"\6"


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff", b"\x17\x03\x03\0\1x"])
def test_what_is_no_handshake(secured: Secured, first: bytes) -> None:
    with EngineRelay() as relay:
        meeting = Meeting(relay, secured)
        meeting.raw.sendall(first)
        assert meeting.cause() == "handshake_failed"


def test_a_whole_record_that_is_no_hello(secured: Secured) -> None:
    with EngineRelay() as relay:
        meeting = Meeting(relay, secured)
        meeting.raw.sendall(b"\x16\x03\x01\0\5hello")
        assert meeting.cause() == "handshake_failed"
        assert meeting.words()[0] == 0
        [alert] = records(meeting.raw.recv(100))
        assert alert[0] == ALERT


@pytest.mark.parametrize("cut", [0, 3, 5, 50])
def test_an_end_within_the_hello(secured: Secured, cut: int) -> None:
    with EngineRelay() as relay:
        meeting = Meeting(relay, secured, tcp=True)
        with pytest.raises(ssl.SSLWantReadError):
            meeting.tls.object.do_handshake()
        meeting.raw.sendall(meeting.tls.outgoing.read()[:cut])
        meeting.raw.shutdown(socket.SHUT_WR)
        assert meeting.cause() == "eof"


@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
@pytest.mark.parametrize("steps", [0, 1])
def test_a_peer_that_stops_in_the_handshake(secured: Secured, client: bool, steps: int) -> None:
    """Without a word, or after its first flight."""
    with EngineRelay(tls_deadline=0.3) as relay:
        meeting = Meeting(relay, secured, client=client)
        if steps:
            if client:
                meeting.tls.fill()
            with pytest.raises(ssl.SSLWantReadError):
                meeting.tls.object.do_handshake()
            # Of a server's flight, as much as gives no record that would deserve an answer.
            meeting.raw.sendall(meeting.tls.outgoing.read(200 if client else -1))
        assert meeting.cause() == "handshake_timeout"


def test_the_end_of_an_engine_with_handshakes_on_their_way(secured: Secured) -> None:
    with EngineRelay() as relay:
        for client in (False, True):
            Meeting(relay, secured, client=client)
            Meeting(relay, secured, client=client).peer.sync()


@pytest.mark.parametrize("code", [None, 1001])
def test_a_close_in_the_handshake(secured: Secured, code: int | None) -> None:
    with EngineRelay() as relay:
        meeting = Meeting(relay, secured)
        assert relay.engine.close(meeting.connection, code)
        assert meeting.cause() == "local"
        assert not relay.engine.close(meeting.connection)


# ---------------------------------------------------------------------------------------------- the peer's certificate


def test_names_and_addresses(secured: Secured) -> None:
    for name in (NAME, "127.0.0.1"):
        with EngineRelay() as relay:
            context = TlsContext.connecting(name, ca_file=secured.ca_file)
            Meeting(relay, secured, client=True, context=context).peer.sync()


REFUSED: dict[str, tuple[Callable[[Secured], TlsContext], int, str]] = {
    "another name": (lambda s: TlsContext.connecting("other.test", ca_file=s.ca_file), 62, "hostname mismatch"),
    "another address": (lambda s: TlsContext.connecting("127.0.0.2", ca_file=s.ca_file), 64, "IP address mismatch"),
    "unknown authority": (lambda _: TlsContext.connecting(NAME), 20, "unable to get local issuer certificate"),
    "another key": (
        lambda s: TlsContext.connecting(NAME, ca_file=s.ca_file, pins=(bytes(32),)),
        0,
        "another key than the pinned one",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_certificate_that_will_not_do(secured: Secured, name: str) -> None:
    make, verdict, words = REFUSED[name]
    with EngineRelay() as relay:
        meeting = Meeting(relay, secured, client=True, context=make(secured))
        with pytest.raises((ssl.SSLError, EOFError, OSError)):
            meeting.peer.receive()
        assert meeting.cause() == "handshake_failed"
        assert meeting.words() == (verdict, words)


@pytest.mark.parametrize(
    "make",
    [
        lambda s: TlsContext.connecting("other.test", insecure=True),
        lambda s: TlsContext.connecting("other.test", pins=(public_key(s),)),
    ],
    ids=["insecure", "pin"],
)
def test_certificates_that_no_authority_knows(secured: Secured, make: Callable[[Secured], TlsContext]) -> None:
    with EngineRelay() as relay:
        Meeting(relay, secured, client=True, context=make(secured)).peer.sync()


# ------------------------------------------------------------------------------------------------------------- records


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", [64, 1400, 16384, 40000, 65000])
def test_packets_of_any_size(secured: Secured, version: ssl.TLSVersion, size: int) -> None:
    with EngineRelay() as relay:
        one, other = (member(relay, secured, address, version=version) for address in (A, B))
        for at in range(0, 40, 8):
            sent = [numbered(A, B, n, size) for n in range(at, at + 8)]
            one.peer.forward(*sent)
            assert [other.peer.receive().payload for _ in sent] == sent
        assert relay.dropped() == {}


def test_frames_in_tiny_records(secured: Secured) -> None:
    """A frame may begin and end anywhere in a record, and another connection may have the buffer in between."""
    with EngineRelay() as relay:
        one, other = member(relay, secured, A), member(relay, secured, B)
        sent = [numbered(A, B, n, 3000) for n in range(5)]
        stream = b"".join(one.peer.frame(BINARY, payload) for payload in sent)
        for at in range(0, len(stream), 701):
            one.tls.sendall(stream[at : at + 701])
            one.peer.sock.sendall(b"")
            other.peer.sync() if at == 0 else other.peer.send(PING, b"x")
        received = [f.payload for f in other.peer.receive_until(PONG, b"x") if f.opcode == BINARY]
        while len(received) < len(sent):
            frame = other.peer.receive()
            if frame.opcode == BINARY:
                received.append(frame.payload)
        assert received == sent


def test_a_record_in_pieces(secured: Secured) -> None:
    with EngineRelay() as relay:
        one, other = member(relay, secured, A), member(relay, secured, B)
        record = one.tls.seal(one.peer.frame(BINARY, numbered(A, B, 1, 15000)))
        for at in range(0, len(record), 4000):
            one.raw.sendall(record[at : at + 4000])
            one.peer.wait_until_read()
            other.peer.sync() if at + 4000 < len(record) else None
        assert other.peer.receive().payload == numbered(A, B, 1, 15000)


def test_one_frame_a_record_for_old_members(secured: Secured) -> None:
    with EngineRelay() as relay:
        one, old = member(relay, secured, A), member(relay, secured, B, extended=False, tcp=True)
        old.tls.raw = b""
        one.peer.forward(*(numbered(A, B, n, 64 + n) for n in range(200)))
        received = [old.peer.receive() for _ in range(200)]
        assert [f.payload for f in received] == [numbered(A, B, n, 64 + n) for n in range(200)]
        assert [len(r) - 22 for r in records(old.tls.raw)] == [f.size for f in received]


@pytest.mark.parametrize("extended", [True, False], ids=["stream", "old"])
def test_a_peer_that_does_not_read(secured: Secured, extended: bool) -> None:
    """Packets are dropped in the queue, as plaintext: what is sealed all arrives, and opens."""
    with EngineRelay(queue_bytes=1 << 17) as relay:
        one, slow = member(relay, secured, A), member(relay, secured, B, extended=extended, tcp=True)
        count = 8000
        for at in range(0, count, 100):
            one.peer.forward(*(numbered(A, B, n, 1400) for n in range(at, at + 100)))
            one.peer.sync()
        received = list(_numbers(relay, slow))
        dropped = sum(relay.dropped().values())
        assert dropped > 1000
        assert len(received) == count - dropped
        assert received == sorted(received)


def _numbers(relay: EngineRelay, slow: Meeting) -> Iterator[int]:
    for frame in relay.drain(slow.peer):
        if frame.opcode == BINARY:
            yield int.from_bytes(frame.payload[29:33], "big")


def test_members_on_two_workers(secured: Secured) -> None:
    """Most that a thread has for a member of another's goes by the inbox."""
    with EngineRelay(workers=2) as relay:
        one, other = member(relay, secured, A), member(relay, secured, B)
        for at in range(0, 3000, 50):
            one.peer.forward(*(numbered(A, B, n, 500) for n in range(at, at + 50)))
            if at % 500 == 0:
                relay.engine.send(other.connection, b"\6")
        got: list[int] = []
        while len(got) < 3000 - sum(relay.dropped().values()):
            frame = other.peer.receive()
            if frame.payload[:1] == FORWARD:
                got.append(int.from_bytes(frame.payload[29:33], "big"))
        assert got == sorted(got)


def test_a_packet_to_oneself_and_to_all(secured: Secured) -> None:
    with EngineRelay(workers=2) as relay:
        members = [member(relay, secured, A + n) for n in range(4)]
        members[0].peer.forward(FORWARD + packet(A, A), FORWARD + packet(A, 0x0A0000FF))
        assert members[0].peer.receive().payload == FORWARD + packet(A, A)
        for other in members[1:]:
            assert other.peer.receive().payload == FORWARD + packet(A, 0x0A0000FF)


# ---------------------------------------------------------------------------------------------------------------- ends


@pytest.mark.parametrize("version", VERSIONS)
def test_close_notify_of_the_peer(secured: Secured, version: ssl.TLSVersion) -> None:
    with EngineRelay() as relay:
        meeting = member(relay, secured, A, version=version)
        meeting.tls.shutdown(socket.SHUT_WR)
        meeting.await_end()
        assert meeting.cause() == "eof"


def test_truncation_is_no_end(secured: Secured) -> None:
    with EngineRelay() as relay:
        meeting = member(relay, secured, A)
        meeting.peer.sync()
        meeting.raw.shutdown(socket.SHUT_WR)
        assert meeting.cause() == "truncated"


def test_truncation_within_a_record(secured: Secured) -> None:
    with EngineRelay() as relay:
        one, other = member(relay, secured, A), member(relay, secured, B)
        record = one.tls.seal(one.peer.frame(BINARY, numbered(A, B, 1)))
        one.raw.sendall(record + one.tls.seal(b"x" * 1000)[:500])
        one.raw.shutdown(socket.SHUT_WR)
        assert one.cause() == "truncated"
        assert other.peer.receive().payload == numbered(A, B, 1)


def test_what_came_before_close_notify_is_delivered(secured: Secured) -> None:
    with EngineRelay() as relay:
        one, other = member(relay, secured, A), member(relay, secured, B)
        one.tls.object.write(one.peer.frame(BINARY, numbered(A, B, 1)))
        one.tls.shutdown(socket.SHUT_WR)
        assert one.cause() == "eof"
        assert other.peer.receive().payload == numbered(A, B, 1)


@pytest.mark.parametrize("code", [None, 1001])
@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
def test_our_end_has_close_notify(secured: Secured, client: bool, code: int | None) -> None:
    """SSLEOFError would be raised without."""
    with EngineRelay() as relay:
        meeting = Meeting(relay, secured, client=client)
        meeting.peer.sync()
        relay.engine.close(meeting.connection, code)
        assert [f.opcode for f in meeting.peer.receive_all()] == ([CLOSE] if code else [])
        meeting.raw.close()
        assert meeting.cause() == "local"


def test_the_close_frame_waits_for_a_peer_that_does_not_read(secured: Secured) -> None:
    with EngineRelay() as relay:
        one, slow = member(relay, secured, A), member(relay, secured, B, tcp=True)
        for _ in range(60):
            one.peer.forward(*(numbered(A, B, n, 1400) for n in range(100)))
        one.peer.sync()
        relay.engine.close(slow.connection, 1001)
        assert slow.peer.receive_all()[-1].opcode == CLOSE


def test_an_end_by_the_peers_close_frame(secured: Secured) -> None:
    with EngineRelay() as relay:
        meeting = member(relay, secured, A)
        meeting.peer.send(CLOSE, b"\x03\xe8")
        assert [f.opcode for f in meeting.peer.receive_all()] == [CLOSE]
        assert meeting.cause() == "peer"


@given(st.data())
def test_a_changed_record(secured: Secured, data: st.DataObject) -> None:
    """Whatever is changed, nothing of it is believed, and the peer gets an alert that opens."""
    with EngineRelay() as relay:
        one, other = member(relay, secured, A), member(relay, secured, B)
        record = bytearray(one.tls.seal(one.peer.frame(BINARY, numbered(A, B, 1))))
        at = data.draw(st.integers(0, len(record) - 1))
        record[at] ^= data.draw(st.integers(1, 255))
        one.raw.sendall(record)
        one.raw.shutdown(socket.SHUT_WR)
        # A longer length waits for bytes that don't come.
        waits = len(record) - 5 < int.from_bytes(record[3:5], "big") <= 16384 + 256
        assert one.cause() == ("truncated" if waits else "tls_error")
        if not waits:
            with pytest.raises(ssl.SSLError, match="ALERT"):
                one.peer.receive()
        assert other.peer.sync() == []


def test_new_keys(secured: Secured, tmp_path: Path) -> None:
    """A KeyUpdate is followed, and answered when that is asked for."""
    with EngineRelay() as relay:
        insider = Insider(relay, secured, tmp_path)
        for n in range(20):
            update = insider.sealer.key_update(requested=n % 2 == 0)
            frame = insider.peer.frame(PING, b"%d" % n)
            insider.raw.sendall(update + insider.sealer.seal(frame, APPLICATION_DATA))
            assert insider.peer.receive().payload == b"%d" % n
        # Of ours, one for each that asked, and a record behind each.
        assert [len(r) for r in records(insider.tls.raw)].count(27) == 10


def test_new_keys_without_end(secured: Secured, tmp_path: Path) -> None:
    with EngineRelay() as relay:
        insider = Insider(relay, secured, tmp_path)
        insider.raw.sendall(b"".join(insider.sealer.key_update(requested=False) for _ in range(100)))
        assert insider.cause() == "tls_error"


HOSTILE = {
    "an empty handshake message": (b"", HANDSHAKE),
    "a ClientHello again": (b"\1\0\0\2xx", HANDSHAKE),
    "a fatal alert": (b"\2\x28", ALERT),
    "an unknown content type": (b"x", 99),
    "a change of cipher": (b"\1", 20),
    "too long a record": (bytes(16385), APPLICATION_DATA),
    "a KeyUpdate that does not end its record": (b"\x18\0\0\1\0\x18\0\0\1\0", HANDSHAKE),
    "a KeyUpdate of another kind": (b"\x18\0\0\1\2", HANDSHAKE),
    "a ticket": (b"\4\0\0\1x", HANDSHAKE),
    "half an alert": (b"\2", ALERT),
    "no kind": (bytes(30), 0),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_records(secured: Secured, tmp_path: Path, name: str) -> None:
    with EngineRelay() as relay:
        insider = Insider(relay, secured, tmp_path)
        content, kind = HOSTILE[name]
        insider.raw.sendall(insider.sealer.seal(content, kind))
        assert insider.cause() == "tls_error"
        assert insider.words()[1]


def test_data_within_a_message(secured: Secured, tmp_path: Path) -> None:
    """Messages of handshakes "MUST NOT be interleaved with other record types"."""
    with EngineRelay() as relay:
        insider = Insider(relay, secured, tmp_path)
        frame = insider.peer.frame(PING, b"x")
        insider.raw.sendall(insider.sealer.seal(b"\x18\0", HANDSHAKE) + insider.sealer.seal(frame, APPLICATION_DATA))
        assert insider.cause() == "tls_error"
        # OpenSSL 3.0 has another word for it than 3.5.
        assert insider.words() in ((0, "unexpected_message"), (0, "unexpected message"))


def test_alerts(secured: Secured, tmp_path: Path) -> None:
    """One that ends nothing, and one that does."""
    with EngineRelay() as relay:
        insider = Insider(relay, secured, tmp_path)
        frame = insider.peer.frame(PING, b"x")
        insider.raw.sendall(insider.sealer.seal(b"\1\x5a", ALERT) + insider.sealer.seal(frame, APPLICATION_DATA))
        assert insider.peer.receive().payload == b"x"
        insider.raw.sendall(insider.sealer.seal(b"\1\x28", ALERT))
        assert insider.cause() == "tls_error"
        assert insider.words() == (0, "alert of the peer: handshake failure")


def test_padded_records(secured: Secured, tmp_path: Path) -> None:
    with EngineRelay() as relay:
        insider = Insider(relay, secured, tmp_path)
        for padding in (1, 1000):
            content = insider.peer.frame(PING, b"x") + bytes([APPLICATION_DATA]) + bytes(padding - 1)
            insider.raw.sendall(insider.sealer.seal(content, 0))
            assert insider.peer.receive().payload == b"x"


def test_empty_records_without_end(secured: Secured, tmp_path: Path) -> None:
    with EngineRelay() as relay:
        insider = Insider(relay, secured, tmp_path)
        insider.raw.sendall(b"".join(insider.sealer.seal(b"", APPLICATION_DATA) for _ in range(100)))
        assert insider.cause() == "tls_error"


def test_renegotiation_is_refused(secured: Secured) -> None:
    """TLS 1.2: what looks like the beginning of another handshake."""
    with EngineRelay() as relay:
        meeting = member(relay, secured, A, version=ssl.TLSVersion.TLSv1_2)
        meeting.peer.sync()
        meeting.raw.sendall(b"\x16\x03\x03\0\x20" + bytes(32))
        assert meeting.cause() == "tls_error"


def test_the_process_ends_with_its_engine_running(secured: Secured) -> None:
    """OpenSSL's exit handlers find no thread that uses it."""
    program = f"""
import socket, ssl, sys
from candy._fastpath import Engine, TlsContext
engine = Engine(2)
engine.add_network()
context = TlsContext.server(({str(secured.chain)!r}, {str(secured.key)!r}))
client = ssl.create_default_context(cafile={str(secured.ca_file)!r})
socks = []
for _ in range(8):
    ours, theirs = socket.socketpair()
    engine.adopt(theirs.detach(), tls=context)
    socks.append(client.wrap_socket(ours, server_hostname={NAME!r}))
    socks[-1].sendall(bytes([0x82, 0x80, 0, 0, 0, 0]) * 1000)
sys.modules["keeps"] = engine
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=PATIENCE * 3, env=os.environ)


def test_descriptors_and_memory_come_back(secured: Secured) -> None:
    with EngineRelay() as relay:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            meeting = Meeting(relay, secured)
            meeting.peer.sync()
            meeting.tls.shutdown(socket.SHUT_WR)
            meeting.await_end()
            assert meeting.cause() == "eof"
            meeting.raw.close()
            relay.peers.pop()
        assert len(os.listdir("/proc/self/fd")) == before
        stats = relay.engine.stats()
        assert (stats["connections"], stats["queued_bytes"]) == (0, 0)


def test_the_first_handshake_when_there_are_no_descriptors(secured: Secured) -> None:
    """The relay had them before: what a handshake takes it has from its start on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with EngineRelay(1) as relay, ExitStack() as stack:
        raw, theirs = socket.socketpair()
        tls, context = secured.peer(raw, client=False), secured.context(client=False)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")), hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        with suppress(OSError):
            while True:
                stack.callback(os.close, os.dup(raw.fileno()))
        connection = relay.engine.adopt(theirs.detach(), tls=context)
        tls.handshake()
        assert relay.engine.received_ns(connection) is not None
        tls.close()
