# From a device to a link: sealed at once, into a batch that leaves with the end of the device's turn. Datagrams of one
# size for one path leave in one call (UDP_SEGMENT). Runs on the device's worker, whose links are all its own.
#
# 1. link_forward()   a packet of the device's: whether it goes by its peer's path, cut to that
# 2. link_room()      where its datagram goes in the batch
# 3. link_flush()     the batch to the kernel; what it does not take is dropped
#
# What goes by itself, an answer or something of Python's, is sent by link_post(), on any thread.

cdef enum:
    LINK_RUNS = 64
    LINK_OUT = 262144
    SEGMENTS_MAX = 64               # of one call: UDP_MAX_SEGMENTS, in the kernel's older versions
    RUN_BYTES = 65000               # of one call: a datagram's most, less headers
    UDP_SEGMENT = 103
    UDP_GRO = 104
    CONTROL_BYTES = 64


cdef void link_refused(Worker *w, LinkRun *run, uint32_t n, int error) noexcept nogil:
    """The kernel did not take so many datagrams for a path."""
    cdef Slot *device = &w.engine.slots[<uint32_t>run.link.link.device]
    if error == EAGAIN or error == ENOBUFS:
        drops(w, device, DROP_LINK_FULL, n)
        return
    drops(w, device, DROP_LINK_REFUSED, n)
    path_quiet(w, <Seals *>load_pointer(<void **>&w.engine.networks[run.link.network].seals), run.path)


cdef void link_sent(Worker *w, LinkRun *run, uint32_t n, uint32_t size) noexcept nogil:
    """It took them, of this size in all."""
    size -= run.path.over * n
    sent(w, run.link, n, size)
    store_relaxed64(&run.path.sent_ns, boot_now(w))
    count(&run.path.traffic.packets_out, n)
    count(&run.path.traffic.bytes_out, size)


cdef void link_message(Links *links, uint32_t i, const Path *path, uint8_t *data, size_t size) noexcept nogil:
    """Make message number `i` of datagrams for a path."""
    cdef msghdr *message = &links.messages[i].msg_hdr
    memset(message, 0, sizeof(msghdr))
    message.msg_name = <void *>path.name
    message.msg_namelen = path.name_size
    links.iov[i].iov_base = data
    links.iov[i].iov_len = size
    message.msg_iov = &links.iov[i]
    message.msg_iovlen = 1


cdef void link_segmented(Links *links, uint32_t i, uint16_t each) noexcept nogil:
    """Have the kernel cut message number `i` into datagrams of this size."""
    cdef msghdr *message = &links.messages[i].msg_hdr
    cdef cmsghdr *control
    message.msg_control = links.controls[i]
    message.msg_controllen = CMSG_SPACE(2)
    control = CMSG_FIRSTHDR(message)
    control.cmsg_level = IPPROTO_UDP
    control.cmsg_type = UDP_SEGMENT
    control.cmsg_len = CMSG_LEN(2)
    memcpy(CMSG_DATA(control), &each, 2)


cdef void link_send_each(Worker *w, Links *links, LinkRun *run) noexcept nogil:
    """A run, each of its datagrams by itself."""
    cdef uint32_t n, i
    cdef uint32_t at = 0
    cdef uint32_t done = 0
    cdef int taken
    while done < run.count:
        n = min(run.count - done, <uint32_t>LINK_RUNS)
        at = done * run.each
        for i in range(n):
            link_message(links, i, run.path, links.out + run.at + at + i * run.each,
                         min(run.each, run.size - at - i * run.each))
        taken = sendmmsg(run.link.fd, links.messages, n, MSG_DONTWAIT | MSG_NOSIGNAL)
        if taken < 0 and errno == EINTR:
            continue
        if taken <= 0:
            link_refused(w, run, run.count - done, errno)
            return
        w.work -= WORK_CALL
        count(&w.counters.sends, 1)
        link_sent(w, run, <uint32_t>taken, min(<uint32_t>taken * run.each, run.size - at))
        done += <uint32_t>taken
    run.link.link.unsegmented = True


