# Frames that are sealed only when they are committed: until then they may still be dropped, marked and cut.
#
#     | C2 | length | mask, 0 | SEALED's header 24, its session and counter 0 | virtio header 10, packet, padding | 16 |
#
# Or a SEALED_GROUP's header, 36, with its epoch and counter 0, and no padding. Such a frame has the size that it will
# have, with room for the tag at its end, so whatever counts bytes need not tell them apart. Its first byte is a binary
# frame's with RSV1, which nothing has that comes or goes. What was opened for a device is told apart by the same byte.

cdef enum:
    UNSEALED = 0xC2
    OPENED = 0xC2
    UNSEALED_ROOM = 50              # bytes before a virtio header: FRAME_HEADER_MAX and SEALED_GROUP_HEADER
    UNSEALED_TAIL = 20              # and behind its packet: PADDING_MAX and SEAL_TAG


cdef inline bint is_unsealed(const uint8_t *frame) noexcept nogil:
    return frame[0] == UNSEALED


cdef inline uint32_t clear_bytes(uint8_t kind) noexcept nogil:
    """Of the header of a SEALED or a SEALED_GROUP."""
    return SEALED_GROUP_HEADER if kind == KIND_SEALED_GROUP else SEALED_HEADER


cdef inline uint32_t padded(uint32_t length) noexcept nogil:
    """The length of a masked payload that may pass through: where it would change its form, a longer one."""
    if 126 - MASK_BYTES <= length < 126:
        return 126
    return 65536 if 65536 - MASK_BYTES <= length < 65536 else length


cdef uint16_t flow_label(const uint64_t *key, const uint8_t *packet, uint32_t length) noexcept nogil:
    """Tells a packet's flow from others under the same key, by what nobody else can read out of it (at least 20
    bytes)."""
    cdef uint32_t header = (packet[0] & 15) * 4
    cdef uint64_t rest = packet[9]
    if ((packet[9] == TCP or packet[9] == UDP) and header >= 20 and length >= header + 4
            and (load_be16(packet + 6) & 0x3FFF) == 0):
        rest |= <uint64_t>load32(packet + header) << 8
    return <uint16_t>siphash(load_relaxed64(&key[0]), load_relaxed64(&key[1]), load64(packet + 12), rest)


cdef uint8_t *unsealed_build(uint8_t kind, uint8_t *plain, uint32_t length, bint masked, uint16_t label,
                             uint32_t source, uint32_t destination) noexcept nogil:
    """Make a frame of this kind around so many bytes, which are to be sealed, where they lie; returns its start. There
    is UNSEALED_ROOM before them, and UNSEALED_TAIL behind."""
    cdef uint32_t clear = clear_bytes(kind)
    cdef uint32_t size = clear + length + SEAL_TAG
    cdef uint8_t *header = plain - clear
    cdef uint8_t *frame
    if kind == KIND_SEALED:
        size = padded(size)         # a group's is unmasked by the relay in any case
    frame = header - header_size(size, masked)
    memset(plain + length, 0, size - clear - length)
    memset(header, 0, clear)
    header[0] = kind
    store_be16(header + LABEL_AT, label)
    store_be32(header + SEALED_SOURCE_AT, source)
    store_be32(header + SEALED_DESTINATION_AT, destination)
    write_header(frame, OP_BINARY, size, masked, 0)
    frame[0] = UNSEALED
    return frame
