# Direct links, over bytes: datagrams of a session that go to its peer by UDP, without a relay.
#
#     | 18 | flags 1 | 0 2 | receiver's session 4 | counter 8 | ciphertext | tag 16 |
#
# The clear bytes are authenticated. Keys, counters and windows are a session's own for links (SessionLink). A path says
# by which link and to which address a peer's packets go; Python finds it and a worker follows it. It has no timer: a
# path that carries packets and is not heard of for a while asks (LINK_ASKS), and is quiet when nothing answers. Where
# one direction alone is lost, both ends notice: one hears nothing, the other nothing that says that it is heard.
# A stream that stalls sends ever more seldom, too seldom for asking: Python is told at its first retransmission, by
# EV_DOUBT, and probes.

cdef enum:
    LINK_CONTENT_MAX = 9000         # bytes within a datagram
    DOUBT_AFTER_NS = 150000000      # since it was heard of
    BOTH_WAYS_NS = 500000000        # since a packet came
    ASK_AFTER_NS = 250000000        # since it was heard of
    ASK_PAUSE_NS = 100000000        # between two of them
    ASKS_LEAST = 3                  # lost, of which one may be chance
    PATIENCE_NS = 650000000         # since the first that nothing answered
    ANSWER_PAUSE_NS = 20000000      # a peer that asks more often hears of the path all the same

cdef uint64_t ASKS_APART_NS = <uint64_t>3 * SECOND_NS   # longer than that, they are no row: nothing was sent meanwhile


cdef void link_end(Slot *s) noexcept nogil:
    """Give back what a link, or a STUN responder, has beside its slot."""
    free(s.link)
    free(s.stun)
    s.link = NULL
    s.stun = NULL


cdef void place_of(const uint8_t *name, uint8_t *place) noexcept nogil:
    """A sockaddr as Python is told it: family, 4 or 6, address, of IPv4 the first 4 bytes and zeros, and port."""
    cdef uint16_t family
    memcpy(&family, name, 2)
    memset(place, 0, 19)
    place[0] = 4 if family == AF_INET else 6
    if family == AF_INET:
        memcpy(place + 1, name + 4, 4)
    else:
        memcpy(place + 1, name + 8, 16)
    memcpy(place + 17, name + 2, 2)


cdef uint32_t name_of(uint16_t family, const uint8_t *address, uint16_t port, uint8_t *name) noexcept nogil:
    """Write the sockaddr of an address of this family; returns its size."""
    memset(name, 0, 28)
    memcpy(name, &family, 2)
    store_be16(name + 2, port)
    if family == AF_INET:
        memcpy(name + 4, address, 4)
        return 16
    memcpy(name + 8, address, 16)
    return 28


cdef inline bint link_may_send(Session *session, uint64_t now) noexcept nogil:
    return (session != NULL and now < session.sends_until_ns
            and load_relaxed64(&session.link.number) < COUNTER_MAX
            and load_relaxed64(&session.link.bytes_sent) + SEALED_MAX <= SEND_BYTES_MAX)


cdef bint link_seal(Session *session, uint8_t *datagram, uint8_t flags, uint32_t plain) noexcept nogil:
    """Seal what lies behind the room for a header, with the next counter, where it lies (link.sends.lock held). False:
    the session may send no more."""
    cdef SessionLink *link = &session.link
    cdef uint64_t number = load_relaxed64(&link.number)
    if not link.sends.ready or number >= COUNTER_MAX:
        return False
    store_relaxed64(&link.number, number + 1)           # whatever becomes of the datagram
    store_relaxed64(&link.bytes_sent, load_relaxed64(&link.bytes_sent) + plain)
    datagram[0] = KIND_SEALED
    datagram[1] = flags
    store_be16(datagram + 2, 0)
    store_be32(datagram + 4, session.remote)
    store_be64(datagram + LINK_HEADER - 8, number)
    return aead_seal(&link.sends, datagram, LINK_HEADER, datagram, datagram, LINK_MIN + plain, 0)


