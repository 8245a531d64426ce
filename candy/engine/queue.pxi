# The backlog of one destination. Everything here runs under its send lock.
#
# Whole frames, wire-ready, wait in sub-queues by flow (flow.pxi); deficit round robin between them (new flows first)
# keeps a ping from waiting behind a bulk transfer; CoDel (codel.pxi, held to its RFC by tests/engine/test_codel.py)
# drops from the head of a flow that keeps a standing queue, or marks there; the fattest flow pays when the destination
# has its share of memory. What is no packet is always served first (control.pxi). After fq_codel (RFC 8290).
#
# A destination may hold queue_bytes, and no more than is free for others at that moment: ten busy ones share the
# memory, and there is room for an eleventh.

cdef enum:
    # A destination that took nothing for so long, with its share of memory full, is stalled: frames for it are no
    # longer even unmasked, and it keeps but so many bytes.
    STALLED_NS = 250000000
    STALLED_BYTES = 65536
    RATE_WINDOW_NS = 20000000
    COMMIT_MIN = 4096               # bytes handed to one send from a backlog: what it leaves can't be dropped any more
    COMMIT_MAX = 262144
    NOTSENT_LOWAT_MIN = 4096
    NOTSENT_LOWAT_MAX = 262144


cdef Queue *queue_of(Worker *w, Slot *s) noexcept nogil:
    """The destination's queue, made at its first backlog; NULL when memory is out."""
    cdef Queue *q = s.queue
    if q == NULL:
        q = <Queue *>memory_take(w, <uint32_t>sizeof(Queue), FOR_CERTAIN)
        if q != NULL:
            memset(q, 0, sizeof(Queue))
            q.progress_ns = w.now
            s.queue = q
    return q


cdef inline uint32_t queue_committed(Queue *q) noexcept nogil:
    """Bytes in the commit block."""
    return q.committed.end - q.committed.start if q.committed != NULL else 0


cdef inline bint queue_idle(Queue *q) noexcept nogil:
    return q == NULL or (q.bytes == 0 and queue_committed(q) == 0)


cdef inline void queue_mirror(Slot *s) noexcept nogil:
    """Tell those who don't hold the lock how much waits."""
    cdef Queue *q = s.queue
    store_relaxed64(&s.queued_bytes, q.bytes if q != NULL else 0)
    if q == NULL:
        store_relaxed64(&s.stalled, 0)


cdef uint64_t records_free(Worker *w, Record *r, const uint64_t *key) noexcept nogil:
    """Give back a list of records; returns how many of them were packets."""
    cdef Record *following
    cdef uint64_t n = 0
    cdef uint32_t hash, size
    while r != NULL:
        following = r.next
        size = record_size(r)
        n += frame_flow(record_frame(r), size, key, &hash)
        record_give(w, r, size)
        r = following
    return n


cdef void queue_free(Worker *w, Slot *s) noexcept nogil:
    """Drop all that waits, counted, and the queue itself."""
    cdef Queue *q = s.queue
    cdef uint64_t *key = w.engine.flow_key
    cdef Flow *f
    cdef uint32_t i
    if q == NULL:
        return
    if q.sub != NULL:
        for i in range(FLOWS + 1):
            f = sub_queue(q, i)
            if f != NULL:
                drops(w, s, DROP_CLOSED, records_free(w, f.head, key))
                flow_free(w, q, f)
        memory_give(w, q.sub, <uint32_t>sizeof(SubQueues), FOR_CERTAIN)
    block_give(w, q.control)
    block_give(w, q.committed)
    memory_give(w, q, <uint32_t>sizeof(Queue), FOR_CERTAIN)
    s.queue = NULL
    queue_mirror(s)


cdef uint64_t queue_oldest(Queue *q) noexcept nogil:
    """When the frame that has waited longest was put in, 0 when none waits."""
    cdef uint64_t oldest = q.control_ns if q.control != NULL else 0
    cdef Flow *f
    cdef uint32_t i
    if q.sub != NULL:
        for i in range(FLOWS + 1):
            f = sub_queue(q, i)
            if f != NULL and f.head != NULL and (oldest == 0 or f.head.stamp_ns < oldest):
                oldest = f.head.stamp_ns
    return oldest


cdef inline void flow_retire(Worker *w, Queue *q, Flow *f) noexcept nogil:
    """A flow left the rounds: forget it, unless CoDel has dropped from it lately and would go on where it was."""
    f.listed = False
    f.shared = False                # the next flow that takes this place does not share it
    if not codel_was_busy(f, w.now):
        flow_free(w, q, f)


