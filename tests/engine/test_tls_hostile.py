"""Everything that a peer's TLS can do wrong, with the end that it has: named, never an abort, and nobody else notices.

What is told of it is in OpenSSL's words, patterns where those of 3.0 and 3.5 differ.
"""

import datetime
import re
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trustme
from kit.hello import (
    EARLY_DATA,
    FALLBACK,
    KEY_SHARE,
    PADDING,
    SIGNATURE_ALGORITHMS,
    SUPPORTED_GROUPS,
    SUPPORTED_VERSIONS,
    Hello,
    record,
)
from kit.meeting import Insider, Meeting, member
from kit.peer import CLOSE, PING, EngineRelay, numbered
from kit.secure import ALERT, APPLICATION_DATA, HANDSHAKE, NAME, Sealer, Secured, TlsSocket, records

pytestmark = pytest.mark.engine

A, B = 0x0A000001, 0x0A000002
FATAL, WARNING, CLOSE_NOTIFY = b"\2", b"\1", b"\0"
CHANGE_CIPHER = record(b"\1", 20)


def hello(meeting: Meeting) -> Hello:
    """What Python's client begins with."""
    with pytest.raises(ssl.SSLWantReadError):
        meeting.tls.object.do_handshake()
    return Hello(meeting.tls.outgoing.read())


def said(meeting: Meeting, words: str) -> bool:
    """Whether this is what was told, and nothing of a certificate."""
    verdict, told = meeting.words()
    return verdict == 0 and re.fullmatch(words, told) is not None


def alert(meeting: Meeting) -> int | None:
    """The alert that the peer gets last before the end, None when that is sealed, or there is none."""
    data = b""
    while part := meeting.raw.recv(65536):
        data += part
    last = records(data)[-1] if data else b"\0"
    if last[0] != ALERT:
        return None
    assert last[5:6] == FATAL
    return last[6]


# ------------------------------------------------------------------------------------------------ a client's first word


def changed(**fields: bytes) -> Callable[[Hello], bytes]:
    def change(h: Hello) -> bytes:
        vars(h).update(fields)
        return h.bytes()

    return change


def extended(extensions: dict[int, bytes | None], behind: bytes = b"") -> Callable[[Hello], bytes]:
    """With these extensions instead, None: without."""

    def change(h: Hello) -> bytes:
        for kind, content in extensions.items():
            h.extensions.pop(kind, None)
            if content is not None:
                h.extensions[kind] = content
        return h.bytes() + behind

    return change


def fallen_back(h: Hello) -> bytes:
    h.as_of(3).ciphers += FALLBACK
    return h.bytes()


def in_pieces(behind: bytes) -> Callable[[Hello], bytes]:
    """Half a hello, and this instead of the rest."""
    return lambda h: h.records(100)[0] + behind


FIRST: dict[str, tuple[Callable[[Hello], bytes], str | None, int | None]] = {
    "SSL 2": (lambda _: bytes.fromhex("802e0103010015000000100100800300800700c0"), None, None),
    "SSL 3": (lambda h: h.as_of(0).bytes(), "version too low", 40),
    "TLS 1.0": (lambda h: h.as_of(1).bytes(), "unsupported protocol", 70),
    "TLS 1.1": (lambda h: h.as_of(2).bytes(), "unsupported protocol", 70),
    "a version that is to come": (extended({SUPPORTED_VERSIONS: b"\2\3\5"}), "unsupported protocol", 70),
    "a fallback to TLS 1.2": (fallen_back, "inappropriate fallback", 86),
    "no cipher of ours": (changed(ciphers=b"\0\x0a\0\x2f"), "no shared cipher", 40),
    "no groups": (extended({SUPPORTED_GROUPS: None, KEY_SHARE: None}), "no suitable key share", 109),
    "no signature of ours": (extended({SIGNATURE_ALGORITHMS: b"\0\2\2\2"}), "no shared signature algorithms", 40),
    "a key of no length": (extended({KEY_SHARE: b"\0\4\0\x1d\0\0"}), "length mismatch", 50),
    "early data without end": (
        extended({EARLY_DATA: b""}, record(bytes(16384), APPLICATION_DATA) * 2),
        "too much early data",
        None,
    ),
    "64 KB": (extended({PADDING: bytes(62000)}), None, None),
    "one byte a record": (lambda h: b"".join(h.records(1)), None, None),
    "an empty record": (in_pieces(record(b"")), None, None),
    "data within": (in_pieces(record(b"x", APPLICATION_DATA)), None, None),
    "an alert within": (in_pieces(record(FATAL + b"\x28", ALERT)), None, None),
    "a change of cipher within": (in_pieces(CHANGE_CIPHER), None, None),
    "an alert": (lambda _: record(FATAL + b"\x28", ALERT), None, None),
    "nothing but empty records": (lambda _: record(b"") * 100, None, None),
    "a ServerHello": (lambda h: record(b"\2" + h.message()[1:]), "unexpected message", 10),
    "extensions that are cut": (lambda h: record(b"\1\0\0\x40" + h.message()[4:68]), "length mismatch", 50),
}
"""What is told of it, and the alert, None when that is sealed; or neither: it is no ClientHello, and ends before there
is an SSL."""


