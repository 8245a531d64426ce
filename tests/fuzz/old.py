"""What original clients seal has one outcome each, whatever its IV looks like, and each gets what the slow models read.

The invariant of fuzz_old in _targets.pyx for a whole engine, in Python: what that finds is replayed against it. An
input is a byte of flags (1: no virtio headers, 2: rules are known, 4: what is for others is sent on, 8: members seal
here) and records: a byte (its lowest two bits: from which place; the next three: what the IV looks like), two of
length, and what an original client sealed for 10.0.0.2. There are 10.0.0.1 at place 0, 10.0.0.3, which seals where
members do, at 1, 10.0.0.4 at 3, and 10.0.0.5, which is reached by the first and the last.
"""

import socket
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from fuzz.offload import LAN, OWN, RULES, ours, plain, without_id
from kit.linked import COOKIE, numbered, packed, place, udp
from kit.old_linked import FORWARD, OWN_KEY, opened, sealed
from kit.peer import packet
from kit.sealing import CLEAR, OFF, PREFER, SEAL, pair
from kit.sealing_device import Device, client
from kit.superpacket import NO_VNET, segments

from candy._fastpath import EVENT_OLD

LONGEST = 1600
RECORDS = 60
MESSAGES = 16
"""Of which Python is told at once, of one place."""
PEER, SEALING, THIRD, BEHIND = LAN + 1, LAN + 3, LAN + 4, LAN + 5
PLACES = {PEER: 0, SEALING: 1, THIRD: 3}
FITS = {PEER: 1471, SEALING: 200, THIRD: 100}
KEYS = {peer: bytes([peer & 255]) * 32 for peer in PLACES}
IV_FLAGS, IV_NO_SESSION, IV_SESSION, IV_STUN = range(1, 5)


class Record(NamedTuple):
    """One datagram."""

    place: int
    looks: int
    content: bytes


class Outcome(NamedTuple):
    """Of one datagram, of which one is not empty."""

    drop: str = ""
    """Why."""
    given: bytes = b""
    """To the device."""
    told: bytes = b""
    """To Python."""
    sent: int = 0
    """To which member."""


class Setting:
    """A client's engine, its session, and a socket at each place."""

    def __init__(self, device: Device, flags: int, ends: list[socket.socket]) -> None:
        engine, tun = device.engine, device.tun
        self.device = device
        self.ends = ends
        engine.set_sealing(tun, PREFER if flags & 8 else OFF, OWN)
        engine.set_routes(tun, OWN, [])
        if flags & 2:
            engine.set_rules(0, RULES)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            own.bind(("127.0.0.1", 0))
            self.own = own.getsockname()
            self.link = engine.open_link(tun, own.fileno())
            own.detach()
        self.session = numbered(pair(OWN, SEALING), device)
        self.session.install(engine, tun)
        for peer in (PEER, THIRD, BEHIND):
            engine.set_peer(tun, peer, CLEAR, takes_clear=True)
        engine.set_peer(tun, SEALING, SEAL, session=self.session.local)
        for peer, number in PLACES.items():
            engine.set_old_path(tun, peer, self.link, *packed(ends[number].getsockname()), KEYS[peer], FITS[peer])
        engine.set_old_hops(tun, BEHIND, [PEER, THIRD])
        engine.resend_old(tun, bool(flags & 4))
        engine.set_old_key(tun, OWN, OWN_KEY)

    def comes(self, one: Record) -> None:
        iv = b"\xff" * 12
        if one.looks in (IV_FLAGS, IV_NO_SESSION, IV_SESSION):
            session = self.session.local ^ (one.looks == IV_NO_SESSION)
            iv = struct.pack(">BBHII", 18, 4 if one.looks == IV_FLAGS else 0, 0, session, 0)
        elif one.looks == IV_STUN:
            iv = struct.pack(">HHII", 0x0101, len(one.content) + 8, COOKIE, 0xFFFFFFFF)
        self.ends[one.place].sendto(sealed(one.content, iv=iv), self.own)

    def whence(self, number: int) -> bytes:
        """Link and place, as events have them."""
        return self.link.to_bytes(8, "big") + place(self.ends[number].getsockname())


@contextmanager
def original(flags: int) -> Iterator[Setting]:
    with ExitStack() as stack:
        device = stack.enter_context(client(vnet=not flags & 1))
        yield Setting(device, flags, [stack.enter_context(udp()) for _ in range(4)])


