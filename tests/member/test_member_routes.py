"""The member and the networks behind members: which routes it sets, what it wraps for them, and what it unwraps."""

import asyncio
from ipaddress import IPv4Address, IPv4Network
from typing import cast

import aiohttp
from kit.joining import FAR, LAN_A, LAN_B
from kit.recorded import GRANTED
from lab.setting import OTHER, PACKET, Journal, Setting, Visitor, log_in, packets_pass, tell

from candy.protocol import wire
from candy.protocol.wire import Behind, Placement, Route, RouteEntry

VAST = RouteEntry(IPv4Network("192.168.0.0/16"), FAR)
TO_LAN_A = bytes.fromhex("4500001c 00010000 4011a6cd c0a8ca07 0a010005 00010002 00080000")
"""UDP from 192.168.202.7 to 10.1.0.5, without payload and checksum."""
FROM_LAN_A = bytes.fromhex("4500001c 00010000 3f11a7cd 0a010005 c0a8ca07 00020001 00080000")


def checksum_is_right(header: bytes) -> bool:
    """RFC 1071: with the checksum in place the sum is all ones."""
    total = sum(int.from_bytes(header[at : at + 2], "big") for at in range(0, 20, 2))
    return (total & 0xFFFF) + (total >> 16) == 0xFFFF


async def sent(setting: Setting, visitor: Visitor, packet: bytes) -> bytes:
    """What the relay gets when this machine sends a packet."""
    await asyncio.get_running_loop().sock_sendall(setting.device.kernel, packet)
    kind, message = await visitor.receive()
    assert (kind, message[0]) == (aiohttp.WSMsgType.BINARY, wire.Kind.FORWARD)
    return cast(bytes, message[1:])


async def test_packets_for_a_network_behind_a_member_are_wrapped(setting: Setting, journal: Journal) -> None:
    """field: ROUTE accumulates within a connection to an original server, and starts afresh with the next one."""
    setting.start()
    visitor = await setting.relay.member()
    await log_in(visitor)
    assert (setting.kernel.own, setting.kernel.installed) == (GRANTED, {})
    assert setting.kernel.relay == {IPv4Address("127.0.0.1")}
    assert await sent(setting, visitor, TO_LAN_A) == TO_LAN_A
    await tell(setting, visitor, LAN_A)
    await tell(setting, visitor, LAN_B)
    assert setting.kernel.installed == {LAN_A.destination: FAR, LAN_B.destination: FAR}
    packet = await sent(setting, visitor, TO_LAN_A)
    outer, inner = packet[:20], packet[20:]
    assert inner == TO_LAN_A
    assert outer[:4] + outer[9:10] + outer[12:] == bytes.fromhex("45000030 04 c0a8ca07 c0a8ca02")
    assert outer[8] >= 64
    assert checksum_is_right(outer)
    # What is for members is not.
    await packets_pass(setting, visitor)
    visitor.hang_up()
    visitor = await setting.relay.member()
    await log_in(visitor)
    # Until this relay has told its own.
    assert (await sent(setting, visitor, TO_LAN_A))[20:] == TO_LAN_A
    await tell(setting, visitor, LAN_B)
    assert setting.kernel.installed == {LAN_B.destination: FAR, LAN_A.destination: FAR}


async def test_an_all_zero_outer_header(setting: Setting) -> None:
    """field: "SD-WAN packets of old clients have an outer header that is all zero but for protocol 4, source and
    destination"."""
    setting.start()
    visitor = await setting.relay.member()
    await log_in(visitor)
    outer = bytes(9) + b"\x04" + bytes(2) + FAR.packed + GRANTED.ip.packed
    await visitor.socket.send_bytes(b"\x01" + outer + FROM_LAN_A)
    assert await asyncio.get_running_loop().sock_recv(setting.device.kernel, 2000) == FROM_LAN_A


async def test_a_gateway_that_was_told_looks_at_what_is_wrapped_for_it(setting: Setting) -> None:
    """For as long as this connection lasts: the next relay may be an older one, which tells nothing."""
    setting.relay.protocols = ("candy.2",)
    setting.start()
    loop, kernel = asyncio.get_running_loop(), setting.device.kernel
    everybody = IPv4Network("0.0.0.0/0")
    placed = (
        Placement(IPv4Network("10.1.0.0/16"), FAR, everybody),
        Placement(IPv4Network("10.9.0.0/16"), GRANTED.ip, everybody),
    )

    async def arrives(visitor: Visitor, gateway: IPv4Address) -> bool:
        outer = bytes(9) + b"\x04" + bytes(2) + gateway.packed + GRANTED.ip.packed
        await visitor.socket.send_bytes(b"\x01" + outer + FROM_LAN_A)
        await visitor.socket.send_bytes(b"\x01" + PACKET)
        first = await loop.sock_recv(kernel, 2000)
        return first == FROM_LAN_A and await loop.sock_recv(kernel, 2000) == PACKET

    visitor = await setting.relay.member()
    await log_in(visitor)
    assert await arrives(visitor, OTHER.ip)
    for told, passes in ((placed, False), (placed[1:], False), ((), True), (placed, False)):
        await visitor.socket.send_bytes(Behind(told, Behind.FIRST | Behind.LAST).encode())
        # A set of routes behind it, upon which the member acts later.
        await tell(setting, visitor, flags=Route.FIRST | Route.LAST)
        assert await arrives(visitor, FAR) is (placed[0] in told or passes)
        assert await arrives(visitor, OTHER.ip) is passes
    assert setting.engine.drops()["inner_source"] == 4
    visitor.hang_up()
    visitor = await setting.relay.member()
    await log_in(visitor)
    assert await arrives(visitor, OTHER.ip)


