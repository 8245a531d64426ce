"""Direct links of a client's device: what leaves by one, and what comes out of one."""

import socket
import struct

import pytest
from kit.linked import (
    ANSWER,
    ASKS,
    LONGEST,
    PROBE,
    UNSUMMED,
    Datagram,
    Linked,
    link_key,
    linked,
    opened,
    packed,
    place,
    udp,
)
from kit.peer import packet
from kit.sealing import CIPHERS, CLEAR, PREFER, SEAL
from kit.sealing_device import client
from kit.superpacket import (
    ACK,
    ANY,
    FIN,
    IPIP,
    NO_VNET,
    PSH,
    RST,
    SYN,
    URG,
    A,
    B,
    C,
    checksums_right,
    folded,
    ip_header,
    pattern,
    segments,
    tcp,
)
from kit.superpacket import udp as udp_packet

from candy import _fastpath
from candy._fastpath import (
    EVENT_CONFIRMED,
    EVENT_DOUBT,
    EVENT_LINK,
    EVENT_NOTED,
    EVENT_QUIET,
    EVENT_STUN,
    EVENT_WANTED,
)

pytestmark = pytest.mark.engine

CIPHER = pytest.mark.parametrize("cipher", CIPHERS.values(), ids=CIPHERS.keys())
FAMILY = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
UDP_SEGMENT = 103
UDP_GRO = 104
SO_NO_CHECK = 11
UNREACHABLE = ("10.9.9.9", 9)
"""For a socket bound to loopback: the kernel refuses it, and nothing leaves."""
EVENTS_MOST = 16384
"""Of a device."""


def arrives(one: Linked) -> None:
    """All that came by the link before this is through."""
    ping = packet(B, A, b"through")
    one.comes(ping)
    while one.device.reads()[-len(ping) :] != ping:
        pass


def come_in_one(one: Linked, *parts: tuple[bytes, int]) -> None:
    """Packets with the flags of their datagrams, which the kernel hands over together: all as long but for the last."""
    key = one.one.receives
    sealed = [Datagram(one.one.local, number, *part).seal(key) for number, part in enumerate(parts)]
    assert {len(each) for each in sealed[:-1]} == {len(sealed[0])}
    control = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", len(sealed[0])))]
    one.peer.sendmsg([b"".join(sealed)], control, 0, one.own)


def test_a_key_is_of_the_sessions() -> None:
    [secret] = _fastpath.hkdf(bytes(32), bytes([1]) * 32, 1)
    assert link_key(bytes([1]) * 32) not in {secret, bytes([1]) * 32}


@CIPHER
@FAMILY
def test_packets_leave_by_the_path(cipher: int, family: socket.AddressFamily) -> None:
    with linked(cipher=cipher, family=family) as one:
        for number, length in enumerate([28, 29, 100, 1000, LONGEST]):
            out = packet(A, B, pattern(length - 28))
            one.device.kernel.send(out)
            found = one.went()
            assert (found.counter, found.flags, found.plain) == (number, 0, out)
        assert one.device.relay.dropped() == {}
        arrives(one)
        [(peer, sent, heard, *figures)] = one.engine.paths(one.device.tun)
        assert peer == B
        assert heard >= sent > 0
        assert figures == [1, 35, 5, 28 + 29 + 100 + 1000 + LONGEST, False]


@CIPHER
@FAMILY
@pytest.mark.parametrize("vnet", [False, True])
def test_packets_come_by_a_link(cipher: int, family: socket.AddressFamily, vnet: bool) -> None:
    with linked(cipher=cipher, family=family, vnet=vnet) as one:
        for length in (28, 29, 100, 1000, 1472):
            back = packet(B, A, pattern(length - 28))
            one.comes(back)
            assert one.device.reads() == (NO_VNET if vnet else b"") + back
        assert one.device.relay.dropped() == {}
        [(*_, packets, size, out, _out_size, quiet)] = one.engine.paths(one.device.tun)
        assert (packets, size, out, quiet) == (5, 28 + 29 + 100 + 1000 + 1472, 0, False)


def test_a_batch_leaves_whole() -> None:
    # More than one call may carry, of several sizes.
    with linked() as one:
        packets = [packet(A, B, pattern(40 + 20 * (number % 97 == 0)), flow=number) for number in range(300)]
        for each in packets:
            one.device.kernel.send(each)
        assert [one.went().plain for _ in packets] == packets
        assert one.device.relay.dropped() == {}


@pytest.mark.parametrize("gso_size", [500, 1000, 1400])
def test_a_super_packet_is_cut_to_the_path(gso_size: int) -> None:
    whole = tcp(pattern(50_000), source=A, to=B)
    vnet = struct.pack("<BBHHHH", 1, 1, 40, gso_size, 20, 16)
    with linked(vnet=True) as one:
        one.path(longest=1200)
        one.device.kernel.send(vnet + whole)
        size = min(gso_size, 1160)
        expected = segments(struct.pack("<BBHHHH", 1, 1, 40, size, 20, 16), whole)
        assert expected is not None
        for part in expected:
            found = one.went()
            assert found.flags == UNSUMMED
            # All but the checksum that was left out.
            assert (found.plain[:36], found.plain[38:]) == (part[:36], part[38:])
        assert one.device.relay.dropped() == {}


def test_a_single_segment_is_cut_to_the_path() -> None:
    """Its end is the end of the last part."""
    whole = tcp(pattern(1400), flags=ACK | PSH | FIN, source=A, to=B)
    vnet = struct.pack("<BBHHHH", 1, 0, 0, 0, 20, 16)
    with linked(vnet=True) as one:
        one.path(longest=1200)
        one.device.kernel.send(vnet + whole)
        expected = segments(struct.pack("<BBHHHH", 1, 1, 40, 1160, 20, 16), whole)
        assert expected is not None
        assert [part[33] for part in expected] == [ACK, ACK | PSH | FIN]
        for part in expected:
            found = one.went()
            assert found.flags == UNSUMMED
            assert (found.plain[:36], found.plain[38:]) == (part[:36], part[38:])
        assert one.device.relay.dropped() == {}


@pytest.mark.parametrize("flags", [SYN, SYN | ACK, RST, ACK | URG])
def test_what_is_said_of_a_whole_segment_is_not_cut(flags: int) -> None:
    whole = tcp(pattern(1400), flags=flags, source=A, to=B)
    vnet = struct.pack("<BBHHHH", 1, 0, 0, 0, 20, 16)
    with linked(vnet=True) as one:
        one.path(longest=1200)
        assert one.one.went(one.device.sends(vnet + whole).payload).packet[40:] == pattern(1400)


