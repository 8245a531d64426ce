# Limits: how many bytes a second a member is sent ("down") and is read of it ("up"), and all members of its network.
#
#     down    what is limited always waits in the destination's queue (deliver); a commit is a piece of it (drain)
#     up      a source is read a piece at a time (receive), and the kernel takes little more for it (limit_window), so
#             that its backlog stays with the sender, who knows which flows there are
#
# What counts are packets: what two members' interfaces see, without frames, seals and virtio headers; and whatever
# else is read of a source.
#
# A bucket is one number: when all that it let pass will have been paid for, at its rate. What passes is paid for
# afterwards, so a bucket may be overdrawn by a piece, and one that was left alone has saved up LIMIT_CREDIT_NS at most,
# which makes up for a timer that comes late. A source makes up for more after the kernel had no room for what its
# window had let come: the kernel reckons that by other segments than come then, and what it drops costs TCP's timer.
#
# Who has taken a piece waits until that one is paid for, and of a shared bucket all that others took before it: so a
# network's members take turns, a piece each, without a list of them and without a lock.

cdef enum:
    LIMIT_CREDIT_NS = 40000000
    LIMIT_STALL_NS = 400000000      # what a source may make up for that had to send again, as its timer takes so long
    LIMIT_STALLS_NS = 1000000000    # how long after that
    LIMIT_PIECES_PER_S = 500        # of what a limit lets pass in a second: a commit, or a read
    LIMIT_PIECE_MIN = 1514
    LIMIT_PIECE_MAX = 262144
    LIMIT_LOOK_NS = 100000000       # a limit may be lifted while something waits for it: look no later than that
    LIMIT_WINDOW_NS = 8000000       # what the kernel may hold of a source, beside what is on its way
    LIMIT_WINDOW_MIN = 4096
    LIMIT_TRIP_US = 1000000         # the longest way to a member that is reckoned with
    WINDOW_CLAMP_NONE = 1073741824
    TCPI_MIN_RTT = 148              # offset of tcpi_min_rtt in struct tcp_info
    SO_BUF_LOCK_LINUX = 72          # Linux 5.14; not in every libc's headers
    SO_MEMINFO_LINUX = 55
    SK_MEMINFO_DROPS = 8            # of nine numbers; include/uapi/linux/sock_diag.h


cdef uint64_t bucket_take(Bucket *b, uint64_t now, uint64_t size, uint64_t credit_ns) noexcept nogil:
    """Let so many bytes pass; returns when all that has passed will be paid for, 0 where there is no limit."""
    cdef uint64_t rate = load_relaxed64(&b.rate)
    cdef uint64_t before, after
    if rate == 0:
        return 0
    while True:
        before = load_relaxed64(&b.paid_ns)
        after = max(before, now - min(now, credit_ns)) + size * SECOND_NS // rate
        if replace64(&b.paid_ns, before, after):
            return after


