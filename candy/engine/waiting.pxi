# The waiting room: packets of a device for peers with which there is no session yet. In order for each peer, bounded
# for each and in all, and not for long. The lock of Seals is held for copies alone; all but Python's part of it runs on
# the device's worker.

cdef enum:
    WAITING_PACKETS = 1024          # for each peer
    WAITING_BYTES = 1048576
    WAITING_BYTES_ALL = 16777216
    WAITING_FOR_S = 6               # so that a second message 1 still serves them


cdef inline uint8_t *waiting_bytes(Waiting *r) noexcept nogil:
    return <uint8_t *>(r + 1)


cdef Waiting *room_take(Seals *seals, SealPeer *peer) noexcept nogil:
    """The packet that has waited longest for a peer, taken out (lock of Seals held); NULL none."""
    cdef Waiting *r = peer.first
    if r == NULL:
        return NULL
    peer.first = r.next
    if r.next == NULL:
        peer.last = NULL
    if r.older != NULL:
        r.older.newer = r.newer
    else:
        seals.oldest = r.newer
    if r.newer != NULL:
        r.newer.older = r.older
    else:
        seals.newest = r.older
    store_relaxed64(&peer.waiting, peer.waiting - 1)
    peer.waiting_bytes -= r.length
    seals.waiting_bytes -= r.length
    return r


cdef inline void waiting_give(Worker *w, Waiting *r) noexcept nogil:
    memory_give(w, r, <uint32_t>sizeof(Waiting) + r.length, FOR_PACKETS)


cdef void room_drop(Worker *w, Seals *seals, SealPeer *peer) noexcept nogil:
    """Drop the packet that has waited longest for a peer (lock of Seals held)."""
    waiting_give(w, room_take(seals, peer))
    drop(w, &w.engine.slots[<uint32_t>seals.device], DROP_NO_SESSION)


cdef void room_expire(Worker *w, Seals *seals) noexcept nogil:
    """Drop what has waited for too long (lock of Seals held)."""
    while seals.oldest != NULL and since(w.now, seals.oldest.stamp_ns) > <uint64_t>SECOND_NS * WAITING_FOR_S:
        room_drop(w, seals, seals.oldest.peer)


cdef void room_append(Seals *seals, SealPeer *peer, Waiting *r) noexcept nogil:
    """Put a packet at the end (lock of Seals held)."""
    r.next = r.newer = NULL
    r.older = seals.newest
    if seals.newest != NULL:
        seals.newest.newer = r
    else:
        seals.oldest = r
    seals.newest = r
    if peer.last != NULL:
        peer.last.next = r
    else:
        peer.first = r
    peer.last = r
    store_relaxed64(&peer.waiting, peer.waiting + 1)
    peer.waiting_bytes += r.length
    seals.waiting_bytes += r.length


cdef uint64_t room_put(Worker *w, Seals *seals, SealPeer *peer, const uint8_t *vnet, const uint8_t *packet,
                       uint32_t length) noexcept nogil:
    """Have a packet wait, unless its peer's way is open by now and nothing waits before it: that way, else WAY_WAIT.
    Beyond the bounds the oldest go, and one for which there is no memory goes itself."""
    cdef Waiting *r
    cdef uint32_t size = VNET_BYTES + length
    cdef uint64_t way
    cdef Slot *s = &w.engine.slots[<uint32_t>seals.device]
    pthread_mutex_lock(&seals.lock)
    way = peer_way(peer, boot_now(w))
    if peer.gone or way == WAY_WAIT or peer.first != NULL:
        way = WAY_WAIT
        room_expire(w, seals)
        while peer.first != NULL and (peer.waiting >= WAITING_PACKETS or peer.waiting_bytes + size > WAITING_BYTES):
            room_drop(w, seals, peer)
        while seals.oldest != NULL and seals.waiting_bytes + size > WAITING_BYTES_ALL:
            room_drop(w, seals, seals.oldest.peer)
        r = NULL
        if not peer.gone:
            r = <Waiting *>memory_take(w, <uint32_t>sizeof(Waiting) + size, FOR_PACKETS)
        if r == NULL:
            drop(w, s, DROP_NO_SESSION if peer.gone else DROP_MEMORY)
        else:
            r.peer = peer
            r.stamp_ns = w.now
            r.length = size
            if vnet == NULL:
                memset(waiting_bytes(r), 0, VNET_BYTES)
            else:
                memcpy(waiting_bytes(r), vnet, VNET_BYTES)
            memcpy(waiting_bytes(r) + VNET_BYTES, packet, length)
            room_append(seals, peer, r)
    pthread_mutex_unlock(&seals.lock)
    return way


cdef void room_open(Seals *seals, SealPeer *peer) noexcept nogil:
    """A peer's way is open: what waits may go (lock of Seals held)."""
    if not peer.opened:
        peer.opened = True
        peer.next_opened = seals.opened
        seals.opened = peer


cdef void room_shut(Seals *seals, SealPeer *peer) noexcept nogil:
    """Nothing waits for this peer any more, or it has to go on waiting (lock of Seals held)."""
    cdef SealPeer **place = &seals.opened
    if not peer.opened:
        return
    while place[0] != peer:
        place = &place[0].next_opened
    place[0] = peer.next_opened
    peer.opened = False


cdef Waiting *room_next(Worker *w, Seals *seals) noexcept nogil:
    """Of what waits for a peer whose way is open, the packet that has waited longest, taken out; NULL none."""
    cdef Waiting *r = NULL
    pthread_mutex_lock(&seals.lock)
    room_expire(w, seals)
    while r == NULL and seals.opened != NULL:
        if peer_way(seals.opened, boot_now(w)) != WAY_WAIT:
            r = room_take(seals, seals.opened)
        if r == NULL:
            room_shut(seals, seals.opened)
    pthread_mutex_unlock(&seals.lock)
    return r


cdef void room_empty(Worker *w, Seals *seals, SealPeer *peer) noexcept nogil:
    """Drop all that waits for a peer (lock of Seals held)."""
    while peer.first != NULL:
        room_drop(w, seals, peer)


cdef void room_tick(Worker *w, Seals *seals) noexcept nogil:
    """Drop what has waited for too long, though nothing comes any more. NULL: there is no such room."""
    if seals == NULL:
        return
    pthread_mutex_lock(&seals.lock)
    room_expire(w, seals)
    pthread_mutex_unlock(&seals.lock)


cdef void rooms_free(Worker *w, Seals *seals) noexcept nogil:
    """Give back all that waits; no worker runs any more."""
    while seals != NULL and seals.oldest != NULL:
        waiting_give(w, room_take(seals, seals.oldest.peer))
