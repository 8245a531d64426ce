# Captures: copies of what one member sends and gets, on their way to a reader, as blocks of pcapng (Enhanced Packet
# Blocks, draft-ietf-opsawg-pcapng).
#
#     | 6 | size | 0 | time, high | low | kept | length | packet, padded to 4 | comment, direction, end | size |
#
# 1. watched_begin()   a watched member's packet is at hand: copied as it came, for forward() writes over it
# 2. watched_dropped() it goes no further: why
# 3. watched_end()     it is written to the ring
# 4. capture_payload() one for the member, as it leaves; or one that was to, and was dropped
# 5. capture_write()   to the ring, whole or not at all
#
# Rules: no worker waits for the reader. What finds no room in the ring is lost, and so is what a worker has no time
# for: it spends a fortieth of its time on captures, by what they cost at most. What is lost is counted.
#
# A sealed packet is shown as an IPv4 packet between the same two, of the protocol number for experiments (RFC 3692),
# with what is in the clear of it and no more. For a reader takes but one kind of packets from a file, and looks for
# addresses.

cdef enum:
    CAPTURE_SHARE = 40              # of a worker's time one part
    CAPTURE_SAVED_NS = 1000000      # and so much at once
    CAPTURE_COST_NS = 80            # of a packet
    CAPTURE_COST_BYTES = 2          # and of so many bytes of it a nanosecond
    CAPTURE_HEADER = 20             # of a sealed packet, as it is shown
    COPY_ROOM = 65536               # the longest that is kept of a packet
    BLOCK_PACKET = 6                # Enhanced Packet Block
    BLOCK_BYTES = 32                # of it, beside packet and tail
    EXPERIMENT = 253                # a protocol's number

cdef const char *NO_BYTES = b"\0\0\0\0"


cdef inline Capture *capture_of(Slot *s) noexcept nogil:
    """Where copies of its packets go, NULL nowhere. It stays while this worker is in its round: see table.pxi."""
    return <Capture *>load_pointer(<void **>&s.capture)


cdef inline uint32_t tail_place(uint32_t reason, bint is_sealed, bint is_out) noexcept nogil:
    """Of the tail for a packet that was dropped for this reason, DROPS_COUNT none."""
    return (reason * 2 + is_sealed) * 2 + is_out


