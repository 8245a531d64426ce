# The sub-queues of a backlog, each with the frames of one flow: the flow that a frame belongs to, its place, its turn.
#
# They stand in sets of ways, as CAKE has them: a flow takes any free place in the set that it hashes to, and shares one
# only when all are taken.
#
# A backlog takes no more memory than twice the bytes that wait in it, and BESIDE_MOST. A flow has a sub-queue of its
# own where what waits pays for that. Beyond, flows wait together, in the crowd. Who has a frame there waits there, or
# its packets would overtake each other.

cdef enum:
    QUANTUM = 1514                  # bytes that a flow may send in one turn


cdef inline uint64_t queue_pace(Slot *s, const Queue *q) noexcept nogil:
    """How fast this destination's packets leave, bytes a second: as the kernel takes them, or its limit lets them; 0
    unknown."""
    cdef uint64_t limit = load_relaxed64(&s.down_pace)
    if likely(limit == 0):
        return q.rate
    return min(q.rate, limit) if q.rate != 0 else limit


cdef inline void round_push(Round *r, Flow *f) noexcept nogil:
    f.next = NULL
    if r.head == NULL:
        r.head = f
    else:
        r.tail.next = f
    r.tail = f


cdef inline void round_pop(Round *r) noexcept nogil:
    r.head = r.head.next


cdef inline uint32_t trunk_hash(uint32_t number, const uint8_t *payload, uint32_t length, uint32_t mask,
                                const uint64_t *key) noexcept nogil:
    """What waits for a trunk shares it by network and destination."""
    cdef uint8_t kind = payload[0] ^ <uint8_t>mask
    cdef uint32_t at
    if kind == KIND_FORWARD or kind == KIND_SUPER:
        at = DESTINATION_AT + (SUPER_SHIFT if kind == KIND_SUPER else 0)
    elif kind == KIND_SEALED or kind == KIND_SEALED_GROUP:
        at = SEALED_DESTINATION_AT
    else:
        at = message_addresses(payload, length) + 4
    if length < at + 4:
        return 0
    return <uint32_t>fold(fold(load32(payload + at) ^ rotate_mask(mask, at) ^ key[0], number ^ key[1]), key[2])


cdef inline bint frame_flow(const uint8_t *frame, uint32_t size, const uint64_t *key, uint32_t *hash) noexcept nogil:
    """Whether a frame that this engine built has a flow, as packets have and what members tell each other; then `hash`
    is its flow's."""
    # the kind, a virtio header, the longest IPv4 header's 60 bytes: the ports are in there
    cdef uint8_t start[71]
    cdef uint8_t addresses[20]
    cdef uint32_t mask
    cdef uint32_t at = message_start(frame, size, &mask)
    cdef uint32_t payload = size - at
    cdef const uint8_t *p = frame + at
    cdef uint32_t n = payload if payload < 71 else 71
    if frame[0] & 15 != OP_BINARY or payload == 0:
        return False
    if is_of_network(frame):
        hash[0] = trunk_hash(load_be16(frame + 3), p, payload, mask, key)
        return True
    if mask != 0:
        unmask(start, p, n, mask)
        p = start
    if p[0] == KIND_FORWARD and payload >= FORWARD_MIN:
        hash[0] = flow_hash(p + 1, n - 1, key)
        return True
    if p[0] == KIND_SUPER and payload >= SUPER_MIN:
        hash[0] = flow_hash(p + 1 + VNET_BYTES, n - 1 - VNET_BYTES, key)
        return True
    if (p[0] == KIND_SEALED and payload >= SEALED_MIN) or (p[0] == KIND_SEALED_GROUP and payload >= SEALED_GROUP_MIN):
        hash[0] = label_hash(p, key)
        return True
    at = message_addresses(p, payload)
    if at != 0:
        # One flow for each sender: by their number messages hold up neither packets nor other senders'.
        memset(addresses, 0, sizeof(addresses))
        memcpy(addresses + 12, p + at, 8)
        hash[0] = flow_hash(addresses, sizeof(addresses), key)
        return True
    return False


cdef inline Flow *sub_queue(Queue *q, uint32_t place) noexcept nogil:
    """The sub-queue at a place, NULL when there is none; FLOWS is the crowd's."""
    return q.sub.ways[place] if place < FLOWS else &q.sub.crowd


cdef inline int64_t beside_room(const Queue *q) noexcept nogil:
    """Memory that the queue may still take beyond twice the bytes that wait."""
    cdef int64_t fixed = sizeof(Queue) + sizeof(SubQueues) + 2 * (sizeof(Block) + MEMORY_UNIT)
    return BESIDE_MOST - fixed - q.beside