def test_nor_is_one_whose_checksum_is_made() -> None:
    whole = tcp(pattern(1400), source=A, to=B)
    with linked(vnet=True) as one:
        one.path(longest=1200)
        assert one.one.went(one.device.sends(NO_VNET + whole).payload).packet == whole


def test_a_super_packet_of_datagrams() -> None:
    whole = udp_packet(pattern(20_000), source=A, to=B)
    vnet = struct.pack("<BBHHHH", 1, 5, 28, 1000, 20, 6)
    with linked(vnet=True) as one:
        one.device.kernel.send(vnet + whole)
        for number in range(20):
            found = one.went()
            assert found.flags == UNSUMMED
            assert found.plain[28:] == pattern(20_000)[1000 * number : 1000 * number + 1000]
        assert one.device.relay.dropped() == {}


def lengths(one: Linked, whole: int) -> list[int]:
    """Of what the peer's kernel hands over in one, until there are so many bytes."""
    found: list[int] = []
    while sum(found) < whole:
        found.append(len(one.peer.recv(1 << 16)))
    return found


def test_where_the_kernel_does_not_cut_each_goes_by_itself() -> None:
    """So does one that has no checksum to make (SO_NO_CHECK), as an interface that can't make any."""
    payload = pattern(20_007)
    whole = struct.pack("<BBHHHH", 1, 5, 28, 1000, 20, 6) + udp_packet(payload, source=A, to=B)
    size, last = 1028 + 32, 35 + 32
    own: list[socket.socket] = []
    with linked(vnet=True, before=lambda link: own.append(link.dup())) as one, own[0]:
        # What was sent in one comes in one, on loopback.
        one.peer.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        one.device.kernel.send(whole)
        assert lengths(one, 20 * size + last) == [20 * size + last]
        own[0].setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
        for _ in range(2):
            one.device.kernel.send(whole)
            assert lengths(one, 20 * size + last) == [size] * 20 + [last]
        assert not one.is_quiet()
        one.peer.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 0)
        one.device.kernel.send(whole)
        assert b"".join(one.went().plain[28:] for _ in range(21)) == payload
        assert one.device.relay.dropped() == {}


def test_where_the_kernel_joins_nothing_each_comes_by_itself() -> None:
    own: list[socket.socket] = []
    with linked(before=lambda link: own.append(link.dup())) as one, own[0]:
        own[0].setsockopt(socket.IPPROTO_UDP, UDP_GRO, 0)
        receives = one.engine.stats()["receives"]
        packets = [packet(B, A, pattern(500), flow=number) for number in range(20)]
        sealed = [Datagram(one.one.local, n, part).seal(one.one.receives) for n, part in enumerate(packets)]
        control = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", len(sealed[0])))]
        one.peer.sendmsg([b"".join(sealed)], control, 0, one.own)
        assert [one.device.reads() for _ in packets] == packets
        assert one.engine.stats()["receives"] - receives >= 3
        assert one.device.relay.dropped() == {}


def test_what_does_not_fit_goes_by_the_relay() -> None:
    with linked(vnet=True) as one:
        one.path(longest=600)
        out = packet(A, B, pattern(573))
        assert one.one.went(one.device.sends(NO_VNET + out).payload).packet == out
        whole = udp_packet(pattern(2000), source=A, to=B)
        vnet = struct.pack("<BBHHHH", 1, 5, 28, 1000, 20, 6)
        assert one.one.went(one.device.sends(vnet + whole).payload).packet[28:] == pattern(2000)
        assert one.device.relay.dropped() == {}


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_checksum_that_was_left_out_is_made(protocol: str) -> None:
    back = tcp(pattern(99), source=B, to=A) if protocol == "tcp" else udp_packet(pattern(99), source=B, to=A)
    at = 36 if protocol == "tcp" else 26
    with linked() as one:
        one.comes(back[:at] + b"\xab\xcd" + back[at + 2 :], flags=UNSUMMED)
        got = one.device.reads()
        assert checksums_right(got)
        assert (got[:at], got[at + 2 :]) == (back[:at], back[at + 2 :])


def test_or_left_to_the_kernel() -> None:
    back = udp_packet(pattern(99), source=B, to=A)
    with linked(vnet=True) as one:
        one.comes(back[:26] + bytes(2) + back[28:], flags=UNSUMMED)
        got = one.device.reads()
        assert got[:10] == struct.pack("<BBHHHH", 1, 0, 28, 0, 20, 6)
        assert segments(got[:10], got[10:]) == segments(
            struct.pack("<BBHHHH", 1, 0, 0, 0, 20, 6), udp_packet(pattern(99), source=B, to=A)
        )


@pytest.mark.parametrize("flags", [0, UNSUMMED])
def test_what_came_in_one_is_put_together(flags: int) -> None:
    parts = segments(bytes(ANY), tcp(pattern(30_000), source=B, to=A))
    assert parts is not None
    with linked(vnet=True) as one:
        come_in_one(one, *((part, flags) for part in parts))
        got = one.device.reads()
        assert segments(got[:10], got[10:]) == parts
        assert one.device.relay.dropped() == {}


@pytest.mark.parametrize("flags", [0, UNSUMMED])
def test_datagrams_are_put_together(flags: int) -> None:
    parts = segments(struct.pack("<BBHHHH", 1, 5, 28, 100, 20, 6), udp_packet(pattern(3050), source=B, to=A))
    assert parts is not None
    with linked(vnet=True) as one:
        come_in_one(one, *((part, flags) for part in parts))
        got = one.device.reads()
        assert got[1] == 5
        assert int.from_bytes(got[34:36], "big") == len(got) - 30
        assert segments(got[:10], got[10:]) == parts


def test_those_without_a_checksum_stay_so() -> None:
    """Even where all of them add up to zero, as one with a checksum does."""
    part = udp_packet(pattern(100), source=B, to=A)
    part = part[:26] + bytes(2) + part[28:-2] + folded(part[26:28] + part[-2:]).to_bytes(2, "big")
    with linked(vnet=True) as one:
        come_in_one(one, (part, 0), (part, 0), (part, 0))
        assert [one.device.reads() for _ in range(3)] == [NO_VNET + part for _ in range(3)]


