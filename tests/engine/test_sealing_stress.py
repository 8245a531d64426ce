"""Sessions that come and go under traffic, with several threads that seal and open at once: for the sanitizers too."""

import os
import struct

import pytest
from kit.peer import BINARY, EngineRelay, packet
from kit.sealing import PREFER, SEAL, behind, pair
from kit.superpacket import A, B

from candy._fastpath import CANDY3

pytestmark = [pytest.mark.engine]

ROUNDS = 12 * int(os.environ.get("CANDY_STRESS", "1"))
BATCH = 60
MASK = bytes([0x80, 1, 2, 3])


def test_no_counter_comes_twice_and_nothing_is_used_behind_its_end() -> None:
    """The device's worker seals what goes straight on, the connection's what waited, and Python its notes, while
    sessions are replaced and removed."""
    pairs = [pair(A, B, number=number) for number in range(1, ROUNDS + 1)]
    with EngineRelay(2) as relay, relay.device() as (kernel, tun):
        engine = relay.engine
        server = relay.joined(tun, extended=CANDY3)
        engine.set_sealing(tun, PREFER, A)
        kernel.setblocking(False)
        frames = []
        for number, one in enumerate(pairs):
            one.install(engine, tun)
            engine.set_peer(tun, B, SEAL, session=one.local)
            for n in range(BATCH):
                kernel.setblocking(True)
                kernel.send(packet(A, B, struct.pack(">I", n) + bytes(9000)))
                kernel.setblocking(False)
                if n % 5 == 0:
                    engine.send_sealed(tun, one.local, b"\x80\x01")
                if n % 2 == 0:
                    server.send(BINARY, behind(MASK, one.comes_packet(n, packet(B, A))))
            if number:
                assert engine.remove_session(tun, pairs[number - 1].local)
                server.send(BINARY, behind(MASK, pairs[number - 1].comes_packet(BATCH, packet(B, A))))
            engine.seen(tun)
            frames += server.sync()
            relay.events += engine.events()
        while engine.stats()["packets_in"] < ROUNDS * (BATCH + BATCH // 2) + ROUNDS - 1:
            frames += server.sync()
        while engine.connection_stats(server.connection)["queued_bytes"]:  # type: ignore[index]
            frames += server.sync()
        frames += server.sync()
        by_number = {one.remote: one for one in pairs}
        seen = set()
        for frame in frames:
            one = by_number[int.from_bytes(frame.payload[12:16], "big")]
            sealed = one.went(frame.payload)
            assert (one.remote, sealed.counter) not in seen
            seen.add((one.remote, sealed.counter))
        assert len(seen) > ROUNDS * BATCH // 2


def test_two_connections_open_for_one_session() -> None:
    """While a new one takes over from the old, packets come by both: each counter is taken once."""
    one = pair(A, B)
    count = 400
    with EngineRelay(2) as relay, relay.device() as (kernel, tun):
        first = relay.joined(tun, extended=CANDY3)
        second = relay.joined(tun, extended=CANDY3)
        relay.engine.set_sealing(tun, PREFER, A)
        one.install(relay.engine, tun)
        payloads = [behind(MASK, one.comes_packet(n, packet(B, A, struct.pack(">I", n)))) for n in range(count)]
        got = []
        for at in range(0, count, 20):
            data = [connection.frame(BINARY, p) for p in payloads[at : at + 20] for connection in (first,)]
            first.sock.sendall(b"".join(data))
            second.sock.sendall(b"".join(data))
            got += [struct.unpack_from(">I", kernel.recv(100), 28)[0] for _ in range(20)]
            first.sync()
            second.sync()
        assert sorted(got) == list(range(count))
        assert relay.dropped() == {"replayed": count}
