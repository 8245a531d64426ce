"""What the way of a packet through the engine does without: Python, and malloc."""

import ctypes
import os
import select
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from kit.peer import BINARY, PATIENCE, EngineRelay, numbered

pytestmark = pytest.mark.engine

A, B = 0x0A000001, 0x0A000002


def test_packets_pass_while_python_stands_still() -> None:
    """The whole way is gone while this thread holds Python's lock and would not hand it over for a thousand seconds."""
    libc = ctypes.PyDLL(None)
    interval = sys.getswitchinterval()
    with EngineRelay() as relay:
        one, other = relay.member(A), relay.member(B)
        frame = one.frame(BINARY, numbered(A, B, 1))
        wait = ctypes.create_string_buffer(struct.pack("ihh", other.sock.fileno(), select.POLLIN, 0))
        sys.setswitchinterval(1000)
        try:
            libc.send(one.sock.fileno(), frame, len(frame), 0)
            assert libc.poll(wait, 1, PATIENCE * 1000) == 1
        finally:
            sys.setswitchinterval(interval)
        assert other.receive().payload == numbered(A, B, 1)


COUNTER = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <unistd.h>
#include <sys/syscall.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
static long calls;
static void count(void) {
    if (syscall(SYS_gettid) != getpid())
        __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED);
}
void *malloc(size_t n) { count(); return __libc_malloc(n); }
void *calloc(size_t n, size_t m) { count(); return __libc_calloc(n, m); }
void *realloc(void *p, size_t n) { count(); return __libc_realloc(p, n); }
long worker_allocations(void) { return __atomic_load_n(&calls, __ATOMIC_RELAXED); }
"""

STEADY = """
import ctypes
from kit.peer import BINARY, FORWARD, PONG, EngineRelay, numbered, packet

count = ctypes.CDLL(None).worker_allocations
count.restype = ctypes.c_long
A, B, C = 0x0A000001, 0x0A000002, 0x0A000003
with EngineRelay() as relay:
    one, other, third = relay.member(A), relay.member(B), relay.member(C, extended=False)
    def turn():
        for n in range(50):
            data = b"".join(one.frame(BINARY, numbered(A, (B, C)[i % 5 == 0], i)) for i in range(60))
            data += one.frame(BINARY, FORWARD + packet(A, 0xE0000001))
            one.sock.sendall(data[:-9])
            one.wait_until_read()
            if n % 2:
                other.sock.sendall(other.frame(PONG))
                other.wait_until_read()
            one.sock.sendall(data[-9:])
            one.wait_until_read()
            assert sum(other.receive() is not None for _ in range(49)) == 49
            assert sum(third.receive() is not None for _ in range(13)) == 13
    turn()
    before = count()
    turn()
    print(before > 0, count() - before, relay.engine.stats()["packets_in"])
"""


def test_steady_forwarding_allocates_nothing(tmp_path: Path) -> None:
    """Every allocation by a worker is counted while packets run, alternate, are cut, interrupted and broadcast."""
    if "LD_PRELOAD" in os.environ:
        pytest.skip("a sanitizer has put its own allocator here")
    source, library = tmp_path / "count.c", tmp_path / "count.so"
    source.write_text(COUNTER)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    found = subprocess.run(
        [sys.executable, "-c", STEADY],
        env={**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    # The first word shows that the count counts: a backlog's memory, made once, is in it.
    assert (found.stdout, found.stderr) == ("True 0 6100\n", "")
