# Sealed packets and windows over bytes in memory, as testing.pxi has the other parts.


cdef class SealLayer:
    """See _fastpath.pyi."""
    cdef SealKey sends
    cdef SealKey opens
    cdef bint made

    def __cinit__(self, int cipher, bytes key not None, *, bint own=True):
        libssl_load()
        if len(key) != SEAL_KEY_BYTES:
            raise ValueError(f"a key has {SEAL_KEY_BYTES} bytes")
        self.made = True
        if (not seal_key_set(&self.sends, cipher, key, True, own)
                or not seal_key_set(&self.opens, cipher, key, False, own)):
            raise MemoryError

    def __dealloc__(self):
        if self.made:
            seal_key_wipe(&self.sends)
            seal_key_wipe(&self.opens)

    def seal(self, bytes header not None, bytes plain not None, uint32_t mask=0, *, bint apart=False):
        cdef uint32_t n = <uint32_t>(SEALED_HEADER + len(plain) + SEAL_TAG)
        cdef _Fenced memory = _Fenced(n)
        cdef _Fenced other = _Fenced(n)
        cdef _Fenced clear = _Fenced(SEALED_HEADER)
        cdef uint8_t *payload = memory.put(bytes(SEALED_HEADER) + plain + bytes(SEAL_TAG))
        cdef uint8_t *out = other.end - n if apart else payload
        if len(header) != SEALED_HEADER:
            raise ValueError(f"a header has {SEALED_HEADER} bytes")
        if not aead_seal(&self.sends, clear.put(header), SEALED_HEADER, payload, out, n, mask):
            raise MemoryError
        return (<char *>out)[:n]

    def open(self, bytes payload not None, uint32_t mask=0):
        cdef uint32_t n = <uint32_t>len(payload)
        cdef _Fenced memory = _Fenced(n)
        cdef uint8_t *data = memory.put(payload)
        cdef uint8_t header[SEALED_HEADER]
        if n < SEALED_MIN:
            raise ValueError(f"a payload has at least {SEALED_MIN} bytes")
        unmask(header, data, SEALED_HEADER, mask)
        if not aead_open(&self.opens, header, SEALED_HEADER, data, n, mask):
            return None
        return (<char *>data)[SEALED_HEADER:n - SEAL_TAG]


cdef class ReplayWindow:
    """See _fastpath.pyi."""
    cdef Window window
    cdef uint64_t windows

    def __cinit__(self, uint32_t packets=WINDOW_PACKETS, *, bint room=True):
        if packets < 64 or packets & (packets - 1):
            raise ValueError("a window has a power of two, 64 at least")
        self.window.packets = packets
        self.windows = 0 if room else WINDOWS_BYTES_MAX

    def __dealloc__(self):
        window_free(&self.window, &self.windows)

    @property
    def has_bits(self):
        return self.window.bits != NULL

    def take(self, uint64_t number):
        if not window_allows(&self.window, number):
            return False
        window_take(&self.window, number, &self.windows)
        return True


def set_counter(_Sealing engine not None, tun, uint32_t local, uint64_t number):
    cdef Session *session = session_find(engine.sealing(tun), local)
    if session == NULL:
        raise ValueError("no such session")
    store_relaxed64(&session.number, number)


def set_carried(_Sealing engine not None, tun, uint32_t local, *, uint64_t bytes_sent=0, uint64_t failures=0):
    cdef Session *session = session_find(engine.sealing(tun), local)
    if session == NULL:
        raise ValueError("no such session")
    store_relaxed64(&session.bytes_sent, bytes_sent)
    pthread_mutex_lock(&session.opens.lock)
    session.failures = failures
    pthread_mutex_unlock(&session.opens.lock)


def age_waiting(_Sealing engine not None, tun, double seconds):
    cdef Seals *seals = engine.sealing(tun)
    cdef Waiting *r
    pthread_mutex_lock(&seals.lock)
    r = seals.oldest
    while r != NULL:
        r.stamp_ns -= <uint64_t>(seconds * SECOND_NS)
        r = r.newer
    pthread_mutex_unlock(&seals.lock)


def set_link_counter(_Sealing engine not None, tun, uint32_t local, uint64_t number):
    cdef Session *session = session_find(engine.sealing(tun), local)
    if session == NULL:
        raise ValueError("no such session")
    store_relaxed64(&session.link.number, number)


cdef void age(uint64_t *stamp, double seconds):
    if load_relaxed64(stamp) != 0:
        store_relaxed64(stamp, load_relaxed64(stamp) - <uint64_t>(seconds * SECOND_NS))


def age_path(_Sealing engine not None, tun, uint32_t peer, double seconds):
    cdef Path *path = path_of(peer_find(engine.sealing(tun), peer))
    if path == NULL:
        raise ValueError("no path")
    age(&path.heard_ns, seconds)
    age(&path.asked_ns, seconds)
    age(&path.asks_ns, seconds)
    age(&path.answered_ns, seconds)
    age(&path.sent_ns, seconds)
    age(&path.packet_ns, seconds)
    age(&path.doubted_ns, seconds)


def age_stranded(_Sealing engine not None, tun, uint32_t peer, double seconds):
    cdef SealPeer *found = peer_find(engine.sealing(tun), peer)
    if found == NULL:
        raise ValueError("no such peer")
    age(&found.stranded_ns, seconds)


def set_pending(_Sealing engine not None, tun, uint64_t number):
    store_relaxed64(&engine.find(tun).pending, number)


def set_old_sealed(_Sealing engine not None, tun, uint64_t number):
    store_relaxed64(&engine.sealing(tun).old_sealed, number)


def set_group_counter(_Sealing engine not None, tun, uint64_t number, uint64_t carried):
    cdef GroupSeal *group = engine.sealing(tun).group
    if group == NULL:
        raise ValueError("no secret")
    pthread_mutex_lock(&group.sends.lock)
    group.number, group.bytes_sent = number, carried
    pthread_mutex_unlock(&group.sends.lock)


def waiting_bytes_of(_Sealing engine not None, tun):
    cdef Seals *seals = engine.sealing(tun)
    pthread_mutex_lock(&seals.lock)
    try:
        return seals.waiting_bytes
    finally:
        pthread_mutex_unlock(&seals.lock)
