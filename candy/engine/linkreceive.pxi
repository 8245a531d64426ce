# From a link to its device: opened where it lies, checked as what comes by the relay is, put together, and written.
# Runs on the device's worker.
#
# 1. link_receive()    one turn: up to LINK_READS times 64 KB in one call, each cut by the kernel's word (UDP_GRO)
# 2. link_datagram()   one datagram: an answer of STUN that is waited for, a session's, an original client's, or nothing
# 3. link_content()    what it held: a packet, a probe or its answer, a note, nothing
#
# The socket's filter lets nothing else through but what looks like one of these. No datagram that did not open changes
# anything but a counter.

cdef enum:
    LINK_READS = 8
    LINK_READ_BYTES = 65536         # and LINK_READS of them fill a worker's buffer
    STUN_HEADER = 20
    STUN_COOKIE = 0x2112A442
    STUN_REQUEST = 0x0001
    STUN_SUCCESS = 0x0101
    STUN_TOLD = 512                 # bytes of the longest answer that Python is told
    PROBES_PER_S = 64              # to probes, of a session
    LINK_TELLS_PER_S = 32                # answers to ours that Python is told, likewise
    LINK_TELLS_SAVED = 64
    MOVES_PER_S = 4                 # and other addresses
    MOVES_SAVED = 8

# What was received in one, as the kernel has said: sending something meanwhile takes what it said that in.
cdef struct LinkRead:
    uint32_t whole
    uint32_t each                   # by which it is to be cut; 0: it was too long
    uint32_t name_size

# Where a datagram came from, and whose it was; those that were received in one are one peer's, mostly.
cdef struct LinkFrom:
    uint8_t *name
    uint32_t name_size
    uint32_t size                   # of the datagram
    uint8_t place[19]
    uint32_t local                  # number of the session below, 0 none
    Session *session
    Path *path                      # to its peer, NULL none
    bint expected                   # it leads to where this came from


cdef void link_prepare(Links *links, uint8_t *buffer, uint32_t n, uint32_t each) noexcept nogil:
    """Make room for so many datagrams."""
    cdef msghdr *message
    cdef uint32_t i
    for i in range(n):
        message = &links.messages[i].msg_hdr
        memset(message, 0, sizeof(msghdr))
        message.msg_name = links.names[i]
        message.msg_namelen = 28
        message.msg_control = links.controls[i]
        message.msg_controllen = CONTROL_BYTES
        message.msg_iov = &links.iov[i]
        message.msg_iovlen = 1
        links.iov[i].iov_base = buffer + i * each
        links.iov[i].iov_len = each


cdef uint32_t link_cut_size(msghdr *message, uint32_t whole) noexcept nogil:
    """By which size what was received is to be cut."""
    cdef cmsghdr *control = CMSG_FIRSTHDR(message)
    cdef int size = 0
    while control != NULL:
        if control.cmsg_level == IPPROTO_UDP and control.cmsg_type == UDP_GRO:
            memcpy(&size, CMSG_DATA(control), sizeof(int))
        control = CMSG_NXTHDR(message, control)
    return <uint32_t>size if size > 0 else whole


cdef bint link_receive(Worker *w, Slot *s) noexcept nogil:
    """Read until the socket is empty, or this turn's work is used up. True: more may be there."""
    cdef Links *links = <Links *>load_pointer(<void **>&w.links)
    cdef Slot *device = &w.engine.slots[<uint32_t>s.link.device]
    cdef Seals *seals = seals_of(w, s)
    cdef bint more = True
    clear_buffer(w)
    w.merge.pieces = 0
    while w.work > 0:
        more = link_read(w, s, device, seals, links)
        if not more:
            break
    link_flush(w)
    return more


