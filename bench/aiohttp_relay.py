"""What a user would write instead: a relay in plain aiohttp that speaks candy's wire (AUTH and FORWARD).

    CANDY_PASSWORD=… python bench/aiohttp_relay.py [PORT]

A contestant of throughput.py, which hands it a listening socket instead of a port. It knows no pool, no replay memory,
no liveness and no bound on what waits for a slow member.
"""

import hashlib
import hmac
import os
import socket
import sys

from aiohttp import WSMsgType, web

PASSWORD = os.environ["CANDY_PASSWORD"].encode()
members: dict[bytes, web.WebSocketResponse] = {}


async def member(request: web.Request) -> web.WebSocketResponse:
    channel = web.WebSocketResponse(compress=False)
    await channel.prepare(request)
    address = b""
    async for message in channel:
        if message.type is not WSMsgType.BINARY:
            continue
        data: bytes = message.data
        if data[0] == 1 and data[13:17] == address:
            to = members.get(data[17:21])
            if to is not None:
                await to.send_bytes(data)
        elif data[0] == 0 and hmac.compare_digest(hashlib.sha256(PASSWORD + data[1:13]).digest(), data[13:45]):
            address = data[1:5]
            members[address] = channel
    if members.get(address) is channel:
        del members[address]
    return channel


def main() -> None:
    relay = web.Application()
    relay.router.add_get("/", member)
    inherited = os.environ.get("LISTEN_FD")
    if inherited:
        web.run_app(relay, sock=socket.socket(fileno=int(inherited)), print=None)
    else:
        web.run_app(relay, port=int(sys.argv[1]) if len(sys.argv) > 1 else 26816)


if __name__ == "__main__":
    main()
