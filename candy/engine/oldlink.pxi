# Direct links with the original's clients, over bytes: datagrams under a key that is its recipient's alone.
#
#     | IV 12 | tag 16 | 1, IPv4 packet, or a message for Python |
#
# All who have the network's password send to a member under that one key, so IVs are random, and OLD_SEALED_MAX of them
# are all that this device uses (NIST SP 800-38D, 8.3). A path leads to one peer, and only what comes from its very
# address may be from that peer, or from one that is reached by it: of which Python has said so (hops).

cdef enum:
    OLD_HEADER = 28                 # IV and tag
    OLD_OVER = 29                   # and the kind of a packet
    OLD_DATAGRAM_MAX = 1500         # an original client receives no longer one
    OLD_LEAST = 40                  # the shortest: a heartbeat
    OLD_MESSAGE_MAX = 64            # of one that Python is told
    OLD_FORWARD = 1
    OLD_HOPS = 4
    OLD_TELLERS = 256
    OLD_TELLS_PER_S = 8             # of one address, or of those that share its place
    OLD_TELLS_SAVED = 16

cdef uint64_t OLD_MET_PAUSE_NS = 5 * <uint64_t>SECOND_NS
cdef uint64_t OLD_SEALED_MAX = <uint64_t>1 << 32


cdef bint old_evp(SealKey *k, const uint8_t *iv, uint8_t *data, uint32_t n, uint8_t *tag, bint seals) noexcept nogil:
    """Seal or open by OpenSSL where it lies. False: the tag is another, or OpenSSL failed."""
    cdef int size
    if EVP_CipherInit_ex(k.cipher, NULL, NULL, NULL, iv, seals) != 1:
        return False
    if not seals and EVP_CIPHER_CTX_ctrl(k.cipher, EVP_CTRL_AEAD_SET_TAG, SEAL_TAG, tag) != 1:
        return False
    if (EVP_CipherUpdate(k.cipher, data, &size, data, <int>n) != 1
            or EVP_CipherFinal_ex(k.cipher, data + n, &size) != 1):
        return False
    return not seals or EVP_CIPHER_CTX_ctrl(k.cipher, EVP_CTRL_AEAD_GET_TAG, SEAL_TAG, tag) == 1


cdef bint old_seal(SealKey *k, uint8_t *datagram, uint32_t plain) noexcept nogil:
    """Seal so many bytes behind the room for IV and tag; the IV is there (the key's lock held)."""
    cdef uint8_t *data = datagram + OLD_HEADER
    if not k.ready:
        return False
    if k.own:
        gcm_seal(&k.gcm, datagram, datagram, 0, data, data, plain, 0, datagram + NONCE_BYTES)
        return True
    return old_evp(k, datagram, data, plain, datagram + NONCE_BYTES, True)


cdef bint old_open(SealKey *k, uint8_t *datagram, uint32_t n) noexcept nogil:
    """Open a datagram of at least OLD_LEAST bytes where it lies (the key's lock held)."""
    cdef uint8_t *data = datagram + OLD_HEADER
    if not k.ready:
        return False
    if k.own:
        return gcm_open(&k.gcm, datagram, datagram, 0, data, n - OLD_HEADER, 0, datagram + NONCE_BYTES)
    return old_evp(k, datagram, data, n - OLD_HEADER, datagram + NONCE_BYTES, False)


cdef void old_met(Worker *w, Seals *seals, const Frame *f, uint32_t shift) noexcept nogil:
    """Tell Python who has sent a FORWARD (shift 0) or SUPER (SUPER_SHIFT) by the relay: there may be a link with it."""
    cdef uint8_t detail[4]
    cdef uint32_t source = swap32(load32(f.payload + SOURCE_AT + shift) ^ rotate_mask(f.mask, SOURCE_AT + shift))
    cdef uint64_t *told_ns = &seals.met_ns[peer_place(source)]
    cdef uint64_t before = load_relaxed64(told_ns)
    if before != 0 and since(w.now, before) < OLD_MET_PAUSE_NS:
        return
    w.work -= WORK_ANSWER
    store_be32(detail, source)
    if tell_sealing(w, seals, EV_MET, detail, sizeof(detail)):
        store_relaxed64(told_ns, w.now)


cdef inline OldPath *old_path_of(Seals *seals, uint32_t address) noexcept nogil:
    """The path to a peer that is an original client, NULL none."""
    cdef SealPeer *peer = peer_find(seals, address)
    return <OldPath *>load_pointer(<void **>&peer.old) if peer != NULL else NULL


