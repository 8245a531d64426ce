# The limit that benchmarks compare the engine with, compiled like it: a thread that receives and sends the same bytes,
# with a buffer as the engine's, without looking at them. Nothing of the product uses it.
#
# Asked to unmask it passes over every byte once more, as every reader of masked packets has to; the mask is 0, so that
# what it sends can be checked.
#
# Where streams are joined or divided, or each frame is to be a TCP segment of its own, it is told the size of a frame,
# for that can only be done between frames. It knows neither headers nor addresses.

import os

cdef extern from "<time.h>" nogil:
    int clock_getcpuclockid(int pid, clockid_t *clock)

cdef extern from "<sys/socket.h>" nogil:
    enum: SHUT_RD

cdef enum:
    BARE_MESSAGES = 256                 # as many as the engine gives to one sendmmsg

cdef struct BareConnection:
    int fd
    uint32_t destination_count
    int *destinations                   # descriptors
    uint8_t *rest                       # the incomplete frame at the end of the last read
    size_t rest_size
    uint32_t turn                       # which destination is the first to get one frame more

cdef struct BareState:
    BareConnection *connections
    uint32_t count
    uint32_t inputs
    size_t frame                        # 0: one destination each, frames are no concern
    bint unmasks
    bint segments                       # each frame leaves as a TCP segment of its own
    mmsghdr messages[BARE_MESSAGES]
    iovec iov[BARE_MESSAGES]
    uint8_t *buffer
    int ep
    uint64_t receives
    uint64_t sends
    pthread_t thread


cdef bint bare_write(BareState *r, int fd, const uint8_t *data, size_t n) noexcept nogil:
    """Send it all; waits for room. False: the connection is gone."""
    cdef ssize_t done
    while n != 0:
        count(&r.sends, 1)
        done = send(fd, data, n, MSG_NOSIGNAL)
        if done < 0:
            if errno == EINTR:
                continue
            return False
        data += done
        n -= <size_t>done
    return True


cdef bint bare_write_each(BareState *r, int fd, uint8_t *data, size_t frames) noexcept nogil:
    """Send each of these frames as a segment; waits for room. False: the connection is gone."""
    cdef uint32_t n, i
    cdef int done
    while frames != 0:
        n = <uint32_t>min(frames, <size_t>BARE_MESSAGES)
        for i in range(n):
            r.iov[i].iov_base = data + i * r.frame
            r.iov[i].iov_len = r.frame
            r.messages[i].msg_hdr.msg_iov = &r.iov[i]
            r.messages[i].msg_hdr.msg_iovlen = 1
        count(&r.sends, 1)
        done = sendmmsg(fd, r.messages, n, MSG_EOR | MSG_NOSIGNAL)
        if done < 0:
            if errno == EINTR:
                continue
            return False
        data += <size_t>done * r.frame
        frames -= <size_t>done
    return True


