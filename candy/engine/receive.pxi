# Receiving: from a member's socket to emit(). Runs on the worker that owns the connection.
#
# 1. receive()        reads into the worker's buffer, behind what is there of an incomplete frame
# 2. process()        takes the buffer apart, frame by frame
# 3. forward()        FORWARD: source check, route table, unmask to the final place, emit()
# 4. handle_frame()   all else: control frames, fragments, messages for Python
# A connection is read whatever the state of any destination: no member waits for another.

cdef enum:
    GOING_ON = 0
    ENDED = 1                       # the connection is closing or closed: the rest of its input is void

cdef enum:
    SPILL_COPY = 4096               # an incomplete frame up to this is copied back, a longer one read on where it lies


cdef bint receive(Worker *w, Slot *s) noexcept nogil:
    """Read and process until the socket is empty or this connection had its turn; True: more may be there."""
    cdef size_t have = enter_buffer(w, s)       # bytes at the start of the buffer that were read before
    cdef size_t turn = 0
    cdef size_t room
    cdef ssize_t n
    if s.fresh:
        s.fresh = False
        have = take_apart(w, s, w.buffer, have)
        if s.state == STATE_CLOSED:
            return False
    while True:
        n = read_behind(w, s, have, &room)
        if n < 0:
            if errno == EINTR:
                continue
            if errno == EAGAIN:
                leave_rest(w, s, have)
            else:
                connection_close(w, s, CAUSE_RESET)
            return False
        if n == 0:
            connection_close(w, s, CAUSE_EOF)
            return False
        store_relaxed64(&s.received_ns, w.now)
        s.pinged_ns = 0
        turn += <size_t>n
        have = take_in(w, s, have, <size_t>n)
        if s.state == STATE_CLOSED:
            return False
        # A short read has emptied the socket, unless its end was announced: then read up to that.
        if (<size_t>n < room and not s.hung_up) or turn >= RECEIVE_BYTES:
            leave_rest(w, s, have)
            return turn >= RECEIVE_BYTES


cdef inline size_t enter_buffer(Worker *w, Slot *s) noexcept nogil:
    """Make the buffer this connection's; returns the bytes of its incomplete frame that are at its start."""
    cdef size_t have = 0
    if w.rest_size != 0 and w.rest_of == slot_connection(w, s):
        have = w.rest_size
        w.rest_size = 0
        return have
    clear_buffer(w)
    if s.spill != NULL and (s.spill_size == 0 or s.spill.end <= SPILL_COPY):
        # Little, or not even a whole header, or what came with the upgrade: copied, it goes out in one send with what
        # follows it.
        have = s.spill.end
        memcpy(w.buffer, block_bytes(s.spill), have)
        block_give(&w.engine.pool, s.spill)
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


cdef inline ssize_t read_behind(Worker *w, Slot *s, size_t have, size_t *room) noexcept nogil:
    """One read, first into the incomplete frame if there is one, then into the buffer behind `have` bytes."""
    cdef Block *b = s.spill
    cdef size_t pieces
    count(&w.counters.receives, 1)
    if likely(b == NULL):
        room[0] = RECEIVE_BYTES - have
        return transport_read(s, w.buffer + have, room[0])
    w.iov[0].iov_base = block_bytes(b) + b.end
    w.iov[0].iov_len = min(b.capacity, s.spill_size) - b.end
    w.iov[1].iov_base = w.buffer
    w.iov[1].iov_len = RECEIVE_BYTES
    # The frame may outgrow this block; then nothing may be read past its end yet.
    pieces = 2 if b.capacity >= s.spill_size else 1
    room[0] = w.iov[0].iov_len + (RECEIVE_BYTES if pieces == 2 else 0)
    return transport_read_into(s, w.iov, pieces)


cdef size_t take_in(Worker *w, Slot *s, size_t have, size_t n) noexcept nogil:
    """Account for n bytes that read_behind() read, and process what is whole. Returns the bytes left in the buffer."""
    cdef Block *b = s.spill
    cdef size_t part
    if s.state != STATE_OPEN:
        return 0                    # closing: thrown away, so that the peer gets our close frame and no reset
    if likely(b == NULL):
        return take_apart(w, s, w.buffer, have + n)
    part = min(n, <size_t>(min(b.capacity, s.spill_size) - b.end))
    b.end += <uint32_t>part
    if b.end < s.spill_size:
        if b.end == b.capacity:
            spill_grow(w, s)
        return 0
    s.spill = NULL
    process(w, s, block_bytes(b), b.end)
    run_end(w)                      # a run never goes on from one piece of memory to another
    have = 0
    if s.state == STATE_OPEN:
        have = take_apart(w, s, w.buffer, n - part)
    else:
        flush(w)
    block_give(&w.engine.pool, b)
    return have


