# The Python face: what _fastpath.pyi promises. Runs on one Python thread; slots are handed out and taken back here.

import os

VERSION = "1"
MAX_PAYLOAD = WIRE_PAYLOAD_MAX
LEGACY_PAYLOAD = WIRE_PAYLOAD_LEGACY
EVENT_MESSAGE = EV_MESSAGE
EVENT_PONG = EV_PONG
EVENT_CLOSED = EV_CLOSED
EVENT_LOST = EV_LOST

# In the order of enum Cause, without its first.
CAUSES = ("local", "peer", "eof", "reset", "silent", "protocol_error", "too_large")

# In the order of enum Drop.
DROPS = (
    "not_authenticated",        # a packet before AUTH
    "spoofed_source",           # its source address is not its sender's
    "no_route",                 # nobody owns its destination
    "stale",                    # the destination went while the packet was on its way
    "too_large",                # more than the destination, or Python, may get
    "too_short",                # no room for an IPv4 header
    "queue_full",               # the destination's queue reached its bound
    "delay",                    # it stood in a queue for too long (CoDel)
    "stalled",                  # the destination takes nothing and its queue is full
    "memory",                   # the bound over all queues, or the machine's memory
    "closed",                   # the destination is closing, or closed with this in its queue
    "broadcast_limit",          # its sender used up its allowance of copies
    "text",                     # a text message
    "events",                   # more messages than Python takes
    "control",                  # more control frames than the peer takes
    "not_ipv4",                 # no packet for, or from, a TUN device
    "tun_write",                # the kernel refused it
    "bad_super",                # a super-packet that is not what its virtio header claims, or was not agreed upon
)
if len(DROPS) != DROPS_COUNT:
    raise SystemError("DROPS and enum Drop differ")

_SECOND_NS = 1000000000

choose_unmask()


cdef void state_free(EngineState *e) noexcept nogil:
    """Free everything that workers used; none runs any more."""
    cdef uint32_t i
    cdef Slot *s
    cdef Worker *w
    for i in range(e.high_slot):
        s = &e.slots[i]
        if s.fd >= 0:
            close_fd(s.fd)
        queue_free(&e.workers[e.worker_count], s)
        blocks_give(&e.pool, s.inbox_head)
        blocks_give(&e.pool, s.spill)
        blocks_give(&e.pool, s.fragments)
        free(s.lans)
        free(s.routes)
        pthread_mutex_destroy(&s.send_lock)
        pthread_mutex_destroy(&s.inbox_lock)
    if e.slots != NULL:
        munmap(e.slots, e.max_slots * sizeof(Slot))
    for i in range(e.worker_count + 1):
        w = &e.workers[i]
        if w.ep >= 0:
            close_fd(w.ep)
        if w.wake >= 0:
            close_fd(w.wake)
        free(w.buffer)
        free(w.arena)
        free(w.merge)
        free(w.segments)
        free(w.targets)
        free(w.target_of)
        free(w.iov)
        free(w.messages)
        free(w.slots)
        free(w.ready)
        free(w.departed)
        free(w.waiting)
        free(w.commands)
        pthread_mutex_destroy(&w.command_lock)
    free(e.workers)
    for i in range(e.network_count):
        network_free(e.networks[i])
    if e.outbox.signal >= 0:
        close_fd(e.outbox.signal)
    free(e.outbox.bytes)
    free(e.outbox.closed)
    free(e.outbox.closed_cause)
    pthread_mutex_destroy(&e.outbox.lock)
    pool_empty(&e.pool)
    pthread_mutex_destroy(&e.pool.lock)
    free(e)


