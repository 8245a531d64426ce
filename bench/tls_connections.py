"""What connections over TLS cost a relay: memory of each, CPU time of a handshake, and a bystander's wait for them.

    python bench/tls_connections.py
    python bench/tls_connections.py --connections 10000 --rounds 9

The engine has a process of its own, whose Python accepts connections and hands them over. All ends are on loopback.

    idle            its handshake is done, and it has answered a PING
    silent          half a ClientHello was sent
    in handshake    a ClientHello was sent, and the answer is not read
    handshakes      each with a new connection and P-256, against a bare loop of SSL_accept with the same libssl
    bystander       a member's PINGs while 2,000 clients connect at once, in a process of its own
"""

import ctypes
import json
import os
import resource
import selectors
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import checkout  # noqa: F401
import click
import trustme
from machine import Bystanders, describe
from target import Target, missed

from candy import _fastpath

NAME = "relay.test"
PING = b"\x89\x80\0\0\0\0"
PATIENCE_S = 60.0
DEADLINE_S = 5.0
AT_ONCE = 2000
NEW = _fastpath.openssl_version().split()[1] >= "3.2"
"""Of OpenSSL, which takes more for a connection since then."""
IDLE_KB_MAX = 23.0 if NEW else 16.0
SILENT_KB_MAX, HANDSHAKE_KB_MAX = 2.0, 64.0
RATE_MIN = 0.8
P99_MS_MAX = 5.0


class Server:
    """A process that takes connections.

    Args:
        kind: `engine`, or `bare`, a loop of SSL_accept.
    """

    def __init__(self, kind: str, folder: Path, deadline: float = 600.0) -> None:
        argv = [sys.executable, __file__, "--serve", kind, "--folder", str(folder), "--deadline", str(deadline)]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = self.ask()["port"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self) -> dict[str, Any]:
        """`port`, `connections`, `cpu_s` and `rss_kb`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def wait_for(self, connections: int) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE_S
        while (found := self.ask())["connections"] != connections:
            if time.monotonic() > until:
                raise RuntimeError(f"{found['connections']} connections instead of {connections}")
            time.sleep(0.02)
        return found

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)


def state(listener: socket.socket, connections: int) -> str:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    rss = pages * resource.getpagesize() // 1024
    port = listener.getsockname()[1]
    return json.dumps({"port": port, "connections": connections, "cpu_s": time.process_time(), "rss_kb": rss})


def serve_engine(folder: Path, deadline: float) -> None:
    engine = _fastpath.Engine(1, ping_after=0, dead_after=0, tls_deadline=deadline)
    engine.add_network()
    context = _fastpath.TlsContext.server((folder / "chain.pem", folder / "key.pem"))
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener, selectors.DefaultSelector() as selector:
        listener.setblocking(False)
        for file in (listener, engine, sys.stdin):
            selector.register(file, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    with suppress(BlockingIOError):
                        while True:
                            connection, _ = listener.accept()
                            engine.adopt(connection.detach(), tls=context, extended=True)
                elif key.fileobj is engine:
                    engine.events()
                elif sys.stdin.readline():
                    print(state(listener, engine.stats()["connections"]), flush=True)
                else:
                    engine.stop()
                    return


def serve_bare(folder: Path) -> None:
    """By the libssl that Python has loaded, as the engine uses it."""
    import _ssl

    lib = ctypes.CDLL(_ssl.__file__)
    for name in ("TLS_server_method", "SSL_CTX_new", "SSL_new"):
        getattr(lib, name).restype = ctypes.c_void_p
    context = ctypes.c_void_p(lib.SSL_CTX_new(ctypes.c_void_p(lib.TLS_server_method())))
    lib.SSL_CTX_use_certificate_chain_file(context, os.fsencode(folder / "chain.pem"))
    lib.SSL_CTX_use_PrivateKey_file(context, os.fsencode(folder / "key.pem"), 1)
    lib.SSL_CTX_set_num_tickets(context, ctypes.c_size_t(0))
    lib.SSL_CTX_ctrl(context, 92, ctypes.c_long(0), b"X25519:P-256")
    lib.SSL_CTX_set_ciphersuites(context, b"TLS_AES_128_GCM_SHA256")
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener, selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    connection.setblocking(True)
                    tls = ctypes.c_void_p(lib.SSL_new(context))
                    lib.SSL_set_fd(tls, connection.fileno())
                    lib.SSL_accept(tls)
                    lib.SSL_free(tls)
                    connection.close()
                elif sys.stdin.readline():
                    print(state(listener, 0), flush=True)
                else:
                    return


def ping(port: int, folder: Path) -> None:
    """A bystander: PINGs until it is told to end, then its 99th percentile, milliseconds."""
    tls = contexts(folder).wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname=NAME)
    found = []
    with selectors.DefaultSelector() as selector, tls:
        selector.register(sys.stdin, selectors.EVENT_READ)
        while not selector.select(0):
            start = time.perf_counter()
            tls.sendall(PING)
            if not tls.recv(2):
                raise RuntimeError("the bystander lost its connection")
            found.append(time.perf_counter() - start)
            time.sleep(0.001)
    print(statistics.quantiles(found, n=100)[98] * 1000, flush=True)


def contexts(folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def memory(folder: Path, count: int) -> list[Target]:
    """Of each connection in the engine's process, kB."""
    context = contexts(folder)

    def each(kind: str, begin: Callable[[socket.socket], socket.socket | None]) -> float:
        with Server("engine", folder) as server:
            before = server.wait_for(0)["rss_kb"]
            ends = [server.connect() for _ in range(count)]
            kept = [begin(end) for end in ends]
            time.sleep(1)
            found = server.wait_for(count)["rss_kb"] - before
            for end in (*ends, *filter(None, kept)):
                end.close()
        print(f"  {kind:12} {found / count:6.2f} kB each, {count} of them {found / 1024:.0f} MB")
        return float(found) / count

    def log_in(end: socket.socket) -> socket.socket:
        tls = context.wrap_socket(end, server_hostname=NAME)
        tls.sendall(PING)
        tls.recv(2)
        return tls

    silent = each("silent", lambda end: end.sendall(first_words(context)[:100]))
    shaking = each("in handshake", lambda end: end.sendall(first_words(context)))
    idle = each("idle", log_in)
    return [
        Target(f"an idle member: {idle:.2f} kB, at most {IDLE_KB_MAX}", idle <= IDLE_KB_MAX),
        Target(f"a silent connection: {silent:.2f} kB, at most {SILENT_KB_MAX}", silent <= SILENT_KB_MAX),
        Target(f"one in handshake: {shaking:.2f} kB, at most {HANDSHAKE_KB_MAX}", shaking <= HANDSHAKE_KB_MAX),
    ]


