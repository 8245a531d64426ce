# The TUN device: packets of the kernel's, one a read and one a write.

cdef inline uint64_t tun_destination(Worker *w, Slot *s, const uint8_t *packet) noexcept nogil:
    cdef uint64_t connection = load_relaxed64(&s.next_hop)
    if connection != 0:
        return connection
    return route_find(w.engine.networks[s.network], load_be32(packet + 16))


cdef bint tun_read(Worker *w, Slot *s) noexcept nogil:
    """Drain the device, at most one batch: each packet becomes a frame in the receive buffer, then all leave in one
    send. True: more may be there.

    A full socket never stops reading here; the destination's queue decides what to drop.
    """
    cdef uint8_t *buffer = w.buffer
    cdef size_t at = 0
    cdef uint32_t packets = 0
    cdef uint64_t total = 0
    cdef ssize_t n
    cdef uint8_t *packet
    cdef bint more = True
    while packets < TUN_BATCH_PACKETS and at < TUN_BATCH_BYTES:
        # Room for the longest header and the kind; the frame is then built leftwards, close to the one before.
        packet = buffer + at + FRAME_HEADER_MAX + 1
        n = read_fd(s.fd, packet, 65535)
        if n < 0 and errno == EINTR:
            continue
        if n <= 0:
            if n < 0 and errno != EAGAIN and not s.hung_up:
                s.hung_up = True
                tell(w, s, EV_LOST, NULL, 0)    # somebody deleted the interface
            more = False
            break
        packets += 1
        total += <uint64_t>n
        at += tun_forward(w, s, buffer + at, packet, <uint32_t>n)
    count(&w.counters.receives, packets)
    count(&w.counters.packets_in, packets)
    count(&w.counters.bytes_in, total)
    count(&s.traffic.packets_in, packets)
    count(&s.traffic.bytes_in, total)
    flush(w)
    return more


cdef uint32_t tun_forward(Worker *w, Slot *s, uint8_t *out, uint8_t *packet, uint32_t length) noexcept nogil:
    """Frame one packet for its destination at `out`; returns the bytes used there, 0 when it was dropped."""
    cdef uint64_t connection
    cdef Slot *to
    cdef uint32_t mask = 0
    cdef uint32_t header
    cdef uint32_t destination
    cdef bint masked = False
    if not ipv4_plausible(packet, length):
        drop(w, s, DROP_NOT_IPV4)               # IPv6 router solicitations, mostly
        return 0
    connection = tun_destination(w, s, packet)
    if connection != 0:
        to = &w.engine.slots[<uint32_t>connection]
        masked = load_relaxed64(&to.kind) == SLOT_CLIENT
        if masked:
            mask = next_mask(to)
    header = header_size(length + 1, masked)
    unmask(out + header + 1, packet, length, rotate_mask(mask, 1))
    out[header] = KIND_FORWARD ^ <uint8_t>mask
    write_header(out, OP_BINARY, length + 1, masked, mask)
    if connection != 0:
        if not emit(w, connection, out, header + 1 + length, length + 1):
            add_relaxed64(&s.drops, 1)
    else:
        destination = load_be32(out + header + 17)
        if is_group(destination) or destination == w.engine.networks[s.network].broadcast:
            broadcast(w, s, out, header + 1 + length, length + 1)
        else:
            drop(w, s, DROP_NO_ROUTE)
            return 0
    return header + 1 + length


cdef void tun_write(Worker *w, Slot *s, Target *t) noexcept nogil:
    """Write a target's packets to the device. It never blocks: what the kernel refuses is dropped and counted.

    Writes are atomic for each packet and the descriptor lives until the engine stops, so no lock is taken.
    """
    cdef uint32_t index = t.first
    cdef uint32_t at, size, header, length
    cdef uint8_t *frame
    cdef uint64_t packets = 0
    cdef uint64_t total = 0
    while index != SEGMENTS_MAX:
        at = 0
        while at < w.segments[index].length:
            frame = w.segments[index].bytes + at
            size = frame_size(frame)
            header = frame_header(frame) + 1
            length = size - header
            if not ipv4_plausible(frame + header, length):
                count(&w.counters.drops[DROP_NOT_IPV4], 1)
            elif write_fd(s.fd, frame + header, length) < 0:
                count(&w.counters.drops[DROP_TUN_WRITE], 1)
            else:
                packets += 1
                total += length
            at += size
        index = w.segments[index].next
    count(&w.counters.sends, packets)
    count(&w.counters.packets_out, packets)
    count(&w.counters.bytes_out, total)
    add_relaxed64(&s.traffic.packets_out, packets)
    add_relaxed64(&s.traffic.bytes_out, total)
