# The end of a connection, and what Python is told of it.
#
# OPEN -> CLOSING (a close frame is on its way; input is thrown away) -> CLOSED -> reported to Python, which frees the
# slot.

cdef enum:
    CLOSE_WAIT_NS = 1000000000      # how long the peer may take to close after our close frame
    EV_MESSAGE = 1
    EV_PONG = 2
    EV_CLOSED = 3
    EV_LOST = 4


cdef inline uint64_t slot_connection(Worker *w, Slot *s) noexcept nogil:
    """The connection number: generation and slot."""
    return load_relaxed64(&s.generation) << 32 | <uint64_t>(s - w.engine.slots)


cdef void tell(Worker *w, Slot *s, uint32_t kind, const uint8_t *detail, uint32_t length) noexcept nogil:
    """Put an event into the outbox, unless this connection or all together have too many there."""
    cdef Outbox *o = &w.engine.outbox
    cdef uint8_t *more
    cdef size_t needed
    cdef size_t room
    cdef uint64_t connection = slot_connection(w, s)
    cdef bint fits = load_relaxed64(&s.pending) < PENDING_MAX
    if fits:
        pthread_mutex_lock(&o.lock)
        needed = o.used + 16 + length
        if needed > o.room:
            room = o.room * 2 if o.room * 2 > needed else needed + 4096
            more = <uint8_t *>realloc(o.bytes, room) if room <= OUTBOX_BYTES_MAX else NULL
            if more == NULL:
                fits = False
            else:
                o.bytes = more
                o.room = room
        if fits:
            memcpy(o.bytes + o.used, &connection, 8)
            memcpy(o.bytes + o.used + 8, &kind, 4)
            memcpy(o.bytes + o.used + 12, &length, 4)
            if length != 0:
                memcpy(o.bytes + o.used + 16, detail, length)
            o.used = needed
            add_relaxed64(&s.pending, 1)
            outbox_signal(o)
        pthread_mutex_unlock(&o.lock)
    if not fits:
        drop(w, s, DROP_EVENTS)


cdef void outbox_signal(Outbox *o) noexcept nogil:
    """Make Python's descriptor readable (outbox lock held)."""
    cdef uint64_t one = 1
    if not o.signalled:
        o.signalled = True
        write_fd(o.signal, &one, 8)


cdef void connection_close(Worker *w, Slot *s, Cause cause) noexcept nogil:
    """End it now. Its number is dead from here on; Python hears of it from report_departed()."""
    cdef uint32_t moved
    cdef Block *inbox
    if s.state == STATE_CLOSING:
        w.closing_count -= 1
    s.state = STATE_CLOSED
    if s.cause == CAUSE_NONE:
        s.cause = cause
    pthread_mutex_lock(&s.send_lock)
    # First the generation, then the descriptor, both under the lock: else the kernel could give its number to another
    # connection while a packet for this one is being sent.
    store_ordered64(&s.generation, load_relaxed64(&s.generation) + 1)
    epoll_ctl(w.ep, EPOLL_CTL_DEL, s.fd, NULL)
    close_fd(s.fd)
    s.fd = -1
    queue_free(w, s)
    # Still under the lock: else another thread's settle() could move what was appended before the generation went on to
    # a new queue of the closed slot, and the slot's next owner would get it.
    inbox = inbox_take(s)
    pthread_mutex_unlock(&s.send_lock)
    drops(w, s, DROP_CLOSED, records_packets(inbox))
    blocks_give(&w.engine.pool, inbox)
    blocks_give(&w.engine.pool, s.spill)
    blocks_give(&w.engine.pool, s.fragments)
    s.spill = NULL
    s.fragments = NULL
    w.slot_count -= 1
    moved = w.slots[w.slot_count]
    w.slots[s.worker_index] = moved
    w.engine.slots[moved].worker_index = s.worker_index
    w.departed[w.departed_count] = <uint32_t>(s - w.engine.slots)
    w.departed_count += 1


cdef void report_departed(Worker *w) noexcept nogil:
    """Tell Python which connections ended. Not before this worker is through with them: Python may use the slots
    again."""
    cdef Outbox *o = &w.engine.outbox
    cdef uint32_t i
    cdef Slot *s
    if w.departed_count == 0:
        return
    pthread_mutex_lock(&o.lock)
    for i in range(w.departed_count):
        s = &w.engine.slots[w.departed[i]]
        o.closed[o.closed_count] = (load_relaxed64(&s.generation) - 1) << 32 | w.departed[i]
        o.closed_cause[o.closed_count] = <uint8_t>s.cause
        o.closed_count += 1
    outbox_signal(o)
    pthread_mutex_unlock(&o.lock)
    w.departed_count = 0


cdef void post_close(Worker *w, Slot *s, const uint8_t *body, uint32_t length) noexcept nogil:
    """Send a close frame, once, and from here on nothing: "the application MUST NOT send any more data frames after
    sending a Close frame"."""
    if add_relaxed64(&s.closing, 1) == 0:
        post_message(w, slot_connection(w, s), OP_CLOSE, body, length)


cdef void connection_begin_close(Worker *w, Slot *s, Cause cause) noexcept nogil:
    """A close frame was posted: send nothing but control frames any more, and wait for the peer's end."""
    if s.state != STATE_OPEN:
        return
    s.state = STATE_CLOSING
    s.cause = cause
    s.deadline_ns = w.now + CLOSE_WAIT_NS
    w.closing_count += 1
    connection_finish(w, s)


cdef void connection_finish(Worker *w, Slot *s) noexcept nogil:
    """Once the close frame has left, end our side of the stream; the peer's end closes the connection."""
    cdef bint done
    pthread_mutex_lock(&s.send_lock)
    inbox_drain(w, s)
    if s.queue != NULL:
        queue_send(w, s)
    if not s.finished and not s.broken and (s.queue == NULL or (
            s.queue.flows[CONTROL_FLOW].head == NULL and queue_committed(s.queue) == 0)):
        s.finished = True
        shutdown(s.fd, SHUT_WR)
    done = s.broken or (s.finished and s.cause == CAUSE_PEER)   # both close frames are sent
    pthread_mutex_unlock(&s.send_lock)
    if done:
        connection_close(w, s, s.cause)


cdef void connection_fail(Worker *w, Slot *s, uint16_t code) noexcept nogil:
    """The peer broke the protocol: tell it the code that it deserves, and end."""
    cdef uint8_t body[2]
    store_be16(body, code)
    post_close(w, s, body, 2)
    connection_begin_close(w, s, CAUSE_TOO_LARGE if code == 1009 else CAUSE_PROTOCOL)


cdef void connection_answer_close(Worker *w, Slot *s, Frame *f) noexcept nogil:
    """The peer's close frame: "an endpoint MUST send a Close frame in response", with the code it received."""
    post_close(w, s, f.payload, 2 if f.length >= 2 else 0)
    connection_begin_close(w, s, CAUSE_PEER)
