"""A stranger's flood: datagrams that belong to nobody, so many a second, to one UDP port.

    python bench/udp_flood.py 10.0.2.2 26902 --rate 100000 --seconds 2

Each has other bytes: half of them begin as datagrams of a link do, so that only their session number tells. Prints how
many were sent, and the CPU seconds that took, the kernel's work for who they are sent to included.
"""

import ctypes
import os
import socket
import sys
import time

import click

BATCH = 64
LENGTH = 100
LINK_KIND = 0x12

_libc = ctypes.CDLL(None, use_errno=True)


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_Vector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    # The kernel pads a header to eight bytes: as a structure of its own it is.
    _fields_ = (("header", _Header), ("sent", ctypes.c_uint))


def batch(datagrams: list[ctypes.Array[ctypes.c_char]]) -> ctypes.Array[_Message]:
    """For one sendmmsg() on a connected socket."""
    messages = (_Message * len(datagrams))()
    for message, datagram in zip(messages, datagrams, strict=True):
        message.header.vectors = ctypes.pointer(_Vector(ctypes.addressof(datagram), len(datagram)))
        message.header.vector_count = 1
    return messages


def datagram(number: int) -> bytes:
    head = bytes([LINK_KIND, 0, 0, 0]) if number % 2 else os.urandom(4)
    return head + os.urandom(LENGTH - len(head))


@click.command()
@click.argument("address")
@click.argument("port", type=int)
@click.option("--rate", type=click.IntRange(1, 10**7), default=100_000, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.1, 60), default=2.0, show_default=True)
def main(address: str, port: int, rate: int, seconds: float) -> None:
    """Send datagrams that belong to nobody."""
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.connect((address, port))
    buffers = [ctypes.create_string_buffer(datagram(n), LENGTH) for n in range(16 * BATCH)]
    batches = [batch(buffers[at : at + BATCH]) for at in range(0, len(buffers), BATCH)]
    start, sent, turn = time.monotonic(), 0, 0
    while (taken := time.monotonic() - start) < seconds:
        ahead = sent / rate - taken
        if ahead > 0:
            time.sleep(ahead)
            continue
        count = _libc.sendmmsg(sender.fileno(), batches[turn % len(batches)], BATCH, 0)
        if count < 0:
            sys.exit(f"udp_flood: {os.strerror(ctypes.get_errno())}")
        sent += count
        turn += 1
    used = os.times()
    print(f"{sent} {used.user + used.system:.3f}")


if __name__ == "__main__":
    main()
