# The TUN device: packets of the kernel's. With offloads each is preceded by a virtio header and may be a super-packet.
#
# 1. tun_read()     drains the device into the receive buffer, then sends all of it at once
# 2. tun_forward()  one packet: its destination, and the frame that this destination understands
# 3. tun_by_way()   where members seal: what becomes of it, from outway.pxi
# 4. tun_write()    the other way: what is for the device, coalesced

cdef enum:
    TUN_BATCH_PACKETS = 64
    TUN_BATCH_BYTES = 262144
    # UNSEALED_ROOM and a virtio header; FRAME_HEADER_MAX, the kind and an outer IPv4 header are less.
    TUN_HEADROOM = 60
    TUN_TAIL = UNSEALED_TAIL        # which is more than padding


cdef bint tun_read(Worker *w, Slot *s) noexcept nogil:
    """Drain the device, at most one batch. True: more may be there.

    A full socket never stops reading here; the destination's queue decides what to drop.
    """
    cdef size_t at = 0
    cdef uint32_t packets = 0
    cdef uint64_t total = 0
    cdef ssize_t n
    cdef uint8_t *packet
    cdef bint more = True
    if s.fanout != NULL and not fanout_go_on(w, s):
        return True
    clear_buffer(w)
    if unlikely(s.released) and not tun_release(w, s):
        return True
    while packets < TUN_BATCH_PACKETS and at < TUN_BATCH_BYTES and w.work > 0 and s.fanout == NULL:
        # Room for the longest frame header, the kind and an outer header; the frame is then built leftwards.
        packet = w.buffer + at + TUN_HEADROOM
        n = read_fd(s.fd, packet, 65535 + VNET_BYTES)
        if n < 0 and errno == EINTR:
            continue
        if n <= 0:
            if n < 0 and errno != EAGAIN and not s.hung_up:
                s.hung_up = True
                tell(w, s, EV_LOST, NULL, 0)    # another program deleted the interface
            more = False
            break
        packets += 1
        total += <uint64_t>n
        w.work -= WORK_SEGMENT + n
        at += tun_forward(w, s, w.buffer + at, packet, <uint32_t>n)
    count(&w.counters.receives, packets)
    count(&w.counters.packets_in, packets)
    count(&w.counters.bytes_in, total)
    count(&s.traffic.packets_in, packets)
    count(&s.traffic.bytes_in, total)
    flush(w)
    link_flush(w)
    return more


cdef uint32_t tun_forward(Worker *w, Slot *s, uint8_t *out, uint8_t *packet, uint32_t length) noexcept nogil:
    """Send on one packet as it was read; `out` is where its frame may begin. Returns the bytes used there."""
    cdef Super u
    cdef uint8_t *vnet = NULL
    cdef uint64_t connection = load_relaxed64(&s.uplink)
    cdef const Table *routes
    cdef Seals *seals = seals_of(w, s)
    cdef const GroupSeal *group
    cdef uint32_t destination
    cdef uint32_t hop = 0
    if s.vnet:
        if length < VNET_BYTES:
            drop(w, s, DROP_NOT_IPV4)
            return 0
        vnet = packet
        packet += VNET_BYTES
        length -= VNET_BYTES
        if vnet[0] & VNET_NEEDS_CSUM == 0 and vnet[1] == GSO_NONE:
            vnet = NULL                         # an ordinary packet
    if not ipv4_plausible(packet, length):
        drop(w, s, DROP_NOT_IPV4)               # IPv6 router solicitations, mostly
        return 0
    if vnet != NULL:
        if not super_parse_any(vnet, packet, length, &u):
            if not tun_foreign(vnet, packet, length):
                drop(w, s, DROP_SUPER)
                return 0
            vnet = NULL
    destination = load_be32(packet + 16)
    routes = table_read(&s.routes)
    if routes != NULL:
        hop = find_next_hop(routes, <uint32_t>load_relaxed64(&s.own_address), destination)
    if seals != NULL and link_forward(w, s, seals, hop if hop != 0 else destination, packet, length,
                                      NULL if vnet == NULL else &u, False):
        return 0
    if hop == 0 and old_forward(w, s, packet, load_be16(packet + 2) if vnet == NULL else length,
                                NULL if vnet == NULL else &u):
        return 0
    if connection == 0:
        connection = route_find(w.engine.networks[s.network], hop if hop != 0 else destination)
        if is_relay(connection):
            connection = trunk_to(w, s, connection, load_be32(packet + 12), destination)
            if connection == 0:
                return 0
    if hop == 0:
        if seals != NULL and is_for_all(w, s, destination):
            group = <const GroupSeal *>load_pointer(<void **>&seals.group)
            if group != NULL:
                return tun_seal_group(w, s, seals, group, connection, out, packet, NULL if vnet == NULL else &u)
            if load_relaxed64(&seals.sealing) == SEALING_REQUIRE:
                drop(w, s, DROP_GROUP_NOT_SEALED)
                return 0
            seals = NULL
        if connection == 0:
            return tun_unrouted(w, s, packet, length, vnet, &u, destination)
    if seals != NULL and connection != 0:
        return tun_by_way(w, s, seals, connection, out, packet, length, vnet, &u, hop, False)
    return tun_clear(w, s, connection, out, packet, length, vnet, &u, hop)