async def test_a_resent_packet_of_somebody_else(setting: Setting) -> None:
    """field: "peers legitimately re-send foreign packets for a moment when a direct link breaks". It is the kernel's to
    drop, and nothing else happens."""
    setting.start()
    visitor = await setting.relay.member()
    await log_in(visitor)
    foreign = PACKET[:16] + FAR.packed + PACKET[20:]
    await visitor.socket.send_bytes(b"\x01" + foreign)
    assert await asyncio.get_running_loop().sock_recv(setting.device.kernel, 2000) == foreign
    await packets_pass(setting, visitor)


async def test_sets_of_candy_2_replace_each_other(setting: Setting) -> None:
    setting.relay.protocols = ("candy.2",)
    setting.start()
    visitor = await setting.relay.member()
    await log_in(visitor)
    await tell(setting, visitor, LAN_A, flags=Route.FIRST | Route.LAST)
    assert len(await sent(setting, visitor, TO_LAN_A)) == 20 + len(TO_LAN_A)
    await tell(setting, visitor, LAN_B, flags=Route.FIRST)
    assert setting.kernel.installed == {LAN_A.destination: FAR}
    await tell(setting, visitor, flags=Route.LAST)
    assert setting.kernel.installed == {LAN_B.destination: FAR}
    assert await sent(setting, visitor, TO_LAN_A) == TO_LAN_A
    await tell(setting, visitor, flags=Route.FIRST | Route.LAST)
    assert setting.kernel.installed == {}


async def test_what_the_kernel_may_not_have_is_not_wrapped(setting: Setting) -> None:
    setting.kernel.refuses = {LAN_A.destination}
    setting.start()
    visitor = await setting.relay.member()
    await log_in(visitor)
    await tell(setting, visitor, LAN_A, LAN_B)
    assert await sent(setting, visitor, TO_LAN_A) == TO_LAN_A


async def test_a_destination_around_the_members_own_network(setting: Setting) -> None:
    setting.start()
    visitor = await setting.relay.member()
    await log_in(visitor)
    await tell(setting, visitor, VAST)
    await packets_pass(setting, visitor)
    beyond = TO_LAN_A[:16] + IPv4Address("192.168.5.5").packed + TO_LAN_A[20:]
    assert (await sent(setting, visitor, beyond))[20:] == beyond


async def test_routes_are_looked_at_again_before_each_attempt(setting: Setting, journal: Journal) -> None:
    setting.start()
    visitor = await setting.relay.member()
    await log_in(visitor)
    await tell(setting, visitor, LAN_A)
    reviews = setting.kernel.reviews
    setting.kernel.refuses = {LAN_A.destination}
    visitor.hang_up()
    await setting.kernel.reviewed(reviews + 1)
    assert setting.kernel.installed == {}


async def test_another_address_changes_the_outer_source(setting: Setting) -> None:
    setting.start()
    visitor = await setting.relay.member()
    await log_in(visitor)
    await tell(setting, visitor, LAN_A)
    visitor.hang_up()
    visitor = await setting.relay.member()
    await log_in(visitor, OTHER)
    # They were for the other address.
    assert setting.kernel.installed == {}
    await tell(setting, visitor, LAN_A)
    assert setting.kernel.own == OTHER
    assert (await sent(setting, visitor, TO_LAN_A))[12:20] == OTHER.ip.packed + FAR.packed
    # And what is wrapped for it is for us.
    loop = asyncio.get_running_loop()
    for own, unwrapped in ((GRANTED, False), (OTHER, True)):
        outer = (await sent(setting, visitor, TO_LAN_A))[:12] + FAR.packed + own.ip.packed
        await visitor.socket.send_bytes(b"\x01" + outer + FROM_LAN_A)
        received = await loop.sock_recv(setting.device.kernel, 2000)
        assert received == (FROM_LAN_A if unwrapped else outer + FROM_LAN_A)
