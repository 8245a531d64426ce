# TLS of one connection: its SSL as long as the handshake lasts, and then its keys.
#
# In the handshake the BIO is the socket, from which it takes no more than the SSL asks for. Behind it the secrets are
# taken out, by OpenSSL's key log and its session, and the SSL is freed: recordlayer.pxi does what is left to do.
# Opening is the owner's, sealing is done under the send lock.

cdef enum:
    SEAL_MOST = 131072              # plaintext sealed ahead of the kernel while nothing waits
    RANDOM_BYTES = 32
    SEAL_STAGED = 4096              # runs shorter than this share a record
    # A commit, or a frame beyond what is sealed at a time; and each record may be a short one.
    SEALED_ROOM = COMMIT_MAX + WIRE_PAYLOAD_CANDY3 + FRAME_HEADER_MAX + (IOV_MAX_SEND + 64) * RECORD_OVERHEAD

cdef void *bio_method = NULL        # python: made with the first context, as this is
cdef int additions_index = -1       # of an SSL_CTX' Additions


cdef int bio_read(void *bio, char *data, int n) noexcept nogil:
    """Bytes for an SSL."""
    cdef Tls *t = <Tls *>BIO_get_data(bio)
    cdef ssize_t r
    BIO_clear_flags(bio, BIO_FLAGS_READ | BIO_FLAGS_WRITE | BIO_FLAGS_SHOULD_RETRY)
    r = transport_read(t.slot, <uint8_t *>data, <size_t>n)
    if r < 0 and errno == EAGAIN:
        BIO_set_flags(bio, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY)
    return <int>r


cdef int bio_write(void *bio, const char *data, int n) noexcept nogil:
    """Bytes of an SSL."""
    cdef Tls *t = <Tls *>BIO_get_data(bio)
    cdef iovec piece
    cdef ssize_t r
    BIO_clear_flags(bio, BIO_FLAGS_READ | BIO_FLAGS_WRITE | BIO_FLAGS_SHOULD_RETRY)
    piece.iov_base = <void *>data
    piece.iov_len = <size_t>n
    r = transport_write(t.slot, &piece, 1, 0)
    if r < 0 and errno == EAGAIN:
        BIO_set_flags(bio, BIO_FLAGS_WRITE | BIO_FLAGS_SHOULD_RETRY)
    return <int>r


cdef long bio_ctrl(void *bio, int command, long number, void *data) noexcept nogil:
    return command == BIO_CTRL_FLUSH


cdef bint tls_make(Slot *s) noexcept nogil:
    """Make a connection's SSL; False when there is no memory for it."""
    cdef Tls *t = s.tls
    cdef void *bio = BIO_new(bio_method)
    t.ssl = SSL_new(t.context) if bio != NULL else NULL
    if t.ssl == NULL:
        ERR_clear_error()
        return False
    BIO_set_data(bio, t)
    BIO_set_init(bio, 1)
    SSL_set_bio(t.ssl, bio, bio)                # which owns it from here on
    if t.client:
        SSL_set_connect_state(t.ssl)
    else:
        SSL_set_accept_state(t.ssl)
    return True


cdef void tls_let_go(Tls *t) noexcept nogil:
    """Free what belongs to the handshake."""
    if t.ssl != NULL:
        SSL_free(t.ssl)
    if t.context != NULL:
        SSL_CTX_free(t.context)
    t.ssl = t.context = NULL


cdef void tls_free(Worker *w, Slot *s) noexcept nogil:
    """Nothing more is read from or written to this connection."""
    cdef Tls *t = s.tls
    if t == NULL:
        return
    tls_let_go(t)
    keys_free(&t.opening)
    keys_free(&t.sealing)
    block_give(w, t.rest)
    http_free(w, t)
    s.tls = NULL
    free(t)


cdef void http_free(Worker *w, Tls *t) noexcept nogil:
    """No more HTTP; Python's end of its socket reads the end of the stream."""
    if t.http == NULL:
        return
    if t.http.given >= 0:
        close_fd(t.http.given)
    block_give(w, t.http.sealed)
    free(t.http)
    t.http = NULL


# The way from OpenSSL's handshake to the keys.

cdef inline uint8_t hex_digit(char digit) noexcept nogil:
    return <uint8_t>(digit - 48 if digit < 58 else (digit | 32) - 87)


cdef void tls_note_secret(const void *ssl, const char *line) noexcept nogil:
    """OpenSSL's key log, a line for each secret: NAME, the client's random and the secret, in hexadecimal."""
    cdef Tls *t = <Tls *>BIO_get_data(SSL_get_rbio(ssl))
    cdef bint of_client = memcmp(line, b"CLIENT_TRAFFIC_SECRET_0 ", 24) == 0
    cdef const char *digits = line + 24 + 2 * RANDOM_BYTES + 1
    cdef Keys *k
    cdef uint32_t i
    if not of_client and memcmp(line, b"SERVER_TRAFFIC_SECRET_0 ", 24) != 0:
        return
    k = &t.sealing if of_client == t.client else &t.opening
    k.secret_bytes = <uint32_t>strlen(digits) // 2
    for i in range(min(k.secret_bytes, <uint32_t>SECRET_MAX)):
        k.secret[i] = hex_digit(digits[2 * i]) << 4 | hex_digit(digits[2 * i + 1])


