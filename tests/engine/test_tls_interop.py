"""The engine's TLS with every other that this machine can have, at either end: OpenSSL, GnuTLS, NSS, mbedTLS, Botan,
BoringSSL, rustls and Go's, as programs (scripts/bootstrap.sh tls) or in Python packages (pyproject.toml's `dev`).

Who is able to carries frames; a web client's request shows as a violation of WebSocket's rules that it was opened.
"""

import importlib.util
import os
import select
import shutil
import socket
import subprocess
import sys
from ctypes.util import find_library

import pytest
from kit.peer import PATIENCE, PING, EngineRelay, build_frame
from kit.secure import Secured

from candy._fastpath import EVENT_TLS, TlsContext

pytestmark = pytest.mark.engine

A = 0x0A000001
SYSTEM = os.environ["PATH"] + ":/usr/sbin:/sbin"
PINGS, SIZE = 100, 120

NODE_CLIENT = """
const read = require("fs").readFileSync
const s = require("tls").connect({host: "127.0.0.1", port: %(port)s, ca: read("%(ca)s"), minVersion: "TLSv%(v)s",
    maxVersion: "TLSv%(v)s"})
process.stdin.pipe(s).pipe(process.stdout)
"""
NODE_SERVER = """
const read = require("fs").readFileSync
require("tls").createServer({key: read("%(key)s"), cert: read("%(chain)s")}, s => process.stdin.pipe(s).pipe(
    process.stdout)).listen(%(port)s, "127.0.0.1")
"""
MBEDTLS_CLIENT = """
import os, socket, threading
from mbedtls import tls, x509
trust = tls.TrustStore()
trust.add(x509.CRT.from_file("%(ca)s"))
context = tls.ClientContext(tls.TLSConfiguration(trust_store=trust, validate_certificates=True))
s = context.wrap_socket(socket.create_connection(("127.0.0.1", %(port)s)), server_hostname="relay.test")
s.do_handshake()
threading.Thread(target=lambda: [s.send(d) for d in iter(lambda: os.read(0, 1000), b"")], daemon=True).start()
while d := s.recv(65536):
    os.write(1, d)
"""
LIBCURL = """
import ctypes
curl = ctypes.CDLL("%(library)s")
curl.curl_easy_init.restype = ctypes.c_void_p
handle = ctypes.c_void_p(curl.curl_easy_init())
curl.curl_easy_setopt(handle, 10002, b"https://127.0.0.1:%(port)s/")
curl.curl_easy_setopt(handle, 64, ctypes.c_long(0))
curl.curl_easy_setopt(handle, 81, ctypes.c_long(0))
curl.curl_easy_perform(handle)
"""
CURL_CFFI = """
import curl_cffi
curl_cffi.get("https://127.0.0.1:%(port)s/", verify="%(ca)s", impersonate="chrome")
"""
GNUTLS = "--priority=NORMAL:-VERS-ALL:+VERS-TLS%(v)s"
URL = "https://127.0.0.1:%(port)s/"


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


TALKING = {
    "openssl": ["openssl", "s_client", "-quiet", "-tls%(_)s", "-connect", "127.0.0.1:%(port)s", "-CAfile", "%(ca)s"],
    "gnutls-cli": ["gnutls-cli", "--logfile=/dev/null", GNUTLS, "--x509cafile=%(ca)s", "-p", "%(port)s", "127.0.0.1"],
    "node": ["node", "-e", NODE_CLIENT],
    "mbedtls": python(MBEDTLS_CLIENT),
}
"""Clients that carry what they are given. By the program, or the package, that has to be there."""
ASKING = {
    "curl": ["curl", "-s", "--cacert", "%(ca)s", URL],
    "hey": ["hey", "-n", "1", "-c", "1", URL],
    "uv": ["uv", "pip", "install", "--no-cache", "--dry-run", "--python", sys.executable, "--index-url", URL, "x"],
    "botan": ["botan", "tls_client", "127.0.0.1", "--port=%(port)s", "--trusted-cas=%(ca)s"],
    "curl_cffi": python(CURL_CFFI),
    "curl-nss": python(LIBCURL),
    "curl-gnutls": python(LIBCURL),
}
"""Clients of the web: Go has hey, rustls uv, and BoringSSL curl_cffi."""
SERVING = {
    "openssl": [
        "openssl",
        "s_server",
        "-quiet",
        "-tls%(_)s",
        "-accept",
        "%(port)s",
        "-cert",
        "%(chain)s",
        "-key",
        "%(key)s",
    ],
    "node": ["node", "-e", NODE_SERVER],
}