cdef uint32_t tun_clear(Worker *w, Slot *s, uint64_t connection, uint8_t *out, uint8_t *packet, uint32_t length,
                        uint8_t *vnet, Super *u, uint32_t hop) noexcept nogil:
    """In the clear, to the member `hop` in an outer header, 0 directly."""
    if hop != 0:
        return tun_gateway(w, s, connection, out, packet, length, vnet, u, hop)
    return tun_send(w, s, connection, out, packet, length, vnet, u)


cdef uint32_t tun_by_way(Worker *w, Slot *s, Seals *seals, uint64_t connection, uint8_t *out, uint8_t *packet,
                         uint32_t length, uint8_t *vnet, Super *u, uint32_t hop, bint released) noexcept nogil:
    """Where members seal: whatever is to become of a packet for its destination, or for the member before that."""
    cdef SealPeer *peer = peer_of(seals, hop if hop != 0 else load_be32(packet + 16))
    cdef uint64_t way = way_out(w, s, seals, peer, vnet, packet, length, released)
    if way == WAY_CLEAR:
        return tun_clear(w, s, connection, out, packet, length, vnet, u, hop)
    if way == WAY_SEAL:
        if slot_if_current(w, connection) == NULL:
            tell_stranded(w, seals, peer)
        return tun_seal(w, s, seals, peer, connection, out, packet, length, vnet, u)
    return 0


cdef bint tun_release(Worker *w, Slot *s) noexcept nogil:
    """Packets that waited go the way that is open now, before others are read. False: some are left for the next
    turn."""
    cdef Seals *seals = seals_of(w, s)
    cdef size_t at = 0
    cdef Waiting *r
    s.released = False
    while seals != NULL:
        if at >= TUN_BATCH_BYTES or w.work <= 0:
            s.released = True
            break
        r = room_next(w, seals)
        if r == NULL:
            break
        w.work -= WORK_RECORD + r.length
        at += tun_released(w, s, seals, w.buffer + at, r)
        waiting_give(w, r)
    flush(w)
    link_flush(w)
    return not s.released


cdef uint32_t tun_released(Worker *w, Slot *s, Seals *seals, uint8_t *out, Waiting *r) noexcept nogil:
    """One of them, as tun_forward()."""
    cdef Super u
    cdef uint64_t connection = load_relaxed64(&s.uplink)
    cdef uint8_t *vnet = out + TUN_HEADROOM
    cdef uint8_t *packet = vnet + VNET_BYTES
    cdef uint32_t length = r.length - VNET_BYTES
    cdef uint32_t next_hop = r.peer.address
    memcpy(vnet, waiting_bytes(r), r.length)
    if connection == 0:
        connection = route_find(w.engine.networks[s.network], next_hop)
        if is_relay(connection):
            connection = trunk_to(w, s, connection, load_be32(packet + 12), load_be32(packet + 16))
            if connection == 0:
                return 0
    if zeros10(vnet):
        vnet = NULL
    elif not super_parse_any(vnet, packet, length, &u):
        drop(w, s, DROP_SUPER)
        return 0
    if link_forward(w, s, seals, next_hop, packet, length, NULL if vnet == NULL else &u, True):
        return 0
    if connection == 0:
        drop(w, s, DROP_NO_ROUTE)
        return 0
    return tun_by_way(w, s, seals, connection, out, packet, length, vnet, &u,
                      0 if next_hop == load_be32(packet + 16) else next_hop, True)