def test_a_wrong_checksum_is_not_hidden_behind_one_that_was_left_out() -> None:
    part = udp_packet(pattern(100), source=B, to=A)
    wrong = part[:26] + bytes([part[26] ^ 1]) + part[27:]
    with linked(vnet=True) as one:
        come_in_one(one, (part, UNSUMMED), (wrong, 0))
        got = one.device.reads()
        assert segments(got[:10], got[10:]) == segments(struct.pack("<BBHHHH", 1, 0, 0, 0, 20, 6), part)
        assert one.device.reads() == NO_VNET + wrong


def test_a_link_goes_on_without_the_relay() -> None:
    with linked() as one:
        one.engine.close(one.device.server.connection)
        assert one.device.relay.cause(one.device.server.connection) == "local"
        out, back = packet(A, B, b"out"), packet(B, A, b"back")
        one.device.kernel.send(out)
        assert one.went().plain == out
        one.comes(back)
        assert one.device.reads() == back
        assert one.engine.send_sealed(one.device.tun, one.one.local, b"\x80\x03note")
        assert one.went().plain == b"\x80\x03note"
        one.engine.clear_path(one.device.tun, B)
        assert not one.engine.send_sealed(one.device.tun, one.one.local, b"\x80\x03note")


def test_what_waited_leaves_by_the_path() -> None:
    with linked(with_path=False) as one:
        one.engine.set_peer(one.device.tun, B, 0)
        one.path()
        out = packet(A, B, b"waits")
        one.device.kernel.send(out)
        assert one.told(_fastpath.EVENT_WANTED) == [B.to_bytes(4, "big")]
        one.device.seal_with(one.one)
        assert one.went().plain == out


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_notes(kind: int) -> None:
    note = bytes([0x80, kind]) + pattern(167)
    with linked() as one:
        one.comes(note)
        assert one.told(EVENT_NOTED) == [one.one.local.to_bytes(4, "big") + note]
        one.comes(bytes([0x80, 4]))
        one.comes(note + b"+")
        arrives(one)
        assert one.device.relay.dropped() == {"unknown_note": 2}


def test_what_is_sealed_by_a_link_confirms_a_session() -> None:
    with linked() as one:
        other = one.one.__class__(A, C, one.one.local + 1, 7, bytes([3]) * 32, bytes([4]) * 32)
        other.install(one.engine, one.device.tun, confirmed=False)
        for counter in range(2):
            one.peer.sendto(Datagram(other.local, counter, b"").seal(other.receives), one.own)
        assert one.told(EVENT_CONFIRMED) == [other.local.to_bytes(4, "big")]
        arrives(one)
        assert one.told(EVENT_CONFIRMED) == [other.local.to_bytes(4, "big")]


@FAMILY
def test_a_probe_is_answered_to_where_it_came_from(family: socket.AddressFamily) -> None:
    with linked(family=family, with_path=False) as one, udp(family) as elsewhere:
        one.comes(bytes([PROBE]) + b"12345678" + bytes(191), by=elsewhere)
        name = elsewhere.getsockname()
        answer = one.read(elsewhere.recv(65536)).plain
        assert answer == bytes([ANSWER]) + b"12345678" + place((name[0], name[1])) + (232).to_bytes(2, "big")
        assert one.device.relay.dropped() == {}


def test_an_answer_is_told() -> None:
    with linked() as one:
        answer = bytes([ANSWER]) + b"12345678" + place(("192.0.2.1", 7)) + b"\x05\x00"
        assert len(answer) == 30
        arrives(one)
        one.comes(answer)
        head = one.one.local.to_bytes(4, "big") + one.link.to_bytes(8, "big") + place(one.there)
        assert one.told(EVENT_LINK) == [head + answer]
    # Of the address it tells nothing else, where no path leads there.
    with linked(with_path=False) as one:
        one.comes(answer)
        arrives(one)
        head = one.one.local.to_bytes(4, "big") + one.link.to_bytes(8, "big") + place(one.there)
        assert one.told(EVENT_LINK, 2) == [head + answer, head]


def test_python_sends_to_any_address() -> None:
    with linked() as one, udp() as elsewhere:
        name = elsewhere.getsockname()
        where = packed((name[0], name[1]))
        probe = bytes([PROBE]) + b"87654321" + bytes(1000)
        assert one.engine.send_by(one.device.tun, one.one.local, one.link, *where, probe)
        assert one.read(elsewhere.recv(65536)) == Datagram(one.one.remote, 0, probe)
        assert one.engine.send_by(one.device.tun, one.one.local, one.link, *where)
        assert one.read(elsewhere.recv(65536)) == Datagram(one.one.remote, 1, b"")
        assert not one.engine.send_by(one.device.tun, one.one.local + 1, one.link, *where)
        assert not one.engine.send_by(one.device.tun, one.one.local, one.link + (1 << 32), *where)
        assert not one.engine.send_by(one.device.tun, one.one.local, one.link, bytes(16), 7)
        assert not one.engine.send_by(one.device.tun, one.one.local, one.link, *packed(UNREACHABLE))


def test_python_hears_of_another_address() -> None:
    with linked() as one, udp() as elsewhere:
        one.comes(packet(B, A, b"first"), by=elsewhere)
        assert one.device.reads() == packet(B, A, b"first")
        name = elsewhere.getsockname()
        head = one.one.local.to_bytes(4, "big") + one.link.to_bytes(8, "big") + place((name[0], name[1]))
        assert one.told(EVENT_LINK) == [head]
        for number in range(100):
            one.comes(packet(B, A, number.to_bytes(4, "big")), by=elsewhere)
            one.device.reads()
        assert 1 <= len(one.told(EVENT_LINK)) <= 8 + 4 * 60
        # And goes on with the address that was proven.
        one.device.kernel.send(packet(A, B, b"out"))
        assert one.went().plain == packet(A, B, b"out")


def test_probes_are_answered_as_often_as_a_session_may() -> None:
    with linked() as one:
        one.comes(packet(B, A, b"first"))
        for _ in range(200):
            one.comes(bytes([PROBE]) + bytes(29))
        arrives(one)
        drops = one.device.relay.dropped()
        assert set(drops) == {"link_limit"}
        assert drops["link_limit"] >= 200 - 64 - 64


