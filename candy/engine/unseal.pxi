# Reading over TLS: one read of ciphertext into w.cipher, whose records are opened at once into the worker's buffer.
# Runs on the connection's owner. What is left of a record stays in its SSL, so nothing waits in w.cipher.

cdef enum:
    OTHERS_MOST = 8                 # records without data in one read: tickets, and KeyUpdates, which cost new keys
    ANSWERS_MOST = 2048             # bytes of answers that wait for a peer: of one that asks for them and reads none
    CERTIFICATE_TOLD = 16384        # longest one that Python is shown, bytes


cdef ssize_t tls_read(Worker *w, Slot *s, uint8_t *data, size_t room, size_t most, size_t *wanted) noexcept nogil:
    """Read at most `most` bytes of ciphertext and open them into `room` bytes, which are at least RECORD_MAX more. As
    recv(), with 0 for the peer's close_notify, and EPROTO for what is in t.cause. `wanted` is more than was opened when
    the socket is empty."""
    cdef Tls *t = s.tls
    cdef ssize_t n
    cdef size_t got = 0
    cdef bint primed = t.primed
    cdef bint more
    if t.ended:
        return 0
    if t.cause != CAUSE_NONE:
        set_errno(EPROTO)
        return -1
    # First what came with the handshake, or behind the head of an upgrade, and is in the SSL.
    t.primed = False
    n = 0 if unlikely(primed) else transport_read(s, w.cipher, most)
    if n < 0:
        return n
    if n == 0 and not primed:
        t.cause = CAUSE_TRUNCATED
        set_errno(EPROTO)
        return -1
    w.work -= n
    got = tls_open(w, s, data, room, w.cipher, <uint32_t>n)
    if not t.ended:                 # an end is not heard, as TCP's is not
        store_relaxed64(&s.received_ns, w.now)
    if t.output_used != 0 and t.cause == CAUSE_NONE:
        tls_answer(w, s)
    # An end is told by the next read.
    more = primed or <size_t>n == most or s.hung_up or t.ended or t.cause != CAUSE_NONE
    if got != 0:
        wanted[0] = got + (not more)
        return <ssize_t>got
    set_errno(EINTR if more else EAGAIN)
    return -1


cdef size_t tls_open(Worker *w, Slot *s, uint8_t *data, size_t room, const uint8_t *cipher, uint32_t n) noexcept nogil:
    """Open all that was read; returns the bytes of plaintext. t.ended and t.cause tell an end, t.output what the SSL
    has to say."""
    cdef Tls *t = s.tls
    cdef size_t got = 0
    cdef uint32_t others = 0
    cdef int r, error
    t.input = cipher
    t.input_left = n
    t.output = t.said
    t.output_used = 0
    t.output_room = SAID_MAX
    ERR_clear_error()
    while True:
        r = SSL_read(t.ssl, data + got, <int>(room - got))
        if r > 0:
            got += <size_t>r
            continue
        error = SSL_get_error(t.ssl, r)
        if error == SSL_ERROR_WANT_READ:
            if t.input_left == 0:
                break
            others += 1
            w.work -= WORK_KEYS
            if others <= OTHERS_MOST:
                continue
        elif error == SSL_ERROR_ZERO_RETURN:
            t.ended = True
            break
        t.cause = CAUSE_TLS
        tell_tls(w, s)
        break
    t.input_left = 0
    return got


cdef void tls_answer(Worker *w, Slot *s) noexcept nogil:
    """Send what an SSL wrote while it read, behind what it wrote before."""
    cdef Tls *t = s.tls
    cdef uint8_t said[SAID_MAX]
    cdef uint32_t n = t.output_used
    cdef Queue *q
    memcpy(said, t.said, n)
    pthread_mutex_lock(&s.send_lock)
    q = queue_of(w, s)
    t.owed = n + (t.owed if q != NULL and queue_committed(q) != 0 else 0)
    if t.owed > ANSWERS_MOST:
        t.cause = CAUSE_TLS
        transport_break(s)
    elif q == NULL or (queue_committed(q) != 0 and not q.sealed) or not commit_more(w, q, said, n):
        transport_break(s)
    else:
        q.sealed = True
        queue_send(w, s)
    pthread_mutex_unlock(&s.send_lock)
    if t.cause != CAUSE_NONE:
        tell_tls(w, s)
    settle(w, s)


cdef inline const void *peer_certificate(const Tls *t) noexcept nogil:
    """A server's own certificate, also one that was refused; NULL before it came."""
    cdef const void *chain = SSL_get_peer_cert_chain(t.ssl)
    return OPENSSL_sk_value(chain, 0) if chain != NULL else NULL


cdef void tell_certificate(Worker *w, Slot *s) noexcept nogil:
    """Show Python the certificate that will not do."""
    cdef const void *certificate = peer_certificate(s.tls)
    cdef uint8_t *der = NULL
    cdef int n = i2d_X509(certificate, &der) if certificate != NULL else 0
    if 0 < n <= CERTIFICATE_TOLD:
        tell(w, s, EV_CERTIFICATE, der, <uint32_t>n)
    CRYPTO_free(der, b"", 0)


cdef void tell_tls(Worker *w, Slot *s) noexcept nogil:
    """Tell Python what was wrong: the verdict on the peer's certificate, two bytes, 0 if that is not it, and OpenSSL's
    words. Empties OpenSSL's queue of errors."""
    cdef Tls *t = s.tls
    cdef uint8_t detail[258]
    cdef unsigned long error = ERR_get_error()
    cdef long verdict = SSL_get_verify_result(t.ssl) if error == ERR_CERTIFICATE_VERIFY_FAILED else 0
    cdef const char *words = NULL
    cdef uint32_t n = 0
    if verdict != 0:
        tell_certificate(w, s)
        words = X509_verify_cert_error_string(verdict)
    elif error != 0:
        words = ERR_reason_error_string(error)
    store_be16(detail, <uint16_t>verdict)
    while words != NULL and words[n] != 0 and n < 256:
        detail[2 + n] = <uint8_t>words[n]
        n += 1
    tell(w, s, EV_TLS, detail, 2 + n)
    ERR_clear_error()
