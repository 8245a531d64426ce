"""A STUN server of the plainest sort: `python stunserver.py ADDRESS PORT`. Says who asks."""

import socket
import struct
import sys

from candy.protocol import stun


def answer(query: bytes, source: tuple[str, int]) -> bytes:
    """A success response with MAPPED-ADDRESS alone, as servers of RFC 3489 have it."""
    mapped = struct.pack(">HHBBH4s", stun.MAPPED_ADDRESS, 8, 0, 1, source[1], socket.inet_aton(source[0]))
    return struct.pack(">HH", stun.SUCCESS, len(mapped)) + query[4:20] + mapped


def serve(address: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind((address, port))
        print("listening", flush=True)
        while True:
            query, source = opened.recvfrom(4096)
            print(f"asked by {source[0]}", flush=True)
            opened.sendto(answer(query, source), source)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
