# The Python face: what _fastpath.pyi promises. Runs on one Python thread.

from operator import itemgetter

cdef enum:
    USER_TIMEOUT_MS = 45000
    MEMBER_FIGURES = 10             # in a row of members()

VERSION = "1"
MAX_PAYLOAD = WIRE_PAYLOAD_MAX
CANDY3_PAYLOAD = WIRE_PAYLOAD_CANDY3
LEGACY_PAYLOAD = WIRE_PAYLOAD_LEGACY
EVENT_MESSAGE = EV_MESSAGE
EVENT_PONG = EV_PONG
EVENT_CLOSED = EV_CLOSED
EVENT_CLOSING = EV_CLOSING
EVENT_LOST = EV_LOST
EVENT_PING = EV_PING
EVENT_TLS = EV_TLS
EVENT_HELLO = EV_HELLO
EVENT_SECURED = EV_SECURED
EVENT_CERTIFICATE = EV_CERTIFICATE
EVENT_CONTROL = EV_CONTROL
EVENT_WANTED = EV_WANTED
EVENT_CLEAR = EV_CLEAR
EVENT_UNKNOWN = EV_UNKNOWN
EVENT_CONFIRMED = EV_CONFIRMED
EVENT_NOTED = EV_NOTED
EVENT_GROUPED = EV_GROUPED
EVENT_LINK = EV_LINK
EVENT_STUN = EV_STUN
EVENT_QUIET = EV_QUIET
EVENT_OLD = EV_OLD
EVENT_MET = EV_MET
EVENT_DOUBT = EV_DOUBT
CANDY3 = EXTENSION_CANDY3
MEMBER_FORMAT = f"={MEMBER_FIGURES}Q"

# In the order of enum Cause, without its first.
CAUSES = ("local", "peer", "eof", "reset", "silent", "protocol_error", "too_large",
          "handshake_failed", "handshake_timeout", "tls_error", "truncated")

# In the order of enum Drop.
DROPS = (
    "not_authenticated",        # a packet before AUTH
    "spoofed_source",           # its source address is not its sender's
    "no_route",                 # no member has its destination
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
    "inner_source",             # wrapped, and not from who wrapped it, nor from behind it
    "inner_destination",        # wrapped, and not for who is to unwrap it, nor for what is behind it for its sender
    "not_sealing",              # sealed, and its destination takes no such
    "bad_handshake",            # of another length than its message has
    "handshake_limit",          # its sender used up its allowance of them
    "unexpected_kind",          # a message that two with candy.3 don't send each other
    "no_acquaintance",          # an endpoint, for who has another password, or where there are no direct links
    "unknown_kind",             # behind a mask that came with it, and nothing that comes so
    "no_session",               # it waited in vain for a session with its destination
    "unknown_session",          # sealed, and its session is not there, or is over
    "replayed",                 # sealed, and its counter came before or is too old
    "bad_seal",                 # it does not open
    "unknown_note",             # a note of another type than rekeying's
    "not_sealed",               # in the clear, from who seals
    "peer_not_sealing",         # for who does not seal, where nothing goes in the clear
    "key_refused",              # for who shows another key than the one pinned
    "group_not_sealed",         # for a group, in the clear, where nothing may be
    "no_secret",                # sealed for a group, and this member has no secret
    "link_unknown",             # a datagram at a link that is neither sealed nor an answer of STUN that is waited for
    "link_malformed",           # sealed, and its flags, or what is within, are not what they may be
    "link_no_session",          # sealed, and its session is not there, or is over
    "link_replayed",            # sealed, and its counter came before or is too old
    "link_bad_seal",            # it does not open
    "link_off",                 # sealed, and the network allows no direct links
    "link_limit",               # a probe, or something for Python, beyond what a session may
    "link_full",                # the link's socket is full
    "link_refused",             # the kernel sends nothing there
    "stun_malformed",           # at the STUN responder, and no request that it answers
    "stun_limit",               # a request beyond what a source, or all, may
    "no_relay_link",            # another relay has its destination, and no link leads there
    "relay_source",             # it came by a link whose relay does not have its source
    "moved",                    # it came by a link, and nobody here has its destination
)
if len(DROPS) != DROPS_COUNT:
    raise SystemError("DROPS and enum Drop differ")

