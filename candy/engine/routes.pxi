# The route table of a network: two levels of C arrays over the whole IPv4 space, so that addresses outside of the pool
# need no other structure. Only pages that hold an address exist, and only touched parts of them are resident. Entries
# are connection numbers; a stale one is found out by its generation when the packet is sent. Python writes, workers
# read without a lock. Behind addresses there are networks: a device's routes to them, and the rules that place them.
#
# An address that another relay of the cluster has leads to that relay: RELAYS and its number, which is no connection's,
# because those have a generation.

cdef enum:
    RELAYS = 0x40000000


cdef inline bint is_here(uint64_t entry) noexcept nogil:
    """Whether an entry of the route table is a connection's."""
    return entry >> 32 != 0


cdef inline bint is_relay(uint64_t entry) noexcept nogil:
    """Whether an entry of the route table is another relay's."""
    return entry - RELAYS < RELAYS_MAX


cdef inline uint64_t route_find(Network *network, uint32_t address) noexcept nogil:
    """The connection that owns the address, or the relay that does; 0 none."""
    cdef uint64_t *page = <uint64_t *>load_pointer(&network.pages[address >> 16])
    if page == NULL:
        return 0
    return load_acquire64(page + (address & 0xFFFF))


cdef inline uint64_t route_here(Network *network, uint32_t address) noexcept nogil:
    """The connection that owns the address, 0 none of this relay's."""
    cdef uint64_t entry = route_find(network, address)
    return 0 if is_relay(entry) else entry


cdef bint route_set(Network *network, uint32_t address, uint64_t connection) noexcept nogil:
    """Map the address; False when memory is out. Pages are freed with their network alone."""
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


cdef uint32_t member_add(Network *network, uint64_t member) noexcept nogil:
    """Enter a member, or another relay, into the list for broadcasts; returns its place, NO_INDEX when memory is
    out."""
    cdef bint fits = True
    cdef uint32_t place = NO_INDEX
    pthread_mutex_lock(&network.lock)
    if network.member_free == NO_INDEX and network.member_high == network.member_room:
        fits = members_grow(network)
    if fits:
        if network.member_free != NO_INDEX:
            place = network.member_free
            network.member_free = network.free_next[place]
        else:
            place = network.member_high
            network.member_high += 1
        network.members[place] = member
        network.member_count += 1
    pthread_mutex_unlock(&network.lock)
    return place


cdef bint members_grow(Network *network) noexcept nogil:
    """Room for more members (network's lock)."""
    cdef uint32_t room = network.member_room * 2 + 16
    cdef uint64_t *members = <uint64_t *>realloc(network.members, room * sizeof(uint64_t))
    cdef uint32_t *free_next
    if members == NULL:
        return False
    network.members = members
    free_next = <uint32_t *>realloc(network.free_next, room * sizeof(uint32_t))
    if free_next == NULL:
        return False
    network.free_next = free_next
    network.member_room = room
    return True


cdef void member_remove(Network *network, uint32_t place) noexcept nogil:
    """Take who has this place out of the list, NO_INDEX nobody. The others keep theirs, so that a broadcast on its way
    neither misses one nor comes to one twice."""
    pthread_mutex_lock(&network.lock)
    if place != NO_INDEX:
        network.members[place] = 0
        network.free_next[place] = network.member_free
        network.member_free = place
        network.member_count -= 1
    pthread_mutex_unlock(&network.lock)


cdef uint32_t members_copy(Network *network, uint32_t place, uint64_t *out, uint32_t most) noexcept nogil:
    """Copy up to `most` places of the list, of which some may be 0; returns how many there were."""
    cdef uint32_t n = 0
    pthread_mutex_lock(&network.lock)
    if place < network.member_high:
        n = min(most, network.member_high - place)
        memcpy(out, network.members + place, n * sizeof(uint64_t))
    pthread_mutex_unlock(&network.lock)
    return n


cdef uint32_t find_next_hop(const Table *routes, uint32_t own, uint32_t destination) noexcept nogil:
    """The member through which the device with the address `own` reaches this destination, 0 for directly."""
    cdef const Route *route = <const Route *>(routes + 1)
    cdef uint32_t i
    for i in range(routes.count):
        if destination & route[i].mask == route[i].destination:
            return 0 if route[i].next_hop == own else route[i].next_hop
    return 0


cdef bint rules_place(Worker *w, const Table *rules, uint32_t next_hop, uint32_t address,
                      const uint32_t *device) noexcept nogil:
    """Whether a rule places this address behind this member, for the member `device`; NULL: for anybody. Costs work for
    each rule about what lies behind it."""
    cdef const Rule *rule
    cdef uint32_t low = 0
    cdef uint32_t high, middle
    if rules == NULL:
        return False
    rule = <const Rule *>(rules + 1)
    high = rules.count
    while low < high:                           # to the first about this member
        middle = (low + high) // 2
        if rule[middle].next_hop < next_hop:
            low = middle + 1
        else:
            high = middle
    while low < rules.count and rule[low].next_hop == next_hop:
        w.work -= WORK_RULE
        if (address & rule[low].mask == rule[low].destination
                and (device == NULL or device[0] & rule[low].device_mask == rule[low].device)):
            return True
        low += 1
    return False


cdef uint32_t rules_next_hop(Worker *w, const Table *rules, uint32_t address, uint32_t device) noexcept nogil:
    """The member behind which a rule for this device places an address, 0 none. Costs work for each rule."""
    cdef const Rule *rule
    cdef uint32_t i
    if rules == NULL:
        return 0
    rule = <const Rule *>(rules + 1)
    w.work -= rules.count * WORK_RULE
    for i in range(rules.count):
        if address & rule[i].mask == rule[i].destination and device & rule[i].device_mask == rule[i].device:
            return rule[i].next_hop
    return 0


cdef Network *network_make(uint32_t broadcast) noexcept nogil:
    cdef Network *network = <Network *>calloc(1, sizeof(Network))
    if network != NULL:
        network.broadcast = broadcast
        network.member_free = NO_INDEX
        pthread_mutex_init(&network.lock, NULL)
    return network


cdef void network_left(EngineState *e, uint32_t number) noexcept nogil:
    """Python has taken note of a connection's end. A worker reads a network in the turns of its connections alone, and
    the end of one is reported behind its last turn (report_departed). A device may be sent to in the turn of any
    connection; it has no end, and so its network stays."""
    cdef Network *network = e.networks[number]
    network.connections -= 1
    network_end(e, number)


cdef void network_end(EngineState *e, uint32_t number) noexcept nogil:
    """Free a network that is leaving, if no connection is in it any more; its number may be another's."""
    cdef Network *network = e.networks[number]
    if network.leaving and network.connections == 0:
        e.networks[number] = NULL
        network_free(network)


cdef void network_free(Network *network) noexcept nogil:
    cdef uint32_t i
    for i in range(65536):
        free(network.pages[i])
    free(network.rules)
    free(network.members)
    free(network.free_next)
    pthread_mutex_destroy(&network.lock)
    free(network)
