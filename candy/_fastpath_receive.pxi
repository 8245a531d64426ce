# Receiving: from a member's socket to emit(). Runs on the worker that owns the connection.
#
# 1. receive()        reads into the worker's buffer, behind what was left of an incomplete frame
# 2. process()        takes the buffer apart, frame by frame
# 3. forward()        FORWARD: source check, route table, unmask to the final place, emit()
# 4. handle_frame()   all else: control frames, fragments, messages for Python
# Input is read whatever the state of any destination: nobody waits for somebody else.

cdef enum:
    GOING_ON = 0
    ENDED = 1                       # the connection is closing or closed: the rest of its input is void


cdef inline void drop(Worker *w, Slot *s, int reason) noexcept nogil:
    """Count a packet or message of this connection's that goes no further."""
    count(&w.counters.drops[reason], 1)
    add_relaxed64(&s.drops, 1)


cdef bint receive(Worker *w, Slot *s) noexcept nogil:
    """Read and process until the socket is empty or this connection had its turn; True: more may be there."""
    cdef uint8_t *buffer = w.buffer
    cdef size_t have = 0
    cdef size_t used
    cdef size_t turn = 0
    cdef ssize_t n
    cdef size_t room
    cdef bint fresh
    if s.spill != NULL:
        have = s.spill.end
        memcpy(buffer, block_bytes(s.spill), have)
        block_give(&w.engine.pool, s.spill)
        s.spill = NULL
    fresh = have != 0               # bytes that came with the upgrade may hold whole frames
    while True:
        room = RECEIVE_BYTES - have
        n = recv(s.fd, buffer + have, room, MSG_DONTWAIT)
        count(&w.counters.receives, 1)
        if n < 0:
            if errno == EINTR:
                continue
            if errno != EAGAIN:
                connection_close(w, s, CAUSE_RESET)
                return False
            if not fresh:
                break
        elif n == 0:
            if fresh and s.state == STATE_OPEN:
                process(w, s, buffer, have)
                flush(w)
            if s.state != STATE_CLOSED:
                connection_close(w, s, CAUSE_EOF)
            return False
        else:
            store_relaxed64(&s.received_ns, w.now)
            s.pinged_ns = 0
        if s.state != STATE_OPEN:
            have = 0                # closing: thrown away, so that the peer gets our close frame and no reset
        else:
            if n > 0:
                have += <size_t>n
            used = process(w, s, buffer, have)
            flush(w)
            if s.state == STATE_CLOSED:
                return False
            have -= used
            if s.state != STATE_OPEN:
                have = 0
            elif have != 0 and used != 0:
                memmove(buffer, buffer + used, have)
        fresh = False
        if n < 0:
            break
        turn += <size_t>n
        # A short read has emptied the socket, unless its end was announced: then read up to that.
        if <size_t>n < room and not s.hung_up:
            break
        if turn >= RECEIVE_BYTES:
            return spill(w, s, buffer, have)
    spill(w, s, buffer, have)
    return False


cdef bint spill(Worker *w, Slot *s, uint8_t *rest, size_t size) noexcept nogil:
    """Keep an incomplete frame until more of it comes; False: the connection was closed for want of memory."""
    if size == 0:
        return True
    s.spill = block_of(&w.engine.pool, rest, <uint32_t>size, False)
    if s.spill == NULL:
        count(&w.counters.drops[DROP_MEMORY], 1)
        connection_close(w, s, CAUSE_RESET)
        return False
    return True