cdef uint32_t tun_gateway(Worker *w, Slot *s, uint64_t connection, uint8_t *out, uint8_t *packet, uint32_t length,
                          uint8_t *vnet, Super *u, uint32_t hop) noexcept nogil:
    """A packet for a network behind the member `hop`: wrapped, it goes there. TUN_HEADROOM has room for the header."""
    if (vnet == NULL and length + IPIP_BYTES > 65535) or (vnet != NULL and u.inner != 0):
        drop(w, s, DROP_TOO_LARGE)
        return 0
    if vnet == NULL:
        ipip_wrap(packet - IPIP_BYTES, <uint32_t>load_relaxed64(&s.own_address), hop, length)
    else:
        memmove(vnet - IPIP_BYTES, vnet, VNET_BYTES)
        vnet -= IPIP_BYTES
        ipip_super(u, <uint32_t>load_relaxed64(&s.own_address), hop)
    if old_forward(w, s, packet - IPIP_BYTES, length + IPIP_BYTES, NULL if vnet == NULL else u):
        return 0
    if connection == 0:
        drop(w, s, DROP_NO_ROUTE)
        return 0
    return tun_send(w, s, connection, out, packet - IPIP_BYTES, length + IPIP_BYTES, vnet, u)


cdef uint32_t tun_send(Worker *w, Slot *s, uint64_t connection, uint8_t *out, uint8_t *packet, uint32_t length,
                       uint8_t *vnet, Super *u) noexcept nogil:
    """To one destination, in the form that it understands."""
    if vnet == NULL:
        return tun_frame(w, s, connection, out, packet - 1, KIND_FORWARD, length + 1)
    if not load_relaxed64(&w.engine.slots[<uint32_t>connection].extended) or length > 65535:
        emit_segments(w, connection, u)
        return 0
    if super_count(u) > SUPER_PACKETS_MAX:
        tun_parts(w, connection, vnet[1], u)
        return 0
    return tun_frame(w, s, connection, out, vnet - 1, KIND_SUPER, length + VNET_BYTES + 1)


cdef void tun_parts(Worker *w, uint64_t connection, uint8_t kind, const Super *u) noexcept nogil:
    """A super-packet of more packets than one may stand for, from a kernel that does not heed gso_max_segs: as
    several."""
    cdef Slot *to = &w.engine.slots[<uint32_t>connection]
    cdef bint masked = load_relaxed64(&to.kind) == SLOT_CLIENT
    cdef uint32_t i = 0
    cdef uint32_t length, size
    cdef uint8_t *part = w.scratch
    cdef uint8_t *out
    while i < super_count(u):
        part[0] = KIND_SUPER
        length = 1 + super_part(u, kind, i, SUPER_PACKETS_MAX, part + 1)
        if masked and has_candy3(to):
            memset(part + length, 0, PADDING_MAX)
            length = padded(length)
        # 128 packets of less than 512 bytes: it fits a chunk of the arena.
        out = arena_take(w, length + FRAME_HEADER_MAX)
        size = build_frame(out, OP_BINARY, part, length, masked, next_mask(to) if masked else 0)
        w.bump += size
        w.bump_left -= size
        emit(w, connection, out, size, length)
        i += SUPER_PACKETS_MAX
    run_end(w)


cdef bint tun_foreign(uint8_t *vnet, uint8_t *packet, uint32_t length) noexcept nogil:
    """A checksum that was left to us in a packet of which the wire's virtio header can't speak (the user's own IPIP, a
    protocol we don't know): compute it by what the kernel says. False when that is impossible too."""
    cdef uint32_t start = load_le16(vnet + 6)
    cdef uint32_t at = start + load_le16(vnet + 8)
    cdef uint16_t value
    if vnet[1] != GSO_NONE or start < 20 or at + 2 > length:
        return False
    # The field holds the pseudo header's sum, so summing over it gives the whole.
    value = <uint16_t>~checksum_fold(checksum_add(packet + start, length - start, 0))
    store_be16(packet + at, 0xFFFF if value == 0 else value)
    return True