class Other:
    """The other TLS, a process."""

    def __init__(self, name: str, command: list[str], secured: Secured, port: int, version: str = "1.3") -> None:
        library = find_library(name) or "" if name.startswith("curl-") else ""
        there = library or importlib.util.find_spec(name) or shutil.which(name, path=_path())
        if not there:
            pytest.skip(f"{name} is not installed")
        facts = {"port": port, "ca": secured.ca_file, "chain": secured.chain, "key": secured.key, "library": library}
        facts |= {"v": version, "_": version.replace(".", "_")}
        environ = os.environ | {"SSL_CERT_FILE": str(secured.ca_file), "UV_HTTP_RETRIES": "0", "PATH": _path()}
        self.process = subprocess.Popen(
            [part % facts for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environ,
        )

    def __enter__(self) -> "Other":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.communicate()

    def write(self, data: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def read(self, size: int) -> bytes:
        assert self.process.stdout
        data = b""
        while len(data) < size:
            assert select.select([self.process.stdout], [], [], PATIENCE)[0], f"nothing came behind {data!r}"
            part = os.read(self.process.stdout.fileno(), size - len(data))
            assert part, f"it ended behind {data!r}"
            data += part
        return data


def _path() -> str:
    return os.path.dirname(sys.executable) + ":" + SYSTEM


def converse(relay: EngineRelay, connection: int, other: Other, *, mask: bytes | None) -> None:
    """Pings, and what is answered. Each is a record of its own, or shares one: the other decides."""
    other.write(b"".join(build_frame(PING, b"%3d" % n + bytes(SIZE - 3), mask=mask) for n in range(PINGS)))
    header = 2 if mask else 6
    for n in range(PINGS):
        pong = other.read(header + SIZE)
        assert pong[:2] == bytes([0x8A, SIZE + (0 if mask else 128)])
        if mask:
            assert pong[header : header + 3] == b"%3d" % n
    assert relay.engine.close(connection)
    assert relay.cause(connection) == "local"


PAIRS = [(name, version) for name in TALKING for version in ("1.2", "1.3") if (name, version) != ("mbedtls", "1.3")]
"""The package's mbedTLS is one of before TLS 1.3."""


@pytest.mark.parametrize(("name", "version"), PAIRS)
def test_a_client_talks(secured: Secured, name: str, version: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, EngineRelay(tls_deadline=PATIENCE) as relay:
        listener.settimeout(PATIENCE)
        with Other(name, TALKING[name], secured, listener.getsockname()[1], version) as other:
            sock, _ = listener.accept()
            connection = relay.engine.adopt(sock.detach(), tls=secured.server)
            assert relay.engine.bind(connection, A)
            converse(relay, connection, other, mask=bytes(4))


@pytest.mark.parametrize("name", ASKING)
def test_a_client_of_the_web_asks(secured: Secured, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, EngineRelay(tls_deadline=PATIENCE) as relay:
        listener.settimeout(PATIENCE)
        with Other(name, ASKING[name], secured, listener.getsockname()[1]) as other:
            sock, _ = listener.accept()
            connection = relay.engine.adopt(sock.detach(), tls=secured.server)
            if name == "botan":
                other.write(b"GET / HTTP/1.1\r\n\r\n")
            cause = relay.cause(connection)
            assert (cause, [e for e in relay.events if e[1] == EVENT_TLS]) == ("protocol_error", [])


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("name", SERVING)
def test_a_server_of_theirs(secured: Secured, name: str, version: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with EngineRelay(tls_deadline=PATIENCE) as relay, Other(name, SERVING[name], secured, port, version) as other:
        context = TlsContext.connecting("127.0.0.1", ca_file=secured.ca_file)
        sock = _connected(port)
        connection = relay.engine.adopt(sock.detach(), client=True, tls=context)
        converse(relay, connection, other, mask=None)


def _connected(port: int) -> socket.socket:
    """Tries until the program listens."""
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            select.select([], [], [], 0.02)
