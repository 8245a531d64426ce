"""Nothing that comes for a session does more than be dropped under a name; what its peer sealed comes out as it was.

An input is two bytes of flags and a payload: sealed with the session's key (1), behind a mask (2), fragmented (4), or
as it is.
"""

from kit.peer import BINARY, CONTINUATION, EngineRelay, packet
from kit.sealing import REQUIRE, behind, pair

from candy._fastpath import CANDY3

A, B = 0x0A000001, 0x0A000002
MASK = bytes([0x91, 7, 7, 7])


def check_sealed(data: bytes) -> None:
    if len(data) < 2 or len(data) > 65_500:
        return
    flags, payload = data[0], data[2:]
    one = pair(A, B)
    if flags & 1:
        payload = one.comes(data[1], payload)
    if flags & 2:
        payload = behind(MASK, payload)
    last = packet(B, A, b"the last one", flow=9)
    with EngineRelay() as relay, relay.device(vnet=bool(flags & 8)) as (kernel, tun):
        server = relay.joined(tun, extended=CANDY3)
        relay.engine.set_sealing(tun, REQUIRE, A)
        one.install(relay.engine, tun)
        if flags & 4:
            server.send(BINARY, payload[: len(payload) // 2], final=False)
            server.send(CONTINUATION, payload[len(payload) // 2 :])
        else:
            server.send(BINARY, payload)
        server.send(BINARY, one.comes_packet(256, last))
        skip = 10 if flags & 8 else 0
        while (got := kernel.recv(1 << 17)[skip:]) != last:
            assert flags & 1, "what nobody sealed came out"
            assert len(got) <= len(data)
            assert got[12:20] == last[12:20]