cdef void bucket_give(Bucket *b, uint64_t size) noexcept nogil:
    """So many bytes of what has passed count for nothing."""
    cdef uint64_t rate = load_relaxed64(&b.rate)
    cdef uint64_t before = 0
    while rate != 0:
        before = load_relaxed64(&b.paid_ns)
        if replace64(&b.paid_ns, before, before - min(before, size * SECOND_NS // rate)):
            return


cdef inline uint64_t limit_pace(const Limit *own, const Bucket *shared) noexcept nogil:
    """The lower one of two limits, bytes a second; 0 none."""
    cdef uint64_t rate = load_relaxed64(<uint64_t *>&own.bucket.rate)
    cdef uint64_t other = load_relaxed64(<uint64_t *>&shared.rate)
    return min(rate, other) if rate != 0 and other != 0 else max(rate, other)


cdef inline uint32_t limit_piece(uint64_t pace) noexcept nogil:
    """Bytes that pass at a time: what a ping may have to wait for."""
    return <uint32_t>min(max(pace // LIMIT_PIECES_PER_S, <uint64_t>LIMIT_PIECE_MIN), <uint64_t>LIMIT_PIECE_MAX)


cdef inline bint limit_open(Worker *w, Limit *l, uint64_t *held) noexcept nogil:
    """Whether what passed before is paid for. If not, it is counted, once for each piece."""
    if w.now >= load_relaxed64(&l.due_ns):
        return True
    if not l.is_held:
        l.is_held = True
        count(held, 1)
    store_relaxed64(&l.held_ns, w.now)
    return False


cdef inline void limit_charge(Worker *w, Limit *l, Bucket *shared, uint64_t size) noexcept nogil:
    """So many bytes have passed."""
    cdef uint64_t credit_ns = LIMIT_STALL_NS if w.now < l.stalls_until_ns else LIMIT_CREDIT_NS
    cdef uint64_t due = bucket_take(&l.bucket, w.now, size, credit_ns)
    store_relaxed64(&l.due_ns, max(due, bucket_take(shared, w.now, size, credit_ns)))
    l.is_held = False


cdef inline void limit_stalled(Limit *l, uint64_t now) noexcept nogil:
    """The kernel had no room for a segment of this source."""
    l.stalls_until_ns = now + LIMIT_STALLS_NS


cdef void up_charge(Worker *w, Slot *s, uint64_t size) noexcept nogil:
    """So many bytes were read of a limited source."""
    cdef uint32_t info[SK_MEMINFO_DROPS + 1]
    cdef socklen_t n = sizeof(info)
    if getsockopt(s.fd, SOL_SOCKET, SO_MEMINFO_LINUX, info, &n) == 0 and n == sizeof(info):
        if info[SK_MEMINFO_DROPS] != s.window_drops:
            s.window_drops = info[SK_MEMINFO_DROPS]
            limit_stalled(&s.up, w.now)
    limit_charge(w, &s.up, &w.engine.networks[s.network].up, size)


cdef void up_refund(Slot *s, Network *network, uint64_t size) noexcept nogil:
    """So many bytes of what was read are no packets' (the worker)."""
    cdef uint64_t pace = load_relaxed64(&s.up_pace)
    cdef uint64_t due = load_relaxed64(&s.up.due_ns)
    if pace != 0:
        bucket_give(&s.up.bucket, size)
        bucket_give(&network.up, size)
        store_relaxed64(&s.up.due_ns, due - min(due, size * SECOND_NS // pace))


cdef inline uint32_t bytes_beside(uint8_t kind) noexcept nogil:
    """Bytes of a message of this kind that are beside the packet in it, 0 where it has none. What pads it counts with
    the packet: it can't be told where that is sealed."""
    if kind == KIND_FORWARD:
        return 1
    if kind == KIND_SUPER:
        return 1 + VNET_BYTES
    if kind == KIND_SEALED:
        return SEALED_MIN + VNET_BYTES
    return SEALED_GROUP_MIN + VNET_BYTES if kind == KIND_SEALED_GROUP else 0


cdef inline uint32_t packet_bytes(const uint8_t *frame, uint32_t size) noexcept nogil:
    """Bytes of the packet in a frame that this engine built; of another message, all of it."""
    cdef uint32_t mask
    cdef uint32_t at = message_start(frame, size, &mask)
    cdef uint32_t beside = bytes_beside(frame[at] ^ <uint8_t>mask) if at < size else 0
    return size - at - beside if size >= at + beside else size - at


cdef void wait_until(Worker *w, Slot *s, uint64_t due_ns, bint reads) noexcept nogil:
    """Have the owner look at a connection again by then: at what it may be sent, or (`reads`) at what may be read."""
    cdef Wait *wait = &w.waiting[w.waiting_count]
    wait.connection = slot_connection(w, s)
    wait.pause_ns = WAITING_NS
    wait.due_ns = due_ns
    wait.reads = reads
    if w.waiting_count == 0 or due_ns < w.waiting_due_ns:
        w.waiting_due_ns = due_ns
    w.waiting_count += 1


cdef void look_again(Worker *w, Slot *s) noexcept nogil:
    """No event will tell when this connection takes more: have its worker look (send lock)."""
    s.short_of_room = True
    if not s.waiting:
        s.waiting = True
        ask(w, s, slot_connection(w, s), RETRY)


cdef inline uint64_t next_look(Worker *w, Slot *s, uint64_t pause_ns) noexcept nogil:
    """When to look again at what a connection may be sent: when that is paid for, if this is what it waits for."""
    cdef uint64_t due = load_relaxed64(&s.down.due_ns)
    if load_relaxed64(&s.down_pace) != 0 and due > w.now:
        return min(due, w.now + LIMIT_LOOK_NS)
    return w.now + pause_ns


cdef bint down_open(Worker *w, Slot *s, Queue *q) noexcept nogil:
    """Whether more of a limited destination's packets may leave; if not, its worker looks again (send lock)."""
    if limit_open(w, &s.down, &w.counters.held_down):
        return True
    if q.bytes != 0:
        q.progress_ns = w.now       # it is not the destination that takes nothing
        look_again(w, s)
    return False


cdef bint up_open(Worker *w, Slot *s) noexcept nogil:
    """Whether more of a limited source may be read; if not, it is read when what was read is paid for."""
    if limit_open(w, &s.up, &w.counters.held_up):
        return True
    if not s.up_waits:
        s.up_waits = True
        wait_until(w, s, min(load_relaxed64(&s.up.due_ns), w.now + LIMIT_LOOK_NS), True)
    return False


cdef void limit_window(Slot *s) noexcept nogil:
    """Have the kernel take no more from a limited source than is read in LIMIT_WINDOW_NS, and what is on its way
    meanwhile; or as much as ever, once its limit is lifted. Called now and then, as the way may change."""
    cdef uint64_t pace = load_relaxed64(&s.up_pace)
    cdef uint8_t info[TCPI_MIN_RTT + 4]
    cdef socklen_t n = sizeof(info)
    cdef uint64_t trip_ns = 0
    cdef int none = 0
    cdef int wanted = 0
    cdef int clamp = WINDOW_CLAMP_NONE
    cdef int half
    if pace != 0:
        if getsockopt(s.fd, IPPROTO_TCP, TCP_INFO, info, &n) == 0 and n >= sizeof(info):
            trip_ns = min(load32(info + TCPI_MIN_RTT), <uint32_t>LIMIT_TRIP_US) * <uint64_t>1000
        # More than a second of 8 Gbit/s makes no difference, and has to fit an int.
        wanted = clamp = <int>max(<uint64_t>LIMIT_WINDOW_MIN,
                                  min(pace, SECOND_NS) // 1000 * (LIMIT_WINDOW_NS + trip_ns) // 1000000)
        if s.window != 0 and s.window * 3 // 4 <= wanted <= s.window * 5 // 4:
            return
    elif s.window == 0:
        return
    if s.window == 0:
        n = sizeof(s.window_before)
        getsockopt(s.fd, SOL_SOCKET, SO_RCVBUF, &s.window_before, &n)
    s.window = wanted
    # The kernel doubles what it is told. Without privileges it takes no more than net.core.rmem_max.
    half = wanted if wanted != 0 else s.window_before // 2
    if setsockopt(s.fd, SOL_SOCKET, SO_RCVBUFFORCE, &half, sizeof(half)) != 0:
        setsockopt(s.fd, SOL_SOCKET, SO_RCVBUF, &half, sizeof(half))
    if wanted == 0:
        setsockopt(s.fd, SOL_SOCKET, SO_BUF_LOCK_LINUX, &none, sizeof(none))    # its own tuning goes on
    setsockopt(s.fd, IPPROTO_TCP, TCP_WINDOW_CLAMP, &clamp, sizeof(clamp))
