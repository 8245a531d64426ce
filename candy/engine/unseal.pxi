# Reading over TLS: one read of ciphertext into w.cipher, whose records are opened at once into the worker's buffer.
# Runs on the connection's owner. What is left of a record waits in a block of its own size, until the next read has
# more of it.

cdef enum:
    OTHERS_MOST = 8                 # records without data in one read: tickets, and KeyUpdates, which cost new keys
    CERTIFICATE_TOLD = 16384        # longest one that Python is shown, bytes


cdef ssize_t tls_read(Worker *w, Slot *s, uint8_t *data, size_t most, size_t *wanted) noexcept nogil:
    """Read at most `most` bytes of ciphertext and open them into `data`, which has room for them and RECORD_ROOM. As
    recv(), with 0 for the peer's close_notify, and EPROTO for what is in t.cause. `wanted` is more than was opened when
    the socket is empty."""
    cdef Tls *t = s.tls
    cdef uint8_t *cipher = w.cipher + RECORD_ROOM
    cdef uint32_t have = 0
    cdef ssize_t n
    cdef size_t got
    cdef bint more
    if t.ended:
        return 0
    if t.cause != CAUSE_NONE:
        set_errno(EPROTO)
        return -1
    n = transport_read(s, cipher, most)
    if n < 0:
        return n
    if n == 0:
        t.cause = CAUSE_TRUNCATED
        set_errno(EPROTO)
        return -1
    w.work -= n
    if t.rest != NULL:
        have = t.rest.end
        memcpy(cipher - have, block_bytes(t.rest), have)
        block_give(w, t.rest)
        t.rest = NULL
    got = tls_open(w, s, data, cipher - have, have + <uint32_t>n)
    if not t.ended:                 # an end is not heard, as TCP's is not
        store_relaxed64(&s.received_ns, w.now)
    # An end is told by the next read.
    more = <size_t>n == most or s.hung_up or t.ended or t.cause != CAUSE_NONE
    if got != 0:
        wanted[0] = got + (not more)
        return <ssize_t>got
    set_errno(EINTR if more else EAGAIN)
    return -1


cdef size_t tls_open(Worker *w, Slot *s, uint8_t *data, const uint8_t *cipher, uint32_t n) noexcept nogil:
    """Open all whole records, and keep the beginning of another; returns the bytes of plaintext. t.ended and t.cause
    tell an end."""
    cdef Tls *t = s.tls
    cdef size_t got = 0
    cdef uint32_t at = 0
    cdef uint32_t others = 0
    cdef uint8_t kind = 0
    cdef int size, r
    while not t.ended and t.cause == CAUSE_NONE:
        size = layer_whole(cipher + at, n - at)
        if size == 0:
            # Bytes of a record can't be dropped, so they are granted whatever there is: one record's at most.
            t.rest = block_of(w, cipher + at, n - at, FOR_CERTAIN) if at < n else NULL
            if t.rest == NULL and at < n:
                tls_fail(w, s, INTERNAL_ERROR)
            break
        r = layer_open(&t.suite, &t.opening, cipher + at, data + got, &kind) if size > 0 else size
        if r < 0:
            tls_fail(w, s, <uint8_t>-r)
        elif kind == APPLICATION_DATA and r != 0 and t.messages.have == 0 and t.messages.skip == 0:
            got += <size_t>r
        else:
            others += 1
            w.work -= WORK_KEYS
            tls_other(w, s, kind if others <= OTHERS_MOST else 0, data + got, <uint32_t>r)
        at += <uint32_t>max(size, 0)
    return got


cdef void tls_other(Worker *w, Slot *s, uint8_t kind, const uint8_t *content, uint32_t n) noexcept nogil:
    """A record that carries no data."""
    cdef Tls *t = s.tls
    cdef int r = -UNEXPECTED_MESSAGE
    if kind == ALERT and n == 2:
        r = NOTHING
        if content[1] == CLOSE_NOTIFY:
            t.ended = True
        elif not (content[0] == ALERT_WARNING if t.suite.tls12 else content[1] == USER_CANCELED):
            t.cause = CAUSE_TLS
            tell_alert(w, s, b"alert of the peer: ", content[1])
    elif kind == HANDSHAKE:
        r = layer_messages(&t.suite, &t.messages, t.client, content, n)
    elif kind == APPLICATION_DATA and n == 0 and t.messages.have == 0 and t.messages.skip == 0:
        r = NOTHING
    if r == PEER_UPDATED_ASKING:
        t.update_asked = True
    if r > 0 and not keys_renew(&t.suite, &t.opening, False):
        r = -INTERNAL_ERROR
    if r < 0:
        tls_fail(w, s, <uint8_t>-r)


cdef void tls_fail(Worker *w, Slot *s, uint8_t alert) noexcept nogil:
    """Nothing more can be read; the peer is told why with the end."""
    s.tls.cause = CAUSE_TLS
    s.tls.alert = alert
    ERR_clear_error()
    tell_alert(w, s, b"", alert)


cdef void tell_alert(Worker *w, Slot *s, const char *before, uint8_t alert) noexcept nogil:
    """Tell Python which alert ends a connection, in OpenSSL's words."""
    cdef uint8_t detail[2 + 96]
    cdef const char *words = SSL_alert_desc_string_long(alert)
    cdef uint32_t first = <uint32_t>strlen(before)
    cdef uint32_t n = min(<uint32_t>strlen(words), <uint32_t>(96 - first))
    store_be16(detail, 0)
    memcpy(detail + 2, before, first)
    memcpy(detail + 2 + first, words, n)
    tell(w, s, EV_TLS, detail, 2 + first + n)


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
