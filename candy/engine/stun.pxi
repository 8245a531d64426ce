# A relay's STUN responder (RFC 8489): it tells who asks by which address it is seen; and, where there is a second
# socket, that one's (RFC 5780), to those whose request is as long as such an answer. Without state but for how often
# sources ask; what is no plain Binding request goes unanswered.

cdef enum:
    STUN_SOURCES = 4096
    STUN_PER_S = 10                 # of a source
    STUN_SAVED = 20
    STUN_PER_S_ALL = 20000
    STUN_READS = 64
    STUN_READ_BYTES = 2048
    STUN_ANSWER_MOST = 128          # room for a header and two addresses of IPv6
    STUN_XOR_MAPPED = 0x0020
    STUN_OTHER = 0x802C


cdef bint stun_request(const uint8_t *datagram, uint32_t n) noexcept nogil:
    """Whether this is a Binding request, and every attribute in it one that may be passed over."""
    cdef uint32_t at = STUN_HEADER
    cdef uint32_t length
    if not stun_like(datagram, n, STUN_REQUEST):
        return False
    while at < n:                   # a multiple of 4, so there is an attribute's head
        if load_be16(datagram + at) < 0x8000:
            return False
        length = (load_be16(datagram + at + 2) + 3) & ~<uint32_t>3
        if n - at - 4 < length:
            return False
        at += 4 + length
    return True


cdef uint32_t stun_address(uint8_t *out, uint16_t kind, const uint8_t *place, const uint8_t *mask) noexcept nogil:
    """Write an attribute with an address, as place_of() has it, XORed with the cookie and transaction `mask`, or NULL;
    returns its size. An IPv4 address at a socket of both families is one."""
    cdef bint mapped = place[0] == 6 and memcmp(place + 1, b"\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) == 0
    cdef uint32_t n = 4 if place[0] == 4 or mapped else 16
    cdef uint32_t i
    store_be16(out, kind)
    store_be16(out + 2, <uint16_t>(4 + n))
    out[4] = 0
    out[5] = 1 if n == 4 else 2
    memcpy(out + 6, place + 17, 2)
    memcpy(out + 8, place + (13 if mapped else 1), n)
    if mask != NULL:
        for i in range(2):
            out[6 + i] ^= mask[i]
        for i in range(n):
            out[8 + i] ^= mask[i]
    return 8 + n


cdef uint32_t stun_answer(const StunLimits *t, const uint8_t *request, uint32_t size, const uint8_t *place,
                          uint8_t *out) noexcept nogil:
    """Write the answer to a request of this size, of up to STUN_ANSWER_MOST bytes; returns its size. The other address
    is for requests that are as long as an answer with it: nobody makes more of it than he has sent."""
    cdef uint32_t n = STUN_HEADER
    cdef uint32_t more
    store_be16(out, STUN_SUCCESS)
    memcpy(out + 4, request + 4, 16)
    n += stun_address(out + n, STUN_XOR_MAPPED, place, request + 4)
    if t.has_other:
        more = stun_address(out + n, STUN_OTHER, t.other, NULL)
        n += more if n + more <= size else 0
    store_be16(out + 2, <uint16_t>(n - STUN_HEADER))
    return n


cdef bint stun_allowed(StunLimits *t, const uint8_t *place, uint64_t now) noexcept nogil:
    """Whether a source, a /32 or a /64, may be answered."""
    cdef uint64_t source
    if place[0] == 4:
        source = load32(place + 1)
    elif load64(place + 1) == 0:    # of a socket of both families
        source = load64(place + 9)
    else:
        source = load64(place + 1)
    return (allowed(&t.sources[siphash(t.key[0], t.key[1], source, place[0]) % STUN_SOURCES], now, STUN_PER_S,
                    STUN_SAVED)
            and allowed(&t.all, now, STUN_PER_S_ALL, STUN_PER_S_ALL))


cdef void stun_send(Worker *w, Slot *s, Links *links, int n) noexcept nogil:
    """Send so many answers. One that the kernel refuses is asked for again."""
    cdef int at = 0
    cdef int taken
    while at < n:
        taken = sendmmsg(s.fd, links.messages + at, n - at, MSG_DONTWAIT | MSG_NOSIGNAL)
        w.work -= WORK_CALL
        if taken < 0 and errno == EAGAIN:
            drops(w, s, DROP_LINK_FULL, n - at)
            return
        if taken > 0:
            count(&w.counters.sends, 1)
        at += max(taken, 1)


cdef bint stun_receive(Worker *w, Slot *s) noexcept nogil:
    """Answer until the socket is empty, or this turn's work is used up. True: more may be there."""
    cdef Links *links = <Links *>load_pointer(<void **>&w.links)
    cdef uint8_t place[19]
    cdef uint8_t *request
    cdef uint8_t *answer
    cdef uint32_t size
    cdef int n, i
    cdef int answers
    clear_buffer(w)
    while w.work > 0:
        link_prepare(links, w.buffer, STUN_READS, STUN_READ_BYTES)
        n = recvmmsg(s.fd, links.messages, STUN_READS, MSG_DONTWAIT, NULL)
        w.work -= WORK_CALL
        if n < 0 and errno == EINTR:
            continue
        if n <= 0:
            return False
        count(&w.counters.receives, 1)
        answers = 0
        for i in range(n):
            w.work -= WORK_FRAME
            request = <uint8_t *>links.iov[i].iov_base
            if not stun_request(request, links.messages[i].msg_len):
                drop(w, s, DROP_STUN_MALFORMED)
                continue
            place_of(links.names[i], place)
            if not stun_allowed(s.stun, place, w.now):
                drop(w, s, DROP_STUN_LIMIT)
                continue
            # Into the place of an earlier request, or of its own, which is read.
            answer = links.out + answers * STUN_ANSWER_MOST
            size = stun_answer(s.stun, request, links.messages[i].msg_len, place, answer)
            links.messages[answers].msg_hdr = links.messages[i].msg_hdr
            links.messages[answers].msg_hdr.msg_control = NULL
            links.messages[answers].msg_hdr.msg_controllen = 0
            links.messages[answers].msg_hdr.msg_iov = &links.iov[answers]
            links.iov[answers].iov_base = answer
            links.iov[answers].iov_len = size
            answers += 1
        if answers != 0:
            stun_send(w, s, links, answers)
        if n < <int>STUN_READS:
            return False
    return True
