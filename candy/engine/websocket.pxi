# RFC 6455 frames, both ends. The one frame parser and the one frame builder of the product.

cdef enum:
    FRAME_OK = 0
    FRAME_SHORT = -1                # more bytes are needed; any positive result is the close code deserved


cdef inline int parse_frame(uint8_t *p, size_t have, bint from_client, uint32_t most, Frame *f) noexcept nogil:
    """Parse one frame at p of which `have` bytes are there.

    FRAME_OK: f is filled and the whole payload is there. FRAME_SHORT: more bytes are needed. Else the close code
    deserved: 1002, or 1009 for a payload of more than `most` bytes. Faults show as soon as the bytes that make them are
    there.
    """
    cdef uint8_t first
    cdef uint64_t length
    cdef uint32_t header = 2
    if have < 2:
        return FRAME_SHORT
    first = p[0]
    f.opcode = first & 15
    f.final = first >> 7
    # "RSV1, RSV2, RSV3: MUST be 0 unless an extension is negotiated"; opcodes 3-7 and 11-15 are reserved.
    if unlikely((first & 0x70) != 0 or not (f.opcode <= OP_BINARY or OP_CLOSE <= f.opcode <= OP_PONG)):
        return CLOSE_PROTOCOL_ERROR
    # "a server MUST close the connection upon receiving a frame that is not masked", and a client one that is.
    if unlikely((p[1] >> 7) != from_client):
        return CLOSE_PROTOCOL_ERROR
    length = p[1] & 127
    if f.opcode >= OP_CLOSE:
        # Control frames "MUST have a payload length of 125 bytes or less and MUST NOT be fragmented". The original
        # server answers PING with a PONG of 1500 bytes, which a client has to survive.
        if unlikely(not f.final or (length > 125 and (from_client or f.opcode != OP_PONG or length == 127))):
            return CLOSE_PROTOCOL_ERROR
    if length == 126:
        if have < 4:
            return FRAME_SHORT
        length = load_be16(p + 2)
        header = 4
        if unlikely(length < 126):          # "the minimal number of bytes MUST be used to encode the length"
            return CLOSE_PROTOCOL_ERROR
        if unlikely(f.opcode >= OP_CLOSE and length > WIRE_PAYLOAD_LEGACY):
            return CLOSE_PROTOCOL_ERROR
    elif length == 127:
        if have < 10:
            return FRAME_SHORT
        length = load_be64(p + 2)
        header = 10
        if unlikely(length < 65536 or length >> 63):
            return CLOSE_PROTOCOL_ERROR
        if unlikely(length > most):
            return CLOSE_TOO_LARGE
    if from_client:
        if have < header + 4:
            return FRAME_SHORT
        f.mask = load32(p + header)
        header += 4
    else:
        f.mask = 0
    f.header = header
    f.length = <uint32_t>length
    f.payload = p + header
    return FRAME_OK if have >= header + length else FRAME_SHORT


cdef inline uint32_t header_size(uint32_t length, bint masked) noexcept nogil:
    return (2 if length < 126 else 4 if length < 65536 else 10) + (4 if masked else 0)


cdef inline uint32_t write_header(uint8_t *p, uint8_t opcode, uint32_t length, bint masked,
                                  uint32_t mask) noexcept nogil:
    """Write the header of an unfragmented frame; returns its size (header_size)."""
    cdef uint8_t bit = 128 if masked else 0
    cdef uint32_t n = 2
    p[0] = 128 | opcode
    if length < 126:
        p[1] = bit | <uint8_t>length
    elif length < 65536:
        p[1] = bit | 126
        store_be16(p + 2, <uint16_t>length)
        n = 4
    else:
        p[1] = bit | 127
        store_be64(p + 2, length)
        n = 10
    if masked:
        store_be32(p + n, swap32(mask))
        n += 4
    return n


