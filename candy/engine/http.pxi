# HTTP between a TLS handshake and the frames: plaintext to and from a socket at whose far end Python's HTTP is. Runs on
# the thread of handshakes.
#
#     peer ══ TLS ══ SSL ──http_up──▶ h.plain ┆ ──▶ aiohttp      up to and with the empty line behind each head
#                        ◀─http_down─         ┆ ◀──
#
# 1. http_up()      what follows a head stays in the SSL, because what is in a socket can't be taken back
# 2. Python         PASS: the next head may pass; UPGRADE: frames come next; an end
# 3. http_over()    its answers to earlier requests have left: the connection moves to its home
#
# Nothing is kept here: bytes stay in the SSL, or in the socket that they came by, until the other side takes them. This
# part knows no more of HTTP than where a head ends, and the status of a response.

cdef enum:
    LEFT_MOST = 4194304             # bytes of a peer that are thrown away behind Python's end

cdef enum Down:
    DOWN_DRY                        # Python has written nothing more
    DOWN_FULL                       # the peer's socket takes no more
    DOWN_ENDED                      # Python has ended its side
    DOWN_MORE                       # the turn's work is used up


cdef uint32_t head_pass(Head *h, const uint8_t *p, uint32_t n) noexcept nogil:
    """How many of these bytes belong to the head at hand. An empty line is one to whoever is lenient about its end, for
    too early a hold costs but a wait; before the head there may be some."""
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
    """Seal what Python has written, and send it. What the peer's socket does not take is not taken from Python's: an
    SSL wants the same bytes again."""
    cdef Tls *t = s.tls
    cdef Http *h = t.http
    cdef ssize_t n
    cdef int r
    while w.work > 0:
        n = recv(h.plain, w.buffer, h.writing if h.writing != 0 else <int>RECORD_MAX, MSG_DONTWAIT | MSG_PEEK)
        if n < 0 and (errno == EAGAIN or errno == EINTR):
            return DOWN_DRY
        if n <= 0:
            return DOWN_ENDED
        w.work -= WORK_CALL + n
        ERR_clear_error()
        r = SSL_write(t.ssl, w.buffer, <int>n)
        if r <= 0 and SSL_get_error(t.ssl, r) == SSL_ERROR_WANT_WRITE:
            h.writing = <int>n
            return DOWN_FULL
        if r != n:
            http_fail(w, s)
            return DOWN_ENDED
        h.writing = 0
        recv(h.plain, w.buffer, <size_t>n, MSG_DONTWAIT)
    return DOWN_MORE


cdef void http_up(Worker *w, Slot *s) noexcept nogil:
    """Give Python what the peer has sent, up to and with the empty line behind the head at hand."""
    cdef Tls *t = s.tls
    cdef Http *h = t.http
    cdef Head head
    cdef uint32_t others = 0
    cdef uint32_t size
    cdef ssize_t n
    cdef int r, error
    while not h.held and not t.ended and w.work > 0:
        ERR_clear_error()
        r = SSL_peek(t.ssl, w.buffer, RECORD_MAX)
        if r <= 0:
            error = SSL_get_error(t.ssl, r)
            if error == SSL_ERROR_WANT_WRITE or (error == SSL_ERROR_WANT_READ and t.dry):
                return
            if error == SSL_ERROR_ZERO_RETURN:
                t.ended = True
                shutdown(h.plain, SHUT_WR)
                return
            others += 1
            w.work -= WORK_KEYS
            if error != SSL_ERROR_WANT_READ or others > OTHERS_MOST:
                http_fail(w, s)
                return
            continue
        head = h.head
        size = <uint32_t>r if h.whole else head_pass(&head, w.buffer, <uint32_t>r)
        n = send(h.plain, w.buffer, size, MSG_DONTWAIT | MSG_NOSIGNAL)
        w.work -= WORK_CALL + size
        if n < 0:
            return                              # full: an event will tell; or ended by Python, which http_down() sees
        SSL_read(t.ssl, w.buffer, <int>n)
        if not h.whole:
            head_pass(&h.head, w.buffer, <uint32_t>n)
            if h.head.over:
                http_judge(s, h)


cdef void http_fail(Worker *w, Slot *s) noexcept nogil:
    """TLS can't go on."""
    tell_tls(w, s)
    connection_close(w, s, s.tls.cause if s.tls.cause != CAUSE_NONE else CAUSE_TLS)


cdef void http_leave(Worker *w, Slot *s) noexcept nogil:
    """Python has ended the connection. A socket closed with unread input answers with a reset, which would cost the
    peer the last answer: so its end is awaited for a moment."""
    cdef Tls *t = s.tls
    pthread_mutex_lock(&s.send_lock)
    ERR_clear_error()
    SSL_shutdown(t.ssl)
    transport_finish(s)
    pthread_mutex_unlock(&s.send_lock)
    t.finished = True
    t.http.leaving = True
    s.deadline_ns = w.now + CLOSE_WAIT_NS
    if t.ended:
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
    http_free(s.tls)
    secured(w, s)
