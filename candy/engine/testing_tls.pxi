# TLS records over bytes in memory, as testing.pxi has the other parts.


cdef class RecordLayer:
    """See _fastpath.pyi."""
    cdef Tls tls

    def __cinit__(self, str cipher not None, bytes secret not None, bytes own not None, *, bint tls12=False,
                  bint client=False):
        cdef Tls *t = &self.tls
        cdef int kind = {"AES-128-GCM": NID_AES_128_GCM, "AES-256-GCM": NID_AES_256_GCM,
                         "CHACHA20-POLY1305": NID_CHACHA20_POLY1305}[cipher]
        cdef bint done
        memset(t, 0, sizeof(Tls))
        libssl_load()
        suite_choose(&t.suite, TLS1_2_VERSION if tls12 else TLS1_3_VERSION, kind)
        if tls12:
            if len(secret) != 48 or len(own) != 64:
                raise ValueError("a master secret has 48 bytes, both randoms have 64")
            if client:
                done = keys_of_master(&t.suite, &t.sealing, &t.opening, True, secret, own)
            else:
                done = keys_of_master(&t.suite, &t.opening, &t.sealing, False, secret, own)
        else:
            if len(secret) != t.suite.secret_bytes or len(own) != t.suite.secret_bytes:
                raise ValueError("secrets are as long as the digest")
            memcpy(t.opening.secret, <const char *>secret, len(secret))
            memcpy(t.sealing.secret, <const char *>own, len(own))
            done = keys_follow(&t.suite, &t.opening, False) and keys_follow(&t.suite, &t.sealing, True)
        if not done:
            raise MemoryError

    def __dealloc__(self):
        if libssl_loaded:
            keys_free(&self.tls.opening)
            keys_free(&self.tls.sealing)

    @property
    def sealed(self):
        return self.tls.sealing.number

    @sealed.setter
    def sealed(self, uint64_t number):
        self.tls.sealing.number = number

    def seal(self, bytes content not None, int kind=APPLICATION_DATA):
        cdef uint32_t n = <uint32_t>len(content)
        cdef _Fenced plain = _Fenced(n)
        cdef _Fenced out = _Fenced(n + RECORD_OVERHEAD)
        tls_seal_into(&self.tls, out.end - n - RECORD_OVERHEAD, n + RECORD_OVERHEAD)
        if n > self.tls.suite.fragment_most:
            raise ValueError("too long for one record")
        if not tls_record(&self.tls, <uint8_t>kind, plain.put(content), n):
            raise MemoryError
        return (<char *>self.tls.output)[:self.tls.output_used]

    def open(self, bytes records not None):
        cdef uint32_t have = <uint32_t>len(records)
        cdef _Fenced memory = _Fenced(have)
        cdef _Fenced out = _Fenced(have)
        cdef uint8_t *p = memory.put(records)
        cdef uint8_t kind = 0
        cdef int size, n
        found = []
        while True:
            size = layer_whole(p, have)
            if size == 0:
                return found
            n = layer_open(&self.tls.suite, &self.tls.opening, p, out.end - size, &kind) if size > 0 else size
            if n < 0:
                raise ValueError(-n)
            found.append((kind, (<char *>(out.end - size))[:n]))
            p += size
            have -= <uint32_t>size

    def hear(self, bytes content not None, *, bint client=False):
        cdef uint32_t n = <uint32_t>len(content)
        cdef _Fenced memory = _Fenced(n)
        cdef int result = layer_messages(&self.tls.suite, &self.tls.messages, client, memory.put(content), n)
        if result < 0:
            raise ValueError(-result)
        if result == PEER_UPDATED_ASKING:
            self.tls.update_asked = True
        if result != NOTHING and not keys_renew(&self.tls.suite, &self.tls.opening, False):
            raise MemoryError
        return self.tls.messages.have == 0 and self.tls.messages.skip == 0