def check_old(data: bytes) -> None:
    if not data:
        return
    flags = data[0]
    played: list[tuple[Record, Outcome]] = []
    for one in records(data):
        what = outcome(one, flags)
        if not what.told or sum(bool(each.told) for _, each in played) < MESSAGES:
            played.append((one, what))
    with original(flags) as setting:
        device, engine = setting.device, setting.device.engine
        for one, _ in played:
            setting.comes(one)
        found = given(setting, flags)
        assert [without_id(each) for each in found] == [without_id(each.given) for _, each in played if each.given]
        assert device.relay.dropped() == Counter(each.drop for _, each in played if each.drop)
        told = [setting.whence(one.place) + each.told for one, each in played if each.told]
        assert device.relay.details(device.tun, EVENT_OLD, len(told)) == told
        sent = [(one, each.sent) for one, each in played if each.sent]
        assert engine.old_resent(device.tun) == len(sent)
        for one, peer in sent:
            assert opened(setting.ends[PLACES[peer]].recv(65536), KEYS[peer]) == one.content


def records(data: bytes) -> list[Record]:
    found: list[Record] = []
    at = 1
    while len(data) - at >= 3 and len(found) < RECORDS:
        length = min(int.from_bytes(data[at + 1 : at + 3], "big"), len(data) - at - 3)
        if length <= LONGEST:
            found.append(Record(data[at] & 3, data[at] >> 2 & 7, data[at + 3 : at + 3 + length]))
        at += 3 + length
    return found


def given(setting: Setting, flags: int) -> list[bytes]:
    """The packets that the device is given, as a kernel takes them apart."""
    vnet = not flags & 1
    last = packet(PEER, OWN, b"the last one", protocol=1)
    setting.comes(Record(0, 0, FORWARD + last))
    found: list[bytes] = []
    while (write := setting.device.reads()) != NO_VNET * vnet + last:
        parts = segments(write[:10], write[10:]) if vnet and write[:10] != NO_VNET else [write[10 * vnet :]]
        assert parts is not None
        found += parts
    return found


def outcome(one: Record, flags: int) -> Outcome:
    content = one.content
    if not 12 <= len(content) <= 1472:
        reasons = {IV_FLAGS: "link_malformed", IV_NO_SESSION: "link_no_session", IV_SESSION: "link_bad_seal"}
        has_sessions = flags & 8 and len(content) >= 4
        return Outcome(reasons.get(one.looks, "link_unknown") if has_sessions else "link_unknown")
    if content[:1] != FORWARD:
        return Outcome(told=content) if len(content) <= 64 else Outcome("link_malformed")
    if len(content) < 21:
        return Outcome("link_malformed")
    inner = content[1:]
    source, destination = (int.from_bytes(inner[at : at + 4], "big") for at in (12, 16))
    sealers = {SEALING} if flags & 8 else set()
    is_from_itself = PLACES.get(source) == one.place
    if destination == OWN:
        if not is_from_itself and not (source == BEHIND and one.place in (PLACES[PEER], PLACES[THIRD])):
            return Outcome("spoofed_source")
        return for_device(inner, sealers, flags)
    if not is_from_itself:
        return Outcome("spoofed_source")
    if not flags & 4 or destination not in PLACES or destination == source or {source, destination} & sealers:
        return Outcome("no_route")
    return Outcome(sent=destination) if len(inner) <= FITS[destination] else Outcome("too_large")


def for_device(inner: bytes, sealers: set[int], flags: int) -> Outcome:
    """A packet for it, with which its sender has come."""
    source = int.from_bytes(inner[12:16], "big")
    if ours(inner, OWN):
        within, to = (int.from_bytes(inner[at : at + 4], "big") for at in (32, 36))
        if not flags & 2:
            return Outcome("inner_source")
        if {source, within} & sealers:
            return Outcome("not_sealed")
        if within != source and not (within >> 2 == LAN >> 2 and source >> 3 == LAN >> 3):
            return Outcome("inner_source")
        if to != OWN and not (to >> 2 == LAN >> 2 and source >> 1 == LAN >> 1):
            return Outcome("inner_destination")
    elif source in sealers:
        return Outcome("not_sealed")
    found = plain(inner, OWN)
    return Outcome(given=found[0]) if found else Outcome("not_ipv4")
