# Draining: from a backlog to the kernel, under the send lock.
#
# 1. queue_commit()   the next frames of the flows to the commit block: about a millisecond's worth
# 2. queue_seal()     over TLS they become records first
# 3. kernel_send()    as far as the kernel takes it; what it leaves can't be dropped any more

cdef ssize_t kernel_send(Worker *w, Slot *s, iovec *iov, uint32_t n, int flags) noexcept nogil:
    """Send these pieces, each of them one frame where the peer is an old one. Bytes taken; 0 when the socket is full;
    -1 when it is broken."""
    cdef ssize_t r
    if not s.extended:
        return legacy_send(w, s, iov, n)
    while True:
        count(&w.counters.sends, 1)
        count(&s.traffic.sends, 1)
        r = transport_write(s, iov, n, flags)
        if r >= 0 or errno != EINTR:
            break
    if r >= 0:
        return r
    if errno == EAGAIN:
        return 0
    if errno == ENOBUFS or errno == ENOMEM:
        look_again(w, s)
        return 0
    return transport_break(s)


cdef bint commit_room(Worker *w, Queue *q, uint32_t size) noexcept nogil:
    """Make the (empty) commit block hold at least `size` bytes. Not subject to the memory limit: see memory_take."""
    if q.committed == NULL or q.committed.capacity < size:
        block_give(w, q.committed)
        q.committed = block_take(w, size, FOR_CERTAIN)
    if q.committed == NULL:
        return False
    q.committed.start = 0
    q.committed.end = 0
    return True


cdef void queue_commit_rest(Worker *w, Slot *s, const uint8_t *rest, uint32_t size, uint32_t cut) noexcept nogil:
    """Keep the rest of a begun frame, which must be finished: half a frame would garble all that follow. Over TLS, the
    rest of what was sealed, that begins with the last `cut` bytes of a record."""
    cdef Queue *q = queue_of(w, s)
    if q == NULL or not commit_room(w, q, size):
        transport_break(s)                   # the stream can't be continued
        return
    q.progress_ns = w.now
    memcpy(block_bytes(q.committed), rest, size)
    q.committed.end = size
    q.cut = cut
    q.sealed = s.tls != NULL
    q.carried = True


cdef bint queue_commit(Worker *w, Slot *s, Queue *q) noexcept nogil:
    """Move the next frames to the (empty) commit block, or over TLS to the worker's, where they are sealed from.
    Control frames come first. False when nothing waits, or what does has to."""
    cdef Block *b
    while True:
        b = queue_commit_some(w, s, q)
        if b == NULL:
            return False
        if b.end != 0:
            return True


cdef Block *queue_commit_some(Worker *w, Slot *s, Queue *q) noexcept nogil:
    """The same; NULL when nothing waits. The block may be empty: where no member's session was there any more for what
    it would have held, and that was dropped."""
    cdef uint32_t limit = commit_limit(s, q)
    cdef uint32_t most = IOV_MAX_SEND if s.tls != NULL else 0xFFFFFFFF
    cdef uint32_t size
    cdef uint32_t frames = 0
    cdef uint64_t packets = 0
    cdef Capture *c = capture_of(s)
    cdef uint64_t size_of_packets = 0
    cdef bint limited = load_relaxed64(&s.down_pace) != 0
    # Then control frames alone: behind a close frame nothing comes, and packets may have to wait for a limit.
    cdef bint alone = load_relaxed64(&s.closing) != 0 or (unlikely(limited) and not down_open(w, s, q))
    cdef Block *b
    cdef Flow *f
    if q.control != NULL:
        size = frame_size(control_head(q))
    else:
        f = NULL if alone else queue_next(w, s, q)
        if f == NULL:
            return NULL
        size = record_size(f.head)
    if unlikely(s.tls != NULL):
        if queue_pace(s, q) == 0:
            limit = NOTSENT_LOWAT   # here passes all that other threads have for it, and most of that has not waited
        b = w.commit
        b.start = b.end = 0
        b.capacity = max(limit, size)
    else:
        if not commit_room(w, q, <uint32_t>max(min(<uint64_t>limit, q.bytes), <uint64_t>size)):
            return NULL
        b = q.committed
    if q.control != NULL:
        frames = control_commit(w, s, q, b, most)
    while not alone and b.end < limit and frames < most:
        f = queue_next(w, s, q)
        if f == NULL:
            break
        size = record_size(f.head)
        if b.end + size > b.capacity:
            break                   # stays at the head of its flow
        if commit_frame(w, s, record_frame(f.head), block_bytes(b) + b.end, size):
            if unlikely(c != NULL):
                capture_frame(w, c, block_bytes(b) + b.end, size, DROPS_COUNT)
            b.end += size
            frames += 1
            packets += 1
            if unlikely(limited):
                size_of_packets += packet_bytes(record_frame(f.head), size)
            delay_count(w, s, f.head.stamp_ns)
        f.credit -= <int32_t>size
        record_give(w, flow_take(q, f, size), size)
    if unlikely(limited) and packets != 0:
        limit_charge(w, &s.down, &w.engine.networks[s.network].down, size_of_packets)
    sent(w, s, packets, 0)
    return b


cdef void stranger_release(Worker *w, Slot *s) noexcept nogil:
    """Answers to a stranger have left: what still waits for it counts with the strangers' memory, and no more."""
    cdef uint64_t counted = load_relaxed64(&s.stranger_bytes)
    cdef uint64_t waiting = load_relaxed64(&s.control_bytes)
    if counted > waiting:
        add_relaxed64(&s.stranger_bytes, waiting - counted)
        add_relaxed64(&w.engine.pool.stranger_bytes, waiting - counted)


