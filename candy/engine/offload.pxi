# Super-packets: up to 64 KB of one flow behind a virtio header, as the kernel hands them over and takes them.
#
#     +-----------+--------------+-------------+--------------+----------------+-----------------+
#     | flags  1  | gso_type  1  | hdr_len  2  | gso_size  2  | csum_start  2  | csum_offset  2  |   little-endian
#     +-----------+--------------+-------------+--------------+----------------+-----------------+
#
# 1. super_parse()      nothing of such a header is believed before this, whether it came from the network or a kernel
# 2. super_segment()    one of the packets that it stands for, complete with lengths, ids, flags and checksums
# 3. super_part()       some of them, as a smaller super-packet
# 4. super_header()     the virtio header that a kernel may see
# In an IPIP packet (an SD-WAN gateway's, protocol 4) the header speaks of the inner packet, and the outer header is
# repeated on every segment.

cdef enum:
    GSO_TCP_MIN = 8                 # the least that a kernel makes (TCP_MIN_GSO_SIZE)
    # What one super-packet may stand for. Without a bound one frame would be 8,000 packets to an old member, and cost
    # all others a tenth of a second of their worker. Full packets of an MSS of 512 fit.
    SUPER_PACKETS_MAX = 128


cdef inline uint32_t super_count(const Super *u) noexcept nogil:
    """How many packets it stands for."""
    cdef uint32_t payload = u.length - u.headers
    if u.gso_size == 0 or payload == 0:
        return 1
    return (payload + u.gso_size - 1) // u.gso_size


cdef bint super_parse(const uint8_t *vnet, uint8_t *packet, uint32_t length, Super *u) noexcept nogil:
    """Check a virtio header that came over the network, and fill u; False when it or its packet is not what it claims
    to be, or it stands for more packets than one may."""
    return super_parse_any(vnet, packet, length, u) and super_count(u) <= SUPER_PACKETS_MAX


cdef bint super_parse_any(const uint8_t *vnet, uint8_t *packet, uint32_t length, Super *u) noexcept nogil:
    """The same for one of this machine's kernel, for any number of packets."""
    cdef uint8_t flags = vnet[0]
    cdef uint8_t kind = vnet[1] & ~<uint8_t>GSO_ECN
    cdef uint8_t *ip
    cdef uint8_t *segment
    cdef uint32_t rest
    if not ipv4_exact(packet, length) or flags & ~(VNET_NEEDS_CSUM | VNET_DATA_VALID):
        return False
    u.packet = packet
    u.length = length
    u.inner = 0
    if packet[9] == IPIP:
        u.inner = (packet[0] & 15) * 4
        if not ipv4_exact(packet + u.inner, length - u.inner):
            return False
    ip = packet + u.inner
    u.protocol = ip[9]
    u.transport = u.inner + (ip[0] & 15) * 4
    u.headers = u.transport
    u.gso_size = 0
    u.needs_checksum = (flags & VNET_NEEDS_CSUM) != 0
    if not u.needs_checksum:
        return vnet[1] == GSO_NONE
    # A fragment has no whole transport header, and its sender has completed its checksum.
    if load_be16(ip + 6) & 0x3FFF or load_le16(vnet + 6) != u.transport - u.inner:
        return False
    segment = packet + u.transport
    rest = length - u.transport
    if u.protocol == TCP:
        if rest < 20 or load_le16(vnet + 8) != 16 or segment[12] >> 4 < 5 or (segment[12] >> 4) * 4 > rest:
            return False
        u.headers += (segment[12] >> 4) * 4
    elif u.protocol == UDP:
        if rest < 8 or load_le16(vnet + 8) != 6:
            return False
        u.headers += 8
    else:
        return False
    if kind == GSO_NONE:
        return vnet[1] == GSO_NONE
    u.gso_size = load_le16(vnet + 4)
    # "hdr_len" is a hint that senders get wrong; nothing here looks at it.
    if kind == GSO_TCP4:
        return u.protocol == TCP and u.gso_size >= GSO_TCP_MIN
    return vnet[1] == GSO_UDP and u.protocol == UDP and u.gso_size != 0


