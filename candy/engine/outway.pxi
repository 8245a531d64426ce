# What becomes of a device's packet where members seal: sealed, in the clear, it waits, or it goes no further.

cdef enum:
    PROHIBITED = 13                 # ICMP's code: communication administratively prohibited (RFC 1812)
    PART_MOST = 65000               # of a part of a super-packet, so that its frame fits a chunk of the arena


cdef void tell_prohibited(Worker *w, Slot *s, SealPeer *peer, const uint8_t *packet, uint32_t length) noexcept nogil:
    """Tell the sender of a packet, on this machine, that nothing goes there: once a second for each peer."""
    cdef uint8_t message[VNET_BYTES + 96]
    cdef uint64_t told = load_relaxed64(&peer.icmp_ns)
    cdef uint32_t size
    if told != 0 and since(w.now, told) < SECOND_NS:
        return
    size = icmp_unreachable(message + VNET_BYTES, packet, length, PROHIBITED, 0)
    if size == 0:
        return
    store_relaxed64(&peer.icmp_ns, w.now)
    memset(message, 0, VNET_BYTES)
    w.work -= WORK_SEGMENT
    if s.vnet:
        write_fd(s.fd, message, VNET_BYTES + size)
    else:
        write_fd(s.fd, message + VNET_BYTES, size)


cdef uint64_t way_out(Worker *w, Slot *s, Seals *seals, SealPeer *peer, const uint8_t *vnet, const uint8_t *packet,
                      uint32_t length, bint released) noexcept nogil:
    """WAY_SEAL or WAY_CLEAR; else the packet was dropped, or waits. Peer NULL: there is no room for it in the table.
    One that has waited is released, and waits behind no others."""
    cdef uint64_t way
    if peer == NULL:
        drop(w, s, DROP_NO_SESSION)
        return WAY_WAIT
    way = peer_way(peer, boot_now(w))
    tell_wanted(w, seals, peer, way == WAY_WAIT)
    if way == WAY_WAIT or (load_relaxed64(&peer.waiting) != 0 and not released):
        way = room_put(w, seals, peer, vnet, packet, length)
    if way == WAY_NO_ROUTE:
        drop(w, s, DROP_NO_ROUTE)
    elif way == WAY_KEY_REFUSED:
        drop(w, s, DROP_KEY_REFUSED)
    elif way == WAY_NOT_SEALING:
        drop(w, s, DROP_PEER_NOT_SEALING)
        tell_prohibited(w, s, peer, packet, length)
    return way


cdef inline bint emit_unsealed(Worker *w, Slot *s, uint64_t connection, uint8_t *frame, uint32_t size) noexcept nogil:
    """Add a device's frame that is to be sealed to its destination's; a trunk, which is in no network, has it sealed.
    False: dropped."""
    if unlikely(load_relaxed64(&w.engine.slots[<uint32_t>connection].kind) == SLOT_TRUNK):
        return seal_frame(w, s, frame, frame) and emit(w, connection, frame, size, size - frame_header(frame))
    if not emit(w, connection, frame, size, size - frame_header(frame)):
        return False
    w.targets[w.run_target].unsealed = True
    return True


