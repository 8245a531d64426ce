"""What strangers and members do to a relay that means harm: each way is one bout, and runs over and over.

    python -m lab.mischief HOST PORT WAY…        until it is ended

Rules: a bout ends by itself, within a minute; each of those that mean harm comes as one device, or as two, again and
again, because each device that logs in leaves a lease; that the relay refuses or ends a connection is expected; the
process needs no more than a few percent of a core, because what is tested is what the relay does, not who is faster.
"""

import random
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from ipaddress import IPv4Address

from kit.peer import BINARY, FORWARD, PING, SUPER, TEXT, numbered
from lab.member import Ended, Member, frame, packet
from lab.programs import PASSWORD

from candy.protocol import wire

Address = tuple[str, int]
BOUT_S = 5.0
"""How long what is held is held."""
FLOOD_S = 30.0
"""How long a member floods."""
GAP_S = 0.05
NETWORK = int(IPv4Address("10.64.0.0"))
HELD = "10.64.0.2"
"""Of a member that stays, and for which it is reserved."""
EVERYBODY = int(IPv4Address("10.64.255.255"))
VIRTIO_BYTES = 10


def enter(relay: Address, device: int = 0, *, password: str = PASSWORD) -> Member:
    """Upgraded, and no more.

    Args:
        device: which of this thread's.

    Raises:
        Ended: the relay refused.
    """
    try:
        vmac = b"bad%03x%010x" % (device, threading.get_native_id())
        return Member.connect(relay, vmac=vmac, password=password, extended=True)
    except AssertionError as error:
        raise Ended(str(error)) from error


def join(relay: Address, device: int = 0) -> Member:
    """Logged in, with an address that it was granted."""
    member = enter(relay, device)
    try:
        member.send(member.greeting())
        return member.log_in(str(member.ask().ip))
    except BaseException:
        member.close()
        raise


def bare(relay: Address) -> socket.socket:
    return socket.create_connection(relay, BOUT_S)


def hold(connections: int, relay: Address, begin: bytes, drip: bytes = b"") -> None:
    """Open these, send the beginning, then perhaps a byte now and then."""
    with ExitStack() as stack:
        opened = [stack.enter_context(bare(relay)) for _ in range(connections)]
        for one in opened:
            one.sendall(begin)
        end = time.monotonic() + BOUT_S
        while time.monotonic() < end:
            time.sleep(1)
            for one in opened if drip else ():
                one.sendall(drip)


def silence(relay: Address) -> None:
    hold(40, relay, b"")


def drip(relay: Address) -> None:
    hold(20, relay, b"GET / HTTP/1.1\r\nX: ", b"x")


def huge_head(relay: Address) -> None:
    with bare(relay) as opened:
        opened.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 300_000)
        opened.recv(4096)


def garbage(relay: Address) -> None:
    with bare(relay) as opened:
        opened.sendall(random.randbytes(4096))
        opened.recv(4096)


def guess(relay: Address) -> None:
    for number in range(20):
        with enter(relay, password=f"guess {number}") as member:
            member.send(member.auth("10.64.1.1"))
            member.end()


def replay(relay: Address) -> None:
    with enter(relay) as member:
        ip = str(member.ask().ip)
        sniffed = member.auth(ip)
        member.log_in(ip)
    for _ in range(5):
        with enter(relay) as thief:
            thief.send(sniffed)
            thief.end()


def take_pool(relay: Address) -> None:
    with ExitStack() as stack:
        for device in range(50):
            member = stack.enter_context(enter(relay, device))
            member.send(member.greeting())
            member.ask()


def pings_before_login(relay: Address) -> None:
    with enter(relay) as member:
        member.socket.settimeout(BOUT_S)
        member.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        flood(member, frame(b"", PING) * 1000)


def flood(member: Member, data: bytes, gap_s: float = GAP_S) -> None:
    """Send this over and over, and read nothing."""
    for _ in range(int(FLOOD_S / gap_s)):
        member.socket.sendall(data)
        time.sleep(gap_s)