cdef inline bint is_crowded(const Queue *q, uint32_t hash) noexcept nogil:
    """Whether a flow may have frames in the crowd."""
    cdef uint32_t bit = hash // FLOW_SETS % CROWD_BITS
    cdef uint64_t word = q.sub.crowded[bit // 64] | q.sub.crowded_before[bit // 64]
    return q.sub.crowd.head != NULL and word >> bit % 64 & 1 != 0


cdef Flow *crowd_join(Queue *q, uint32_t hash) noexcept nogil:
    """Have a flow wait in the crowd."""
    cdef uint32_t bit = hash // FLOW_SETS % CROWD_BITS
    q.sub.crowded[bit // 64] |= <uint64_t>1 << bit % 64
    return &q.sub.crowd


cdef void crowd_leave(Queue *q, uint32_t size) noexcept nogil:
    """A frame has left the crowd: forget those who came before, when it was the last of theirs."""
    if q.sub.crowd_before > size:
        q.sub.crowd_before -= size
        return
    q.sub.crowd_before = q.sub.crowd.bytes
    memcpy(q.sub.crowded_before, q.sub.crowded, sizeof(q.sub.crowded))
    memset(q.sub.crowded, 0, sizeof(q.sub.crowded))


cdef Flow *queue_flow(Worker *w, Queue *q, uint32_t hash, uint32_t size) noexcept nogil:
    """The sub-queue for a frame of so many bytes: the one that its flow has in its set, else a place that none has, if
    that is paid for, else one that it shares. NULL when memory is out."""
    cdef uint32_t first = (hash & (FLOW_SETS - 1)) * FLOW_WAYS
    cdef uint32_t i
    cdef uint32_t place = FLOWS
    cdef Flow *f
    if q.sub == NULL:
        q.sub = <SubQueues *>memory_take(w, <uint32_t>sizeof(SubQueues), FOR_CERTAIN)
        if q.sub == NULL:
            return NULL
        memset(q.sub, 0, sizeof(SubQueues))
    for i in range(first, first + FLOW_WAYS):
        f = q.sub.ways[i]
        if f == NULL:
            if place == FLOWS:
                place = i
        elif f.tag == hash:
            return f
        elif not f.listed:
            place = i                   # empty; it is kept for what CoDel knows of it
    if is_crowded(q, hash):
        return crowd_join(q, hash)
    # A place that others leave is not for who waits in one that is shared: its packets would overtake each other.
    f = q.sub.ways[first + (hash >> 16) % FLOW_WAYS]
    if place == FLOWS or (f != NULL and f.shared):
        f.shared = True
        return f
    f = q.sub.ways[place]
    if f == NULL:
        if <int64_t>sizeof(Flow) + record_beside(size) > beside_room(q):
            return crowd_join(q, hash)
        f = <Flow *>memory_take(w, <uint32_t>sizeof(Flow), FOR_CERTAIN)
        if f == NULL:
            return NULL
        q.sub.ways[place] = f
        q.beside += sizeof(Flow)
    memset(f, 0, sizeof(Flow))
    f.tag = hash
    return f


cdef inline Record *flow_take(Queue *q, Flow *f, uint32_t size) noexcept nogil:
    """Take the record at the head of a flow, whose frame has so many bytes."""
    cdef Record *r = f.head
    f.head = r.next
    f.judged = False
    if f.head == NULL:
        f.tail = NULL
    f.bytes -= size
    q.bytes -= size
    q.beside -= record_beside(size)
    if unlikely(f == &q.sub.crowd):
        crowd_leave(q, size)
    return r


cdef void flow_drop(Worker *w, Slot *s, Queue *q, Flow *f, int reason) noexcept nogil:
    """Drop the frame at the head of a flow."""
    cdef uint32_t size = record_size(f.head)
    drop_frame(w, s, reason, record_frame(f.head), size)
    record_give(w, flow_take(q, f, size), size)
    w.work -= WORK_RECORD


cdef void flow_free(Worker *w, Queue *q, Flow *f) noexcept nogil:
    """Give a flow's sub-queue back; the crowd's is part of the queue."""
    cdef uint32_t first = (f.tag & (FLOW_SETS - 1)) * FLOW_WAYS
    cdef uint32_t i
    for i in range(first, first + FLOW_WAYS):
        if q.sub.ways[i] == f:
            q.sub.ways[i] = NULL
            q.beside -= sizeof(Flow)
            memory_give(w, f, <uint32_t>sizeof(Flow), FOR_CERTAIN)
            return
