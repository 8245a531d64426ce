# Input that waits: whole frames for which a turn has no work left, or Python no room; and the beginning of a frame
# whose end has not come.
#
# It lies at the start of the worker's buffer while the same connection may read next, and else in the connection's
# `spill`, a block. A frame for which there is no memory is passed over by its length and counted; it is never a reason
# to close.

cdef enum:
    SPILL_COPY = 4096               # an incomplete frame up to this is copied back, a longer one read on where it lies
    SPILL_SMALL = 16384             # a longer block is for who has filled one of this size
    CONTROLS_PER_S = 200            # of a member: each has at least one address that is asked about
    CONTROLS_SAVED = 1000
    OUTBOX_LEFT = 131072            # for one CONTROL of each worker


cdef inline size_t enter_buffer(Worker *w, Slot *s) noexcept nogil:
    """Make the buffer this connection's; returns the bytes of its incomplete frame that are at its start."""
    cdef size_t have = 0
    if w.rest_size != 0 and w.rest_of == slot_connection(w, s):
        have = w.rest_size
        w.rest_size = 0
        return have
    clear_buffer(w)
    if s.spill != NULL and (s.spill_size == 0 or s.spill.end <= SPILL_COPY or s.tls != NULL):
        # Little, or not even a whole header: copied, it goes out in one send with what follows it. What follows over
        # TLS is opened into the buffer in any case.
        have = s.spill.end - s.spill.start
        w.work -= have
        memcpy(w.buffer, block_bytes(s.spill) + s.spill.start, have)
        block_give(w, s.spill)
        s.spill = NULL
    return have


cdef inline void leave_rest(Worker *w, Slot *s, size_t have) noexcept nogil:
    """Leave an incomplete frame in the buffer: often the next to need it is the same connection."""
    if s.state == STATE_OPEN:
        w.rest_of = slot_connection(w, s)
        w.rest_size = have


cdef void clear_buffer(Worker *w) noexcept nogil:
    """Another connection needs the buffer, or a device: keep elsewhere what the last one left."""
    cdef size_t have = w.rest_size
    cdef Slot *s
    if have != 0:
        w.rest_size = 0
        s = slot_if_current(w, w.rest_of)
        if s != NULL:
            keep_rest(w, s, have)


cdef void keep_rest(Worker *w, Slot *s, size_t have) noexcept nogil:
    """Keep an incomplete frame from the buffer until more of it comes. A long one that comes byte by byte is copied
    once: the rest is read into where it lies."""
    cdef Frame f
    cdef uint32_t size
    cdef int use = FOR_STRANGERS if is_stranger(s) else FOR_INPUT
    if have != 0 and use == FOR_STRANGERS and s.state == STATE_OPEN:
        have = pass_over(w, s, w.buffer, have, stranger_room(s), DROP_NOT_AUTHENTICATED)    # it came with the upgrade
    if have == 0 or s.state != STATE_OPEN:
        return
    f.header = 0
    parse_frame(w.buffer, have, s.kind == SLOT_SERVER, payload_most(s), &f)
    s.spill_size = f.header + f.length if f.header else 0
    # A length is only a promise: a large block is for who has sent a small one full.
    size = <uint32_t>max(min(<uint64_t>s.spill_size, <uint64_t>SPILL_SMALL), <uint64_t>have)
    if have >= SPILL_SMALL:
        size = s.spill_size
    if have < FRAME_HEADER_MAX:
        size = FRAME_HEADER_MAX
        use = FOR_CERTAIN
    s.spill = block_take(w, size, use)
    if s.spill == NULL:
        pass_over(w, s, w.buffer, have, 0, DROP_NOT_AUTHENTICATED if use == FOR_STRANGERS else DROP_MEMORY)
        return
    memcpy(block_bytes(s.spill), w.buffer, have)
    s.spill.end = <uint32_t>have
    if s.spill.end == s.spill.capacity and s.spill_size != 0:
        spill_grow(w, s)