cdef bint link_read(Worker *w, Slot *s, Slot *device, Seals *seals, Links *links) noexcept nogil:
    """Read once, and act on all that came. False: the socket is empty."""
    cdef LinkRead reads[LINK_READS]
    cdef int n, i
    while True:
        link_prepare(links, w.buffer, LINK_READS, LINK_READ_BYTES)
        n = recvmmsg(s.fd, links.messages, LINK_READS, MSG_DONTWAIT, NULL)
        w.work -= WORK_CALL
        if n < 0 and errno == EINTR:
            continue
        break
    if n <= 0:
        return False
    point(POINT_CAME)
    store_relaxed64(&s.received_ns, w.now)
    count(&w.counters.receives, 1)
    for i in range(n):
        link_take(&links.messages[i], &reads[i])
    for i in range(n):
        link_received(w, s, device, seals, links, <uint32_t>i, &reads[i])
    merge_write(w, device, w.merge)
    return n == <int>LINK_READS


cdef void link_take(mmsghdr *message, LinkRead *r) noexcept nogil:
    r.whole = message.msg_len
    r.each = 0 if message.msg_hdr.msg_flags & MSG_TRUNC else link_cut_size(&message.msg_hdr, r.whole)
    r.name_size = message.msg_hdr.msg_namelen


cdef void link_received(Worker *w, Slot *s, Slot *device, Seals *seals, Links *links, uint32_t i,
                        const LinkRead *r) noexcept nogil:
    """What was received in one."""
    cdef LinkFrom f
    cdef uint8_t *data = w.buffer + i * LINK_READ_BYTES
    cdef uint32_t at = 0
    if r.each == 0:
        if r.whole != 0:
            drop(w, s, DROP_LINK_MALFORMED)
        return
    f.name = links.names[i]
    f.name_size = r.name_size
    f.local = 0
    place_of(f.name, f.place)
    while at < r.whole:
        f.size = min(r.each, r.whole - at)
        link_datagram(w, s, device, seals, &f, data + at)
        at += f.size


cdef bint link_whose(Seals *seals, LinkFrom *f, uint32_t local) noexcept nogil:
    """Find the session with this number, and the path to its peer. False: there is none."""
    if local == f.local and local != 0:
        return True
    f.local = 0
    f.session = session_find(seals, local)
    if f.session == NULL:
        return False
    f.local = local
    f.path = path_of(peer_find(seals, f.session.peer))
    f.expected = f.path != NULL and memcmp(f.path.place, f.place, sizeof(f.place)) == 0
    return True


cdef void link_strange(Worker *w, Slot *s, Slot *device, LinkFrom *f, uint8_t *datagram, int reason) noexcept nogil:
    """A datagram that none of our own has sent, as it seems: an original client's, or dropped for this reason."""
    if not old_datagram(w, s, device, f.place, datagram, f.size):
        drop(w, s, reason)


cdef void link_datagram(Worker *w, Slot *s, Slot *device, Seals *seals, LinkFrom *f, uint8_t *datagram) noexcept nogil:
    """One datagram."""
    cdef uint64_t now
    cdef int reason
    w.work -= WORK_FRAME
    if f.size < LINK_MIN or datagram[0] != KIND_SEALED or seals == NULL:
        if not link_stun(w, s, f, datagram):
            link_strange(w, s, device, f, datagram, DROP_LINK_UNKNOWN)
        return
    if datagram[1] & ~<uint8_t>(LINK_ASKS | LINK_UNSUMMED) or load_be16(datagram + 2) != 0:
        link_strange(w, s, device, f, datagram, DROP_LINK_MALFORMED)
        return
    if not link_whose(seals, f, load_be32(datagram + 4)):
        link_strange(w, s, device, f, datagram, DROP_LINK_NO_SESSION)
        return
    if load_relaxed64(&seals.links_off) != 0:
        link_strange(w, s, device, f, datagram, DROP_LINK_OFF)
        return
    w.work -= f.size
    now = boot_now(w)
    reason = link_open(seals, f.session, datagram, f.size, now)
    if reason >= 0:
        link_strange(w, s, device, f, datagram, reason)
        return
    if not f.session.link.heard:
        f.session.link.heard = True
        pthread_mutex_lock(&f.session.opens.lock)
        session_confirm(w, seals, f.session)
        pthread_mutex_unlock(&f.session.opens.lock)
    store_relaxed64(&f.session.received_ns, now)
    store_relaxed64(&f.session.unanswered_ns, 0)
    if f.path != NULL:
        # An answer to a probe of another address says nothing of the path's.
        if ((f.expected or f.size == LINK_MIN or datagram[LINK_HEADER] != LINK_ANSWER)
                and path_proven(f.path, datagram[1], datagram + LINK_HEADER, f.size - LINK_MIN, now)):
            path_heard(f.path, now)
        if datagram[1] & LINK_ASKS:
            link_answer(w, f, now)
    if not f.expected and (f.size == LINK_MIN or datagram[LINK_HEADER] != LINK_ANSWER):
        tell_link(w, s, seals, f, NULL, 0)      # an answer is told with where it came from
    link_content(w, s, device, seals, f, datagram[1], datagram + LINK_HEADER, f.size - LINK_MIN)


