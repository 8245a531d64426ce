# Masks that pass through: between members with candy.3 no byte of a payload is touched.
#
#     in    | 82 | 1 length n     | mask 4 | payload n, masked            |
#     out   | 82 | 0 length n + 4 | mask 4, payload n, still masked       |     the same bytes but for bit and length
#
# The receiver takes a payload that begins with no kind, but with 128 to 254, for one that is masked by its first four
# bytes. Whatever the relay has to look into, or send to others, it unmasks: place_unmasked().


cdef inline bint passes(const Frame *f) noexcept nogil:
    """Whether a masked frame may go on as it is: its mask is no kind, and its length keeps its form."""
    return is_mask(<uint8_t>f.mask) and (
        f.length < 126 - MASK_BYTES or 126 <= f.length < 65536 - MASK_BYTES or f.length >= 65536)


cdef inline uint8_t mask_off(Frame *f) noexcept nogil:
    """At a member: a payload that begins with a mask is behind that, which is the frame's from here on. The kind; 0 if
    it is none that comes so."""
    cdef uint8_t kind
    if f.length <= MASK_BYTES:
        return 0
    f.mask = load32(f.payload)
    f.payload += MASK_BYTES
    f.header += MASK_BYTES
    f.length -= MASK_BYTES
    kind = f.payload[0] ^ <uint8_t>f.mask
    return kind if kind == KIND_FORWARD or kind == KIND_SUPER or kind == KIND_SEALED else 0


cdef inline void pass_masked(Worker *w, uint64_t connection, uint8_t *frame, Frame *f) noexcept nogil:
    """Give a frame its new header, and it to its destination; a short one is gathered, a long one stays where it is."""
    cdef uint32_t size = f.header + f.length
    cdef uint8_t *out = frame
    if size < GATHER_BELOW:
        out = place(w, connection, frame, size)
        if out != frame:
            memmove(out, frame, size)
    write_header(out, OP_BINARY, f.length + MASK_BYTES, False, 0)
    emit(w, connection, out, size, f.length + MASK_BYTES)


cdef inline uint8_t *place_unmasked(Worker *w, uint64_t connection, uint8_t *frame, Frame *f,
                                    uint32_t header) noexcept nogil:
    """Bring a frame into its final form, with so many bytes before its payload, and to its final place: that."""
    cdef uint8_t *out = place(w, connection, frame, header + f.length)
    if out != frame or header != f.header:
        unmask(out + header, f.payload, f.length, f.mask)
    # Also where it stays: its padding may have been cut.
    write_header(out, OP_BINARY, f.length, False, 0)
    return out


cdef inline void cut_padding(Frame *f, uint32_t shift) noexcept nogil:
    """Leave what is behind the packet of a FORWARD, or of a SUPER (SUPER_SHIFT), to members with candy.3."""
    cdef uint32_t at = TOTAL_LENGTH_AT + shift
    cdef uint32_t mask = rotate_mask(f.mask, at)
    cdef uint8_t total[2]
    total[0] = f.payload[at] ^ <uint8_t>mask
    total[1] = f.payload[at + 1] ^ <uint8_t>(mask >> 8)
    f.length -= padding(f.length - 1 - shift, load_be16(total))
