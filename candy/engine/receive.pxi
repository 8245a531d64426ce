# Receiving: from a member's socket to emit(). Runs on the worker that owns the connection.
#
# 1. receive()        one turn: goes on where the last one stopped, then reads into the worker's buffer, behind an
#                     incomplete frame
# 2. process()        takes the buffer apart, frame by frame, until the turn's work is used up
# 3. forward()        FORWARD, SUPER: source check, route table, inner check, unmask to the final place, emit(); or
#                     pass_masked(). SEALED: forward_sealed()
# 4. handle_frame()   all else: control frames, fragments, messages for Python
#
# A connection is read whatever the state of any destination: no member waits for another. A turn is bounded by work
# (WORK_TURN), not by bytes: what a turn leaves of its input is held in a block, and the others have theirs first.
# A frame for which there is no memory is passed over by its length and counted; it is never a reason to close.

cdef enum:
    GOING_ON = 0
    ENDED = 1                       # the connection is closing or closed: the rest of its input is void

cdef enum:
    READ_FIRST = 16384              # bytes of a connection's first read; doubled while the socket has more
    READ_LEAST = 4096


cdef bint receive(Worker *w, Slot *s) noexcept nogil:
    """Read and process until the socket is empty or this connection had its turn; True: more may be there."""
    cdef size_t have                # bytes at the start of the buffer that were read before
    cdef size_t room
    cdef ssize_t n
    cdef int64_t before = w.work
    if s.fanout != NULL and not fanout_go_on(w, s):
        return True
    if unlikely(load_relaxed64(&s.rests) != 0) and s.state == STATE_OPEN:
        return False                # see must_rest()
    if s.held and not take_held(w, s):
        return s.state != STATE_CLOSED
    have = enter_buffer(w, s)
    while True:
        if unlikely(load_relaxed64(&s.up_pace) != 0) and s.state == STATE_OPEN and not up_open(w, s):
            leave_rest(w, s, have)
            return False
        n = read_behind(w, s, have, &room)
        if n < 0:
            if errno == EINTR:
                # Over TLS also: much was read, and nothing in it is data.
                if w.work > 0 and not is_stranger(s):
                    continue
                leave_rest(w, s, have)
                return True
            if errno == EAGAIN:
                leave_rest(w, s, have)
            else:
                connection_close(w, s, CAUSE_RESET if s.tls == NULL or errno != EPROTO else s.tls.cause)
            return False
        if n == 0:
            connection_close(w, s, CAUSE_EOF)
            return False
        store_relaxed64(&s.received_ns, w.now)
        s.pinged_ns = 0
        w.work -= n
        if unlikely(load_relaxed64(&s.up_pace) != 0):
            up_charge(w, s, <uint64_t>n)
        have = take_in(w, s, have, <size_t>n)
        if s.state == STATE_CLOSED:
            return False
        if s.held or s.fanout != NULL:
            if before == WORK_TURN:             # the first read of a turn was too much for it
                s.read_most = max(s.read_most // 2, <uint32_t>READ_LEAST)
            leave_rest(w, s, have)
            return True
        # A short read has emptied the socket, unless its end was announced: then read up to that.
        if <size_t>n < room and not s.hung_up:
            leave_rest(w, s, have)
            return False
        s.read_most = min(2 * s.read_most, <uint32_t>RECEIVE_BYTES)
        # The next read would be twice as large, and must not cost more than is left.
        if w.work < 2 * (before - w.work) or room >= RECEIVE_BYTES - WIRE_PAYLOAD_CANDY3 or is_stranger(s):
            leave_rest(w, s, have)
            return True
        before = w.work


cdef bint take_held(Worker *w, Slot *s) noexcept nogil:
    """Process input that the last turn left, or that came with the upgrade. False: the turn or the connection is
    over."""
    cdef Block *b = s.spill
    if s.state == STATE_OPEN:
        b.start += <uint32_t>process(w, s, block_bytes(b) + b.start, b.end - b.start)
        flush(w)
    if s.state == STATE_CLOSED:
        return False
    if s.state != STATE_OPEN or b.start == b.end:
        block_give(w, b)
        s.spill = NULL
        s.held = False
        return s.fanout == NULL
    if w.stopped or s.fanout != NULL:
        return False
    # The beginning of a frame: enter_buffer() copies it back.
    s.held = False
    s.spill_size = 0
    return True


cdef inline ssize_t read_behind(Worker *w, Slot *s, size_t have, size_t *room) noexcept nogil:
    """One read, first into the incomplete frame if there is one, then into the buffer behind `have` bytes. More may be
    there if it fills the room."""
    cdef Block *b = s.spill
    cdef size_t pieces
    cdef size_t most = s.read_most
    count(&w.counters.receives, 1)
    if unlikely(is_stranger(s)):
        most = STRANGER_BYTES
    elif unlikely(load_relaxed64(&s.up_pace) != 0):
        most = min(most, <size_t>limit_piece(load_relaxed64(&s.up_pace)))
    if unlikely(s.tls != NULL):
        # enter_buffer() leaves no incomplete frame elsewhere; behind one there is room for all of w.cipher.
        return tls_read(w, s, w.buffer + have, min(most, <size_t>CIPHER_BYTES), room)
    if likely(b == NULL):
        room[0] = min(<size_t>RECEIVE_BYTES - have, most)
        return transport_read(s, w.buffer + have, room[0])
    w.iov[0].iov_base = block_bytes(b) + b.end
    w.iov[0].iov_len = min(b.capacity, s.spill_size) - b.end
    w.iov[1].iov_base = w.buffer
    w.iov[1].iov_len = most
    # The frame may outgrow this block; then nothing may be read past its end yet.
    pieces = 2 if b.capacity >= s.spill_size else 1
    room[0] = w.iov[0].iov_len + (most if pieces == 2 else 0)
    return transport_read_into(s, w.iov, pieces)


cdef size_t take_in(Worker *w, Slot *s, size_t have, size_t n) noexcept nogil:
    """Account for n bytes that read_behind() read, and process what is whole. Returns the bytes left in the buffer."""
    cdef Block *b = s.spill
    cdef size_t part
    if s.state != STATE_OPEN:
        return 0                    # closing: thrown away, so that the peer gets our close frame and no reset
    if unlikely(s.skip != 0):       # and then nothing is kept of the frame
        part = min(n, <size_t>s.skip)
        s.skip -= <uint32_t>part
        return take_apart(w, s, w.buffer + part, n - part) if n > part else 0
    if likely(b == NULL):
        return take_apart(w, s, w.buffer, have + n)
    part = min(n, <size_t>(min(b.capacity, s.spill_size) - b.end))
    b.end += <uint32_t>part
    if b.end < s.spill_size:
        if b.end == b.capacity:
            spill_grow(w, s)
        return 0
    s.spill = NULL
    process_whole(w, s, block_bytes(b), b.end)
    run_end(w)                      # a run never goes on from one piece of memory to another
    have = 0
    if s.state == STATE_OPEN:
        have = take_apart(w, s, w.buffer, n - part)
    else:
        flush(w)
    block_give(w, b)
    return have


cdef inline void process_whole(Worker *w, Slot *s, uint8_t *p, size_t have) noexcept nogil:
    """Process one frame that is whole now, whatever work is left: a turn has at least one."""
    if w.work <= 0:
        w.work = 1
    process(w, s, p, have)


cdef size_t take_apart(Worker *w, Slot *s, uint8_t *p, size_t have) noexcept nogil:
    """Process and send the whole frames in these bytes of the buffer, move an incomplete one to its start; returns how
    much that is. Whole frames for which the turn has no work are held."""
    cdef size_t used = process(w, s, p, have)
    flush(w)
    while unlikely(w.stopped) and s.state == STATE_OPEN and used < have and not hold(w, s, p + used, have - used):
        # No memory to hold it: then it is this turn's all the same. Nothing of a member's is lost for want of that.
        w.work = WORK_TURN
        w.unheld = True
        if s.fanout == NULL or fanout_go_on(w, s):
            used += process(w, s, p + used, have - used)
            flush(w)
        w.unheld = False
    have -= used
    if s.state != STATE_OPEN or s.held:
        return 0
    if have != 0 and unlikely(is_stranger(s)):
        have = pass_over(w, s, p + used, have, stranger_room(s), DROP_NOT_AUTHENTICATED)
    if have != 0 and p + used != w.buffer:
        memmove(w.buffer, p + used, have)
    return have


cdef size_t process(Worker *w, Slot *s, uint8_t *p, size_t have) noexcept nogil:
    """Handle the whole frames in these bytes while there is work; returns how many bytes they were. Overwrites them."""
    cdef Frame f
    cdef size_t at = 0
    cdef int status
    cdef bint from_client = s.kind == SLOT_SERVER
    cdef uint32_t most = payload_most(s)
    cdef size_t following           # where the next frame begins
    cdef uint64_t packets = 0
    cdef uint64_t size = 0
    cdef uint64_t beside = 0        # of a limited source: bytes that are no packets'
    cdef bint limited = load_relaxed64(&s.up_pace) != 0
    cdef uint8_t kind
    cdef Capture *c = capture_of(s)
    cdef Capture *passed_over = NULL    # the same, once there is no time for copies
    cdef uint64_t unseen = 0
    if unlikely(s.kind == SLOT_TRUNK):
        return trunk_process(w, s, p, have)
    w.stopped = False
    while True:
        status = parse_frame(p + at, have - at, from_client, most, &f)
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
        kind = f.payload[0] ^ <uint8_t>f.mask if f.length else 0
        if kind >= 128 and not from_client and has_candy3(s) and f.final and f.opcode == OP_BINARY and (
                not s.fragmented and is_mask(kind)):
            kind = mask_off(&f)
            if unlikely(kind == 0):
                drop(w, s, DROP_UNKNOWN_KIND)
                at = following
                continue
        if unlikely(c != NULL) and not watched_begin(w, s, c, &f):
            passed_over = c
            unseen = packets
            c = NULL
        if likely(kind == KIND_FORWARD and f.length >= FORWARD_MIN and f.final and f.opcode == OP_BINARY
                  and not s.fragmented):
            packets += 1
            size += following - at
            forward(w, s, p + at, &f, 0)
        elif (kind == KIND_SUPER and f.length >= SUPER_MIN and f.final and f.opcode == OP_BINARY
                and not s.fragmented and s.extended):
            packets += 1
            size += following - at
            forward(w, s, p + at, &f, SUPER_SHIFT)
        elif (kind == KIND_SEALED and f.length >= SEALED_MIN and f.final and f.opcode == OP_BINARY
                and not s.fragmented and has_candy3(s)):
            packets += 1
            size += following - at
            if from_client:
                forward_sealed(w, s, p + at, &f)
            else:
                receive_sealed(w, s, load_relaxed64(&s.uplink), &f)
        elif unlikely(kind == KIND_CONTROL or s.fragmented) and is_control(s, &f, kind) and must_rest(w, s):
            w.stopped = True
            break
        elif handle_frame(w, s, &f) == ENDED:
            at = have
            break
        if unlikely(limited) and bytes_beside(kind) != 0:
            beside += f.header + bytes_beside(kind)
        at = following
        if unlikely(c != NULL):
            watched_end(w, c)
    w.watched.on = False
    if unlikely(passed_over != NULL):
        add_relaxed64(&passed_over.lost, packets - unseen)
    count(&w.counters.packets_in, packets)
    count(&w.counters.bytes_in, size)
    count(&s.traffic.packets_in, packets)
    count(&s.traffic.bytes_in, size)
    if unlikely(limited):
        up_refund(s, w.engine.networks[s.network], beside)
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
    cdef Seals *seals
    cdef Slot *to
    if connection != 0 and has_candy3(s):
        cut_padding(f, shift)
        seals = seals_of(w, s)
        if seals != NULL and not takes_clear(w, s, seals, f, shift):
            return
    if connection != 0:
        seals = <Seals *>load_pointer(<void **>&w.engine.networks[s.network].seals)
        if seals != NULL and load_pointer(<void **>&seals.old_key) != NULL:
            old_met(w, seals, f, shift)
    else:
        source = swap32(load32(f.payload + SOURCE_AT + shift) ^ mask)
        if unlikely(source != <uint32_t>load_relaxed64(&s.address) or source == 0) and not foreign_source(w, s, source):
            return
        destination = swap32(load32(f.payload + DESTINATION_AT + shift) ^ mask)
        connection = route_find(w.engine.networks[s.network], destination)
        if unlikely(not is_here(connection)):
            connection = forward_elsewhere(w, s, f, connection, source, destination, shift)
            if connection == 0:
                return
        elif unlikely(is_wrapped(f, mask, shift)) and not forward_wrapped(w, s, f, connection, destination, shift):
            return
        to = &w.engine.slots[<uint32_t>connection]
        if unlikely(load_relaxed64(&to.stalled) != 0):
            drop_unread(w, to, DROP_STALLED, f)     # before it costs the others the time to unmask it
            return
        if unlikely(load_relaxed64(&to.kind) == SLOT_TUN):
            seals = seals_of(w, s)
            if seals != NULL and not takes_clear(w, s, seals, f, shift):
                return
        if has_candy3(s):
            if unlikely(f.length > SEALED_MAX):
                drop(w, s, DROP_TOO_LARGE)      # than any packet, and with a mask than its receiver takes
                return
            if not has_candy3(to):
                cut_padding(f, shift)
            elif likely(passes(f)):
                pass_masked(w, connection, frame, f)
                return
        if unlikely(shift != 0) and not takes_super(to):
            forward_segmented(w, s, f, connection)
            return
    header = f.header
    if s.kind == SLOT_SERVER or has_candy3(s):
        header = header_size(f.length, False)
    out = place_unmasked(w, connection, frame, f, header)
    if unlikely(not emit(w, connection, out, header + f.length, f.length)):
        if f.length > WIRE_PAYLOAD_LEGACY:
            icmp_too_large(w, s, out + header + 1, f.length - 1)


cdef inline bint is_wrapped(const Frame *f, uint32_t mask, uint32_t shift) noexcept nogil:
    """Whether a packet has protocol 4; `mask` begins as the source's does."""
    # Three bytes before the source, so the second of its mask's.
    return f.payload[PROTOCOL_AT + shift] ^ <uint8_t>(mask >> 8) == IPIP


cdef uint64_t forward_elsewhere(Worker *w, Slot *s, Frame *f, uint64_t entry, uint32_t source, uint32_t destination,
                                uint32_t shift) noexcept nogil:
    """A destination that nobody here has: the trunk by which its packet leaves; 0: it was sent to a group, or
    dropped."""
    cdef uint64_t connection = 0
    if is_relay(entry):
        connection = trunk_to(w, s, entry, source, destination)
        if connection == 0:
            return 0
    if (is_wrapped(f, rotate_mask(f.mask, SOURCE_AT + shift), shift)
            and not forward_wrapped(w, s, f, connection, destination, shift)):
        return 0
    if connection == 0:
        if has_candy3(s):
            cut_padding(f, shift)
        forward_unrouted(w, s, f, destination, shift)
    return connection


cdef bint foreign_source(Worker *w, Slot *s, uint32_t source) noexcept nogil:
    """Whether a source that is not the sender's own address may pass. Never a reason to disconnect:
    field: peers re-send foreign packets for a moment when a direct link of theirs breaks."""
    cdef Network *network = w.engine.networks[s.network]
    cdef uint32_t own = <uint32_t>load_relaxed64(&s.address)
    if s.kind == SLOT_TRUNK:
        return comes_from(w, s, source) if network.check_source else True
    if own == 0:
        drop(w, s, DROP_NOT_AUTHENTICATED)
        return False
    if network.check_source and not rules_place(w, table_read(&network.rules), own, source, NULL):
        drop(w, s, DROP_SOURCE)
        return False
    return True


cdef bint forward_wrapped(Worker *w, Slot *s, Frame *f, uint64_t connection, uint32_t destination,
                          uint32_t shift) noexcept nogil:
    """Whether a packet with protocol 4 may pass: what is within has to be its sender's, and its receiver's.

    A receiver of ours takes off what ipip_wrapped() tells, and the user's own IPIP passes.
    field: an old one "strips 20 bytes from any packet whose protocol is 4", whatever its destination is.
    """
    cdef Network *network = w.engine.networks[s.network]
    cdef uint8_t packet[2 * IPIP_BYTES]
    cdef uint32_t length = f.length - 1 - shift
    if not network.check_source:
        return True
    if connection == 0:
        if not is_group(destination) and destination != load_relaxed32(&network.broadcast):
            return True                         # it goes no further, under another name
        drop(w, s, DROP_INNER_DESTINATION)
        return False
    if length < 2 * IPIP_BYTES:
        drop(w, s, DROP_SUPER if shift else DROP_TOO_SHORT)
        return False
    unmask(packet, f.payload + 1 + shift, 2 * IPIP_BYTES, rotate_mask(f.mask, 1 + shift))
    if not ipip_wrapped(packet) and takes_super(&w.engine.slots[<uint32_t>connection]):
        return True
    # A member wraps in its own name, by a trunk any of its relay's. What an old receiver takes off 20 bytes of has to
    # have just these: behind a longer header a super-packet's checksums, written when it is cut, would become
    # addresses.
    if (packet[0] != 0 and packet[0] != 0x45) or (
            s.kind != SLOT_TRUNK and load_be32(packet + 12) != <uint32_t>load_relaxed64(&s.address)):
        drop(w, s, DROP_INNER_SOURCE)
        return False
    return ipip_allowed(w, s, table_read(&network.rules), packet)


cdef bint forward_parse(Worker *w, Slot *s, Frame *f, Super *u) noexcept nogil:
    """Unmask a SUPER where it lies and check it; False: it was dropped."""
    unmask(f.payload, f.payload, f.length, f.mask)
    f.mask = 0
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


cdef void forward_unrouted(Worker *w, Slot *s, Frame *f, uint32_t destination, uint32_t shift) noexcept nogil:
    """A destination that no member has: a group, or unknown."""
    cdef Network *network = w.engine.networks[s.network]
    cdef Super u
    if not is_group(destination) and destination != load_relaxed32(&network.broadcast):
        drop(w, s, nobody(s))
    elif shift != 0:
        if forward_parse(w, s, f, &u):
            broadcast_segments(w, s, &u)
    else:
        unmask(f.payload, f.payload, f.length, f.mask)
        f.mask = 0
        broadcast_frame(w, s, f.payload, f.length)


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
        if s.kind == SLOT_TRUNK:
            trunk_answer(w, s, message, n + 1)
        else:
            answer(w, s, OP_BINARY, message, n + 1)