cdef int link_open(Seals *seals, Session *session, uint8_t *datagram, uint32_t n, uint64_t now) noexcept nogil:
    """Open a datagram of at least LINK_MIN bytes where it lies; the reason to drop it, -1 when it is open and its
    counter taken. What does not open may be an original client's, and where there are such it is as it came."""
    cdef SessionLink *link = &session.link
    cdef uint64_t number = load_be64(datagram + LINK_HEADER - 8)
    cdef int reason = -1
    pthread_mutex_lock(&link.opens.lock)
    if not link.opens.ready or now >= session.opens_until_ns:
        reason = DROP_LINK_NO_SESSION
    elif number >= COUNTER_MAX or not window_allows(&link.window, number):
        reason = DROP_LINK_REPLAYED
    elif link.failures >= FORGERIES_MAX:
        reason = DROP_LINK_BAD_SEAL
    elif not aead_open(&link.opens, datagram, LINK_HEADER, datagram, n, 0):
        link.failures += 1
        reason = DROP_LINK_BAD_SEAL
        if load_pointer(<void **>&seals.old_key) != NULL:
            # Both ciphers are key streams, and one that was put on twice is off.
            aead_open(&link.opens, datagram, LINK_HEADER, datagram, n, 0)
    else:
        window_take(&link.window, number, &seals.windows)
    pthread_mutex_unlock(&link.opens.lock)
    return reason


cdef void session_sent(Session *session, uint64_t now, bint packet) noexcept nogil:
    """Note that something was sent to a peer, as Engine.seen() tells it."""
    if packet:
        store_relaxed64(&session.packet_sent_ns, now)
        if load_relaxed64(&session.unanswered_ns) == 0:
            store_relaxed64(&session.unanswered_ns, now)
    store_relaxed64(&session.owes_ns, 0)


# A path.

cdef inline Path *path_of(SealPeer *peer) noexcept nogil:
    """The path to a peer, NULL none: also for no peer."""
    return <Path *>load_pointer(<void **>&peer.path) if peer != NULL else NULL


cdef void path_quiet(Worker *w, Seals *seals, Path *path) noexcept nogil:
    """Nothing goes by it any more. Python is told, once; where too many events wait for that, again with the next
    packet for it."""
    store_relaxed64(&path.quiet, 1)
    tell_once(w, seals, EV_QUIET, path.peer, &path.told)


cdef inline bint path_proven(const Path *path, uint8_t flags, const uint8_t *plain, uint32_t n,
                             uint64_t now) noexcept nogil:
    """Whether something authentic of the peer's is a sign that what goes by the path arrives. A probe is none: who
    sends it may hear nothing. Nor is what asks while we have just sent something: that did not arrive."""
    if n != 0 and plain[0] == LINK_PROBE:
        return False
    return flags & LINK_ASKS == 0 or since(now, load_relaxed64(&path.sent_ns)) > ASK_AFTER_NS


cdef inline void path_heard(Path *path, uint64_t now) noexcept nogil:
    store_relaxed64(&path.heard_ns, now)
    store_relaxed64(&path.asked_ns, 0)


cdef void path_doubt(Worker *w, Seals *seals, Path *path, uint64_t now) noexcept nogil:
    """Before a packet is sent: tell Python if the last one has no answer, although the peer was sending packets."""
    cdef uint8_t detail[4]
    cdef uint64_t heard = load_relaxed64(&path.heard_ns)
    if (since(now, heard) > DOUBT_AFTER_NS and load_relaxed64(&path.sent_ns) > heard
            and since(now, load_relaxed64(&path.packet_ns)) <= BOTH_WAYS_NS
            and since(now, load_relaxed64(&path.doubted_ns)) > ASKS_APART_NS):
        store_relaxed64(&path.doubted_ns, now)
        store_be32(detail, path.peer)
        tell_sealing(w, seals, EV_DOUBT, detail, sizeof(detail))


cdef int path_flags(Worker *w, Seals *seals, Path *path, uint64_t now) noexcept nogil:
    """The flags of the next datagram with a packet: whether it asks. -1: the path has been asked in vain, and is
    quiet."""
    cdef uint64_t asked = load_relaxed64(&path.asked_ns)
    cdef uint64_t before = load_relaxed64(&path.asks_ns)
    path_doubt(w, seals, path, now)
    if since(now, load_relaxed64(&path.heard_ns)) <= ASK_AFTER_NS or since(now, before) < ASK_PAUSE_NS:
        return 0
    if asked == 0 or since(now, before) > ASKS_APART_NS:
        store_relaxed64(&path.asked_ns, now)
        store_relaxed64(&path.asks, 0)
    elif since(now, asked) >= PATIENCE_NS and load_relaxed64(&path.asks) >= ASKS_LEAST:
        path_quiet(w, seals, path)
        return -1
    store_relaxed64(&path.asks, load_relaxed64(&path.asks) + 1)
    store_relaxed64(&path.asks_ns, now)
    return LINK_ASKS
