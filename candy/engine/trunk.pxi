# Links between the relays of a cluster. A trunk is such a connection: it carries the messages of many networks, each as
# a member sent it, so that what is sealed stays sealed, and a mask stays where it is.
#
#     | 82 03 | 24, number 2 | message | message | 82 03 | 24, number 2 | message |
#
# A NETWORK says of which network the messages behind it are, by a number that both relays have agreed on. It stands
# before the first of a batch, which is one network's, and before each that has waited, for those leave in another
# order. So a message needs no room of its own for it, and leaves from where it lies.
#
# No end masks, and none sends fragments.

cdef inline const Trunk *trunk_of(Slot *s) noexcept nogil:
    """What a trunk's relays have agreed on; NULL: not yet, or it has ended."""
    return <const Trunk *>table_read(<Table **>&s.trunk)


cdef inline uint32_t *trunk_networks(const Trunk *trunk) noexcept nogil:
    """The networks here, by their numbers."""
    return <uint32_t *>(trunk + 1)


cdef inline uint32_t network_frame(uint8_t *out, uint32_t number) noexcept nogil:
    """Write the frame of a NETWORK; returns its size."""
    write_header(out, OP_BINARY, NETWORK_BYTES, False, 0)
    out[2] = KIND_NETWORK
    store_be16(out + 3, <uint16_t>number)
    return NETWORK_FRAME


cdef inline int nobody(Slot *s) noexcept nogil:
    """Why a packet is dropped for whose destination there is no connection here."""
    return DROP_MOVED if s.kind == SLOT_TRUNK else DROP_NO_ROUTE


cdef bint comes_from(Worker *w, Slot *s, uint32_t source) noexcept nogil:
    """Whether a source is that of a member of the relay at a trunk's other end, or lies behind one by a rule. Which of
    them has sent it, that relay has checked. False: it was dropped."""
    cdef Network *network = w.engine.networks[s.network]
    cdef uint64_t relay = trunk_of(s).relay
    cdef const Table *rules
    cdef const Rule *rule
    cdef uint32_t i
    if likely(route_find(network, source) == relay):
        return True
    rules = table_read(&network.rules)
    if rules != NULL:
        rule = <const Rule *>(rules + 1)
        w.work -= rules.count * WORK_RULE
        for i in range(rules.count):
            if source & rule[i].mask == rule[i].destination and route_find(network, rule[i].next_hop) == relay:
                return True
    drop(w, s, DROP_RELAY_SOURCE)
    return False


cdef bint trunk_leave(Worker *w, uint64_t connection, uint32_t network, const uint8_t *frame,
                      uint32_t size) noexcept nogil:
    """Leave a frame of a network's, which is part of no batch, in a trunk's inbox. False: the trunk is gone, or too
    much waits there."""
    cdef Slot *s = &w.engine.slots[<uint32_t>connection]
    cdef const Trunk *trunk = trunk_of(s)
    cdef uint8_t before[NETWORK_FRAME]
    cdef bint taken = False
    if trunk == NULL or trunk.numbers[network] == 0:
        return False
    network_frame(before, trunk.numbers[network] - 1)
    pthread_mutex_lock(&s.inbox_lock)
    if is_current(s, connection):
        taken = inbox_put_behind(w, s, before, NETWORK_FRAME, frame, size, FOR_PACKETS)
        inbox_ask(w, s, connection)
    pthread_mutex_unlock(&s.inbox_lock)
    return taken


cdef void trunk_answer(Worker *w, Slot *s, const uint8_t *payload, uint32_t length) noexcept nogil:
    """Answer the message at hand, as answer(), with up to WIRE_PAYLOAD_LEGACY bytes."""
    cdef uint8_t frame[1514]        # WIRE_PAYLOAD_LEGACY + FRAME_HEADER_MAX
    cdef uint32_t size = build_frame(frame, OP_BINARY, payload, length, False, 0)
    w.work -= WORK_ANSWER
    if trunk_leave(w, slot_connection(w, s), s.network, frame, size):
        w.answered = True