cdef size_t process(Worker *w, Slot *s, uint8_t *p, size_t have) noexcept nogil:
    """Handle all whole frames in these bytes; returns how many bytes they were. Overwrites them."""
    cdef Frame f
    cdef size_t at = 0
    cdef int status
    cdef bint from_client = s.kind == SLOT_SERVER
    cdef uint64_t packets = 0
    cdef uint64_t size = 0
    while True:
        status = parse_frame(p + at, have - at, from_client, &f)
        if unlikely(status != FRAME_OK):
            if status != FRAME_SHORT:
                connection_fail(w, s, <uint16_t>status)
                at = have
            break
        if likely(f.final and f.opcode == OP_BINARY and f.length >= FORWARD_MIN and s.fragments == NULL
                  and (f.payload[0] ^ <uint8_t>f.mask) == KIND_FORWARD):
            packets += 1
            size += f.header + f.length
            forward(w, s, p + at, &f)
        elif handle_frame(w, s, &f) == ENDED:
            at = have
            break
        at += f.header + f.length
    count(&w.counters.packets_in, packets)
    count(&w.counters.bytes_in, size)
    count(&s.traffic.packets_in, packets)
    count(&s.traffic.bytes_in, size)
    return at


cdef inline void forward(Worker *w, Slot *s, uint8_t *frame, Frame *f) noexcept nogil:
    """One FORWARD of at least FORWARD_MIN bytes: check its source, find its destination, bring it into its final form."""
    cdef uint32_t mask = rotate_mask(f.mask, SOURCE_AT)         # DESTINATION_AT rotates alike
    cdef uint32_t source
    cdef uint32_t destination
    cdef uint64_t connection = load_relaxed64(&s.next_hop)
    cdef uint32_t header
    cdef uint8_t *out
    if connection == 0:
        source = swap32(load32(f.payload + SOURCE_AT) ^ mask)
        if unlikely(source != <uint32_t>load_relaxed64(&s.address) or source == 0):
            drop(w, s, DROP_SOURCE if load_relaxed64(&s.address) else DROP_NOT_AUTHENTICATED)
            return
        destination = swap32(load32(f.payload + DESTINATION_AT) ^ mask)
        connection = route_find(w.engine.networks[s.network], destination)
        if unlikely(connection == 0):
            forward_unrouted(w, s, frame, f, destination)
            return
    # Unmasked, a frame is 4 bytes shorter: in a run to one destination each moves left to where the last one ended.
    out = w.run_end if connection == w.run_connection else frame
    header = f.header
    if f.mask != 0 or s.kind == SLOT_SERVER:
        header -= 4
    if out != frame or header != f.header:
        unmask(out + header, f.payload, f.length, f.mask)
        write_header(out, OP_BINARY, f.length, False, 0)
    if unlikely(not emit(w, connection, out, header + f.length, f.length)):
        add_relaxed64(&s.drops, 1)


cdef void forward_unrouted(Worker *w, Slot *s, uint8_t *frame, Frame *f, uint32_t destination) noexcept nogil:
    """A destination that nobody owns: everybody, or nobody."""
    cdef Network *network = w.engine.networks[s.network]
    cdef uint32_t header = f.header - 4
    if not is_group(destination) and destination != network.broadcast:
        drop(w, s, DROP_NO_ROUTE)
        return
    unmask(frame + header, f.payload, f.length, f.mask)
    write_header(frame, OP_BINARY, f.length, False, 0)
    broadcast(w, s, frame, header + f.length, f.length)


cdef void broadcast(Worker *w, Slot *s, uint8_t *frame, uint32_t size, uint32_t payload) noexcept nogil:
    """One frame to every other member of the network, within the sender's allowance of copies a second."""
    cdef Network *network = w.engine.networks[s.network]
    cdef uint64_t self = load_relaxed64(&s.generation) << 32 | <uint64_t>(s - w.engine.slots)
    cdef uint64_t rate = w.engine.broadcast_rate
    cdef uint64_t earned = (w.now - s.copies_stamp_ns) * rate // 1000000000
    cdef uint32_t i
    if earned != 0:
        s.copies_stamp_ns = w.now
        s.copies_left = min(rate, s.copies_left + min(earned, rate))
    pthread_mutex_lock(&network.lock)
    if network.member_count > s.copies_left + 1:
        drop(w, s, DROP_BROADCAST_LIMIT)
    else:
        for i in range(network.member_count):
            if network.members[i] != self:
                s.copies_left -= 1
                emit_segment(w, network.members[i], frame, size, payload)
    pthread_mutex_unlock(&network.lock)
    w.run_connection = 0


