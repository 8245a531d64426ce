"""A name server that knows one name: `python nameserver.py ADDRESS NAME IP`. Says what it is asked for.

`resolving_by(folder, ADDRESS)` is a prefix of a command line: what runs behind it asks this server, and no file of the
machine is touched.
"""

import socket
import struct
import sys
from pathlib import Path


def resolving_by(folder: Path, address: str) -> list[str]:
    """The command's mounts are its own, and so is its resolv.conf."""
    own = folder / "resolv.conf"
    own.write_text(f"nameserver {address}\noptions timeout:1 attempts:1\n")
    return ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"', str(own)]


def question(query: bytes) -> tuple[str, int, bytes]:
    """The name, the type, and both as they came."""
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode("ascii"))
        at += 1 + length
    return ".".join(labels), int.from_bytes(query[at + 1 : at + 3], "big"), query[12 : at + 5]


def reply(query: bytes, name: str, ip: str) -> bytes:
    asked, kind, section = question(query)
    is_known = asked == name
    answers = b""
    if is_known and kind == 1:
        answers = struct.pack(">HHHIH", 0xC00C, 1, 1, 0, 4) + socket.inet_aton(ip)
    # Recursion available; NXDOMAIN for any other name.
    head = struct.pack(">HHHHH", 0x8180 if is_known else 0x8183, 1, bool(answers), 0, 0)
    return query[:2] + head + section + answers


def serve(address: str, name: str, ip: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind((address, 53))
        print("listening", flush=True)
        while True:
            query, source = opened.recvfrom(4096)
            print(f"asked for {question(query)[0]}", flush=True)
            opened.sendto(reply(query, name, ip), source)


if __name__ == "__main__":
    serve(*sys.argv[1:4])