cdef inline uint32_t build_frame(uint8_t *out, uint8_t opcode, const uint8_t *payload, uint32_t length,
                                 bint masked, uint32_t mask) noexcept nogil:
    """Write a whole frame; payload may lie in the same buffer at or behind its final place. Returns its size."""
    cdef uint32_t header = header_size(length, masked)
    unmask(out + header, payload, length, mask if masked else 0)
    write_header(out, opcode, length, masked, mask)
    return header + length


cdef inline bint is_of_network(const uint8_t *p) noexcept nogil:
    """Whether a frame that waits has a NETWORK's before it, as all have that wait for a trunk. Nothing else begins
    so."""
    return unlikely(p[1] == NETWORK_BYTES) and p[2] == KIND_NETWORK and p[0] & 15 == OP_BINARY


cdef inline uint32_t before_size(const uint8_t *p) noexcept nogil:
    """Bytes of that."""
    return NETWORK_FRAME if is_of_network(p) else 0


cdef inline uint32_t frame_size(const uint8_t *p) noexcept nogil:
    """Size of a frame that this engine built, with what is before it."""
    cdef uint32_t before = before_size(p)
    cdef uint32_t length = p[before + 1] & 127
    cdef uint32_t header = 6 if p[before + 1] >> 7 else 2
    p += before
    header += before
    if length < 126:
        return header + length
    if length == 126:
        return header + 2 + load_be16(p + 2)
    return header + 8 + <uint32_t>load_be64(p + 2)


cdef inline uint32_t frame_header(const uint8_t *p) noexcept nogil:
    """Bytes before the payload of a frame that this engine built, with what is before it."""
    cdef uint32_t before = before_size(p)
    cdef uint32_t length = p[before + 1] & 127
    return before + (6 if p[before + 1] >> 7 else 2) + (0 if length < 126 else 2 if length == 126 else 8)


cdef inline bint is_mask(uint8_t first) noexcept nogil:
    """Whether a payload that begins with this byte begins with the mask of the rest, as between members with candy.3.
    No kind has such a number."""
    return 128 <= first <= 254


cdef inline uint32_t message_start(const uint8_t *frame, uint32_t size, uint32_t *mask) noexcept nogil:
    """Bytes before the message of a frame that this engine built, or passed on with its mask, and the mask that is over
    it, 0 none."""
    cdef uint32_t at = frame_header(frame)
    mask[0] = 0
    if frame[before_size(frame) + 1] >> 7:
        mask[0] = load32(frame + at - MASK_BYTES)
    elif frame[0] & 15 == OP_BINARY and size > at + MASK_BYTES and is_mask(frame[at]):
        mask[0] = load32(frame + at)
        at += MASK_BYTES
    return at


cdef inline bint is_for_members(uint32_t kind) noexcept nogil:
    return kind == KIND_UDP4CONN or kind == KIND_DISCOVERY or kind == KIND_GENERAL


cdef inline bint tells_endpoint(const uint8_t *payload) noexcept nogil:
    """Whether a whole message says where its sender is: UDP4CONN, and GENERAL of its LAN endpoint."""
    return payload[0] == KIND_UDP4CONN or (payload[0] == KIND_GENERAL and payload[1] == GENERAL_ENDPOINT)


cdef inline uint32_t message_addresses(const uint8_t *payload, uint32_t length) noexcept nogil:
    """Where in a message from member to member its source is, and 4 bytes behind it its destination. 0: it is none, or
    not whole."""
    if length >= GENERAL_MIN and payload[0] == KIND_GENERAL:
        return 4
    if length >= HANDSHAKE_2_BYTES and payload[0] == KIND_HANDSHAKE:
        return SEALED_SOURCE_AT
    if length >= UDP4CONN_MIN and payload[0] == KIND_UDP4CONN:
        return 1
    return 1 if length >= DISCOVERY_MIN and payload[0] == KIND_DISCOVERY else 0


cdef inline bint close_code_valid(const uint8_t *payload, uint32_t length) noexcept nogil:
    """Whether a close frame's body is one that may be sent: empty, or a code that RFC 6455 lets onto the wire."""
    cdef uint16_t code
    if length == 0:
        return True
    if length == 1:
        return False
    code = load_be16(payload)
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
