"""What a user would write instead, and wants it fast: a relay in picows that speaks candy's wire (AUTH and FORWARD).

    CANDY_PASSWORD=… python bench/picows_relay.py [PORT]

A contestant of throughput.py, which hands it a listening socket instead of a port. It knows no pool, no replay memory,
no liveness and no bound on what waits for a slow member.
"""

import asyncio
import hashlib
import hmac
import os
import socket
import sys

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

PASSWORD = os.environ["CANDY_PASSWORD"].encode()
members: dict[bytes, WSTransport] = {}


class Member(WSListener):
    address = b""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type != WSMsgType.BINARY:
            return
        data = frame.get_payload_as_bytes()
        if data[0] == 1 and data[13:17] == self.address:
            to = members.get(data[17:21])
            if to is not None:
                to.send(WSMsgType.BINARY, data)
        elif data[0] == 0 and hmac.compare_digest(hashlib.sha256(PASSWORD + data[1:13]).digest(), data[13:45]):
            self.address = data[1:5]
            members[self.address] = transport

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if members.get(self.address) is transport:
            del members[self.address]


async def main() -> None:
    inherited = os.environ.get("LISTEN_FD")
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 26816
    listener = socket.socket(fileno=int(inherited)) if inherited else socket.create_server(("", port))
    # A bench's members connect all at once and log in one after the other: the last may be late.
    server = await ws_create_server(lambda request: Member(), sock=listener, websocket_handshake_timeout=None)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
