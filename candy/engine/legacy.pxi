# Sending to members that did not agree on the extension, under their send lock.
#
# field: old clients lose the connection when a read finds part of a frame. So each frame is a TCP segment of its own:
# 1. MSG_EOR ends the TCP segment with the frame, or its TLS record, and nothing is ever appended to it;
# 2. the kernel gets no more than fits the peer's window. What it held beyond that would be cut: a probe of a window
#    that stays too small sends whatever does fit. What it does not get waits in our queue, and the worker looks again.

cdef enum:
    TCPI_SND_WND = 228              # offset of tcpi_snd_wnd in struct tcp_info


cdef inline uint64_t legacy_window(int fd) noexcept nogil:
    """Bytes that the peer's window has room for, less what the kernel holds already; no bound where this is no TCP."""
    cdef uint8_t info[232]                  # struct tcp_info of Linux 5.4 and later, which glibc declares in part
    cdef socklen_t n = sizeof(info)
    cdef int held = 0
    cdef uint32_t window
    # In this order: an acknowledgement in between then only makes the answer smaller than it could be.
    if ioctl(fd, SIOCOUTQ, &held) != 0 or getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &n) != 0 or n < sizeof(info):
        return UINT32_MAX
    window = load32(info + TCPI_SND_WND)
    return window - <uint32_t>held if window > <uint32_t>held else 0


cdef inline uint32_t piece_size(const uint8_t *p, bint sealed) noexcept nogil:
    """Size of what the kernel gets as a message of its own: a frame, or the record that it is sealed in."""
    return record_bytes(p) if sealed else frame_size(p)


cdef uint32_t frames_iov(Worker *w, const uint8_t *data, uint32_t length, bint sealed, uint32_t *n) noexcept nogil:
    """One iovec per frame, from n[0] on, while there is room; returns how many bytes they cover."""
    cdef uint32_t at = 0
    cdef uint32_t size
    while at < length and n[0] < IOV_MAX_SEND:
        size = piece_size(data + at, sealed)
        w.iov[n[0]].iov_base = <void *>(data + at)
        w.iov[n[0]].iov_len = size
        n[0] += 1
        at += size
    return at


cdef ssize_t legacy_send(Worker *w, Slot *s, iovec *iov, uint32_t n) noexcept nogil:
    """kernel_send() for an old peer: each piece is a frame."""
    cdef uint64_t window = legacy_window(s.fd)
    cdef uint32_t fits = 0
    cdef uint32_t part
    cdef uint32_t i
    cdef uint32_t done = 0
    cdef ssize_t r
    cdef ssize_t total = 0
    while fits < n and iov[fits].iov_len <= window:
        window -= iov[fits].iov_len
        fits += 1
    if fits < n:
        look_again(w, s)
    while done < fits:
        part = min(fits - done, <uint32_t>MESSAGES_MAX)
        for i in range(part):
            memset(&w.messages[i], 0, sizeof(mmsghdr))
            w.messages[i].msg_hdr.msg_iov = iov + done + i
            w.messages[i].msg_hdr.msg_iovlen = 1
        count(&w.counters.sends, 1)
        count(&s.traffic.sends, 1)
        r = transport_write_each(s, w.messages, part, MSG_EOR)
        if r < 0:
            if errno == EINTR:
                continue
            if errno == EAGAIN:
                return total
            if errno == ENOBUFS or errno == ENOMEM:
                look_again(w, s)
                return total
            return total if total else transport_break(s)
        for i in range(<uint32_t>r):
            total += w.messages[i].msg_len
            if w.messages[i].msg_len < iov[done + i].iov_len:
                return total
        done += <uint32_t>r
    return total
