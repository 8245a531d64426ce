# Sending: from a batch to the kernel, or to the destination's queue.
#
# deliver(): send lock free and nothing waiting: straight to the kernel. Else to the queue, or, with the lock taken by
# another thread, to the inbox, which the lock's holder empties.
# Order within a flow holds: one worker reads a source, and whatever it appended before is sent before.

cdef void deliver(Worker *w, Target *t) noexcept nogil:
    cdef Slot *s = &w.engine.slots[<uint32_t>t.connection]
    if load_relaxed64(&s.kind) == SLOT_TUN and is_current(s, t.connection):
        tun_write(w, s, t)          # a device's number only goes stale when the engine stops
        if s.owner == w.index:
            s.readable = True                   # an answer is often there already
            make_ready(w, s, t.connection)
        return
    if pthread_mutex_trylock(&s.send_lock) != 0:
        inbox_append(w, s, t)
        point(POINT_APPENDED)
        settle(w, s)
        return
    # The descriptor is only closed under this lock and after the generation moved on: checked here, it is the right
    # one.
    point(POINT_LOCKED)
    if not is_current(s, t.connection):
        count(&w.counters.drops[DROP_STALE], t.packets)
    elif load_relaxed64(&s.closing) or s.broken:
        drops(w, s, DROP_CLOSED, t.packets)
    elif load_ordered64(&s.inbox_bytes) == 0 and queue_idle(s.queue) and not worth_cutting(w, s, t):
        point(POINT_COMPARED)
        send_runs(w, s, t)
    else:
        inbox_drain(w, s)
        queue_runs(w, s, t, t.first, 0)
        if s.queue != NULL:
            queue_send(w, s)
    pthread_mutex_unlock(&s.send_lock)
    point(POINT_UNLOCKED)
    settle(w, s)


cdef void settle(Worker *w, Slot *s) noexcept nogil:
    """Look again after unlocking, or after finding the lock taken: either this thread empties the inbox or the holder,
    who unlocks later than our append, does."""
    while load_ordered64(&s.inbox_bytes) != 0 and pthread_mutex_trylock(&s.send_lock) == 0:
        inbox_drain(w, s)
        if s.queue != NULL:
            queue_send(w, s)
        pthread_mutex_unlock(&s.send_lock)


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


cdef void send_runs(Worker *w, Slot *s, Target *t) noexcept nogil:
    """Nothing waits: send a target's runs from where they lie, and queue what the kernel leaves."""
    cdef uint32_t index = t.first
    cdef uint32_t offset = 0        # within the run: where the next send begins
    cdef uint32_t n, covered
    cdef uint64_t wanted
    cdef uint64_t total = 0
    cdef uint32_t from_index, from_offset
    cdef uint32_t left
    cdef ssize_t r
    while index != RUNS_MAX:
        n = 0
        wanted = 0
        from_index = index
        from_offset = offset
        while index != RUNS_MAX and n < IOV_MAX_SEND:
            if s.extended:
                w.iov[n].iov_base = w.runs[index].bytes
                w.iov[n].iov_len = w.runs[index].length
                wanted += w.runs[index].length
                n += 1
            else:
                covered = frames_iov(w, w.runs[index].bytes + offset, w.runs[index].length - offset, &n)
                wanted += covered
                offset += covered
                if offset < w.runs[index].length:
                    break
                offset = 0
            index = w.runs[index].next
        r = kernel_send(w, s, w.iov, n, 0)
        if r < 0:
            left = runs_frames(w, from_index, from_offset)
            drops(w, s, DROP_CLOSED, left)
            sent(w, s, t.packets - left, total)
            return
        total += <uint64_t>r
        if <uint64_t>r < wanted:
            sent(w, s, 0, total)
            # Skip what was taken; queue_runs() finds the frame in which the kernel stopped.
            while True:
                covered = w.runs[from_index].length - from_offset
                if <uint64_t>r < covered:
                    break
                r -= covered
                from_index = w.runs[from_index].next
                from_offset = 0
            queue_runs(w, s, t, from_index, from_offset + <uint32_t>r)
            if s.queue != NULL:
                queue_begin(s.queue, w.now)
            return
    sent(w, s, t.packets, total)


cdef uint32_t runs_frames(Worker *w, uint32_t index, uint32_t offset) noexcept nogil:
    """How many frames a target's runs hold, from the one that begins at this byte on."""
    cdef uint32_t n = 0
    while index != RUNS_MAX:
        while offset < w.runs[index].length:
            offset += frame_size(w.runs[index].bytes + offset)
            n += 1
        offset = 0
        index = w.runs[index].next
    return n


cdef void queue_runs(Worker *w, Slot *s, Target *t, uint32_t index, uint32_t offset) noexcept nogil:
    """Queue a target's frames from this byte on; a frame that begins before it is finished first of all."""
    cdef uint32_t at, size, length
    cdef uint8_t *data
    cdef bint first = offset != 0
    cdef uint64_t left = 0
    while index != RUNS_MAX:
        data = w.runs[index].bytes
        length = w.runs[index].length
        at = 0
        while at < length:
            size = frame_size(data + at)
            if first and at + size <= offset:
                at += size
                continue
            if first and at < offset:
                queue_commit_rest(w, s, data + offset, at + size - offset)
            else:
                left += 1
                queue_append(w, s, data + at, size, w.now)
            at += size
        first = False
        index = w.runs[index].next
    queue_mirror(s)
    if t.packets > left:
        sent(w, s, t.packets - left, 0)


cdef void queue_commit_rest(Worker *w, Slot *s, const uint8_t *rest, uint32_t size) noexcept nogil:
    """Keep the rest of a begun frame, which must be finished: half a frame would garble all that follow."""
    cdef Queue *q = queue_of(w, s)
    if q == NULL or not commit_room(w, q, size):
        transport_break(s)                   # the stream can't be continued
        return
    q.progress_ns = w.now
    memcpy(block_bytes(q.committed), rest, size)
    q.committed.end = size
    q.cut = size
    q.carried = True


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


