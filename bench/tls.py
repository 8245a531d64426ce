"""A relay over TLS against the limit of the cipher, and against TLS proxies in front of a plain relay.

    python bench/tls.py
    python bench/tls.py --rounds 9 --size 65000

One member sends FORWARDs to another over TLS 1.3 with AES-128-GCM, as fast as a window lets it, through

    candy           the engine, with its own TLS
    limit           a thread: recv, EVP open, a pass over every byte, EVP seal, send; the same libcrypto
    nginx, haproxy  in front of the engine, with buffers of 256 KB, as far as they are installed

Each round has all of them, one after the other. What is compared is bytes delivered for each second of CPU time that
the relay, its proxy included, has used: the median over the rounds of each round's own ratio.
"""

import os
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from contextlib import ExitStack, suppress
from pathlib import Path

import _endpoints
import click
import trustme
from contestant import connected_pairs
from machine import Cores, describe

from candy import _fastpath

NAME = "relay.test"
SIZES = (65000, 1400)
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: relay.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
PATIENCE_S = 10
BURST_BYTES = 1 << 18
WINDOW_BYTES = 1 << 20
"""What may be on its way: more would wait in the relay, or be dropped there."""
READ_BYTES = 1 << 20
A, B = 0x0A000001, 0x0A000002
TARGETS = {"limit": 0.85, "nginx": 1.4, "haproxy": 1.4}
"""candy's bytes for a CPU second against theirs."""