@pytest.mark.parametrize("name", FIRST)
def test_what_a_client_begins_with(secured: Secured, name: str) -> None:
    make, words, code = FIRST[name]
    with EngineRelay() as relay:
        meeting, other = Meeting(relay, secured, tcp=True), Meeting(relay, secured)
        meeting.raw.sendall(make(hello(meeting)))
        assert meeting.cause() == "handshake_failed"
        if words is not None:
            assert said(meeting, words)
            assert alert(meeting) == code
        other.peer.sync()


@pytest.mark.parametrize("size", [1, 3, 4, 50, 100])
def test_a_hello_may_be_cut_anywhere(secured: Secured, size: int) -> None:
    """Into its first bytes, which tell its length, and the rest. Python's client can't, but others do."""
    with EngineRelay() as relay:
        meeting = Meeting(relay, secured, tcp=True)
        message = hello(meeting).message()
        meeting.raw.sendall(record(message[:size]) + record(message[size:]))
        meeting.peer.sync()


def test_a_hello_beside_its_deadline(secured: Secured) -> None:
    """A byte now and then doesn't put it off, in whatever records they are."""
    with EngineRelay(tls_deadline=0.3) as relay:
        meeting = Meeting(relay, secured, tcp=True)
        message = hello(meeting).message()
        parts = iter([record(message[n : n + 10]) for n in range(0, 100, 10)])
        left = next(parts)
        while not relay.poll.poll(20):
            left = left or next(parts, b"")
            meeting.raw.sendall(left[:1])
            left = left[1:]
        assert meeting.cause() == "handshake_timeout"


# ----------------------------------------------------------------------------------------------------- in the handshake


def flight(meeting: Meeting) -> None:
    """Client's hello and server's flight; the client has read it and has said nothing yet."""
    meeting.raw.sendall(hello(meeting).bytes())
    meeting.tls.fill()


MIDDLE: dict[str, tuple[ssl.TLSVersion, bytes, str, int | None]] = {
    "data": (ssl.TLSVersion.TLSv1_3, record(b"x" * 40, APPLICATION_DATA), "decryption failed or bad record mac", None),
    "data, before 1.3": (ssl.TLSVersion.TLSv1_2, record(b"x" * 40, APPLICATION_DATA), "unexpected record", 10),
    "a hello again": (ssl.TLSVersion.TLSv1_2, record(b"\1\0\0\2xx"), "unexpected message", 10),
    "a key that is none": (ssl.TLSVersion.TLSv1_2, record(b"\x10\0\0\2\1x"), "bad key share", 47),
    "changes of cipher": (ssl.TLSVersion.TLSv1_3, CHANGE_CIPHER * 40, "unexpected ccs message", None),
    "a change of cipher too early": (ssl.TLSVersion.TLSv1_2, CHANGE_CIPHER, "unexpected message", 10),
    "empty records": (ssl.TLSVersion.TLSv1_2, record(b"") * 40, "record too small", 10),
    "too long a record": (ssl.TLSVersion.TLSv1_2, b"\x16\3\3\x48\1", "(packet|data) length too long", 22),
    "warnings": (ssl.TLSVersion.TLSv1_2, record(WARNING + b"\x5a", ALERT) * 6, "too many warn alerts", 10),
    "an alert": (ssl.TLSVersion.TLSv1_2, record(FATAL + b"\x2a", ALERT), "(sslv3|ssl/tls) alert bad certificate", None),
    "half an alert": (ssl.TLSVersion.TLSv1_2, record(FATAL, ALERT), "invalid alert", 10),
    "close_notify": (ssl.TLSVersion.TLSv1_2, record(WARNING + CLOSE_NOTIFY, ALERT), "", None),
    "no type that there is": (ssl.TLSVersion.TLSv1_2, record(b"x", 99), "unexpected record", 10),
}


