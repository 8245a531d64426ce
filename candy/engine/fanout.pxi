# One packet for several: a super-packet as plain packets for one member, and a group's packet for all of them.
#
# A network may have more members than a turn has work, so a packet for all is kept, with the place in the member list
# that comes next, and a turn that runs out of work goes on with it the next time. Its sender is not read before it has
# gone to everybody: one at a time is on its way for each, and nobody else waits.

cdef enum:
    FANOUT_PLACES = 128             # of the member list, copied at a time
    COPY_BYTES = 1514               # for each copy of the allowance


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
        w.work -= WORK_FRAME
        if not emit(w, connection, out, size, length):
            run_end(w)
            return False
    run_end(w)
    return True


cdef void broadcast_frame(Worker *w, Slot *s, const uint8_t *payload, uint32_t length) noexcept nogil:
    """A FORWARD or a message, kind byte first, to every other member of the network, within the sender's allowance; one
    that says where its sender is, to those who are acquainted with it."""
    cdef Fanout *f
    if not may_broadcast(w, s):
        return
    f = fanout_make(w, s, header_size(length, False) + length)
    if f != NULL:
        f.frame_size = build_frame(fanout_frame(f), OP_BINARY, payload, length, False, 0)
        f.payload = length
        f.tells_endpoint = tells_endpoint(payload)
        f.without_candy3 = has_candy3(s) and s.kind != SLOT_TRUNK and is_for_members(payload[0])
        fanout_pay(w, s, f)
        fanout_go_on(w, s)


cdef void broadcast_segments(Worker *w, Slot *s, const Super *u) noexcept nogil:
    """A super-packet for everybody: as plain packets, which all of them understand."""
    cdef Fanout *f
    if super_segment_size(u) + 1 > WIRE_PAYLOAD_LEGACY:
        drop(w, s, DROP_TOO_LARGE)
        return
    if not may_broadcast(w, s):
        return
    f = fanout_make(w, s, WIRE_PAYLOAD_LEGACY + FRAME_HEADER_MAX + u.length)
    if f == NULL:
        return
    f.cut = True
    f.whole = u[0]
    f.whole.packet = fanout_frame(f) + WIRE_PAYLOAD_LEGACY + FRAME_HEADER_MAX
    memcpy(f.whole.packet, u.packet, u.length)
    f.segments = super_count(u)
    fanout_cut(f)
    fanout_pay(w, s, f)
    fanout_go_on(w, s)


cdef inline Copies *copies_of(Slot *s) noexcept nogil:
    """What its packets for groups are counted with. Of a trunk's networks none costs the others theirs."""
    cdef const Trunk *trunk
    if s.kind != SLOT_TRUNK:
        return &s.copies
    trunk = trunk_of(s)
    return &trunk_copies(trunk)[trunk.numbers[s.network] - 1]