cdef uint32_t link_send_runs(Worker *w, Links *links, uint32_t first, uint32_t n) noexcept nogil:
    """Send so many runs of one link, or some of them; returns how many are done with."""
    cdef LinkRun *run = &links.runs[first]
    cdef uint32_t i
    cdef int taken
    if run.count > 1 and run.link.link.unsegmented:
        link_send_each(w, links, run)
        return 1
    for i in range(n):
        if run[i].count > 1 and run.link.link.unsegmented:
            n = i
            break
        link_message(links, i, run[i].path, links.out + run[i].at, run[i].size)
        if run[i].count > 1:
            link_segmented(links, i, <uint16_t>run[i].each)
    taken = sendmmsg(run.link.fd, links.messages, n, MSG_DONTWAIT | MSG_NOSIGNAL)
    w.work -= WORK_CALL
    if taken > 0:
        count(&w.counters.sends, 1)
        for i in range(<uint32_t>taken):
            link_sent(w, &run[i], run[i].count, run[i].size)
        return <uint32_t>taken
    if taken < 0 and errno == EINTR:
        return 0
    if run.count > 1 and (errno == EIO or errno == EINVAL or errno == EMSGSIZE):
        link_send_each(w, links, run)           # the interface can't segment; or each is too long, which this will tell
    else:
        link_refused(w, run, run.count, errno)
    return 1


cdef void link_flush(Worker *w) noexcept nogil:
    """Hand the batch to the kernel."""
    cdef Links *links = <Links *>load_pointer(<void **>&w.links)
    cdef uint32_t i = 0
    cdef uint32_t n
    if links == NULL or links.run_count == 0:
        return
    while i < links.run_count:
        n = 1
        while i + n < links.run_count and links.runs[i + n].link == links.runs[i].link:
            n += 1
        i += link_send_runs(w, links, i, n)
    links.run_count = 0
    links.used = 0


cdef uint8_t *link_room(Worker *w, Links *links, Path *path, Slot *link, uint32_t size) noexcept nogil:
    """Where the next datagram, of so many bytes, goes in the batch: which is sent first, if it is full."""
    cdef LinkRun *run = &links.runs[links.run_count - 1] if links.run_count != 0 else NULL
    if links.used + size > LINK_OUT:
        link_flush(w)
        run = NULL
    if (run == NULL or run.path != path or run.closed or size > run.each or run.count == SEGMENTS_MAX
            or run.size + size > RUN_BYTES):
        if links.run_count == LINK_RUNS:
            link_flush(w)
        run = &links.runs[links.run_count]
        links.run_count += 1
        run.path = path
        run.link = link
        run.at = links.used
        run.size = run.count = 0
        run.each = size
    run.closed = size < run.each
    run.size += size
    run.count += 1
    links.used += size
    return links.out + links.used - size


cdef void link_take_back(Links *links, uint32_t size) noexcept nogil:
    """The datagram that link_room() had room for last comes to nothing."""
    cdef LinkRun *run = &links.runs[links.run_count - 1]
    run.size -= size
    run.count -= 1
    links.used -= size
    if run.count == 0:
        links.run_count -= 1


cdef uint32_t link_cut(const Super *u, uint32_t index, uint8_t *out) noexcept nogil:
    """As super_segment(); but where the receiver needs no checksum, there is none."""
    cdef uint32_t offset = index * u.gso_size
    cdef uint32_t payload = u.length - u.headers
    cdef uint32_t part = payload
    if u.inner != 0:
        return super_segment(u, index, out)
    if u.gso_size != 0 and payload != 0:
        part = min(u.gso_size, payload - offset)
    return super_cut(u, index, offset, part, offset + part == payload, out)


cdef bint link_fits(Super *u, const Path *path) noexcept nogil:
    """Whether a super-packet goes by a path, cut smaller if need be. So is a single segment, which may be one that is
    sent again: by the relay it would come late, or not at all where there is none now."""
    if super_segment_size(u) <= path.longest:
        return True
    if u.protocol != TCP or path.longest < u.headers + GSO_TCP_MIN:
        return False
    # What these say is said of a segment as a whole.
    if u.gso_size == 0 and u.packet[u.transport + 13] & (TCP_SYN | TCP_RST | TCP_URG):
        return False
    u.gso_size = path.longest - u.headers
    return True