def malformed(one: Linked) -> dict[str, tuple[bytes, str]]:
    """Datagrams that go no further, and why."""

    def sealed(plain: bytes, flags: int = 0, counter: int = 50) -> bytes:
        return Datagram(one.one.local, counter, plain, flags).seal(one.one.receives)

    back = packet(B, A, pattern(40))
    whole = sealed(back)
    tcp_back = tcp(pattern(40), source=B, to=A)
    return {
        "short": (whole[:31], "link_unknown"),
        "header alone": (whole[:16], "link_unknown"),
        "flag 4": (sealed(back, 4), "link_malformed"),
        "flag 128": (sealed(back, 128), "link_malformed"),
        "byte 2": (whole[:2] + b"\1" + whole[3:], "link_malformed"),
        "byte 3": (whole[:3] + b"\1" + whole[4:], "link_malformed"),
        "another session": (Datagram(one.one.local ^ 1, 0, back).seal(one.one.receives), "link_no_session"),
        "flipped": (whole[:-1] + bytes([whole[-1] ^ 1]), "link_bad_seal"),
        "flipped counter": (whole[:15] + b"\xff" + whole[16:], "link_bad_seal"),
        "flipped flag": (whole[:1] + b"\1" + whole[2:], "link_bad_seal"),
        "cut": (whole[:-1], "link_bad_seal"),
        "other direction": (Datagram(one.one.local, 50, back).seal(one.one.sends), "link_bad_seal"),
        "counter at its bound": (sealed(back, counter=1 << 48), "link_replayed"),
        "probe too short": (sealed(bytes([PROBE]) + bytes(28)), "link_malformed"),
        "answer too short": (sealed(bytes([ANSWER]) + bytes(28)), "link_malformed"),
        "answer too long": (sealed(bytes([ANSWER]) + bytes(30)), "link_malformed"),
        "unknown content": (sealed(bytes([3]) + bytes(40)), "link_malformed"),
        "IPv6": (sealed(b"\x60" + bytes(60)), "link_malformed"),
        "packet cut": (sealed(back[:-1]), "link_malformed"),
        "packet and more": (sealed(back + b"\0"), "link_malformed"),
        "header cut": (sealed(back[:19]), "link_malformed"),
        "header without room": (sealed(b"\x44" + back[1:]), "link_malformed"),
        "unsummed probe": (sealed(bytes([PROBE]) + bytes(29), UNSUMMED), "link_malformed"),
        "unsummed of no transport": (sealed(packet(B, A, pattern(40), protocol=1), UNSUMMED), "link_malformed"),
        "unsummed fragment": (sealed(tcp_back[:6] + b"\x20" + tcp_back[7:], UNSUMMED), "link_malformed"),
        "unsummed with half a header": (sealed(tcp_back[:32] + b"\x40" + tcp_back[33:], UNSUMMED), "link_malformed"),
        "unsummed with a long header": (
            sealed(tcp_back[:2] + b"\0\x4f" + tcp_back[4:32] + b"\xf0" + tcp_back[33:79], UNSUMMED),
            "link_malformed",
        ),
        "unsummed without a header": (
            sealed(tcp_back[:2] + b"\0\x27" + tcp_back[4:39], UNSUMMED),
            "link_malformed",
        ),
        "unsummed of another length": (
            sealed(back[:24] + b"\0\x44" + back[26:], UNSUMMED),
            "link_malformed",
        ),
        "another's source": (sealed(packet(C, A, pattern(40))), "inner_source"),
        "own source": (sealed(packet(A, A, pattern(40))), "inner_source"),
        "another's destination": (sealed(packet(B, C, pattern(40))), "inner_destination"),
        "group": (sealed(packet(B, 0xE0000001, pattern(40))), "inner_destination"),
    }


with linked(with_path=False) as _sample:
    MALFORMED = list(malformed(_sample))


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("vnet", [False, True])
def test_what_is_not_right_goes_no_further(name: str, vnet: bool) -> None:
    with linked(vnet=vnet) as one:
        datagram, reason = malformed(one)[name]
        one.peer.sendto(datagram, one.own)
        one.comes(packet(B, A, b"through"))
        assert one.device.reads()[-35:] == packet(B, A, b"through")
        assert one.device.relay.dropped() == {reason: 1}


def test_each_counter_comes_once() -> None:
    with linked() as one:
        datagram = one.comes(packet(B, A, b"once"))
        one.peer.sendto(datagram, one.own)
        one.comes(packet(B, A, b"late"), counter=70_000)
        one.comes(packet(B, A, b"too late"), counter=1)
        one.comes(packet(B, A, b"not too late"), counter=69_999)
        assert [one.device.reads() for _ in range(3)] == [
            packet(B, A, body) for body in (b"once", b"late", b"not too late")
        ]
        assert one.device.relay.dropped() == {"link_replayed": 2}


def test_strangers_are_dropped_in_the_kernel() -> None:
    with linked() as one, udp() as stranger:
        other = (one.engine.link_prefix(one.device.tun) ^ 1).to_bytes(2, "big")
        answer = struct.pack(">HHI12s", 0x0101, 0, 0x2112A442, bytes(12))
        received = one.engine.stats()["receives"]
        for datagram in (b"", b"\x12", bytes(100), b"\x12\0\0\0" + other + bytes(50), b"\x12\0\0\0\0", answer):
            stranger.sendto(datagram, one.own)
        arrives(one)
        assert one.device.relay.dropped() == {}
        assert one.engine.stats()["receives"] == received + 1


def test_an_ask_is_answered_by_our_own_path() -> None:
    with linked() as one, udp() as elsewhere:
        one.comes(b"", flags=ASKS, by=elsewhere)
        found = one.went()
        assert (found.plain, found.flags) == (b"", 0)
        elsewhere.setblocking(False)
        with pytest.raises(BlockingIOError):
            elsewhere.recv(1)


def test_asks_that_come_together_have_one_answer() -> None:
    """No more than one in 20 ms."""
    with linked() as one:
        come_in_one(one, (b"", ASKS), (b"", ASKS))
        assert one.went().plain == b""
        one.counter = 2
        arrives(one)
        _fastpath.age_path(one.engine, one.device.tun, B, 0.02)
        one.comes(b"", flags=ASKS)
        assert one.went().plain == b""
        arrives(one)
        one.peer.setblocking(False)
        with pytest.raises(BlockingIOError):
            one.peer.recv(1)


