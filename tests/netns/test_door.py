"""The door of a relay as users start it, before strangers: descriptors that run out, idle connections, neighbours."""

import resource
import selectors
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import trustme
from lab.laboratory import PORT, Laboratory
from lab.member import Ended, Member
from lab.namespaces import Host
from lab.programs import PATIENCE_S, Program
from lab.tls import client_hello, flags_for

pytestmark = pytest.mark.netns

ADDRESS = ("10.0.0.1", PORT)
MANY = 5000
LOG_INS = 20
ROUND_TRIP_S = 0.2


def connect(host: Host) -> socket.socket:
    with host:
        return socket.create_connection(ADDRESS, PATIENCE_S)


def memory_peak(program: Program) -> int:
    """Bytes of the process that were resident at most."""
    status = Path(f"/proc/{program.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) << 10


def open_descriptors(program: Program) -> int:
    return len(list(Path(f"/proc/{program.pid}/fd").iterdir()))


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_descriptors_run_out(laboratory: Laboratory, stack: ExitStack, tmp_path: Path) -> None:
    """The relay says once what to raise, still reads its settings, and lets in again when there is room."""
    settings = tmp_path / "server.toml"
    settings.write_text('dhcp = "192.168.202.0/24"\n')
    relay = laboratory.relay("-c", str(settings), "--unauthenticated-per-source", "1000", "--auth-timeout", "600")
    limit = open_descriptors(relay) + 40
    resource.prlimit(relay.pid, resource.RLIMIT_NOFILE, (limit, limit))
    host = laboratory.host()
    opened = [connect(host) for _ in range(60)]
    relay.wait_for(f"WARNING no descriptor is left for another connection: the limit is {limit}: .*LimitNOFILE")
    said = len(relay.lines)
    relay.signal(signal.SIGHUP)
    relay.wait_for("the settings are read again")
    for one in opened:
        one.close()
    with Member(connect(host)) as member:
        member.log_in(str(member.ask().ip))
    assert len(relay.lines) - said < 10
    assert said < 10


def outlast(host: Host, count: int, first: bytes, trickle: bytes) -> None:
    """Open connections, send each `first` and a byte a second of `trickle`, and return when the relay has ended all."""
    with selectors.DefaultSelector() as selector:
        for _ in range(count):
            opened = connect(host)
            opened.sendall(first)
            selector.register(opened, selectors.EVENT_READ)
        for byte in [*trickle, *[0] * int(PATIENCE_S - len(trickle))]:
            for key in list(selector.get_map().values()):
                assert isinstance(key.fileobj, socket.socket)
                try:
                    if trickle:
                        key.fileobj.send(bytes([byte]))
                    ended = select_end(key.fileobj)
                except (ConnectionResetError, BrokenPipeError):
                    ended = True
                if ended:
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
            if not selector.get_map():
                return
            selector.select(1.0)
        left = len(selector.get_map())
    pytest.fail(f"{left} connections are still there")


def select_end(opened: socket.socket) -> bool:
    try:
        return not opened.recv(65536, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False


@pytest.mark.parametrize(
    ("first", "trickle"),
    [(b"", b""), (b"", client_hello()[:50]), (client_hello(), b"")],
    ids=["silent", "a byte a second", "a ClientHello and no more"],
)
@pytest.mark.usefixtures("many_descriptors")
def test_many_connections_of_one_source_to_a_tls_port(
    laboratory: Laboratory, authority: trustme.CA, tmp_path: Path, first: bytes, trickle: bytes
) -> None:
    """They have ended long before a log-in would have to, and took little memory."""
    flags = flags_for(authority, tmp_path, ADDRESS[0])
    relay = laboratory.relay(*flags, "--auth-timeout", "600", scheme="wss")
    host = laboratory.host()
    outlast(host, MANY, first, trickle)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with Member(context.wrap_socket(connect(host), server_hostname=ADDRESS[0])) as member:
        member.log_in(str(member.ask().ip))
    assert memory_peak(relay) < 100 << 20


@contextmanager
def idle_connections(host: Host, per_s: int) -> Iterator[None]:
    """Open so many a second, say nothing, and close none."""
    end = threading.Event()
    opened = []
    filled = threading.Event()

    def flood() -> None:
        while not end.wait(1 / per_s):
            opened.append(connect(host))
            if len(opened) == per_s:
                filled.set()

    thread = threading.Thread(target=flood)
    thread.start()
    filled.wait(PATIENCE_S)
    yield
    end.set()
    thread.join()
    for one in opened:
        one.close()


@pytest.mark.usefixtures("many_descriptors")
def test_slow_log_ins_beside_idle_connections(laboratory: Laboratory) -> None:
    """From the same address. (What part of them is let in: relay/test_admission.py.)"""
    laboratory.relay()
    host = laboratory.host()
    let_in = 0
    with idle_connections(host, 224):
        for number in range(LOG_INS):
            try:
                with Member(connect(host)) as member:
                    time.sleep(ROUND_TRIP_S)
                    granted = member.ask()
                    time.sleep(ROUND_TRIP_S)
                    member.log_in(str(granted.ip))
                    let_in += 1
            except (Ended, OSError):
                print(f"log-in {number} was closed")
    print(f"{let_in} of {LOG_INS} were let in")
    assert let_in > LOG_INS / 2