cdef void tun_seal_parts(Worker *w, Slot *s, SealPeer *peer, uint64_t connection, uint8_t kind, const Super *u,
                         uint32_t own, uint16_t label) noexcept nogil:
    """A super-packet that is longer than its peer wants them, or of more packets than one may stand for: as several."""
    cdef bint masked = load_relaxed64(&w.engine.slots[<uint32_t>connection].kind) == SLOT_CLIENT
    cdef uint32_t longest = <uint32_t>min(load_relaxed64(&peer.longest), <uint64_t>PART_MOST)
    cdef uint32_t n = 1
    cdef uint32_t i = 0
    cdef uint32_t size
    cdef uint8_t *part
    cdef uint8_t *frame
    if longest > u.headers + u.gso_size:
        n = min((longest - u.headers) // u.gso_size, <uint32_t>SUPER_PACKETS_MAX)
    while i < super_count(u):
        part = arena_take(w, ARENA_CHUNK) + UNSEALED_ROOM
        frame = unsealed_build(KIND_SEALED, part, super_part(u, kind, i, n, part), masked, label, own, peer.address)
        size = frame_size(frame)
        w.work -= WORK_FRAME
        w.bump_left -= <uint32_t>(frame + size - w.bump)
        w.bump = frame + size
        emit_unsealed(w, s, connection, frame, size)
        i += n
    run_end(w)


cdef inline uint32_t tun_unsealed(Worker *w, Slot *s, uint64_t connection, uint8_t *out, uint8_t *frame) noexcept nogil:
    """Add a frame that is to be sealed from where it lies, or, if it is short, behind the one before."""
    cdef uint32_t size = frame_size(frame)
    if size < GATHER_BELOW:
        memmove(out, frame, size)
        frame = out
    return <uint32_t>(frame + size - out) if emit_unsealed(w, s, connection, frame, size) else 0


cdef uint32_t tun_seal(Worker *w, Slot *s, Seals *seals, SealPeer *peer, uint64_t connection, uint8_t *out,
                       uint8_t *packet, uint32_t length, uint8_t *vnet, Super *u) noexcept nogil:
    """To be sealed when it is committed: where it lies behind its headers, or, if it is short, behind the one
    before."""
    cdef Slot *to = &w.engine.slots[<uint32_t>connection]
    cdef bint masked = load_relaxed64(&to.kind) == SLOT_CLIENT
    cdef uint16_t label = flow_label(peer.label_key, packet, length)
    cdef uint32_t own = <uint32_t>load_relaxed64(&seals.own)
    cdef uint8_t *frame
    if not has_candy3(to):
        drop(w, s, DROP_NO_SESSION)
        return 0
    if vnet == NULL:
        vnet = packet - VNET_BYTES
        length = load_be16(packet + 2)
        memset(vnet, 0, VNET_BYTES)
    elif u.gso_size != 0 and (length > load_relaxed64(&peer.longest) or super_count(u) > SUPER_PACKETS_MAX):
        tun_seal_parts(w, s, peer, connection, vnet[1], u, own, label)
        return 0
    frame = unsealed_build(KIND_SEALED, vnet, VNET_BYTES + length, masked, label, own, peer.address)
    return tun_unsealed(w, s, connection, out, frame)


cdef uint8_t *group_build(Seals *seals, const GroupSeal *group, bint masked, uint8_t *packet,
                          uint32_t length) noexcept nogil:
    """Make a frame that is to be sealed for a group around a packet where it lies; returns its start."""
    memset(packet - VNET_BYTES, 0, VNET_BYTES)
    return unsealed_build(KIND_SEALED_GROUP, packet - VNET_BYTES, VNET_BYTES + length, masked,
                          flow_label(group.label_key, packet, length), <uint32_t>load_relaxed64(&seals.own),
                          load_be32(packet + 16))


cdef void tun_group_segments(Worker *w, Slot *s, Seals *seals, const GroupSeal *group, uint64_t connection,
                             const Super *u) noexcept nogil:
    """A super-packet for a group: each of its packets by itself, for a SEALED_GROUP has no virtio header."""
    cdef bint masked = load_relaxed64(&w.engine.slots[<uint32_t>connection].kind) == SLOT_CLIENT
    cdef uint32_t room = UNSEALED_ROOM + VNET_BYTES + super_segment_size(u) + UNSEALED_TAIL
    cdef uint8_t *packet
    cdef uint8_t *frame
    cdef uint32_t i, size
    if room > ARENA_CHUNK:
        drop(w, s, DROP_TOO_LARGE)
        return
    for i in range(super_count(u)):
        packet = arena_take(w, room) + UNSEALED_ROOM + VNET_BYTES
        frame = group_build(seals, group, masked, packet, super_segment(u, i, packet))
        size = frame_size(frame)
        w.work -= WORK_FRAME
        w.bump_left -= <uint32_t>(frame + size - w.bump)
        w.bump = frame + size
        emit_unsealed(w, s, connection, frame, size)
    run_end(w)


cdef uint32_t tun_seal_group(Worker *w, Slot *s, Seals *seals, const GroupSeal *group, uint64_t connection,
                             uint8_t *out, uint8_t *packet, const Super *u) noexcept nogil:
    """For a group: to be sealed under this device's own key when it is committed, as tun_seal(). `u` is NULL for an
    ordinary packet. What goes by no relay, because it is this one's, has no such key."""
    cdef Slot *to = &w.engine.slots[<uint32_t>connection]
    cdef bint masked = load_relaxed64(&to.kind) == SLOT_CLIENT
    if connection == 0 or not has_candy3(to):
        drop(w, s, DROP_GROUP_NOT_SEALED)
    elif u != NULL:
        tun_group_segments(w, s, seals, group, connection, u)
    else:
        return tun_unsealed(w, s, connection, out, group_build(seals, group, masked, packet, load_be16(packet + 2)))
    return 0