cdef bint may_broadcast(Worker *w, Slot *s) noexcept nogil:
    """Whether the sender may speak to everybody now; else the packet was dropped. What it may send in a second is
    counted in copies and in bytes, and it may go below zero: so one packet passes whatever the number of members, and
    the sender waits for it afterwards."""
    cdef Network *network = w.engine.networks[s.network]
    cdef Copies *c = copies_of(s)
    cdef int64_t rate = <int64_t>w.engine.broadcast_rate
    cdef int64_t earned = <int64_t>(min(since(w.now, c.stamp_ns), <uint64_t>3600 * SECOND_NS) // 1000000)
    if not network.forward_broadcast:
        drop(w, s, DROP_NO_ROUTE)
        return False
    # In milliseconds, so that an hour's debt at the highest rate is no more than 64 bits hold.
    if earned != 0:
        c.stamp_ns += <uint64_t>earned * 1000000 if c.stamp_ns else w.now
        c.left = min(rate, c.left + earned * rate // 1000)
        c.bytes_left = min(rate * COPY_BYTES, c.bytes_left + earned * rate * COPY_BYTES // 1000)
    if c.left <= 0 or c.bytes_left <= 0:
        drop(w, s, DROP_BROADCAST_LIMIT)
        return False
    return True


cdef void fanout_pay(Worker *w, Slot *s, const Fanout *f) noexcept nogil:
    """Take the copies of one packet out of its sender's allowance."""
    cdef Copies *c = copies_of(s)
    cdef int64_t copies = <int64_t>load_relaxed32(&w.engine.networks[s.network].member_count)
    copies -= load_relaxed64(&s.address) != 0
    c.left -= copies
    c.bytes_left -= copies * f.frame_size


cdef inline uint8_t *fanout_frame(Fanout *f) noexcept nogil:
    return <uint8_t *>(f + 1)


cdef Fanout *fanout_make(Worker *w, Slot *s, uint32_t room) noexcept nogil:
    """A packet on its way from this sender; NULL: there is no memory for it, and it was dropped."""
    cdef uint32_t size = <uint32_t>sizeof(Fanout) + room
    cdef Fanout *f = <Fanout *>memory_take(w, size, FOR_INPUT)
    if f == NULL:
        drop(w, s, DROP_MEMORY)
        return NULL
    memset(f, 0, sizeof(Fanout))
    f.size = size
    f.segments = 1
    s.fanout = f
    return f


cdef void fanout_cut(Fanout *f) noexcept nogil:
    """Cut the packet that is next out of a super-packet."""
    cdef uint8_t payload[WIRE_PAYLOAD_LEGACY]
    payload[0] = KIND_FORWARD
    f.payload = super_segment(&f.whole, f.segment, payload + 1) + 1
    f.frame_size = build_frame(fanout_frame(f), OP_BINARY, payload, f.payload, False, 0)


cdef bint fanout_go_on(Worker *w, Slot *s) noexcept nogil:
    """Send a packet to the members that have not had it, as far as there is work; False: not to all yet."""
    cdef Fanout *f = s.fanout
    cdef Network *network = w.engine.networks[s.network]
    cdef uint64_t self = slot_connection(w, s)
    cdef uint64_t members[FANOUT_PLACES]
    cdef uint32_t n, i
    while True:
        n = members_copy(network, f.place, members, FANOUT_PLACES)
        for i in range(n):
            if w.work <= 0:
                f.place += i
                flush(w)
                return False
            if members[i] != 0 and members[i] != self:
                fanout_emit(w, s, f, members[i])
        f.place += n
        if n == FANOUT_PLACES:
            continue
        # What lies in this packet's memory is sent before the next one is written there.
        flush(w)
        f.segment += 1
        if f.segment == f.segments:
            break
        f.place = 0
        fanout_cut(f)
        if not may_broadcast(w, s):
            drops(w, s, DROP_BROADCAST_LIMIT, f.segments - f.segment - 1)
            break
        fanout_pay(w, s, f)
    fanout_end(w, s)
    return True


cdef void fanout_emit(Worker *w, Slot *s, Fanout *f, uint64_t connection) noexcept nogil:
    """Add a copy for one member to the batch, or for all members of another relay."""
    cdef Slot *member
    cdef uint8_t kind = fanout_frame(f)[f.frame_size - f.payload]
    cdef uint8_t *copy
    cdef Seals *seals
    if unlikely(is_relay(connection)):
        if s.kind == SLOT_TRUNK:
            return                  # those have it from its sender's relay
        connection = trunk_to(w, s, connection, <uint32_t>load_relaxed64(&s.address), <uint32_t>0xFFFFFFFF)
        if connection == 0:
            return
    member = &w.engine.slots[<uint32_t>connection]
    if f.without_candy3 and has_candy3(member) and load_relaxed64(&member.kind) != SLOT_TRUNK:
        return
    if f.tells_endpoint and not are_acquainted(s, member):
        return
    if kind == KIND_SEALED_GROUP and load_relaxed64(&member.takes_sealed) == 0:
        return
    count(&w.counters.copies, 1)
    w.work -= WORK_FRAME + f.frame_size
    if load_relaxed64(&member.kind) != SLOT_TUN:
        emit_apart(w, connection, fanout_frame(f), f.frame_size, f.payload)
        return
    if kind != KIND_FORWARD:
        return                      # messages are for members, and this machine needs no direct links
    seals = seals_of(w, member)
    if seals != NULL and load_relaxed64(&seals.sealing) == SEALING_REQUIRE:
        drop(w, member, DROP_GROUP_NOT_SEALED)
        return
    # Coalescing writes to what a device is given, and all others share this frame.
    if f.frame_size > ARENA_CHUNK:
        drop(w, member, DROP_MEMORY)
        return
    copy = arena_take(w, f.frame_size)
    memcpy(copy, fanout_frame(f), f.frame_size)
    w.bump += f.frame_size
    w.bump_left -= f.frame_size
    emit_apart(w, connection, copy, f.frame_size, f.payload)


cdef void fanout_end(Worker *w, Slot *s) noexcept nogil:
    """A packet has gone to everybody, or its sender is gone."""
    if s.fanout != NULL:
        memory_give(w, s.fanout, s.fanout.size, FOR_INPUT)
        s.fanout = NULL
