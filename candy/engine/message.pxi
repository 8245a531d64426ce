# What does not take the short way through forward(): control frames, fragments, and messages for Python.

cdef enum:
    FRAGMENTS_MIN = 112             # room for a fragmented message at first
    TELLS_MOST = 64                 # messages and PONGs of one connection that Python takes at once
    TELLS_PER_S = 20                # and in the long run: a log-in has four


cdef int handle_frame(Worker *w, Slot *s, Frame *f) noexcept nogil:
    """Everything but a whole FORWARD. ENDED when the connection goes down with it."""
    unmask(f.payload, f.payload, f.length, f.mask)
    f.mask = 0
    if f.opcode == OP_PING:
        # "a Pong frame sent in response to a Ping frame must have identical Application data"
        if not answer(w, s, OP_PONG, f.payload, f.length):
            drop(w, s, DROP_CONTROL)
        # A client says who it is right behind its AUTH, so this may come before Python has bound its address.
        if s.greets and is_greeting(f.payload, f.length):
            s.greets = False
            tell_within(w, s, EV_PING, f.payload, f.length)
        return GOING_ON
    if f.opcode == OP_PONG:
        if f.length != 0:
            tell_within(w, s, EV_PONG, f.payload, f.length)
        return GOING_ON
    if f.opcode == OP_CLOSE:
        if not close_code_valid(f.payload, f.length):
            connection_fail(w, s, CLOSE_PROTOCOL_ERROR)
        else:
            # A relay acts on no member's reasons.
            if s.kind != SLOT_SERVER and f.length != 0:
                tell(w, s, EV_CLOSING, f.payload, f.length)
            connection_answer_close(w, s, f)
        return ENDED
    return handle_data(w, s, f)


cdef int handle_data(Worker *w, Slot *s, Frame *f) noexcept nogil:
    """A data frame: whole, or a part of a fragmented message, which is put together here."""
    cdef Block *b
    cdef int use = FOR_STRANGERS if is_stranger(s) else FOR_INPUT
    if f.opcode == OP_CONTINUATION:
        if not s.fragmented:
            connection_fail(w, s, CLOSE_PROTOCOL_ERROR)
            return ENDED
    elif s.fragmented:
        connection_fail(w, s, CLOSE_PROTOCOL_ERROR)             # "fragments of one message MUST NOT be interleaved"
        return ENDED
    elif f.final:
        handle_message(w, s, f.opcode, f.payload, f.length)
        return GOING_ON
    else:
        s.fragmented = True
        s.fragment_opcode = f.opcode
        s.fragment_bytes = 0
        s.fragments = NULL
        if use == FOR_INPUT or f.length <= STRANGER_BYTES:
            s.fragments = block_take(w, max(f.length, <uint32_t>FRAGMENTS_MIN), use)
    b = s.fragments
    s.fragment_bytes += f.length
    if s.fragment_bytes > payload_most(s):
        connection_fail(w, s, CLOSE_TOO_LARGE)
        return ENDED
    if b != NULL and use == FOR_STRANGERS and s.fragment_bytes > STRANGER_BYTES:
        block_give(w, b)
        b = NULL
    elif b != NULL and s.fragment_bytes > b.capacity:
        # A stranger's room is too little to be shared out in twos.
        b = block_grow(w, b, s.fragment_bytes if use == FOR_STRANGERS else max(s.fragment_bytes, 2 * b.capacity), use)
    s.fragments = b
    if b != NULL:
        memcpy(block_bytes(b) + b.end, f.payload, f.length)
        b.end += f.length
    if f.final:
        s.fragmented = False
        s.fragments = NULL
        if b == NULL:
            # There was no room to put it together. That is this message's loss, and no reason to end a connection.
            lose_message(w, s, DROP_NOT_AUTHENTICATED if use == FOR_STRANGERS else DROP_MEMORY)
        else:
            handle_message(w, s, s.fragment_opcode, block_bytes(b), b.end)
            block_give(w, b)
    return GOING_ON