DELAY_BOUNDS_S = tuple([DELAY_LEAST_NS * 2 ** i / SECOND_NS for i in range(DELAYS_COUNT - 1)])

choose_unmask()


cdef class Engine(_Capturing):
    """See _fastpath.pyi."""

    def stop(self):
        self.finish()

    def fileno(self):
        return self.alive().outbox.signal

    def add_network(self, broadcast=0xFFFFFFFF, *, bint forward_broadcast=True, bint check_source=True):
        cdef EngineState *e = self.alive()
        cdef uint32_t number = 0
        while number < e.network_count and e.networks[number] != NULL:
            number += 1
        if number == NETWORKS_MAX:
            raise ValueError(f"an engine has at most {NETWORKS_MAX} networks")
        e.networks[number] = network_make(broadcast)
        if e.networks[number] == NULL:
            raise MemoryError
        e.networks[number].forward_broadcast = forward_broadcast
        e.networks[number].check_source = check_source
        e.network_count = max(e.network_count, number + 1)
        return number

    def set_broadcast(self, int network, uint32_t broadcast):
        store_relaxed32(&self.served(network).broadcast, broadcast)

    def remove_network(self, int network):
        self.served(network).leaving = True
        network_end(self.state, network)

    def adopt(self, int fd, *, int network=0, int extended=0, bint client=False, bint trunk=False,
              bytes preamble=b"", bytes tail=b"", ping_after=None, dead_after=None, TlsContext tls=None):
        cdef Slot *s
        if not trunk:
            self.served(network)
        if len(tail) > RECEIVE_BYTES:
            raise ValueError(f"a tail has at most {RECEIVE_BYTES} bytes, not {len(tail)}")
        if tls is not None and tail:
            raise ValueError("with TLS nothing can have been read before")
        self.check_room(trunk)
        s = self.connection_slot(fd, client, tls)
        try:
            self.prepare(s, fd, extended, preamble, ping_after, dead_after)
            self.begin_frames(s, network, trunk)
            if tail:
                s.held = True
                s.spill = block_of(self.sender(), tail, <uint32_t>len(tail), FOR_CERTAIN)
                if s.spill == NULL:
                    raise MemoryError
            if tls is not None:
                self.secure(s, tls, False)
        except BaseException:
            self.discard(s)
            raise
        return self.publish(s, fd)

    def begin_tls(self, int fd, *, TlsContext tls not None, bint client=False, deadline=None):
        cdef Slot *s
        if self.alive().guest_slots - self.state.stun_slots >= self.state.max_guests:
            raise OSError(EUSERS, f"all {self.state.max_guests} guests are there")
        s = self.connection_slot(fd, client, tls)
        try:
            self.secure(s, tls, True)
        except BaseException:
            self.discard(s)
            raise
        if deadline is not None:
            s.deadline_ns = now_ns() + <uint64_t>(deadline * SECOND_NS)
        return self.publish(s, fd)

    def open_http(self, connection, int fd):
        cdef Slot *s = self.find_guest(connection)
        cdef bint found = False
        if s == NULL:
            return False
        set_nonblocking(fd)
        # A number that is current under the lock is that of a connection whose TLS is there.
        pthread_mutex_lock(&s.send_lock)
        if is_current(s, connection) and s.tls.http.given < 0:
            s.tls.http.given = fd
            found = True
        pthread_mutex_unlock(&s.send_lock)
        if found:
            ask(self.sender(), s, connection, OPEN)
        return found

    def pass_http(self, connection):
        cdef Slot *s = self.find_guest(connection)
        if s == NULL:
            return False
        ask(self.sender(), s, connection, PASS)
        return True

    def upgrade(self, connection, *, int network=0, int extended=0, bint trunk=False, bytes preamble=b"",
                ping_after=None, dead_after=None):
        cdef Slot *s = self.find_guest(connection)
        cdef bint found
        if not trunk:
            self.served(network)
        self.check_room(trunk)
        if s == NULL:
            return False
        pthread_mutex_lock(&s.send_lock)
        found = is_current(s, connection)
        try:
            if found:
                self.prepare(s, s.fd, extended, preamble, ping_after, dead_after)
        finally:
            pthread_mutex_unlock(&s.send_lock)
        if found:
            self.begin_frames(s, network, trunk)
            ask(self.sender(), s, connection, UPGRADE)
        return found

    cdef begin_frames(self, Slot *s, int network, bint trunk):
        """A guest becomes a network's, or a link to another relay."""
        if trunk:
            self.make_trunk(s)
        else:
            self.join_network(s, network)

    cdef Slot *connection_slot(self, int fd, bint client, TlsContext tls) except NULL:
        """A slot for this socket, which has the options of a connection."""
        cdef Slot *s
        cdef uint64_t key[2]
        cdef int kind = 0
        cdef int one = 1
        cdef int lowat = NOTSENT_LOWAT
        cdef int timeout = USER_TIMEOUT_MS
        cdef socklen_t n = sizeof(int)
        if tls is not None and tls.client != client:
            raise ValueError("a context for the other side")
        if getsockopt(fd, SOL_SOCKET, SO_TYPE, &kind, &n) != 0:
            raise OSError(errno, os.strerror(errno))
        if kind != SOCK_STREAM:
            raise OSError(EPROTOTYPE, "not a stream socket")
        if getrandom(key, sizeof(key), 0) != sizeof(key):
            raise OSError(errno, os.strerror(errno))
        set_nonblocking(fd)
        # None of these is there on a socketpair.
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
        setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof(lowat))
        setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout))
        s = self.take_slot()
        store_relaxed64(&s.kind, SLOT_CLIENT if client else SLOT_SERVER)
        store_relaxed64(&s.mask_key[0], key[0])
        store_relaxed64(&s.mask_key[1], key[1])
        return s

    cdef prepare(self, Slot *s, int fd, int extended, bytes preamble, ping_after, dead_after):
        """What the upgrade has brought."""
        cdef int timeout
        if not 0 <= extended <= <int>EXTENSION_CANDY3:
            raise ValueError(f"extended is 0, 1 or CANDY3, not {extended}")
        if ping_after is not None:
            if not 0 <= ping_after <= PING_AFTER_MOST_S:
                raise ValueError(f"ping_after must be from 0 to {PING_AFTER_MOST_S}, not {ping_after}")
            s.ping_after_ns = <uint64_t>(ping_after * SECOND_NS)
        if dead_after is not None:
            if not 0 <= dead_after <= DEAD_AFTER_MOST_S:
                raise ValueError(f"dead_after must be from 0 to {DEAD_AFTER_MOST_S}, not {dead_after}")
            s.dead_after_ns = <uint64_t>(dead_after * SECOND_NS)
            timeout = <int>(dead_after * 1000)
            setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout))
        if preamble and not self.begin_with(s, preamble):
            raise MemoryError
        store_relaxed64(&s.extended, <uint64_t>extended)
        store_relaxed64(&s.received_ns, now_ns())

    cdef bint begin_with(self, Slot *s, bytes preamble):
        """Have these bytes leave before everything else, by the worker: written here, they could not be taken back when
        the kernel then refuses to watch the connection. False: there is no memory for them."""
        cdef Queue *q = queue_of(self.sender(), s)
        if q == NULL or not commit_room(self.sender(), q, <uint32_t>len(preamble)):
            return False
        memcpy(block_bytes(q.committed), <const char *>preamble, len(preamble))
        q.committed.end = <uint32_t>len(preamble)
        q.cut = q.committed.end         # a message of its own: an old peer's first frame is not to share its segment
        return True

    def adopt_tun(self, int fd, *, int network=0, bint vnet=False):
        cdef Slot *s
        cdef int own
        self.served(network)
        self.check_room()
        own = fcntl(fd, F_DUPFD_CLOEXEC, 3)
        if own < 0:
            raise OSError(errno, os.strerror(errno))
        try:
            set_nonblocking(own)
            s = self.take_slot()
            self.join_network(s, network)
            store_relaxed64(&s.kind, SLOT_TUN)
            s.vnet = vnet
            return self.publish(s, own)
        except OSError:
            close_fd(own)
            raise

    def join(self, connection, tun):
        cdef Slot *s = self.find(connection)
        cdef Slot *t = self.find(tun)
        if s == NULL or t == NULL or s.kind >= SLOT_TRUNK or t.kind != SLOT_TUN:
            return False
        store_release64(&s.uplink, tun)
        store_release64(&t.uplink, connection)
        return True

    def bind(self, connection, uint32_t ip, *, bint takes_sealed=True, uint32_t circle=1):
        cdef Slot *s = self.find(connection)
        cdef Slot *holder
        cdef Network *network
        cdef uint64_t before
        if s == NULL or ip == 0 or s.kind == SLOT_CLIENT or s.kind == SLOT_TRUNK:
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
        if s.member_index == NO_INDEX:
            s.member_index = member_add(network, connection)
            if s.member_index == NO_INDEX:
                raise MemoryError
        if s.kind != SLOT_TUN:      # of a device set_sealing() says it
            store_relaxed64(&s.takes_sealed, takes_sealed and has_candy3(s))
        store_relaxed64(&s.circle, circle)
        store_release64(&s.address, ip)
        self.follow_limits(s)
        return True

    def set_limits(self, connection, *, uint64_t down=0, uint64_t up=0):
        cdef Slot *s = self.find(connection)
        if s == NULL or s.kind >= SLOT_TRUNK:
            return False
        if bucket_set(&s.down.bucket, down) | bucket_set(&s.up.bucket, up):
            self.follow_limits(s)
        return True

    def set_network_limits(self, int network, *, uint64_t down=0, uint64_t up=0):
        cdef Network *limited = self.served(network)
        cdef Slot *s
        cdef uint32_t i
        if not bucket_set(&limited.down, down) | bucket_set(&limited.up, up):
            return
        for i in range(self.state.high_slot):
            s = &self.state.slots[i]
            if load_relaxed64(&s.address) != 0 and s.network == <uint32_t>network:
                self.follow_limits(s)

    cdef void follow_limits(self, Slot *s) noexcept:
        """Have a member's worker go by its limits and its network's, if they are others than before. A device has
        none."""
        cdef Network *network = self.state.networks[s.network]
        cdef uint64_t down = limit_pace(&s.down, &network.down)
        cdef uint64_t up = limit_pace(&s.up, &network.up)
        if s.kind == SLOT_TUN or (down == load_relaxed64(&s.down_pace) and up == load_relaxed64(&s.up_pace)):
            return
        store_relaxed64(&s.down_pace, down)
        store_relaxed64(&s.up_pace, up)
        ask(self.sender(), s, slot_connection(self.sender(), s), PACE)

    def unbind(self, connection):
        cdef Slot *s = self.find(connection)
        if s == NULL or s.kind == SLOT_TRUNK:
            return False
        self.release_address(s)
        return True

    def set_rules(self, int network, rules):
        cdef Network *changed = self.served(network)
        table_replace(self.state, &changed.rules, rules_table(rules))

    def set_routes(self, tun, uint32_t address, routes):
        cdef Slot *s = self.find(tun)
        if s == NULL or s.kind != SLOT_TUN:
            return False
        table_replace(self.state, &s.routes, routes_table(routes))
        store_relaxed64(&s.own_address, address)
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
        return post_message(self.sender(), connection, opcode,
                            <const uint8_t *><const char *>payload, <uint32_t>len(payload))

    def close(self, connection, code=None, str reason=""):
        cdef Slot *s = self.find_any(connection)
        cdef bytes body
        if s == NULL or s.kind >= SLOT_TUN:
            return False
        if code is not None:
            body = int(code).to_bytes(2, "big") + reason.encode()[:123].decode(errors="ignore").encode()
            post_close(self.sender(), s, <const uint8_t *><const char *>body, <uint32_t>len(body))
        ask(self.sender(), s, connection, ABORT if code is None else END)
        return True

    def events(self):
        cdef Outbox *o
        cdef uint8_t *data
        cdef size_t used
        cdef size_t at = 0
        cdef uint64_t connection
        cdef uint32_t kind, length, i, ended
        cdef uint64_t turn, silence
        cdef Slot *s
        cdef Worker *w
        found = []
        if self.state == NULL:
            return found
        w = self.sender()
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
        o.closed, o.closed_spare = o.closed_spare, o.closed
        o.closed_cause, o.closed_cause_spare = o.closed_cause_spare, o.closed_cause
        o.closed_count = 0
        pthread_mutex_unlock(&o.lock)
        while at < used:
            memcpy(&connection, data + at, 8)
            memcpy(&kind, data + at + 8, 4)
            memcpy(&length, data + at + 12, 4)
            found.append((connection, kind, (<const char *>data)[at + 16:at + 16 + length]))
            s = &self.state.slots[<uint32_t>connection]
            add_relaxed64(&s.pending, <uint64_t>-1)
            if is_current(s, connection) and take_ordered64(&s.rests) != 0:
                ask(w, s, connection, LISTEN)
            at += 16 + length
        free(data)
        for i in range(ended):
            connection = o.closed_spare[i]
            s = &self.state.slots[<uint32_t>connection]
            silence = since(now_ns(), load_relaxed64(&s.received_ns)) // MILLISECOND_NS
            if not s.guest and s.kind != SLOT_TRUNK:
                self.release_address(s)
            self.give_slot(s)
            s.ended = connection
            found.append((connection, EV_CLOSED, f"{CAUSES[o.closed_cause_spare[i] - 1]} {silence}".encode()))
        return found

    def received_ns(self, connection):
        cdef Slot *s = self.find(connection)
        return None if s == NULL else load_relaxed64(&s.received_ns)

    def stats(self):
        cdef EngineState *e = self.alive()
        cdef Counters *c
        cdef uint32_t i
        total = dict.fromkeys(("packets_in", "bytes_in", "packets_out", "bytes_out", "receives", "sends", "copies",
                               "held_down", "held_up"), 0)
        for i in range(e.worker_count + 2):
            c = &e.workers[i].counters
            total["packets_in"] += load_relaxed64(&c.packets_in)
            total["bytes_in"] += load_relaxed64(&c.bytes_in)
            total["packets_out"] += load_relaxed64(&c.packets_out)
            total["bytes_out"] += load_relaxed64(&c.bytes_out)
            total["receives"] += load_relaxed64(&c.receives)
            total["sends"] += load_relaxed64(&c.sends)
            total["copies"] += load_relaxed64(&c.copies)
            total["held_down"] += load_relaxed64(&c.held_down)
            total["held_up"] += load_relaxed64(&c.held_up)
        total["connections"] = e.open_slots - e.guest_slots - e.trunk_slots
        total["guests"] = e.guest_slots - e.stun_slots
        total["queued_bytes"] = load_relaxed64(&e.pool.used_bytes)
        return total

    def drops(self):
        cdef EngineState *e = self.alive()
        cdef uint32_t i
        cdef int reason
        return {
            name: sum([load_relaxed64(&e.workers[i].counters.drops[reason]) for i in range(e.worker_count + 2)])
            for reason, name in enumerate(DROPS)
        }

    def connection_stats(self, connection):
        cdef int reason
        cdef Slot *s = self.find(connection)
        cdef uint64_t oldest = 0
        cdef uint64_t now
        if s == NULL:
            s = self.find_ended(connection)
        if s == NULL:
            return None
        # No worker waits for this lock: one that finds it taken leaves its packets in the inbox.
        pthread_mutex_lock(&s.send_lock)
        if s.queue != NULL:
            oldest = queue_oldest(s.queue)
        pthread_mutex_unlock(&s.send_lock)
        settle(self.sender(), s)
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
            "held_down": held_lately(&s.down, now),
            "held_up": held_lately(&s.up, now),
        }

    def members(self):
        cdef EngineState *e = self.alive()
        cdef Slot *s
        cdef uint64_t queued, dropped
        cdef uint64_t now = now_ns()
        cdef uint32_t i, reason
        cdef size_t used = 0
        cdef uint64_t *found = <uint64_t *>malloc((e.high_slot + 1) * MEMBER_FIGURES * sizeof(uint64_t))
        cdef uint64_t *row
        if found == NULL:
            raise MemoryError()
        for i in range(e.high_slot):
            s = &e.slots[i]
            if load_relaxed64(&s.address) == 0:
                continue
            queued = load_relaxed64(&s.queued_bytes) + load_relaxed64(&s.inbox_bytes)
            dropped = 0
            for reason in range(DROPS_COUNT):
                dropped += load_relaxed64(&s.drops[reason])
            row = found + used
            row[0] = load_relaxed64(&s.generation) << 32 | i
            row[1] = load_relaxed64(&s.traffic.packets_in)
            row[2] = load_relaxed64(&s.traffic.bytes_in)
            row[3] = load_relaxed64(&s.traffic.packets_out)
            row[4] = load_relaxed64(&s.traffic.bytes_out)
            row[5] = dropped
            row[6] = queued
            row[7] = load_relaxed64(&s.waited_ns) + since(now, load_relaxed64(&s.moved_ns)) if queued else 0
            row[8] = held_lately(&s.down, now)
            row[9] = held_lately(&s.up, now)
            used += MEMBER_FIGURES
        try:
            return (<const char *>found)[:used * sizeof(uint64_t)]
        finally:
            free(found)

    def round_trip_us(self, connection):
        cdef Slot *s = self.find(connection)
        cdef tcp_info info
        cdef socklen_t n = sizeof(info)
        cdef bint known
        if s == NULL:
            return None
        memset(&info, 0, sizeof(info))
        # Its worker closes the descriptor under this lock, so it is the connection's; as in connection_stats().
        pthread_mutex_lock(&s.send_lock)
        known = is_current(s, connection) and getsockopt(s.fd, IPPROTO_TCP, TCP_INFO, &info, &n) == 0
        pthread_mutex_unlock(&s.send_lock)
        settle(self.sender(), s)
        return info.tcpi_rtt if known and info.tcpi_rtt else None

    def delays(self):
        cdef EngineState *e = self.alive()
        cdef uint32_t i, bound
        counted = [
            sum([load_relaxed64(&e.workers[i].counters.delays[bound]) for i in range(e.worker_count + 1)])
            for bound in range(DELAYS_COUNT)
        ]
        return counted, sum([load_relaxed64(&e.workers[i].counters.delay_ns) for i in range(e.worker_count + 1)])

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
            used.append(t.tv_sec * SECOND_NS + t.tv_nsec)
        return used

    def worker_rounds(self):
        cdef EngineState *e = self.alive()
        cdef uint32_t i
        rounds = [load_relaxed64(&e.workers[i].rounds) for i in range(e.worker_count)]
        if self.shaking:
            rounds.append(load_relaxed64(&e.workers[e.worker_count + 1].rounds))
        return rounds


