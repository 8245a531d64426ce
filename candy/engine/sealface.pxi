# What Python says of sealing, and asks: the Engine's part of it. Runs on one Python thread.

cdef double BOOT_SECOND_NS = 1e9


cdef bint link_key(const uint8_t *key, uint8_t *out) noexcept nogil:
    """A link's key, of a session's of the same direction: HKDF without a salt (RFC 5869). False: OpenSSL can't."""
    cdef uint8_t salt[SHA_BYTES]
    cdef uint8_t secret[SHA_BYTES]
    cdef bint done
    memset(salt, 0, SHA_BYTES)
    done = (hmac_sha256(salt, key, SEAL_KEY_BYTES, secret)
            and hmac_sha256(secret, b"candy direct link\x01", 18, out))
    OPENSSL_cleanse(secret, sizeof(secret))
    return done


cdef class _Sealing(_Core):
    """Sealing of devices: see _fastpath.pyi."""

    cdef Seals *seals(self, tun) except? NULL:
        """The sealing of a device's network, NULL where it was never set."""
        cdef Slot *s = self.find(tun)
        if s == NULL or s.kind != SLOT_TUN:
            raise ValueError("no such device")
        return self.state.networks[s.network].seals

    cdef Seals *sealing(self, tun) except NULL:
        """The same, which has to be there."""
        cdef Seals *seals = self.seals(tun)
        if seals == NULL:
            raise ValueError("set_sealing() comes first")
        return seals

    def set_sealing(self, tun, int sealing, uint32_t own, *, bint checks_source=True):
        cdef Seals *seals = self.seals(tun)
        cdef Slot *s = self.find(tun)
        if not 0 <= sealing <= <int>SEALING_REQUIRE:
            raise ValueError(f"no such way to seal: {sealing}")
        libssl_load()
        if seals == NULL:
            seals = <Seals *>calloc(1, sizeof(Seals))
            if seals == NULL:
                raise MemoryError
            seals.device = tun
            while seals.link_prefix == 0:
                if getrandom(&seals.link_prefix, sizeof(seals.link_prefix), 0) != sizeof(seals.link_prefix):
                    free(seals)
                    raise OSError(errno, os.strerror(errno))
            pthread_mutex_init(&seals.lock, NULL)
        store_relaxed64(&seals.own, own)
        store_relaxed64(&seals.checks_source, checks_source)
        store_relaxed64(&seals.sealing, <uint64_t>sealing)
        store_relaxed64(&s.takes_sealed, sealing != SEALING_OFF)
        store_pointer(<void **>&self.state.networks[s.network].seals, seals)
        if sealing == SEALING_OFF:
            pthread_mutex_lock(&seals.lock)
            while seals.oldest != NULL:
                room_drop(self.sender(), seals, seals.oldest.peer)
            pthread_mutex_unlock(&seals.lock)

    def install(self, tun, *, uint32_t local, uint32_t peer, uint32_t remote, int cipher, bytes sends not None,
                bytes receives not None, double sends_until, double opens_until, bint confirmed):
        cdef Seals *seals = self.sealing(tun)
        cdef Session **place = &seals.sessions[local & (PLACES - 1)]
        cdef Session *session
        cdef uint8_t link_keys[2 * SEAL_KEY_BYTES]
        cdef bint done
        if len(sends) != SEAL_KEY_BYTES or len(receives) != SEAL_KEY_BYTES:
            raise ValueError(f"a key has {SEAL_KEY_BYTES} bytes")
        if cipher != CIPHER_AES_256_GCM and cipher != CIPHER_CHACHA20_POLY1305:
            raise ValueError(f"no such cipher: {cipher}")
        if local == 0 or session_find(seals, local) != NULL:
            raise ValueError("a session's number is not 0, and not in use")
        done = link_key(sends, link_keys) and link_key(receives, link_keys + SEAL_KEY_BYTES)
        session = session_make(cipher, sends, receives, link_keys, link_keys + SEAL_KEY_BYTES) if done else NULL
        OPENSSL_cleanse(link_keys, sizeof(link_keys))
        if session == NULL:
            raise MemoryError
        session.local = local
        session.peer = peer
        session.remote = remote
        session.sends_until_ns = <uint64_t>(sends_until * BOOT_SECOND_NS)
        session.opens_until_ns = <uint64_t>(opens_until * BOOT_SECOND_NS)
        session.confirmed = confirmed
        session.next = place[0]
        store_pointer(<void **>place, session)

    def remove_session(self, tun, uint32_t local):
        return session_remove(self.state, self.sealing(tun), local)

    def set_peer(self, tun, uint32_t address, int way, *, uint32_t session=0, bint takes_clear=False,
                 uint32_t longest=LONGEST_DEFAULT, bytes label_key not None=bytes(16), bint tells_wanted=False,
                 bint tells_clear=False):
        cdef Seals *seals = self.sealing(tun)
        cdef Worker *w = self.sender()
        cdef Slot *s = self.find(tun)
        cdef SealPeer *peer
        cdef Session *named = session_find(seals, session) if session else NULL
        cdef bint waits = False
        cdef bint opens = False
        if not 0 <= way <= <int>WAY_NOT_SEALING:
            raise ValueError(f"no such way: {way}")
        if len(label_key) != 16 or longest < WIRE_PAYLOAD_LEGACY:
            raise ValueError("a label's key has 16 bytes, and the longest packet at least 1,500")
        if session and (named == NULL or named.peer != address):
            raise ValueError("a session that is not there, or another's")
        pthread_mutex_lock(&seals.lock)
        peer = peer_make(seals, address)
        if peer != NULL:
            store_relaxed64(&peer.label_key[0], load64(<const char *>label_key))
            store_relaxed64(&peer.label_key[1], load64(<const char *>label_key + 8))
            store_relaxed64(&peer.longest, longest)
            store_relaxed32(&seals.clear_count, seals.clear_count + takes_clear - (peer.takes_clear != 0))
            store_relaxed64(&peer.takes_clear, takes_clear)
            store_relaxed64(&peer.tells_wanted, tells_wanted)
            store_relaxed64(&peer.tells_clear, tells_clear)
            store_relaxed64(&peer.told_wanted, 0)
            store_relaxed64(&peer.told_clear, 0)
            store_pointer(<void **>&peer.session, named)
            store_release64(&peer.way, <uint64_t>way)
            if peer.first != NULL:
                waits = peer_way(peer, boot_now(w)) == WAY_WAIT
                opens = not waits
                if opens:
                    room_open(seals, peer)
        pthread_mutex_unlock(&seals.lock)
        if peer == NULL:
            raise MemoryError
        if opens:
            with nogil:
                point(POINT_OPENED)
            ask(w, s, tun, RELEASE)
        if waits:
            tell_wanted(w, seals, peer, True)

    def forget_peer(self, tun, uint32_t address):
        cdef Seals *seals = self.sealing(tun)
        cdef SealPeer **place = &seals.peers[peer_place(address)]
        cdef SealPeer *peer
        cdef Path *path = NULL
        cdef OldPath *old = NULL
        pthread_mutex_lock(&seals.lock)
        while place[0] != NULL and place[0].address != address:
            place = &place[0].next
        peer = place[0]
        if peer != NULL:
            store_pointer(<void **>place, peer.next)
            seals.peer_count -= 1
            store_relaxed32(&seals.clear_count, seals.clear_count - (peer.takes_clear != 0))
            room_empty(self.sender(), seals, peer)
            room_shut(seals, peer)
            peer.gone = True
            path = peer.path
            old = peer.old
        pthread_mutex_unlock(&seals.lock)
        if peer != NULL:
            if path != NULL:
                table_retire(self.state, &path.table)
            if old != NULL:
                seal_key_wipe(&old.sends)
                table_retire(self.state, &old.path.table)
            table_retire(self.state, &peer.table)
        return peer != NULL

    def send_sealed(self, tun, uint32_t local, bytes body not None=b""):
        cdef Seals *seals = self.sealing(tun)
        cdef Session *session = session_find(seals, local)
        cdef Slot *s = self.find(tun)
        cdef Worker *w = self.sender()
        cdef uint64_t connection = load_relaxed64(&s.uplink)
        cdef Slot *to
        cdef uint8_t *plain = w.scratch + UNSEALED_ROOM
        cdef uint8_t *frame
        cdef uint32_t at, size, mask
        cdef bint masked
        if len(body) > NOTE_MAX or (body and body[0] != NOTE):
            raise ValueError(f"a note has up to {NOTE_MAX} bytes, the first {NOTE}")
        if session == NULL:
            return False
        if self.note_by_path(seals, session, body):
            return True
        if connection == 0:
            connection = route_find(self.state.networks[s.network], session.peer)
            if is_relay(connection):
                connection = trunk_to(w, s, connection, <uint32_t>load_relaxed64(&seals.own), session.peer)
        to = self.find(connection)
        if to == NULL or not has_candy3(to):
            return False
        masked = to.kind == SLOT_CLIENT
        memcpy(plain, <const char *>body, len(body))
        frame = unsealed_build(KIND_SEALED, plain, <uint32_t>len(body), masked, 0,
                               <uint32_t>load_relaxed64(&seals.own), session.peer)
        at = frame_header(frame)
        size = frame_size(frame)
        mask = next_mask(to) if masked else 0
        if not session_seal(w, session, frame + at, frame + at, size - at, mask):
            return False
        write_header(frame, OP_BINARY, size - at, masked, mask)
        if to.kind == SLOT_TRUNK:
            if not trunk_leave(w, connection, s.network, frame, size):
                return False
        elif not inbox_control(w, connection, frame, size):
            return False
        settle(w, to)
        return True

    cdef bint note_by_path(self, Seals *seals, Session *session, bytes body):
        """Send what send_sealed() is to send by the path to its peer; False: there is none, or it is quiet."""
        cdef Worker *w = self.sender()
        cdef Path *path = path_of(peer_find(seals, session.peer))
        cdef Slot *link
        cdef bint done = False
        if path == NULL or load_relaxed64(&path.quiet) != 0:
            return False
        link = &self.state.slots[<uint32_t>path.link]
        memcpy(w.scratch + LINK_HEADER, <const char *>body, len(body))
        pthread_mutex_lock(&link.send_lock)
        if is_current(link, path.link):
            done = link_post(w, session, link, path.name, path.name_size, w.scratch, <uint32_t>len(body))
        pthread_mutex_unlock(&link.send_lock)
        if done:
            store_relaxed64(&path.sent_ns, boot_now(w))
            session_sent(session, boot_now(w), False)
        return done

    def seal_groups(self, tun, bytes epoch not None=b"", bytes key not None=b"", bytes label_key not None=bytes(16)):
        cdef Seals *seals = self.sealing(tun)
        cdef GroupSeal *former = seals.group
        cdef GroupSeal *fresh = NULL
        if key or epoch:
            if len(epoch) != EPOCH_BYTES or len(key) != SEAL_KEY_BYTES or len(label_key) != 16:
                raise ValueError(f"an epoch has {EPOCH_BYTES} bytes, a key {SEAL_KEY_BYTES}, a label's 16")
            fresh = group_seal_make(epoch, key)
            if fresh == NULL:
                raise MemoryError
            memcpy(fresh.label_key, <const char *>label_key, 16)
        store_pointer(<void **>&seals.group, fresh)
        if former != NULL:
            seal_key_wipe(&former.sends)
            table_retire(self.state, &former.table)

    def open_group(self, tun, uint32_t source, bytes epoch not None, bytes key not None, bytes message not None):
        cdef Seals *seals = self.sealing(tun)
        cdef Worker *w = self.sender()
        cdef Slot *s = self.find(tun)
        cdef GroupOpen **place = &seals.groups[peer_place(source)]
        cdef GroupOpen *group
        cdef bint fresh
        if len(epoch) != EPOCH_BYTES or len(key) != SEAL_KEY_BYTES:
            raise ValueError(f"an epoch has {EPOCH_BYTES} bytes, a key {SEAL_KEY_BYTES}")
        if not SEALED_GROUP_MIN <= len(message) <= SEALED_GROUP_MAX:
            raise ValueError(f"a message has {SEALED_GROUP_MIN} to {SEALED_GROUP_MAX} bytes")
        group = group_find(seals, source, epoch)
        fresh = group == NULL
        if fresh:
            group = group_open_make(source, epoch, key)
            if group == NULL:
                raise MemoryError
        memcpy(w.scratch, <const char *>message, len(message))
        take_group(w, s, s, seals, group, w.scratch, <uint32_t>len(message))
        if fresh:
            # Behind that, so that those which follow come behind it.
            group.next = place[0]
            store_pointer(<void **>place, group)

    def close_group(self, tun, uint32_t source, bytes epoch not None):
        if len(epoch) != EPOCH_BYTES:
            raise ValueError(f"an epoch has {EPOCH_BYTES} bytes")
        return group_remove(self.state, self.sealing(tun), source, epoch)

    def seen(self, tun):
        cdef Seals *seals = self.sealing(tun)
        cdef Session *session
        cdef uint32_t i
        found = []
        for i in range(<uint32_t>PLACES):
            session = seals.sessions[i]
            while session != NULL:
                found.append((
                    session.local, load_relaxed64(&session.bytes_sent) + load_relaxed64(&session.link.bytes_sent),
                    load_relaxed64(&session.packet_sent_ns) / BOOT_SECOND_NS,
                    load_relaxed64(&session.unanswered_ns) / BOOT_SECOND_NS,
                    load_relaxed64(&session.received_ns) / BOOT_SECOND_NS,
                    load_relaxed64(&session.owes_ns) / BOOT_SECOND_NS,
                ))
                session = session.next
        return found
