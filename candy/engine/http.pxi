# HTTP between a TLS handshake and the frames: plaintext to and from a socket at whose far end Python's HTTP is. Runs on
# the thread of handshakes.
#
#     peer ══ TLS ══ slot ──http_up──▶ h.plain ┆ ──▶ Python      up to and with the empty line behind each head
#                         ◀─http_down─         ┆ ◀──
#
# 1. http_up()      what follows a head is held in the slot, because what is in a socket can't be taken back
# 2. Python         PASS: the next head may pass; UPGRADE: frames come next; an end
# 3. http_over()    its answers to earlier requests have left: the connection moves to its home
#
# No more is read from either side than the other takes: what waits is one read of the peer's, in the slot's spill, and
# one record of Python's. This part knows no more of HTTP than where a head ends, and the status of a
# response.

cdef enum:
    LEFT_MOST = 4194304             # bytes of a peer that are thrown away behind Python's end

cdef enum Down:
    DOWN_DRY                        # Python has written nothing more
    DOWN_FULL                       # the peer's socket takes no more
    DOWN_ENDED                      # Python has ended its side
    DOWN_MORE                       # the turn's work is used up


cdef uint32_t head_pass(Head *h, const uint8_t *p, uint32_t n) noexcept nogil:
    """How many of these bytes belong to the head at hand. LF alone ends a line too: some parsers take it for an end,
    and a head that is held too early only waits. Empty lines may precede a head."""
    cdef uint32_t i
    for i in range(n):
        if p[i] == 10:
            if not h.begun and h.size != 0:
                h.over = True
                return i + 1
            h.begun = False
        elif p[i] != 13:
            h.begun = True
            if h.size < sizeof(h.first):
                h.first[h.size] = p[i]
                h.size += 1
    return n


cdef void http_judge(Slot *s, Http *h) noexcept nogil:
    """A head has passed: does anything that follows wait? A request's does, and that of a response that switches. An
    interim one has another head behind it."""
    if s.kind == SLOT_CLIENT and (h.head.size < sizeof(h.head.first) or memcmp(h.head.first + 9, b"101", 3) != 0):
        h.whole = h.head.size < sizeof(h.head.first) or h.head.first[9] != 49
        memset(&h.head, 0, sizeof(Head))
    else:
        h.held = True


cdef bint http_asked(Worker *w, Slot *s, uint64_t what) noexcept nogil:
    """What Python wants; False: the connection was closed."""
    cdef Http *h = s.tls.http
    cdef epoll_event event
    if what & OPEN:
        pthread_mutex_lock(&s.send_lock)
        h.plain = h.given
        pthread_mutex_unlock(&s.send_lock)
        event.events = <uint32_t>EPOLLIN | <uint32_t>EPOLLOUT | <uint32_t>EPOLLRDHUP | <uint32_t>EPOLLET
        event.data.u64 = slot_connection(w, s)
        if epoll_ctl(w.ep, EPOLL_CTL_ADD, h.plain, &event) != 0:
            connection_close(w, s, CAUSE_LOCAL)
            return False
    if what & PASS:
        h.held = False
        memset(&h.head, 0, sizeof(Head))
    if what & UPGRADE:
        h.upgrading = True
    make_ready(w, s, slot_connection(w, s))
    return True


cdef bint http_turn(Worker *w, Slot *s) noexcept nogil:
    """Pass on what there is, both ways; True: more is left. The connection may be closed."""
    cdef Http *h = s.tls.http
    cdef Down down
    if h == NULL or h.plain < 0:
        return False
    if h.leaving:
        return http_discard(w, s)
    down = http_down(w, s)
    if s.state == STATE_CLOSED:
        return False
    if h.upgrading:
        if down == DOWN_DRY or down == DOWN_ENDED:
            http_over(w, s)
        return down == DOWN_MORE
    if down == DOWN_ENDED:
        http_leave(w, s)
        return s.state != STATE_CLOSED
    http_up(w, s)
    return s.state != STATE_CLOSED and w.work <= 0


cdef Down http_down(Worker *w, Slot *s) noexcept nogil:
    """Seal what Python has written, and send it. While the peer's socket has not taken what was sealed, nothing more is
    taken from Python's."""
    cdef Down down
    pthread_mutex_lock(&s.send_lock)
    down = http_seal(w, s)
    pthread_mutex_unlock(&s.send_lock)
    return down


