# Endpoints of the benchmarks, compiled like the engine that they measure. Nothing of the product uses them.
#
# All members of a measurement are in the calling thread: it sends what was framed beforehand, as fast as the window
# lets it, receives, and checks what arrives. One thread, because a relay and two endpoint threads on two cores would
# take each other's time. They know nothing of the relay between them.
#
# A packet: an IPv4 header whose addresses are MEMBER_BASE + the members' numbers, the sender's sequence number, and a
# body that follows from the sender and the number of the frame in the sender's buffer. A sealed one has the addresses
# and the number, as its counter, in the header that a relay sees, and the body where the ciphertext would be.


cdef enum:
    BENCH_MEMBER_BASE = 0x0A400001      # 10.64.0.1
    BENCH_SEQUENCE_AT = 21              # of the payload: kind, IPv4 header
    BENCH_BODY_AT = 25
    BENCH_COUNTER_AT = 20               # of a SEALED: the lower half of its counter, then the ciphertext
    BENCH_CIPHER_AT = 24
    BENCH_SEALED_MORE = 50              # bytes of a SEALED beside the packet: header, virtio header, tag
    BENCH_PACKET_MIN = 24
    BENCH_READ_BYTES = 262144
    BENCH_SEND_BYTES = 262144
    BENCH_COMPARE_EVERY = 64            # of the frames looked at, one is compared as a whole
    BENCH_TURN_NS = 20000               # least time from one look at the sockets to the next, see bench_run()
    BENCH_WRITE_OFF_NS = 100000000      # nothing moved for so long: what is outstanding is lost
    BENCH_END_NS = 1000000000           # the same at the end of a run

cdef struct BenchMember:
    int fd
    bint stalled                        # doesn't read
    uint8_t *frames                     # what it sends, over and over; NULL: nothing
    uint32_t frame_count
    size_t at                           # next byte of it to send
    uint64_t sent                       # bytes, in all
    uint64_t received                   # bytes, in all
    uint64_t written_off                # frames sent that are no longer expected anywhere
    uint32_t lap                        # times through its frames
    uint32_t destination_count
    uint32_t *destinations              # members that its frames go to in turn
    uint32_t senders                    # members that send to it

cdef struct BenchTally:
    uint64_t sent                       # packets to members that read
    uint64_t delivered
    uint64_t looked                     # delivered packets whose header, addresses and order were checked
    uint64_t compared                   # those of them that were compared byte for byte
    uint64_t reordered
    uint64_t misdelivered
    uint64_t corrupt
    uint64_t elapsed_ns                 # from the first packet sent to the last one delivered
    uint64_t idle_ns                    # of that, time in which this thread found nothing to do

cdef struct BenchState:
    BenchMember *members
    uint32_t count
    uint32_t size                       # of a packet
    uint32_t payload                    # of a frame, without a mask
    bint sealed
    # where a payload has them
    uint32_t source_at
    uint32_t destination_at
    uint32_t sequence_at
    uint32_t body_at
    uint32_t frame_in                   # bytes of a frame on its way to the relay
    uint32_t frame_out                  # and from it
    uint32_t header_out
    uint8_t first_out[4]                # how every frame from the relay begins
    bint masked_out                     # behind its mask
    bint passed                         # and that is the beginning of the payload
    bint addressed
    uint64_t window                     # frames of one sender on their way
    uint64_t look_every                 # of the reads, one is looked at, the others are only counted
    uint64_t reads
    uint32_t *expected                  # receiver × sender: least sequence number that may come next
    uint8_t *buffer
    uint8_t *scratch                    # two payloads
    uint8_t *pattern                    # of bodies
    BenchTally tally
    bint broken                         # a connection ended