cdef bint bucket_set(Bucket *b, uint64_t rate) noexcept:
    """Give a bucket this rate; whether it had another one. Then nothing is owed."""
    if load_relaxed64(&b.rate) == rate:
        return False
    store_relaxed64(&b.rate, rate)
    store_relaxed64(&b.paid_ns, 0)
    return True


cdef uint64_t held_lately(Limit *l, uint64_t now) noexcept:
    """1: within the last second something had to wait for this limit."""
    cdef uint64_t held = load_relaxed64(&l.held_ns)
    return held != 0 and since(now, held) < SECOND_NS


cdef Table *rules_table(rules) except? NULL:
    """The table for Engine.set_rules(), NULL for none."""
    cdef Table *table
    cdef Rule *rule
    if not rules:
        return NULL
    table = table_make(len(rules), sizeof(Rule))
    if table == NULL:
        raise MemoryError
    rule = <Rule *>(table + 1)
    try:
        for destination, mask, next_hop, device, device_mask in sorted(rules, key=itemgetter(2)):
            rule.next_hop = next_hop
            rule.destination = <uint32_t>destination & <uint32_t>mask
            rule.mask = mask
            rule.device = <uint32_t>device & <uint32_t>device_mask
            rule.device_mask = device_mask
            rule += 1
    except BaseException:
        free(table)
        raise
    return table


cdef Table *routes_table(routes) except? NULL:
    """The table for Engine.set_routes(), NULL for none."""
    cdef Table *table
    cdef Route *route
    if not routes:
        return NULL
    table = table_make(len(routes), sizeof(Route))
    if table == NULL:
        raise MemoryError
    route = <Route *>(table + 1)
    try:
        for destination, mask, next_hop in routes:
            route.destination = <uint32_t>destination & <uint32_t>mask
            route.mask = mask
            route.next_hop = next_hop
            route += 1
    except BaseException:
        free(table)
        raise
    return table