cdef Down http_seal(Worker *w, Slot *s) noexcept nogil:
    """http_down() under the send lock."""
    cdef Tls *t = s.tls
    cdef Http *h = t.http
    cdef iovec piece
    cdef Block *b
    cdef ssize_t n
    while w.work > 0:
        b = h.sealed
        if b != NULL:
            piece.iov_base = block_bytes(b) + b.start
            piece.iov_len = b.end - b.start
        else:
            n = recv(h.plain, w.buffer, RECORD_MAX, MSG_DONTWAIT)
            if n < 0 and (errno == EAGAIN or errno == EINTR):
                return DOWN_DRY
            tls_seal_into(t, w.sealed, SEALED_ROOM)
            if n <= 0:
                return DOWN_ENDED
            if not tls_seal(t, w.buffer, <uint32_t>n):
                transport_break(s)              # the stream can't be continued
                return DOWN_ENDED
            piece.iov_base = w.sealed
            piece.iov_len = t.output_used
        n = transport_write(s, &piece, 1, 0)
        if n < 0 and errno != EAGAIN and errno != EINTR:
            transport_break(s)
            return DOWN_ENDED
        n = max(n, <ssize_t>0)
        w.work -= WORK_CALL + n
        if b != NULL:
            b.start += <uint32_t>n
        elif <size_t>n < piece.iov_len:
            h.sealed = block_of(w, w.sealed + n, <uint32_t>(piece.iov_len - <size_t>n), FOR_CERTAIN)
            if h.sealed == NULL:
                transport_break(s)
                return DOWN_ENDED
        if b != NULL and b.start == b.end:
            block_give(w, b)
            h.sealed = NULL
        if h.sealed != NULL:
            return DOWN_FULL
    return DOWN_MORE


cdef void http_up(Worker *w, Slot *s) noexcept nogil:
    """Give Python what the peer has sent, up to and with the empty line behind the head at hand."""
    cdef Http *h = s.tls.http
    cdef Block *b
    cdef Head head
    cdef uint8_t *p
    cdef size_t wanted
    cdef ssize_t n, given
    cdef uint32_t size
    while not h.held and w.work > 0:
        b = s.spill
        if b != NULL:
            p = block_bytes(b) + b.start
            n = b.end - b.start
        else:
            p = w.buffer
            n = tls_read(w, s, p, RECORD_MAX, &wanted)
            if n < 0 and errno == EINTR:
                continue
            if n < 0:
                if errno != EAGAIN:
                    connection_close(w, s, s.tls.cause if errno == EPROTO else CAUSE_RESET)
                return
            if n == 0:
                shutdown(h.plain, SHUT_WR)
                return
        head = h.head
        size = <uint32_t>n if h.whole else head_pass(&head, p, <uint32_t>n)
        given = max(send(h.plain, p, size, MSG_DONTWAIT | MSG_NOSIGNAL), <ssize_t>0)
        w.work -= WORK_CALL + given
        if not h.whole:
            head_pass(&h.head, p, <uint32_t>given)
            if h.head.over:
                http_judge(s, h)
        if b != NULL:
            b.start += <uint32_t>given
            if b.start == b.end:
                block_give(w, b)
                s.spill = NULL
        elif given < n:
            # Bytes of TLS can't be dropped, and are no more than a read and a record.
            s.spill = block_of(w, p + given, <uint32_t>(n - given), FOR_CERTAIN)
            if s.spill == NULL:
                connection_close(w, s, CAUSE_LOCAL)
                return
        if given < size:
            return                              # full: an event will tell; or ended by Python, which http_down() sees


cdef void http_leave(Worker *w, Slot *s) noexcept nogil:
    """Python has ended the connection. A socket closed with unread input answers with a reset, which would cost the
    peer the last answer: so its end is awaited for a moment."""
    cdef Tls *t = s.tls
    pthread_mutex_lock(&s.send_lock)
    tls_farewell(s)
    transport_finish(s)
    pthread_mutex_unlock(&s.send_lock)
    t.http.leaving = True
    s.deadline_ns = w.now + CLOSE_WAIT_NS
    if t.ended or s.broken:
        connection_close(w, s, CAUSE_LOCAL)


cdef bint http_discard(Worker *w, Slot *s) noexcept nogil:
    """Throw away what the peer still sends; True: more is there."""
    cdef Http *h = s.tls.http
    cdef ssize_t n
    while w.work > 0:
        n = transport_read(s, w.cipher, CIPHER_BYTES)
        if n == 0 or (n < 0 and errno != EAGAIN and errno != EINTR) or h.left > LEFT_MOST:
            connection_close(w, s, CAUSE_LOCAL)
            return False
        if n < 0:
            return False
        h.left += <uint32_t>n
        w.work -= WORK_CALL + n
    return True


cdef void http_over(Worker *w, Slot *s) noexcept nogil:
    """Frames come next."""
    epoll_ctl(w.ep, EPOLL_CTL_DEL, s.tls.http.plain, NULL)
    s.held = s.spill != NULL
    http_free(w, s.tls)
    secured(w, s)