cdef void handle_message(Worker *w, Slot *s, uint8_t opcode, uint8_t *payload, uint32_t length) noexcept nogil:
    """A whole message that did not take the short way: for Python, or malformed, or a FORWARD that came in
    fragments."""
    cdef uint32_t kind = payload[0] if length else 256
    if has_candy3(s) and s.kind == SLOT_CLIENT and opcode == OP_BINARY and length > MASK_BYTES and is_mask(payload[0]):
        payload += MASK_BYTES
        length -= MASK_BYTES
        unmask(payload, payload, length, load32(payload - MASK_BYTES))
        kind = payload[0]
        if kind != KIND_FORWARD and kind != KIND_SUPER and kind != KIND_SEALED:
            drop(w, s, DROP_UNKNOWN_KIND)
            return
    if opcode == OP_TEXT:
        drop(w, s, DROP_TEXT)
    elif kind == KIND_FORWARD:
        if length < FORWARD_MIN:
            drop(w, s, DROP_TOO_SHORT)
        else:
            forward_assembled(w, s, payload, length)
    elif kind == KIND_SUPER:
        if length < SUPER_MIN or not s.extended:
            drop(w, s, DROP_SUPER)
        else:
            forward_assembled(w, s, payload, length)
    elif has_candy3(s) and kind == KIND_SEALED:
        if length < SEALED_MIN:
            drop(w, s, DROP_TOO_SHORT)
        else:
            forward_assembled(w, s, payload, length)
    elif has_candy3(s) and kind == KIND_SEALED_GROUP:
        if s.kind == SLOT_CLIENT:
            receive_group(w, s, load_relaxed64(&s.uplink), payload, length)
        else:
            broadcast_sealed(w, s, payload, length)
    elif length > WIRE_PAYLOAD_LEGACY:
        drop(w, s, DROP_TOO_LARGE)
    elif load_relaxed64(&s.kind) == SLOT_SERVER and load_relaxed64(&s.address) != 0 and (
            is_for_members(kind) or (has_candy3(s) and kind == KIND_HANDSHAKE)):
        relay_message(w, s, payload, length)
    elif has_candy3(s) and kind == KIND_CONTROL:
        # must_rest() has looked whether there is room.
        w.work -= WORK_ANSWER
        tell_of(w, s, EV_MESSAGE, payload, length, UINT64_MAX)
    else:
        s.greets = s.kind == SLOT_SERVER
        tell_within(w, s, EV_MESSAGE, payload, length)


cdef void tell_within(Worker *w, Slot *s, uint32_t kind, const uint8_t *detail, uint32_t length) noexcept nogil:
    """Tell Python, which has one thread for all, as often as this connection may: a relay has said what it may of
    itself, and no member of it has."""
    cdef uint64_t earned
    w.work -= WORK_ANSWER
    if s.kind != SLOT_CLIENT:
        earned = min(since(w.now, s.tells_stamp_ns), <uint64_t>3600 * SECOND_NS) * TELLS_PER_S // SECOND_NS
        if earned != 0:
            s.tells_left = <uint32_t>min(<uint64_t>TELLS_MOST, s.tells_left + earned)
            s.tells_stamp_ns = w.now
        if s.tells_left == 0:
            drop(w, s, DROP_EVENTS)
            return
        s.tells_left -= 1
    tell(w, s, kind, detail, length)


cdef inline bint is_greeting(const uint8_t *payload, uint32_t length) noexcept nogil:
    return length > GREETING_BYTES and memcmp(payload, b"candy::", GREETING_BYTES) == 0