cdef void link_answer(Worker *w, LinkFrom *f, uint64_t now) noexcept nogil:
    """A peer asks whether we hear it: by our own path, whose address is proven."""
    cdef uint8_t datagram[LINK_MIN]
    cdef Slot *link = slot_if_current(w, f.path.link)
    if (link == NULL or load_relaxed64(&f.path.quiet) != 0
            or since(now, load_relaxed64(&f.path.answered_ns)) < ANSWER_PAUSE_NS):
        return
    store_relaxed64(&f.path.answered_ns, now)
    if link_post(w, f.session, link, f.path.name, f.path.name_size, datagram, 0):
        store_relaxed64(&f.path.sent_ns, now)


cdef void tell_link(Worker *w, Slot *s, Seals *seals, LinkFrom *f, const uint8_t *content, uint32_t n) noexcept nogil:
    """Tell Python of an answer to a probe, or, without content, that a peer is heard from another address."""
    cdef uint8_t detail[31 + LINK_ANSWER_BYTES]
    cdef SessionLink *link = &f.session.link
    if not (allowed(&link.tells, w.now, LINK_TELLS_PER_S, LINK_TELLS_SAVED) if n != 0
            else allowed(&link.moves, w.now, MOVES_PER_S, MOVES_SAVED)):
        if n != 0:
            drop(w, s, DROP_LINK_LIMIT)
        return
    w.work -= WORK_ANSWER
    store_be32(detail, f.session.local)
    store_be64(detail + 4, slot_connection(w, s))
    memcpy(detail + 12, f.place, sizeof(f.place))
    if n != 0:
        memcpy(detail + 31, content, n)
    tell_sealing(w, seals, EV_LINK, detail, 31 + n)


cdef void link_content(Worker *w, Slot *s, Slot *device, Seals *seals, LinkFrom *f, uint8_t flags, uint8_t *plain,
                       uint32_t n) noexcept nogil:
    """What a datagram held."""
    if n == 0:
        return
    if plain[0] >> 4 == 4:
        link_packet(w, s, device, seals, f, plain, n, (flags & LINK_UNSUMMED) != 0)
    elif flags & LINK_UNSUMMED:
        drop(w, s, DROP_LINK_MALFORMED)
    elif plain[0] == NOTE:
        take_note(w, s, seals, f.session, plain, n)
    elif plain[0] == LINK_PROBE and n >= LINK_ANSWER_BYTES:
        link_probed(w, s, f, plain)
    elif plain[0] == LINK_ANSWER and n == LINK_ANSWER_BYTES:
        tell_link(w, s, seals, f, plain, n)
    else:
        drop(w, s, DROP_LINK_MALFORMED)


cdef void link_probed(Worker *w, Slot *s, LinkFrom *f, const uint8_t *probe) noexcept nogil:
    """A probe is answered to where it came from, which proves that address to who asked. The answer is no longer than
    the probe, and each probe opens once, so nobody makes more of it than the peer has sent."""
    cdef uint8_t datagram[LINK_MIN + LINK_ANSWER_BYTES]
    cdef uint8_t *answer = datagram + LINK_HEADER
    if not allowed(&f.session.link.answers, w.now, PROBES_PER_S, PROBES_PER_S):
        drop(w, s, DROP_LINK_LIMIT)
        return
    answer[0] = LINK_ANSWER
    memcpy(answer + 1, probe + 1, 8)
    memcpy(answer + 9, f.place, sizeof(f.place))
    store_be16(answer + 28, <uint16_t>f.size)
    link_post(w, f.session, s, f.name, f.name_size, datagram, LINK_ANSWER_BYTES)