def first_words(context: ssl.SSLContext) -> bytes:
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=NAME)
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def handshakes(folder: Path, rounds: int, count: int) -> Target:
    """The engine's for each second of its CPU time against the bare loop's."""
    context = contexts(folder)
    rates: dict[str, list[float]] = {"engine": [], "bare": []}
    with Server("engine", folder) as engine, Server("bare", folder) as bare:
        for turn in range(rounds + 1):
            for name, server in (("engine", engine), ("bare", bare)):
                before = server.ask()["cpu_s"]
                for _ in range(count):
                    with context.wrap_socket(server.connect(), server_hostname=NAME):
                        pass
                used = server.wait_for(0)["cpu_s"] - before
                if turn:
                    rates[name].append(count / used)
    ratio = statistics.median(ours / its for ours, its in zip(rates["engine"], rates["bare"], strict=True))
    print(f"  handshakes   {', '.join(f'{n} {statistics.median(r):.0f}' for n, r in rates.items())} for a CPU second")
    return Target(f"handshakes: {ratio:.2f} of the bare loop's, at least {RATE_MIN}", ratio >= RATE_MIN)


def crowd(folder: Path) -> list[Target]:
    """2,000 connect at once beside a bystander, and then say no more."""
    context = contexts(folder)
    with Server("engine", folder, DEADLINE_S) as server:
        argv = [sys.executable, __file__, "--ping", str(server.port), "--folder", str(folder)]
        bystander = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        server.wait_for(1)
        time.sleep(0.5)
        words = [first_words(context) for _ in range(AT_ONCE)]
        ends = [server.connect() for _ in range(AT_ONCE)]
        for end, hello in zip(ends, words, strict=True):
            end.sendall(hello)
        begun = time.monotonic()
        for end in ends:
            end.recv(1)
        p99 = float(bystander.communicate("\n")[0])
        server.wait_for(0)
        gone = time.monotonic() - begun
    return [
        Target(f"a bystander's p99 while {AT_ONCE} connect: {p99:.2f} ms, at most {P99_MS_MAX}", p99 <= P99_MS_MAX),
        Target(f"those that say no more are gone after {gone:.1f} s, at most {DEADLINE_S + 1}", gone <= DEADLINE_S + 1),
    ]


@click.command()
@click.option("--connections", type=click.IntRange(1), default=2000, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--handshakes", "count", type=click.IntRange(1), default=500, show_default=True, help="Of each, a round.")
@click.option("--serve", hidden=True)
@click.option("--ping", "port", type=int, hidden=True)
@click.option("--folder", type=Path, hidden=True)
@click.option("--deadline", type=float, hidden=True)
def main(connections: int, rounds: int, count: int, serve: str, port: int, folder: Path, deadline: float) -> None:
    """Measure what connections over TLS cost."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if serve == "bare":
        serve_bare(folder)
    elif serve:
        serve_engine(folder, deadline)
    elif port:
        ping(port, folder)
    else:
        measure(connections, rounds, count)


def measure(connections: int, rounds: int, count: int) -> None:
    others = Bystanders()
    print(f"{describe()}, {_fastpath.openssl_version()}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        authority = trustme.CA()
        issued = authority.issue_cert(NAME, key_type=trustme.KeyType.ECDSA)
        issued.cert_chain_pems[0].write_to_path(str(folder / "chain.pem"))
        issued.private_key_pem.write_to_path(str(folder / "key.pem"))
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        targets = [*memory(folder, connections), handshakes(folder, rounds, count), *crowd(folder)]
    print(f"  others had {others.share():.0%} of all cores")
    for target in targets:
        print(target)
    sys.exit(missed(targets))


if __name__ == "__main__":
    main()
