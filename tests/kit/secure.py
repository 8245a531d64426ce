"""TLS for the engine's connections, and the peer's half of it over memory.

Rules:
 1. The peer's TLS is Python's, on memory BIOs: what goes over the wire can be read, changed and held back (`raw`).
 2. A TlsSocket is used as a socket. Its handshake is made by the first call that needs it.
"""

import hmac
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

import trustme
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from candy import _fastpath

NAME = "relay.test"
APPLICATION_DATA, HANDSHAKE, ALERT = 23, 22, 21


class TlsSocket:
    """A socket with TLS on it.

    Attributes:
        raw: all ciphertext that was received.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, name: str | None) -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self.incoming, self.outgoing, server_side=name is None, server_hostname=name)
        self.raw = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)

    def handshake(self) -> None:
        self._run(0, self.object.do_handshake)

    def recv(self, most: int, flags: int = 0) -> bytes:
        """Nothing at close_notify. Raises SSLEOFError when the stream ends without."""
        try:
            data: bytes = self._run(flags, self.object.read, most)
        except ssl.SSLZeroReturnError:
            return b""
        return data

    def sendall(self, data: bytes) -> None:
        for at in range(0, len(data), 16384):
            self._run(0, self.object.write, data[at : at + 16384])

    def seal(self, data: bytes) -> bytes:
        """Records that were not sent."""
        self.object.write(data)
        return self.outgoing.read()

    def shutdown(self, how: int) -> None:
        """End the stream as TLS does; both ways, as a network does."""
        if how != socket.SHUT_RDWR:
            with suppress(ssl.SSLWantReadError):
                self.object.unwrap()
            self.flush()
        self.sock.shutdown(how)

    def close(self) -> None:
        """As a program that ends its TLS and its socket at once."""
        with suppress(OSError):
            with suppress(ssl.SSLWantReadError):
                self.object.unwrap()
            self.sock.send(self.outgoing.read(), socket.MSG_DONTWAIT)
        self.sock.close()

    def flush(self) -> None:
        if data := self.outgoing.read():
            self.sock.sendall(data)

    def fill(self, flags: int = 0) -> None:
        """One read of ciphertext."""
        data = self.sock.recv(262144, flags)
        self.raw += data
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()

    def _run(self, flags: int, call: Any, *arguments: Any) -> Any:
        while True:
            try:
                found = call(*arguments)
            except ssl.SSLWantReadError:
                self.flush()
                self.fill(flags)
            except ssl.SSLError:
                self.flush()
                raise
            else:
                self.flush()
                return found


class Secured:
    """An authority and a certificate of its for NAME; both ends' contexts."""

    def __init__(self, folder: Path, *, key_type: trustme.KeyType = trustme.KeyType.ECDSA) -> None:
        self.authority = trustme.CA()
        self.certificate = self.authority.issue_cert(NAME, "127.0.0.1", key_type=key_type)
        self.chain, self.key, self.ca_file = folder / "chain.pem", folder / "key.pem", folder / "ca.pem"
        self.certificate.cert_chain_pems[0].write_to_path(str(self.chain))
        self.certificate.private_key_pem.write_to_path(str(self.key))
        self.authority.cert_pem.write_to_path(str(self.ca_file))
        self.server = _fastpath.TlsContext.server((self.chain, self.key))
        self.connecting = _fastpath.TlsContext.connecting(NAME, ca_file=self.ca_file)

    def context(self, *, client: bool) -> _fastpath.TlsContext:
        """The engine's."""
        return self.connecting if client else self.server

    def peer(
        self,
        sock: socket.socket,
        *,
        client: bool,
        version: ssl.TLSVersion | None = None,
        ciphers: str | None = None,
    ) -> TlsSocket:
        """The far end of a connection whose end in the engine is the client, or is not."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if client else ssl.PROTOCOL_TLS_CLIENT)
        if client:
            self.certificate.configure_cert(context)
        else:
            context.load_verify_locations(self.ca_file)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if ciphers is not None:
            context.set_ciphers(ciphers)
        return TlsSocket(sock, context, name=None if client else NAME)


def records(raw: bytes) -> list[bytes]:
    """TLS records, each with its header; the last may be incomplete."""
    found = []
    while raw:
        size = 5 + int.from_bytes(raw[3:5], "big")
        found.append(raw[:size])
        raw = raw[size:]
    return found


class Sealer:
    """Seals records of TLS 1.3 as OpenSSL's users can't: any content type, and new keys (RFC 8446).

    Args:
        secret: the sender's traffic secret.
        number: records that were sealed with it so far.
        cipher: "AES-128-GCM", "AES-256-GCM" or "CHACHA20-POLY1305".
    """

    def __init__(self, secret: bytes, number: int = 0, *, cipher: str = "AES-128-GCM") -> None:
        self.secret = secret
        self.number = number
        self._aead = ChaCha20Poly1305 if cipher == "CHACHA20-POLY1305" else AESGCM
        self._key_bytes = 16 if cipher == "AES-128-GCM" else 32
        self._digest = "sha384" if cipher == "AES-256-GCM" else "sha256"

    def seal(self, content: bytes, kind: int) -> bytes:
        iv = self._expand(b"iv", 12)
        nonce = (int.from_bytes(iv, "big") ^ self.number).to_bytes(12, "big")
        self.number += 1
        header = bytes([APPLICATION_DATA, 3, 3]) + (len(content) + 17).to_bytes(2, "big")
        return header + self._aead(self._expand(b"key", self._key_bytes)).encrypt(
            nonce, content + bytes([kind]), header
        )

    def key_update(self, *, requested: bool) -> bytes:
        """The message, behind which the sender has new keys."""
        record = self.seal(bytes([24, 0, 0, 1, requested]), HANDSHAKE)
        self.secret = self._expand(b"traffic upd", len(self.secret))
        self.number = 0
        return record

    def _expand(self, label: bytes, size: int) -> bytes:
        """HKDF-Expand-Label for at most one block."""
        label = b"tls13 " + label
        info = size.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0\1"
        return hmac.digest(self.secret, info, self._digest)[:size]


def sealer_of(tls: TlsSocket, log: Path) -> Sealer:
    """Make a client's handshake, of TLS 1.3; what seals in its name from there on. Its keys are logged to `log`."""
    tls.object.context.keylog_filename = str(log)
    tls.handshake()
    [secret] = [line.split()[2] for line in log.read_text().splitlines() if line.startswith("CLIENT_TRAFFIC_SECRET_0")]
    return Sealer(bytes.fromhex(secret))
