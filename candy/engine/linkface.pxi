# What Python says of direct links, and asks: the Engine's part of it. Runs on one Python thread.

cdef enum:
    STUN_IDS = 8
    STUN_ID_BYTES = 12
    PATH_LEAST = 576
    BPF_ACCEPT = 0xFFFFFFFF
    UDP_PAYLOAD_AT = 8              # a socket's filter sees the UDP header first


cdef inline void filter_step(sock_filter *step, uint16_t code, uint32_t k, uint8_t jt, uint8_t jf) noexcept nogil:
    step.code = code
    step.k = k
    step.jt = jt
    step.jf = jf


cdef bint filter_set(int fd, bint takes_old, const uint8_t *prefix, const uint8_t *ids, uint32_t n) noexcept nogil:
    """Have the kernel drop at a link's socket what is neither for one of this device's sessions, by the upper half of
    its number, nor the answer to one of `n` STUN transactions, by the first 4 bytes of its number: a flood of strangers
    costs nothing more than that. Where original clients are linked with, anything may be theirs."""
    cdef sock_filter steps[11 + STUN_IDS]
    cdef sock_fprog program
    cdef uint8_t refuse = <uint8_t>(9 + n)
    cdef uint32_t i
    if takes_old:
        filter_step(&steps[0], BPF_RET | BPF_K, BPF_ACCEPT, 0, 0)
        program.len = 1
        program.filter = steps
        return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) == 0
    filter_step(&steps[0], BPF_LD | BPF_B | BPF_ABS, UDP_PAYLOAD_AT, 0, 0)
    filter_step(&steps[1], BPF_JMP | BPF_JEQ | BPF_K, KIND_SEALED, 0, 2)
    filter_step(&steps[2], BPF_LD | BPF_H | BPF_ABS, UDP_PAYLOAD_AT + 4, 0, 0)
    filter_step(&steps[3], BPF_JMP | BPF_JEQ | BPF_K, load_be16(prefix), refuse + 1 - 4, refuse - 4)
    filter_step(&steps[4], BPF_LD | BPF_H | BPF_ABS, UDP_PAYLOAD_AT, 0, 0)
    filter_step(&steps[5], BPF_JMP | BPF_JEQ | BPF_K, STUN_SUCCESS, 0, refuse - 6)
    filter_step(&steps[6], BPF_LD | BPF_W | BPF_ABS, UDP_PAYLOAD_AT + 4, 0, 0)
    filter_step(&steps[7], BPF_JMP | BPF_JEQ | BPF_K, STUN_COOKIE, 0, refuse - 8)
    filter_step(&steps[8], BPF_LD | BPF_W | BPF_ABS, UDP_PAYLOAD_AT + 8, 0, 0)
    for i in range(n):
        filter_step(&steps[9 + i], BPF_JMP | BPF_JEQ | BPF_K, load_be32(ids + i * STUN_ID_BYTES),
                    <uint8_t>(refuse + 1 - (10 + i)), 0)
    filter_step(&steps[refuse], BPF_RET | BPF_K, 0, 0, 0)
    filter_step(&steps[refuse + 1], BPF_RET | BPF_K, BPF_ACCEPT, 0, 0)
    program.len = <unsigned short>(refuse + 2)
    program.filter = steps
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) == 0


cdef bint link_filter(Slot *s, const Seals *seals) noexcept nogil:
    """The same for a link as it is now (send lock held)."""
    cdef uint8_t prefix[2]
    store_be16(prefix, seals.link_prefix)
    return filter_set(s.fd, load_pointer(<void **>&seals.old_key) != NULL, prefix, <const uint8_t *>s.link.ids,
                      s.link.expected)


cdef void path_fill(Path *path, uint32_t peer, uint64_t link, uint16_t family, const uint8_t *address, uint16_t port,
                    uint32_t longest, uint32_t over) noexcept nogil:
    """Make a path of zeros one to this address."""
    path.peer = peer
    path.longest = longest
    path.over = over
    path.link = link
    path.name_size = name_of(family, address, port, path.name)
    place_of(path.name, path.place)
    path.heard_ns = boot_ns()


cdef void path_follow(Path *path, const Path *former) noexcept nogil:
    """It goes on counting where the one before has, if that led to the same address."""
    if memcmp(former.place, path.place, sizeof(path.place)) != 0:
        return
    path.sent_ns = load_relaxed64(&former.sent_ns)
    path.traffic.packets_in = load_relaxed64(&former.traffic.packets_in)
    path.traffic.bytes_in = load_relaxed64(&former.traffic.bytes_in)
    path.traffic.packets_out = load_relaxed64(&former.traffic.packets_out)
    path.traffic.bytes_out = load_relaxed64(&former.traffic.bytes_out)