cdef void bench_packet(BenchState *b, uint8_t *payload, uint32_t sender, uint32_t sequence) noexcept nogil:
    """Write a sender's FORWARD, or SEALED, with this sequence number."""
    cdef BenchMember *m = &b.members[sender]
    cdef uint8_t *ip = payload + 1
    cdef uint32_t index = sequence % m.frame_count
    cdef uint32_t total = 0
    cdef int i
    store_be32(payload + b.sequence_at, sequence)
    memcpy(payload + b.body_at, b.pattern + ((sender * 31 + index * 7) & 255), b.payload - b.body_at)
    if b.sealed:
        memset(payload, 0, BENCH_COUNTER_AT)
        payload[0] = KIND_SEALED
        store_be32(payload + b.source_at, BENCH_MEMBER_BASE + sender)
        store_be32(payload + b.destination_at, BENCH_MEMBER_BASE + m.destinations[sequence % m.destination_count])
        return
    payload[0] = KIND_FORWARD
    memset(ip, 0, 20)
    ip[0] = 0x45
    store_be16(ip + 2, <uint16_t>b.size)
    ip[8] = 64
    ip[9] = 253                         # "use for experimentation and testing" (RFC 3692)
    store_be32(ip + 12, BENCH_MEMBER_BASE + sender)
    store_be32(ip + 16, BENCH_MEMBER_BASE + m.destinations[sequence % m.destination_count])
    for i in range(10):
        total += load_be16(ip + 2 * i)
    total = (total >> 16) + (total & 0xFFFF)
    store_be16(ip + 10, <uint16_t>~(total + (total >> 16)))


cdef void bench_frames(BenchState *b, uint32_t sender) noexcept nogil:
    """Frame and mask the first lap of a sender's packets."""
    cdef BenchMember *m = &b.members[sender]
    cdef uint32_t i
    cdef uint32_t mask = <uint32_t>0x9E3779B9 * (sender + 1)
    for i in range(m.frame_count):
        mask = mask * 1664525 + 1013904223
        bench_packet(b, b.scratch, sender, i)
        # As candy.3 demands it: the first byte of a mask is no kind, but 128 to 254.
        build_frame(m.frames + i * <size_t>b.frame_in, OP_BINARY, b.scratch, b.payload, True,
                    mask & <uint32_t>0xFFFFFF00 | 128 + (mask >> 24) % 127 if b.passed else mask)


cdef void bench_stamp(BenchState *b, BenchMember *m) noexcept nogil:
    """Give the frames the sequence numbers of the next lap."""
    cdef uint32_t header = b.frame_in - b.payload
    cdef uint32_t i, mask
    cdef uint32_t sequence
    cdef uint8_t *p = m.frames
    m.lap += 1
    sequence = m.lap * m.frame_count
    for i in range(m.frame_count):
        mask = rotate_mask(load32(p + header - 4), b.sequence_at)
        store_be32(p + header + b.sequence_at, (sequence + i) ^ swap32(mask))
        p += b.frame_in


cdef uint64_t bench_live(BenchState *b, BenchMember *m, uint64_t frames) noexcept nogil:
    """How many of a sender's first frames went to members that read."""
    cdef uint64_t cycle = 0
    cdef uint64_t rest = 0
    cdef uint32_t i
    for i in range(m.destination_count):
        if not b.members[m.destinations[i]].stalled:
            cycle += 1
            rest += i < frames % m.destination_count
    return frames // m.destination_count * cycle + rest


cdef uint64_t bench_arrived(BenchState *b, BenchMember *m) noexcept nogil:
    """A sender's frames that arrived, or its share of them where several send to one member."""
    cdef uint64_t frames = m.written_off
    cdef BenchMember *to
    cdef uint32_t i
    for i in range(m.destination_count):
        to = &b.members[m.destinations[i]]
        if not to.stalled:
            frames += to.received // b.frame_out // to.senders
    return frames