cdef size_t take_apart(Worker *w, Slot *s, uint8_t *p, size_t have) noexcept nogil:
    """Process and send the whole frames at the start of the buffer, move the rest there; returns how much it is."""
    cdef size_t used = process(w, s, p, have)
    flush(w)
    have -= used
    if s.state != STATE_OPEN:
        return 0
    if have != 0 and used != 0:
        memmove(p, p + used, have)
    return have


cdef void keep_rest(Worker *w, Slot *s, size_t have) noexcept nogil:
    """Keep an incomplete frame from the buffer until more of it comes. A long one that comes byte by byte is
    copied once: the rest is read into where it lies."""
    cdef Frame f
    if have == 0 or s.state != STATE_OPEN:
        return
    f.header = 0
    parse_frame(w.buffer, have, s.kind == SLOT_SERVER, &f)
    s.spill_size = f.header + f.length if f.header else 0
    # A length is only a promise: a large block is for who has sent a small one full.
    s.spill = block_take(&w.engine.pool, s.spill_size if have >= BLOCK_SMALL else <uint32_t>have, FOR_INPUT)
    if s.spill == NULL:
        drop(w, s, DROP_MEMORY)
        connection_close(w, s, CAUSE_RESET)
        return
    memcpy(block_bytes(s.spill), w.buffer, have)
    s.spill.end = <uint32_t>have
    if s.spill.end == s.spill.capacity:
        spill_grow(w, s)


cdef void spill_grow(Worker *w, Slot *s) noexcept nogil:
    """Move the incomplete frame to a block that holds all of it."""
    s.spill = block_grow(&w.engine.pool, s.spill, s.spill_size)
    if s.spill == NULL:
        drop(w, s, DROP_MEMORY)
        connection_close(w, s, CAUSE_RESET)


cdef size_t process(Worker *w, Slot *s, uint8_t *p, size_t have) noexcept nogil:
    """Handle all whole frames in these bytes; returns how many bytes they were. Overwrites them."""
    cdef Frame f
    cdef size_t at = 0
    cdef int status
    cdef bint from_client = s.kind == SLOT_SERVER
    cdef uint64_t packets = 0
    cdef uint64_t size = 0
    cdef uint8_t kind
    while True:
        status = parse_frame(p + at, have - at, from_client, &f)
        if unlikely(status != FRAME_OK):
            if status != FRAME_SHORT:
                connection_fail(w, s, <uint16_t>status)
                at = have
            break
        kind = f.payload[0] ^ <uint8_t>f.mask if f.length else 0
        if likely(kind == KIND_FORWARD and f.length >= FORWARD_MIN and f.final and f.opcode == OP_BINARY
                  and s.fragments == NULL):
            packets += 1
            size += f.header + f.length
            forward(w, s, p + at, &f, 0)
        elif (kind == KIND_SUPER and f.length >= SUPER_MIN and f.final and f.opcode == OP_BINARY
                and s.fragments == NULL and s.extended):
            packets += 1
            size += f.header + f.length
            forward(w, s, p + at, &f, SUPER_SHIFT)
        elif handle_frame(w, s, &f) == ENDED:
            at = have
            break
        at += f.header + f.length
    count(&w.counters.packets_in, packets)
    count(&w.counters.bytes_in, size)
    count(&s.traffic.packets_in, packets)
    count(&s.traffic.bytes_in, size)
    return at