cdef void queue_fit(Worker *w, Slot *s, Queue *q) noexcept nogil:
    """Have what is left pay for its memory, once some has left: give back empty sub-queues, then those that hold no
    more than a turn's worth. A fuller one pays for itself, unless it holds messages of a few bytes: they are dropped,
    with what they share a sub-queue with."""
    cdef Flow *f
    cdef uint32_t i
    if beside_room(q) >= 0 or q.sub == NULL:
        return
    w.work -= FLOWS
    for i in range(FLOWS):
        if q.sub.ways[i] != NULL and not q.sub.ways[i].listed:
            flow_free(w, q, q.sub.ways[i])
    round_fit(w, s, q, &q.old)
    round_fit(w, s, q, &q.fresh)
    for i in range(FLOWS + 1):
        f = sub_queue(q, i)
        while (beside_room(q) < 0 and f != NULL and f.head != NULL
                and (i == FLOWS or f.shared or record_beside(record_size(f.head)) > 0)):
            flow_drop(w, s, q, f, DROP_QUEUE_FULL)


cdef void round_fit(Worker *w, Slot *s, Queue *q, Round *r) noexcept nogil:
    cdef Flow *f = r.head
    cdef Flow *following
    r.head = NULL                   # made anew of those that stay
    while f != NULL:
        following = f.next
        if beside_room(q) < 0 and f.bytes <= QUANTUM and f != &q.sub.crowd:
            flow_disperse(w, s, q, f)
        else:
            round_push(r, f)
        f = following


cdef void flow_disperse(Worker *w, Slot *s, Queue *q, Flow *f) noexcept nogil:
    """Move a flow's frames to the crowd."""
    cdef Record *r
    cdef uint32_t size
    cdef uint32_t hash = 0
    while f.head != NULL:
        size = record_size(f.head)
        r = flow_take(q, f, size)
        r.next = NULL
        frame_flow(record_frame(r), size, w.engine.flow_key, &hash)
        queue_put(w, s, q, crowd_join(q, hash), r, record_frame(r), size)
        w.work -= WORK_RECORD
    flow_free(w, q, f)


cdef void queue_make_room(Worker *w, Slot *s, Queue *q, uint64_t limit, int reason) noexcept nogil:
    """Drop frames from the heads of the fattest flows until the packets fit the limit. As in fq_codel one look for the
    fattest pays for up to half of what it has."""
    cdef Flow *fattest
    cdef uint32_t i, keep
    while q.bytes > limit and q.sub != NULL:
        fattest = &q.sub.crowd
        for i in range(FLOWS):
            if q.sub.ways[i] != NULL and q.sub.ways[i].bytes > fattest.bytes:
                fattest = q.sub.ways[i]
        if fattest.head == NULL:
            return
        keep = fattest.bytes // 2
        w.work -= FLOWS
        while q.bytes > limit and fattest.head != NULL and fattest.bytes >= keep:
            flow_drop(w, s, q, fattest, reason)
    queue_fit(w, s, q)


cdef inline uint64_t queue_share(Worker *w) noexcept nogil:
    """Bytes that a destination may hold now."""
    return min(w.engine.queue_bytes, pool_room(&w.engine.pool))


cdef inline bint queue_stalled(Worker *w, Queue *q, uint64_t bytes) noexcept nogil:
    """Whether the destination has taken nothing for long, while so many bytes wait for it: more than its share, or
    more than a stalled one keeps where memory is short."""
    return (bytes > STALLED_BYTES and since(w.now, q.progress_ns) > STALLED_NS
            and (bytes > queue_share(w) or pool_is_short(&w.engine.pool)))


cdef void queue_cut(Worker *w, Slot *s) noexcept nogil:
    """Leave a stalled destination STALLED_BYTES, so that its memory is there for others."""
    cdef Queue *q = s.queue
    if q != NULL and load_relaxed64(&s.stalled):
        queue_make_room(w, s, q, STALLED_BYTES, DROP_STALLED)
        queue_mirror(s)


