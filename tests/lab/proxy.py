"""A small HTTP proxy that knows CONNECT: `python proxy.py HOST PORT [BASIC-CREDENTIALS]`. Says what it is asked for."""

import asyncio
import sys


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    request = head.partition("\r\n")[0]
    print(request, flush=True)
    method, target, _ = request.split(" ")
    if len(sys.argv) > 3 and f"\r\nProxy-Authorization: Basic {sys.argv[3]}\r\n" not in head:
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
    elif method != "CONNECT":
        writer.write(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
    else:
        host, _, port = target.rpartition(":")
        there_reader, there_writer = await asyncio.open_connection(host.strip("[]"), int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(carry(reader, there_writer), carry(there_reader, writer))
    writer.close()


async def serve() -> None:
    server = await asyncio.start_server(answer, sys.argv[1], int(sys.argv[2]))
    print("listening", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
