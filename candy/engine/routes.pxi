# The route table of a network: two levels of C arrays over the whole IPv4 space, so that addresses outside of the pool
# need no other structure. Only pages that hold an address exist, and only touched parts of them are resident. Entries
# are connection numbers; a stale one is found out by its generation when the packet is sent. Python writes, workers
# read without a lock.

cdef inline uint64_t route_find(Network *network, uint32_t address) noexcept nogil:
    """The connection that owns the address, 0 none."""
    cdef uint64_t *page = <uint64_t *>load_pointer(&network.pages[address >> 16])
    if page == NULL:
        return 0
    return load_acquire64(page + (address & 0xFFFF))


cdef bint route_set(Network *network, uint32_t address, uint64_t connection) noexcept nogil:
    """Map the address; False when memory is out. Pages are never freed while the engine runs."""
    cdef uint64_t *page = <uint64_t *>load_pointer(&network.pages[address >> 16])
    if page == NULL:
        if connection == 0:
            return True
        page = <uint64_t *>calloc(65536, sizeof(uint64_t))
        if page == NULL:
            return False
        store_pointer(&network.pages[address >> 16], page)
    store_release64(page + (address & 0xFFFF), connection)
    return True


cdef bint member_add(Network *network, EngineState *engine, uint64_t connection) noexcept nogil:
    """Enter a member into the list for broadcasts; False when memory is out."""
    cdef Slot *s = &engine.slots[<uint32_t>connection]
    cdef uint64_t *more
    cdef bint fits = True
    pthread_mutex_lock(&network.lock)
    if network.member_count == network.member_room:
        more = <uint64_t *>realloc(network.members, (network.member_room * 2 + 16) * sizeof(uint64_t))
        if more == NULL:
            fits = False
        else:
            network.members = more
            network.member_room = network.member_room * 2 + 16
    if fits:
        s.member_index = network.member_count
        network.members[network.member_count] = connection
        network.member_count += 1
    pthread_mutex_unlock(&network.lock)
    return fits


cdef void member_remove(Network *network, EngineState *engine, Slot *s) noexcept nogil:
    cdef uint64_t moved
    pthread_mutex_lock(&network.lock)
    if s.member_index != NO_INDEX:
        network.member_count -= 1
        moved = network.members[network.member_count]
        network.members[s.member_index] = moved
        engine.slots[<uint32_t>moved].member_index = s.member_index
        s.member_index = NO_INDEX
    pthread_mutex_unlock(&network.lock)


cdef bint lan_holds(Network *network, Slot *s, uint32_t source) noexcept nogil:
    """Whether a member may send from this address, which is not its own. Off the fast path: takes the network's
    lock."""
    cdef uint32_t i
    cdef bint found = False
    pthread_mutex_lock(&network.lock)
    for i in range(s.lan_count):
        if source & s.lans[2 * i + 1] == s.lans[2 * i]:
            found = True
            break
    pthread_mutex_unlock(&network.lock)
    return found


cdef uint32_t find_next_hop(Network *network, Slot *s, uint32_t destination) noexcept nogil:
    """The member through which a device reaches this destination, 0 for directly."""
    cdef uint32_t i
    cdef uint32_t found = 0
    pthread_mutex_lock(&network.lock)
    for i in range(<uint32_t>load_relaxed64(&s.route_count)):
        if destination & s.routes[i].mask == s.routes[i].destination:
            found = s.routes[i].next_hop
            break
    pthread_mutex_unlock(&network.lock)
    return 0 if found == <uint32_t>load_relaxed64(&s.own_address) else found


cdef Network *network_make(uint32_t broadcast) noexcept nogil:
    cdef Network *network = <Network *>calloc(1, sizeof(Network))
    if network != NULL:
        network.broadcast = broadcast
        pthread_mutex_init(&network.lock, NULL)
    return network


cdef void network_free(Network *network) noexcept nogil:
    cdef uint32_t i
    for i in range(65536):
        free(network.pages[i])
    free(network.members)
    pthread_mutex_destroy(&network.lock)
    free(network)
