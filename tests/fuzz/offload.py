"""Never crashes, segments what the slow model segments, refuses the rest, and devices get the same packets either way.

The invariant for the virtio header, the segmenter and the coalescer. Run it with atheris, as frames.py:
`python tests/fuzz/offload.py -max_total_time=60 tests/fuzz/offload_corpus`. test_offload_corpus.py replays the corpus
without it.

An input's first byte below 0x80: a virtio header and a packet follow. From 0x80 on: packets of a member without
candy.2, each behind two bytes of length.
"""

import sys

from kit.peer import FORWARD, SUPER
from kit.superpacket import NO_VNET, header_size, segments, with_checksums

from candy import _fastpath

DEVICE_PACKETS = 100
"""What a socket in place of a device holds."""


def check_super(data: bytes) -> None:
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
        writes, drops = _fastpath.write_device([SUPER + vnet + packet], vnet=device, own=0x0A000002)
        assert bool(writes) != bool(drops)
        assert set(drops) <= {"bad_super"}
        assert wanted is not None or not writes


def check_coalescing(data: bytes) -> None:
    packets = []
    while len(data) >= 2:
        size = int.from_bytes(data[:2], "big")
        packets.append(data[2 : 2 + size])
        data = data[2 + size :]
    packets = [packet for packet in packets if len(packet) >= 20]
    plain, drops = _fastpath.write_device([FORWARD + packet for packet in packets], vnet=False)
    writes, drops_too = _fastpath.write_device([FORWARD + packet for packet in packets])
    assert drops == drops_too
    found: list[bytes] = []
    for write in writes:
        if write[:10] == NO_VNET:
            found.append(write[10:])
        else:
            parts = segments(write[:10], write[10:])
            assert parts is not None
            found += parts
    assert [without_id(packet) for packet in found] == [without_id(packet) for packet in plain]


def without_id(packet: bytes) -> bytes:
    """With DF an id means nothing (RFC 6864)."""
    if header_size(packet) != 20 or not packet[6] & 0x40 or with_checksums(packet)[10:12] != packet[10:12]:
        return packet
    return packet[:4] + b"\0\0" + packet[6:10] + b"\0\0" + packet[12:]


def check(data: bytes) -> None:
    if data:
        (check_super if data[0] < 0x80 else check_coalescing)(data[1:])


if __name__ == "__main__":
    import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
