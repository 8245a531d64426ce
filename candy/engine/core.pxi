# What an engine is made of: its memory, its threads, and its slots, which are handed out and taken back here. Runs on
# one Python thread.

import atexit
import os
from weakref import WeakSet


cdef void state_free(EngineState *e) noexcept nogil:
    """Free everything that workers used; none runs any more."""
    cdef uint32_t i
    cdef Slot *s
    cdef Worker *w
    for i in range(e.high_slot):
        s = &e.slots[i]
        w = &e.workers[e.worker_count]
        if s.fd >= 0:
            if s.tls != NULL:
                tls_farewell(s)
            close_fd(s.fd)
        queue_free(w, s)
        records_free(w, s.inbox_head, e.flow_key)
        block_give(w, s.spill)
        block_give(w, s.fragments)
        fanout_end(w, s)
        tls_free(w, s)
        link_end(s)
        free(s.routes)
        free(s.trunk)
        pthread_mutex_destroy(&s.send_lock)
        pthread_mutex_destroy(&s.inbox_lock)
    for i in range(e.network_count):
        if e.networks[i] != NULL:
            rooms_free(&e.workers[e.worker_count], e.networks[i].seals)
    if e.slots != NULL:
        munmap(e.slots, e.max_slots * sizeof(Slot))
    for i in range(CAPTURES_MAX):
        free(e.captures[i])
    for i in range(e.worker_count + 2 if e.workers != NULL else 0):
        w = &e.workers[i]
        spare_free(w)
        if w.ep >= 0:
            close_fd(w.ep)
        if w.wake >= 0:
            close_fd(w.wake)
        free(w.buffer)
        free(w.cipher)
        free(w.sealed)
        free(w.stage)
        free(w.commit)
        free(w.secured)
        free(w.arena)
        free(w.merge)
        free(w.links)
        free(w.scratch)
        free(w.watched.copy.bytes)
        free(w.copy.bytes)
        free(w.runs)
        free(w.targets)
        free(w.target_of)
        free(w.iov)
        free(w.messages)
        free(w.slots)
        free(w.modest.connections)
        free(w.greedy.connections)
        free(w.departed)
        free(w.waiting)
        free(w.closing)
        free(w.requests)
        free(w.taken)
        pthread_mutex_destroy(&w.request_lock)
    free(e.workers)
    for i in range(e.network_count):
        if e.networks[i] != NULL:
            groups_free(e.networks[i].seals)
            seals_free(e.networks[i].seals)
            network_free(e.networks[i])
    tables_free_all(e)
    if e.outbox.signal >= 0:
        close_fd(e.outbox.signal)
    free(e.outbox.bytes)
    free(e.outbox.closed)
    free(e.outbox.closed_cause)
    free(e.outbox.closed_spare)
    free(e.outbox.closed_cause_spare)
    pthread_mutex_destroy(&e.outbox.lock)
    free(e)


