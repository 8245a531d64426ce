# What Python says of links between relays.


cdef class _Trunking(_Sealing):

    def agree(self, connection, int relay, networks):
        cdef EngineState *e = self.alive()
        cdef Slot *s = self.find(connection)
        cdef Trunk *trunk
        cdef uint32_t i = 0
        cdef uint32_t network
        entry = self.entry_of(relay)
        for network in networks:
            self.served(network)
        if len(set(networks)) != len(networks):
            raise ValueError("a network has one number")
        if s == NULL or s.kind != SLOT_TRUNK:
            return False
        if s.trunk != NULL:
            raise ValueError("its relays have agreed before")
        trunk = <Trunk *>calloc(1, sizeof(Trunk) + len(networks) * (sizeof(Copies) + sizeof(uint32_t)))
        if trunk == NULL:
            raise MemoryError
        trunk.relay = entry
        trunk.table.count = <uint32_t>len(networks)
        for network in networks:
            e.networks[network].connections += 1
            trunk.numbers[network] = i + 1
            trunk_networks(trunk)[i] = network
            i += 1
        store_pointer(<void **>&s.trunk, trunk)
        return True

    def open_trunk(self, connection):
        cdef EngineState *e = self.alive()
        cdef Slot *s = self.find(connection)
        cdef Relay *to
        cdef uint32_t i
        if s == NULL or s.trunk == NULL:
            return False
        to = &e.relays[s.trunk.relay - RELAYS]
        for i in range(load_relaxed64(&to.count)):
            if load_relaxed64(&to.trunks[i]) == <uint64_t>connection:
                return True
        if load_relaxed64(&to.count) == TRUNKS_MAX:
            raise ValueError(f"there are {TRUNKS_MAX} links to this relay")
        for i in range(s.trunk.table.count):
            self.enter_broadcasts(s.trunk.relay, trunk_networks(s.trunk)[i])
        store_relaxed64(&to.trunks[load_relaxed64(&to.count)], connection)
        store_release64(&to.count, load_relaxed64(&to.count) + 1)
        return True

    cdef object entry_of(self, int relay):
        if not 0 <= relay < RELAYS_MAX:
            raise ValueError(f"a relay's number is from 0 to {RELAYS_MAX - 1}, not {relay}")
        return RELAYS + relay

    def lead(self, int network, uint32_t ip, int relay):
        cdef Network *led = self.served(network)
        cdef uint64_t entry = self.entry_of(relay)
        cdef Slot *holder = self.find(route_find(led, ip))
        if ip == 0:
            raise ValueError("0 is nobody's address")
        if holder != NULL:
            self.release_address(holder)
        if not route_set(led, ip, entry):
            raise MemoryError

    def unlead(self, int network, uint32_t ip, int relay):
        cdef Network *led = self.served(network)
        if route_find(led, ip) != self.entry_of(relay):
            return False
        route_set(led, ip, 0)
        return True