def test_without_a_path_an_ask_is_not_answered() -> None:
    with linked(with_path=False) as one:
        one.comes(b"", flags=ASKS)
        arrives(one)
        one.peer.setblocking(False)
        with pytest.raises(BlockingIOError):
            one.peer.recv(1)


def sends(one: Linked, content: bytes = b".") -> Datagram:
    """A packet leaves by the path, which is counted, and so noted, behind that."""
    [before] = one.engine.paths(one.device.tun)
    one.device.kernel.send(packet(A, B, content))
    went = one.went()
    while one.engine.paths(one.device.tun) == [before]:
        pass
    return went


def asks_in_vain(one: Linked, times: int, *, apart: float = 0.3) -> None:
    for number in range(times):
        _fastpath.age_path(one.engine, one.device.tun, B, apart)
        assert sends(one, bytes([number])).flags == ASKS


def test_a_path_that_is_heard_of_asks_for_nothing() -> None:
    with linked() as one:
        _fastpath.age_path(one.engine, one.device.tun, B, 0.2)
        one.device.kernel.send(packet(A, B, b"."))
        assert one.went().flags == 0
        asks_in_vain(one, 1)
        one.device.kernel.send(packet(A, B, b"soon after"))
        assert one.went().flags == 0


def test_a_path_that_does_not_answer_is_quiet() -> None:
    with linked() as one:
        asks_in_vain(one, 3)
        _fastpath.age_path(one.engine, one.device.tun, B, 0.3)
        out = packet(A, B, b"by the relay")
        assert one.one.went(one.device.sends(out).payload).packet == out
        assert one.told(EVENT_QUIET) == [B.to_bytes(4, "big")]
        assert one.is_quiet()
        # It stays so, whatever comes, until Python says otherwise.
        one.comes(packet(B, A, b"heard"))
        assert one.device.reads() == packet(B, A, b"heard")
        assert one.one.went(one.device.sends(out).payload).packet == out
        one.path()
        one.device.kernel.send(out)
        assert one.went().plain == out
        assert one.told(EVENT_QUIET) == [B.to_bytes(4, "big")]


def test_two_asks_in_vain_may_be_chance() -> None:
    """However long ago the first one was."""
    with linked() as one:
        asks_in_vain(one, 3, apart=0.4)
        assert not one.is_quiet()


def test_anything_authentic_is_an_answer() -> None:
    with linked() as one:
        asks_in_vain(one, 3)
        one.comes(b"")
        arrives(one)
        asks_in_vain(one, 3)
        assert not one.is_quiet()


@pytest.mark.parametrize(
    ("plain", "flags"), [(bytes([PROBE]) + bytes(29), 0), (packet(B, A, b"asks"), ASKS), (b"", ASKS)]
)
def test_what_does_not_say_that_we_are_heard_is_no_answer(plain: bytes, flags: int) -> None:
    """A peer whom nothing of ours reaches probes, and asks."""
    with linked() as one:
        for _ in range(3):
            asks_in_vain(one, 1)
            one.comes(plain, flags=flags)
            # Answered it is.
            assert one.went().plain[:1] == (b"" if flags else bytes([ANSWER]))
        _fastpath.age_path(one.engine, one.device.tun, B, 0.3)
        out = packet(A, B, b"by the relay")
        assert one.one.went(one.device.sends(out).payload).packet == out
        assert one.told(EVENT_QUIET) == [B.to_bytes(4, "big")]


def test_an_answer_from_another_address_says_nothing_of_the_path() -> None:
    with linked() as one, udp() as elsewhere:
        for number in range(1, 4):
            asks_in_vain(one, 1)
            one.comes(bytes([ANSWER]) + bytes(29), by=elsewhere)
            one.told(EVENT_LINK, number)
        _fastpath.age_path(one.engine, one.device.tun, B, 0.3)
        out = packet(A, B, b"by the relay")
        assert one.one.went(one.device.sends(out).payload).packet == out
        assert one.told(EVENT_QUIET) == [B.to_bytes(4, "big")]


def test_a_peer_that_asks_after_a_pause_is_heard() -> None:
    with linked() as one:
        asks_in_vain(one, 2)
        _fastpath.age_path(one.engine, one.device.tun, B, 0.3)
        one.comes(b"", flags=ASKS)
        assert one.went().plain == b""
        one.device.kernel.send(packet(A, B, b"soon after"))
        assert one.went().flags == 0


def test_what_was_asked_long_ago_counts_for_nothing() -> None:
    with linked() as one:
        asks_in_vain(one, 3)
        _fastpath.age_path(one.engine, one.device.tun, B, 4)
        asks_in_vain(one, 3)
        assert not one.is_quiet()


def both_ways(one: Linked) -> None:
    """A packet comes, and one goes that has no answer."""
    arrives(one)
    sends(one)


def test_a_stream_that_stalls_is_told_once() -> None:
    with linked() as one:
        both_ways(one)
        _fastpath.age_path(one.engine, one.device.tun, B, 0.2)
        sends(one)
        assert one.told(EVENT_DOUBT) == [B.to_bytes(4, "big")]
        _fastpath.age_path(one.engine, one.device.tun, B, 0.2)
        sends(one)
        both_ways(one)
        _fastpath.age_path(one.engine, one.device.tun, B, 0.2)
        sends(one)
        _fastpath.age_path(one.engine, one.device.tun, B, 3.1)
        both_ways(one)
        _fastpath.age_path(one.engine, one.device.tun, B, 0.2)
        sends(one)
        assert one.told(EVENT_DOUBT, 2) == [B.to_bytes(4, "big")] * 2


def test_packets_that_were_answered_are_no_stall() -> None:
    with linked() as one:
        both_ways(one)
        arrives(one)
        _fastpath.age_path(one.engine, one.device.tun, B, 0.2)
        sends(one)
        assert one.device.told(EVENT_DOUBT) == []


def test_a_moment_is_no_stall() -> None:
    with linked() as one:
        both_ways(one)
        sends(one)
        assert one.device.told(EVENT_DOUBT) == []


def test_packets_that_go_one_way_are_no_stall() -> None:
    with linked() as one:
        arrives(one)
        _fastpath.age_path(one.engine, one.device.tun, B, 0.6)
        one.comes(b"")
        sends(one)
        _fastpath.age_path(one.engine, one.device.tun, B, 0.2)
        sends(one)
        assert one.device.told(EVENT_DOUBT) == []