cdef path_row(const Path *path):
    """As paths() has it."""
    return (
        path.peer, load_relaxed64(&path.sent_ns) / BOOT_SECOND_NS, load_relaxed64(&path.heard_ns) / BOOT_SECOND_NS,
        load_relaxed64(&path.traffic.packets_in), load_relaxed64(&path.traffic.bytes_in),
        load_relaxed64(&path.traffic.packets_out), load_relaxed64(&path.traffic.bytes_out),
        load_relaxed64(&path.quiet) != 0,
    )


cdef uint16_t socket_family(int fd) except 0:
    """AF_INET or AF_INET6, of a UDP socket."""
    cdef int kind = 0
    cdef int family = 0
    cdef socklen_t n = sizeof(int)
    if getsockopt(fd, SOL_SOCKET, SO_TYPE, &kind, &n) != 0 or getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &n) != 0:
        raise OSError(errno, os.strerror(errno))
    if kind != SOCK_DGRAM or (family != AF_INET and family != AF_INET6):
        raise OSError(EPROTOTYPE, "not a UDP socket")
    return <uint16_t>family


cdef class _Links(_Trunking):
    """Direct links: see _fastpath.pyi."""

    cdef Slot *find_link(self, link) noexcept:
        """The slot of a link that is open, else NULL."""
        cdef Slot *s = self.find_any(link)
        return s if s != NULL and s.kind == SLOT_LINK else NULL

    cdef Links *links(self, uint32_t worker) except NULL:
        """What this worker sends and receives by links with, made for the first of them."""
        cdef Worker *w = &self.state.workers[worker]
        cdef Links *made = w.links
        if made == NULL:
            made = <Links *>calloc(1, sizeof(Links))
            if made == NULL:
                raise MemoryError
            store_pointer(<void **>&w.links, made)
        return made

    def link_prefix(self, tun):
        return self.sealing(tun).link_prefix

    def open_link(self, tun, int fd):
        cdef Seals *seals = self.sealing(tun)
        cdef Slot *device = self.find(tun)
        cdef uint16_t family = socket_family(fd)
        cdef uint8_t prefix[2]
        cdef int one = 1
        cdef Slot *s
        self.check_room()
        set_nonblocking(fd)
        # Without it each datagram is received by itself.
        setsockopt(fd, IPPROTO_UDP, UDP_GRO, &one, sizeof(one))
        store_be16(prefix, seals.link_prefix)
        if not filter_set(fd, seals.old_key != NULL, prefix, NULL, 0):
            raise OSError(errno, os.strerror(errno))
        self.links(device.home)
        s = self.take_slot()
        self.join_network(s, device.network)
        store_relaxed64(&s.kind, SLOT_LINK)
        self.place(s, device.home)
        s.link = <Link *>calloc(1, sizeof(Link))
        if s.link == NULL:
            self.discard(s)
            raise MemoryError
        s.link.device = tun
        s.link.family = family
        return self.publish(s, fd)

    cdef void place(self, Slot *s, uint32_t worker) noexcept:
        """Have this worker own a slot that was not published."""
        self.state.workers[s.home].load -= 1
        s.home = worker
        self.state.workers[worker].load += 1
        slot_assign(s, worker, False)

    def allow_links(self, tun, bint allows):
        store_relaxed64(&self.sealing(tun).links_off, not allows)

    def close_link(self, link):
        cdef Slot *s = self.find_any(link)
        if s == NULL or s.kind <= SLOT_TUN:
            return False
        ask(self.sender(), s, link, ABORT)
        return True

    def expect_stun(self, link, ids):
        cdef Slot *s = self.find_link(link)
        cdef uint8_t wanted[STUN_IDS][STUN_ID_BYTES]
        cdef bint found
        cdef bytes one
        cdef uint32_t n = <uint32_t>len(ids)
        if n > STUN_IDS or any([len(each) != STUN_ID_BYTES for each in ids]):
            raise ValueError(f"up to {STUN_IDS} transactions of {STUN_ID_BYTES} bytes each")
        for i, one in enumerate(ids):
            memcpy(wanted[i], <const char *>one, STUN_ID_BYTES)
        if s == NULL:
            return False
        pthread_mutex_lock(&s.send_lock)
        found = is_current(s, link)
        if found:
            memcpy(s.link.ids, wanted, sizeof(wanted))
            s.link.expected = n
            found = link_filter(s, self.state.networks[s.network].seals)
        pthread_mutex_unlock(&s.send_lock)
        return found

    def send_stun(self, link, bytes address not None, uint16_t port, bytes message not None):
        cdef Slot *s = self.find_link(link)
        cdef uint8_t name[28]
        cdef uint32_t size
        cdef bint done = False
        if len(message) > STUN_TOLD:
            raise ValueError(f"a message has at most {STUN_TOLD} bytes, not {len(message)}")
        if s == NULL:
            return False
        pthread_mutex_lock(&s.send_lock)
        if is_current(s, link) and len(address) == (4 if s.link.family == AF_INET else 16):
            size = name_of(s.link.family, address, port, name)
            done = sendto(s.fd, <const char *>message, len(message), MSG_DONTWAIT | MSG_NOSIGNAL, name, size) >= 0
        pthread_mutex_unlock(&s.send_lock)
        return done

    def send_by(self, tun, uint32_t session, link, bytes address not None, uint16_t port,
                bytes content not None=b""):
        cdef Seals *seals = self.sealing(tun)
        cdef Session *with_ = session_find(seals, session)
        cdef Slot *s = self.find_link(link)
        cdef Worker *w = self.sender()
        cdef uint8_t name[28]
        cdef uint32_t size
        cdef bint done = False
        if len(content) > LINK_CONTENT_MAX:
            raise ValueError(f"at most {LINK_CONTENT_MAX} bytes, not {len(content)}")
        if with_ == NULL or s == NULL:
            return False
        memcpy(w.scratch + LINK_HEADER, <const char *>content, len(content))
        pthread_mutex_lock(&s.send_lock)
        if is_current(s, link) and len(address) == (4 if s.link.family == AF_INET else 16):
            size = name_of(s.link.family, address, port, name)
            done = link_post(w, with_, s, name, size, w.scratch, <uint32_t>len(content))
        pthread_mutex_unlock(&s.send_lock)
        return done

    def set_path(self, tun, uint32_t peer, link, bytes address not None, uint16_t port, uint32_t longest):
        cdef Seals *seals = self.sealing(tun)
        cdef SealPeer *found = peer_find(seals, peer)
        cdef Slot *s = self.find_link(link)
        cdef uint16_t family = 0
        cdef uint64_t device = 0
        cdef Path *former
        cdef Path *fresh
        if s != NULL:
            pthread_mutex_lock(&s.send_lock)
            if is_current(s, link):
                family = s.link.family
                device = s.link.device
            pthread_mutex_unlock(&s.send_lock)
        if family == 0 or device != tun:
            raise ValueError("no such link of this device")
        if len(address) != (4 if family == AF_INET else 16) or port == 0:
            raise ValueError("an address and a port of the link's family")
        if not PATH_LEAST <= longest <= LINK_CONTENT_MAX:
            raise ValueError(f"a path's longest packet has {PATH_LEAST} to {LINK_CONTENT_MAX} bytes, not {longest}")
        if found == NULL:
            raise ValueError("set_peer() comes first")
        fresh = <Path *>calloc(1, sizeof(Path))
        if fresh == NULL:
            raise MemoryError
        path_fill(fresh, peer, link, family, address, port, longest, LINK_MIN)
        former = found.path
        if former != NULL:
            path_follow(fresh, former)
        table_replace(self.state, <Table **>&found.path, &fresh.table)

    def clear_path(self, tun, uint32_t peer):
        cdef SealPeer *found = peer_find(self.sealing(tun), peer)
        if found == NULL or found.path == NULL:
            return False
        table_replace(self.state, <Table **>&found.path, NULL)
        return True

    def paths(self, tun):
        cdef Seals *seals = self.sealing(tun)
        cdef SealPeer *peer
        cdef uint32_t i
        found = []
        for i in range(<uint32_t>PLACES):
            # Workers add at the front, and only this thread takes out.
            peer = <SealPeer *>load_pointer(<void **>&seals.peers[i])
            while peer != NULL:
                if peer.path != NULL:
                    found.append(path_row(peer.path))
                peer = <SealPeer *>load_pointer(<void **>&peer.next)
        return found

    def open_stun(self, int fd, other=None):
        cdef EngineState *e = self.alive()
        cdef uint8_t name[28]
        cdef StunLimits *limits
        cdef bytes address
        cdef Slot *s
        if e.stun_slots == STUN_SLOTS:
            raise OSError(EUSERS, f"an engine has at most {STUN_SLOTS} STUN responders")
        socket_family(fd)
        set_nonblocking(fd)
        limits = <StunLimits *>calloc(1, sizeof(StunLimits))
        if limits == NULL:
            raise MemoryError
        try:
            if getrandom(limits.key, sizeof(limits.key), 0) != sizeof(limits.key):
                raise OSError(errno, os.strerror(errno))
            if other is not None:
                address, port = other
                if len(address) != 4 and len(address) != 16:
                    raise ValueError("an address has 4 or 16 bytes")
                name_of(AF_INET if len(address) == 4 else AF_INET6, address, port, name)
                place_of(name, limits.other)
                limits.has_other = True
        except BaseException:
            free(limits)
            raise
        s = self.take_slot()
        store_relaxed64(&s.kind, SLOT_STUN)
        s.stun = limits
        e.stun_slots += 1
        try:
            self.links(s.home)
        except MemoryError:
            self.discard(s)
            raise
        return self.publish(s, fd)
