# Coalescing: consecutive packets of one TCP flow become one super-packet before the kernel sees them: a write to
# the device costs more than the packet itself. For what comes from members without the extension.
#
# Only what the kernel could take apart again into the very same packets is put together: same addresses, ports, TTL,
# TOS, options, acknowledgement and window, contiguous, plain ACK or PSH, equal size but for the last, checksum
# verified. Of datagrams of UDP the same: addresses, ports, TTL, TOS, size. What came by a link without a checksum
# (LINK_UNSUMMED) is authentic, and goes on without one.

cdef enum:
    UDP_PIECES = 64                 # of one super-packet: the kernel's UDP_MAX_SEGMENTS, in its older versions
    UDP_HEADERS = 28


cdef bint mergeable(const uint8_t *packet, uint32_t length) noexcept nogil:
    """Whether this packet may be part of a super-packet at all."""
    cdef uint32_t headers
    if length < 41 or packet[0] != 0x45 or packet[9] != TCP or load_be16(packet + 2) != length:
        return False
    if load_be16(packet + 6) & 0x3FFF or packet[32] & 15:
        return False
    headers = 20 + (packet[32] >> 4) * 4
    return headers >= 40 and headers < length and packet[33] & ~TCP_PSH == TCP_ACK


cdef bint udp_mergeable(const uint8_t *packet, uint32_t length, bint unsummed) noexcept nogil:
    """The same for a datagram of UDP. One without a checksum has to stay so, unless that was but left out."""
    return (length > UDP_HEADERS and packet[0] == 0x45 and packet[9] == UDP and load_be16(packet + 2) == length
            and load_be16(packet + 6) & 0x3FFF == 0 and load_be16(packet + 24) == length - 20
            and (unsummed or load_be16(packet + 26) != 0))


cdef inline bint header_fits(const Merge *m, const uint8_t *packet) noexcept nogil:
    """Whether this is another packet of the flow at hand, with the same IPv4 header but for length, id and checksum."""
    cdef const uint8_t *first = m.packet
    return (not m.closed and packet[9] == first[9]
            and packet[1] == first[1] and packet[8] == first[8] and load_be16(packet + 6) == load_be16(first + 6)
            # With DF an id means nothing (RFC 6864); else the kernel would count up from the first.
            and (packet[6] & 0x40 or load_be16(packet + 4) == <uint16_t>(load_be16(first + 4) + m.pieces))
            and memcmp(packet + 12, first + 12, 12) == 0)                       # addresses and ports


cdef bint udp_fits(const Merge *m, const uint8_t *packet, uint32_t length) noexcept nogil:
    """Whether a mergeable datagram continues those at hand."""
    return (m.pieces < UDP_PIECES and m.length + length - UDP_HEADERS <= 65535
            and length - UDP_HEADERS <= m.gso_size and header_fits(m, packet))


cdef bint checksums_right(const uint8_t *packet, uint32_t length, bint unsummed) noexcept nogil:
    """The header's too: both are computed anew for what is put together, and would come out right."""
    return (checksum_fold(checksum_add(packet, 20, 0)) == 0xFFFF and (unsummed or checksum_fold(
        checksum_add(packet + 20, length - 20, pseudo_header(packet, length - 20))) == 0xFFFF))


cdef bint merge_fits(const Merge *m, const uint8_t *packet, uint32_t length) noexcept nogil:
    """Whether a mergeable packet of TCP continues the one at hand."""
    cdef const uint8_t *first = m.packet
    cdef uint32_t headers = 20 + (packet[32] >> 4) * 4
    return (header_fits(m, packet) and headers == m.headers and m.length + length - headers <= 65535
            and m.pieces < MERGE_MAX and length - headers <= m.gso_size
            and load_be32(packet + 24) == m.next_sequence
            and memcmp(packet + 28, first + 28, 4) == 0                         # acknowledgement
            and memcmp(packet + 34, first + 34, 2) == 0                         # window
            and memcmp(packet + 38, first + 38, headers - 38) == 0)             # urgent pointer and options


cdef void merge_alone(Merge *m, uint8_t *packet, uint32_t length, bint unsummed) noexcept nogil:
    """Begin with any plausible packet, which nothing follows."""
    m.packet = packet
    m.length = length
    m.headers = m.gso_size = 0
    m.pieces = 1
    m.closed = True
    m.verified = False
    m.unsummed = unsummed
    m.iov[1].iov_base = packet
    m.iov[1].iov_len = length


