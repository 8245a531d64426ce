# The backlog of one destination. Everything here runs under its send lock.
#
# Whole frames, wire-ready, wait in sub-queues by flow; deficit round robin between them (new flows first) keeps a ping
# from waiting behind a bulk transfer; CoDel drops from the head of a flow that keeps a standing queue; the fattest flow
# pays when the bound in bytes is reached. Control frames have a flow of their own that is always served first.
# After fq_codel, RFC 8290, and CoDel, RFC 8289: 5 ms target, 100 ms interval.

cdef enum:
    CODEL_TARGET_NS = 5000000
    CODEL_INTERVAL_NS = 100000000
    QUANTUM = 1514
    # a peer that took nothing for this long, with a full queue: new frames aren't even unmasked
    STALLED_NS = 250000000
    RATE_WINDOW_NS = 20000000
    COMMIT_MIN = 4096               # bytes handed to one send from a backlog: what it leaves can't be dropped any more
    COMMIT_MAX = 262144
    NOTSENT_LOWAT_MIN = 4096
    NOTSENT_LOWAT_MAX = 262144


cdef inline void round_push(Queue *q, Round *r, int32_t flow) noexcept nogil:
    q.flows[flow].next = -1
    if r.head < 0:
        r.head = flow
    else:
        q.flows[r.tail].next = flow
    r.tail = flow


cdef inline void round_pop(Queue *q, Round *r) noexcept nogil:
    r.head = q.flows[r.head].next


cdef Queue *queue_of(Worker *w, Slot *s) noexcept nogil:
    """The destination's queue, made at its first backlog; NULL when memory is out."""
    cdef Queue *q = s.queue
    if q == NULL:
        q = <Queue *>calloc(1, sizeof(Queue))
        if q != NULL:
            q.fresh.head = -1
            q.old.head = -1
            q.progress_ns = w.now
            s.queue = q
    return q


cdef uint64_t records_packets(Block *b) noexcept nogil:
    """How many packets a list of records holds, control frames left out."""
    cdef uint64_t n = 0
    cdef uint32_t at, size, header
    cdef uint8_t *frame
    while b != NULL:
        at = b.start
        while at < b.end:
            frame = block_bytes(b) + at + STAMP_BYTES
            size = frame_size(frame)
            header = frame_header(frame)
            n += frame_flow(frame, header, size - header) != CONTROL_FLOW
            at += size + STAMP_BYTES
        b = b.next
    return n


cdef inline uint32_t queue_committed(Queue *q) noexcept nogil:
    """Bytes in the commit block."""
    return q.committed.end - q.committed.start if q.committed != NULL else 0


cdef inline bint queue_idle(Queue *q) noexcept nogil:
    return q == NULL or (q.bytes == 0 and queue_committed(q) == 0)


cdef void queue_free(Worker *w, Slot *s) noexcept nogil:
    """Drop all that waits, counted, and the queue itself."""
    cdef Queue *q = s.queue
    cdef int32_t i
    if q == NULL:
        return
    for i in range(FLOWS_ALL):
        drops(w, s, DROP_CLOSED, records_packets(q.flows[i].head))
        blocks_give(&w.engine.pool, q.flows[i].head)
    blocks_give(&w.engine.pool, q.committed)
    free(q)
    s.queue = NULL
    queue_mirror(s)


cdef uint64_t queue_oldest(Queue *q) noexcept nogil:
    """When the packet that has waited longest was put in, 0 when none waits."""
    cdef uint64_t oldest = 0
    cdef uint64_t stamp
    cdef int32_t i
    for i in range(FLOWS_ALL):
        if q.flows[i].head != NULL:
            stamp = record_stamp(q.flows[i].head)
            if oldest == 0 or stamp < oldest:
                oldest = stamp
    return oldest


