# Sealing: a frame that waited, or goes straight through, becomes what is on the wire. Under the send lock of the
# connection, when it is committed: what is dropped before has no counter.

cdef enum:
    SEAL_AHEAD = 131072             # sealed ahead of the kernel while nothing waits


cdef bint session_seal(Worker *w, Session *session, const uint8_t *payload, uint8_t *out, uint32_t n,
                       uint32_t mask) noexcept nogil:
    """Seal a payload of `n` bytes under a session, as aead_seal(), with the next counter. False: it may send no
    more."""
    cdef uint8_t header[SEALED_HEADER]
    cdef uint32_t plain = n - SEALED_HEADER - SEAL_TAG
    cdef bint is_packet = plain != 0 and payload[SEALED_HEADER] != NOTE
    cdef uint64_t now = boot_now(w)
    cdef uint64_t number
    cdef bint done = False
    pthread_mutex_lock(&session.sends.lock)
    if (session.sends.ready and now < session.sends_until_ns
            and session.bytes_sent + plain <= SEND_BYTES_MAX):
        # Never given back, whatever becomes of the packet: and at the bound it is refused, by all threads alike.
        number = add_relaxed64(&session.number, 1)
        if number < COUNTER_MAX:
            memcpy(header, payload, SEALED_SESSION_AT)
            store_be32(header + SEALED_SESSION_AT, session.remote)
            store_be64(header + SEALED_HEADER - 8, number)
            done = aead_seal(&session.sends, header, SEALED_HEADER, payload, out, n, mask)
            store_relaxed64(&session.bytes_sent, session.bytes_sent + plain)
    pthread_mutex_unlock(&session.sends.lock)
    if done:
        if is_packet:
            store_relaxed64(&session.packet_sent_ns, now)
            if load_relaxed64(&session.unanswered_ns) == 0:
                store_relaxed64(&session.unanswered_ns, now)
        store_relaxed64(&session.owes_ns, 0)
    return done


cdef bint seal_frame(Worker *w, Slot *s, const uint8_t *frame, uint8_t *out) noexcept nogil:
    """Seal a frame that is_unsealed(), under the session that its peer has now, or for a group under this device's own
    key, into `out`: itself, or memory apart from it. False: it was dropped."""
    cdef uint32_t at = frame_header(frame)
    cdef uint32_t size = frame_size(frame)
    cdef bint masked = frame[1] >> 7
    cdef uint32_t mask = next_mask(s) if masked else 0
    cdef Seals *seals = seals_of(w, s)
    cdef SealPeer *peer = NULL
    cdef Session *session = NULL
    w.work -= size
    if frame[at] == KIND_SEALED_GROUP:
        if seals == NULL or not group_seal(seals, frame + at, out + at, size - at, mask):
            drop(w, s, DROP_GROUP_NOT_SEALED)
            return False
    else:
        if seals != NULL:
            peer = peer_find(seals, load_be32(frame + at + SEALED_DESTINATION_AT))
        if peer != NULL:
            session = <Session *>load_pointer(<void **>&peer.session)
        if session == NULL or not session_seal(w, session, frame + at, out + at, size - at, mask):
            drop(w, s, DROP_NO_SESSION)
            return False
    write_header(out, OP_BINARY, size - at, masked, mask)
    return True


cdef inline bint commit_frame(Worker *w, Slot *s, const uint8_t *frame, uint8_t *out, uint32_t size) noexcept nogil:
    """Copy a frame that waited to where it is sent from, sealed if it was to be. False: it was dropped."""
    if unlikely(is_unsealed(frame)):
        return seal_frame(w, s, frame, out)
    memcpy(out, frame, size)
    return True


cdef uint32_t seal_run(Worker *w, Slot *s, Target *t, Run *g, uint32_t offset, uint32_t most) noexcept nogil:
    """Seal the frames of a run from this byte on where they lie: at least one, and no more than `most` bytes; what
    can't be sealed is taken out of the run. Returns the bytes that are ready."""
    cdef uint32_t at = offset
    cdef uint32_t size
    cdef uint8_t *frame
    while at < g.length:
        frame = g.bytes + at
        size = frame_size(frame)
        if at != offset and at + size - offset > most:
            break
        if not is_unsealed(frame) or seal_frame(w, s, frame, frame):
            at += size
            continue
        g.length -= size
        t.packets -= 1
        memmove(frame, frame + size, g.length - at)
    return at - offset
