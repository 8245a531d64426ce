# TLS handshakes: on a thread of their own, a worker that no packet passes, because one signature takes as long as a
# thousand packets. The connection moves to its home behind it.
#
# 1. hello_is_there()     a server makes no SSL before
# 2. handshake_turn()     as far as the socket goes
# 3. handshake_done()     the peer's key is the right one; HTTP comes next (http.pxi), or it is noted for
# 4. hand_over()          the home is asked to take it

cdef enum:
    MESSAGE_HEADER = 4              # type and length of a handshake message
    MESSAGE_CLIENT_HELLO = 1
    HELLO_RECORDS = 16              # in which a ClientHello may come; RECORD_MAX bytes of it
    HELLO_MOST = RECORD_MAX + HELLO_RECORDS * (RECORD_HEADER + 1)
    PIN_BYTES = 32                  # SHA-256


cdef void handshake_turn(Worker *w, Slot *s) noexcept nogil:
    """Go on with a handshake; the connection may be closed."""
    cdef Tls *t = s.tls
    cdef int r, error
    if t.ssl == NULL:
        if not hello_is_there(w, s):
            return
        if not tls_make(s):
            connection_close(w, s, CAUSE_HANDSHAKE_FAILED)
            return
        if t.http != NULL:
            tell(w, s, EV_HELLO, NULL, 0)
    ERR_clear_error()
    r = SSL_do_handshake(t.ssl)
    if r == 1:
        handshake_done(w, s)
        return
    error = SSL_get_error(t.ssl, r)
    if error == SSL_ERROR_WANT_READ or error == SSL_ERROR_WANT_WRITE:
        return                                  # the socket gave or took all that it could: an event will tell
    tell_tls(w, s)
    connection_close(w, s, CAUSE_HANDSHAKE_FAILED)


cdef bint hello_is_there(Worker *w, Slot *s) noexcept nogil:
    """Whether the whole ClientHello is there. Until it is, an event tells when it may be. What can't become one ends
    here."""
    cdef int64_t needed = 0
    cdef int lowat = 1
    cdef ssize_t n = transport_peek(s, w.cipher, HELLO_MOST)
    if n < 0 and errno == EAGAIN:
        return False
    if n > 0:
        needed = hello_bytes(w.cipher, <uint32_t>n)
    if n <= 0 or needed < 0 or (s.hung_up and n < needed):
        connection_close(w, s, CAUSE_RESET if n < 0 else CAUSE_HANDSHAKE_FAILED if needed < 0 else CAUSE_EOF)
        return False
    if n < needed:
        lowat = <int>needed
    setsockopt(s.fd, SOL_SOCKET, SO_RCVLOWAT, &lowat, sizeof(lowat))
    return n >= needed


cdef int64_t hello_bytes(const uint8_t *p, uint32_t n) noexcept nogil:
    """How many bytes a stream that begins with these `n` has to have, so that more can be said of its ClientHello, or
    that is whole; -1: it is none, or longer than any that we want. Its message may be cut into records anywhere
    (RFC 8446, 5.1)."""
    cdef uint8_t head[MESSAGE_HEADER]
    cdef uint32_t got = 0           # bytes of the message
    cdef uint32_t wanted = MESSAGE_HEADER
    cdef uint32_t at = 0
    cdef uint32_t size, part
    for _ in range(HELLO_RECORDS):
        if n > at and p[at] != HANDSHAKE:
            return -1
        if n < at + RECORD_HEADER:
            return at + RECORD_HEADER
        size = record_bytes(p + at) - RECORD_HEADER
        at += RECORD_HEADER
        if size == 0 or size > RECORD_MAX or at + size > HELLO_MOST:
            return -1
        part = min(size, n - at)
        if got < MESSAGE_HEADER:
            memcpy(head + got, p + at, min(part, <uint32_t>MESSAGE_HEADER - got))
            if got + part >= MESSAGE_HEADER and head[0] == MESSAGE_CLIENT_HELLO:
                wanted += load_be32(head) & 0xFFFFFF
                if wanted > RECORD_MAX:
                    return -1
        got += part
        at += size
        # What is another message is for an SSL to answer.
        if part < size or got >= wanted:
            return at
    return -1


cdef void handshake_done(Worker *w, Slot *s) noexcept nogil:
    """The peer is who its certificate says; a pin says which key that has to have. From here on there are keys alone,
    and no SSL."""
    cdef uint8_t detail[40]
    if not key_is_pinned(s.tls):
        tell_certificate(w, s)
        memcpy(detail, b"\0\0another key than the pinned one", 33)
        tell(w, s, EV_TLS, detail, 33)
        connection_close(w, s, CAUSE_HANDSHAKE_FAILED)
        return
    if not tls_begin(s):
        tell_tls(w, s)
        connection_close(w, s, CAUSE_HANDSHAKE_FAILED)
        return
    s.tls.secured = True
    s.deadline_ns = 0
    if s.tls.http == NULL:
        secured(w, s)
    elif not tell(w, s, EV_SECURED, NULL, 0):
        # Nobody would ever end it.
        connection_close(w, s, CAUSE_LOCAL)


cdef void secured(Worker *w, Slot *s) noexcept nogil:
    """Frames come next: it moves to its home behind the turns."""
    w.secured[w.secured_count] = <uint32_t>(s - w.engine.slots)
    w.secured_count += 1


cdef bint key_is_pinned(const Tls *t) noexcept nogil:
    """Whether the digest of the peer's public key (SubjectPublicKeyInfo) is one of those that were given, if any."""
    cdef const Additions *added = <const Additions *>SSL_CTX_get_ex_data(t.context, additions_index)
    cdef const void *certificate
    cdef uint8_t *key = NULL
    cdef uint8_t digest[64]
    cdef unsigned int size = 0
    cdef uint32_t i
    cdef int n
    if added == NULL or added.pin_count == 0:
        return True
    certificate = peer_certificate(t)
    if certificate == NULL:
        return False
    n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &key)
    if n > 0 and not EVP_Digest(key, <size_t>n, digest, &size, EVP_sha256(), NULL):
        size = 0
    CRYPTO_free(key, b"", 0)
    for i in range(added.pin_count):
        if size == PIN_BYTES and memcmp(digest, added.pins + i * PIN_BYTES, PIN_BYTES) == 0:
            return True
    return False


cdef void hand_over(Worker *w) noexcept nogil:
    """Give connections to their homes. Behind the turns: from here on their slots are not this thread's."""
    cdef uint32_t i
    cdef Slot *s
    for i in range(w.secured_count):
        s = &w.engine.slots[w.secured[i]]
        epoll_ctl(w.ep, EPOLL_CTL_DEL, s.fd, NULL)
        connection_delist(w, s)
        s.worker_index = NO_INDEX
        s.tls.shaking = False
        s.readable = s.writable = s.ready = s.hung_up = False
        point(POINT_SECURED)
        # Asked under the lock: the home may close the connection as soon as it is its owner.
        pthread_mutex_lock(&s.send_lock)
        store_release32(&s.owner, s.home)
        point(POINT_HANDED)
        ask(w, s, slot_connection(w, s), TAKE)
        pthread_mutex_unlock(&s.send_lock)
    w.secured_count = 0


cdef bint take_over(Worker *w, Slot *s) noexcept nogil:
    """Its handshake is done: watch it from here on. False: the kernel refused."""
    if not connection_watch(w, s):
        connection_close(w, s, CAUSE_RESET)
        return False
    s.readable = s.writable = True
    make_ready(w, s, slot_connection(w, s))
    return True