cdef void link_batch(Worker *w, Slot *s, Links *links, Path *path, Slot *link, Session *session, const uint8_t *packet,
                     uint32_t length, const Super *u, uint8_t flags) noexcept nogil:
    """Seal a packet, or each of a super-packet's, into the batch. The lock is held for all of them: only Python, with
    few, wants it too."""
    cdef uint32_t n = 1 if u == NULL else super_count(u)
    cdef uint32_t size = length
    cdef uint32_t i
    cdef uint8_t *datagram
    if u != NULL and u.needs_checksum and u.inner == 0:
        flags |= LINK_UNSUMMED
    pthread_mutex_lock(&session.link.sends.lock)
    for i in range(n):
        if u != NULL:
            size = u.headers + min(u.gso_size, u.length - u.headers - i * u.gso_size) if u.gso_size else u.length
        datagram = link_room(w, links, path, link, LINK_MIN + size)
        if u == NULL:
            memcpy(datagram + LINK_HEADER, packet, size)
        else:
            link_cut(u, i, datagram + LINK_HEADER)
        w.work -= WORK_FRAME + size
        if not link_seal(session, datagram, flags, size):
            link_take_back(links, LINK_MIN + size)
            drops(w, s, DROP_NO_SESSION, n - i)
            break
        flags &= ~<uint8_t>LINK_ASKS
    pthread_mutex_unlock(&session.link.sends.lock)


cdef bint link_forward(Worker *w, Slot *s, Seals *seals, uint32_t address, const uint8_t *packet, uint32_t length,
                       const Super *u, bint released) noexcept nogil:
    """Send a device's packet, for this address or through the member that has it, by the path to there. `u` is NULL
    for an ordinary packet. False: nothing was done, and it goes by the relay."""
    cdef Links *links = <Links *>load_pointer(<void **>&w.links)
    cdef SealPeer *peer
    cdef Path *path
    cdef Session *session
    cdef Slot *link
    cdef Super cut
    cdef uint64_t now
    cdef int flags
    if links == NULL or seals == NULL:
        return False
    peer = peer_find(seals, address)
    path = path_of(peer)
    if path == NULL:
        return False
    if load_relaxed64(&path.quiet) != 0:
        path_quiet(w, seals, path)
        return False
    if load_acquire64(&peer.way) != WAY_SEAL or (load_relaxed64(&peer.waiting) != 0 and not released):
        return False
    point(POINT_PATH)
    now = boot_now(w)
    session = <Session *>load_pointer(<void **>&peer.session)
    link = slot_if_current(w, path.link)
    if link == NULL or not link_may_send(session, now):
        return False
    if u == NULL:
        length = load_be16(packet + 2)
        if length > path.longest:
            return False
    else:
        cut = u[0]
        u = &cut
        if not link_fits(&cut, path):
            return False
    flags = path_flags(w, seals, path, now)
    if flags < 0:
        return False
    tell_wanted(w, seals, peer, False)
    link_batch(w, s, links, path, link, session, packet, length, u, <uint8_t>flags)
    session_sent(session, now, True)
    return True


cdef bint link_post(Worker *w, Session *session, Slot *link, const uint8_t *name, uint32_t name_size,
                    uint8_t *datagram, uint32_t plain) noexcept nogil:
    """Seal what lies behind the room for a header, before the room for a tag, and send it to this address now. Python's
    thread holds the link's send lock. False: the session may send no more, or the kernel refused."""
    cdef bint done
    pthread_mutex_lock(&session.link.sends.lock)
    done = link_may_send(session, boot_now(w)) and link_seal(session, datagram, 0, plain)
    pthread_mutex_unlock(&session.link.sends.lock)
    w.work -= WORK_CALL + plain
    return done and sendto(link.fd, datagram, LINK_MIN + plain, MSG_DONTWAIT | MSG_NOSIGNAL, name, name_size) >= 0
