# IPv4 headers: the few fields that forwarding needs. Every function takes the bytes that are there and reads no
# further.

cdef inline bint ipv4_plausible(const uint8_t *packet, uint32_t length) noexcept nogil:
    """Whether a kernel should see this: version 4, a whole header, a total length that is there."""
    cdef uint32_t header
    if length < 20 or packet[0] >> 4 != 4:
        return False
    header = (packet[0] & 15) * 4
    return header >= 20 and header <= load_be16(packet + 2) <= length


cdef inline bint ipv4_exact(const uint8_t *packet, uint32_t length) noexcept nogil:
    """Whether these bytes are one packet and nothing else."""
    return ipv4_plausible(packet, length) and load_be16(packet + 2) == length


cdef inline bint is_group(uint32_t address) noexcept nogil:
    """Multicast (224.0.0.0/4) or the limited broadcast address."""
    return address >> 28 == 14 or address == <uint32_t>0xFFFFFFFF


cdef inline uint32_t flow_hash(const uint8_t *packet, uint32_t length, const uint64_t *key) noexcept nogil:
    """Tell flows apart: addresses, protocol and, where they are at hand, ports, mixed with a key of three words, so
    that no stranger can choose flows that share a sub-queue (RFC 8290, section 6.2). At least 20 bytes."""
    cdef uint32_t header = (packet[0] & 15) * 4
    cdef uint8_t protocol = packet[9]
    cdef uint64_t rest = protocol
    # The first fragment has ports and the others haven't: all of a packet must go the same way, so fragments use none.
    if ((protocol == TCP or protocol == UDP) and header >= 20 and length >= header + 4
            and (load_be16(packet + 6) & 0x3FFF) == 0):
        rest |= <uint64_t>load32(packet + header) << 8
    return <uint32_t>fold(fold(load64(packet + 12) ^ key[0], rest ^ key[1]), key[2])


cdef inline uint32_t label_hash(const uint8_t *payload, const uint64_t *key) noexcept nogil:
    """The same for what is sealed: its addresses, and the label by which its sender tells its flows apart."""
    return <uint32_t>fold(fold(load64(payload + SEALED_SOURCE_AT) ^ key[0], load_be16(payload + LABEL_AT) ^ key[1]),
                          key[2])


cdef inline uint32_t padding(uint32_t length, uint32_t total) noexcept nogil:
    """How many of `length` bytes are padding behind a packet with this total length."""
    return length - total if total < length <= total + PADDING_MAX else 0


cdef inline bint icmp_error(const uint8_t *packet, uint32_t length) noexcept nogil:
    """Whether a plausible packet is an ICMP message that none may answer (RFC 1122, 3.2.2): all but questions and their
    answers, an echo among them."""
    cdef uint32_t header = (packet[0] & 15) * 4
    if packet[9] != 1:
        return False
    return length == header or not (packet[header] == 0 or packet[header] == 8 or 13 <= packet[header] <= 18)


cdef uint32_t icmp_fragmentation_needed(uint8_t *out, const uint8_t *packet, uint32_t length,
                                        uint16_t mtu) noexcept nogil:
    """Write the ICMP answer to a packet that is too large (RFC 792, RFC 1191), in its destination's name, because a
    relay has no address. `out` has room for 96 bytes. Returns its size, 0 where none is due: DF unset, a later
    fragment, or an ICMP error.
    """
    if not ipv4_plausible(packet, length) or load_be16(packet + 6) & 0x4000 == 0:
        return 0
    return icmp_unreachable(out, packet, length, 4, mtu)


cdef uint32_t icmp_unreachable(uint8_t *out, const uint8_t *packet, uint32_t length, uint8_t code,
                               uint16_t mtu) noexcept nogil:
    """Write an ICMP "destination unreachable" with this code (RFC 792, RFC 1812), in the destination's name. `out` has
    room for 96 bytes. Returns its size, 0 where none is due: a later fragment, or an ICMP error."""
    cdef uint32_t quoted = (packet[0] & 15) * 4 + 8
    if not ipv4_plausible(packet, length) or load_be16(packet + 6) & 0x1FFF or icmp_error(packet, length):
        return 0
    quoted = min(quoted, length)
    memset(out, 0, 28)
    out[0] = 0x45
    store_be16(out + 2, <uint16_t>(28 + quoted))
    out[8] = 64
    out[9] = 1
    memcpy(out + 12, packet + 16, 4)
    memcpy(out + 16, packet + 12, 4)
    store_be16(out + 10, <uint16_t>~checksum_fold(checksum_add(out, 20, 0)))
    out[20] = 3
    out[21] = code
    store_be16(out + 26, mtu)
    memcpy(out + 28, packet, quoted)
    store_be16(out + 22, <uint16_t>~checksum_fold(checksum_add(out + 20, 8 + quoted, 0)))
    return 28 + quoted
