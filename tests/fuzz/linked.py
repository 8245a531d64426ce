"""What comes by a link has one outcome each, and a device gets exactly what the slow models read in it.

The invariant of fuzz_linked in _targets.pyx for a whole engine, in Python: what that finds is replayed against it. An
input is a byte of flags (1: no virtio headers, 2: rules are known, 4: inner sources are not checked, 128: one datagram
of a stranger's follows) and records: a byte of the flags of a datagram, two of length, and what 10.0.0.1 sealed for
10.0.0.2.
"""

from dataclasses import replace

from fuzz.offload import LAN, OWN, RULES, without_id
from fuzz.opened import NOTE, NOTE_MAX, PEER, may_be_inside
from kit.linked import ANSWER, ASKS, PROBE, UNSUMMED, Linked, linked
from kit.peer import packet
from kit.sealing import PREFER
from kit.superpacket import NO_VNET, segments, with_checksums

from candy._fastpath import EVENT_NOTED

LONGEST = 8000
RECORDS = 60
"""Of which each may be a note, and none is over what a session may say."""


def check_linked(data: bytes) -> None:
    if not data:
        return
    flags = data[0]
    with linked(vnet=not flags & 1, with_path=False) as one:
        there = replace(one.one, own=OWN, peer=PEER)
        one.engine.remove_session(one.device.tun, one.one.local)
        one.engine.set_sealing(one.device.tun, PREFER, OWN, checks_source=not flags & 4)
        there.install(one.engine, one.device.tun)
        one.one = there
        if flags & 2:
            one.engine.set_rules(0, RULES)
        if flags & 128:
            one.peer.sendto(data[1 : LONGEST + 1], one.own)
            given(one, flags)
            assert sum(one.device.relay.dropped().values()) <= 1
            return
        wanted, drops = [], []
        notes: list[bytes] = []
        for datagram_flags, inner in records(data):
            drop, out = outcome(inner, datagram_flags, flags)
            drops += [drop] if drop else []
            wanted += [out] if out else []
            notes += [inner] if inner[:1] == bytes([NOTE]) and drop is None else []
            one.comes(inner, flags=datagram_flags)
        found = given(one, flags)
        assert [without_id(each) for each in found] == [without_id(each) for each in wanted]
        counted = one.device.relay.dropped()
        counted.pop("handshake_limit", None)
        assert counted == {name: drops.count(name) for name in set(drops)}
        told = [detail[4:] for kind, detail in one.device.events() if kind == EVENT_NOTED]
        assert told == notes[: len(told)]


def records(data: bytes) -> list[tuple[int, bytes]]:
    """Flags and content of each datagram."""
    found: list[tuple[int, bytes]] = []
    at = 1
    while len(data) - at >= 3 and len(found) < RECORDS:
        length = min(int.from_bytes(data[at + 1 : at + 3], "big"), len(data) - at - 3)
        if length < LONGEST:
            found.append((data[at] & (ASKS | UNSUMMED), data[at + 3 : at + 3 + length]))
        at += 3 + length
    return found


def given(one: Linked, flags: int) -> list[bytes]:
    """The packets that the device is given, as a kernel takes them apart."""
    vnet = not flags & 1
    last = packet(PEER, OWN, b"the last one", protocol=1)
    one.comes(last)
    found: list[bytes] = []
    while (write := one.device.reads()) != NO_VNET * vnet + last:
        parts = segments(write[:10], write[10:]) if vnet and write[:10] != NO_VNET else [write[10 * vnet :]]
        assert parts is not None
        found += parts
    return found


def outcome(inner: bytes, datagram_flags: int, flags: int) -> tuple[str | None, bytes]:
    """Why it is dropped, None if it is not; and the packet that the device is given, empty if there is none."""
    if not inner:
        return None, b""
    if inner[0] >> 4 != 4:
        if datagram_flags & UNSUMMED:
            return "link_malformed", b""
        if inner[0] == NOTE:
            return (None if 2 <= len(inner) <= NOTE_MAX and inner[1] in (1, 2, 3) else "unknown_note"), b""
        fits = (inner[0] == PROBE and len(inner) >= 30) or (inner[0] == ANSWER and len(inner) == 30)
        return (None if fits else "link_malformed"), b""
    header = (inner[0] & 15) * 4
    if not 20 <= header <= len(inner) or int.from_bytes(inner[2:4], "big") != len(inner):
        return "link_malformed", b""
    if datagram_flags & UNSUMMED:
        least = {6: 20, 17: 8}.get(inner[9])
        if inner[9] == 6 and len(inner) >= header + 20:
            least = (inner[header + 12] >> 4) * 4 if inner[header + 12] >> 4 >= 5 else None
        if inner[9] == 17 and int.from_bytes(inner[header + 4 : header + 6], "big") != len(inner) - header:
            least = None
        if int.from_bytes(inner[6:8], "big") & 0x3FFF or least is None or len(inner) < header + least:
            return "link_malformed", b""
    reason = may_be_inside(inner, flags)
    if reason is not None:
        return reason, b""
    if datagram_flags & UNSUMMED:
        # What takes it apart here makes the header's checksum anew, though no kernel does.
        inner = (inner[:header] if flags & 1 else b"") + with_checksums(inner)[header if flags & 1 else 0 :]
    return None, inner


assert LAN + 1 == PEER