cdef bint link_summable(const uint8_t *packet, uint32_t n) noexcept nogil:
    """Whether an exact packet has a checksum of TCP's or UDP's that could have been left out."""
    cdef uint32_t header = (packet[0] & 15) * 4
    if load_be16(packet + 6) & 0x3FFF:
        return False
    if packet[9] == TCP:
        return n >= header + 20 and 20 <= (packet[header + 12] >> 4) * 4 <= n - header
    return packet[9] == UDP and n >= header + 8 and load_be16(packet + header + 4) == n - header


cdef void link_packet(Worker *w, Slot *s, Slot *device, Seals *seals, LinkFrom *f, uint8_t *packet, uint32_t n,
                      bint unsummed) noexcept nogil:
    """A packet for the device: what the relay would refuse is refused here."""
    if load_relaxed64(&f.session.owes_ns) == 0:
        store_relaxed64(&f.session.owes_ns, boot_now(w))
    if not ipv4_exact(packet, n) or (unsummed and not link_summable(packet, n)):
        drop(w, s, DROP_LINK_MALFORMED)
        return
    if not may_be_inside(w, s, seals, f.session.peer, packet):
        return
    if f.path != NULL:
        store_relaxed64(&f.path.packet_ns, boot_now(w))
        count(&f.path.traffic.packets_in, 1)
        count(&f.path.traffic.bytes_in, n)
    count_message(w, s, n)
    link_give(w, device, packet, n, unsummed)


cdef void link_give(Worker *w, Slot *device, uint8_t *packet, uint32_t n, bint unsummed) noexcept nogil:
    """To the device, together with others where that may be."""
    cdef Merge *m = w.merge
    cdef uint32_t header = (packet[0] & 15) * 4
    if not device.vnet:
        if unsummed:
            checksum_finish(packet, packet + header, n - header)
        w.work -= WORK_SEGMENT
        tun_count(w, device, write_fd(device.fd, packet, n), 1, n)
        return
    if mergeable(packet, n) or udp_mergeable(packet, n, unsummed):
        merge_packet(w, device, m, packet, n, unsummed)
        return
    w.work -= WORK_SEGMENT
    merge_write(w, device, m)
    merge_alone(m, packet, n, unsummed)
    merge_write(w, device, m)


# STUN: how a member learns by which address it is seen.

cdef inline bint stun_like(const uint8_t *datagram, uint32_t n, uint16_t kind) noexcept nogil:
    """Whether this is a STUN message of this type, of the length that it says."""
    return (n >= STUN_HEADER and load_be16(datagram) == kind and load_be32(datagram + 4) == STUN_COOKIE
            and load_be16(datagram + 2) == n - STUN_HEADER and n & 3 == 0)


cdef bint link_stun(Worker *w, Slot *s, LinkFrom *f, const uint8_t *datagram) noexcept nogil:
    """Tell Python of the answer to one of its transactions, once of each. False: it is none."""
    cdef uint8_t detail[19 + STUN_TOLD]
    cdef Link *link = s.link
    cdef bint found = False
    cdef uint32_t i
    if f.size > STUN_TOLD or not stun_like(datagram, f.size, STUN_SUCCESS):
        return False
    pthread_mutex_lock(&s.send_lock)
    for i in range(link.expected):
        if memcmp(link.ids[i], datagram + 8, sizeof(link.ids[i])) == 0:
            found = True
            link.expected -= 1
            memcpy(link.ids[i], link.ids[link.expected], sizeof(link.ids[i]))
            break
    pthread_mutex_unlock(&s.send_lock)
    if found:
        w.work -= WORK_ANSWER
        memcpy(detail, f.place, sizeof(f.place))
        memcpy(detail + 19, datagram, f.size)
        tell(w, s, EV_STUN, detail, 19 + f.size)
    return found
