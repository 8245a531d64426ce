# The kernel's end of a connection: read from it, write to it, end it. No other part calls the kernel for a connection's
# bytes. A slot's kind is its role; whether it has TLS (s.tls) is decided above, where frames are read (read_behind) and
# where they leave (deliver, queue_send).
#
# Nothing here blocks. Reads and writes return what the system call does, errno included.

cdef inline ssize_t transport_read(Slot *s, uint8_t *data, size_t n) noexcept nogil:
    return recv(s.fd, data, n, MSG_DONTWAIT)


cdef inline ssize_t transport_peek(Slot *s, uint8_t *data, size_t n) noexcept nogil:
    """Read and leave it there."""
    return recv(s.fd, data, n, MSG_DONTWAIT | MSG_PEEK)


cdef inline ssize_t transport_read_into(Slot *s, iovec *iov, size_t n) noexcept nogil:
    """One read into several pieces of memory."""
    cdef msghdr message
    memset(&message, 0, sizeof(message))
    message.msg_iov = iov
    message.msg_iovlen = n
    return recvmsg(s.fd, &message, MSG_DONTWAIT)


cdef inline ssize_t transport_write(Slot *s, iovec *iov, uint32_t n, int flags) noexcept nogil:
    """Send these pieces as one stream of bytes (send lock)."""
    cdef msghdr message
    if n == 1:
        return send(s.fd, iov[0].iov_base, iov[0].iov_len, MSG_DONTWAIT | MSG_NOSIGNAL | flags)
    memset(&message, 0, sizeof(message))
    message.msg_iov = iov
    message.msg_iovlen = n
    return sendmsg(s.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL | flags)


cdef inline int transport_write_each(Slot *s, mmsghdr *messages, uint32_t n, int flags) noexcept nogil:
    """Send each of these messages by itself (send lock); returns how many were, at least in part."""
    return sendmmsg(s.fd, messages, n, MSG_DONTWAIT | MSG_NOSIGNAL | flags)


cdef inline void transport_finish(Slot *s) noexcept nogil:
    """End our direction of the stream; the peer reads EOF behind what was sent (send lock)."""
    s.finished = True
    shutdown(s.fd, SHUT_WR)


cdef ssize_t transport_break(Slot *s) noexcept nogil:
    """Nothing more can be sent (send lock). The owner, who closes the connection, hears of it from epoll."""
    s.broken = True
    shutdown(s.fd, SHUT_RDWR)
    return -1