cdef inline void forward(Worker *w, Slot *s, uint8_t *frame, Frame *f, uint32_t shift) noexcept nogil:
    """One FORWARD (shift 0) or SUPER (SUPER_SHIFT), long enough for an IPv4 header: check its source, find its
    destination, bring it into its final form."""
    cdef uint32_t mask = rotate_mask(f.mask, SOURCE_AT + shift)         # DESTINATION_AT rotates alike
    cdef uint32_t source
    cdef uint32_t destination
    cdef uint64_t connection = load_relaxed64(&s.uplink)
    cdef uint32_t header
    cdef uint8_t *out
    cdef Slot *to
    if connection == 0:
        source = swap32(load32(f.payload + SOURCE_AT + shift) ^ mask)
        if unlikely(source != <uint32_t>load_relaxed64(&s.address) or source == 0) and not foreign_source(w, s, source):
            return
        destination = swap32(load32(f.payload + DESTINATION_AT + shift) ^ mask)
        connection = route_find(w.engine.networks[s.network], destination)
        if unlikely(connection == 0):
            forward_unrouted(w, s, frame, f, destination, shift)
            return
        to = &w.engine.slots[<uint32_t>connection]
        if unlikely(load_relaxed64(&to.stalled) != 0):
            drop(w, to, DROP_STALLED)           # before it costs the others the time to unmask it
            return
        if unlikely(shift != 0) and not takes_super(to):
            forward_segmented(w, s, f, connection)
            return
    header = f.header
    if s.kind == SLOT_SERVER:
        header -= 4                 # unmasked, a frame is 4 bytes shorter
    out = place(w, connection, frame, header + f.length)
    if out != frame or header != f.header:
        unmask(out + header, f.payload, f.length, f.mask)
        write_header(out, OP_BINARY, f.length, False, 0)
    if unlikely(not emit(w, connection, out, header + f.length, f.length)):
        if f.length > WIRE_PAYLOAD_LEGACY:
            icmp_too_large(w, s, out + header + 1, f.length - 1)


cdef bint foreign_source(Worker *w, Slot *s, uint32_t source) noexcept nogil:
    """Whether a source that is not the sender's own address may pass. Never a reason to disconnect:
    field: peers re-send foreign packets for a moment when a direct link of theirs breaks."""
    cdef Network *network = w.engine.networks[s.network]
    if load_relaxed64(&s.address) == 0:
        drop(w, s, DROP_NOT_AUTHENTICATED)
        return False
    if network.check_source and not lan_holds(network, s, source):
        drop(w, s, DROP_SOURCE)
        return False
    return True


cdef bint forward_parse(Worker *w, Slot *s, Frame *f, Super *u) noexcept nogil:
    """Unmask a SUPER where it lies and check it; False: it was dropped."""
    unmask(f.payload, f.payload, f.length, f.mask)
    if super_parse(f.payload + 1, f.payload + 1 + VNET_BYTES, f.length - 1 - VNET_BYTES, u):
        return True
    drop(w, s, DROP_SUPER)
    return False


cdef void forward_segmented(Worker *w, Slot *s, Frame *f, uint64_t connection) noexcept nogil:
    """A SUPER for a member that doesn't know it."""
    cdef Super u
    if forward_parse(w, s, f, &u) and not emit_segments(w, connection, &u):
        if super_segment_size(&u) >= WIRE_PAYLOAD_LEGACY:
            icmp_too_large(w, s, u.packet, u.length)


cdef void forward_unrouted(Worker *w, Slot *s, uint8_t *frame, Frame *f, uint32_t destination,
                           uint32_t shift) noexcept nogil:
    """A destination that no member has: a group, or unknown."""
    cdef Network *network = w.engine.networks[s.network]
    cdef uint32_t header = f.header - 4
    cdef Super u
    if not is_group(destination) and destination != network.broadcast:
        drop(w, s, DROP_NO_ROUTE)
    elif shift != 0:
        if forward_parse(w, s, f, &u):
            broadcast_segments(w, s, &u)
    else:
        unmask(frame + header, f.payload, f.length, f.mask)
        write_header(frame, OP_BINARY, f.length, False, 0)
        broadcast_frame(w, s, frame, header + f.length, f.length)


cdef void icmp_too_large(Worker *w, Slot *s, const uint8_t *packet, uint32_t length) noexcept nogil:
    """Tell the sender, at most once a millisecond, that its packet does not fit the destination's frames."""
    cdef uint8_t message[97]
    cdef uint32_t n
    if s.kind == SLOT_TUN or w.now - s.icmp_stamp_ns < 1000000:
        return
    message[0] = KIND_FORWARD
    n = icmp_fragmentation_needed(message + 1, packet, length, WIRE_PAYLOAD_LEGACY - 1)
    if n != 0:
        s.icmp_stamp_ns = w.now
        post_message(w, slot_connection(w, s), OP_BINARY, message, n + 1)