@pytest.mark.parametrize("name", MIDDLE)
def test_what_a_client_goes_on_with(secured: Secured, name: str) -> None:
    version, data, words, code = MIDDLE[name]
    with EngineRelay() as relay:
        meeting, other = Meeting(relay, secured, tcp=True, version=version), Meeting(relay, secured)
        flight(meeting)
        meeting.raw.sendall(data)
        assert meeting.cause() == "handshake_failed"
        assert said(meeting, words)
        assert alert(meeting) == code
        other.peer.sync()


@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
@pytest.mark.parametrize("reset", [False, True], ids=["end", "reset"])
def test_a_peer_that_leaves_in_the_handshake(secured: Secured, client: bool, reset: bool) -> None:
    with EngineRelay() as relay:
        meeting = Meeting(relay, secured, client=client, tcp=True)
        if client:
            meeting.tls.fill()
        else:
            flight(meeting)
        if reset:
            meeting.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
        meeting.raw.close()
        assert meeting.cause() == "handshake_failed"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_peer_that_reads_nothing_in_the_handshake(secured: Secured, version: ssl.TLSVersion) -> None:
    """The server's flight has no room in the socket."""
    with EngineRelay(tls_deadline=0.3) as relay:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                theirs.send(bytes(1024))
        connection = relay.engine.adopt(theirs.detach(), tls=secured.server)
        tls = secured.peer(ours, client=False, version=version)
        with ours:
            with pytest.raises(ssl.SSLWantReadError):
                tls.object.do_handshake()
            ours.sendall(tls.outgoing.read())
            assert relay.cause(connection) == "handshake_timeout"


# --------------------------------------------------------------------------------------- a server, for a client of ours


ANSWERS: dict[str, tuple[bytes, str]] = {
    "a web page": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "wrong version number"),
    "an alert": (record(FATAL + b"\x46", ALERT), "tlsv1 alert protocol version"),
    "too long a record": (b"\x16\3\3\x48\1" + bytes(200), "(packet|data) length too long"),
    "data": (record(b"x" * 40, APPLICATION_DATA), "unexpected message"),
    "a ClientHello": (record(b"\1\0\0\2xx"), "unexpected message"),
    "a hello of one byte": (record(b"\2\0\0\1x"), "length mismatch"),
    "warnings": (record(WARNING + b"\x5a", ALERT) * 6, "too many warn alerts"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_what_a_server_answers(secured: Secured, name: str) -> None:
    data, words = ANSWERS[name]
    with EngineRelay() as relay:
        meeting = Meeting(relay, secured, client=True, tcp=True)
        meeting.tls.fill()
        meeting.raw.sendall(data)
        assert meeting.cause() == "handshake_failed"
        assert said(meeting, words)


def test_a_downgrade_on_the_way(secured: Secured) -> None:
    """Who takes TLS 1.3 out of a client's hello is found out by the server's random."""
    with EngineRelay() as relay:
        meeting = Meeting(relay, secured, client=True, tcp=True)
        meeting.tls.incoming.write(Hello(meeting.raw.recv(65536)).as_of(3).bytes())
        with pytest.raises(ssl.SSLWantReadError):
            meeting.tls.object.do_handshake()
        meeting.tls.flush()
        assert meeting.cause() == "handshake_failed"
        assert meeting.words() == (0, "inappropriate fallback")
        assert alert(meeting) == 47


def test_a_chain_without_end(secured: Secured, tmp_path: Path) -> None:
    """As long as it is, no more than OpenSSL's limit is kept of it."""
    (tmp_path / "long.pem").write_bytes(secured.chain.read_bytes() + secured.ca_file.read_bytes() * 400)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "long.pem", secured.key)
    with EngineRelay() as relay:
        meeting = Meeting(relay, secured, client=True, tcp=True)
        tls = TlsSocket(meeting.raw, context, name=None)
        with pytest.raises(ssl.SSLError, match="ALERT_ILLEGAL_PARAMETER"):
            tls.handshake()
        assert meeting.cause() == "handshake_failed"
        assert meeting.words() == (0, "excessive message size")


NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
CERTIFICATES: dict[str, tuple[Callable[[trustme.CA], trustme.LeafCert], int, str]] = {
    "expired": (lambda ca: ca.issue_cert(NAME, not_after=NOW - DAY), 10, "certificate has expired"),
    "to come": (lambda ca: ca.issue_cert(NAME, not_before=NOW + DAY), 9, "certificate is not yet valid"),
    "mismatched": (lambda ca: ca.issue_cert("other.test"), 62, "hostname mismatch"),
    "foreign": (lambda _: trustme.CA().issue_cert(NAME), 20, "unable to get local issuer certificate"),
    "expired and mismatched": (lambda ca: ca.issue_cert("other.test", not_after=NOW - DAY), 62, "hostname mismatch"),
}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("name", CERTIFICATES)
def test_a_servers_certificate(secured: Secured, version: ssl.TLSVersion, name: str) -> None:
    make, verdict, words = CERTIFICATES[name]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = version
    make(secured.authority).configure_cert(context)
    with EngineRelay() as relay:
        meeting = Meeting(relay, secured, client=True, tcp=True)
        tls = TlsSocket(meeting.raw, context, name=None)
        with pytest.raises(ssl.SSLError, match="ALERT"):
            tls.recv(1)
        assert meeting.cause() == "handshake_failed"
        assert meeting.words() == (verdict, words)


# ------------------------------------------------------------------------------------------------- behind the handshake


def sealed(content: bytes, kind: int, times: int = 1) -> Callable[[Insider], bytes]:
    return lambda insider: b"".join(insider.sealer.seal(content, kind) for _ in range(times))


def key_update(value: int) -> bytes:
    return bytes([24, 0, 0, 1, value])


RECORDS: dict[str, Callable[[Insider], bytes]] = {
    "a KeyUpdate of a third kind": sealed(key_update(2), HANDSHAKE),
    "a KeyUpdate and a half": sealed(key_update(0) + b"\x18", HANDSHAKE),
    "a KeyUpdate that is too long": sealed(b"\x18\0\0\2\0\0", HANDSHAKE),
    "a message of 16 MB": sealed(b"\x18\xff\xff\xff\0", HANDSHAKE),
    "a ticket, from a client": sealed(b"\4\0\0\1\0", HANDSHAKE),
    "a certificate": sealed(b"\x0b\0\0\1\0", HANDSHAKE),
    "half an alert": sealed(FATAL, ALERT),
    "two alerts in one": sealed(WARNING + b"\x5a" + WARNING + b"\x5a", ALERT),
    "warnings without end": sealed(WARNING + b"\x5a", ALERT, 20),
    "padding alone": sealed(bytes(100), 0),
    "plaintext": lambda _: record(b"\x82\0", APPLICATION_DATA),
    "an alert in plaintext": lambda _: record(FATAL + b"\x28", ALERT),
    "a hello in plaintext": lambda _: record(b"\1\0\0\2xx"),
    "a record of no length": lambda _: record(b"", APPLICATION_DATA),
    "a record again": lambda insider: insider.sealer.seal(b"", APPLICATION_DATA) * 2,
    "a record that is another's": lambda insider: Sealer(bytes(32)).seal(b"x", APPLICATION_DATA),
    "data, then an alert": lambda i: i.sealer.seal(b"\x8a\x80", APPLICATION_DATA) + i.sealer.seal(b"\2\x28", ALERT),
}


@pytest.mark.parametrize("name", RECORDS)
def test_what_an_insider_sends(secured: Secured, tmp_path: Path, name: str) -> None:
    with EngineRelay() as relay:
        insider, other = Insider(relay, secured, tmp_path), Meeting(relay, secured)
        insider.raw.sendall(RECORDS[name](insider))
        assert insider.cause() == "tls_error"
        other.peer.sync()