cdef uint32_t tun_frame(Worker *w, Slot *s, uint64_t connection, uint8_t *out, uint8_t *payload, uint8_t kind,
                        uint32_t length) noexcept nogil:
    """Make a frame of a payload whose first byte is still to be set to the kind; returns its size, 0 when dropped."""
    cdef Slot *to = &w.engine.slots[<uint32_t>connection]
    cdef bint masked = load_relaxed64(&to.kind) == SLOT_CLIENT
    cdef uint32_t size
    payload[0] = kind
    if masked and has_candy3(to):
        memset(payload + length, 0, PADDING_MAX)
        length = padded(length)
    size = build_frame(out, OP_BINARY, payload, length, masked, next_mask(to) if masked else 0)
    return size if emit(w, connection, out, size, length) else 0


cdef uint32_t tun_unrouted(Worker *w, Slot *s, uint8_t *packet, uint32_t length, uint8_t *vnet, Super *u,
                           uint32_t destination) noexcept nogil:
    """A packet for no single member: for a group, or dropped."""
    if not is_group(destination) and destination != load_relaxed32(&w.engine.networks[s.network].broadcast):
        drop(w, s, DROP_NO_ROUTE)
        return 0
    if vnet != NULL:
        broadcast_segments(w, s, u)
        return 0
    packet -= 1
    packet[0] = KIND_FORWARD
    broadcast_frame(w, s, packet, length + 1)
    return 0


cdef void tun_write(Worker *w, Slot *s, Target *t) noexcept nogil:
    """Write a target's packets to the device. It never blocks: what the kernel refuses is dropped and counted.

    Writes are atomic for each packet and the descriptor lives until the engine stops, so no lock is taken.
    """
    cdef uint32_t index = t.first
    cdef uint32_t at, size, header
    cdef uint8_t *frame
    cdef Merge *m = w.merge
    m.pieces = 0
    while index != RUNS_MAX:
        at = 0
        while at < w.runs[index].length:
            frame = w.runs[index].bytes + at
            size = frame_size(frame)
            header = frame_header(frame)
            tun_packet(w, s, m, frame + header, size - header, frame[0] == OPENED)
            at += size
        index = w.runs[index].next
    merge_write(w, s, m)


cdef bint tun_may_unwrap(Worker *w, Slot *s, const uint8_t *packet) noexcept nogil:
    """Whether what is wrapped for this device may come out; False: it was dropped. A member that was told no rules
    leaves this to its relay."""
    cdef Network *network = w.engine.networks[s.network]
    cdef const Table *rules = table_read(&network.rules)
    return rules == NULL or not network.check_source or ipip_allowed(w, s, rules, packet)


cdef void tun_packet(Worker *w, Slot *s, Merge *m, uint8_t *payload, uint32_t length, bint opened) noexcept nogil:
    """One FORWARD or SUPER for the device. What was opened has no outer header but its user's own."""
    cdef uint8_t *packet = payload + 1
    cdef Super u
    cdef uint32_t i, n, size
    cdef uint32_t skip = 0          # an outer header
    length -= 1
    if payload[0] == KIND_SUPER:
        merge_write(w, s, m)
        packet += VNET_BYTES
        length -= VNET_BYTES
        if not super_parse(payload + 1, packet, length, &u):
            drop(w, s, DROP_SUPER)
            return
    if not opened and ipip_ours(packet, length, <uint32_t>load_relaxed64(&s.own_address)):
        if not tun_may_unwrap(w, s, packet):
            return
        skip = IPIP_BYTES
    if payload[0] == KIND_SUPER:
        if s.vnet:
            super_header(&u, payload + 1)
            if u.inner != skip:
                # This device does not unwrap it, and the kernel would take the virtio header for the outer packet's.
                drop(w, s, DROP_SUPER)
                return
            memmove(payload + 1 + skip, payload + 1, VNET_BYTES)
            length -= skip
            tun_count(w, s, write_fd(s.fd, payload + 1 + skip, length + VNET_BYTES), 1, length)
        else:
            n = super_count(&u)
            for i in range(n):
                size = super_segment(&u, i, m.scratch)
                tun_count(w, s, write_fd(s.fd, m.scratch + skip, size - skip), 1, size - skip)
        return
    packet += skip
    length -= skip
    if not ipv4_plausible(packet, length):
        drop(w, s, DROP_NOT_IPV4)
        return
    if not s.vnet:
        tun_count(w, s, write_fd(s.fd, packet, length), 1, length)
        return
    if mergeable(packet, length):
        merge_packet(w, s, m, packet, length, False)
        return
    merge_write(w, s, m)
    merge_alone(m, packet, length, False)
    merge_write(w, s, m)
