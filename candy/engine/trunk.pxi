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
#
# What a relay has a member of another one told (told.pxi) goes as a NOTICE, which that relay looks into:
#
#     | 82 length | 25, member 4 | 34 NOT_SEALING or 35 COMMIT, as in a CONTROL |

cdef inline const Trunk *trunk_of(Slot *s) noexcept nogil:
    """What a trunk's relays have agreed on; NULL: not yet, or it has ended."""
    return <const Trunk *>table_read(<Table **>&s.trunk)


cdef inline Copies *trunk_copies(const Trunk *trunk) noexcept nogil:
    """What is left of its networks' allowances for groups, by their numbers (the trunk's worker)."""
    return <Copies *>(trunk + 1)


cdef inline uint32_t *trunk_networks(const Trunk *trunk) noexcept nogil:
    """The networks here, by their numbers."""
    return <uint32_t *>(trunk_copies(trunk) + trunk.table.count)


cdef inline uint32_t trunk_network(const Trunk *trunk, const uint8_t *frame) noexcept nogil:
    """The network here that a frame is of that waits, as what is before it says."""
    return trunk_networks(trunk)[load_be16(frame + 3)]


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


cdef inline uint64_t pair_hash(Worker *w, uint32_t source, uint32_t destination) noexcept nogil:
    """Of what one address sends another."""
    cdef uint64_t *key = w.engine.flow_key
    return fold((<uint64_t>source << 32 | destination) ^ key[0], key[1])


cdef uint64_t trunk_find(Worker *w, uint64_t entry, uint32_t network, uint64_t hash) noexcept nogil:
    """The trunk to the relay with this entry of the route table by which a network's packets with this hash go, always
    the same one while the same ones are there; 0 none."""
    cdef Relay *relay = &w.engine.relays[entry - RELAYS]
    cdef uint64_t count = load_acquire64(&relay.count)
    cdef uint64_t i, connection
    cdef const Trunk *trunk
    cdef Slot *to
    for i in range(count):
        connection = load_relaxed64(&relay.trunks[(hash + i) % count])
        to = &w.engine.slots[<uint32_t>connection]
        trunk = trunk_of(to)
        if (trunk == NULL or trunk.relay != entry or trunk.numbers[network] == 0 or not is_current(to, connection)
                or load_relaxed64(&to.closing) != 0):
            continue
        return connection
    return 0


cdef bint trunk_leave(Worker *w, uint64_t connection, uint32_t network, const uint8_t *frame,
                      uint32_t size) noexcept nogil:
    """Leave a frame of a network's, which is part of no batch, in a trunk's inbox; its owner sends it. False: the trunk
    is gone, or too much waits there."""
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
        ask(w, s, connection, DRAIN)
    pthread_mutex_unlock(&s.inbox_lock)
    return taken


cdef void trunk_answer(Worker *w, Slot *s, const uint8_t *payload, uint32_t length) noexcept nogil:
    """Answer the message at hand, as answer(), with up to WIRE_PAYLOAD_LEGACY bytes."""
    cdef uint8_t frame[1514]        # WIRE_PAYLOAD_LEGACY + FRAME_HEADER_MAX
    cdef uint32_t size = build_frame(frame, OP_BINARY, payload, length, False, 0)
    w.work -= WORK_ANSWER
    trunk_leave(w, slot_connection(w, s), s.network, frame, size)


cdef bint trunk_notice(Worker *w, uint64_t entry, uint32_t network, uint32_t member, const uint8_t *message,
                       uint32_t length) noexcept nogil:
    """Have the relay with this entry of the route table tell a member of its so many bytes, up to TOLD_BYTES. Takes no
    lock but an inbox's. False: no trunk leads there, or too much waits."""
    cdef uint8_t notice[NOTICE_BYTES + TOLD_BYTES]
    cdef uint8_t frame[NOTICE_BYTES + TOLD_BYTES + FRAME_HEADER_MAX]
    cdef uint32_t size
    cdef uint64_t connection = trunk_find(w, entry, network, member)
    if connection == 0:
        return False
    notice[0] = KIND_NOTICE
    store_be32(notice + 1, member)
    memcpy(notice + NOTICE_BYTES, message, length)
    size = build_frame(frame, OP_BINARY, notice, NOTICE_BYTES + length, False, 0)
    w.work -= WORK_ANSWER
    return trunk_leave(w, connection, network, frame, size)
