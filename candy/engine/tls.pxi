# TLS of one connection: its SSL, and the BIO between that and the engine's memory.
#
# In the handshake the BIO is the socket, from which it takes no more than the SSL asks for. Behind that it is memory:
# what an SSL reads lies in t.input, what it writes goes to t.output, and both belong to the thread that is at work.

cdef enum:
    SEAL_MOST = 131072              # plaintext sealed ahead of the kernel while nothing waits
    SEAL_STAGED = 4096              # runs shorter than this share a record
    # A commit, or a frame beyond what is sealed at a time; and each record may be a short one.
    SEALED_ROOM = COMMIT_MAX + WIRE_PAYLOAD_MAX + FRAME_HEADER_MAX + (IOV_MAX_SEND + 64) * RECORD_OVERHEAD

cdef void *bio_method = NULL        # python: made with the first context, as this is
cdef int additions_index = -1       # of an SSL_CTX' Additions


cdef int bio_read(void *bio, char *data, int n) noexcept nogil:
    """Bytes for an SSL."""
    cdef Tls *t = <Tls *>BIO_get_data(bio)
    cdef ssize_t r = -1
    BIO_clear_flags(bio, BIO_FLAGS_READ | BIO_FLAGS_WRITE | BIO_FLAGS_SHOULD_RETRY)
    if t.shaking:
        r = transport_read(t.slot, <uint8_t *>data, <size_t>n)
        t.dry = r < 0 and errno == EAGAIN
        if not t.dry:
            if r <= 0:
                t.cause = CAUSE_TRUNCATED if r == 0 else CAUSE_RESET
            return <int>r
    elif t.input_left != 0:
        n = <int>min(<uint32_t>n, t.input_left)
        memcpy(data, t.input, <size_t>n)
        t.input += n
        t.input_left -= <uint32_t>n
        return n
    BIO_set_flags(bio, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY)
    return -1


cdef int bio_write(void *bio, const char *data, int n) noexcept nogil:
    """Bytes of an SSL. Behind the handshake there is room for all that it can write at a time."""
    cdef Tls *t = <Tls *>BIO_get_data(bio)
    cdef iovec piece
    cdef ssize_t r
    BIO_clear_flags(bio, BIO_FLAGS_READ | BIO_FLAGS_WRITE | BIO_FLAGS_SHOULD_RETRY)
    if t.shaking:
        piece.iov_base = <void *>data
        piece.iov_len = <size_t>n
        r = transport_write(t.slot, &piece, 1, 0)
        if r < 0 and errno == EAGAIN:
            BIO_set_flags(bio, BIO_FLAGS_WRITE | BIO_FLAGS_SHOULD_RETRY)
        return <int>r
    if t.output_room - t.output_used < <uint32_t>n:
        return -1
    memcpy(t.output + t.output_used, data, <size_t>n)
    t.output_used += <uint32_t>n
    return n


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
    if s.kind == SLOT_CLIENT:
        SSL_set_connect_state(t.ssl)
    else:
        SSL_set_accept_state(t.ssl)
    return True


cdef void tls_free(Slot *s) noexcept nogil:
    """Nothing more is read from or written to this connection."""
    cdef Tls *t = s.tls
    if t == NULL:
        return
    if t.ssl != NULL:
        SSL_free(t.ssl)
    SSL_CTX_free(t.context)
    http_free(t)
    s.tls = NULL
    free(t)


cdef void http_free(Tls *t) noexcept nogil:
    """No more HTTP; Python's end of its socket reads the end of the stream."""
    if t.http == NULL:
        return
    if t.http.given >= 0:
        close_fd(t.http.given)
    free(t.http)
    t.http = NULL


cdef inline bint may_send(Worker *w, Slot *s) noexcept nogil:
    """Whether this thread may write to the connection (send lock)."""
    return not load_relaxed64(&s.secure) or load_relaxed32(&s.owner) == w.index


cdef inline void tls_seal_into(Tls *t, uint8_t *output, uint32_t room) noexcept nogil:
    """Where the records go that are sealed next."""
    t.output = output
    t.output_used = 0
    t.output_room = room
    ERR_clear_error()


cdef inline bint tls_seal(Tls *t, const uint8_t *data, uint32_t length) noexcept nogil:
    """Seal these bytes, in as few records as hold them; False: the stream can't be continued."""
    return SSL_write(t.ssl, data, <int>length) == <int>length


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


cdef inline uint32_t record_bytes(const uint8_t *p) noexcept nogil:
    """Size of a TLS record."""
    return 5 + load_be16(p + 3)


cdef void tls_farewell(Slot *s) noexcept nogil:
    """The connection is closed (send lock): if no record was cut, the peer gets close_notify, or the alert that it has
    caused, as far as the kernel takes it now."""
    cdef Tls *t = s.tls
    cdef iovec piece
    if t.ssl != NULL and t.shaking and t.secured and not t.finished and t.cause == CAUSE_NONE:
        ERR_clear_error()
        SSL_shutdown(t.ssl)
    if t.ssl == NULL or t.shaking or s.broken or (s.queue != NULL and queue_committed(s.queue) != 0):
        return
    if t.cause == CAUSE_NONE and not t.finished:
        tls_seal_into(t, t.said, SAID_MAX)
        SSL_shutdown(t.ssl)
    elif t.cause != CAUSE_TLS or t.output != t.said:
        return
    if t.output_used != 0:
        piece.iov_base = t.said
        piece.iov_len = t.output_used
        transport_write(s, &piece, 1, 0)