cdef bint worker_make(Worker *w, EngineState *e, uint32_t index) noexcept nogil:
    """Give a worker its memory and descriptors; False when the machine refuses."""
    cdef epoll_event event
    w.engine = e
    w.index = index
    w.tick_ns = TICK_NS
    w.ep = epoll_create1(EPOLL_CLOEXEC)
    w.wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    w.iov = <iovec *>calloc(IOV_MAX_SEND, sizeof(iovec))
    w.messages = <mmsghdr *>calloc(MESSAGES_MAX, sizeof(mmsghdr))
    w.scratch = <uint8_t *>malloc(2 * WIRE_PAYLOAD_CANDY3 + UNSEALED_ROOM)
    # Resident as far as packets are captured.
    w.watched.copy.bytes = <uint8_t *>malloc(COPY_ROOM)
    w.copy.bytes = <uint8_t *>malloc(COPY_ROOM)
    if (w.ep < 0 or w.wake < 0 or w.iov == NULL or w.messages == NULL or w.scratch == NULL
            or w.watched.copy.bytes == NULL or w.copy.bytes == NULL):
        return False
    if index == e.worker_count:                 # Python's own: it sends, but receives nothing
        return True
    w.buffer = <uint8_t *>malloc(RECEIVE_BYTES + FRAME_HEADER_MAX)
    w.cipher = <uint8_t *>malloc(RECORD_ROOM + CIPHER_BYTES)
    w.sealed = <uint8_t *>malloc(SEALED_ROOM)
    w.stage = <uint8_t *>malloc(RECORD_MAX)
    w.commit = <Block *>malloc(sizeof(Block) + COMMIT_MAX + WIRE_PAYLOAD_CANDY3 + FRAME_HEADER_MAX)
    w.arena = <uint8_t *>malloc(ARENA_CHUNKS * ARENA_CHUNK)
    w.merge = <Merge *>calloc(1, sizeof(Merge))
    w.runs = <Run *>calloc(RUNS_MAX, sizeof(Run))
    w.targets = <Target *>calloc(TARGETS_MAX, sizeof(Target))
    w.target_of = <uint32_t *>calloc(e.max_slots, sizeof(uint32_t))
    w.slots = <uint32_t *>calloc(e.max_slots, sizeof(uint32_t))
    w.modest.connections = <uint64_t *>calloc(e.max_slots * 3, sizeof(uint64_t))
    w.greedy.connections = <uint64_t *>calloc(e.max_slots * 3, sizeof(uint64_t))
    w.departed = <uint32_t *>calloc(e.max_slots, sizeof(uint32_t))
    w.secured = <uint32_t *>calloc(e.max_slots, sizeof(uint32_t))
    w.waiting = <Wait *>calloc(e.max_slots * 4, sizeof(Wait))
    w.closing = <uint32_t *>calloc(e.max_slots, sizeof(uint32_t))
    w.requests = <uint64_t *>calloc(e.max_slots * 2, sizeof(uint64_t))
    w.taken = <uint64_t *>calloc(e.max_slots * 2, sizeof(uint64_t))
    if (w.buffer == NULL or w.cipher == NULL or w.sealed == NULL or w.stage == NULL or w.commit == NULL
            or w.secured == NULL or w.arena == NULL or w.merge == NULL or w.runs == NULL or w.targets == NULL
            or w.target_of == NULL or w.slots == NULL
            or w.modest.connections == NULL or w.greedy.connections == NULL or w.departed == NULL or w.waiting == NULL
            or w.closing == NULL or w.requests == NULL or w.taken == NULL):
        return False
    event.events = EPOLLIN
    event.data.u64 = WAKE
    return epoll_ctl(w.ep, EPOLL_CTL_ADD, w.wake, &event) == 0


cdef int worker_start(Worker *w) noexcept nogil:
    """Run a worker with all signals blocked: those are for Python's thread. 0, or an errno."""
    cdef sigset_t every
    cdef sigset_t before
    cdef int error
    sigfillset(&every)
    pthread_sigmask(SIG_SETMASK, &every, &before)
    error = pthread_create(&w.thread, NULL, worker_main, w)
    pthread_sigmask(SIG_SETMASK, &before, NULL)
    return error


cdef void slot_assign(Slot *s, uint32_t owner, bint secure) noexcept nogil:
    """Give a slot that is nobody's to a thread. Under the lock: another one may have it by a stale number."""
    pthread_mutex_lock(&s.send_lock)
    store_ordered64(&s.asked, 0)
    store_release32(&s.owner, owner)
    store_relaxed64(&s.secure, secure)
    pthread_mutex_unlock(&s.send_lock)


cdef set_patience(int fd, int milliseconds):
    """How long the kernel waits while what was sent is not acknowledged. There is no such thing on a socketpair."""
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &milliseconds, sizeof(milliseconds))


cdef set_nonblocking(int fd):
    cdef int flags = fcntl(fd, F_GETFL)
    if flags < 0 or fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0:
        raise OSError(errno, os.strerror(errno))


# Those that have run a thread of handshakes. OpenSSL takes down its tables when the process exits, behind Python's end.
_secure = WeakSet()