cdef void spill_grow(Worker *w, Slot *s) noexcept nogil:
    """Move the incomplete frame to a block that holds all of it, or pass over it."""
    cdef uint32_t have = s.spill.end
    cdef uint8_t start[FRAME_HEADER_MAX]
    memcpy(start, block_bytes(s.spill), FRAME_HEADER_MAX)
    s.spill = block_grow(w, s.spill, s.spill_size, FOR_STRANGERS if is_stranger(s) else FOR_INPUT)
    if s.spill == NULL:
        pass_over(w, s, start, have, 0, DROP_MEMORY)


cdef inline uint32_t stranger_room(Slot *s) noexcept nogil:
    """Bytes that an incomplete frame of a stranger's may have, beside the fragments that are kept. A control frame has
    room in any case: it may come between two of them."""
    cdef uint32_t kept = s.fragments.capacity if s.fragments != NULL else 0
    return max(STRANGER_BYTES - min(kept, <uint32_t>STRANGER_BYTES), <uint32_t>CONTROL_FRAME_MAX)


cdef bint hold(Worker *w, Slot *s, const uint8_t *p, size_t have) noexcept nogil:
    """Keep input for the next turn; False when there is no memory for it."""
    s.spill = block_of(w, p, <uint32_t>have, FOR_STRANGERS if is_stranger(s) else FOR_INPUT)
    s.held = s.spill != NULL
    return s.held


cdef size_t pass_over(Worker *w, Slot *s, uint8_t *p, size_t have, uint32_t most, int reason) noexcept nogil:
    """An incomplete frame that would be longer than `most`: drop it, and the rest of it as it comes. Returns how much
    of it is to be kept, all or nothing."""
    cdef Frame f
    f.header = 0
    parse_frame(p, have, s.kind == SLOT_SERVER, payload_most(s), &f)
    if f.header == 0 or f.header + f.length <= most:
        return have
    if f.opcode >= OP_CLOSE:
        drop(w, s, DROP_CONTROL)    # and the fragments that it stands between are none of its matter
    elif (f.opcode == OP_CONTINUATION) != s.fragmented:
        connection_fail(w, s, CLOSE_PROTOCOL_ERROR)
        return 0
    else:
        block_give(w, s.fragments)
        s.fragments = NULL
        s.fragmented = not f.final
        if f.final:
            lose_message(w, s, reason)
    s.skip = f.header + f.length - <uint32_t>have
    return 0


cdef void lose_message(Worker *w, Slot *s, int reason) noexcept nogil:
    """Count a message that could not be kept. It would have been a packet, most likely."""
    count(&w.counters.packets_in, 1)
    count(&s.traffic.packets_in, 1)
    drop(w, s, reason)


cdef inline bint is_control(Slot *s, const Frame *f, uint8_t kind) noexcept nogil:
    """Whether a frame is a CONTROL that Python gets, or the end of one."""
    cdef Block *b = s.fragments
    if not f.final or not has_candy3(s):
        return False
    if not s.fragmented:
        return f.opcode == OP_BINARY and kind == KIND_CONTROL and f.length <= WIRE_PAYLOAD_LEGACY
    return (f.opcode == OP_CONTINUATION and b != NULL and s.fragment_bytes + f.length <= WIRE_PAYLOAD_LEGACY
            and (block_bytes(b)[0] if b.end != 0 else kind) == KIND_CONTROL)


cdef bint must_rest(Worker *w, Slot *s) noexcept nogil:
    """Whether Python can't take another CONTROL of a connection now, or its member has sent too many. None of them may
    be lost, for each has to be the next: so it is not read any more, until Python has taken what there is (events()),
    and at the latest until the next look at all connections."""
    cdef Outbox *o = &w.engine.outbox
    cdef bint fits
    if unlikely(w.unheld):
        return False
    # First this, then the look: Python goes the other way round, so one of the two sees the other.
    or_ordered64(&s.rests, 1)
    pthread_mutex_lock(&o.lock)
    fits = o.used <= OUTBOX_BYTES_MAX // 2 - OUTBOX_LEFT        # up to that it can always be made larger
    pthread_mutex_unlock(&o.lock)
    if fits and load_ordered64(&s.pending) < PENDING_MAX and (
            s.kind == SLOT_CLIENT or allowed(&s.controls, w.now, CONTROLS_PER_S, CONTROLS_SAVED)):
        store_relaxed64(&s.rests, 0)
        return False
    return True
