# The limit of a relay over TLS: a thread that receives records, opens them by EVP, passes over every byte once, as
# unmasking does, seals them by EVP and sends them on, with the same libcrypto and reads as long as the engine's. It has
# one key, one nonce and no handshake, and knows neither frames nor addresses.

cdef enum:
    CIPHER_HEADER = 5
    CIPHER_TAG = 16
    CIPHER_RECORD = CIPHER_HEADER + RECORD_MAX + 1 + CIPHER_TAG     # a full one of TLS 1.3

cdef struct CipherState:
    int source
    int destination
    void *opening
    void *sealing
    uint8_t *cipher
    uint8_t *plain
    uint8_t *sealed
    bint failed
    pthread_t thread

cdef uint8_t *CIPHER_KEY = b"a key of the bench"
cdef uint8_t *CIPHER_NONCE = b"its nonce..."


cdef void *cipher_make(bint seal) noexcept nogil:
    cdef void *c = EVP_CIPHER_CTX_new()
    if c != NULL:
        EVP_CipherInit_ex(c, EVP_aes_128_gcm(), NULL, CIPHER_KEY, CIPHER_NONCE, seal)
    return c


cdef void cipher_seal(void *c, uint8_t *out, const uint8_t *plain, uint32_t n) noexcept nogil:
    """One record of so many bytes."""
    cdef int size
    out[0] = 23
    store_be16(out + 1, 0x0303)
    store_be16(out + 3, <uint16_t>(n + CIPHER_TAG))
    EVP_CipherInit_ex(c, NULL, NULL, NULL, CIPHER_NONCE, 1)
    EVP_CipherUpdate(c, NULL, &size, out, CIPHER_HEADER)
    EVP_CipherUpdate(c, out + CIPHER_HEADER, &size, plain, <int>n)
    EVP_CipherFinal_ex(c, out + CIPHER_HEADER + n, &size)
    EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, CIPHER_TAG, out + CIPHER_HEADER + n)


cdef bint cipher_open(void *c, uint8_t *plain, uint8_t *record, uint32_t n) noexcept nogil:
    """The other way round."""
    cdef int size
    EVP_CipherInit_ex(c, NULL, NULL, NULL, CIPHER_NONCE, 0)
    EVP_CipherUpdate(c, NULL, &size, record, CIPHER_HEADER)
    EVP_CipherUpdate(c, plain, &size, record + CIPHER_HEADER, <int>n)
    EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_SET_TAG, CIPHER_TAG, record + CIPHER_HEADER + n)
    return EVP_CipherFinal_ex(c, plain + n, &size) == 1


cdef void *cipher_main(void *argument) noexcept nogil:
    """Receive, open, pass over, seal, send; until the source ends."""
    cdef CipherState *r = <CipherState *>argument
    cdef size_t have = 0
    cdef size_t at, used, length
    cdef ssize_t n
    while True:
        n = recv(r.source, r.cipher + have, CIPHER_BYTES, 0)
        if n <= 0:
            return NULL
        have += <size_t>n
        at = used = length = 0
        while have - at >= CIPHER_RECORD:
            if not cipher_open(r.opening, r.plain + length, r.cipher + at, RECORD_MAX + 1):
                r.failed = True
                return NULL
            at += CIPHER_RECORD
            length += RECORD_MAX
        unmask(r.plain, r.plain, length, 0)
        memmove(r.cipher, r.cipher + at, have - at)
        have -= at
        at = 0
        while at < length:
            cipher_seal(r.sealing, r.sealed + used, r.plain + at, RECORD_MAX + 1)
            used += CIPHER_RECORD
            at += RECORD_MAX
        at = 0
        while at < used:
            n = send(r.destination, r.sealed + at, used - at, MSG_NOSIGNAL)
            if n < 0:
                return NULL
            at += <size_t>n


cdef class CipherRelay:
    """See _endpoints.pyi."""
    cdef CipherState *state
    cdef bint running

    def __cinit__(self, int source, int destination):
        cdef CipherState *r = <CipherState *>calloc(1, sizeof(CipherState))
        cdef int error
        self.state = r
        if r == NULL:
            raise MemoryError
        libssl_load()
        r.source = source
        r.destination = destination
        r.opening = cipher_make(False)
        r.sealing = cipher_make(True)
        r.cipher = <uint8_t *>malloc(RECORD_ROOM + CIPHER_BYTES)
        r.plain = <uint8_t *>malloc(CIPHER_BYTES + RECORD_MAX)
        r.sealed = <uint8_t *>malloc(CIPHER_BYTES + 2 * CIPHER_RECORD)
        if r.opening == NULL or r.sealing == NULL or r.cipher == NULL or r.plain == NULL or r.sealed == NULL:
            raise MemoryError
        error = pthread_create(&r.thread, NULL, cipher_main, r)
        if error:
            raise OSError(error, os.strerror(error))
        self.running = True

    def stop(self):
        if not self.running:
            return
        self.running = False
        with nogil:
            shutdown(self.state.source, SHUT_RD)
            shutdown(self.state.destination, SHUT_RDWR)
            pthread_join(self.state.thread, NULL)
        if self.state.failed:
            raise ValueError("what came was no record of the bench")

    def __dealloc__(self):
        if self.state != NULL:
            free(self.state.cipher)
            free(self.state.plain)
            free(self.state.sealed)
            free(self.state)

    def cpu_ns(self):
        cdef clockid_t clock
        if not self.running:
            raise RuntimeError("the relay is stopped")
        if pthread_getcpuclockid(self.state.thread, &clock) != 0:
            raise OSError(errno, os.strerror(errno))
        return bench_clock(clock)


def cipher_records(uint32_t n):
    """So many records, as a CipherRelay receives them."""
    cdef uint8_t plain[RECORD_MAX + 1]
    cdef uint32_t i
    cdef void *c
    cdef bytearray out = bytearray(n * CIPHER_RECORD)
    libssl_load()
    c = cipher_make(True)
    memset(plain, 0x5A, sizeof(plain))
    for i in range(n):
        cipher_seal(c, <uint8_t *><char *>out + i * CIPHER_RECORD, plain, RECORD_MAX + 1)
    return bytes(out)