cdef bint bare_share(BareState *r, BareConnection *c, size_t have) noexcept nogil:
    """Send the whole frames of the buffer, an equal part in one piece to each destination; keep the rest."""
    cdef size_t frames = have // r.frame
    cdef size_t each = frames // c.destination_count
    cdef size_t more = frames % c.destination_count
    cdef size_t n
    cdef uint32_t i
    cdef uint8_t *p = r.buffer
    for i in range(c.destination_count):
        n = (each + ((i + c.destination_count - c.turn) % c.destination_count < more)) * r.frame
        if r.segments:
            if not bare_write_each(r, c.destinations[i], p, n // r.frame):
                return False
        elif not bare_write(r, c.destinations[i], p, n):
            return False
        p += n
    c.turn = <uint32_t>((c.turn + more) % c.destination_count)
    c.rest_size = have - frames * r.frame
    memcpy(c.rest, p, c.rest_size)
    return True


cdef bint bare_forward(BareState *r, BareConnection *c, int flags) noexcept nogil:
    """Receive and send until a read comes short. False: the connection ended."""
    cdef size_t have
    cdef ssize_t n
    while True:
        have = c.rest_size
        if have:
            memcpy(r.buffer, c.rest, have)
        count(&r.receives, 1)
        n = recv(c.fd, r.buffer + have, RECEIVE_BYTES - have, flags)
        if n < 0 and errno == EINTR:
            continue
        if n < 0 and errno == EAGAIN:
            return True
        if n <= 0:
            return False
        if r.unmasks:
            unmask(r.buffer + have, r.buffer + have, <size_t>n, 0)
        if r.frame == 0:
            if not bare_write(r, c.destinations[0], r.buffer, <size_t>n):
                return False
        elif not bare_share(r, c, have + <size_t>n):
            return False
        if flags and <size_t>n < RECEIVE_BYTES - have:
            return True


cdef void *bare_main(void *argument) noexcept nogil:
    cdef BareState *r = <BareState *>argument
    cdef epoll_event events[EVENTS_MAX]
    cdef uint32_t left = r.inputs
    cdef int n, i
    if r.ep < 0:
        bare_forward(r, &r.connections[0], 0)       # one input: nothing to wait for but its bytes
        return NULL
    while left:
        n = epoll_wait(r.ep, events, EVENTS_MAX, -1)
        for i in range(n):
            if not bare_forward(r, &r.connections[events[i].data.u64], MSG_DONTWAIT):
                epoll_ctl(r.ep, EPOLL_CTL_DEL, r.connections[events[i].data.u64].fd, NULL)
                left -= 1
    return NULL


cdef class BareRelay:
    """See _endpoints.pyi."""
    cdef BareState *state
    cdef bint running

    def __cinit__(self, list fds not None, list routes not None, *, uint32_t frame=0, bint unmasks=False,
                  bint segments=False):
        cdef BareState *r = <BareState *>calloc(1, sizeof(BareState))
        cdef BareConnection *c
        cdef uint32_t i, j
        cdef epoll_event event
        cdef int error
        self.state = r
        if r == NULL:
            raise MemoryError
        r.ep = -1
        r.count = len(fds)
        r.inputs = sum([bool(to) for to in routes])
        if len(fds) != len(routes) or r.inputs == 0 or not routes[0]:
            raise ValueError("one route for each member, and the first member sends")
        if (segments or any([len(to) > 1 for to in routes])) and frame == 0:
            raise ValueError("several destinations, and segments, need the size of a frame")
        r.frame = frame
        r.unmasks = unmasks
        r.segments = segments
        r.buffer = <uint8_t *>malloc(RECEIVE_BYTES)
        r.connections = <BareConnection *>calloc(r.count, sizeof(BareConnection))
        if r.buffer == NULL or r.connections == NULL:
            raise MemoryError
        if r.inputs > 1:
            r.ep = epoll_create1(EPOLL_CLOEXEC)
            if r.ep < 0:
                raise OSError(errno, os.strerror(errno))
        for i in range(r.count):
            c = &r.connections[i]
            c.fd = fds[i]
            c.destination_count = len(routes[i])
            if c.destination_count == 0:
                continue
            c.destinations = <int *>calloc(c.destination_count, sizeof(int))
            c.rest = <uint8_t *>malloc(frame + 1)
            if c.destinations == NULL or c.rest == NULL:
                raise MemoryError
            for j in range(c.destination_count):
                c.destinations[j] = fds[routes[i][j]]
            if r.ep >= 0:
                event.events = <uint32_t>EPOLLIN | <uint32_t>EPOLLRDHUP | <uint32_t>EPOLLET
                event.data.u64 = i
                if epoll_ctl(r.ep, EPOLL_CTL_ADD, c.fd, &event) != 0:
                    raise OSError(errno, os.strerror(errno))
        error = pthread_create(&r.thread, NULL, bare_main, r)
        if error:
            raise OSError(error, os.strerror(error))
        self.running = True

    def stop(self):
        cdef uint32_t i
        if not self.running:
            return
        self.running = False
        with nogil:
            for i in range(self.state.count):
                shutdown(self.state.connections[i].fd, SHUT_RD)
            pthread_join(self.state.thread, NULL)

    def __dealloc__(self):
        cdef uint32_t i
        if self.state == NULL:
            return
        self.stop()
        if self.state.connections != NULL:
            for i in range(self.state.count):
                free(self.state.connections[i].destinations)
                free(self.state.connections[i].rest)
        if self.state.ep >= 0:
            close_fd(self.state.ep)
        free(self.state.connections)
        free(self.state.buffer)
        free(self.state)

    @property
    def sends(self):
        return load_relaxed64(&self.state.sends)

    def cpu_ns(self):
        cdef clockid_t clock
        if not self.running:
            raise RuntimeError("the relay is stopped")
        if pthread_getcpuclockid(self.state.thread, &clock) != 0:
            raise OSError(errno, os.strerror(errno))
        return bench_clock(clock)


cdef bench_clock(clockid_t clock):
    cdef timespec t
    if clock_gettime(clock, &t) != 0:
        raise OSError(errno, os.strerror(errno))
    return t.tv_sec * SECOND_NS + t.tv_nsec


def process_cpu_ns(int pid):
    cdef clockid_t clock
    cdef int error = clock_getcpuclockid(pid, &clock)
    if error:
        raise OSError(error, os.strerror(error))
    return bench_clock(clock)