def test_a_quiet_path_is_told_of_as_soon_as_there_is_room() -> None:
    with linked() as one:
        asks_in_vain(one, 3)
        _fastpath.age_path(one.engine, one.device.tun, B, 0.3)
        _fastpath.set_pending(one.engine, one.device.tun, EVENTS_MOST)
        out = packet(A, B, b"by the relay")
        for _ in range(2):
            assert one.one.went(one.device.sends(out).payload).packet == out
        assert one.is_quiet()
        assert one.device.told(EVENT_QUIET) == []
        _fastpath.set_pending(one.engine, one.device.tun, EVENTS_MOST - 1)
        for _ in range(3):
            assert one.one.went(one.device.sends(out).payload).packet == out
        assert one.device.told(EVENT_QUIET) == [B.to_bytes(4, "big")]
        assert one.device.relay.dropped() == {"events": 2}


def test_a_packet_without_any_way_is_told_once_a_second() -> None:
    """There may be a link."""
    with linked(with_path=False) as one:
        out = packet(A, B, b"by the relay")
        assert one.one.went(one.device.sends(out).payload).packet == out
        assert one.device.told(EVENT_WANTED) == []
        server = one.device.server
        server.close()
        one.device.relay.cause(server.connection)
        for number in range(5):
            one.device.kernel.send(packet(A, B, bytes([number])))
        assert one.told(EVENT_WANTED) == [B.to_bytes(4, "big")]
        # For this one they wait: behind it those before are through.
        one.device.kernel.send(packet(A, C))
        assert one.told(EVENT_WANTED, 2) == [B.to_bytes(4, "big"), C.to_bytes(4, "big")]
        _fastpath.age_stranded(one.engine, one.device.tun, B, 1.0)
        one.device.kernel.send(packet(A, B, b"later"))
        assert one.told(EVENT_WANTED, 3)[2:] == [B.to_bytes(4, "big")]


def test_where_the_kernel_sends_nothing_is_quiet() -> None:
    with linked() as one:
        one.path(to=UNREACHABLE)
        one.device.kernel.send(packet(A, B, b"lost"))
        assert one.told(EVENT_QUIET) == [B.to_bytes(4, "big")]
        assert one.device.relay.dropped() == {"link_refused": 1}
        out = packet(A, B, b"by the relay")
        assert one.one.went(one.device.sends(out).payload).packet == out


def test_a_link_that_is_closed_carries_nothing() -> None:
    with linked() as one:
        assert one.engine.close_link(one.link)
        assert one.device.relay.cause(one.link) == "local"
        out = packet(A, B, b"by the relay")
        assert one.one.went(one.device.sends(out).payload).packet == out
        assert not one.engine.close_link(one.link)
        assert not one.engine.expect_stun(one.link, [])
        assert not one.engine.send_stun(one.link, *packed(one.there), b"")
        with pytest.raises(ValueError, match="no such link"):
            one.path()


def test_a_path_is_taken_back() -> None:
    out = packet(A, B, b"by the relay")
    with linked() as one:
        assert one.engine.clear_path(one.device.tun, B)
        assert one.one.went(one.device.sends(out).payload).packet == out
        assert not one.engine.clear_path(one.device.tun, B)
        one.path()
        assert one.engine.forget_peer(one.device.tun, B)
        assert one.engine.paths(one.device.tun) == []
        assert not one.engine.clear_path(one.device.tun, B)


def test_where_none_are_allowed_what_comes_is_nothing() -> None:
    """It reaches neither the device nor Python, and is not answered; answers of STUN are told as ever."""
    with linked() as one:
        assert one.engine.expect_stun(one.link, [bytes(12)])
        one.engine.allow_links(one.device.tun, False)
        one.comes(packet(B, A, b"though there are none"))
        one.comes(b"", flags=ASKS)
        one.comes(bytes([PROBE]) + bytes(29))
        one.comes(bytes([ANSWER]) + bytes(29))
        one.comes(bytes([128, 3]) + bytes(7))
        one.peer.sendto(stun_answer(bytes(12)), one.own)
        one.device.relay.details(one.link, EVENT_STUN)
        assert one.device.relay.dropped() == {"link_off": 5}
        one.device.nothing_comes()
        assert one.device.events() == []
        one.engine.allow_links(one.device.tun, True)
        arrives(one)
        one.comes(bytes([PROBE]) + bytes(29))
        assert one.went().plain[:1] == bytes([ANSWER])


def test_what_is_not_sealed_does_not_take_the_path() -> None:
    out = packet(A, B, b"in the clear")
    with linked() as one:
        one.engine.set_peer(one.device.tun, B, CLEAR)
        assert one.device.sends(out).payload[1:].rstrip(b"\0") == out
        # Though there is a session.
        one.engine.set_peer(one.device.tun, B, CLEAR, session=one.one.local)
        assert one.device.sends(out).payload[1:].rstrip(b"\0") == out
        one.engine.set_peer(one.device.tun, B, SEAL, session=one.one.local)
        one.device.kernel.send(out)
        assert one.went().plain == out


def test_a_session_that_is_removed_opens_and_seals_nothing() -> None:
    with linked() as one:
        assert one.engine.remove_session(one.device.tun, one.one.local)
        one.comes(packet(B, A, b"too late"))
        one.device.kernel.send(packet(A, B, b"waits"))
        assert one.told(_fastpath.EVENT_WANTED) == [B.to_bytes(4, "big")]
        while not one.device.relay.dropped():
            pass
        assert one.device.relay.dropped() == {"link_no_session": 1}


def test_a_session_whose_counters_are_used_up_sends_nothing_more() -> None:
    with linked() as one:
        _fastpath.set_link_counter(one.engine, one.device.tun, one.one.local, (1 << 48) - 1)
        out = packet(A, B, b"the last")
        one.device.kernel.send(out)
        assert one.went().counter == (1 << 48) - 1
        assert one.one.went(one.device.sends(out).payload).packet == out
        assert not one.engine.send_by(one.device.tun, one.one.local, one.link, *packed(one.there))


def test_what_a_session_has_carried_is_seen() -> None:
    with linked() as one:
        one.device.kernel.send(packet(A, B, b"out"))
        one.went()
        [(number, size, sent, unanswered, received, owes)] = one.engine.seen(one.device.tun)
        assert (number, size) == (one.one.local, 31)
        assert sent == unanswered > 0
        assert (received, owes) == (0, 0)
        one.comes(packet(B, A, b"back"))
        one.device.reads()
        [(_, _, _, unanswered, received, owes)] = one.engine.seen(one.device.tun)
        assert unanswered == 0
        assert received >= sent
        assert owes >= sent