def _stop_secure():
    for engine in list(_secure):
        engine.stop()


atexit.register(_stop_secure)


cdef class _Core:
    """The engine without its Python face."""
    cdef object __weakref__
    cdef EngineState *state
    cdef uint32_t running           # workers, of those that carry packets
    cdef bint shaking               # and the thread of handshakes
    cdef uint32_t first_generation
    cdef dict reached               # by relay and network: its trunks for that, its place among the broadcasts

    def __cinit__(self, workers=1, *, queue_bytes=4194304, memory_bytes=268435456, max_connections=65536,
                  ping_after=15.0, dead_after=45.0, ping_when_quiet=False, broadcast_rate=20000,
                  tls_deadline=5.0, max_guests=0, first_generation=1):
        cdef EngineState *e
        cdef uint32_t i
        for name, value, least, most in (
            ("workers", workers, 1, 64),
            ("queue_bytes", queue_bytes, 1 << 17, 1 << 30),
            ("memory_bytes", memory_bytes, 1 << 20, 1 << 40),
            ("max_connections", max_connections, 1, 1 << 24),
            ("ping_after", ping_after, 0, PING_AFTER_MOST_S),
            ("dead_after", dead_after, 0, 86400),
            ("broadcast_rate", broadcast_rate, 0, 1 << 30),
            ("tls_deadline", tls_deadline, 0.01, 86400),
            ("max_guests", max_guests, 0, 1 << 24),
            ("first_generation", first_generation, 1, (1 << 32) - 1),
        ):
            if not least <= value <= most:
                raise ValueError(f"{name} must be from {least} to {most}, not {value}")
        self.running = 0
        self.shaking = False
        self.reached = {}
        self.state = e = <EngineState *>calloc(1, sizeof(EngineState))
        if e == NULL:
            raise MemoryError
        e.worker_count = workers
        e.max_connections = max_connections
        e.max_guests = max_guests
        e.max_slots = max_connections + max_guests + STUN_SLOTS
        e.free_slot = NO_INDEX
        e.queue_bytes = queue_bytes
        e.pool.limit_bytes = memory_bytes
        e.ping_after_ns = <uint64_t>(ping_after * SECOND_NS)
        e.dead_after_ns = <uint64_t>(dead_after * SECOND_NS)
        e.ping_when_quiet = ping_when_quiet
        e.broadcast_rate = broadcast_rate
        e.handshake_ns = <uint64_t>(tls_deadline * SECOND_NS)
        self.first_generation = first_generation
        pthread_mutex_init(&e.outbox.lock, NULL)
        e.outbox.signal = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        e.outbox.closed = <uint64_t *>calloc(e.max_slots, sizeof(uint64_t))
        e.outbox.closed_cause = <uint8_t *>calloc(e.max_slots, 1)
        e.outbox.closed_spare = <uint64_t *>calloc(e.max_slots, sizeof(uint64_t))
        e.outbox.closed_cause_spare = <uint8_t *>calloc(e.max_slots, 1)
        if getrandom(e.flow_key, sizeof(e.flow_key), 0) != sizeof(e.flow_key):
            raise OSError(errno, os.strerror(errno))
        e.workers = <Worker *>calloc(e.worker_count + 2, sizeof(Worker))
        if e.workers == NULL:
            e.worker_count = 0
            raise MemoryError
        for i in range(e.worker_count + 2):
            e.workers[i].ep = -1
            e.workers[i].wake = -1
            pthread_mutex_init(&e.workers[i].request_lock, NULL)
        e.slots = <Slot *>mmap(NULL, e.max_slots * sizeof(Slot), PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        if e.slots == MAP_FAILED:
            e.slots = NULL
            raise MemoryError
        if (e.outbox.signal < 0 or e.outbox.closed == NULL or e.outbox.closed_cause == NULL
                or e.outbox.closed_spare == NULL or e.outbox.closed_cause_spare == NULL):
            raise OSError(errno, os.strerror(errno))
        for i in range(e.worker_count + 2):
            if not worker_make(&e.workers[i], e, i):
                raise OSError(errno, os.strerror(errno))
        self.start()

    cdef start(self):
        """Run the workers."""
        cdef uint32_t i
        cdef int error
        for i in range(self.state.worker_count):
            error = worker_start(&self.state.workers[i])
            if error:
                self.finish()
                raise OSError(error, os.strerror(error))
            self.running += 1

    cdef Worker *handshakes(self) except NULL:
        """The thread of handshakes, which the first of them starts."""
        cdef EngineState *e = self.alive()
        cdef Worker *w = &e.workers[e.worker_count + 1]
        cdef int error
        if not self.shaking:
            w.tick_ns = HANDSHAKE_TICK_NS
            error = worker_start(w)
            if error:
                raise OSError(error, os.strerror(error))
            self.shaking = True
            _secure.add(self)
        return w

    def __dealloc__(self):
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
            if self.shaking:
                write_fd(e.workers[e.worker_count + 1].wake, &one, 8)
                pthread_join(e.workers[e.worker_count + 1].thread, NULL)
            for i in range(self.running):
                pthread_join(e.workers[i].thread, NULL)
            state_free(e)
        self.running = 0
        self.shaking = False

    cdef EngineState *alive(self) except NULL:
        if self.state == NULL:
            raise RuntimeError("the engine is stopped")
        return self.state

    cdef Worker *sender(self) noexcept:
        """Python's own worker: scratch memory, counters and a clock for sending."""
        cdef Worker *w = &self.state.workers[self.state.worker_count]
        w.now = now_ns()
        w.work = WORK_TURN
        return w

    cdef Slot *find(self, connection) noexcept:
        """The slot of a connection or device that is open and no guest, else NULL."""
        cdef Slot *s = self.find_any(connection)
        return s if s != NULL and not s.guest and s.kind <= SLOT_TUN else NULL

    cdef Slot *find_guest(self, connection) noexcept:
        """The slot of a guest, else NULL."""
        cdef Slot *s = self.find_any(connection)
        return s if s != NULL and s.guest and s.kind <= SLOT_TUN else NULL

    cdef Slot *find_any(self, connection) noexcept:
        """The slot of what is open, else NULL."""
        cdef uint64_t number
        cdef Slot *s
        if self.state == NULL or not isinstance(connection, int) or not 0 <= connection < 1 << 64:
            return NULL
        number = connection
        if <uint32_t>number >= self.state.high_slot:
            return NULL
        s = &self.state.slots[<uint32_t>number]
        return s if is_current(s, number) else NULL

    cdef Slot *find_ended(self, connection) noexcept:
        """The slot of a connection whose end was reported, until it is used again; else NULL."""
        cdef uint64_t number
        cdef Slot *s
        if self.state == NULL or not isinstance(connection, int) or not 0 < connection < 1 << 64:
            return NULL
        number = connection
        if <uint32_t>number >= self.state.high_slot:
            return NULL
        s = &self.state.slots[<uint32_t>number]
        return s if s.ended == number else NULL

    cdef Network *served(self, int network) except NULL:
        """The network with this number, which connections may join."""
        cdef EngineState *e = self.alive()
        if not 0 <= network < <int>e.network_count or e.networks[network] == NULL or e.networks[network].leaving:
            raise ValueError(f"no network {network}")
        return e.networks[network]

    cdef Slot *take_slot(self) except NULL:
        """A free slot, a guest's, its fields set as far as connections and devices share them."""
        cdef EngineState *e = self.alive()
        cdef Slot *s
        cdef uint32_t i
        if e.free_slot != NO_INDEX:
            s = &e.slots[e.free_slot]
            e.free_slot = s.next_free
        else:
            s = &e.slots[e.high_slot]
            e.high_slot += 1
            s.generation = self.first_generation
            s.fd = -1
            pthread_mutex_init(&s.send_lock, NULL)
            pthread_mutex_init(&s.inbox_lock, NULL)
        e.open_slots += 1
        e.guest_slots += 1
        s.guest = True
        s.ping_after_ns = e.ping_after_ns
        s.home = 0
        for i in range(1, e.worker_count):
            if e.workers[i].load < e.workers[s.home].load:
                s.home = i
        e.workers[s.home].load += 1
        s.tls = NULL
        s.link = NULL
        s.stun = NULL
        s.trunk = NULL
        slot_assign(s, s.home, False)
        store_relaxed64(&s.address, 0)
        store_relaxed64(&s.uplink, 0)
        store_relaxed64(&s.pending, 0)
        store_relaxed64(&s.closing, 0)
        store_relaxed64(&s.queued_bytes, 0)
        store_relaxed64(&s.stalled, 0)
        store_relaxed64(&s.extended, EXTENSION_NONE)
        store_relaxed64(&s.takes_sealed, 0)
        store_relaxed64(&s.circle, 0)
        store_relaxed64(&s.rests, 0)
        store_relaxed64(&s.down_pace, 0)
        store_relaxed64(&s.up_pace, 0)
        memset(&s.traffic, 0, sizeof(s.traffic))
        for i in range(<uint32_t>DROPS_COUNT):
            store_relaxed64(&s.drops[i], 0)
        s.state = STATE_OPEN
        s.cause = CAUSE_NONE
        s.released = s.hung_up = s.ready = s.greedy = s.readable = s.writable = s.held = s.fragmented = False
        s.broken = s.finished = s.waiting = s.short_of_room = False
        s.pinged_ns = s.deadline_ns = s.copies_stamp_ns = s.tells_stamp_ns = s.icmp_stamp_ns = 0
        s.tells_left = 0
        memset(&s.down, 0, sizeof(s.down))
        memset(&s.up, 0, sizeof(s.up))
        s.up_waits = False
        s.window = 0
        s.window_drops = 0
        s.begins.stamp_ns = s.answers.stamp_ns = s.controls.stamp_ns = 0
        memset(s.not_sealing, 0, sizeof(s.not_sealing))
        memset(s.commits, 0, sizeof(s.commits))
        s.greets = False
        s.ended = 0
        s.copies_left = s.copy_bytes_left = 0
        s.skip = 0
        s.read_most = READ_FIRST
        s.worker_index = s.member_index = NO_INDEX
        store_relaxed64(&s.received_ns, now_ns())
        store_relaxed64(&s.sent_ns, load_relaxed64(&s.received_ns))
        return s

    cdef check_room(self):
        """Raises OSError when there is no room for another connection in a network."""
        cdef EngineState *e = self.state
        if e.open_slots - e.guest_slots >= e.max_connections:
            raise OSError(ENFILE, f"all {e.max_connections} connections are taken")

    cdef join_network(self, Slot *s, uint32_t network):
        """It is a guest no more."""
        self.state.networks[network].connections += 1
        self.state.guest_slots -= 1
        s.network = network
        s.guest = False

    cdef void release_address(self, Slot *s) noexcept:
        """Take a slot's address out of the route table, if it is still the one there, and out of the broadcasts."""
        cdef Network *network = self.state.networks[s.network]
        cdef uint32_t ip = <uint32_t>load_relaxed64(&s.address)
        cdef uint32_t index = <uint32_t>(s - self.state.slots)
        store_release64(&s.address, 0)
        if ip != 0 and <uint32_t>route_find(network, ip) == index:
            route_set(network, ip, 0)
        member_remove(network, s.member_index)
        s.member_index = NO_INDEX

    cdef make_trunk(self, Slot *s):
        """It is a guest no more, and in no network."""
        self.state.guest_slots -= 1
        s.network = NO_NETWORK
        s.guest = False
        store_relaxed64(&s.kind, SLOT_TRUNK)
        store_relaxed64(&s.extended, EXTENSION_CANDY3)
        store_relaxed64(&s.takes_sealed, 1)

    cdef trunk_end(self, Slot *s):
        """Take a trunk out of its relay's, and leave its networks."""
        cdef EngineState *e = self.state
        cdef Trunk *trunk = s.trunk
        cdef Relay *relay
        cdef uint32_t i, network
        cdef uint64_t last
        cdef bint was_open = False
        if trunk == NULL:
            return
        relay = &e.relays[trunk.relay - RELAYS]
        for i in range(load_relaxed64(&relay.count)):
            if <uint32_t>load_relaxed64(&relay.trunks[i]) == <uint32_t>(s - e.slots):
                was_open = True
                last = load_relaxed64(&relay.count) - 1
                store_relaxed64(&relay.trunks[i], load_relaxed64(&relay.trunks[last]))
                store_release64(&relay.count, last)
                break
        for i in range(trunk.table.count):
            network = trunk_networks(trunk)[i]
            if was_open:
                self.leave_broadcasts(trunk.relay, network)
            network_left(e, network)
        table_replace(e, <Table **>&s.trunk, NULL)

    cdef enter_broadcasts(self, uint64_t relay, uint32_t network):
        """Have a network's packets for groups go to another relay as well, which has one more trunk for it."""
        trunks, place = self.reached.get((relay, network), (0, NO_INDEX))
        if trunks == 0:
            place = member_add(self.state.networks[network], relay)
            if place == <uint32_t>NO_INDEX:
                raise MemoryError
        self.reached[relay, network] = trunks + 1, place

    cdef leave_broadcasts(self, uint64_t relay, uint32_t network):
        trunks, place = self.reached.pop((relay, network))
        if trunks > 1:
            self.reached[relay, network] = trunks - 1, place
        else:
            member_remove(self.state.networks[network], place)

    cdef give_slot(self, Slot *s):
        cdef EngineState *e = self.state
        if s.capture != NULL:
            s.capture.over = True
            store_pointer(<void **>&s.capture, NULL)
        s.state = STATE_FREE
        s.next_free = e.free_slot
        e.free_slot = <uint32_t>(s - e.slots)
        e.open_slots -= 1
        e.workers[s.home].load -= 1
        if s.kind == SLOT_STUN:
            e.stun_slots -= 1
        if s.guest:
            e.guest_slots -= 1
        elif s.kind == SLOT_TRUNK:
            self.trunk_end(s)
        else:
            network_left(e, s.network)

    cdef discard(self, Slot *s):
        """Take a slot back that was never published."""
        block_give(self.sender(), s.spill)
        s.spill = NULL
        link_end(s)
        queue_free(self.sender(), s)
        tls_free(self.sender(), s)
        self.give_slot(s)

    cdef secure(self, Slot *s, TlsContext context, bint http):
        """Have TLS on a slot that was not published: its handshake comes first, and then perhaps HTTP."""
        cdef Worker *w = self.handshakes()
        cdef Tls *t = <Tls *>calloc(1, sizeof(Tls))
        if t == NULL:
            raise MemoryError
        if http:
            t.http = <Http *>calloc(1, sizeof(Http))
            if t.http == NULL:
                free(t)
                raise MemoryError
            t.http.given = t.http.plain = -1
        SSL_CTX_up_ref(context.context)
        t.context = context.context
        t.slot = s
        t.client = context.client
        t.shaking = True
        s.tls = t
        s.deadline_ns = now_ns() + self.state.handshake_ns
        if context.client:
            if not tls_make(s):
                raise MemoryError
            if context.name is not None:
                SSL_ctrl(t.ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, 0, <char *>context.name)
        slot_assign(s, w.index, True)

    cdef object publish(self, Slot *s, int fd):
        """Give the slot to its worker; from here on only the worker may touch its fields."""
        cdef uint64_t connection = load_relaxed64(&s.generation) << 32 | <uint64_t>(s - self.state.slots)
        s.fd = fd
        if not connection_watch(&self.state.workers[load_relaxed32(&s.owner)], s):
            error = errno
            s.fd = -1
            self.discard(s)
            raise OSError(error, os.strerror(error))
        return connection