@pytest.mark.parametrize("requested", [False, True])
def test_new_keys_now_and_then_without_end(secured: Secured, tmp_path: Path, requested: bool) -> None:
    """One in each read: nothing that a peer could not have a reason for. It costs what it costs, and the turns of
    others come in between. However often it asks for ours, one answer is due, and that takes no memory."""
    with EngineRelay() as relay:
        insider, other = Insider(relay, secured, tmp_path), Meeting(relay, secured)
        for n in range(20000):
            insider.raw.sendall(insider.sealer.key_update(requested=requested))
            insider.peer.wait_until_read()
            if n % 1000 == 0:
                # The other's answer may be there before the worker has given its memory back.
                assert any(relay.engine.stats()["queued_bytes"] == 0 for _ in range(100) if other.peer.sync() == [])
        assert insider.sealer.number == 0
        insider.raw.sendall(insider.sealer.seal(insider.peer.frame(PING, b"x"), APPLICATION_DATA))
        assert insider.peer.receive().payload == b"x"
        assert [len(r) for r in records(insider.tls.raw)].count(27) == requested
        other.peer.sync()


# ----------------------------------------------------------------------------------------------------------------- ends


ENDS: dict[str, tuple[Callable[[Insider], bytes], str]] = {
    "close_notify": (sealed(WARNING + CLOSE_NOTIFY, ALERT), "eof"),
    "a fatal close_notify": (sealed(FATAL + CLOSE_NOTIFY, ALERT), "eof"),
    "close_notify twice": (sealed(WARNING + CLOSE_NOTIFY, ALERT, 2), "eof"),
    "and data behind it": (
        lambda i: i.sealer.seal(WARNING + CLOSE_NOTIFY, ALERT) + i.sealer.seal(b"\x82\0", APPLICATION_DATA),
        "eof",
    ),
    "and what does not open": (lambda i: i.sealer.seal(WARNING + CLOSE_NOTIFY, ALERT) + b"x" * 100, "eof"),
    "nothing": (lambda _: b"", "truncated"),
    "a header": (lambda i: i.sealer.seal(b"x", APPLICATION_DATA)[:5], "truncated"),
    "half a close_notify": (lambda i: i.sealer.seal(WARNING + CLOSE_NOTIFY, ALERT)[:-1], "truncated"),
    "a whole record": (sealed(b"\x8a\x80\0\0\0\0", APPLICATION_DATA), "truncated"),
}


@pytest.mark.parametrize("closing", [False, True], ids=["open", "closing"])
@pytest.mark.parametrize("name", ENDS)
def test_what_a_stream_ends_with(secured: Secured, tmp_path: Path, name: str, closing: bool) -> None:
    """Also while we wait for the peer's close frame, when it is our end all the same."""
    make, cause = ENDS[name]
    with EngineRelay() as relay:
        insider = Insider(relay, secured, tmp_path)
        if closing:
            insider.arrive()
            relay.engine.close(insider.connection, 1001)
            assert [f.opcode for f in insider.peer.receive_all()] == [CLOSE]
        insider.raw.sendall(make(insider))
        insider.raw.shutdown(socket.SHUT_WR)
        assert insider.cause() == ("local" if closing else cause)


def test_both_end_at_once(secured: Secured) -> None:
    """Each has said close_notify before it reads the other's."""
    with EngineRelay() as relay:
        for code in (None, 1001):
            meeting = Meeting(relay, secured)
            meeting.peer.sync()
            assert relay.engine.close(meeting.connection, code)
            meeting.tls.close()
            assert meeting.cause() in ("local", "eof")


def test_a_peer_that_stops_reading_within_a_record(secured: Secured) -> None:
    """What is cut can't be finished, so no close_notify follows; the connection ends by its deadline, and what it held
    comes back."""
    with EngineRelay() as relay:
        one, slow = member(relay, secured, A), member(relay, secured, B, tcp=True)
        while relay.engine.stats()["queued_bytes"] < 200_000:
            one.peer.forward(*(numbered(A, B, n, 1400) for n in range(100)))
            one.peer.sync()
        assert relay.engine.close(slow.connection, 1001)
        assert slow.cause() == "local"
        one.peer.sync()
        assert relay.engine.stats()["queued_bytes"] < 1000
        with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
            slow.peer.receive_all()