cdef bint tls_begin(Slot *s) noexcept nogil:
    """The handshake is done: go on with its keys, and without OpenSSL's SSL."""
    cdef Tls *t = s.tls
    cdef Suite *u = &t.suite
    cdef bint done
    cdef uint8_t randoms[2 * RANDOM_BYTES]
    cdef uint8_t master[48]
    cdef void *session = SSL_get_session(t.ssl)
    cdef uint8_t shorter = SSL_SESSION_get_max_fragment_length(session)
    if not suite_choose(u, SSL_version(t.ssl), SSL_CIPHER_get_cipher_nid(SSL_get_current_cipher(t.ssl))):
        return False
    if shorter != 0:
        u.fragment_most = 256 << shorter        # RFC 6066, 4: from 2^9 to 2^12, if the client has asked for it
    if not u.tls12:
        # Nothing may be sealed with a secret that was not told.
        done = (t.opening.secret_bytes == u.secret_bytes and t.sealing.secret_bytes == u.secret_bytes
                and keys_follow(u, &t.opening, False) and keys_follow(u, &t.sealing, True))
    else:
        done = (SSL_get_server_random(t.ssl, randoms, RANDOM_BYTES) == RANDOM_BYTES
                and SSL_get_client_random(t.ssl, randoms + RANDOM_BYTES, RANDOM_BYTES) == RANDOM_BYTES
                and SSL_SESSION_get_master_key(session, master, sizeof(master)) == sizeof(master))
        if not done:
            return False
        if t.client:
            done = keys_of_master(u, &t.sealing, &t.opening, True, master, randoms)
        else:
            done = keys_of_master(u, &t.opening, &t.sealing, False, master, randoms)
        OPENSSL_cleanse(master, sizeof(master))
    if done:
        tls_let_go(t)
    return done


# Sealing.

cdef inline bint may_send(Worker *w, Slot *s) noexcept nogil:
    """Whether this thread may write to the connection (send lock)."""
    return not load_relaxed64(&s.secure) or load_relaxed32(&s.owner) == w.index


cdef inline void tls_seal_into(Tls *t, uint8_t *output, uint32_t room) noexcept nogil:
    """Where the records go that are sealed next."""
    t.output = output
    t.output_used = 0
    t.output_room = room


cdef bint tls_update(Tls *t) noexcept nogil:
    """Have new keys, because the peer asks for that or ours are worn."""
    cdef const uint8_t *update = b"\x18\0\0\1\0"
    cdef uint32_t size
    t.update_asked = False
    size = layer_seal(&t.suite, &t.sealing, HANDSHAKE, update, 5, t.output + t.output_used)
    t.output_used += size
    return size != 0 and keys_renew(&t.suite, &t.sealing, True)


cdef inline bint tls_record(Tls *t, uint8_t kind, const uint8_t *data, uint32_t n) noexcept nogil:
    """One record, and a KeyUpdate before it where that is due: "it MUST send a KeyUpdate of its own prior to sending
    its next Application Data record"."""
    cdef uint32_t size
    if t.output_room - t.output_used < n + RECORD_OVERHEAD:
        return False
    if unlikely(t.update_asked or t.sealing.number >= RECORDS_MOST) and not t.suite.tls12:
        if not tls_update(t):
            return False
    size = layer_seal(&t.suite, &t.sealing, kind, data, n, t.output + t.output_used)
    t.output_used += size
    return size != 0


cdef bint tls_seal(Tls *t, const uint8_t *data, uint32_t length) noexcept nogil:
    """Seal these bytes, in as few records as hold them; False: the stream can't be continued."""
    cdef uint32_t part
    while length != 0:
        part = min(length, t.suite.fragment_most)
        if not tls_record(t, APPLICATION_DATA, data, part):
            return False
        data += part
        length -= part
    return True


cdef bint tls_seal_frames(Tls *t, const uint8_t *data, uint32_t length, uint32_t first,
                          uint32_t *records) noexcept nogil:
    """Seal each frame as a record of its own, the first `first` bytes, if any, as if they were one."""
    cdef uint32_t at = 0
    cdef uint32_t size = first
    while at < length:
        if size == 0:
            size = frame_size(data + at)
        if not tls_seal(t, data + at, size):
            return False
        records[0] += 1
        at += size
        size = 0
    return True


cdef bint tls_alert(Tls *t, uint8_t level, uint8_t alert) noexcept nogil:
    cdef uint8_t body[2]
    body[0] = level
    body[1] = alert
    return tls_record(t, ALERT, body, 2)


cdef bint tls_finish(Tls *t) noexcept nogil:
    """Seal close_notify: no record follows."""
    t.finished = True
    return tls_alert(t, ALERT_WARNING, CLOSE_NOTIFY)


cdef void tls_farewell(Slot *s) noexcept nogil:
    """The connection is closed (send lock): if no record was cut, the peer gets close_notify, or the alert that it has
    caused, as far as the kernel takes it now."""
    cdef Tls *t = s.tls
    cdef uint8_t record[2 * RECORD_OVERHEAD]
    cdef iovec piece
    cdef bint said = False
    if (not t.secured or t.finished or s.broken or (s.queue != NULL and queue_committed(s.queue) != 0)
            or (t.http != NULL and t.http.sealed != NULL)):
        return
    tls_seal_into(t, record, sizeof(record))
    if t.cause == CAUSE_NONE:
        said = tls_finish(t)
    elif t.alert != 0:
        said = tls_alert(t, ALERT_FATAL, t.alert)
    if said:
        piece.iov_base = record
        piece.iov_len = t.output_used
        transport_write(s, &piece, 1, 0)
