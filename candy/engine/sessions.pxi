# What a device knows of sealing: sessions by their local number, and other members by their address. Python says what
# there is; workers look it up without a lock.
#
# Both are lists by place, whose entries a worker follows as it finds them. One that is taken out still leads to those
# behind it, and its memory goes when no worker can have it in its hands, as a table's does (table.pxi). Its keys are
# wiped at once, under their locks: a worker that is at one has done with it then, and the next finds none.

cdef enum:
    PLACES = 4096                   # of either list
    PEERS_MAX = 4096
    LONGEST_DEFAULT = 65535
    UNKNOWN_PER_S = 64              # events about sessions that are not there
    NOTES_PER_S = 4                 # of one session: a handshake takes two, and is tried again after 5 s
    NOTES_SAVED = 16
    SEAL_EVENTS_MAX = 16384         # about peers and sessions, each of which has few

cdef uint64_t UNKNOWN_AGAIN_NS = <uint64_t>5 * SECOND_NS        # Python does nothing sooner about the same source
cdef uint64_t SEND_BYTES_MAX = <uint64_t>1 << 38        # plaintext under one key
cdef uint64_t COUNTER_MAX = <uint64_t>1 << 48           # the first counter that is not sealed or opened any more
cdef uint64_t FORGERIES_MAX = <uint64_t>1 << 30         # packets of a session that did not open: then none does


cdef inline Seals *seals_of(Worker *w, Slot *s) noexcept nogil:
    """The sealing of a connection's, or a device's, network. NULL: there is none, and everything is in the clear."""
    cdef Seals *seals = <Seals *>load_pointer(<void **>&w.engine.networks[s.network].seals)
    if seals == NULL or load_relaxed64(&seals.sealing) == SEALING_OFF:
        return NULL
    return seals


cdef inline uint32_t peer_place(uint32_t address) noexcept nogil:
    # Addresses of one network differ in their low bits; of several, in the others.
    return (address ^ address >> 12) & (PLACES - 1)


cdef inline SealPeer *peer_find(Seals *seals, uint32_t address) noexcept nogil:
    """The entry of an address, NULL none."""
    cdef SealPeer *peer = <SealPeer *>load_pointer(<void **>&seals.peers[peer_place(address)])
    while peer != NULL and peer.address != address:
        peer = <SealPeer *>load_pointer(<void **>&peer.next)
    return peer


cdef inline Session *session_find(Seals *seals, uint32_t local) noexcept nogil:
    """The session with this number, NULL none."""
    cdef Session *session = <Session *>load_pointer(<void **>&seals.sessions[local & (PLACES - 1)])
    while session != NULL and session.local != local:
        session = <Session *>load_pointer(<void **>&session.next)
    return session


cdef SealPeer *peer_make(Seals *seals, uint32_t address) noexcept nogil:
    """The entry of an address (lock of Seals held), made where there is none: what is for it waits, and what comes
    from it in the clear is taken where that may be. NULL: the table is full, or memory out."""
    cdef SealPeer **place = &seals.peers[peer_place(address)]
    cdef SealPeer *peer = peer_find(seals, address)
    if peer != NULL or seals.peer_count == PEERS_MAX:
        return peer
    peer = <SealPeer *>calloc(1, sizeof(SealPeer))
    if peer == NULL:
        return NULL
    peer.address = address
    peer.way = WAY_WAIT
    peer.longest = LONGEST_DEFAULT
    peer.takes_clear = load_relaxed64(&seals.sealing) == SEALING_PREFER
    peer.tells_clear = True
    peer.next = place[0]
    store_pointer(<void **>place, peer)
    seals.peer_count += 1
    seals.clear_count += peer.takes_clear != 0
    return peer


cdef SealPeer *peer_of(Seals *seals, uint32_t address) noexcept nogil:
    """The entry of an address, made where there is none; NULL as peer_make()."""
    cdef SealPeer *peer = peer_find(seals, address)
    if peer == NULL:
        pthread_mutex_lock(&seals.lock)
        peer = peer_make(seals, address)
        pthread_mutex_unlock(&seals.lock)
    return peer


cdef inline bint session_may_send(const Session *session, uint64_t now) noexcept nogil:
    return (session != NULL and now < session.sends_until_ns
            and load_relaxed64(&session.number) < COUNTER_MAX
            and load_relaxed64(&session.bytes_sent) + SEALED_MAX <= SEND_BYTES_MAX)


cdef inline uint64_t peer_way(SealPeer *peer, uint64_t now) noexcept nogil:
    """What becomes of a packet for a peer now. Without a session that may send, it waits for one."""
    cdef uint64_t way = load_acquire64(&peer.way)
    if way == WAY_SEAL and not session_may_send(<Session *>load_pointer(<void **>&peer.session), now):
        return WAY_WAIT
    return way


cdef bint tell_sealing(Worker *w, Seals *seals, uint32_t kind, const uint8_t *detail, uint32_t length) noexcept nogil:
    """An event of sealing, as one of the device's."""
    return tell_of(w, &w.engine.slots[<uint32_t>seals.device], kind, detail, length, SEAL_EVENTS_MAX)