cdef bint worker_make(Worker *w, EngineState *e, uint32_t index) noexcept nogil:
    """Give a worker its memory and descriptors; False when the machine refuses."""
    cdef epoll_event event
    w.engine = e
    w.index = index
    w.ep = epoll_create1(EPOLL_CLOEXEC)
    w.wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    w.iov = <iovec *>calloc(IOV_MAX_SEND, sizeof(iovec))
    w.messages = <mmsghdr *>calloc(MESSAGES_MAX, sizeof(mmsghdr))
    if w.ep < 0 or w.wake < 0 or w.iov == NULL or w.messages == NULL:
        return False
    if index == e.worker_count:                 # Python's own: it sends, but receives nothing
        return True
    w.buffer = <uint8_t *>malloc(RECEIVE_BYTES + FRAME_HEADER_MAX)
    w.arena = <uint8_t *>malloc(ARENA_CHUNKS * ARENA_CHUNK)
    w.merge = <Merge *>calloc(1, sizeof(Merge))
    w.segments = <Segment *>calloc(SEGMENTS_MAX, sizeof(Segment))
    w.targets = <Target *>calloc(TARGETS_MAX, sizeof(Target))
    w.target_of = <uint32_t *>calloc(e.max_slots, sizeof(uint32_t))
    w.slots = <uint32_t *>calloc(e.max_slots, sizeof(uint32_t))
    w.ready = <uint64_t *>calloc(e.max_slots * 2, sizeof(uint64_t))
    w.departed = <uint32_t *>calloc(e.max_slots, sizeof(uint32_t))
    w.waiting = <uint64_t *>calloc(e.max_slots * 2, sizeof(uint64_t))
    if (w.buffer == NULL or w.arena == NULL or w.merge == NULL or w.segments == NULL or w.targets == NULL
            or w.target_of == NULL or w.slots == NULL
            or w.ready == NULL or w.departed == NULL or w.waiting == NULL):
        return False
    event.events = EPOLLIN
    event.data.u64 = WAKE
    return epoll_ctl(w.ep, EPOLL_CTL_ADD, w.wake, &event) == 0