cdef void merge_start(Merge *m, uint8_t *packet, uint32_t length, bint unsummed) noexcept nogil:
    """Begin with a mergeable one."""
    merge_alone(m, packet, length, unsummed)
    if packet[9] == UDP:
        m.headers = UDP_HEADERS
        m.closed = False
    else:
        m.headers = 20 + (packet[32] >> 4) * 4
        m.next_sequence = load_be32(packet + 24) + length - m.headers
        m.closed = (packet[33] & TCP_PSH) != 0
    m.gso_size = length - m.headers


cdef void merge_packet(Worker *w, Slot *s, Merge *m, uint8_t *packet, uint32_t length, bint unsummed) noexcept nogil:
    """Put a mergeable packet to the one at hand, or write that and begin with this."""
    cdef bint fits = m.pieces != 0 and m.unsummed == unsummed
    if fits and (udp_fits(m, packet, length) if packet[9] == UDP else merge_fits(m, packet, length)):
        if merge_add(m, packet, length):
            return
    merge_write(w, s, m)
    merge_start(m, packet, length, unsummed)


cdef bint merge_add(Merge *m, uint8_t *packet, uint32_t length) noexcept nogil:
    """Append a packet that merge_fits(); False when a checksum is wrong, and nothing was changed."""
    cdef uint32_t part = length - m.headers
    if not m.verified and not checksums_right(m.packet, m.length, m.unsummed):
        return False
    m.verified = True
    if not checksums_right(packet, length, m.unsummed):
        return False
    m.pieces += 1
    m.iov[m.pieces].iov_base = packet + m.headers
    m.iov[m.pieces].iov_len = part
    m.length += part
    m.next_sequence += part
    m.closed = part < m.gso_size
    if packet[9] == TCP and packet[33] & TCP_PSH:
        m.closed = True
        m.packet[33] |= TCP_PSH
    return True


cdef void merge_write(Worker *w, Slot *s, Merge *m) noexcept nogil:
    """Hand what was put together to the kernel."""
    cdef uint8_t vnet[VNET_BYTES]
    cdef ssize_t written
    cdef uint32_t transport, at
    memset(vnet, 0, VNET_BYTES)
    if m.pieces == 0:
        return
    if m.pieces > 1:
        vnet[1] = GSO_UDP if m.packet[9] == UDP else GSO_TCP4
        store_le16(vnet + 4, <uint16_t>m.gso_size)
        ipv4_finish(m.packet, m.length, 0)
        if m.packet[9] == UDP:
            store_be16(m.packet + 24, <uint16_t>(m.length - 20))
    if m.pieces > 1 or m.unsummed:
        # The kernel goes on from the sum over the pseudo header.
        transport = (m.packet[0] & 15) * 4
        at = 6 if m.packet[9] == UDP else 16
        vnet[0] = VNET_NEEDS_CSUM
        store_le16(vnet + 2, <uint16_t>(transport + (
            8 if m.packet[9] == UDP else (m.packet[transport + 12] >> 4) * 4)))
        store_le16(vnet + 6, <uint16_t>transport)
        store_le16(vnet + 8, <uint16_t>at)
        store_be16(m.packet + transport + at, checksum_fold(pseudo_header(m.packet, m.length - transport)))
    m.iov[0].iov_base = vnet
    m.iov[0].iov_len = VNET_BYTES
    written = writev(s.fd, m.iov, m.pieces + 1)
    if written < 0 and errno == EINVAL and m.pieces > 1:
        merge_write_each(w, s, m, vnet)
    else:
        tun_count(w, s, written, m.pieces, m.length)
    m.pieces = 0


cdef void merge_write_each(Worker *w, Slot *s, Merge *m, uint8_t *vnet) noexcept nogil:
    """The kernel does not take what was put together: write the packets one by one, cut as the kernel would have."""
    cdef Super u
    cdef uint32_t i, size
    cdef uint32_t at = 0
    cdef uint8_t *whole = w.scratch
    cdef uint8_t *packet = w.scratch + WIRE_PAYLOAD_CANDY3
    cdef uint8_t plain[VNET_BYTES]
    for i in range(m.pieces):
        memcpy(whole + at, m.iov[1 + i].iov_base, m.iov[1 + i].iov_len)
        at += <uint32_t>m.iov[1 + i].iov_len
    if not super_parse(vnet, whole, at, &u):
        drops(w, s, DROP_TUN_WRITE, m.pieces)
        return
    memset(plain, 0, VNET_BYTES)
    m.iov[0].iov_base = plain
    for i in range(super_count(&u)):
        size = super_segment(&u, i, packet)
        m.iov[1].iov_base = packet
        m.iov[1].iov_len = size
        tun_count(w, s, writev(s.fd, m.iov, 2), 1, size)