def pings(relay: Address) -> None:
    with join(relay) as member:
        member.socket.settimeout(BOUT_S)
        flood(member, frame(b"x" * 125, PING) * 200)


def pieces(relay: Address) -> None:
    """Fragments, half frames, empty ones."""
    with join(relay) as member:
        flood(member, frame(b"", BINARY) * 500 + frame(b"x", BINARY, final=False))
    with enter(relay) as member:
        member.socket.sendall(frame(bytes(60_000))[:100])
        time.sleep(1)


def nonsense(relay: Address) -> None:
    """What no client says, and kinds that go on to others."""
    with join(relay) as member:
        assert member.ip is not None
        messages = (
            wire.General(7, 0, member.ip, member.ip, b"x" * 900),
            wire.Udp4Conn(member.ip, member.ip, member.ip, 1),
            wire.Discovery(member.ip, IPv4Address("255.255.255.255")),
        )
        said = [frame(random.randbytes(40)) for _ in range(200)]
        said += [frame(message.encode()) for message in messages] + [frame(b"\xff\xfe", TEXT)]
        flood(member, b"".join(said), 3.0)


def broadcasts(relay: Address) -> None:
    with join(relay) as member:
        assert member.ip is not None
        flood(member, frame(numbered(int(member.ip), EVERYBODY, 1)), 0.5)


def spoof(relay: Address) -> None:
    with join(relay) as member:
        said = [frame(FORWARD + packet(f"10.64.{number}.7", "10.64.0.9", bytes(20))) for number in range(200)]
        flood(member, b"".join(said), 0.5)


def nowhere(relay: Address) -> None:
    """Tiny packets to addresses that nobody has."""
    with join(relay) as member:
        assert member.ip is not None
        said = [frame(numbered(int(member.ip), NETWORK + 60_000 + number, 1)) for number in range(500)]
        flood(member, b"".join(said))


def bad_supers(relay: Address) -> None:
    with join(relay) as member:
        assert member.ip is not None
        header = packet(str(member.ip), str(member.ip), bytes(2000), 6)
        said = [frame(SUPER + random.randbytes(VIRTIO_BYTES) + header) for _ in range(20)]
        flood(member, b"".join(said))


def stall(relay: Address) -> None:
    """One that never reads, and one that keeps it supplied."""
    with join(relay) as reader, join(relay, 1) as writer:
        assert reader.ip is not None
        assert writer.ip is not None
        flood(writer, frame(numbered(int(writer.ip), int(reader.ip), 1, 1400)) * 100)


def claim(relay: Address) -> None:
    """The address of somebody who is there, with the right password."""
    with enter(relay) as member:
        member.socket.settimeout(BOUT_S)
        member.send(member.greeting())
        member.send(member.auth(HELD))
        member.end()
    # Not each second: a claim's AUTH makes another's for this address in the same second a replay, its owner's as well.
    time.sleep(BOUT_S)


def come_and_go(relay: Address) -> None:
    for _ in range(10):
        join(relay).close()
        time.sleep(FLOOD_S / 10)


def leave_in_the_middle(relay: Address) -> None:
    for _ in range(20):
        with bare(relay) as opened:
            opened.sendall(b"GET / HT")
        with enter(relay) as member:
            member.socket.sendall(member.greeting()[:20])


WAYS: dict[str, Callable[[Address], None]] = {
    way.__name__: way
    for way in (
        silence,
        drip,
        huge_head,
        garbage,
        guess,
        replay,
        take_pool,
        pings_before_login,
        pings,
        pieces,
        nonsense,
        broadcasts,
        spoof,
        nowhere,
        bad_supers,
        stall,
        claim,
        come_and_go,
        leave_in_the_middle,
    )
}


def repeat(way: Callable[[Address], None], relay: Address) -> None:
    while True:
        try:
            way(relay)
        except (OSError, Ended):
            # Refused, ended, or there is no relay now.
            time.sleep(0.5)
        time.sleep(GAP_S)


def main(host: str, port: str, *ways: str) -> None:
    threads = [threading.Thread(target=repeat, args=(WAYS[way], (host, int(port))), name=way) for way in ways]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