cdef inline uint32_t commit_limit(Slot *s, const Queue *q) noexcept nogil:
    """Bytes handed to the kernel at a time: about a millisecond's worth at the drain rate, or a piece of a limit.
    Enough to make system calls rare, little enough that a ping overtakes the rest."""
    if unlikely(load_relaxed64(&s.down_pace) != 0):
        return limit_piece(queue_pace(s, q))
    return <uint32_t>min(max(<uint64_t>COMMIT_MIN, q.rate // 1000), <uint64_t>COMMIT_MAX)


cdef void queue_append(Worker *w, Slot *s, const uint8_t *frame, uint32_t size, uint64_t stamp_ns) noexcept nogil:
    """Copy one frame to the end of its flow; on a slow link, a long super-packet in several. What can't be kept is
    dropped and counted."""
    cdef Queue *q = queue_of(w, s)
    if q == NULL:
        drop_frame(w, s, DROP_MEMORY, frame, size)
    elif queue_pace(s, q) != 0 and size > commit_limit(s, q):
        queue_parts(w, s, q, frame, size, stamp_ns)
    else:
        queue_frame(w, s, q, frame, size, stamp_ns)


cdef void queue_adopt(Worker *w, Slot *s, Record *r) noexcept nogil:
    """Put a record at the end of its flow, as queue_append does with a copy; the record is the queue's now, or gone."""
    cdef Queue *q = queue_of(w, s)
    cdef uint32_t size = record_size(r)
    cdef Flow *f
    if q == NULL:
        drop_frame(w, s, DROP_MEMORY, record_frame(r), size)
    elif queue_pace(s, q) != 0 and size > commit_limit(s, q):
        queue_parts(w, s, q, record_frame(r), size, r.stamp_ns)
    else:
        f = queue_place(w, s, q, record_frame(r), size)
        if f != NULL:
            r.next = NULL
            queue_put(w, s, q, f, r, record_frame(r), size)
            return
    record_give(w, r, size)


cdef void queue_behind(Worker *w, Slot *s, const Target *t, const uint8_t *frame, uint32_t size) noexcept nogil:
    """The same for one of a target's frames that have something before them."""
    cdef Record *r = record_behind(w, t.before, t.before_size, frame, size, w.now, FOR_PACKETS)
    if r == NULL:
        drop_frame(w, s, DROP_MEMORY, frame, size)
    else:
        queue_adopt(w, s, r)


cdef void queue_parts(Worker *w, Slot *s, Queue *q, const uint8_t *frame, uint32_t size,
                      uint64_t stamp_ns) noexcept nogil:
    """Queue a frame that takes longer than a commit: a super-packet as several shorter ones. A frame that has begun
    can't be overtaken, and 64 KB are 10 ms at 50 Mbit/s."""
    cdef uint32_t mask
    cdef uint32_t header = message_start(frame, size, &mask)
    cdef uint32_t payload = size - header
    cdef uint8_t *whole = w.scratch
    cdef uint8_t *out = w.scratch + WIRE_PAYLOAD_CANDY3
    cdef uint32_t i, n, count
    cdef uint32_t at = 1            # of its virtio header
    cdef Super u
    if is_unsealed(frame):
        at = clear_bytes(frame[header])
        payload -= SEAL_TAG
    elif frame[0] & 15 != OP_BINARY or payload < SUPER_MIN or frame[header] ^ <uint8_t>mask != KIND_SUPER:
        queue_frame(w, s, q, frame, size, stamp_ns)
        return
    unmask(whole, frame + header, payload, mask)
    payload -= at + VNET_BYTES
    if has_candy3(s):
        payload -= padding(payload, load_be16(whole + at + VNET_BYTES + 2))
    if not super_parse(whole + at, whole + at + VNET_BYTES, payload, &u):
        drop_frame(w, s, DROP_SUPER, frame, size)
        return
    count = super_count(&u)
    if count == 1:
        queue_frame(w, s, q, frame, size, stamp_ns)
        return
    n = max(commit_limit(s, q) // u.gso_size, <uint32_t>1)
    i = 0
    while i < count:
        queue_part(w, s, q, whole, super_part(&u, whole[at + 1], i, n, out + UNSEALED_ROOM), frame, stamp_ns)
        i += n


cdef void queue_part(Worker *w, Slot *s, Queue *q, const uint8_t *whole, uint32_t length, const uint8_t *of,
                     uint64_t stamp_ns) noexcept nogil:
    """Queue the shorter super-packet of so many bytes that lies behind UNSEALED_ROOM in the worker's scratch, in a
    frame as the one is that it was cut from, whose message is `whole`."""
    cdef uint8_t *out = w.scratch + WIRE_PAYLOAD_CANDY3
    cdef uint8_t *part = out + UNSEALED_ROOM
    cdef uint32_t before = before_size(of)
    cdef bint masked = of[before + 1] >> 7
    w.work -= WORK_FRAME + length
    if is_unsealed(of):
        out = unsealed_build(KIND_SEALED, part, length, masked, load_be16(whole + LABEL_AT),
                             load_be32(whole + SEALED_SOURCE_AT), load_be32(whole + SEALED_DESTINATION_AT))
    else:
        part -= 1
        part[0] = KIND_SUPER
        memcpy(out, of, before)
        build_frame(out + before, OP_BINARY, part, length + 1, masked, next_mask(s))
    queue_frame(w, s, q, out, frame_size(out), stamp_ns)


cdef void queue_frame(Worker *w, Slot *s, Queue *q, const uint8_t *frame, uint32_t size,
                      uint64_t stamp_ns) noexcept nogil:
    """Copy one frame to the end of its flow as it is, or drop it."""
    cdef Flow *f = queue_place(w, s, q, frame, size)
    if f != NULL:
        queue_put(w, s, q, f, record_of(w, frame, size, stamp_ns, FOR_PACKETS), frame, size)


cdef Flow *queue_place(Worker *w, Slot *s, Queue *q, const uint8_t *frame, uint32_t size) noexcept nogil:
    """The flow that takes this frame, with room made for it; NULL: it was dropped, or is none of a flow's and was
    copied."""
    cdef uint64_t share
    cdef uint32_t hash
    cdef Flow *f
    if queue_idle(q):
        q.progress_ns = w.now       # nothing waited: nothing stalled
        store_relaxed64(&s.waited_ns, 0)
        store_relaxed64(&s.moved_ns, w.now)
    if not frame_flow(frame, size, w.engine.flow_key, &hash):
        control_put(w, s, q, frame, size)
        return NULL
    if unlikely(queue_pace(s, q) != 0 and has_candy3(s)):
        tell_commit(w, s, commit_limit(s, q), frame, size)
    share = queue_share(w)
    if load_relaxed64(&s.stalled) and q.bytes + size > STALLED_BYTES:
        drop_frame(w, s, DROP_STALLED, frame, size)
        return NULL
    if queue_stalled(w, q, q.bytes + size):
        # Its queue would only turn over: nothing more until it takes something.
        if not load_relaxed64(&s.stalled):
            store_relaxed64(&s.stalled, 1)
            ask(w, s, slot_connection(w, s), CUT)
        drop_frame(w, s, DROP_STALLED, frame, size)
        return NULL
    if q.bytes + size > share:
        if size > share:
            drop_frame(w, s, DROP_QUEUE_FULL, frame, size)
            return NULL
        # And some more, so that the look for the fattest flow is not each packet's.
        queue_make_room(w, s, q, (share - size) // 64 * 63, DROP_QUEUE_FULL)
    if record_beside(size) > 0 and record_beside(size) > beside_room(q):
        drop(w, s, DROP_QUEUE_FULL)     # a message of a few bytes, and nothing waits that would pay for its record
        return NULL
    f = queue_flow(w, q, hash, size)
    if f == NULL:
        drop_frame(w, s, DROP_MEMORY, frame, size)
    return f


cdef void queue_put(Worker *w, Slot *s, Queue *q, Flow *f, Record *r, const uint8_t *frame,
                    uint32_t size) noexcept nogil:
    """Append a record of a frame to its flow; NULL: there was no memory for it."""
    if r == NULL:
        drop_frame(w, s, DROP_MEMORY, frame, size)
        if f.head == NULL and not f.listed:
            flow_retire(w, q, f)
        return
    if f.tail == NULL:
        f.head = r
    else:
        f.tail.next = r
    f.tail = r
    f.bytes += size
    q.bytes += size
    q.beside += record_beside(size)
    q.carried = True
    if not f.listed:
        f.listed = True
        f.credit = QUANTUM
        round_push(&q.fresh, f)


cdef Flow *queue_next(Worker *w, Slot *s, Queue *q) noexcept nogil:
    """The flow whose head packet is to be sent next, NULL when none waits. Marks or drops what CoDel condemns."""
    cdef Round *r
    cdef Flow *f
    while True:
        r = &q.fresh if q.fresh.head != NULL else &q.old
        f = r.head
        if f == NULL:
            return NULL
        if f.head == NULL:
            round_pop(r)
            codel_empty(f)
            # An emptied new flow makes one turn among the old ones, or it would come back as new ahead of them all.
            if r == &q.fresh and q.old.head != NULL:
                round_push(&q.old, f)
            else:
                flow_retire(w, q, f)
            continue
        if f.credit <= 0:
            f.credit += QUANTUM
            round_pop(r)
            round_push(&q.old, f)
            continue
        if not f.judged:
            codel_judge(w, s, q, f)
        return f


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


cdef void inbox_drain(Worker *w, Slot *s) noexcept nogil:
    """Move the inbox to the queue (send lock held)."""
    cdef Record *r
    cdef Record *following
    if load_ordered64(&s.inbox_bytes) == 0:
        return
    r = inbox_take(s)
    while r != NULL:
        following = r.next
        queue_adopt(w, s, r)
        r = following
    queue_mirror(s)