cdef void relay_message(Worker *w, Slot *s, const uint8_t *payload, uint32_t length) noexcept nogil:
    """What a member tells another, or DISCOVERY and GENERAL all others: by its addresses alone, as a packet. Members
    with candy.3 tell each other nothing but handshakes so."""
    cdef uint32_t at = message_addresses(payload, length)
    cdef uint32_t source, destination
    cdef uint64_t connection
    cdef uint8_t *out
    cdef uint32_t size
    cdef bint shakes = payload[0] == KIND_HANDSHAKE
    cdef Slot *to
    count_message(w, s, length)
    if at == 0:
        drop(w, s, DROP_TOO_SHORT)
        return
    source = load_be32(payload + at)
    if not is_sender(w, s, source):
        return
    if shakes and not may_shake(w, s, payload, length):
        return
    destination = load_be32(payload + at + 4)
    if destination == <uint32_t>0xFFFFFFFF and payload[0] != KIND_UDP4CONN and not shakes:
        if tells_endpoint(payload) and load_relaxed64(&s.circle) == 0:
            drop(w, s, DROP_NO_ACQUAINTANCE)
        else:
            broadcast_frame(w, s, payload, length)
        return
    connection = route_find(w.engine.networks[s.network], destination)
    if is_relay(connection):
        connection = trunk_to(w, s, connection, source, destination)
        if connection == 0:
            return
    to = &w.engine.slots[<uint32_t>connection]
    if connection == 0 or (load_relaxed64(&to.kind) == SLOT_TUN and not shakes):
        drop(w, s, nobody(s))
        return
    if load_relaxed64(&to.kind) == SLOT_TUN and load_relaxed64(&to.takes_sealed) != 0:
        w.work -= WORK_ANSWER
        tell_of(w, to, EV_MESSAGE, payload, length, SHAKES_MAX)
        return
    if shakes and (to == s or not has_candy3(to)):
        drop(w, s, DROP_NO_ROUTE if to == s else DROP_NOT_SEALING)
        return
    # By a trunk it is not known what the one at its other end has.
    if (not shakes and has_candy3(s) and has_candy3(to) and s.kind != SLOT_TRUNK
            and load_relaxed64(&to.kind) != SLOT_TRUNK):
        drop(w, s, DROP_UNEXPECTED_KIND)
        return
    if tells_endpoint(payload) and not are_acquainted(s, to):
        drop(w, s, DROP_NO_ACQUAINTANCE)
        return
    out = arena_take(w, length + FRAME_HEADER_MAX)
    size = build_frame(out, OP_BINARY, payload, length, False, 0)
    w.bump += size
    w.bump_left -= size
    emit(w, connection, out, size, length)
    run_end(w)


cdef void forward_assembled(Worker *w, Slot *s, uint8_t *payload, uint32_t length) noexcept nogil:
    """A fragmented FORWARD: the slow way round through the same door, as one frame in a block."""
    cdef Block *b = block_take(w, length + FRAME_HEADER_MAX, FOR_INPUT)
    cdef Frame f
    cdef bint masked = s.kind == SLOT_SERVER
    cdef Capture *c = capture_of(s)
    if b == NULL:
        drop(w, s, DROP_MEMORY)
        return
    build_frame(block_bytes(b), OP_BINARY, payload, length, masked, 0)
    parse_frame(block_bytes(b), length + FRAME_HEADER_MAX, masked, payload_most(s), &f)
    flush(w)                                    # what lies in the receive buffer goes first
    count(&w.counters.packets_in, 1)
    count(&w.counters.bytes_in, length)
    if unlikely(c != NULL) and not watched_begin(w, s, c, &f):
        add_relaxed64(&c.lost, 1)
    if payload[0] == KIND_SEALED and masked:
        forward_sealed(w, s, block_bytes(b), &f)
    elif payload[0] == KIND_SEALED:
        receive_sealed(w, s, load_relaxed64(&s.uplink), &f)
    else:
        forward(w, s, block_bytes(b), &f, SUPER_SHIFT if payload[0] == KIND_SUPER else 0)
    if unlikely(c != NULL):
        watched_end(w, c)
    flush(w)
    block_give(w, b)