cdef bint queue_commit(Worker *w, Slot *s, Queue *q) noexcept nogil:
    """Move the next frames from the flows to the (empty) commit block; False when nothing waits."""
    cdef uint32_t limit = commit_limit(q)
    cdef uint32_t size
    cdef uint64_t packets = 0
    cdef bint control_only = load_relaxed64(&s.closing) != 0
    cdef Block *b
    cdef Flow *f = queue_next(w, s, q, control_only)
    if f == NULL:
        return False
    size = record_size(f.head)
    if not commit_room(w, q, <uint32_t>max(min(<uint64_t>limit, q.bytes), <uint64_t>size)):
        return False
    b = q.committed
    while True:
        memcpy(block_bytes(b) + b.end, record_frame(f.head), size)
        b.end += size
        if f != &q.control:
            packets += 1
            delay_count(w, s, f.head.stamp_ns)
        f.credit -= <int32_t>size
        record_give(w, flow_take(q, f, size))
        if f == &q.control:
            add_relaxed64(&s.control_bytes, -<uint64_t>record_memory(size))
        if b.end >= limit:
            break
        f = queue_next(w, s, q, control_only)
        if f == NULL:
            break
        size = record_size(f.head)
        if b.end + size > b.capacity:
            break                   # stays at the head of its flow
    sent(w, s, packets, 0)
    return True


cdef void commit_fit(Worker *w, Queue *q) noexcept nogil:
    """Let the commit block have no more room than twice what it holds: what waits may wait for long."""
    cdef Block *b = q.committed
    cdef uint32_t left = queue_committed(q)
    cdef Block *smaller = NULL
    if b == NULL or b.capacity <= 2 * left:
        return
    if left != 0:
        smaller = block_of(w, block_bytes(b) + b.start, left, FOR_CERTAIN)
        if smaller == NULL:
            return                  # the machine has no memory: then as it is
    block_give(w, b)
    q.committed = smaller


cdef void stranger_release(Worker *w, Slot *s) noexcept nogil:
    """Answers to a stranger have left: what still waits for it counts with the strangers' memory, and no more."""
    cdef uint64_t counted = load_relaxed64(&s.stranger_bytes)
    cdef uint64_t waiting = load_relaxed64(&s.control_bytes)
    if counted > waiting:
        add_relaxed64(&s.stranger_bytes, waiting - counted)
        add_relaxed64(&w.engine.pool.stranger_bytes, waiting - counted)


cdef bint worth_cutting(Worker *w, Slot *s, Target *t) noexcept nogil:
    """Whether the batch has a super-packet that takes too long for a destination known to be slow, so that it goes by
    the queue, which cuts it; not where that has no room for the batch."""
    cdef Queue *q = s.queue
    cdef uint32_t index = t.first
    cdef uint32_t limit, size, at
    cdef uint64_t total = 0
    cdef bint found = False
    if q == NULL or q.rate == 0 or not s.extended:
        return False
    limit = commit_limit(q)
    if limit >= WIRE_PAYLOAD_MAX:
        return False
    while index != RUNS_MAX:
        at = 0
        while at < w.runs[index].length:
            size = frame_size(w.runs[index].bytes + at)
            found |= size > limit
            total += size
            at += size
        index = w.runs[index].next
    total *= 2                      # headers of the parts
    return found and total <= queue_share(w)


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
            wanted = q.cut + frames_iov(w, data + q.cut, wanted - q.cut, &n)
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
                size += frame_size(data + size)
            q.cut = size - <uint32_t>r
        b.start += <uint32_t>r
        if <uint32_t>r < wanted:
            queue_begin(q, w.now)
            break                               # EPOLLOUT will tell
    commit_fit(w, q)
    if q.committed == NULL:
        stranger_release(w, s)
    if not q.carried and queue_idle(q):
        # Thousands that each got one message from Python, as after a restart, would all hold a block until the tick.
        queue_free(w, s)
    else:
        queue_mirror(s)


cdef bint post_message(Worker *w, uint64_t connection, uint8_t opcode, const uint8_t *payload,
                       uint32_t length) noexcept nogil:
    """Frame up to WIRE_PAYLOAD_LEGACY bytes as the connection's end demands, and send them. False: it is gone or has
    too much waiting."""
    cdef bint taken = leave_message(w, connection, opcode, payload, length)
    if taken:
        settle(w, &w.engine.slots[<uint32_t>connection])
    return taken


cdef bint answer(Worker *w, Slot *s, uint8_t opcode, const uint8_t *payload, uint32_t length) noexcept nogil:
    """The same for the connection whose turn it is: all answers of a turn leave with its end."""
    w.work -= WORK_ANSWER
    if not leave_message(w, slot_connection(w, s), opcode, payload, length):
        return False
    w.answered = True
    return True


cdef bint leave_message(Worker *w, uint64_t connection, uint8_t opcode, const uint8_t *payload,
                        uint32_t length) noexcept nogil:
    """Frame a message and leave it in the inbox."""
    cdef uint8_t frame[1514]        # WIRE_PAYLOAD_LEGACY + FRAME_HEADER_MAX
    cdef uint32_t size
    cdef Slot *s = &w.engine.slots[<uint32_t>connection]
    if length > WIRE_PAYLOAD_LEGACY or (opcode != OP_CLOSE and load_relaxed64(&s.closing)):
        return False
    size = build_frame(frame, opcode, payload, length, load_relaxed64(&s.kind) == SLOT_CLIENT, next_mask(s))
    return inbox_control(w, connection, frame, size)