cdef uint64_t bench_allowed(BenchState *b, BenchMember *m) noexcept nogil:
    """Frames that a sender may have sent by now, in all."""
    cdef uint64_t frames = m.sent // b.frame_in
    cdef uint64_t live = bench_live(b, m, frames)
    cdef uint64_t arrived = bench_arrived(b, m)
    cdef uint32_t i
    cdef BenchMember *other
    if bench_live(b, m, m.destination_count) == 0:
        # No member that it sends to reads: it keeps step with the first sender that is heard.
        for i in range(b.count):
            other = &b.members[i]
            if other.frames != NULL and bench_live(b, other, other.destination_count) != 0:
                return max(frames, other.sent // b.frame_in)
    if live > arrived + b.window:
        return frames
    return frames + arrived + b.window - live


cdef bint bench_send(BenchState *b, BenchMember *m, bint going) noexcept nogil:
    """Send what the window allows, or, not going, the rest of a begun frame. Whether anything went."""
    cdef uint64_t allowed
    cdef uint64_t lap = m.frame_count * <uint64_t>b.frame_in
    cdef uint64_t n
    cdef ssize_t r
    if going:
        allowed = bench_allowed(b, m) * b.frame_in
    else:
        allowed = (m.sent + b.frame_in - 1) // b.frame_in * b.frame_in
    if allowed <= m.sent:
        return False
    n = min(min(allowed - m.sent, lap - m.at), <uint64_t>BENCH_SEND_BYTES)
    r = send(m.fd, m.frames + m.at, n, MSG_DONTWAIT | MSG_NOSIGNAL)
    if r < 0:
        b.broken |= errno != EAGAIN and errno != EINTR
        return False
    m.sent += <uint64_t>r
    m.at += <size_t>r
    if m.at == lap:
        m.at = 0
        bench_stamp(b, m)
    return True


cdef bint bench_receive(BenchState *b, uint32_t receiver) noexcept nogil:
    """Read what a member has, count it, and look at the frames that are whole in it. Whether anything came."""
    cdef BenchMember *m = &b.members[receiver]
    cdef bint look = b.reads % b.look_every == 0
    cdef ssize_t n = recv(m.fd, b.buffer, BENCH_READ_BYTES, MSG_DONTWAIT | (0 if look else MSG_TRUNC))
    cdef size_t at
    if n <= 0:
        b.broken |= n == 0 or (errno != EAGAIN and errno != EINTR)
        return False
    b.reads += 1
    at = (b.frame_out - m.received % b.frame_out) % b.frame_out
    m.received += <uint64_t>n
    if look:
        while at + b.frame_out <= <size_t>n:
            bench_look(b, receiver, b.buffer + at)
            at += b.frame_out
    return True


cdef inline void bench_look(BenchState *b, uint32_t receiver, const uint8_t *p) noexcept nogil:
    """Check a frame: its header, its addresses, its place in the sender's order; and of some the whole content."""
    cdef const uint8_t *payload = p + b.header_out
    cdef uint32_t mask = load32(payload - 4) if b.masked_out else 0
    cdef uint32_t turned = rotate_mask(mask, b.source_at)       # the destination and the sequence rotate alike
    cdef uint32_t sender = swap32(load32(payload + b.source_at) ^ turned) - <uint32_t>BENCH_MEMBER_BASE
    cdef uint32_t to = swap32(load32(payload + b.destination_at) ^ turned) - <uint32_t>BENCH_MEMBER_BASE
    cdef uint32_t sequence = swap32(load32(payload + b.sequence_at) ^ turned)
    cdef uint32_t *expected
    b.tally.looked += 1
    if p[0] != b.first_out[0] or p[1] != b.first_out[1] or sender >= b.count or b.members[sender].frames == NULL:
        b.tally.corrupt += 1
        return
    if b.addressed and to != receiver:
        b.tally.misdelivered += 1
    expected = &b.expected[receiver * <size_t>b.count + sender]
    if <int32_t>(sequence - expected[0]) < 0:
        b.tally.reordered += 1
    else:
        expected[0] = sequence + 1
    if b.tally.looked % BENCH_COMPARE_EVERY == 0:
        b.tally.compared += 1
        bench_packet(b, b.scratch, sender, sequence)
        unmask(b.scratch + b.payload, payload, b.payload, mask)
        if (memcmp(p, b.first_out, b.header_out - (4 if b.masked_out else 0)) != 0
                or memcmp(b.scratch, b.scratch + b.payload, b.payload) != 0):
            b.tally.corrupt += 1


cdef uint64_t bench_sent(BenchState *b) noexcept nogil:
    """Frames on their way to members that read, in all."""
    cdef uint64_t frames = 0
    cdef uint32_t i
    for i in range(b.count):
        if b.members[i].frames != NULL:
            frames += bench_live(b, &b.members[i], b.members[i].sent // b.frame_in)
    return frames


cdef uint64_t bench_delivered(BenchState *b) noexcept nogil:
    cdef uint64_t frames = 0
    cdef uint32_t i
    for i in range(b.count):
        if not b.members[i].stalled:
            frames += b.members[i].received // b.frame_out
    return frames


cdef void bench_write_off(BenchState *b) noexcept nogil:
    """Expect nothing any more of what was sent."""
    cdef BenchMember *m
    cdef uint32_t i
    for i in range(b.count):
        m = &b.members[i]
        if m.frames != NULL:
            m.written_off += bench_live(b, m, m.sent // b.frame_in) - bench_arrived(b, m)


cdef bint bench_turn(BenchState *b, bint going) noexcept nogil:
    """One look at every socket; whether anything moved."""
    cdef bint moved = False
    cdef uint32_t i
    for i in range(b.count):
        if b.members[i].frames != NULL:
            moved |= bench_send(b, &b.members[i], going)
    for i in range(b.count):
        if b.members[i].senders and not b.members[i].stalled:
            moved |= bench_receive(b, i)
    return moved


cdef void bench_run(BenchState *b, uint64_t packets, uint64_t duration_ns) noexcept nogil:
    """Send for so long, or so many packets, and wait for what is on its way.

    It looks at the sockets no more often than a network card interrupts: read at once, each segment would be
    acknowledged by itself, and the relay would pay for that.
    """
    cdef uint64_t start, now, done, moved_ns, sent_before, delivered_before
    cdef bint going = True
    while bench_turn(b, False):         # what came too late for the run before
        pass
    bench_write_off(b)
    memset(&b.tally, 0, sizeof(b.tally))
    sent_before = bench_sent(b)
    delivered_before = bench_delivered(b)
    start = now_ns()
    moved_ns = start
    while not b.broken:
        now = now_ns()
        if going:
            going = now - start < duration_ns and (packets == 0 or bench_sent(b) - sent_before < packets)
        if bench_turn(b, going):
            moved_ns = now_ns()
        elif not going and bench_delivered(b) - delivered_before >= bench_sent(b) - sent_before:
            break
        elif now - moved_ns > (<uint64_t>BENCH_WRITE_OFF_NS if going else <uint64_t>BENCH_END_NS):
            if not going:
                break
            bench_write_off(b)
        done = now_ns()
        while now_ns() - now < BENCH_TURN_NS:
            pass
        b.tally.idle_ns += now_ns() - done
    b.tally.elapsed_ns = moved_ns - start
    b.tally.sent = bench_sent(b) - sent_before
    b.tally.delivered = bench_delivered(b) - delivered_before


cdef class Endpoints:
    """See _endpoints.pyi."""
    cdef BenchState state

    def __cinit__(self, list fds not None, list routes not None, uint32_t size, *, uint64_t window_bytes,
                  bint masked=False, bint passed=False, bint sealed=False, bint addressed=True,
                  uint64_t look_every=1, frozenset stalled=frozenset()):
        cdef BenchState *b = &self.state
        cdef BenchMember *m
        cdef uint32_t i, j
        if not BENCH_PACKET_MIN <= size <= 65535:
            raise ValueError(f"a packet has from {BENCH_PACKET_MIN} to 65535 bytes, not {size}")
        if len(fds) != len(routes) or not fds or look_every == 0:
            raise ValueError("one route for each member, and at least one member")
        memset(b, 0, sizeof(BenchState))
        b.count = len(fds)
        b.size = size
        b.payload = frame_payload(size, sealed)
        b.sealed = sealed
        b.source_at = SEALED_SOURCE_AT if sealed else SOURCE_AT
        b.destination_at = SEALED_DESTINATION_AT if sealed else DESTINATION_AT
        b.sequence_at = BENCH_COUNTER_AT if sealed else BENCH_SEQUENCE_AT
        b.body_at = BENCH_CIPHER_AT if sealed else BENCH_BODY_AT
        b.frame_in = header_size(b.payload, True) + b.payload
        b.header_out = header_size(b.payload, masked or passed)
        b.frame_out = b.header_out + b.payload
        b.masked_out = masked or passed
        b.passed = passed
        b.addressed = addressed
        b.window = max(<uint64_t>1, window_bytes // b.frame_in)
        b.look_every = look_every
        b.members = <BenchMember *>calloc(b.count, sizeof(BenchMember))
        b.expected = <uint32_t *>calloc(<size_t>b.count * b.count, 4)
        b.buffer = <uint8_t *>malloc(BENCH_READ_BYTES)
        b.scratch = <uint8_t *>malloc(2 * b.payload)
        b.pattern = <uint8_t *>malloc(b.payload + 256)
        if b.members == NULL or b.expected == NULL or b.buffer == NULL or b.scratch == NULL or b.pattern == NULL:
            raise MemoryError
        for i in range(b.payload + 256):
            b.pattern[i] = <uint8_t>((i * <uint32_t>2654435761) >> 13)
        write_header(b.scratch, OP_BINARY, b.payload + (MASK_BYTES if passed else 0), masked, 0)
        memcpy(b.first_out, b.scratch, 4)
        for i in range(b.count):
            b.members[i].fd = fds[i]
            b.members[i].stalled = i in stalled
            b.members[i].destination_count = len(routes[i])
        for i in range(b.count):
            m = &b.members[i]
            if m.destination_count == 0:
                continue
            m.destinations = <uint32_t *>calloc(m.destination_count, 4)
            # Whole rounds of the destinations, so that a lap ends where the next begins.
            m.frame_count = max(<uint32_t>1, <uint32_t>min(<uint64_t>BENCH_SEND_BYTES, window_bytes)
                                // b.frame_in // m.destination_count) * m.destination_count
            m.frames = <uint8_t *>malloc(m.frame_count * <size_t>b.frame_in)
            if m.destinations == NULL or m.frames == NULL:
                raise MemoryError
            for j in range(m.destination_count):
                m.destinations[j] = routes[i][j]
                if m.destinations[j] >= b.count:
                    raise ValueError(f"no member {m.destinations[j]}")
                b.members[m.destinations[j]].senders += 1
            bench_frames(b, i)

    def __dealloc__(self):
        cdef BenchState *b = &self.state
        cdef uint32_t i
        if b.members != NULL:
            for i in range(b.count):
                free(b.members[i].frames)
                free(b.members[i].destinations)
        free(b.members)
        free(b.expected)
        free(b.buffer)
        free(b.scratch)
        free(b.pattern)

    def run(self, *, uint64_t packets=0, double seconds=3600):
        cdef BenchState *b = &self.state
        with nogil:
            bench_run(b, packets, <uint64_t>(seconds * SECOND_NS))
        if b.broken:
            raise ConnectionError("the relay ended a connection")
        return b.tally


MEMBER_BASE = BENCH_MEMBER_BASE


cdef uint32_t frame_payload(uint32_t size, bint sealed) noexcept nogil:
    """Bytes of a frame's payload, with a packet of this size in it."""
    return size + (BENCH_SEALED_MORE if sealed else 1)


def masked_frame_size(uint32_t size, *, bint sealed=False):
    return header_size(frame_payload(size, sealed), True) + frame_payload(size, sealed)