cdef inline uint32_t super_segment_size(const Super *u) noexcept nogil:
    """Size of the largest of them."""
    return u.length if u.gso_size == 0 else min(u.length, u.headers + u.gso_size)


cdef uint32_t super_segment(const Super *u, uint32_t index, uint8_t *out) noexcept nogil:
    """Write the packet number `index` of super_count(); returns its size. `out` has room for super_segment_size()."""
    cdef uint32_t offset = index * u.gso_size
    cdef uint32_t payload = u.length - u.headers
    cdef uint32_t part = payload
    cdef uint32_t size
    cdef bint last = True
    cdef uint8_t *ip = out + u.inner
    cdef uint8_t *transport = out + u.transport
    if u.gso_size != 0 and payload != 0:
        part = min(u.gso_size, payload - offset)
        last = offset + part == payload
    size = super_cut(u, index, offset, part, last, out)
    if u.needs_checksum:
        checksum_finish(ip, transport, size - u.transport)
    return size


cdef uint32_t super_cut(const Super *u, uint32_t index, uint32_t offset, uint32_t part, bint last,
                        uint8_t *out) noexcept nogil:
    """Write `part` bytes of payload from `offset` on, which begin with packet number `index`, behind headers that fit
    them but for the transport checksum; returns the size."""
    cdef uint32_t size = u.headers + part
    cdef uint8_t *transport = out + u.transport
    memcpy(out, u.packet, u.headers)
    memcpy(out + u.headers, u.packet + u.headers + offset, part)
    if u.inner != 0:
        ipv4_finish(out, size, 0)               # an atomic datagram: see ipip_wrap
    ipv4_finish(out + u.inner, size - u.inner, index)
    if u.needs_checksum and u.protocol == TCP:
        store_be32(transport + 4, load_be32(transport + 4) + offset)
        if not last:
            transport[13] &= ~<uint8_t>(TCP_FIN | TCP_PSH)
        if index != 0:
            transport[13] &= ~<uint8_t>TCP_CWR          # only the first packet answers an ECN echo (RFC 3168)
    elif u.needs_checksum:
        store_be16(transport + 4, <uint16_t>(size - u.transport))
    return size


cdef uint32_t super_part(const Super *u, uint8_t kind, uint32_t index, uint32_t n, uint8_t *vnet) noexcept nogil:
    """Write the packets from number `index` on, up to n of them, as a super-packet with its virtio header; returns the
    size of both. `kind` is the whole one's gso_type; its gso_size is not 0."""
    cdef Super part = u[0]
    cdef uint32_t offset = index * u.gso_size
    cdef uint32_t payload = u.length - u.headers
    cdef uint32_t size = min(n * u.gso_size, payload - offset)
    cdef uint8_t *ip = vnet + VNET_BYTES + u.inner
    cdef uint32_t at = u.transport + (16 if u.protocol == TCP else 6)
    part.packet = vnet + VNET_BYTES
    part.length = super_cut(u, index, offset, size, offset + size == payload, part.packet)
    # What a kernel expects in the checksum's place: the pseudo header's sum, to which it adds the rest.
    store_be16(part.packet + at, checksum_fold(pseudo_header(ip, part.length - u.transport)))
    vnet[1] = kind if index == 0 else kind & ~<uint8_t>GSO_ECN          # which speaks of CWR
    if size <= u.gso_size:
        vnet[1] = GSO_NONE
        part.gso_size = 0
    super_header(&part, vnet)
    return VNET_BYTES + part.length


cdef void super_header(const Super *u, uint8_t *vnet) noexcept nogil:
    """Write the virtio header that a kernel may see: from what was checked, not from what was received."""
    cdef uint8_t kind = vnet[1]
    memset(vnet, 0, VNET_BYTES)
    if u.needs_checksum:
        vnet[0] = VNET_NEEDS_CSUM
        vnet[1] = kind
        store_le16(vnet + 2, <uint16_t>(u.headers - u.inner))
        store_le16(vnet + 4, <uint16_t>u.gso_size)
        store_le16(vnet + 6, <uint16_t>(u.transport - u.inner))
        store_le16(vnet + 8, 16 if u.protocol == TCP else 6)
