# The sub-queues of a backlog, each with the frames of one flow: the flow that a frame belongs to, its place, its turn.
#
# They stand in sets of ways, as CAKE has them: a flow takes any free place in the set that it hashes to, and shares one
# only when all are taken.

cdef enum:
    QUANTUM = 1514                  # bytes that a flow may send in one turn


cdef inline void round_push(Round *r, Flow *f) noexcept nogil:
    f.next = NULL
    if r.head == NULL:
        r.head = f
    else:
        r.tail.next = f
    r.tail = f


cdef inline void round_pop(Round *r) noexcept nogil:
    r.head = r.head.next


cdef inline bint frame_flow(const uint8_t *frame, uint32_t size, const uint64_t *key, uint32_t *hash) noexcept nogil:
    """Whether a frame that this engine built has a flow, as packets have and what members tell each other; then `hash`
    is its flow's."""
    # the kind, a virtio header, the longest IPv4 header's 60 bytes: the ports are in there
    cdef uint8_t start[71]
    cdef uint8_t addresses[20]
    cdef uint32_t header = frame_header(frame)
    cdef uint32_t payload = size - header
    cdef const uint8_t *p = frame + header
    cdef uint32_t n = payload if payload < 71 else 71
    cdef uint32_t at
    if frame[0] & 15 != OP_BINARY or payload == 0:
        return False
    if frame[1] >> 7:
        unmask(start, p, n, load32(p - 4))
        p = start
    if p[0] == KIND_FORWARD and payload >= FORWARD_MIN:
        hash[0] = flow_hash(p + 1, n - 1, key)
        return True
    if p[0] == KIND_SUPER and payload >= SUPER_MIN:
        hash[0] = flow_hash(p + 1 + VNET_BYTES, n - 1 - VNET_BYTES, key)
        return True
    at = message_addresses(p, payload)
    if at != 0:
        # One flow for each sender: by their number messages hold up neither packets nor other senders'.
        memset(addresses, 0, sizeof(addresses))
        memcpy(addresses + 12, p + at, 8)
        hash[0] = flow_hash(addresses, sizeof(addresses), key)
        return True
    return False


cdef Flow *queue_flow(Worker *w, Queue *q, uint32_t hash) noexcept nogil:
    """The sub-queue of a flow: the one that it has in its set, else a place that none has, else one that it shares.
    NULL when memory is out."""
    cdef uint32_t first = (hash & (FLOW_SETS - 1)) * FLOW_WAYS
    cdef uint32_t i
    cdef uint32_t place = FLOWS
    cdef Flow *f
    if q.ways == NULL:
        q.ways = <Flow **>memory_take(w, FLOWS * sizeof(Flow *), FOR_CERTAIN)
        if q.ways == NULL:
            return NULL
        memset(q.ways, 0, FLOWS * sizeof(Flow *))
    for i in range(first, first + FLOW_WAYS):
        f = q.ways[i]
        if f == NULL:
            if place == FLOWS:
                place = i
        elif f.tag == hash:
            return f
        elif not f.listed:
            place = i                   # empty; it is kept for what CoDel knows of it
    if place == FLOWS:
        return q.ways[first + (hash >> 16) % FLOW_WAYS]
    f = q.ways[place]
    if f == NULL:
        f = <Flow *>memory_take(w, <uint32_t>sizeof(Flow), FOR_CERTAIN)
        if f == NULL:
            return NULL
        q.ways[place] = f
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
    return r
