# TLS handshakes: on a thread of their own, a worker that no packet passes, because one signature takes as long as a
# thousand packets. The connection moves to its home behind it.
#
# 1. hello_is_there()     a server makes no SSL before
# 2. handshake_turn()     as far as the socket goes
# 3. handshake_done()     the peer's key is the right one; noted for
# 4. hand_over()          the home is asked to take it

cdef enum:
    RECORD_HEADER = 5
    RECORD_HANDSHAKE = 22


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
    """Whether the first record, which has the ClientHello, is whole. Until it is, an event tells when it may be. What
    is no TLS ends here."""
    cdef uint8_t head[RECORD_HEADER]
    cdef int there = 0
    cdef int needed = RECORD_HEADER
    cdef ssize_t n = transport_peek(s, head, RECORD_HEADER)
    if n < 0 and errno == EAGAIN:
        return False
    if n == RECORD_HEADER:
        needed = <int>record_bytes(head)
    if n <= 0 or head[0] != RECORD_HANDSHAKE or needed > RECORD_HEADER + RECORD_MAX:
        connection_close(w, s, CAUSE_EOF if n == 0 else CAUSE_RESET if n < 0 else CAUSE_HANDSHAKE_FAILED)
        return False
    if ioctl(s.fd, FIONREAD, &there) != 0 or there >= needed:
        needed = 1
    elif s.hung_up:
        connection_close(w, s, CAUSE_EOF)
        return False
    setsockopt(s.fd, SOL_SOCKET, SO_RCVLOWAT, &needed, sizeof(needed))
    return needed == 1


cdef void handshake_done(Worker *w, Slot *s) noexcept nogil:
    """The peer is who its certificate says; a pin says which key that has to have."""
    cdef uint8_t detail[40]
    if s.tls.pinned and not key_is_pinned(s.tls):
        memcpy(detail, b"\0\0another key than the pinned one", 33)
        tell(w, s, EV_TLS, detail, 33)
        connection_close(w, s, CAUSE_HANDSHAKE_FAILED)
        return
    w.secured[w.secured_count] = <uint32_t>(s - w.engine.slots)
    w.secured_count += 1


cdef bint key_is_pinned(const Tls *t) noexcept nogil:
    """Whether the digest of the peer's public key (SubjectPublicKeyInfo) is the one that was given."""
    cdef void *certificate = SSL_get1_peer_certificate(t.ssl)
    cdef uint8_t *key = NULL
    cdef uint8_t digest[64]
    cdef unsigned int size = 0
    cdef int n
    if certificate == NULL:
        return False
    n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &key)
    if n > 0 and not EVP_Digest(key, <size_t>n, digest, &size, EVP_sha256(), NULL):
        size = 0
    CRYPTO_free(key, b"", 0)
    X509_free(certificate)
    return size == sizeof(t.pin) and memcmp(digest, t.pin, sizeof(t.pin)) == 0


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
        s.readable = s.writable = s.ready = False
        # Asked under the lock: the home may close the connection as soon as it is its owner.
        pthread_mutex_lock(&s.send_lock)
        store_release32(&s.owner, s.home)
        ask(w, s, slot_connection(w, s), TAKE)
        pthread_mutex_unlock(&s.send_lock)
    w.secured_count = 0


cdef bint take_over(Worker *w, Slot *s) noexcept nogil:
    """Its handshake is done: watch it from here on. Its first turn sends what waits before it reads, so that an answer
    of its SSL's finds all that is committed sealed. False: the kernel refused."""
    if not connection_watch(w, s):
        connection_close(w, s, CAUSE_RESET)
        return False
    s.readable = s.writable = True
    make_ready(w, s, slot_connection(w, s))
    return True
