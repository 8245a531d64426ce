# The inbox of a connection: frames of threads that found its send lock taken, and those that belong to no batch
# (control frames, messages). A lock of its own, held for copies alone, keeps them in order until the holder of the send
# lock moves them to the queue (inbox_drain).

cdef void inbox_append(Worker *w, Slot *s, Target *t) noexcept nogil:
    """Another thread holds the send lock: leave a target's frames for it, in order."""
    cdef uint32_t index = t.first
    cdef uint32_t at, size
    pthread_mutex_lock(&s.inbox_lock)
    if not is_current(s, t.connection):
        count(&w.counters.drops[DROP_STALE], t.packets)
    else:
        point(POINT_INBOX)
        while index != RUNS_MAX:
            at = 0
            while at < w.runs[index].length:
                size = frame_size(w.runs[index].bytes + at)
                if not inbox_put_behind(w, s, t.before, t.before_size, w.runs[index].bytes + at, size, FOR_PACKETS):
                    drop_frame(w, s, DROP_QUEUE_FULL, w.runs[index].bytes + at, size)
                at += size
            index = w.runs[index].next
        inbox_ask(w, s, t.connection)
    pthread_mutex_unlock(&s.inbox_lock)


cdef inline void inbox_ask(Worker *w, Slot *s, uint64_t connection) noexcept nogil:
    """Only a secure connection's owner may send what was left (inbox lock held): ask it to."""
    if unlikely(load_relaxed64(&s.secure)) and load_acquire32(&s.owner) != w.index:
        ask(w, s, connection, DRAIN)


cdef bint inbox_put(Worker *w, Slot *s, const uint8_t *frame, uint32_t size, int use) noexcept nogil:
    """Append one frame (inbox lock held); False when the bound or memory is reached."""
    return inbox_put_behind(w, s, frame, 0, frame, size, use)


cdef bint inbox_put_behind(Worker *w, Slot *s, const uint8_t *before, uint32_t before_size, const uint8_t *frame,
                           uint32_t size, int use) noexcept nogil:
    """The same with something before the frame."""
    cdef uint64_t waiting = load_relaxed64(&s.inbox_bytes)
    cdef Record *r
    if waiting + before_size + size > w.engine.queue_bytes:
        return False
    r = record_behind(w, before, before_size, frame, size, w.now, use)
    if r == NULL:
        return False
    if s.inbox_tail == NULL:
        s.inbox_head = r
    else:
        s.inbox_tail.next = r
    s.inbox_tail = r
    store_ordered64(&s.inbox_bytes, waiting + before_size + size)
    return True


cdef Record *inbox_take(Slot *s) noexcept nogil:
    """Everything in the inbox."""
    cdef Record *r
    pthread_mutex_lock(&s.inbox_lock)
    r = s.inbox_head
    s.inbox_head = NULL
    s.inbox_tail = NULL
    store_ordered64(&s.inbox_bytes, 0)
    pthread_mutex_unlock(&s.inbox_lock)
    return r


cdef bint inbox_control(Worker *w, uint64_t connection, const uint8_t *frame, uint32_t size) noexcept nogil:
    """Leave a frame that is not part of a batch (control frames, messages). False: the connection is gone, or has as
    much of that waiting as it may: little while it has not authenticated, and nothing more once it stops reading. What
    has a flow waits with the packets, as part of their share."""
    cdef Slot *s = &w.engine.slots[<uint32_t>connection]
    cdef uint32_t memory = record_memory(size)
    cdef uint64_t most, waiting
    cdef uint32_t hash
    cdef bint stranger
    cdef bint counted = False
    cdef bint taken = False
    pthread_mutex_lock(&s.inbox_lock)
    if is_current(s, connection) and frame_flow(frame, size, w.engine.flow_key, &hash):
        taken = inbox_put(w, s, frame, size, FOR_PACKETS)
    elif is_current(s, connection):
        stranger = is_stranger(s)
        most = STRANGER_BYTES if stranger else CONTROL_BYTES_MAX
        if frame[0] & 15 == OP_CLOSE:
            most += record_memory(CONTROL_FRAME_MAX)       # the last word always has room
        waiting = load_relaxed64(&s.control_bytes)
        if waiting == 0 or waiting + memory <= most:
            counted = stranger and inbox_put(w, s, frame, size, FOR_STRANGERS)
            # A stranger's only answer has room in any case: a newcomer can log in, whatever the others hold.
            taken = counted or ((not stranger or waiting == 0) and inbox_put(w, s, frame, size, FOR_INPUT))
            add_relaxed64(&s.control_bytes, memory if taken else 0)
            add_relaxed64(&s.stranger_bytes, memory if counted else 0)
    if taken:
        inbox_ask(w, s, connection)
    pthread_mutex_unlock(&s.inbox_lock)
    return taken
