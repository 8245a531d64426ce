# One packet for several: a super-packet as plain packets, a group's packet to every member.


cdef bint emit_segments(Worker *w, uint64_t connection, const Super *u) noexcept nogil:
    """Turn a super-packet into plain FORWARD frames for a destination that doesn't know them. False: dropped."""
    cdef Slot *to = &w.engine.slots[<uint32_t>connection]
    cdef uint64_t kind = load_relaxed64(&to.kind)
    cdef bint masked = kind == SLOT_CLIENT
    cdef uint8_t payload[WIRE_PAYLOAD_LEGACY]
    cdef uint8_t *out
    cdef uint32_t n = super_count(u)
    cdef uint32_t i, length, size
    if super_segment_size(u) + 1 > WIRE_PAYLOAD_LEGACY:
        drop(w, to, DROP_TOO_LARGE)
        return False
    payload[0] = KIND_FORWARD
    for i in range(n):
        length = super_segment(u, i, payload + 1) + 1
        out = arena_take(w, length + FRAME_HEADER_MAX)
        size = build_frame(out, OP_BINARY, payload, length, masked, next_mask(to) if masked else 0)
        w.bump += size
        w.bump_left -= size
        if not emit(w, connection, out, size, length):
            run_end(w)
            return False
    run_end(w)
    return True


cdef void broadcast_segments(Worker *w, Slot *s, const Super *u) noexcept nogil:
    """A super-packet for everybody: as plain packets, which all of them understand."""
    cdef uint32_t n = super_count(u)
    cdef uint32_t i, length, size
    cdef uint8_t *out
    cdef uint8_t payload[WIRE_PAYLOAD_LEGACY]
    if super_segment_size(u) + 1 > WIRE_PAYLOAD_LEGACY:
        drop(w, s, DROP_TOO_LARGE)
        return
    payload[0] = KIND_FORWARD
    for i in range(n):
        length = super_segment(u, i, payload + 1) + 1
        out = arena_take(w, length + FRAME_HEADER_MAX)
        size = build_frame(out, OP_BINARY, payload, length, False, 0)
        w.bump += size
        w.bump_left -= size
        broadcast_frame(w, s, out, size, length)


cdef void broadcast_frame(Worker *w, Slot *s, uint8_t *frame, uint32_t size, uint32_t payload) noexcept nogil:
    """One frame to every other member of the network, within the sender's allowance of copies a second."""
    cdef Network *network = w.engine.networks[s.network]
    cdef uint64_t self = load_relaxed64(&s.generation) << 32 | <uint64_t>(s - w.engine.slots)
    cdef uint64_t rate = w.engine.broadcast_rate
    cdef uint64_t earned = min(since(w.now, s.copies_stamp_ns), <uint64_t>1000000000) * rate // 1000000000
    cdef uint32_t i
    cdef uint8_t *copy
    cdef Slot *member
    if earned != 0:
        s.copies_stamp_ns = w.now
        s.copies_left = min(rate, s.copies_left + min(earned, rate))
    if not network.forward_broadcast:
        drop(w, s, DROP_NO_ROUTE)
        return
    pthread_mutex_lock(&network.lock)
    if network.member_count > s.copies_left + 1:
        drop(w, s, DROP_BROADCAST_LIMIT)
    else:
        for i in range(network.member_count):
            if network.members[i] != self:
                s.copies_left -= 1
                count(&w.counters.copies, 1)
                member = &w.engine.slots[<uint32_t>network.members[i]]
                if load_relaxed64(&member.kind) != SLOT_TUN:
                    emit_apart(w, network.members[i], frame, size, payload)
                    continue
                # Coalescing writes to what a device is given, and all others share this frame, which may itself lie in
                # the arena: so that is not emptied here.
                if size > ARENA_CHUNK or (w.bump_left < size and w.arena_used == ARENA_CHUNKS):
                    drop(w, member, DROP_MEMORY)
                    continue
                copy = arena_take(w, size)
                memcpy(copy, frame, size)
                w.bump += size
                w.bump_left -= size
                emit_apart(w, network.members[i], copy, size, payload)
    pthread_mutex_unlock(&network.lock)
    run_end(w)