def stun_answer(transaction: bytes, more: bytes = b"") -> bytes:
    return struct.pack(">HHI12s", 0x0101, len(more), 0x2112A442, transaction) + more


def test_answers_of_stun_are_told_once() -> None:
    ids = [bytes([number]) * 12 for number in range(8)]
    with linked() as one:
        assert one.engine.expect_stun(one.link, ids)
        for transaction in (ids[0], ids[7], ids[3], ids[3], ids[4][:4] + bytes(8)):
            one.peer.sendto(stun_answer(transaction, bytes(12)), one.own)
        arrives(one)
        got = one.device.relay.details(one.link, EVENT_STUN, 3)
        head = place(one.there)
        assert got == [head + stun_answer(each, bytes(12)) for each in (ids[0], ids[7], ids[3])]
        assert one.device.relay.dropped() == {"link_unknown": 2}
        assert one.engine.expect_stun(one.link, [])
        one.peer.sendto(stun_answer(ids[1]), one.own)
        arrives(one)
        assert len(one.device.relay.details(one.link, EVENT_STUN, 3)) == 3
        assert one.device.relay.dropped() == {"link_unknown": 2}


@pytest.mark.parametrize(
    "datagram",
    [
        stun_answer(bytes(12), bytes(496)),
        stun_answer(bytes(12), bytes(8)) + bytes(4),
        stun_answer(bytes(12), bytes(8))[:-4],
        stun_answer(bytes(12), bytes(2)),
        stun_answer(bytes(12))[:19],
    ],
    ids=["long", "more", "less", "odd", "header cut"],
)
def test_what_is_no_whole_answer_is_not_told(datagram: bytes) -> None:
    with linked() as one:
        assert one.engine.expect_stun(one.link, [bytes(12)])
        one.peer.sendto(datagram, one.own)
        one.peer.sendto(stun_answer(bytes(12), bytes(492)), one.own)
        [told] = one.device.relay.details(one.link, EVENT_STUN)
        assert told == place(one.there) + stun_answer(bytes(12), bytes(492))
        assert one.device.relay.dropped() == {"link_unknown": 1}


def test_python_asks_by_a_link() -> None:
    with linked() as one:
        assert one.engine.send_stun(one.link, *packed(one.there), b"a request")
        assert one.peer.recvfrom(100) == (b"a request", one.own)
        assert not one.engine.send_stun(one.link, bytes(16), 9, b"a request")
        with pytest.raises(ValueError, match="at most 512"):
            one.engine.send_stun(one.link, *packed(one.there), bytes(513))


def test_arguments() -> None:
    with linked() as one:
        tun, engine = one.device.tun, one.engine
        address, port = packed(one.there)
        for given, said in (
            ((tun, B, one.link, address, port, 575), "576 to 9000"),
            ((tun, B, one.link, address, port, 9001), "576 to 9000"),
            ((tun, B, one.link, bytes(16), port, 1400), "of the link's family"),
            ((tun, B, one.link, address, 0, 1400), "of the link's family"),
            ((tun, B, tun, address, port, 1400), "no such link"),
            ((tun, C, one.link, address, port, 1400), "set_peer"),
            ((one.link, B, one.link, address, port, 1400), "no such device"),
        ):
            with pytest.raises(ValueError, match=said):
                engine.set_path(*given)
        with pytest.raises(ValueError, match="up to 8"):
            engine.expect_stun(one.link, [bytes(12)] * 9)
        with pytest.raises(ValueError, match="of 12 bytes"):
            engine.expect_stun(one.link, [bytes(11)])
        with pytest.raises(ValueError, match="at most 9000"):
            engine.send_by(tun, one.one.local, one.link, address, port, bytes(9001))
        with socket.socket() as stream, pytest.raises(OSError, match="not a UDP socket"):
            engine.open_link(tun, stream.fileno())
        # A link is no connection.
        assert not engine.bind(one.link, C)
        assert not engine.send(one.link, b"")
        assert not engine.close(one.link)
        assert not engine.join(one.link, tun)
        one.device.kernel.send(packet(A, B, b"goes on"))
        assert one.went().plain == packet(A, B, b"goes on")


def test_without_sealing_nothing_is_opened() -> None:
    with linked() as one:
        one.engine.set_sealing(one.device.tun, 0, A)
        one.comes(packet(B, A, b"sealed"))
        while not one.device.relay.dropped():
            pass
        assert one.device.relay.dropped() == {"link_unknown": 1}
        one.engine.set_sealing(one.device.tun, PREFER, A)
        arrives(one)


def test_every_device_has_a_prefix_of_its_own() -> None:
    prefixes = set()
    for _ in range(3):
        with client() as device:
            prefixes.add(device.engine.link_prefix(device.tun))
    assert len(prefixes) >= 2
    assert 0 not in prefixes


def test_a_slot_is_used_again() -> None:
    with linked() as one:
        for _ in range(5):
            own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            own.bind(("127.0.0.1", 0))
            link = one.engine.open_link(one.device.tun, own.detach())
            assert one.engine.close_link(link)
            assert one.device.relay.cause(link) == "local"
        assert one.engine.stats()["connections"] == 3


def test_two_engines() -> None:
    """Both ends are engines: what one sends is what the other's kernel gets."""
    with linked(vnet=True, workers=2) as one, client(vnet=True) as other:
        theirs = one.one.other()
        own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        own.bind(("127.0.0.1", 0))
        where = own.getsockname()
        other.engine.set_sealing(other.tun, PREFER, B)
        prefix = other.engine.link_prefix(other.tun) << 16
        mine = one.one.__class__(A, B, one.one.local + 9, prefix | 5, bytes([9]) * 32, bytes([8]) * 32)
        theirs = mine.other()
        mine.install(one.engine, one.device.tun)
        theirs.install(other.engine, other.tun)
        one.device.seal_with(mine)
        other.seal_with(theirs)
        link = other.engine.open_link(other.tun, own.detach())
        one.path(to=(where[0], where[1]))
        other.engine.set_path(other.tun, A, link, *packed(one.own), LONGEST)
        whole = tcp(pattern(60_000), source=A, to=B)
        expected = segments(bytes(ANY), whole)
        assert expected is not None
        for _ in range(20):
            one.device.kernel.send(bytes(ANY) + whole)
            got: list[bytes] = []
            while len(got) < len(expected):
                data = other.reads()
                found = segments(data[:10], data[10:])
                assert found is not None
                got += found
            assert b"".join(each[40:] for each in got) == pattern(60_000)
        back = packet(B, A, b"back")
        other.kernel.send(NO_VNET + back)
        assert one.device.reads() == NO_VNET + back
        assert one.device.relay.dropped() == other.relay.dropped() == {}


