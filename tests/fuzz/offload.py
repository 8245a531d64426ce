"""Never crashes, segments what the slow model segments, refuses the rest, and devices get the same packets either way.

The invariant for the virtio header, the segmenter, outer headers and the coalescer, in Python: what the fuzzers of
_targets.pyx found is replayed against it, an input of each as its section there says. Also a target for atheris, as
frames.py: `python tests/fuzz/offload.py -max_total_time=60 tests/fuzz/corpus/supers`.
"""

import sys

from kit.peer import FORWARD, SUPER
from kit.superpacket import IPIP, NO_VNET, TCP, header_size, segments, with_checksums

from candy import _fastpath

DEVICE_PACKETS = 100
"""What a socket in place of a device holds."""
OWN = 0x0A000002
"""The address of a device that has one."""
LAN = 0x0A000000
RULES = [(LAN, 0xFFFFFFFC, LAN + n, LAN, 0xFFFFFFFE) for n in range(8)]
"""A /30 behind every member, for those of a /31."""


def check_supers(data: bytes) -> None:
    vnet, packet = data[:10], data[10:]
    if len(vnet) < 10:
        return
    wanted = segments(vnet, packet)
    try:
        found = _fastpath.segment(vnet, packet)
    except ValueError:
        assert wanted is None
    else:
        assert found == wanted
        if vnet[4:6] != b"\0\0" and vnet[1]:
            parts = _fastpath.cut(vnet, packet, 1 + vnet[2] % 50)
            assert [p for part in parts for p in _fastpath.segment(part[:10], part[10:])] == wanted
    if len(packet) < 20:
        return
    for device in (True, False):
        if not device and wanted is not None and len(wanted) > DEVICE_PACKETS:
            continue
        writes, drops = _fastpath.write_device([SUPER + vnet + packet], vnet=device, own=OWN)
        assert bool(writes) != bool(drops)
        assert set(drops) <= {"bad_super"}
        assert wanted is not None or not writes


def check_ipip(data: bytes) -> None:
    own, packet = int.from_bytes(data[:4], "big"), data[4:]
    if len(packet) < 20:
        return
    wanted = plain(packet, own)
    for device in (True, False):
        writes, _ = _fastpath.write_device([FORWARD + packet], vnet=device, own=own)
        assert writes == [NO_VNET * device + one for one in wanted]


def check_device(data: bytes) -> None:
    """The packets that a device is given stand for what came, in order."""
    if not data:
        return
    payloads, wanted = [], []
    flags, data = data[0], data[1:]
    vnet, own, rules = flags & 1 == 0, OWN if flags & 2 else 0, RULES if flags & 8 else []
    while len(data) >= 2:
        extended, size = data[0] >> 7, int.from_bytes(data[:2], "big") & 0x7FFF
        packet, data = data[2 : 2 + size], data[2 + size :]
        if len(packet) < (30 if extended else 20):
            continue
        if flags & 4 and not extended:
            packet = put_right(packet)
        payloads.append((SUPER if extended else FORWARD) + packet)
        if rules and not may_come_out(packet[10 * extended :], own):
            continue
        wanted += of_super(packet[:10], packet[10:], own, device_vnet=vnet) if extended else plain(packet, own)
    if len(wanted) > DEVICE_PACKETS:
        return
    writes, _ = _fastpath.write_device(payloads, vnet=vnet, own=own, rules=rules)
    found: list[bytes] = []
    for write in writes:
        if not vnet:
            found.append(write)
        elif write[:10] == NO_VNET:
            found.append(write[10:])
        else:
            parts = segments(write[:10], write[10:])
            assert parts is not None
            found += parts
    assert [without_id(packet) for packet in found] == [without_id(packet) for packet in wanted]


def put_right(packet: bytes) -> bytes:
    """A TCP packet with its length and checksums right."""
    if len(packet) < 40 or packet[0] != 0x45 or packet[9] != TCP or int.from_bytes(packet[6:8], "big") & 0x3FFF:
        return packet
    return with_checksums(packet[:2] + len(packet).to_bytes(2, "big") + packet[4:])


def ours(packet: bytes, own: int) -> bool:
    """Whether this is an outer header that a member wrote for a device with this address."""
    if len(packet) < 40 or packet[9] != IPIP or own == 0 or int.from_bytes(packet[16:20], "big") != own:
        return False
    return packet[0] == 0 or (packet[0] == 0x45 and packet[4:8] == b"\0\0\x40\0")


def may_come_out(packet: bytes, own: int) -> bool:
    """Whether RULES allow what is within, if this is for the device to take off."""
    if not ours(packet, own):
        return True
    source, inner_source, inner_destination = (int.from_bytes(packet[at : at + 4], "big") for at in (12, 32, 36))
    is_from = inner_source == source or (inner_source >> 2 == LAN >> 2 and source >> 3 == LAN >> 3)
    return is_from and (inner_destination == own or (inner_destination >> 2 == LAN >> 2 and source >> 1 == LAN >> 1))


def plain(packet: bytes, own: int) -> list[bytes]:
    """What a device is given of a FORWARD."""
    inner = packet[20:] if ours(packet, own) else packet
    size = (inner[0] & 15) * 4
    plausible = inner[0] >> 4 == 4 and 20 <= size <= int.from_bytes(inner[2:4], "big") <= len(inner)
    return [inner] if plausible else []


def of_super(vnet: bytes, packet: bytes, own: int, *, device_vnet: bool) -> list[bytes]:
    """What a device, with virtio headers or without, is given of a SUPER."""
    parts = segments(vnet, packet)
    if parts is None:
        return []
    outer = (packet[0] & 15) * 4 if packet[9] == IPIP else 0
    mine = ours(packet, own)
    if not device_vnet:
        return [part[outer:] if mine else part for part in parts]
    if outer and not mine:
        return []
    # Where nothing is left to a kernel it gets the packet as it came, be its header's checksum right or not.
    return [part[outer:] for part in parts] if vnet[0] & 1 else [packet[outer:]]


def without_id(packet: bytes) -> bytes:
    """With DF an id means nothing (RFC 6864)."""
    if header_size(packet) != 20 or not packet[6] & 0x40 or with_checksums(packet)[10:12] != packet[10:12]:
        return packet
    return packet[:4] + b"\0\0" + packet[6:10] + b"\0\0" + packet[12:]


if __name__ == "__main__":
    import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

    atheris.Setup(sys.argv, check_supers)
    atheris.Fuzz()
