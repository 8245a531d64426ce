# What comes to a device from other members: sealed, it is opened; in the clear, it is taken only from those that may.
# Runs on the worker of the connection that it came by.
#
# A packet is opened where it lies, and the device's frame is written around it there:
#
#     | header | 18, the clear bytes, 24 | virtio header 10 | packet | padding | tag 16 |      as it came
#                               | header | 16 | virtio header 10 | packet |                  a SUPER, or
#                                             | header | 1 | packet |                       where the header is zeros
#
# A packet for a group is rare, and goes to the device by itself.

cdef enum:
    # Of one source's epochs that are not there Python is told; how many of them it tries it decides itself.
    GROUPED_PLACES = 64
    GROUPED_PER_S = 16
    GROUPED_SAVED = 64

cdef inline bint zeros10(const uint8_t *p) noexcept nogil:
    return load64(p) == 0 and load_le16(p + 8) == 0


cdef void session_confirm(Worker *w, Seals *seals, Session *session) noexcept nogil:
    """The first packet has opened (opens.lock held, so that no thread tells first what the next packet brought)."""
    cdef uint8_t detail[4]
    if session.confirmed:
        return
    session.confirmed = True
    store_be32(detail, session.local)
    tell_sealing(w, seals, EV_CONFIRMED, detail, sizeof(detail))


cdef int session_open(Worker *w, Seals *seals, Session *session, const uint8_t *header, Frame *f) noexcept nogil:
    """Open a payload where it lies; the reason to drop it, -1 when it is open and its counter taken."""
    cdef uint64_t number = load_be64(header + SEALED_HEADER - 8)
    cdef uint64_t now = boot_now(w)
    cdef int reason = -1
    pthread_mutex_lock(&session.opens.lock)
    if not session.opens.ready or now >= session.opens_until_ns:
        reason = DROP_UNKNOWN_SESSION
    elif number >= COUNTER_MAX or not window_allows(&session.window, number):
        reason = DROP_REPLAYED
    elif (session.failures >= FORGERIES_MAX
            or not aead_open(&session.opens, header, SEALED_HEADER, f.payload, f.length, f.mask)):
        session.failures += 1
        reason = DROP_BAD_SEAL
    else:
        window_take(&session.window, number, &seals.windows)
        session_confirm(w, seals, session)
    pthread_mutex_unlock(&session.opens.lock)
    return reason


cdef void receive_sealed(Worker *w, Slot *s, uint64_t device, Frame *f) noexcept nogil:
    """One SEALED of at least SEALED_MIN bytes, for a device."""
    cdef Seals *seals = seals_of(w, s)
    cdef uint8_t header[SEALED_HEADER]
    cdef uint32_t source
    cdef uint64_t now
    cdef Session *session
    cdef int reason
    if seals == NULL or device == 0 or f.length > SEALED_MAX:
        drop(w, s, DROP_TOO_LARGE if f.length > SEALED_MAX else DROP_UNEXPECTED_KIND)
        return
    unmask(header, f.payload, SEALED_HEADER, f.mask)
    if load_be32(header + SEALED_DESTINATION_AT) != <uint32_t>load_relaxed64(&seals.own):
        drop(w, s, DROP_NO_ROUTE)
        return
    source = load_be32(header + SEALED_SOURCE_AT)
    session = session_find(seals, load_be32(header + SEALED_SESSION_AT))
    if session == NULL or session.peer != source:
        drop(w, s, DROP_UNKNOWN_SESSION)
        tell_unknown(w, seals, source)
        return
    w.work -= f.length
    reason = session_open(w, seals, session, header, f)
    if reason >= 0:
        drop(w, s, reason)
        return
    now = boot_now(w)
    store_relaxed64(&session.received_ns, now)
    store_relaxed64(&session.unanswered_ns, 0)
    take_opened(w, s, device, seals, session, f)


cdef void take_opened(Worker *w, Slot *s, uint64_t device, Seals *seals, Session *session, Frame *f) noexcept nogil:
    """What a payload held: nothing, a note, or a packet."""
    cdef uint8_t *plain = f.payload + SEALED_HEADER
    cdef uint32_t length = f.length - SEALED_HEADER - SEAL_TAG
    if length == 0:
        return
    if plain[0] == NOTE:
        take_note(w, s, seals, session, plain, length)
        return
    if load_relaxed64(&session.owes_ns) == 0:
        store_relaxed64(&session.owes_ns, boot_now(w))
    if length < VNET_BYTES + 20:
        drop(w, s, DROP_SUPER)
        return
    length -= VNET_BYTES
    length -= padding(length, load_be16(plain + VNET_BYTES + 2))
    if not ipv4_exact(plain + VNET_BYTES, length):
        drop(w, s, DROP_SUPER)
    elif may_be_inside(w, s, seals, session.peer, plain + VNET_BYTES):
        give_opened(w, device, plain, length)