cdef void tell_once(Worker *w, Seals *seals, uint32_t kind, uint32_t address, uint64_t *told) noexcept nogil:
    """An event about an address, unless it was raised already."""
    cdef uint8_t detail[4]
    if load_relaxed64(told) != 0 or or_ordered64(told, 1) != 0:
        return
    store_be32(detail, address)
    if not tell_sealing(w, seals, kind, detail, sizeof(detail)):
        store_relaxed64(told, 0)    # the next packet tries again


cdef inline void tell_wanted(Worker *w, Seals *seals, SealPeer *peer, bint waits) noexcept nogil:
    if waits or load_relaxed64(&peer.tells_wanted) != 0:
        tell_once(w, seals, EV_WANTED, peer.address, &peer.told_wanted)


cdef void tell_stranded(Worker *w, Seals *seals, SealPeer *peer) noexcept nogil:
    """A packet is to be sealed for a peer, and there is neither a path nor a relay: perhaps a direct link is found.
    Python is told once a second."""
    cdef uint8_t detail[4]
    cdef uint64_t told = load_relaxed64(&peer.stranded_ns)
    if told == 0 or since(w.now, told) >= SECOND_NS:
        store_relaxed64(&peer.stranded_ns, w.now)
        store_be32(detail, peer.address)
        tell_sealing(w, seals, EV_WANTED, detail, sizeof(detail))


cdef void tell_unknown(Worker *w, Seals *seals, uint32_t source) noexcept nogil:
    """Something came for a session that is not there: one event of each source in 5 s, so that none uses up what all
    have."""
    cdef uint8_t detail[4]
    cdef Told *told = &seals.unknown_of[peer_place(source)]
    cdef bint tells
    pthread_mutex_lock(&seals.lock)
    tells = (told.stamp_ns == 0 or told.address != source or since(w.now, told.stamp_ns) >= UNKNOWN_AGAIN_NS)
    tells = tells and allowed(&seals.unknown, w.now, UNKNOWN_PER_S, UNKNOWN_PER_S)
    if tells:
        told.address = source
        told.stamp_ns = w.now
    pthread_mutex_unlock(&seals.lock)
    if tells:
        store_be32(detail, source)
        tell_sealing(w, seals, EV_UNKNOWN, detail, sizeof(detail))


cdef Session *session_make(int cipher, const uint8_t *sends, const uint8_t *receives, const uint8_t *link_sends,
                           const uint8_t *link_receives) noexcept nogil:
    """A session with these keys; NULL when memory is out."""
    cdef Session *session = <Session *>calloc(1, sizeof(Session))
    if session == NULL:
        return NULL
    session.window.packets = session.link.window.packets = WINDOW_PACKETS
    if (seal_key_set(&session.sends, cipher, sends, True, True)
            and seal_key_set(&session.opens, cipher, receives, False, True)
            and seal_key_set(&session.link.sends, cipher, link_sends, True, True)
            and seal_key_set(&session.link.opens, cipher, link_receives, False, True)):
        return session
    EVP_CIPHER_CTX_free(session.sends.cipher)
    EVP_CIPHER_CTX_free(session.opens.cipher)
    EVP_CIPHER_CTX_free(session.link.sends.cipher)
    OPENSSL_cleanse(session, sizeof(Session))
    free(session)
    return NULL


cdef void session_wipe(Seals *seals, Session *session) noexcept nogil:
    """Overwrite its keys, and give its window back. A worker that is sealing or opening has done with it first."""
    seal_key_wipe(&session.sends)
    seal_key_wipe(&session.opens)
    pthread_mutex_lock(&session.opens.lock)
    window_free(&session.window, &seals.windows)
    pthread_mutex_unlock(&session.opens.lock)
    seal_key_wipe(&session.link.sends)
    seal_key_wipe(&session.link.opens)
    pthread_mutex_lock(&session.link.opens.lock)
    window_free(&session.link.window, &seals.windows)
    pthread_mutex_unlock(&session.link.opens.lock)


cdef bint session_remove(EngineState *e, Seals *seals, uint32_t local) noexcept nogil:
    """Python has done with a session; False: there is none."""
    cdef Session **place = &seals.sessions[local & (PLACES - 1)]
    cdef Session *session
    cdef SealPeer *peer
    while place[0] != NULL and place[0].local != local:
        place = &place[0].next
    session = place[0]
    if session == NULL:
        return False
    peer = peer_find(seals, session.peer)
    if peer != NULL and peer.session == session:
        store_pointer(<void **>&peer.session, NULL)
    store_pointer(<void **>place, session.next)
    session_wipe(seals, session)
    table_retire(e, &session.table)
    return True


cdef void seals_free(Seals *seals) noexcept nogil:
    """All of it; no worker runs any more, and nothing waits."""
    cdef Session *session
    cdef SealPeer *peer
    cdef uint32_t i
    if seals == NULL:
        return
    for i in range(<uint32_t>PLACES):
        while seals.sessions[i] != NULL:
            session = seals.sessions[i]
            seals.sessions[i] = session.next
            session_wipe(seals, session)
            free(session)
        while seals.peers[i] != NULL:
            peer = seals.peers[i]
            seals.peers[i] = peer.next
            free(peer.path)
            if peer.old != NULL:
                seal_key_wipe(&peer.old.sends)
                free(peer.old)
            OPENSSL_cleanse(peer, sizeof(SealPeer))
            free(peer)
    if seals.old_key != NULL:
        seal_key_wipe(&seals.old_key.opens)
        free(seals.old_key)
    pthread_mutex_destroy(&seals.lock)
    free(seals)