def test_a_forgery_shuts_nothing_out() -> None:
    with linked() as one:
        back = packet(B, A, b"true")
        datagram = Datagram(one.one.local, 5, back).seal(one.one.receives)
        one.peer.sendto(datagram[:-1] + bytes([datagram[-1] ^ 1]), one.own)
        one.peer.sendto(datagram, one.own)
        assert one.device.reads() == back
        assert one.device.relay.dropped() == {"link_bad_seal": 1}


def test_what_waited_leaves_first() -> None:
    """A packet that comes while others wait for their turn is none before them."""
    with linked(with_path=False) as one:
        one.engine.set_peer(one.device.tun, B, 0)
        one.device.kernel.send(packet(A, B, b"first"))
        assert one.told(_fastpath.EVENT_WANTED) == [B.to_bytes(4, "big")]
        one.path()
        one.device.seal_with(one.one)
        one.device.kernel.send(packet(A, B, b"second"))
        assert [one.went().plain for _ in range(2)] == [packet(A, B, b"first"), packet(A, B, b"second")]


def test_many_short_ones_leave_in_calls_that_the_kernel_takes() -> None:
    """Kernels cut no more than 64, newer ones than 128."""
    whole = udp_packet(pattern(4000), source=A, to=B)
    vnet = struct.pack("<BBHHHH", 1, 5, 28, 16, 20, 6)
    with linked(vnet=True) as one:
        sends = one.engine.stats()["sends"]
        one.device.kernel.send(vnet + whole)
        assert b"".join(one.went().plain[28:] for _ in range(250)) == pattern(4000)
        assert one.engine.stats()["sends"] == sends + 1
        assert one.device.relay.dropped() == {}


def test_a_batch_for_two_peers() -> None:
    with linked() as one, udp() as elsewhere:
        other = one.one.__class__(A, C, one.one.local + 1, 77, bytes([3]) * 32, bytes([4]) * 32)
        other.install(one.engine, one.device.tun)
        one.device.seal_with(other)
        name = elsewhere.getsockname()
        one.engine.set_path(one.device.tun, C, one.link, *packed((name[0], name[1])), LONGEST)
        for number in range(50):
            one.device.kernel.send(packet(A, B, bytes([number])))
            one.device.kernel.send(packet(A, C, bytes([number])))
        for number in range(50):
            assert one.went().plain == packet(A, B, bytes([number]))
            found = opened(other.sends, elsewhere.recv(1000))
            assert found is not None
            assert found.plain == packet(A, C, bytes([number]))


def test_what_is_wrapped_keeps_its_checksum() -> None:
    """A user's own IPIP: what left its checksum to the engine lies behind a header that no link speaks of."""
    inner = udp_packet(pattern(100), source=A, to=B)
    whole = ip_header(len(inner), IPIP, A, B) + inner
    vnet = struct.pack("<BBHHHH", 1, 0, 0, 0, 20, 6)
    with linked(vnet=True) as one:
        one.device.kernel.send(vnet + whole[:46] + folded_pseudo(inner) + whole[48:])
        found = one.went()
        assert found.flags == 0
        assert found.plain[20:] == inner


def folded_pseudo(packet: bytes) -> bytes:
    """What a kernel leaves in the place of UDP's checksum."""
    pseudo = packet[12:20] + struct.pack(">BBH", 0, packet[9], len(packet) - 20)
    return folded(pseudo).to_bytes(2, "big")


def test_one_of_many_asks() -> None:
    with linked(vnet=True) as one:
        _fastpath.age_path(one.engine, one.device.tun, B, 0.3)
        one.device.kernel.send(bytes(ANY) + tcp(pattern(5000), source=A, to=B))
        assert [one.went().flags for _ in range(5)] == [UNSUMMED | ASKS] + 4 * [UNSUMMED]


def test_python_hears_of_another_address_now_and_then() -> None:
    with linked() as one, udp() as elsewhere:
        parts = [Datagram(one.one.local, n, b"").seal(one.one.receives) for n in range(1000)]
        for at in range(0, 1000, 50):
            control = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", len(parts[0])))]
            elsewhere.sendmsg([b"".join(parts[at : at + 50])], control, 0, one.own)
        one.counter = 1000
        arrives(one)
        assert 8 <= len(one.told(EVENT_LINK)) < 500
        assert one.device.relay.dropped() == {}


def test_what_came_in_one_may_be_of_two_sessions() -> None:
    with linked() as one:
        other = one.one.__class__(A, C, one.one.local + 1, 77, bytes([3]) * 32, bytes([4]) * 32)
        other.install(one.engine, one.device.tun)
        parts = []
        for number in range(10):
            parts.append(Datagram(one.one.local, number, packet(B, A, bytes([number]))).seal(one.one.receives))
            parts.append(Datagram(other.local, number, packet(C, A, bytes([number]))).seal(other.receives))
        control = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", len(parts[0])))]
        one.peer.sendmsg([b"".join(parts)], control, 0, one.own)
        for number in range(10):
            assert one.device.reads() == packet(B, A, bytes([number]))
            assert one.device.reads() == packet(C, A, bytes([number]))


def test_a_path_that_is_set_again_keeps_its_figures() -> None:
    with linked() as one, udp() as elsewhere:
        one.device.kernel.send(packet(A, B, b"out"))
        one.went()
        arrives(one)
        one.path(longest=1300)
        [(_, sent, _, _, _, packets, size, _)] = one.engine.paths(one.device.tun)
        assert sent > 0
        assert (packets, size) == (1, 31)
        name = elsewhere.getsockname()
        one.path(to=(name[0], name[1]))
        [(_, sent, _, *figures)] = one.engine.paths(one.device.tun)
        assert (sent, figures) == (0.0, [0, 0, 0, 0, False])