cdef void take_note(Worker *w, Slot *s, Seals *seals, Session *session, const uint8_t *note,
                    uint32_t length) noexcept nogil:
    """A message of rekeying's, or an offer, for Python. A peer may send as many as it likes, of which few are
    heard."""
    cdef uint8_t detail[4 + NOTE_MAX]
    cdef bint told
    if length < 2 or length > NOTE_MAX or not 1 <= note[1] <= NOTE_TYPES:
        drop(w, s, DROP_UNKNOWN_NOTE)
        return
    pthread_mutex_lock(&session.opens.lock)
    told = allowed(&session.notes, w.now, NOTES_PER_S, NOTES_SAVED)
    pthread_mutex_unlock(&session.opens.lock)
    if not told:
        drop(w, s, DROP_HANDSHAKE_LIMIT)
        return
    store_be32(detail, session.local)
    memcpy(detail + 4, note, length)
    w.work -= WORK_ANSWER
    tell_of(w, &w.engine.slots[<uint32_t>seals.device], EV_NOTED, detail, 4 + length, PENDING_MAX)


cdef bint may_be_from(Worker *w, Slot *s, Seals *seals, const Table *rules, uint32_t peer,
                      const uint8_t *packet) noexcept nogil:
    """Whether a packet's source is that of the member that sealed it, or behind it; False: it was dropped."""
    cdef uint32_t own = <uint32_t>load_relaxed64(&seals.own)
    cdef uint32_t source = load_be32(packet + 12)
    if source == own or (source != peer and load_relaxed64(&seals.checks_source)
                         and not rules_place(w, rules, peer, source, &own)):
        drop(w, s, DROP_INNER_SOURCE)
        return False
    return True


cdef bint may_be_inside(Worker *w, Slot *s, Seals *seals, uint32_t peer, const uint8_t *packet) noexcept nogil:
    """Whether a packet's addresses are those of the members that sealed and opened it, or behind them; False: it was
    dropped."""
    cdef const Table *rules = table_read(&w.engine.networks[s.network].rules)
    cdef uint32_t own = <uint32_t>load_relaxed64(&seals.own)
    cdef uint32_t destination = load_be32(packet + 16)
    if not may_be_from(w, s, seals, rules, peer, packet):
        return False
    if is_group(destination) or (destination != own and not rules_place(w, rules, own, destination, &peer)):
        drop(w, s, DROP_INNER_DESTINATION)
        return False
    return True


cdef void give_opened(Worker *w, uint64_t device, uint8_t *vnet, uint32_t length) noexcept nogil:
    """Give a device a packet of this length behind its virtio header; a plain one as such, so that it may be put
    together with others."""
    cdef uint8_t *payload = vnet - 1
    cdef uint32_t size = 1 + VNET_BYTES + length
    cdef uint8_t *frame
    if zeros10(vnet):
        payload += VNET_BYTES
        size -= VNET_BYTES
    payload[0] = KIND_FORWARD if payload > vnet else KIND_SUPER
    frame = payload - header_size(size, False)
    write_header(frame, OP_BINARY, size, False, 0)
    frame[0] = OPENED
    emit(w, device, frame, frame_size(frame), size)


# For groups.

cdef inline bint is_for_all(Worker *w, Slot *s, uint32_t destination) noexcept nogil:
    """Whether a destination is a group's, the network's broadcast address among them."""
    return is_group(destination) or destination == load_relaxed32(&w.engine.networks[s.network].broadcast)


cdef void receive_group(Worker *w, Slot *s, uint64_t device, uint8_t *payload, uint32_t length) noexcept nogil:
    """One SEALED_GROUP, without a mask, for a device."""
    cdef Seals *seals = seals_of(w, s)
    cdef Slot *to = &w.engine.slots[<uint32_t>device]
    cdef uint32_t source
    cdef GroupOpen *group
    count_message(w, s, length)
    if seals == NULL or device == 0:
        drop(w, s, DROP_UNEXPECTED_KIND)
        return
    if not SEALED_GROUP_MIN <= length <= SEALED_GROUP_MAX:
        drop(w, s, DROP_TOO_SHORT if length < SEALED_GROUP_MIN else DROP_TOO_LARGE)
        return
    source = load_be32(payload + SEALED_SOURCE_AT)
    if not is_for_all(w, s, load_be32(payload + SEALED_DESTINATION_AT)):
        drop(w, s, DROP_NO_ROUTE)
    elif source == <uint32_t>load_relaxed64(&seals.own):
        drop(w, s, DROP_SOURCE)
    elif load_pointer(<void **>&seals.group) == NULL:
        drop(w, s, DROP_NO_SECRET)
    else:
        group = group_find(seals, source, payload + SEALED_EPOCH_AT)
        if group != NULL:
            take_group(w, s, to, seals, group, payload, length)
        else:
            tell_grouped(w, s, to, seals, source, payload, length)


