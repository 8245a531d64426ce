# The Internet checksum (RFC 1071) in IPv4, TCP and UDP headers.

cdef extern from "engine/fastpath.h" nogil:
    uint64_t checksum_add "candy_checksum_add" (const uint8_t *data, size_t n, uint64_t total)
    uint16_t checksum_fold "candy_checksum_fold" (uint64_t total)


cdef void ipv4_finish(uint8_t *ip, uint32_t length, uint32_t id_step) noexcept nogil:
    """Length, id and checksum of an IPv4 header that was copied from the super-packet's."""
    cdef uint32_t header = (ip[0] & 15) * 4
    store_be16(ip + 2, <uint16_t>length)
    store_be16(ip + 4, <uint16_t>(load_be16(ip + 4) + id_step))
    store_be16(ip + 10, 0)
    store_be16(ip + 10, <uint16_t>~checksum_fold(checksum_add(ip, header, 0)))


cdef uint64_t pseudo_header(const uint8_t *ip, uint32_t length) noexcept nogil:
    """The sum over the pseudo header of TCP and UDP; `length` is the transport header's and payload's."""
    cdef uint8_t tail[4]
    tail[0] = 0
    tail[1] = ip[9]
    store_be16(tail + 2, <uint16_t>length)
    return checksum_add(tail, 4, checksum_add(ip + 12, 8, 0))


cdef void checksum_finish(uint8_t *ip, uint8_t *transport, uint32_t length) noexcept nogil:
    """Compute the checksum of a TCP or UDP packet."""
    cdef uint32_t at = 16 if ip[9] == TCP else 6
    cdef uint16_t value
    store_be16(transport + at, 0)
    value = <uint16_t>~checksum_fold(checksum_add(transport, length, pseudo_header(ip, length)))
    # "If the computed checksum is zero, it is transmitted as all ones": zero is UDP's word for none.
    store_be16(transport + at, 0xFFFF if value == 0 and ip[9] == UDP else value)


cdef inline uint16_t checksum_update(uint16_t checksum, uint16_t before, uint16_t after) noexcept nogil:
    """The checksum of a header in which one 16-bit word changed (RFC 1624, equation 3). All in host order."""
    cdef uint32_t total = <uint32_t>(<uint16_t>~checksum) + <uint16_t>~before + after
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return <uint16_t>~total