class Setting:
    """Certificates, in files."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert(NAME, key_type=trustme.KeyType.ECDSA)
        self.folder = folder
        self.chain, self.key, self.both = folder / "chain.pem", folder / "key.pem", folder / "both.pem"
        issued.cert_chain_pems[0].write_to_path(str(self.chain))
        issued.private_key_pem.write_to_path(str(self.key))
        self.both.write_bytes(self.chain.read_bytes() + self.key.read_bytes())
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority.configure_trust(self.context)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3

    def connect(self, sock: socket.socket) -> ssl.SSLSocket:
        secured = self.context.wrap_socket(sock, server_hostname=NAME)
        cipher = secured.cipher()
        if cipher is None or cipher[0] != "TLS_AES_128_GCM_SHA256":
            raise RuntimeError(f"the cipher is {cipher}")
        return secured


class Contestant(ABC):
    """A relay with a member that sends and one that receives, whose records are counted and not opened.

    Attributes:
        name: in the table.
        delivered: bytes that the receiver has read, ciphertext.
    """

    name: str

    def __init__(self) -> None:
        self.delivered = 0
        self._over = False

    @abstractmethod
    def cpu_ns(self) -> int:
        """CPU time that the relay has used."""

    @abstractmethod
    def close(self) -> None: ...

    def begin(self, sender: socket.socket, burst: bytes, receiver: socket.socket) -> None:
        self._ends = sender, receiver
        self._burst = burst
        self._reader = threading.Thread(target=self._read, args=(receiver,), daemon=True)
        self._reader.start()

    def round(self, seconds: float) -> float:
        """Send for so long; returns bytes delivered for each second of CPU time."""
        cpu, delivered = self.cpu_ns(), self.delivered
        sent = 0
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if sent - (self.delivered - delivered) > WINDOW_BYTES:
                time.sleep(0.00005)
                continue
            self._ends[0].sendall(self._burst)
            sent += len(self._burst)
        while True:
            before = self.delivered
            time.sleep(0.02)
            if self.delivered == before:
                break
        return (self.delivered - delivered) / ((self.cpu_ns() - cpu) / 1e9)

    def _read(self, receiver: socket.socket) -> None:
        # The kernel throws TCP's bytes away, uncopied.
        descriptor = socket.socket(fileno=os.dup(receiver.fileno()))
        with descriptor, suppress(OSError):
            descriptor.setblocking(True)
            room = bytearray(READ_BYTES)
            while count := descriptor.recv_into(room, READ_BYTES, socket.MSG_TRUNC):
                self.delivered += count

    def end(self) -> None:
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        for end in self._ends:
            end.close()


def burst(size: int) -> bytes:
    """Masked frames from A to B, the mask 0."""
    payload = b"\1" + bytes([0x45, 0]) + size.to_bytes(2, "big") + bytes(4) + b"\x40\x11\0\0"
    payload += A.to_bytes(4, "big") + B.to_bytes(4, "big")
    payload += os.urandom(size + 1 - len(payload))
    length = bytes([254]) + len(payload).to_bytes(2, "big") if len(payload) < 65536 else b""
    frame = b"\x82" + (length or bytes([255]) + len(payload).to_bytes(8, "big")) + bytes(4) + payload
    return frame * (BURST_BYTES // len(frame))


class Candy(Contestant):
    """The engine, with its own TLS."""

    name = "candy"

    def __init__(self, setting: Setting, size: int, cores: Cores) -> None:
        super().__init__()
        with cores.for_relay():
            self._engine = _fastpath.Engine(1, ping_after=0, dead_after=0)
            self._engine.add_network()
            context = _fastpath.TlsContext.server((setting.chain, setting.key))
            pairs = connected_pairs(2)
            ends = []
            numbers = [self._engine.adopt(relay.detach(), extended=True, tls=context) for _, relay in pairs]
        for (member, _), number, address in zip(pairs, numbers, (A, B), strict=True):
            ends.append(setting.connect(member))
            self._engine.bind(number, address)
        self.begin(ends[0], burst(size), ends[1])

    def cpu_ns(self) -> int:
        return sum(self._engine.worker_cpu_ns())

    def drops(self) -> dict[str, int]:
        return {reason: n for reason, n in self._engine.drops().items() if n}

    def close(self) -> None:
        self.end()
        self._engine.stop()


class Limit(Contestant):
    """EVP alone."""

    name = "limit"

    def __init__(self, setting: Setting, size: int, cores: Cores) -> None:
        super().__init__()
        (sender, source), (receiver, destination) = self._pairs = connected_pairs(2)
        for end in (source, destination):
            end.setblocking(True)
        with cores.for_relay():
            self._relay = _endpoints.CipherRelay(source.fileno(), destination.fileno())
        records = _endpoints.cipher_records(BURST_BYTES // 16384)
        self.begin(sender, records, receiver)

    def cpu_ns(self) -> int:
        return self._relay.cpu_ns()

    def close(self) -> None:
        self._relay.stop()
        self.end()
        for _, relay in self._pairs:
            relay.close()


class Proxy(Contestant):
    """A TLS proxy in front of the engine, which answers the upgrade that passes."""

    def __init__(self, setting: Setting, size: int, cores: Cores) -> None:
        super().__init__()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as undo:
            listener.settimeout(PATIENCE_S)
            with cores.for_relay():
                self._engine = _fastpath.Engine(1, ping_after=0, dead_after=0)
                self._engine.add_network()
                self._process = subprocess.Popen(self.command(setting, port, listener.getsockname()[1]))
            undo.callback(self._kill)
            ends = []
            for address in (A, B):
                end = setting.connect(self._connected(port))
                end.sendall(UPGRADE)
                relay, _ = listener.accept()
                request = b""
                while b"\r\n\r\n" not in request:
                    request += relay.recv(65536)
                self._engine.bind(self._engine.adopt(relay.detach(), extended=True, preamble=SWITCHED), address)
                answer = b""
                while b"\r\n\r\n" not in answer:
                    answer += end.recv(1)
                ends.append(end)
            undo.pop_all()
        self.begin(ends[0], burst(size), ends[1])

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._engine.stop()

    @abstractmethod
    def command(self, setting: Setting, port: int, relay: int) -> list[str]: ...

    @staticmethod
    def _connected(port: int) -> socket.socket:
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return socket.create_connection(("127.0.0.1", port))
            except ConnectionRefusedError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)

    def cpu_ns(self) -> int:
        return sum(self._engine.worker_cpu_ns()) + _endpoints.process_cpu_ns(self._process.pid)

    def close(self) -> None:
        self.end()
        self._kill()


class Nginx(Proxy):
    name = "nginx"

    def command(self, setting: Setting, port: int, relay: int) -> list[str]:
        folder = setting.folder / "nginx"
        folder.mkdir(exist_ok=True)
        (folder / "nginx.conf").write_text(f"""
