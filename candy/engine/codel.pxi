# Which frames have waited too long: CoDel (RFC 8289) on each flow, 5 ms over 100 ms. They are dropped from its head, or
# marked there (ECN, RFC 3168). Each decision is the RFC's, whose pseudo-code tests/engine/test_codel.py compares this
# with, but for these differences:
#
# 1. The target is never less than the time that the frame at hand takes at the drain rate, or at a limit: on a slow
#    link the time of a single frame is not a standing queue.
# 2. maxpacket is QUANTUM, not the longest packet seen, which with super-packets would be 64 KB.
# 3. A packet that may be marked is marked and sent in place of being dropped. It ends the RFC's loop of drops, and sets
#    the time of the next one.
# 4. What is known of a flow without frames is lost when another flow takes its place (queue_flow), when the backlog
#    needs its memory (queue_fit), or with the queue. Flows in the crowd are judged as one.
#
# A frame is judged once. The one to be sent stays at the head of its flow, `judged`, until there is room for it.

cdef enum:
    CODEL_TARGET_NS = 5000000
    CODEL_INTERVAL_NS = 100000000


cdef bint codel_is_over(Slot *s, Queue *q, Flow *f, uint64_t now) noexcept nogil:
    """Whether the frame at the head of a flow, which has one, may be dropped (the RFC's dodequeue, ok_to_drop)."""
    cdef uint32_t size = record_size(f.head)
    cdef uint64_t target = CODEL_TARGET_NS
    cdef uint64_t pace = queue_pace(s, q)
    if pace != 0 and <uint64_t>size * SECOND_NS > target * pace:
        target = <uint64_t>size * SECOND_NS // pace
    # "went below - stay below for at least INTERVAL"
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


cdef inline bint codel_was_busy(Flow *f, uint64_t now) noexcept nogil:
    """Whether the last drop is so recent that its rate is a good one to go on with."""
    return f.drop_count != 0 and since(now, f.drop_next_ns) < 16 * <uint64_t>CODEL_INTERVAL_NS


cdef inline void codel_empty(Flow *f) noexcept nogil:
    """Nothing waits: "we can't be above TARGET"."""
    f.first_above_ns = 0
    f.dropping = False


cdef void codel_judge(Worker *w, Slot *s, Queue *q, Flow *f) noexcept nogil:
    """Drop from the head of a flow until the frame there is to be sent (the RFC's dequeue). One that may be dropped has
    others behind it."""
    cdef bint over = codel_is_over(s, q, f, w.now)
    cdef uint32_t delta
    if f.dropping:
        f.dropping = over
        while f.dropping and w.now >= f.drop_next_ns:
            f.drop_count += 1
            if frame_mark(record_frame(f.head)):
                f.drop_next_ns = codel_next(f.drop_next_ns, f.drop_count)
                break
            flow_drop(w, s, q, f, DROP_DELAY)
            f.dropping = codel_is_over(s, q, f, w.now)
            if f.dropping:
                f.drop_next_ns = codel_next(f.drop_next_ns, f.drop_count)
    elif over:
        if not frame_mark(record_frame(f.head)):
            flow_drop(w, s, q, f, DROP_DELAY)
            codel_is_over(s, q, f, w.now)
        f.dropping = True
        # "If min went above TARGET close to when it last went below, assume that the drop rate that controlled the
        # queue on the last cycle is a good starting point to control it now."
        delta = f.drop_count - f.last_count
        f.drop_count = delta if delta > 1 and codel_was_busy(f, w.now) else 1
        f.drop_next_ns = codel_next(w.now, f.drop_count)
        f.last_count = f.drop_count
    f.judged = True


cdef bint frame_mark(uint8_t *frame) noexcept nogil:
    """Set Congestion Experienced (RFC 3168) in the packet of a frame; False where its sender does not understand that.
    In a packet that we wrapped the inner header has it, because the outer one is thrown away where it is unwrapped."""
    cdef uint32_t size = frame_size(frame)
    cdef uint32_t mask
    cdef uint32_t header = message_start(frame, size, &mask)
    cdef uint32_t length = size - header
    cdef uint8_t kind = frame[header] ^ <uint8_t>mask
    cdef uint32_t at = 1 + (VNET_BYTES if kind == KIND_SUPER else 0)
    cdef uint8_t head[IPIP_BYTES]
    cdef uint32_t before
    if is_unsealed(frame):
        at = clear_bytes(kind) + VNET_BYTES
    elif kind != KIND_FORWARD and kind != KIND_SUPER:
        return False
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