cdef ssize_t sealed_send(Worker *w, Slot *s, int flags) noexcept nogil:
    """Send what was sealed, as kernel_send(). What the kernel leaves is committed, and then that is the result's
    difference to t.output_used."""
    cdef uint32_t length = s.tls.output_used
    cdef uint32_t at = 0
    cdef uint32_t n = 1
    cdef ssize_t r
    w.iov[0].iov_base = w.sealed
    w.iov[0].iov_len = length
    if not s.extended:
        n = 0
        frames_iov(w, w.sealed, length, True, &n)
    r = kernel_send(w, s, w.iov, n, flags)
    if r < 0 or <uint32_t>r == length:
        return r
    while at < <uint32_t>r:
        at += record_bytes(w.sealed + at)
    queue_commit_rest(w, s, w.sealed + r, length - <uint32_t>r, at - <uint32_t>r)
    return r


cdef bint queue_seal(Worker *w, Slot *s, Queue *q) noexcept nogil:
    """Over TLS: seal what comes next, and send it. False: nothing waits, or the kernel takes no more."""
    cdef Block *b = q.committed
    cdef uint32_t length
    cdef uint32_t records = 0
    cdef bint whole
    cdef ssize_t r
    if queue_committed(q) == 0:
        if not queue_commit(w, s, q):
            queue_pause(q, w.now)
            return False
        b = w.commit
    length = b.end - b.start
    tls_seal_into(s.tls, w.sealed, SEALED_ROOM)
    if s.extended:
        whole = tls_seal(s.tls, block_bytes(b) + b.start, length)
    else:
        whole = tls_seal_frames(s.tls, block_bytes(b) + b.start, length, q.cut, &records)
        w.work -= records * WORK_SEGMENT
    b.start = b.end = q.cut = 0
    r = sealed_send(w, s, MSG_EOR) if whole else transport_break(s)
    if r < 0:
        return False
    w.work -= WORK_CALL + r + length
    sent(w, s, 0, <uint64_t>r)
    queue_rate(s, q, <uint64_t>r, w.now)
    if <uint32_t>r < s.tls.output_used:
        queue_begin(q, w.now)
        return False                            # EPOLLOUT will tell
    return True


cdef void queue_settle(Worker *w, Slot *s, Queue *q) noexcept nogil:
    """Some has left, and the rest may wait for long: it keeps no more memory than it pays for."""
    q.committed = block_fit(w, q.committed)
    queue_fit(w, s, q)


cdef void queue_send(Worker *w, Slot *s) noexcept nogil:
    """Hand the backlog to the kernel until it takes no more or nothing is left, or the turn's work is used up: then the
    destination's worker goes on. Afterwards there may be no queue."""
    cdef Queue *q = s.queue
    cdef Block *b
    cdef uint32_t wanted, n, size
    cdef uint8_t *data
    cdef ssize_t r
    while not s.broken and not s.finished:
        if w.work <= 0:
            ask(w, s, slot_connection(w, s), DRAIN)
            break
        b = q.committed
        if unlikely(s.tls != NULL) and (queue_committed(q) == 0 or not q.sealed):
            if not queue_seal(w, s, q):
                break
            continue
        if b == NULL or b.start == b.end:
            if not queue_commit(w, s, q):
                queue_pause(q, w.now)
                break
            b = q.committed
        data = block_bytes(b) + b.start
        wanted = b.end - b.start
        n = 1
        w.iov[0].iov_base = data
        w.iov[0].iov_len = wanted
        if not s.extended:
            n = 0
            if q.cut != 0:
                w.iov[0].iov_len = q.cut
                n = 1
            wanted = q.cut + frames_iov(w, data + q.cut, wanted - q.cut, q.sealed, &n)
            w.work -= n * WORK_SEGMENT
        # The kernel appends to a TCP segment in its backlog up to 64 KB past TCP_NOTSENT_LOWAT, unless that is
        # closed: on a slow link those would be milliseconds that no ping can overtake.
        r = kernel_send(w, s, w.iov, n, MSG_EOR)
        if r < 0:
            break
        w.work -= WORK_CALL + r
        sent(w, s, 0, <uint64_t>r)
        queue_rate(s, q, <uint64_t>r, w.now)
        if not s.extended:
            size = q.cut
            while size < <uint32_t>r:
                size += piece_size(data + size, q.sealed)
            q.cut = size - <uint32_t>r
        b.start += <uint32_t>r
        if <uint32_t>r < wanted:
            queue_begin(q, w.now)
            break                               # EPOLLOUT will tell
    queue_settle(w, s, q)
    if q.committed == NULL:
        stranger_release(w, s)
    if not q.carried and queue_idle(q):
        # Thousands that each got one message from Python, as after a restart, would all hold a block until the tick.
        queue_free(w, s)
    else:
        queue_mirror(s)


cdef bint queue_finish(Worker *w, Slot *s) noexcept nogil:
    """Nothing waits, and nothing more will: over TLS our side ends with close_notify. True when all has left."""
    cdef Tls *t = s.tls
    cdef uint8_t record[2 * RECORD_OVERHEAD]
    if t == NULL or t.finished:
        return True
    tls_seal_into(t, record, sizeof(record))
    if not tls_finish(t):
        transport_break(s)
        return False
    queue_commit_rest(w, s, record, t.output_used, 0)
    if s.broken:
        return False
    queue_send(w, s)
    return s.queue == NULL or queue_committed(s.queue) == 0
