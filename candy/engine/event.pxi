# What threads tell each other: a worker is asked for something (requests), Python is told something (the outbox), and a
# worker notes for itself who has more to do (the ready list) and who ended.

cdef enum:
    EV_MESSAGE = 1
    EV_PONG = 2
    EV_CLOSED = 3
    EV_LOST = 4
    EV_CLOSING = 5
    EV_PING = 6
    EV_TLS = 7
    EV_HELLO = 8
    EV_SECURED = 9
    EV_CERTIFICATE = 10
    EV_CONTROL = 11
    EV_WANTED = 12
    EV_CLEAR = 13
    EV_UNKNOWN = 14
    EV_CONFIRMED = 15
    EV_NOTED = 16
    EV_GROUPED = 17
    EV_LINK = 18
    EV_STUN = 19
    EV_QUIET = 20
    EV_OLD = 21
    EV_MET = 22
    EV_DOUBT = 23
    PENDING_MAX = 64                # events of one connection that Python has not seen yet
    OUTBOX_BYTES_MAX = 8388608      # and of all together


cdef void ask(Worker *from_, Slot *s, uint64_t connection, uint64_t what) noexcept nogil:
    """Ask the worker that owns a connection for something (see enum Request). Python asks for what it found open, and
    others ask under the send lock or the inbox lock. Nothing is allocated, and no request is lost: the thread that sets
    the first bit makes the entry, and the worker takes all bits with it. An entry is void once its connection has
    ended: its slot may be free by then, or another worker's."""
    cdef Worker *w = &from_.engine.workers[load_acquire32(&s.owner)]
    cdef uint64_t one = 1
    cdef bint first
    if or_ordered64(&s.asked, what) != 0:
        return
    pthread_mutex_lock(&w.request_lock)
    first = w.request_count == 0
    w.requests[w.request_count] = connection
    store_relaxed32(&w.request_count, w.request_count + 1)
    pthread_mutex_unlock(&w.request_lock)
    # A worker looks for requests before it waits, so it need not wake itself.
    if first and from_ != w:
        write_fd(w.wake, &one, 8)


cdef bint tell(Worker *w, Slot *s, uint32_t kind, const uint8_t *detail, uint32_t length) noexcept nogil:
    """Put an event into the outbox; False: this connection or all together have too many there."""
    return tell_of(w, s, kind, detail, length, PENDING_MAX)


cdef bint tell_of(Worker *w, Slot *s, uint32_t kind, const uint8_t *detail, uint32_t length,
                  uint64_t most) noexcept nogil:
    """The same, for which the connection may have so many there."""
    cdef Outbox *o = &w.engine.outbox
    cdef uint8_t *more
    cdef size_t needed
    cdef size_t room
    cdef uint64_t connection = slot_connection(w, s)
    cdef bint fits = load_relaxed64(&s.pending) < most
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
    return fits


cdef void outbox_signal(Outbox *o) noexcept nogil:
    """Make Python's descriptor readable (outbox lock held)."""
    cdef uint64_t one = 1
    if not o.signalled:
        o.signalled = True
        write_fd(o.signal, &one, 8)


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
        o.closed[o.closed_count] = s.departed
        o.closed_cause[o.closed_count] = <uint8_t>s.cause
        o.closed_count += 1
    outbox_signal(o)
    pthread_mutex_unlock(&o.lock)
    w.departed_count = 0


cdef inline void make_ready(Worker *w, Slot *s, uint64_t connection) noexcept nogil:
    """It has something to do, and gets a turn behind the others."""
    cdef Turns *t = &w.greedy if s.greedy else &w.modest
    if not s.ready:
        s.ready = True
        t.connections[t.count] = connection
        t.count += 1


cdef inline void enlist(Worker *w, Slot *s, uint64_t connection) noexcept nogil:
    """Enter a connection into this worker's list, the first time that it hears of it."""
    if s.worker_index == NO_INDEX:
        s.worker_index = w.slot_count
        w.slots[w.slot_count] = <uint32_t>connection
        w.slot_count += 1
