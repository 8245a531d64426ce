# IPv4 headers: the few fields that forwarding needs. Every function takes the bytes that are there and reads no further.

cdef inline bint ipv4_plausible(const uint8_t *packet, uint32_t length) noexcept nogil:
    """Whether a kernel should see this: version 4, a whole header, a total length that is there."""
    cdef uint32_t header
    if length < 20 or packet[0] >> 4 != 4:
        return False
    header = (packet[0] & 15) * 4
    return header >= 20 and header <= load_be16(packet + 2) <= length


cdef inline bint is_group(uint32_t address) noexcept nogil:
    """Multicast (224.0.0.0/4) or the limited broadcast address."""
    return address >> 28 == 14 or address == <uint32_t>0xFFFFFFFF


cdef inline uint32_t flow_hash(const uint8_t *packet, uint32_t length) noexcept nogil:
    """Spread flows over sub-queues: addresses, protocol and, where they are at hand, ports. At least 20 bytes."""
    cdef uint32_t h = load32(packet + 12) ^ (load32(packet + 16) * <uint32_t>0x9E3779B1)
    cdef uint32_t header = (packet[0] & 15) * 4
    cdef uint8_t protocol = packet[9]
    h ^= protocol
    # The first fragment has ports and the others haven't: all of a packet must go the same way, so fragments use none.
    if (protocol == 6 or protocol == 17) and header >= 20 and length >= header + 4 and (load_be16(packet + 6) & 0x3FFF) == 0:
        h ^= load32(packet + header) * <uint32_t>0x85EBCA6B
    h ^= h >> 15
    h *= <uint32_t>0x2C1B3C6D
    return h ^ (h >> 12)