cdef inline bint old_in_clear(Worker *w, Slot *s, const SealPeer *peer) noexcept nogil:
    """Whether packets for a peer may leave in the original's format: it does not seal, or nobody does here."""
    return seals_of(w, s) == NULL or load_relaxed64(&peer.way) == WAY_CLEAR


cdef OldPath *old_open_path(Worker *w, Slot *s, SealPeer *peer) noexcept nogil:
    """The path to a peer, by which packets may go now; NULL none, also for no peer."""
    cdef OldPath *old = <OldPath *>load_pointer(<void **>&peer.old) if peer != NULL else NULL
    if old == NULL or old.path.longest == 0 or not old_in_clear(w, s, peer):
        return NULL
    if load_relaxed64(&old.path.quiet) != 0:
        path_quiet(w, <Seals *>load_pointer(<void **>&w.engine.networks[s.network].seals), &old.path)
        return NULL
    return old


cdef OldPath *old_way(Worker *w, Slot *s, Seals *seals, SealPeer *peer) noexcept nogil:
    """The path that packets for a peer take: to itself, else to the first of those that it is reached by."""
    cdef OldPath *old = old_open_path(w, s, peer)
    if old != NULL or peer == NULL or load_relaxed32(&peer.hops[0]) == 0 or not old_in_clear(w, s, peer):
        return old
    return old_open_path(w, s, peer_find(seals, load_relaxed32(&peer.hops[0])))


cdef OldPath *old_hop_at(Seals *seals, uint32_t address, const uint8_t *place) noexcept nogil:
    """The path to this place, if a peer with this address is reached by who is there; NULL: it is not."""
    cdef SealPeer *peer = peer_find(seals, address)
    cdef OldPath *old
    cdef uint32_t i, hop
    if peer == NULL:
        return NULL
    for i in range(<uint32_t>OLD_HOPS):
        hop = load_relaxed32(&peer.hops[i])
        if hop == 0:
            return NULL
        old = old_path_of(seals, hop)
        if old != NULL and memcmp(old.path.place, place, sizeof(old.path.place)) == 0:
            return old
    return NULL


cdef bint old_iv(Links *links, uint8_t *iv) noexcept nogil:
    """A fresh IV. False: the system has no random bytes."""
    if links.ivs_left == 0:
        if getrandom(links.ivs, sizeof(links.ivs), 0) != <ssize_t>sizeof(links.ivs):
            return False
        links.ivs_left = <uint32_t>(sizeof(links.ivs) // NONCE_BYTES)
    links.ivs_left -= 1
    memcpy(iv, links.ivs + links.ivs_left * NONCE_BYTES, NONCE_BYTES)
    return True


cdef bint old_forward(Worker *w, Slot *s, const uint8_t *packet, uint32_t length, const Super *u) noexcept nogil:
    """Send a device's packet to the original client that has its destination, or to one by which that is reached, by
    the path to there. `u` is NULL for an ordinary packet. False: nothing was done, and it goes by the relay."""
    cdef Links *links = <Links *>load_pointer(<void **>&w.links)
    cdef Seals *seals = <Seals *>load_pointer(<void **>&w.engine.networks[s.network].seals)
    cdef OldPath *old
    cdef Slot *link
    cdef uint8_t *datagram
    cdef uint32_t i, size
    cdef uint32_t n = 1
    if links == NULL or seals == NULL or load_pointer(<void **>&seals.old_key) == NULL:
        return False
    old = old_way(w, s, seals, peer_find(seals, load_be32(packet + 16)))
    if old == NULL:
        return False
    link = slot_if_current(w, old.path.link)
    size = length
    if u != NULL:
        n = super_count(u)
        size = super_segment_size(u)
    if link == NULL or size > old.path.longest:
        return False
    if load_relaxed64(&seals.old_sealed) + n > OLD_SEALED_MAX:
        path_quiet(w, seals, &old.path)
        return False
    pthread_mutex_lock(&old.sends.lock)
    for i in range(n):
        if u != NULL and u.gso_size != 0:
            size = u.headers + min(u.gso_size, u.length - u.headers - i * u.gso_size)
        datagram = link_room(w, links, &old.path, link, OLD_OVER + size)
        datagram[OLD_HEADER] = OLD_FORWARD
        if u == NULL:
            memcpy(datagram + OLD_OVER, packet, size)
        else:
            super_segment(u, i, datagram + OLD_OVER)
        w.work -= WORK_FRAME + size
        if not old_iv(links, datagram) or not old_seal(&old.sends, datagram, 1 + size):
            link_take_back(links, OLD_OVER + size)
            drops(w, s, DROP_LINK_REFUSED, n - i)
            break
    pthread_mutex_unlock(&old.sends.lock)
    add_relaxed64(&seals.old_sealed, n)
    return True