daemon off; master_process off; pid {folder}/pid; error_log {folder}/errors;
events {{ }}
http {{
    access_log off;
    {" ".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))}
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {setting.chain}; ssl_certificate_key {setting.key};
        ssl_protocols TLSv1.3; ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
        location / {{
            proxy_pass http://127.0.0.1:{relay}; proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
            proxy_buffer_size 256k; proxy_buffers 8 256k; proxy_busy_buffers_size 512k;
            proxy_read_timeout 1h;
        }}
    }}
}}
""")
        return ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "errors")]


class Haproxy(Proxy):
    name = "haproxy"

    def command(self, setting: Setting, port: int, relay: int) -> list[str]:
        file = setting.folder / "haproxy.cfg"
        file.write_text(f"""
global
    nbthread 1
    tune.bufsize 262144
    tune.ssl.default-dh-param 2048
    ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
frontend members
    bind 127.0.0.1:{port} ssl crt {setting.both} ssl-min-ver TLSv1.3
    default_backend relay
backend relay
    server relay 127.0.0.1:{relay}
""")
        return ["haproxy", "-db", "-q", "-f", str(file)]


def contestants() -> list[type[Candy | Limit | Nginx | Haproxy]]:
    found: list[type[Candy | Limit | Nginx | Haproxy]] = [Candy, Limit]
    return found + [proxy for proxy in (Nginx, Haproxy) if shutil.which(proxy.name)]


def compare(size: int, rounds: int, seconds: float, cores: Cores) -> bool:
    """Measure, print a table; whether every target is reached."""
    with ExitStack() as stack:
        setting = Setting(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        players: list[Candy | Limit | Nginx | Haproxy] = []
        for make in contestants():
            players.append(make(setting, size, cores))
            stack.callback(players[-1].close)
        for player in players:
            player.round(seconds / 2)
        rates: dict[str, list[float]] = {player.name: [] for player in players}
        for _ in range(rounds):
            for player in players:
                rates[player.name].append(player.round(seconds))
        drops = players[0].drops() if isinstance(players[0], Candy) else {}
    reached = True
    print(f"{size} bytes, {rounds} rounds of {seconds} s each" + (f"; candy dropped {drops}" if drops else ""))
    for name, found in rates.items():
        line = f"  {name:8} {statistics.median(found) * 8 / 1e9:6.2f} Gbit/s for a CPU second"
        if name in TARGETS:
            ratio = statistics.median(ours / theirs for ours, theirs in zip(rates["candy"], found, strict=True))
            reached &= ratio >= TARGETS[name]
            verdict = "reached" if ratio >= TARGETS[name] else "MISSED"
            line += f", candy has {ratio:.3f} of it: target {TARGETS[name]} {verdict}"
        print(line)
    return reached


@click.command()
@click.option("--size", "sizes", type=click.IntRange(24, 65535), multiple=True, help="Of a packet, bytes.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.01), default=1.0, show_default=True, help="Of each, a round.")
@click.option("--pinned/--unpinned", default=True, show_default=True, help="Relay and members on a core each.")
def main(sizes: tuple[int, ...], rounds: int, seconds: float, pinned: bool) -> None:
    """Compare the engine's TLS with what its cipher costs, and with proxies."""
    cores = Cores(pinned=pinned)
    print(f"{describe()}, {_fastpath.openssl_version()}, {cores}")
    missed = [size for size in sizes or SIZES if not compare(size, rounds, seconds, cores)]
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
