# What Python says of direct links with the original's clients: the Engine's part of it. Runs on one Python thread.

cdef class _OldLinks(_Links):
    """Direct links with the original's clients: see _fastpath.pyi."""

    cdef Slot *own_link(self, tun, link, bytes address, uint16_t port) except NULL:
        """The slot of a link of this device's, to whose family the address belongs."""
        cdef Slot *s = self.find_link(link)
        cdef bint is_own = False
        cdef uint16_t family = 0
        if s != NULL:
            pthread_mutex_lock(&s.send_lock)
            if is_current(s, link):
                is_own = s.link.device == tun
                family = s.link.family
            pthread_mutex_unlock(&s.send_lock)
        if not is_own:
            raise ValueError("no such link of this device")
        if len(address) != (4 if family == AF_INET else 16) or port == 0:
            raise ValueError("an address and a port of the link's family")
        return s

    def set_old_key(self, tun, uint32_t own, bytes key not None=b"", *, uint64_t sealed=0):
        cdef Seals *seals = self.seals(tun)
        cdef OldKey *former
        cdef OldKey *fresh = NULL
        if key and len(key) != SEAL_KEY_BYTES:
            raise ValueError(f"a key has {SEAL_KEY_BYTES} bytes")
        if seals == NULL:
            self.set_sealing(tun, SEALING_OFF, own)
            seals = self.sealing(tun)
        if key:
            store_relaxed64(&seals.own, own)    # without, it may be another one's by now
            fresh = <OldKey *>calloc(1, sizeof(OldKey))
            if fresh == NULL or not seal_key_set(&fresh.opens, CIPHER_AES_256_GCM, key, False, True):
                free(fresh)
                raise MemoryError
            store_relaxed64(&seals.old_sealed, sealed)
        former = seals.old_key
        store_pointer(<void **>&seals.old_key, fresh)
        if former != NULL:
            seal_key_wipe(&former.opens)
            table_retire(self.state, &former.table)
        self.filter_links(tun, seals)

    cdef void filter_links(self, tun, Seals *seals) noexcept:
        """Have all links of a device let through what they need from now on."""
        cdef Slot *s
        cdef uint32_t i
        for i in range(self.state.high_slot):
            s = &self.state.slots[i]
            pthread_mutex_lock(&s.send_lock)
            if load_relaxed64(&s.kind) == SLOT_LINK and s.link != NULL and s.link.device == tun:
                link_filter(s, seals)
            pthread_mutex_unlock(&s.send_lock)

    def set_old_path(self, tun, uint32_t peer, link, bytes address not None, uint16_t port, bytes key not None,
                     uint32_t longest):
        cdef Seals *seals = self.sealing(tun)
        cdef SealPeer *found
        cdef OldPath *former
        cdef OldPath *fresh
        if len(key) != SEAL_KEY_BYTES:
            raise ValueError(f"a key has {SEAL_KEY_BYTES} bytes")
        if longest > <uint32_t>(OLD_DATAGRAM_MAX - OLD_OVER):
            raise ValueError(f"a packet for an original client has at most {OLD_DATAGRAM_MAX - OLD_OVER} bytes")
        self.own_link(tun, link, address, port)
        found = peer_of(seals, peer)
        fresh = <OldPath *>calloc(1, sizeof(OldPath)) if found != NULL else NULL
        if fresh == NULL or not seal_key_set(&fresh.sends, CIPHER_AES_256_GCM, key, True, True):
            free(fresh)
            raise MemoryError
        path_fill(&fresh.path, peer, link, AF_INET if len(address) == 4 else AF_INET6, address, port,
                  longest, OLD_OVER)
        former = found.old
        if former != NULL:
            path_follow(&fresh.path, &former.path)
        store_pointer(<void **>&found.old, fresh)
        self.retire_old(former)

    def clear_old_path(self, tun, uint32_t peer):
        cdef SealPeer *found = peer_find(self.sealing(tun), peer)
        cdef OldPath *former = found.old if found != NULL else NULL
        if former == NULL:
            return False
        store_pointer(<void **>&found.old, NULL)
        self.retire_old(former)
        return True

    cdef void retire_old(self, OldPath *former) noexcept:
        if former != NULL:
            seal_key_wipe(&former.sends)
            table_retire(self.state, &former.path.table)

    def set_old_hops(self, tun, uint32_t peer, hops):
        cdef Seals *seals = self.sealing(tun)
        cdef SealPeer *found
        cdef uint32_t i
        if len(hops) > OLD_HOPS or any([hop == 0 or hop == peer for hop in hops]):
            raise ValueError(f"a peer is reached by up to {OLD_HOPS} others")
        found = peer_of(seals, peer) if hops else peer_find(seals, peer)
        if found == NULL:
            if hops:
                raise MemoryError
            return
        for i in range(<uint32_t>OLD_HOPS):
            store_relaxed32(&found.hops[i], hops[i] if i < <uint32_t>len(hops) else 0)

    def resend_old(self, tun, bint resends):
        store_relaxed64(&self.sealing(tun).old_resends, resends)

    def old_resent(self, tun):
        return load_relaxed64(&self.sealing(tun).old_resent)

    def send_old(self, tun, link, bytes address not None, uint16_t port, bytes key not None, bytes content not None):
        cdef Slot *s = self.own_link(tun, link, address, port)
        cdef Seals *seals = self.sealing(tun)
        cdef SealKey sends
        cdef uint8_t datagram[OLD_HEADER + OLD_MESSAGE_MAX]
        cdef uint8_t name[28]
        cdef uint32_t size
        cdef uint32_t n = <uint32_t>len(content)
        cdef bint done = False
        if len(key) != SEAL_KEY_BYTES or not 0 < n <= OLD_MESSAGE_MAX:
            raise ValueError(f"a key has {SEAL_KEY_BYTES} bytes, and a message 1 to {OLD_MESSAGE_MAX}")
        if load_relaxed64(&seals.old_sealed) >= OLD_SEALED_MAX:
            return False
        if getrandom(datagram, NONCE_BYTES, 0) != NONCE_BYTES:
            raise OSError(errno, os.strerror(errno))
        memcpy(datagram + OLD_HEADER, <const char *>content, n)
        memset(&sends, 0, sizeof(sends))
        if not seal_key_set(&sends, CIPHER_AES_256_GCM, key, True, True):
            raise MemoryError
        done = old_seal(&sends, datagram, n)
        seal_key_wipe(&sends)
        add_relaxed64(&seals.old_sealed, 1)
        pthread_mutex_lock(&s.send_lock)
        if done and is_current(s, link):
            size = name_of(s.link.family, address, port, name)
            done = sendto(s.fd, datagram, OLD_HEADER + n, MSG_DONTWAIT | MSG_NOSIGNAL, name, size) >= 0
        else:
            done = False
        pthread_mutex_unlock(&s.send_lock)
        return done

    def old_sealed(self, tun):
        return load_relaxed64(&self.sealing(tun).old_sealed)

    def old_paths(self, tun):
        cdef Seals *seals = self.sealing(tun)
        cdef SealPeer *peer
        cdef uint32_t i
        found = []
        for i in range(<uint32_t>PLACES):
            peer = <SealPeer *>load_pointer(<void **>&seals.peers[i])
            while peer != NULL:
                if peer.old != NULL:
                    found.append(path_row(&peer.old.path))
                peer = <SealPeer *>load_pointer(<void **>&peer.next)
        return found