cdef class Engine:
    """See _fastpath.pyi."""
    cdef EngineState *state
    cdef uint32_t running

    def __cinit__(self, workers=1, *, queue_bytes=4194304, memory_bytes=268435456, max_connections=65536,
                  ping_after=15.0, dead_after=45.0, ping_when_quiet=False, broadcast_rate=20000):
        cdef EngineState *e
        cdef uint32_t i
        for name, value, least, most in (
            ("workers", workers, 1, 64),
            ("queue_bytes", queue_bytes, 1 << 17, 1 << 30),
            ("memory_bytes", memory_bytes, 1 << 20, 1 << 40),
            ("max_connections", max_connections, 1, 1 << 24),
            ("ping_after", ping_after, 0, 86400),
            ("dead_after", dead_after, 0, 86400),
            ("broadcast_rate", broadcast_rate, 0, 1 << 30),
        ):
            if not least <= value <= most:
                raise ValueError(f"{name} must be from {least} to {most}, not {value}")
        self.running = 0
        self.state = e = <EngineState *>calloc(1, sizeof(EngineState))
        if e == NULL:
            raise MemoryError
        e.worker_count = workers
        e.max_slots = max_connections
        e.free_slot = NO_INDEX
        e.queue_bytes = queue_bytes
        e.pool.limit_bytes = memory_bytes
        e.ping_after_ns = <uint64_t>(ping_after * _SECOND_NS)
        e.dead_after_ns = <uint64_t>(dead_after * _SECOND_NS)
        e.ping_when_quiet = ping_when_quiet
        e.broadcast_rate = broadcast_rate
        pthread_mutex_init(&e.pool.lock, NULL)
        pthread_mutex_init(&e.outbox.lock, NULL)
        e.outbox.signal = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        e.outbox.closed = <uint64_t *>calloc(e.max_slots, sizeof(uint64_t))
        e.outbox.closed_cause = <uint8_t *>calloc(e.max_slots, 1)
        e.workers = <Worker *>calloc(e.worker_count + 1, sizeof(Worker))
        if e.workers == NULL:
            e.worker_count = 0
            raise MemoryError
        for i in range(e.worker_count + 1):
            e.workers[i].ep = -1
            e.workers[i].wake = -1
            pthread_mutex_init(&e.workers[i].command_lock, NULL)
        e.slots = <Slot *>mmap(NULL, e.max_slots * sizeof(Slot), PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        if e.slots == MAP_FAILED:
            e.slots = NULL
            raise MemoryError
        if e.outbox.signal < 0 or e.outbox.closed == NULL or e.outbox.closed_cause == NULL:
            raise OSError(errno, os.strerror(errno))
        for i in range(e.worker_count + 1):
            if not worker_make(&e.workers[i], e, i):
                raise OSError(errno, os.strerror(errno))
        self.start()

    cdef start(self):
        """Run the workers with all signals blocked: those are for Python's thread."""
        cdef sigset_t every
        cdef sigset_t before
        cdef uint32_t i
        cdef int error = 0
        sigfillset(&every)
        pthread_sigmask(SIG_SETMASK, &every, &before)
        for i in range(self.state.worker_count):
            error = pthread_create(&self.state.workers[i].thread, NULL, worker_main, &self.state.workers[i])
            if error:
                break
            self.running += 1
        pthread_sigmask(SIG_SETMASK, &before, NULL)
        if error:
            self.stop()
            raise OSError(error, os.strerror(error))

    def __dealloc__(self):
        self.finish()

    def stop(self):
        self.finish()

    cdef finish(self):
        cdef EngineState *e = self.state
        cdef uint64_t one = 1
        cdef uint32_t i
        if e == NULL:
            return
        self.state = NULL
        with nogil:
            store_release64(&e.stopping, 1)
            for i in range(self.running):
                write_fd(e.workers[i].wake, &one, 8)
            for i in range(self.running):
                pthread_join(e.workers[i].thread, NULL)
            state_free(e)
        self.running = 0

    cdef EngineState *alive(self) except NULL:
        if self.state == NULL:
            raise RuntimeError("the engine is stopped")
        return self.state

    cdef Worker *own(self) noexcept:
        """Python's own worker: scratch memory, counters and a clock for sending."""
        cdef Worker *w = &self.state.workers[self.state.worker_count]
        w.now = now_ns()
        return w

    cdef Slot *find(self, connection) noexcept:
        """The slot of a connection that is open, else NULL."""
        cdef uint64_t number
        cdef Slot *s
        if self.state == NULL or not isinstance(connection, int) or not 0 <= connection < 1 << 64:
            return NULL
        number = connection
        if <uint32_t>number >= self.state.high_slot:
            return NULL
        s = &self.state.slots[<uint32_t>number]
        return s if load_relaxed64(&s.generation) == number >> 32 else NULL

    def fileno(self):
        return self.alive().outbox.signal

    def add_network(self, broadcast=0xFFFFFFFF, *, bint forward_broadcast=True, bint check_source=True):
        cdef EngineState *e = self.alive()
        if e.network_count == NETWORKS_MAX:
            raise ValueError(f"an engine has at most {NETWORKS_MAX} networks")
        e.networks[e.network_count] = network_make(broadcast)
        if e.networks[e.network_count] == NULL:
            raise MemoryError
        e.networks[e.network_count].forward_broadcast = forward_broadcast
        e.networks[e.network_count].check_source = check_source
        e.network_count += 1
        return e.network_count - 1

    cdef Slot *take_slot(self, int network) except NULL:
        """A free slot, its fields set as far as connections and devices share them."""
        cdef EngineState *e = self.alive()
        cdef Slot *s
        cdef uint32_t i
        if not 0 <= network < <int>e.network_count:
            raise ValueError(f"no network {network}")
        if e.free_slot != NO_INDEX:
            s = &e.slots[e.free_slot]
            e.free_slot = s.next_free
        elif e.high_slot < e.max_slots:
            s = &e.slots[e.high_slot]
            e.high_slot += 1
            s.generation = 1
            s.fd = -1
            pthread_mutex_init(&s.send_lock, NULL)
            pthread_mutex_init(&s.inbox_lock, NULL)
        else:
            raise OSError(ENFILE, f"all {e.max_slots} connections are taken")
        e.open_slots += 1
        s.network = network
        s.owner = 0
        for i in range(1, e.worker_count):
            if e.workers[i].load < e.workers[s.owner].load:
                s.owner = i
        e.workers[s.owner].load += 1
        store_relaxed64(&s.address, 0)
        store_relaxed64(&s.next_hop, 0)
        store_relaxed64(&s.pending, 0)
        store_relaxed64(&s.closing, 0)
        store_relaxed64(&s.queued_bytes, 0)
        store_relaxed64(&s.control_bytes, 0)
        store_relaxed64(&s.extended, 0)
        memset(&s.traffic, 0, sizeof(s.traffic))
        for i in range(<uint32_t>DROPS_COUNT):
            store_relaxed64(&s.drops[i], 0)
        s.state = STATE_OPEN
        s.cause = CAUSE_NONE
        s.hung_up = s.ready = s.fresh = s.broken = s.finished = s.waiting = False
        s.pinged_ns = s.deadline_ns = s.copies_stamp_ns = s.copies_left = s.icmp_stamp_ns = 0
        s.worker_index = s.member_index = NO_INDEX
        store_relaxed64(&s.received_ns, now_ns())
        store_relaxed64(&s.sent_ns, load_relaxed64(&s.received_ns))
        return s

    cdef give_slot(self, Slot *s):
        cdef EngineState *e = self.state
        free(s.lans)
        s.lans = NULL
        s.lan_count = 0
        s.state = STATE_FREE
        s.next_free = e.free_slot
        e.free_slot = <uint32_t>(s - e.slots)
        e.open_slots -= 1
        e.workers[s.owner].load -= 1

    cdef object publish(self, Slot *s, int fd):
        """Give the slot to its worker; from here on only the worker may touch what is the worker's."""
        cdef uint64_t connection = load_relaxed64(&s.generation) << 32 | <uint64_t>(s - self.state.slots)
        cdef epoll_event event
        event.events = <uint32_t>EPOLLIN | <uint32_t>EPOLLOUT | <uint32_t>EPOLLRDHUP | <uint32_t>EPOLLET
        event.data.u64 = connection
        s.fd = fd
        if epoll_ctl(self.state.workers[s.owner].ep, EPOLL_CTL_ADD, fd, &event) != 0:
            error = errno
            s.fd = -1
            blocks_give(&self.state.pool, s.spill)
            s.spill = NULL
            self.give_slot(s)
            raise OSError(error, os.strerror(error))
        return connection

    def adopt(self, int fd, *, int network=0, bint extended=False, bint client=False,
              bytes preamble=b"", bytes tail=b""):
        cdef Slot *s
        cdef uint64_t seed = 0
        cdef int kind = 0
        cdef int one = 1
        cdef int lowat = NOTSENT_LOWAT
        cdef int timeout = USER_TIMEOUT_MS
        cdef socklen_t n = sizeof(int)
        self.alive()
        if len(tail) > RECEIVE_BYTES:
            raise ValueError(f"a tail has at most {RECEIVE_BYTES} bytes, not {len(tail)}")
        if getsockopt(fd, SOL_SOCKET, SO_TYPE, &kind, &n) != 0:
            raise OSError(errno, os.strerror(errno))
        if kind != SOCK_STREAM:
            raise OSError(EPROTOTYPE, "not a stream socket")
        if getrandom(&seed, sizeof(seed), 0) != sizeof(seed):
            raise OSError(errno, os.strerror(errno))
        set_nonblocking(fd)
        # None of these is there on a socketpair (TLS); the pump sets them on the outer socket.
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
        setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof(lowat))
        setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout))
        s = self.take_slot(network)
        store_relaxed64(&s.kind, SLOT_CLIENT if client else SLOT_SERVER)
        store_relaxed64(&s.extended, extended)
        store_relaxed64(&s.mask_seed, seed)
        try:
            if tail:
                s.spill = block_of(&self.state.pool, tail, <uint32_t>len(tail), FOR_CERTAIN)
                if s.spill == NULL:
                    raise MemoryError
                s.fresh = True
                s.spill_size = 0
            # A fresh socket has room for a few hundred bytes; one that hasn't is not worth having. MSG_EOR: the first
            # frame to an old peer is not to share its segment.
            if preamble and send(fd, <const char *>preamble, len(preamble),
                                 MSG_DONTWAIT | MSG_NOSIGNAL | MSG_EOR) != len(preamble):
                raise OSError(errno, "the upgrade response can't be written")
        except BaseException:
            blocks_give(&self.state.pool, s.spill)
            s.spill = NULL
            self.give_slot(s)
            raise
        return self.publish(s, fd)

    def adopt_tun(self, int fd, *, int network=0, bint vnet=False):
        cdef Slot *s
        cdef int own
        self.alive()
        own = fcntl(fd, F_DUPFD_CLOEXEC, 3)
        if own < 0:
            raise OSError(errno, os.strerror(errno))
        try:
            set_nonblocking(own)
            s = self.take_slot(network)
            store_relaxed64(&s.kind, SLOT_TUN)
            s.vnet = vnet
            return self.publish(s, own)
        except BaseException:
            close_fd(own)
            raise

    def join(self, connection, tun):
        cdef Slot *s = self.find(connection)
        cdef Slot *t = self.find(tun)
        if s == NULL or t == NULL or s.kind == SLOT_TUN or t.kind != SLOT_TUN:
            return False
        store_release64(&s.next_hop, tun)
        store_release64(&t.next_hop, connection)
        return True

    def bind(self, connection, uint32_t ip):
        cdef Slot *s = self.find(connection)
        cdef Slot *holder
        cdef Network *network
        cdef uint64_t before
        if s == NULL or ip == 0 or s.kind == SLOT_CLIENT:
            return False
        network = self.state.networks[s.network]
        before = route_find(network, ip)
        if before != 0:
            holder = self.find(before)
            if holder != NULL and holder != s:
                self.release_address(holder)
        if load_relaxed64(&s.address) != ip:
            self.release_address(s)
        if not route_set(network, ip, connection):
            raise MemoryError
        if s.member_index == NO_INDEX and not member_add(network, self.state, connection):
            raise MemoryError
        store_release64(&s.address, ip)
        return True

    def unbind(self, connection):
        cdef Slot *s = self.find(connection)
        if s == NULL:
            return False
        self.release_address(s)
        return True

    cdef void release_address(self, Slot *s) noexcept:
        """Take a slot's address out of the route table, if it is still the one there, and out of the broadcasts."""
        cdef Network *network = self.state.networks[s.network]
        cdef uint32_t ip = <uint32_t>load_relaxed64(&s.address)
        cdef uint32_t index = <uint32_t>(s - self.state.slots)
        store_release64(&s.address, 0)
        if ip != 0 and <uint32_t>route_find(network, ip) == index:
            route_set(network, ip, 0)
        member_remove(network, self.state, s)

    def allow_sources(self, connection, lans):
        cdef Slot *s = self.find(connection)
        cdef Network *network
        cdef uint32_t *fresh
        cdef uint32_t n = 0
        if s == NULL:
            return False
        fresh = <uint32_t *>calloc(2 * len(lans) + 1, sizeof(uint32_t))
        if fresh == NULL:
            raise MemoryError
        try:
            for address, mask in lans:
                fresh[2 * n] = <uint32_t>address & <uint32_t>mask
                fresh[2 * n + 1] = mask
                n += 1
        except BaseException:
            free(fresh)
            raise
        network = self.state.networks[s.network]
        pthread_mutex_lock(&network.lock)
        s.lans, fresh = fresh, s.lans
        s.lan_count = n
        pthread_mutex_unlock(&network.lock)
        free(fresh)
        return True

    def set_routes(self, tun, uint32_t address, routes):
        cdef Slot *s = self.find(tun)
        cdef Network *network
        cdef Route *fresh
        cdef uint32_t n = 0
        if s == NULL or s.kind != SLOT_TUN:
            return False
        fresh = <Route *>calloc(len(routes) + 1, sizeof(Route))
        if fresh == NULL:
            raise MemoryError
        try:
            for destination, mask, hop in routes:
                fresh[n].destination = <uint32_t>destination & <uint32_t>mask
                fresh[n].mask = mask
                fresh[n].next_hop = hop
                n += 1
        except BaseException:
            free(fresh)
            raise
        network = self.state.networks[s.network]
        pthread_mutex_lock(&network.lock)
        s.routes, fresh = fresh, s.routes
        store_relaxed64(&s.route_count, n)
        pthread_mutex_unlock(&network.lock)
        store_relaxed64(&s.own, address)
        free(fresh)
        return True

    def send(self, connection, bytes message not None):
        if len(message) > WIRE_PAYLOAD_LEGACY:
            raise ValueError(f"a message has at most {WIRE_PAYLOAD_LEGACY} bytes, not {len(message)}")
        return self.post(connection, OP_BINARY, message)

    def ping(self, connection, bytes payload not None=b""):
        if len(payload) > 125:
            raise ValueError(f"a ping has at most 125 bytes, not {len(payload)}")
        return self.post(connection, OP_PING, payload)

    cdef bint post(self, connection, uint8_t opcode, bytes payload):
        cdef Slot *s = self.find(connection)
        if s == NULL or s.kind == SLOT_TUN:
            return False
        return post_message(self.own(), connection, opcode,
                            <const uint8_t *><const char *>payload, <uint32_t>len(payload))

    def close(self, connection, code=None, str reason=""):
        cdef Slot *s = self.find(connection)
        cdef bytes body
        if s == NULL or s.kind == SLOT_TUN:
            return False
        if code is not None:
            body = int(code).to_bytes(2, "big") + reason.encode()[:123].decode(errors="ignore").encode()
            post_close(self.own(), s, <const uint8_t *><const char *>body, <uint32_t>len(body))
        if not command(self.own(), s, connection, ABORT if code is None else END):
            raise MemoryError
        return True

    def events(self):
        cdef Outbox *o
        cdef uint8_t *data
        cdef size_t used
        cdef size_t at = 0
        cdef uint64_t connection
        cdef uint32_t kind, length, i, ended
        cdef uint64_t turn
        cdef Slot *s
        found = []
        if self.state == NULL:
            return found
        o = &self.state.outbox
        read_fd(o.signal, &turn, 8)
        pthread_mutex_lock(&o.lock)
        data = o.bytes
        used = o.used
        o.bytes = NULL
        o.used = 0
        o.room = 0
        o.signalled = False
        ended = o.closed_count
        over = [(o.closed[i], o.closed_cause[i]) for i in range(ended)]
        o.closed_count = 0
        pthread_mutex_unlock(&o.lock)
        while at < used:
            memcpy(&connection, data + at, 8)
            memcpy(&kind, data + at + 8, 4)
            memcpy(&length, data + at + 12, 4)
            found.append((connection, kind, (<const char *>data)[at + 16:at + 16 + length]))
            s = &self.state.slots[<uint32_t>connection]
            add_relaxed64(&s.pending, <uint64_t>-1)
            at += 16 + length
        free(data)
        for number, cause in over:
            connection = number
            s = &self.state.slots[<uint32_t>connection]
            self.release_address(s)
            self.give_slot(s)
            found.append((number, EV_CLOSED, CAUSES[cause - 1].encode()))
        return found

    def received_ns(self, connection):
        cdef Slot *s = self.find(connection)
        return None if s == NULL else load_relaxed64(&s.received_ns)

    def stats(self):
        cdef EngineState *e = self.alive()
        cdef Counters *c
        cdef uint32_t i
        total = dict.fromkeys(("packets_in", "bytes_in", "packets_out", "bytes_out", "receives", "sends", "copies"), 0)
        for i in range(e.worker_count + 1):
            c = &e.workers[i].counters
            total["packets_in"] += load_relaxed64(&c.packets_in)
            total["bytes_in"] += load_relaxed64(&c.bytes_in)
            total["packets_out"] += load_relaxed64(&c.packets_out)
            total["bytes_out"] += load_relaxed64(&c.bytes_out)
            total["receives"] += load_relaxed64(&c.receives)
            total["sends"] += load_relaxed64(&c.sends)
            total["copies"] += load_relaxed64(&c.copies)
        total["connections"] = e.open_slots
        total["queued_bytes"] = load_relaxed64(&e.pool.used_bytes)
        return total

    def drops(self):
        cdef EngineState *e = self.alive()
        cdef uint32_t i
        cdef int reason
        return {
            name: sum([load_relaxed64(&e.workers[i].counters.drops[reason]) for i in range(e.worker_count + 1)])
            for reason, name in enumerate(DROPS)
        }

    def connection_stats(self, connection):
        cdef int reason
        cdef Slot *s = self.find(connection)
        cdef uint64_t oldest = 0
        cdef uint64_t now
        if s == NULL:
            return None
        # Nobody waits for this lock: who finds it taken leaves its packets in the inbox.
        pthread_mutex_lock(&s.send_lock)
        if s.queue != NULL:
            oldest = queue_oldest(s.queue)
        pthread_mutex_unlock(&s.send_lock)
        settle(self.own(), s)
        now = now_ns()
        return {
            "queue_age_ns": since(now, oldest) if oldest else 0,
            "packets_in": load_relaxed64(&s.traffic.packets_in),
            "bytes_in": load_relaxed64(&s.traffic.bytes_in),
            "packets_out": load_relaxed64(&s.traffic.packets_out),
            "bytes_out": load_relaxed64(&s.traffic.bytes_out),
            "sends": load_relaxed64(&s.traffic.sends),
            "drops": sum([load_relaxed64(&s.drops[reason]) for reason in range(DROPS_COUNT)]),
            "queued_bytes": load_relaxed64(&s.queued_bytes) + load_relaxed64(&s.inbox_bytes),
        }

    def connection_drops(self, connection):
        cdef Slot *s = self.find(connection)
        cdef int reason
        if s == NULL:
            return None
        return {name: load_relaxed64(&s.drops[reason]) for reason, name in enumerate(DROPS)}

    def worker_cpu_ns(self):
        cdef EngineState *e = self.alive()
        cdef clockid_t clock
        cdef timespec t
        cdef uint32_t i
        used = []
        for i in range(e.worker_count):
            if pthread_getcpuclockid(e.workers[i].thread, &clock) != 0 or clock_gettime(clock, &t) != 0:
                raise OSError(errno, os.strerror(errno))
            used.append(t.tv_sec * _SECOND_NS + t.tv_nsec)
        return used


cdef set_nonblocking(int fd):
    cdef int flags = fcntl(fd, F_GETFL)
    if flags < 0 or fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0:
        raise OSError(errno, os.strerror(errno))