cdef inline void queue_mirror(Slot *s) noexcept nogil:
    """Tell those who don't hold the lock how much waits."""
    cdef Queue *q = s.queue
    store_relaxed64(&s.queued_bytes, q.bytes if q != NULL else 0)
    store_relaxed64(&s.control_bytes, q.flows[CONTROL_FLOW].bytes if q != NULL else 0)
    if q == NULL:
        store_relaxed64(&s.stalled, 0)


cdef void flow_advance(Worker *w, Queue *q, Flow *f, uint32_t size) noexcept nogil:
    """Take `size` bytes, one frame, off the head of a flow; a block that is used up goes back to the pool."""
    cdef Block *b = f.head
    b.start += size + STAMP_BYTES
    f.bytes -= size
    q.bytes -= size
    if b.start == b.end:
        f.head = b.next
        if f.head == NULL:
            f.tail = NULL
        block_give(&w.engine.pool, b)


cdef void queue_make_room(Worker *w, Slot *s, Queue *q, uint64_t limit) noexcept nogil:
    """Drop frames from the heads of the fattest flows until the packets fit the limit."""
    cdef Flow *fattest
    cdef int32_t i
    while q.bytes > limit:
        fattest = &q.flows[0]
        for i in range(1, FLOWS):
            if q.flows[i].bytes > fattest.bytes:
                fattest = &q.flows[i]
        if fattest.head == NULL:
            return
        flow_advance(w, q, fattest, frame_size(record_frame(fattest.head)))
        drop(w, s, DROP_QUEUE_FULL)


