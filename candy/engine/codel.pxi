# Which frames have waited too long: CoDel (RFC 8289), 5 ms over 100 ms, on each flow. They are dropped from its head, or
# marked there (ECN, RFC 3168).
#
# What differs from the RFC:
#
# 1. The target is never less than the time that the frame at hand takes at the drain rate: on a slow link the time of a
#    single frame is not a standing queue.
# 2. A verdict is passed on the frame at the head before it is sent, so `bytes()` is what stays behind it; and maxpacket
#    is QUANTUM, not the longest packet seen, which with super-packets would be 64 KB.
# 3. A packet that may be marked (ECN) is marked and sent in place of being dropped (RFC 8289, section 3.4).

cdef enum:
    CODEL_TARGET_NS = 5000000
    CODEL_INTERVAL_NS = 100000000


cdef bint codel_is_over(Queue *q, Flow *f, uint32_t size, uint64_t now) noexcept nogil:
    """Whether the frame at the head of a flow has waited above the target for an interval (the RFC's ok_to_drop)."""
    cdef uint64_t target = CODEL_TARGET_NS
    if q.rate != 0 and <uint64_t>size * SECOND_NS > target * q.rate:
        target = <uint64_t>size * SECOND_NS // q.rate
    if since(now, f.head.stamp_ns) < target or f.bytes - size <= QUANTUM:
        f.first_above_ns = 0
        return False
    if f.first_above_ns == 0:
        f.first_above_ns = now + CODEL_INTERVAL_NS
        return False
    return now >= f.first_above_ns


cdef inline uint64_t codel_next(uint64_t then, uint32_t count) noexcept nogil:
    """The RFC's control_law."""
    return then + <uint64_t>(CODEL_INTERVAL_NS / sqrt(<double>count))


cdef bint codel_condemns(Queue *q, Flow *f, uint32_t size, uint64_t now) noexcept nogil:
    """CoDel's verdict on the frame at the head of a flow."""
    cdef bint over = codel_is_over(q, f, size, now)
    cdef uint32_t delta
    if f.dropping:
        if not over:
            f.dropping = False
            return False
        if now < f.drop_next_ns:
            return False
        f.drop_count += 1
        f.drop_next_ns = codel_next(f.drop_next_ns, f.drop_count)
        return True
    if not over:
        return False
    f.dropping = True
    # "If min went above TARGET close to when it last went below, assume that the drop rate that controlled the queue on
    # the last cycle is a good starting point to control it now."
    delta = f.drop_count - f.last_count
    f.drop_count = delta if delta > 1 and since(now, f.drop_next_ns) < 16 * <uint64_t>CODEL_INTERVAL_NS else 1
    f.drop_next_ns = codel_next(now, f.drop_count)
    f.last_count = f.drop_count
    return True


cdef bint frame_mark(uint8_t *frame) noexcept nogil:
    """Set Congestion Experienced (RFC 3168) in the packet of a frame; False where its sender does not understand that.
    In a packet that we wrapped the inner header has it, because the outer one is thrown away where it is unwrapped."""
    cdef uint32_t header = frame_header(frame)
    cdef uint32_t mask = load32(frame + header - 4) if frame[1] >> 7 else 0
    cdef uint32_t length = frame_size(frame) - header
    cdef uint32_t at = 1 + (VNET_BYTES if frame[header] ^ <uint8_t>mask == KIND_SUPER else 0)
    cdef uint8_t head[IPIP_BYTES]
    cdef uint32_t before
    if at + IPIP_BYTES > length:
        return False
    unmask(head, frame + header + at, IPIP_BYTES, rotate_mask(mask, at))
    if ipip_wrapped(head):
        at += IPIP_BYTES
        if at + IPIP_BYTES > length:
            return False
        unmask(head, frame + header + at, IPIP_BYTES, rotate_mask(mask, at))
    if head[0] >> 4 != 4 or head[1] & 3 == 0:
        return False
    if head[1] & 3 != 3:
        before = load_be16(head)
        head[1] |= 3
        store_be16(head + 10, checksum_update(load_be16(head + 10), <uint16_t>before, load_be16(head)))
        unmask(frame + header + at, head, IPIP_BYTES, rotate_mask(mask, at))
    return True
