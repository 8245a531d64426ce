# A slot as every part sees it: its number, what is counted for it, its masks.


cdef inline uint64_t since(uint64_t now, uint64_t then) noexcept nogil:
    """Nanoseconds from then to now; 0 when another thread's clock reading is the later one."""
    return now - then if now > then else 0


cdef inline uint64_t slot_connection(Worker *w, Slot *s) noexcept nogil:
    """The connection number: generation and slot."""
    return load_relaxed64(&s.generation) << 32 | <uint64_t>(s - w.engine.slots)


cdef inline bint is_current(Slot *s, uint64_t connection) noexcept nogil:
    """Whether a connection number is the one that the slot has now. Only 32 bits of a generation are in it."""
    return <uint32_t>load_relaxed64(&s.generation) == <uint32_t>(connection >> 32)


cdef Slot *slot_if_current(Worker *w, uint64_t connection) noexcept nogil:
    """The slot, if the number is not stale and this worker has not closed it."""
    cdef Slot *s = &w.engine.slots[<uint32_t>connection]
    if not is_current(s, connection):
        return NULL
    return s


cdef inline void drops(Worker *w, Slot *s, int reason, uint64_t n) noexcept nogil:
    """Count packets or messages that go no further, with the connection that sent them or that they were for."""
    count(&w.counters.drops[reason], n)
    add_relaxed64(&s.drops[reason], n)
    if unlikely(w.watched.on):
        watched_dropped(w, s, reason)


cdef inline void drop(Worker *w, Slot *s, int reason) noexcept nogil:
    drops(w, s, reason, 1)


cdef void drop_frame(Worker *w, Slot *s, int reason, const uint8_t *frame, uint32_t size) noexcept nogil:
    """The same for a frame that was for this connection, in its final form."""
    cdef Capture *c = capture_of(s)
    if unlikely(c != NULL):
        capture_frame(w, c, frame, size, reason)
    drop(w, s, reason)


cdef void drop_unread(Worker *w, Slot *s, int reason, const Frame *f) noexcept nogil:
    """The same for one as it came."""
    cdef Capture *c = capture_of(s)
    if unlikely(c != NULL):
        capture_payload(w, c, f.payload, f.length, f.mask, reason)
    drop(w, s, reason)


cdef void count_message(Worker *w, Slot *s, uint32_t length) noexcept nogil:
    """Count a message that goes to members, as packets are counted."""
    count(&w.counters.packets_in, 1)
    count(&w.counters.bytes_in, length)
    count(&s.traffic.packets_in, 1)
    count(&s.traffic.bytes_in, length)


cdef void sent(Worker *w, Slot *s, uint64_t packets, uint64_t size) noexcept nogil:
    """Count what the kernel took."""
    count(&w.counters.packets_out, packets)
    count(&w.counters.bytes_out, size)
    count(&s.traffic.packets_out, packets)
    count(&s.traffic.bytes_out, size)
    store_relaxed64(&s.sent_ns, w.now)


cdef inline void delay_count(Worker *w, Slot *s, uint64_t stamp_ns) noexcept nogil:
    """Count how long a packet waited that leaves its queue now (send lock held)."""
    cdef uint64_t waited = since(w.now, stamp_ns)
    cdef uint64_t most = DELAY_LEAST_NS
    cdef uint32_t i = 0
    while waited > most and i < DELAYS_COUNT - 1:
        most *= 2
        i += 1
    count(&w.counters.delays[i], 1)
    count(&w.counters.delay_ns, waited)
    store_relaxed64(&s.waited_ns, waited)
    store_relaxed64(&s.moved_ns, w.now)


cdef inline void tun_count(Worker *w, Slot *s, ssize_t written, uint32_t packets, uint32_t length) noexcept nogil:
    """Count what a write came to."""
    if written < 0:
        drops(w, s, DROP_TUN_WRITE, packets)
        return
    count(&w.counters.sends, 1)
    count(&w.counters.packets_out, packets)
    count(&w.counters.bytes_out, length)
    add_relaxed64(&s.traffic.packets_out, packets)
    add_relaxed64(&s.traffic.bytes_out, length)


cdef inline bint takes_super(Slot *to) noexcept nogil:
    """Whether a super-packet goes to this destination as it is."""
    return load_relaxed64(&to.extended) != 0 or load_relaxed64(&to.kind) == SLOT_TUN


cdef inline bint has_candy3(Slot *s) noexcept nogil:
    """Whether its peer agreed to candy.3."""
    return load_relaxed64(&s.extended) == EXTENSION_CANDY3


cdef inline uint32_t next_mask(Slot *s) noexcept nogil:
    """The connection's next mask: SipHash of a counter, so that any thread may draw, under a key of getrandom's, so
    that nobody can foretell it who has seen others. With candy.3 members see them, and none begins like a kind."""
    cdef uint32_t mask = <uint32_t>siphash(load_relaxed64(&s.mask_key[0]), load_relaxed64(&s.mask_key[1]),
                                           add_relaxed64(&s.mask_counter, 1), 0)
    return mask & ~<uint32_t>0xFF | (128 + (mask & 0xFF) % 127) if has_candy3(s) else mask


cdef inline uint32_t payload_most(Slot *s) noexcept nogil:
    """Bytes of the longest payload that its peer may send."""
    return WIRE_PAYLOAD_CANDY3 if has_candy3(s) else WIRE_PAYLOAD_MAX


cdef inline uint32_t next_generation(Slot *s) noexcept nogil:
    """The generation behind this one. Never 0, which with slot 0 would be no connection at all."""
    cdef uint32_t generation = <uint32_t>load_relaxed64(&s.generation) + 1
    return generation if generation else 1


cdef inline bint is_stranger(Slot *s) noexcept nogil:
    """Whether this connection has not authenticated."""
    if load_relaxed64(&s.address) != 0:
        return False
    return load_relaxed64(&s.kind) == SLOT_SERVER or (
        load_relaxed64(&s.kind) == SLOT_TRUNK and load_pointer(<void **>&s.trunk) == NULL)


cdef inline uint64_t boot_now(Worker *w) noexcept nogil:
    """CLOCK_BOOTTIME at the worker's `now`."""
    if w.boot_of != w.now:
        w.boot_of = w.now
        w.boot = boot_ns()
    return w.boot


cdef inline bint are_acquainted(Slot *one, Slot *other) noexcept nogil:
    """Whether two members may tell each other where they are: datagrams between them are under their password."""
    cdef uint64_t circle = load_relaxed64(&one.circle)
    return circle != 0 and circle == load_relaxed64(&other.circle)