cdef int handle_frame(Worker *w, Slot *s, Frame *f) noexcept nogil:
    """Everything but a whole FORWARD. ENDED when the connection goes down with it."""
    unmask(f.payload, f.payload, f.length, f.mask)
    if f.opcode == OP_PING:
        # "a Pong frame sent in response to a Ping frame must have identical Application data"
        if not post_message(w, slot_connection(w, s), OP_PONG, f.payload, f.length):
            drop(w, s, DROP_CONTROL)
        return GOING_ON
    if f.opcode == OP_PONG:
        if f.length != 0:
            tell(w, s, EV_PONG, f.payload, f.length)
        return GOING_ON
    if f.opcode == OP_CLOSE:
        if not close_code_valid(f.payload, f.length):
            connection_fail(w, s, 1002)
        else:
            connection_answer_close(w, s, f)
        return ENDED
    return handle_data(w, s, f)


cdef int handle_data(Worker *w, Slot *s, Frame *f) noexcept nogil:
    """A data frame: whole, or a part of a fragmented message, which is put together here."""
    cdef Block *b
    if f.opcode == OP_CONTINUATION:
        if s.fragments == NULL:
            connection_fail(w, s, 1002)
            return ENDED
    elif s.fragments != NULL:
        connection_fail(w, s, 1002)             # "fragments of one message MUST NOT be interleaved"
        return ENDED
    elif f.final:
        handle_message(w, s, f.opcode, f.payload, f.length)
        return GOING_ON
    else:
        s.fragment_opcode = f.opcode
        s.fragments = block_take(&w.engine.pool, WIRE_PAYLOAD_MAX, False)
        if s.fragments == NULL:
            count(&w.counters.drops[DROP_MEMORY], 1)
            connection_close(w, s, CAUSE_RESET)
            return ENDED
    b = s.fragments
    if b.end + f.length > WIRE_PAYLOAD_MAX:
        connection_fail(w, s, 1009)
        return ENDED
    memcpy(block_bytes(b) + b.end, f.payload, f.length)
    b.end += f.length
    if f.final:
        s.fragments = NULL
        handle_message(w, s, s.fragment_opcode, block_bytes(b), b.end)
        block_give(&w.engine.pool, b)
    return GOING_ON


cdef void handle_message(Worker *w, Slot *s, uint8_t opcode, uint8_t *payload, uint32_t length) noexcept nogil:
    """A whole message that did not take the short way: for Python, or malformed, or a FORWARD that came in fragments."""
    cdef uint32_t kind = payload[0] if length else 256
    if opcode == OP_TEXT:
        drop(w, s, DROP_TEXT)
    elif kind == KIND_FORWARD:
        if length < FORWARD_MIN:
            drop(w, s, DROP_TOO_SHORT)
        else:
            forward_assembled(w, s, payload, length)
    elif kind == KIND_SUPER:
        drop(w, s, DROP_UNSUPPORTED)
    elif length > WIRE_PAYLOAD_LEGACY:
        drop(w, s, DROP_TOO_LARGE)
    else:
        tell(w, s, EV_MESSAGE, payload, length)


cdef void forward_assembled(Worker *w, Slot *s, uint8_t *payload, uint32_t length) noexcept nogil:
    """A fragmented FORWARD: the slow way round through the same door, as one frame in a block."""
    cdef Block *b = block_take(&w.engine.pool, length + FRAME_HEADER_MAX, False)
    cdef Frame f
    cdef bint masked = s.kind == SLOT_SERVER
    if b == NULL:
        drop(w, s, DROP_MEMORY)
        return
    build_frame(block_bytes(b), OP_BINARY, payload, length, masked, 0)
    parse_frame(block_bytes(b), length + FRAME_HEADER_MAX, masked, &f)
    flush(w)                                    # what lies in the receive buffer goes first
    count(&w.counters.packets_in, 1)
    count(&w.counters.bytes_in, length)
    forward(w, s, block_bytes(b), &f)
    flush(w)
    block_give(&w.engine.pool, b)
