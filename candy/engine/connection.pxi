# The end of a connection, and what Python is told of it.
#
# OPEN -> CLOSING (a close frame is on its way; input is thrown away) -> CLOSED -> reported to Python, which frees the
# slot.

cdef enum:
    CLOSE_WAIT_NS = 1000000000      # how long the peer may take to close after our close frame


cdef bint connection_watch(Worker *w, Slot *s) noexcept nogil:
    """Have this worker's epoll watch it; False: the kernel refused."""
    cdef epoll_event event
    event.events = <uint32_t>EPOLLIN | <uint32_t>EPOLLET
    if s.kind <= SLOT_TUN:          # what a UDP socket does not take is dropped
        event.events |= <uint32_t>EPOLLOUT | <uint32_t>EPOLLRDHUP
    event.data.u64 = slot_connection(w, s)
    return epoll_ctl(w.ep, EPOLL_CTL_ADD, s.fd, &event) == 0


cdef void connection_delist(Worker *w, Slot *s) noexcept nogil:
    """Take it out of this worker's list."""
    cdef uint32_t moved
    w.slot_count -= 1
    moved = w.slots[w.slot_count]
    w.slots[s.worker_index] = moved
    w.engine.slots[moved].worker_index = s.worker_index


cdef void connection_close(Worker *w, Slot *s, Cause cause) noexcept nogil:
    """End it now. Its number is dead from here on; Python hears of it from report_departed()."""
    cdef uint32_t moved
    cdef Record *inbox
    if s.state == STATE_CLOSING:
        w.closing_count -= 1
        moved = w.closing[w.closing_count]
        w.closing[s.closing_index] = moved
        w.engine.slots[moved].closing_index = s.closing_index
    s.state = STATE_CLOSED
    s.departed = slot_connection(w, s)
    if s.cause == CAUSE_NONE:
        s.cause = cause
    point_lock(POINT_TAKEN, &s.send_lock)
    # First the generation, then the descriptor, both under the lock: else the kernel could give its number to another
    # connection while a packet for this one is being sent.
    store_ordered64(&s.generation, next_generation(s))
    point(POINT_MOVED_ON)
    if s.tls != NULL:
        tls_farewell(s)
        # What is not read would make a reset of the end, which may overtake the alert.
        transport_read(s, w.cipher, CIPHER_BYTES)
    epoll_ctl(w.ep, EPOLL_CTL_DEL, s.fd, NULL)
    close_fd(s.fd)
    s.fd = -1
    queue_free(w, s)
    link_end(s)
    # Still under the lock: else another thread's settle() could move what was appended before the generation went on to
    # a new queue of the closed slot, and the slot's next owner would get it.
    inbox = inbox_take(s)
    pthread_mutex_unlock(&s.send_lock)
    drops(w, s, DROP_CLOSED, records_free(w, inbox, w.engine.flow_key))
    store_relaxed64(&s.control_bytes, 0)
    stranger_release(w, s)
    block_give(w, s.spill)
    block_give(w, s.fragments)
    s.spill = NULL
    s.fragments = NULL
    fanout_end(w, s)
    tls_free(w, s)
    connection_delist(w, s)
    w.departed[w.departed_count] = <uint32_t>(s - w.engine.slots)
    w.departed_count += 1
    point(POINT_CLOSED)


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
    s.closing_index = w.closing_count
    w.closing[w.closing_count] = <uint32_t>(s - w.engine.slots)
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
            s.queue.control == NULL and queue_committed(s.queue) == 0)) and queue_finish(w, s):
        transport_finish(s)
    done = s.broken or (s.finished and s.cause == CAUSE_PEER)   # both close frames are sent
    pthread_mutex_unlock(&s.send_lock)
    if done:
        connection_close(w, s, s.cause)


cdef void connection_fail(Worker *w, Slot *s, uint16_t code) noexcept nogil:
    """The peer broke the protocol: tell it the code that it deserves, and end."""
    cdef uint8_t body[2]
    store_be16(body, code)
    flush(w)                        # what it sent before, to itself too, goes before the close frame
    post_close(w, s, body, 2)
    connection_begin_close(w, s, CAUSE_TOO_LARGE if code == CLOSE_TOO_LARGE else CAUSE_PROTOCOL)


cdef void connection_answer_close(Worker *w, Slot *s, Frame *f) noexcept nogil:
    """The peer's close frame: "an endpoint MUST send a Close frame in response", with the code it received."""
    flush(w)
    post_close(w, s, f.payload, 2 if f.length >= 2 else 0)
    connection_begin_close(w, s, CAUSE_PEER)