cdef bint capture_afford(Worker *w, uint32_t size) noexcept nogil:
    """Whether this worker has time for a copy of so many bytes; then it has spent it."""
    cdef uint64_t passed = w.now - w.capture_ns if w.now > w.capture_ns else 0
    cdef int64_t cost = CAPTURE_COST_NS + size // CAPTURE_COST_BYTES
    if passed != 0:
        w.capture_ns = w.now
        w.capture_left = min(<int64_t>CAPTURE_SAVED_NS,
                             w.capture_left + <int64_t>(min(passed, <uint64_t>SECOND_NS) // CAPTURE_SHARE))
    if w.capture_left <= 0:
        return False
    w.capture_left -= cost
    w.work -= 4 * cost
    return True


cdef inline int32_t packet_at(uint8_t kind, uint32_t length) noexcept nogil:
    """Where in a payload of this kind its packet begins, -1: it is none's."""
    if kind == KIND_FORWARD:
        return 1
    if kind == KIND_SUPER and length >= 1 + VNET_BYTES:
        return 1 + VNET_BYTES
    if (kind == KIND_SEALED and length >= SEALED_MIN) or (kind == KIND_SEALED_GROUP and length >= SEALED_GROUP_MIN):
        return 0
    return -1


cdef void copy_packet(Copy *copy, const Capture *c, const uint8_t *payload, uint32_t length,
                      uint32_t mask) noexcept nogil:
    """Of a payload that has one."""
    cdef uint8_t kind = payload[0] ^ <uint8_t>mask
    cdef uint32_t at = <uint32_t>packet_at(kind, length)
    copy.is_sealed = kind == KIND_SEALED or kind == KIND_SEALED_GROUP
    if copy.is_sealed:
        copy_sealed(copy, c, payload, length, mask)
        return
    copy.length = length - at
    copy.kept = min(copy.length, c.snap)
    unmask(copy.bytes, payload + at, copy.kept, rotate_mask(mask, at))
    if copy.kept >= 4:
        copy.length -= padding(copy.length, load_be16(copy.bytes + 2))
        copy.kept = min(copy.kept, copy.length)


cdef void copy_sealed(Copy *copy, const Capture *c, const uint8_t *payload, uint32_t length,
                      uint32_t mask) noexcept nogil:
    cdef uint8_t *header = copy.bytes
    cdef uint32_t clear = SEALED_HEADER if payload[0] ^ <uint8_t>mask == KIND_SEALED else SEALED_GROUP_HEADER
    copy.length = CAPTURE_HEADER + length
    copy.kept = min(CAPTURE_HEADER + clear, c.snap)
    unmask(header + CAPTURE_HEADER, payload, clear, mask)
    memset(header, 0, CAPTURE_HEADER)
    header[0] = 0x45
    header[8] = 64                  # TTL
    header[9] = EXPERIMENT
    memcpy(header + 12, header + CAPTURE_HEADER + SEALED_SOURCE_AT, 8)
    ipv4_finish(header, min(copy.length, <uint32_t>65535), 0)


cdef inline uint64_t ring_put(Capture *c, uint64_t at, const void *data, uint32_t n) noexcept nogil:
    """Copy to the ring what begins there at the byte `at`, counted from the capture's begin; returns its end."""
    cdef uint8_t *ring = <uint8_t *>(c + 1)
    cdef uint64_t place = at % c.size
    cdef uint32_t first = <uint32_t>min(<uint64_t>n, c.size - place)
    memcpy(ring + place, data, first)
    memcpy(ring, <const uint8_t *>data + first, n - first)
    return at + n


cdef void capture_write(Worker *w, Capture *c, const Copy *copy, uint32_t reason, bint is_out) noexcept nogil:
    cdef const Tail *tail = &c.tails[tail_place(reason, copy.is_sealed, is_out)]
    cdef uint32_t gap = <uint32_t>-<int32_t>copy.kept & 3
    cdef uint32_t size = BLOCK_BYTES + copy.kept + gap + tail.length
    cdef uint64_t stamp = w.now + c.clock_ns
    cdef uint32_t block[7]
    cdef uint64_t at
    block[0] = BLOCK_PACKET
    block[1] = size
    block[2] = 0
    block[3] = <uint32_t>(stamp >> 32)
    block[4] = <uint32_t>stamp
    block[5] = copy.kept
    block[6] = copy.length
    point(POINT_WATCHED)
    point_lock(POINT_CONTENDED, &c.lock)
    at = load_relaxed64(&c.written)
    if size > c.size - (at - load_acquire64(&c.read)):
        add_relaxed64(&c.lost, 1)
    else:
        at = ring_put(c, at, block, sizeof(block))
        at = ring_put(c, at, copy.bytes, copy.kept)
        at = ring_put(c, at, NO_BYTES, gap)
        at = ring_put(c, at, tail.bytes, tail.length)
        at = ring_put(c, at, &size, 4)
        point(POINT_CAPTURED)
        store_release64(&c.written, at)
        add_relaxed64(&c.packets, 1)
    pthread_mutex_unlock(&c.lock)


cdef bint watched_begin(Worker *w, Slot *s, Capture *c, const Frame *f) noexcept nogil:
    """A watched member's frame is at hand. False: it has a packet, and this worker has no time for it."""
    cdef Watched *watched = &w.watched
    cdef uint8_t kind = f.payload[0] ^ <uint8_t>f.mask if f.length else 0
    watched.on = False
    if packet_at(kind, f.length) < 0 or not f.final or f.opcode != OP_BINARY or s.fragmented:
        return True
    if not c.drops_only:
        if not capture_afford(w, min(f.length, c.snap)):
            return False
        copy_packet(&watched.copy, c, f.payload, f.length, f.mask)
    watched.on = True
    watched.copied = not c.drops_only
    watched.sender = s
    watched.frame = f
    watched.reason = DROPS_COUNT
    return True


cdef void watched_copy(Worker *w, const uint8_t *payload, uint32_t length, uint32_t mask) noexcept nogil:
    """The packet at hand is to be written, or what it lies in will be: copy it now, unless that was done."""
    cdef Capture *c = capture_of(w.watched.sender)
    if w.watched.copied or c == NULL:
        return
    w.watched.copied = capture_afford(w, min(length, c.snap))
    if w.watched.copied:
        copy_packet(&w.watched.copy, c, payload, length, mask)
    else:
        w.watched.on = False
        add_relaxed64(&c.lost, 1)


cdef void watched_dropped(Worker *w, Slot *s, uint32_t reason) noexcept nogil:
    """The packet at hand goes no further, and this is counted with `s`. That one member does not get it of all to whom
    it goes is no drop."""
    cdef Watched *watched = &w.watched
    if watched.reason != DROPS_COUNT or (s != watched.sender and watched.sender.fanout != NULL):
        return
    watched.reason = reason
    watched_copy(w, watched.frame.payload, watched.frame.length, watched.frame.mask)


cdef void watched_moved(Worker *w, const uint8_t *frame, uint32_t size) noexcept nogil:
    """A frame in its final form, where the packet at hand may lie now, is about to be dropped."""
    cdef uint32_t mask
    cdef uint32_t at
    if w.watched.on and w.watched.sender.fanout == NULL:
        at = message_start(frame, size, &mask)
        watched_copy(w, frame + at, size - at, mask)


cdef void watched_end(Worker *w, Capture *c) noexcept nogil:
    """The packet at hand has gone on, or was dropped."""
    if w.watched.on and w.watched.copied and (w.watched.reason != DROPS_COUNT or not c.drops_only):
        capture_write(w, c, &w.watched.copy, w.watched.reason, False)
    w.watched.on = False


cdef bint capture_payload(Worker *w, Capture *c, const uint8_t *payload, uint32_t length, uint32_t mask,
                          uint32_t reason) noexcept nogil:
    """For the watched member: it leaves, reason DROPS_COUNT, or is dropped. False: there was no time for it, which is
    counted."""
    if c.drops_only and reason == DROPS_COUNT:
        return True
    if length == 0 or packet_at(payload[0] ^ <uint8_t>mask, length) < 0:
        return True
    if not capture_afford(w, min(length, c.snap)):
        add_relaxed64(&c.lost, 1)
        return False
    copy_packet(&w.copy, c, payload, length, mask)
    capture_write(w, c, &w.copy, reason, True)
    return True


cdef bint capture_frame(Worker *w, Capture *c, const uint8_t *frame, uint32_t size, uint32_t reason) noexcept nogil:
    """The same for a frame in its final form."""
    cdef uint32_t mask
    cdef uint32_t at = message_start(frame, size, &mask)
    return frame[0] & 15 != OP_BINARY or capture_payload(w, c, frame + at, size - at, mask, reason)


cdef void capture_runs(Worker *w, Capture *c, const Target *t, uint64_t n) noexcept nogil:
    """The first `n` frames of a target have left, straight from where they lie."""
    cdef uint32_t index = t.first
    cdef uint32_t at
    cdef uint8_t *frame
    if c.drops_only:
        return
    while index != RUNS_MAX:
        at = 0
        while at < w.runs[index].length and n != 0:
            n -= 1
            frame = w.runs[index].bytes + at
            if not capture_frame(w, c, frame, frame_size(frame), DROPS_COUNT):
                add_relaxed64(&c.lost, n)
                return
            at += frame_size(frame)
        index = w.runs[index].next
