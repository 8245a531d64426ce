"""What direct links cost a member that knows many: memory, and a core's share with some active and with none.

    python bench/links_many.py                      # as root; five minutes
    python bench/links_many.py --known 1000 --active 100 --seconds 20

The member is real but for its relay and its kernel: its engine, its Linking, and the loop around both as Member has it.
All peers are one engine in another process, with a session for each, behind one UDP socket on loopback. Each has eight
addresses, of which that one answers; the active ones are sent a packet twice a second. Of what a core does meanwhile,
what the same packets cost without Linking is taken off.
"""

import asyncio
import gc
import os
import socket
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from math import inf
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path

import checkout  # noqa: F401
import click
from machine import describe
from target import Target, missed

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from kit.peer import packet
from kit.sealing import FOREVER, PREFER, Pair
from lab.namespaces import Namespace

from candy._fastpath import EVENT_NOTED, Engine
from candy.host.candidates import Machine
from candy.member.linking import Linking, LinkSettings
from candy.member.pathfinder import WARM_S
from candy.protocol.handshake import Cipher
from candy.protocol.linking import Candidate, Endpoint, Kind, Offer, Reason, Says
from candy.sealing.seals import Install, SetPeer, Way

HERE = IPv4Address("10.77.0.1")
"""Of loopback, in a namespace of its own."""
NOWHERE = IPv4Address("10.78.0.0")
MEMBERS = IPv4Address("10.98.0.0")
OWN = int(IPv4Address("10.99.255.1"))
NETWORK = IPv4Network("10.99.0.0/16")
EACH_S = 0.5
MEMORY_MB = 10.0
SHARE = 0.01
SETTLE_S = 150.0
"""Until all is routine. What is new is probed at 40 a second."""


def session(number: int, prefix: int, peers_prefix: int) -> Pair:
    """Of the member with a peer, as the member has it."""
    keys = number.to_bytes(32, "big"), (1 << 32 | number).to_bytes(32, "big")
    peer = int(NETWORK.network_address) + number
    return Pair(OWN, peer, prefix << 16 | number, peers_prefix << 16 | number, *keys)


def device(engine: Engine, own: int) -> tuple[socket.socket, int]:
    """The kernel's end of a device that seals, and its number."""
    engine.add_network(0x0A63FFFF)
    kernel, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    tun = engine.adopt_tun(ours.detach(), vnet=False)
    engine.set_sealing(tun, PREFER, own)
    return kernel, tun


def peers(pipe: Connection, known: int) -> None:
    """The other process: an engine that answers for all of them."""
    engine = Engine(1)
    kernel, tun = device(engine, OWN + 1)
    own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    own.bind((str(HERE), 0))
    port = own.getsockname()[1]
    link = engine.open_link(tun, own.detach())
    pipe.send((engine.link_prefix(tun), port))
    prefix, members_port = pipe.recv()
    for number in range(1, known + 1):
        # To each of them the member is another one, with a path and its pauses.
        one = replace(session(number, prefix, engine.link_prefix(tun)).other(), peer=int(MEMBERS) + number)
        one.install(engine, tun)
        engine.set_peer(tun, one.peer, Way.SEAL, session=one.local)
        engine.set_path(tun, one.peer, link, HERE.packed, members_port, 1400)
    pipe.send("ready")
    pipe.recv()
    engine.stop()
    kernel.close()