cdef inline uint32_t commit_limit(const Queue *q) noexcept nogil:
    """Bytes handed to the kernel at a time: about a millisecond's worth at the drain rate. Enough to make system calls
    rare, little enough that a ping overtakes the rest."""
    return <uint32_t>min(max(<uint64_t>COMMIT_MIN, q.rate // 1000), <uint64_t>COMMIT_MAX)


cdef void queue_append(Worker *w, Slot *s, const uint8_t *frame, uint32_t size, uint64_t stamp_ns) noexcept nogil:
    """Copy one frame to the end of its flow; on a slow link, a long super-packet in several. What can't be kept is
    dropped and counted."""
    cdef Queue *q = queue_of(w, s)
    if q == NULL:
        drop(w, s, DROP_MEMORY)
    elif q.rate != 0 and size > commit_limit(q):
        queue_parts(w, s, q, frame, size, stamp_ns)
    else:
        queue_frame(w, s, q, frame, size, stamp_ns)


cdef void queue_parts(Worker *w, Slot *s, Queue *q, const uint8_t *frame, uint32_t size,
                      uint64_t stamp_ns) noexcept nogil:
    """Queue a frame that takes longer than a commit: a super-packet as several shorter ones. A frame that has
    begun can't be overtaken, and 64 KB are 10 ms at 50 Mbit/s."""
    cdef uint32_t header = frame_header(frame)
    cdef uint32_t payload = size - header
    cdef uint32_t mask = load32(frame + header - 4) if frame[1] >> 7 else 0
    cdef uint8_t *whole = w.scratch
    cdef uint8_t *out = w.scratch + WIRE_PAYLOAD_MAX
    cdef uint8_t *part = out + FRAME_HEADER_MAX
    cdef uint32_t i, n, count, length
    cdef Super u
    if frame[0] & 15 != OP_BINARY or payload < SUPER_MIN or frame[header] ^ <uint8_t>mask != KIND_SUPER:
        queue_frame(w, s, q, frame, size, stamp_ns)
        return
    unmask(whole, frame + header, payload, mask)
    if not super_parse(whole + 1, whole + 1 + VNET_BYTES, payload - 1 - VNET_BYTES, &u):
        drop(w, s, DROP_SUPER)
        return
    count = super_count(&u)
    if count == 1:
        queue_frame(w, s, q, frame, size, stamp_ns)
        return
    n = max(commit_limit(q) // u.gso_size, <uint32_t>1)
    i = 0
    while i < count:
        part[0] = KIND_SUPER
        length = 1 + super_part(&u, whole[2], i, n, part + 1)
        queue_frame(w, s, q, out, build_frame(out, OP_BINARY, part, length, frame[1] >> 7, next_mask(s)), stamp_ns)
        i += n


cdef void queue_frame(Worker *w, Slot *s, Queue *q, const uint8_t *frame, uint32_t size,
                      uint64_t stamp_ns) noexcept nogil:
    """Copy one frame to the end of its flow, or drop it."""
    cdef uint32_t header = frame_header(frame)
    cdef uint32_t payload = size - header
    cdef int32_t index
    cdef Flow *f
    if queue_idle(q):
        q.progress_ns = w.now       # nothing waited: nothing stalled
    index = frame_flow(frame, header, payload)
    f = &q.flows[index]
    if index == CONTROL_FLOW:
        if f.bytes + size > CONTROL_BYTES_MAX:
            drop(w, s, DROP_CONTROL)
            return
    elif q.bytes + size > w.engine.queue_bytes:
        if since(w.now, q.progress_ns) > STALLED_NS:
            store_relaxed64(&s.stalled, 1)      # its queue would only turn over: nothing more until it takes something
            drop(w, s, DROP_STALLED)
            return
        if size > w.engine.queue_bytes:
            drop(w, s, DROP_QUEUE_FULL)
            return
        queue_make_room(w, s, q, w.engine.queue_bytes - size)
    if not records_append(&w.engine.pool, &f.head, &f.tail, frame, size, stamp_ns,
                          FOR_INPUT if index == CONTROL_FLOW else FOR_PACKETS):
        drop(w, s, DROP_MEMORY)
        return
    f.bytes += size
    q.bytes += size
    if index == CONTROL_FLOW:
        return
    q.carried = True
    if not f.listed:
        f.listed = True
        f.credit = QUANTUM
        round_push(q, &q.fresh, index)


cdef inline int32_t frame_flow(const uint8_t *frame, uint32_t header, uint32_t payload) noexcept nogil:
    """The sub-queue a frame built by this engine belongs to."""
    # the kind, a virtio header, the longest IPv4 header's 60 bytes: the ports are in there
    cdef uint8_t start[71]
    cdef const uint8_t *p = frame + header
    cdef uint32_t n = payload if payload < 71 else 71
    if frame[0] & 15 != OP_BINARY or payload < FORWARD_MIN:
        return CONTROL_FLOW
    if frame[1] >> 7:
        unmask(start, p, n, load32(p - 4))
        p = start
    if p[0] == KIND_FORWARD:
        return flow_hash(p + 1, n - 1) & (FLOWS - 1)
    if p[0] == KIND_SUPER and payload >= SUPER_MIN:
        return flow_hash(p + 1 + VNET_BYTES, n - 1 - VNET_BYTES) & (FLOWS - 1)
    return CONTROL_FLOW


cdef bint codel_drops(Queue *q, Flow *f, uint32_t size, uint64_t stamp_ns, uint64_t now) noexcept nogil:
    """CoDel's verdict on the frame at the head of a flow."""
    cdef uint64_t target = CODEL_TARGET_NS
    cdef uint64_t waited = since(now, stamp_ns)
    cdef bint recent
    # On a slow link a single frame takes longer than the target: never ask for less than its time.
    if q.rate != 0 and <uint64_t>size * 1000000000 > target * q.rate:
        target = <uint64_t>size * 1000000000 // q.rate
    if waited < target or f.bytes <= size or f.bytes <= QUANTUM:        # never the last frame
        f.first_above_ns = 0
        f.dropping = False
        return False
    if f.first_above_ns == 0:
        f.first_above_ns = now + CODEL_INTERVAL_NS
        return False
    if not f.dropping:
        if now < f.first_above_ns:
            return False
        f.dropping = True
        # "if we have been dropping recently, start at the rate that controlled the queue last time"
        recent = since(now, f.drop_next_ns) < 16 * <uint64_t>CODEL_INTERVAL_NS
        f.drop_count = f.drop_count - 2 if recent and f.drop_count > 2 else 1
        f.drop_next_ns = now + <uint64_t>(CODEL_INTERVAL_NS / sqrt(<double>f.drop_count))
        return True
    if now < f.drop_next_ns:
        return False
    f.drop_count += 1
    f.drop_next_ns += <uint64_t>(CODEL_INTERVAL_NS / sqrt(<double>f.drop_count))
    return True


cdef Flow *queue_next(Worker *w, Slot *s, Queue *q, bint control_only) noexcept nogil:
    """The flow whose head frame is to be sent next, NULL when nothing waits. Drops what CoDel condemns."""
    cdef Round *r
    cdef Flow *f
    cdef int32_t index
    cdef uint32_t size
    if q.flows[CONTROL_FLOW].head != NULL:
        return &q.flows[CONTROL_FLOW]
    while not control_only:
        r = &q.fresh if q.fresh.head >= 0 else &q.old
        index = r.head
        if index < 0:
            return NULL
        f = &q.flows[index]
        if f.head == NULL:
            round_pop(q, r)
            # An emptied new flow makes one turn among the old ones, or it would come back as new ahead of them all.
            if r == &q.fresh and q.old.head >= 0:
                round_push(q, &q.old, index)
            else:
                f.listed = False
            continue
        if f.credit <= 0:
            f.credit += QUANTUM
            round_pop(q, r)
            round_push(q, &q.old, index)
            continue
        size = frame_size(record_frame(f.head))
        if codel_drops(q, f, size, record_stamp(f.head), w.now):
            flow_advance(w, q, f, size)
            drop(w, s, DROP_DELAY)
            continue
        return f
    return NULL


cdef void queue_rate(Slot *s, Queue *q, uint64_t sent, uint64_t now) noexcept nogil:
    """Follow the drain rate, over the time in which the kernel had more than it could send."""
    cdef uint64_t elapsed, rate
    if sent != 0:
        q.progress_ns = now
        store_relaxed64(&s.stalled, 0)
    if q.rate_start_ns == 0:
        return                      # what fills an empty socket tells nothing
    q.rate_bytes += sent
    elapsed = q.rate_ns + since(now, q.rate_start_ns)
    if elapsed >= RATE_WINDOW_NS and q.rate_bytes != 0:
        rate = q.rate_bytes * 1000000000 // elapsed
        q.rate = (q.rate + rate) // 2 if q.rate else rate
        q.rate_start_ns = now
        q.rate_ns = 0
        q.rate_bytes = 0
        follow_rate(s, q)


cdef inline void queue_begin(Queue *q, uint64_t now) noexcept nogil:
    """The kernel takes no more: from now on it drains."""
    if q.rate_start_ns == 0:
        q.rate_start_ns = now


cdef inline void queue_pause(Queue *q, uint64_t now) noexcept nogil:
    """The backlog is over for now."""
    if q.rate_start_ns != 0:
        q.rate_ns += since(now, q.rate_start_ns)
        q.rate_start_ns = 0


cdef void follow_rate(Slot *s, Queue *q) noexcept nogil:
    """Let the kernel hold about two milliseconds' worth that it has not sent: enough to keep a fast link busy until the
    next EPOLLOUT, little enough that a ping needn't wait behind it on a slow one."""
    cdef int lowat = <int>min(max(q.rate // 500, <uint64_t>NOTSENT_LOWAT_MIN), <uint64_t>NOTSENT_LOWAT_MAX)
    if q.lowat == 0 or lowat > q.lowat * 5 // 4 or lowat < q.lowat * 4 // 5:
        q.lowat = lowat
        setsockopt(s.fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof(lowat))
