"""What comes out of a seal has one outcome, and a device gets exactly what the slow models read in it.

The invariant of fuzz_opened in _targets.pyx for a whole engine, in Python: what that finds is replayed against it. An
input is a byte of flags (1: no virtio headers, 2: rules are known, 4: inner sources are not checked) and what 10.0.0.1
sealed for 10.0.0.2.
"""

from fuzz.offload import DEVICE_PACKETS, LAN, OWN, RULES, of_super, plain, without_id
from kit.peer import BINARY, EngineRelay, packet
from kit.sealing import REQUIRE, pair
from kit.superpacket import NO_VNET, segments

from candy._fastpath import CANDY3, EVENT_NOTED

PEER = LAN + 1
NOTE, NOTE_MAX = 0x80, 169
PADDING_MAX = 4
LONGEST = 65_549


def check_opened(data: bytes) -> None:
    if not data or len(data) - 1 > LONGEST:
        return
    flags, inner = data[0], data[1:]
    vnet = not flags & 1
    drop, wanted = outcome(inner, flags)
    if len(wanted) > DEVICE_PACKETS:
        return
    last = packet(PEER, OWN, b"the last one", flow=9)
    one = pair(OWN, PEER)
    with EngineRelay() as relay, relay.device(vnet=vnet) as (kernel, tun):
        server = relay.joined(tun, extended=CANDY3)
        relay.engine.set_sealing(tun, REQUIRE, OWN, checks_source=not flags & 4)
        if flags & 2:
            relay.engine.set_rules(0, RULES)
        one.install(relay.engine, tun)
        server.send(BINARY, one.comes(0, inner))
        server.sync()
        server.send(BINARY, one.comes_packet(1, last))
        found: list[bytes] = []
        while (write := kernel.recv(1 << 17)) != NO_VNET * vnet + last:
            parts = segments(write[:10], write[10:]) if vnet and write[:10] != NO_VNET else [write[10 * vnet :]]
            assert parts is not None
            found += parts
        assert [without_id(one) for one in found] == [without_id(one) for one in wanted]
        assert set(relay.dropped()) <= {drop or "bad_super"}
        assert bool(relay.dropped()) == (not wanted and inner[:1] not in (b"", b"\x80")) or drop == "unknown_note"
        server.sync()
        noted = [detail[4:] for _, kind, detail in relay.engine.events() if kind == EVENT_NOTED]
        assert noted == ([inner] if inner[:1] == bytes([NOTE]) and drop is None else [])


def outcome(inner: bytes, flags: int) -> tuple[str | None, list[bytes]]:
    """Why it is dropped where it was opened, None if it is not; and the packets that the device is given."""
    if not inner:
        return None, []
    if inner[0] == NOTE:
        return (None if 2 <= len(inner) <= NOTE_MAX and inner[1] in (1, 2, 3) else "unknown_note"), []
    vnet, packet = inner[:10], inner[10:]
    total = int.from_bytes(packet[2:4], "big")
    if total < len(packet) <= total + PADDING_MAX:
        packet = packet[:total]
    if len(packet) < 20 or len(packet) != total or not plain(packet, 0):
        return "bad_super", []
    reason = may_be_inside(packet, flags)
    if reason is not None:
        return reason, []
    if vnet == NO_VNET:
        return None, [packet]
    return None, of_super(vnet, packet, 0, device_vnet=not flags & 1)


def may_be_inside(packet: bytes, flags: int) -> str | None:
    """Why a packet's addresses are not those of the members that sealed and opened it, nor behind them; None if so."""
    source, destination = (int.from_bytes(packet[at : at + 4], "big") for at in (12, 16))
    if source == OWN or (source != PEER and not flags & 4):
        return "inner_source"
    if destination != OWN and not (flags & 2 and destination >> 2 == LAN >> 2):
        return "inner_destination"
    return None
