"""A plain TCP proxy, the limit of what goes through a program: `python tcp_proxy.py HOST PORT TO-HOST TO-PORT`.

Each connection has a compiled thread that copies bytes and looks at none of them, with a buffer as large as the
engine's.
"""

import socket
import sys

from _endpoints import BareRelay
from machine import pin_congestion


def main() -> None:
    host, port, to_host, to_port = sys.argv[1:]
    relays: list[tuple[BareRelay, socket.socket, socket.socket]] = []
    with socket.create_server((host, int(port))) as listener:
        pin_congestion(listener)
        print("listening", flush=True)
        while True:
            near, _ = listener.accept()
            far = socket.create_connection((to_host, int(to_port)))
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pin_congestion(far)
            # The sockets live as long as the proxy: a measurement's are few.
            relays.append((BareRelay([near.fileno(), far.fileno()], [[1], [0]]), near, far))


if __name__ == "__main__":
    main()