class Member:
    """The one that is measured."""

    def __init__(self, pipe: Connection, known: int) -> None:
        peers_prefix, port = pipe.recv()
        self.engine = Engine(1)
        self.kernel, self.tun = device(self.engine, OWN)

        async def look() -> Machine:
            return Machine((HERE,))

        self.linking = Linking(
            LinkSettings(),
            self.engine,
            self.tun,
            os.urandom,
            lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
            look=look,
            reaches=lambda address, machine: True,
        )
        # As a log-in does: a Linking is made before it.
        self.engine.set_sealing(self.tun, PREFER, OWN)
        pipe.send((self.linking.prefix, self.linking._sockets[4][1]))
        pipe.recv()
        self.pairs = [session(number, self.linking.prefix, peers_prefix) for number in range(1, known + 1)]
        self._port = port

    def meet(self) -> None:
        """Have sessions with all, and hear where they are."""
        for each in self.pairs:
            each.install(self.engine, self.tun)
            peer = IPv4Address(each.peer)
            cipher = Cipher(each.cipher)
            self.linking.follow(
                Install(each.local, peer, each.remote, cipher, each.sends, each.receives, FOREVER, FOREVER, True)
            )
            self.engine.set_peer(self.tun, each.peer, Way.SEAL, session=each.local)
            self.linking.follow(SetPeer(peer, Way.SEAL, each.local))
            found = [Candidate(Kind.LAN, Endpoint(HERE, self._port))]
            found += [Candidate(Kind.REFLEXIVE, Endpoint(NOWHERE + each.peer % 65536, 1 + n)) for n in range(7)]
            note = Offer(1, Says(0), Reason.NONE, tuple(found)).encode()
            self.linking.on_event(self.tun, EVENT_NOTED, each.local.to_bytes(4, "big") + note)

    async def run(self, seconds: float) -> None:
        """As Member does (candy/member/member.py)."""
        loop, stirred = asyncio.get_running_loop(), asyncio.Event()
        self.linking.wake = stirred.set
        until = loop.time() + seconds
        while (now := loop.time()) < until:
            loop.add_reader(self.engine.fileno(), stirred.set)
            deadline = min(until, now + self.linking.delay)
            try:
                async with asyncio.timeout_at(deadline if deadline < inf else None):
                    await stirred.wait()
            except TimeoutError:
                pass
            finally:
                loop.remove_reader(self.engine.fileno())
                stirred.clear()
            for source, kind, detail in self.engine.events():
                self.linking.on_event(source, kind, detail)
            self.linking.go_on()

    @property
    def direct(self) -> int:
        return sum(self.linking.state(IPv4Address(each.peer)).endpoint is not None for each in self.pairs)


def resident_mb() -> float:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


async def measured(member: Member, active: int, seconds: float) -> dict[str, float]:
    """Seconds of a core for each second, and megabytes."""
    found: dict[str, float] = {}
    member.linking.lead([NETWORK])
    await member.run(1)
    before = resident_mb()
    member.meet()
    sends = threading.Event()
    sends.set()
    ended = threading.Event()
    packets = [packet(OWN, each.peer, bytes(100)) for each in member.pairs[:active]]

    def traffic() -> None:
        while not ended.wait(EACH_S):
            for each in packets if sends.is_set() else ():
                member.kernel.send(each)

    thread = threading.Thread(target=traffic)
    thread.start()
    try:
        await member.run(SETTLE_S)
        found["direct"] = member.direct
        for name, body in (("active", member.run), ("packets", asyncio.sleep)):
            start = time.process_time()
            await body(seconds)
            found[name] = (time.process_time() - start) / seconds
        found["memory"] = resident_mb() - before
        sends.clear()
        await member.run(WARM_S + 10)
        start = time.process_time()
        await member.run(seconds)
        found["idle"] = (time.process_time() - start) / seconds
    finally:
        ended.set()
        thread.join()
    return found


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--known", default=1000, show_default=True, type=click.IntRange(1, 4000), help="Peers with a session.")
@click.option("--active", default=100, show_default=True, type=click.IntRange(0), help="With whom there is traffic.")
@click.option("--seconds", default=20, show_default=True, type=click.IntRange(1), help="Of each measurement.")
def main(known: int, active: int, seconds: int) -> None:
    """Measure what direct links cost a member that knows many."""
    if os.geteuid() != 0:
        sys.exit("links_many: run as root: it makes a network namespace")
    with ExitStack() as stack:
        place = Namespace("many")
        stack.callback(place.close)
        place.run("ip", "address", "add", f"{HERE}/32", "dev", "lo")
        place.run("ip", "route", "add", f"{NOWHERE}/16", "dev", "lo")
        stack.enter_context(place)
        pipe, far = Pipe()
        other = get_context("fork").Process(target=peers, args=(far, known), daemon=True)
        other.start()
        member = Member(pipe, known)
        try:
            found = asyncio.run(measured(member, active, seconds))
        finally:
            pipe.send("end")
            other.join()
            member.engine.stop()
            member.kernel.close()
    share = found["active"] - found["packets"]
    judged = [
        Target(f"{known} known, {active} active, {found['direct']:.0f} of them reached directly"),
        Target(f"{share:.2%} of a core beyond what the packets cost (must be < {SHARE:.0%})", share < SHARE),
        Target(f"{found['idle']:.3%} with none active, a minute after (must be < {SHARE:.0%})", found["idle"] < SHARE),
        Target(f"{found['memory']:.1f} MB, sessions and all (must be < {MEMORY_MB:g})", found["memory"] < MEMORY_MB),
    ]
    print(describe(), *judged, sep="\n")
    if missed(judged):
        sys.exit(1)


if __name__ == "__main__":
    main()
