# By which trunk a packet goes to the relay that has its destination.

cdef uint64_t trunk_to(Worker *w, Slot *s, uint64_t entry, uint32_t source, uint32_t destination) noexcept nogil:
    """The trunk for a flow to the relay with this entry of the route table; 0: what `s` has sent was dropped. What came
    by a trunk leaves by none."""
    cdef uint64_t connection
    if s.kind == SLOT_TRUNK:
        drop(w, s, DROP_MOVED)
        return 0
    connection = trunk_find(w, entry, s.network, pair_hash(w, source, destination))
    if connection == 0:
        drop(w, s, DROP_NO_RELAY_LINK)
    elif unlikely(w.trunk_network != s.network):
        # All of a batch is one network's, because it is one connection's: this only makes sure.
        flush(w)
        w.trunk_network = s.network
    return connection
