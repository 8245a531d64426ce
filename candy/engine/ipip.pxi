# SD-WAN: what goes to a network behind another member travels in an outer IPv4 header (protocol 4) to that member.
#
# Ours is a complete header of 20 bytes: TTL 64, DF with id 0 (an atomic datagram, RFC 6864). That tells it from an IPIP
# packet of the user's own, to which kernels give an id, and which is not for us to unwrap.
# field: old clients send an outer header that is all zero but for protocol, source and destination.
#
# An outer header makes any source and any destination of the packet within, so both ends look at that one's too: the
# relay before it sends it on, a device before it takes the header off. The rules say what a member may send from beside
# its own address, and what lies behind another member for it.

cdef void ipip_wrap(uint8_t *out, uint32_t source, uint32_t destination, uint32_t inner_length) noexcept nogil:
    """Write the outer header for an inner packet of this length."""
    memset(out, 0, IPIP_BYTES)
    out[0] = 0x45
    out[6] = 0x40
    out[8] = 64
    out[9] = IPIP
    store_be32(out + 12, source)
    store_be32(out + 16, destination)
    ipv4_finish(out, IPIP_BYTES + inner_length, 0)


cdef inline bint ipip_wrapped(const uint8_t *packet) noexcept nogil:
    """Whether these 20 bytes are an outer header that a member's device wrote."""
    return packet[9] == IPIP and (packet[0] == 0 or (packet[0] == 0x45 and load32(packet + 4) == 0x00400000))


cdef bint ipip_ours(const uint8_t *packet, uint32_t length, uint32_t own) noexcept nogil:
    """Whether this is an outer header that a member wrapped for the device with this address."""
    return length >= 2 * IPIP_BYTES and own != 0 and load_be32(packet + 16) == own and ipip_wrapped(packet)


cdef bint ipip_allowed(Worker *w, Slot *s, const Table *rules, const uint8_t *packet) noexcept nogil:
    """Whether the packet within, of which at least the addresses are there (2 * IPIP_BYTES), may go from the outer
    source to the outer destination; False: it was dropped."""
    cdef uint32_t source = load_be32(packet + 12)
    cdef uint32_t destination = load_be32(packet + 16)
    cdef uint32_t inner_source = load_be32(packet + IPIP_BYTES + 12)
    cdef uint32_t inner_destination = load_be32(packet + IPIP_BYTES + 16)
    if inner_source != source and not rules_place(w, rules, source, inner_source, NULL):
        drop(w, s, DROP_INNER_SOURCE)
        return False
    # A destination of a rule may enclose groups, which are nobody's and nothing's.
    if is_group(inner_destination) or (inner_destination != destination and not rules_place(
            w, rules, destination, inner_destination, &source)):
        drop(w, s, DROP_INNER_DESTINATION)
        return False
    return True


cdef uint32_t ipip_super(Super *u, uint32_t own, uint32_t hop) noexcept nogil:
    """Wrap a checked super-packet; there is room before it. Returns its new length, over 65,535 where only segments of
    it can be sent."""
    u.packet -= IPIP_BYTES
    u.length += IPIP_BYTES
    u.inner += IPIP_BYTES
    u.transport += IPIP_BYTES
    u.headers += IPIP_BYTES
    ipip_wrap(u.packet, own, hop, u.length - IPIP_BYTES)
    return u.length
