# By which trunk a packet goes to the relay that has its destination.

cdef uint64_t trunk_to(Worker *w, Slot *s, uint64_t entry, uint32_t source, uint32_t destination) noexcept nogil:
    """The trunk for a flow to the relay with this entry of the route table, always the same one while the same ones are
    there; 0: what `s` has sent was dropped. What came by a trunk leaves by none."""
    cdef Relay *relay = &w.engine.relays[entry - RELAYS]
    cdef uint64_t *key = w.engine.flow_key
    cdef uint64_t count = load_acquire64(&relay.count)
    cdef uint64_t hash = fold((<uint64_t>source << 32 | destination) ^ key[0], key[1])
    cdef uint64_t i, connection
    cdef const Trunk *trunk
    cdef Slot *to
    if s.kind == SLOT_TRUNK:
        drop(w, s, DROP_MOVED)
        return 0
    for i in range(count):
        connection = load_relaxed64(&relay.trunks[(hash + i) % count])
        to = &w.engine.slots[<uint32_t>connection]
        trunk = trunk_of(to)
        if (trunk == NULL or trunk.relay != entry or trunk.numbers[s.network] == 0 or not is_current(to, connection)
                or load_relaxed64(&to.closing) != 0):
            continue
        # All of a batch is one network's, because it is one connection's: this only makes sure.
        if unlikely(w.trunk_network != s.network):
            flush(w)
            w.trunk_network = s.network
        return connection
    drop(w, s, DROP_NO_RELAY_LINK)
    return 0