cdef void tell_grouped(Worker *w, Slot *s, Slot *to, Seals *seals, uint32_t source, const uint8_t *payload,
                       uint32_t length) noexcept nogil:
    """Give Python a packet of an epoch that is not there, as often as its source may."""
    cdef bint may
    w.work -= WORK_ANSWER + length
    pthread_mutex_lock(&seals.lock)
    may = allowed(&seals.grouped[peer_place(source) % GROUPED_PLACES], w.now, GROUPED_PER_S, GROUPED_SAVED)
    pthread_mutex_unlock(&seals.lock)
    if may:
        tell_of(w, to, EV_GROUPED, payload, length, PENDING_MAX)
    else:
        drop(w, s, DROP_HANDSHAKE_LIMIT)


cdef void take_group(Worker *w, Slot *s, Slot *to, Seals *seals, GroupOpen *group, uint8_t *payload,
                     uint32_t length) noexcept nogil:
    """Open it where it lies, and give it to the device. Runs on Python's thread too."""
    cdef uint8_t *plain = payload + SEALED_GROUP_HEADER
    cdef uint8_t *packet = plain + VNET_BYTES
    cdef int reason = group_open(seals, group, payload, length)
    w.work -= WORK_SEGMENT + length
    length -= SEALED_GROUP_HEADER + SEAL_TAG
    if reason >= 0:
        drop(w, s, reason)
    elif length < VNET_BYTES + 20 or not zeros10(plain) or not ipv4_exact(packet, length - VNET_BYTES):
        drop(w, s, DROP_SUPER)
    elif load32(packet + 16) != load32(payload + SEALED_DESTINATION_AT):
        drop(w, s, DROP_INNER_DESTINATION)
    elif may_be_from(w, s, seals, table_read(&w.engine.networks[s.network].rules), group.source, packet):
        # With its virtio header, which is none, it is what such a device takes.
        length -= 0 if to.vnet else VNET_BYTES
        tun_count(w, to, write_fd(to.fd, plain if to.vnet else packet, length), 1, load_be16(packet + 2))


# In the clear.

cdef bint clear_from(Worker *w, Slot *s, Seals *seals, uint32_t source) noexcept nogil:
    """Whether a packet in the clear is taken from this address, or from the member that it lies behind."""
    cdef SealPeer *peer = peer_find(seals, source)
    cdef uint32_t hop
    if peer == NULL:
        hop = rules_next_hop(w, table_read(&w.engine.networks[s.network].rules), source,
                             <uint32_t>load_relaxed64(&seals.own))
        peer = peer_of(seals, hop if hop != 0 else source)
    if peer == NULL:
        # The table is full. Where all who are in it seal, this may be one of them that had no room.
        return load_relaxed64(&seals.sealing) == SEALING_PREFER and load_relaxed32(&seals.clear_count) != 0
    if load_relaxed64(&peer.tells_clear) != 0:
        tell_once(w, seals, EV_CLEAR, peer.address, &peer.told_clear)
    return load_relaxed64(&peer.takes_clear) != 0


cdef bint takes_clear(Worker *w, Slot *s, Seals *seals, const Frame *f, uint32_t shift) noexcept nogil:
    """Whether a FORWARD (shift 0) or SUPER (SUPER_SHIFT), long enough for an IPv4 header, may go to the device; False:
    it was dropped. Behind any outer header the inner source counts too."""
    cdef uint8_t packet[2 * IPIP_BYTES]
    cdef uint32_t length = min(f.length - 1 - shift, <uint32_t>(2 * IPIP_BYTES))
    cdef uint32_t destination
    unmask(packet, f.payload + 1 + shift, length, rotate_mask(f.mask, 1 + shift))
    destination = load_be32(packet + 16)
    if is_for_all(w, s, destination):
        if load_relaxed64(&seals.sealing) == SEALING_REQUIRE:
            drop(w, s, DROP_GROUP_NOT_SEALED)
            return False
        return True
    if (not clear_from(w, s, seals, load_be32(packet + 12))
            or (ipip_ours(packet, length, <uint32_t>load_relaxed64(&seals.own))
                and not clear_from(w, s, seals, load_be32(packet + IPIP_BYTES + 12)))):
        drop(w, s, DROP_NOT_SEALED)
        return False
    return True
