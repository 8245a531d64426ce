# From a trunk: process() for what another relay sends. It goes to a member here, or no further.

cdef enum:
    NOTICES_PER_S = 200             # of one trunk: each is an event for Python
    NOTICES_SAVED = 400


cdef bint trunk_enter(Slot *s, const Trunk *trunk, const uint8_t *payload, uint32_t length) noexcept nogil:
    """The messages that follow are of another network; False: of none that was agreed on."""
    cdef uint32_t number
    if length != NETWORK_BYTES:
        return False
    number = load_be16(payload + 1)
    if number >= trunk.table.count:
        return False
    s.network = trunk_networks(trunk)[number]
    return True


cdef void trunk_tell(Worker *w, Slot *s, const Frame *f, uint8_t kind) noexcept nogil:
    """What another relay says to this one's Python."""
    if kind != KIND_CONTROL:
        drop(w, s, DROP_NOT_AUTHENTICATED)      # it is not known yet who that is
    elif f.length > WIRE_PAYLOAD_LEGACY:
        drop(w, s, DROP_TOO_LARGE)
    else:
        tell_within(w, s, EV_MESSAGE, f.payload, f.length)


cdef void trunk_noticed(Worker *w, Slot *s, const uint8_t *payload, uint32_t length) noexcept nogil:
    """What another relay has a member here told, of a member of its own."""
    cdef const uint8_t *told = payload + NOTICE_BYTES
    cdef Slot *member
    if not (length == NOTICE_BYTES + 5 and told[0] == KIND_NOT_SEALING
            or length == NOTICE_BYTES + TOLD_BYTES and told[0] == KIND_COMMIT):
        drop(w, s, DROP_UNKNOWN_KIND)
        return
    if not comes_from(w, s, load_be32(told + 1)):
        return
    member = slot_if_current(w, route_here(w.engine.networks[s.network], load_be32(payload + 1)))
    if member == NULL or load_relaxed64(&member.takes_sealed) == 0:
        drop(w, s, DROP_MOVED)
    elif not allowed(&s.controls, w.now, NOTICES_PER_S, NOTICES_SAVED):
        drop(w, s, DROP_EVENTS)
    else:
        w.work -= WORK_ANSWER
        tell(w, member, EV_CONTROL, told, length - NOTICE_BYTES)


cdef void trunk_message(Worker *w, Slot *s, const Frame *f, uint8_t kind) noexcept nogil:
    """What takes the slower way: for groups, what members tell each other, and what one is told."""
    if kind == KIND_SEALED_GROUP:
        broadcast_sealed(w, s, f.payload, f.length)
    elif kind == KIND_NOTICE:
        trunk_noticed(w, s, f.payload, f.length)
    elif (is_for_members(kind) or kind == KIND_HANDSHAKE) and f.length <= WIRE_PAYLOAD_LEGACY:
        relay_message(w, s, f.payload, f.length)
    elif kind == KIND_FORWARD or kind == KIND_SUPER or kind == KIND_SEALED:
        lose_message(w, s, DROP_TOO_SHORT)
    else:
        drop(w, s, DROP_UNKNOWN_KIND)


cdef size_t trunk_process(Worker *w, Slot *s, uint8_t *p, size_t have) noexcept nogil:
    """As process(): handle the whole frames in these bytes while there is work, and return how many bytes they were."""
    cdef const Trunk *trunk = trunk_of(s)
    cdef Frame f
    cdef size_t at = 0
    cdef size_t following
    cdef int status
    cdef uint64_t packets = 0
    cdef uint64_t size = 0
    cdef uint8_t kind
    w.stopped = False
    while True:
        status = parse_frame(p + at, have - at, False, WIRE_PAYLOAD_CANDY3, &f)
        if unlikely(status != FRAME_OK):
            if status != FRAME_SHORT:
                connection_fail(w, s, <uint16_t>status)
                at = have
            break
        if unlikely(w.work <= 0):
            w.stopped = True
            break
        w.work -= WORK_FRAME
        following = at + f.header + f.length
        if unlikely(f.opcode != OP_BINARY or not f.final):
            if not f.final or f.opcode == OP_CONTINUATION:
                connection_fail(w, s, CLOSE_PROTOCOL_ERROR)
            elif handle_frame(w, s, &f) != ENDED:
                at = following
                continue
            at = have
            break
        kind = f.payload[0] if f.length else 0
        if unlikely(kind == KIND_CONTROL or trunk == NULL):
            trunk_tell(w, s, &f, kind)
            at = following
            continue
        if kind == KIND_NETWORK and trunk_enter(s, trunk, f.payload, f.length):
            at = following
            continue
        if unlikely(kind == KIND_NETWORK or s.network == NO_NETWORK):
            connection_fail(w, s, CLOSE_PROTOCOL_ERROR)
            at = have
            break
        if is_mask(kind):
            kind = mask_off(&f)
        if kind == KIND_FORWARD and f.length >= FORWARD_MIN:
            packets += 1
            size += following - at
            forward(w, s, p + at, &f, 0)
        elif kind == KIND_SUPER and f.length >= SUPER_MIN:
            packets += 1
            size += following - at
            forward(w, s, p + at, &f, SUPER_SHIFT)
        elif kind == KIND_SEALED and f.length >= SEALED_MIN:
            packets += 1
            size += following - at
            forward_sealed(w, s, p + at, &f)
        else:
            trunk_message(w, s, &f, kind)
        at = following
    count(&w.counters.packets_in, packets)
    count(&w.counters.bytes_in, size)
    count(&s.traffic.packets_in, packets)
    count(&s.traffic.bytes_in, size)
    return at
