# The engine's parts over bytes in memory, for tests and fuzzing: the same functions that the workers run. Each input
# and output ends where a page ends, and the next page can't be touched: a step too far is a crash, in every build.

import socket as _socket

cdef extern from "<sys/mman.h>" nogil:
    enum: PROT_NONE
    int mprotect(void *where, size_t n, int protection)

cdef extern from "engine/fastpath.h" nogil:
    bint point_set "candy_point_set" (int point, bint armed)
    bint point_held "candy_point_held" (int point, uint64_t milliseconds)

cdef enum:
    PAGE = 65536                    # the largest that Linux has


cdef class _Fenced:
    """Memory for `room` bytes with an unreadable page behind it."""
    cdef uint8_t *whole
    cdef size_t size
    cdef uint8_t *end

    def __cinit__(self, size_t room):
        self.size = (room + PAGE - 1) // PAGE * PAGE + PAGE
        self.whole = <uint8_t *>mmap(NULL, self.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        if self.whole == MAP_FAILED:
            self.whole = NULL
            raise MemoryError
        self.end = self.whole + self.size - PAGE
        if mprotect(self.end, PAGE, PROT_NONE) != 0:
            raise MemoryError

    def __dealloc__(self):
        if self.whole != NULL:
            munmap(self.whole, self.size)

    cdef uint8_t *put(self, bytes data) noexcept:
        """Copy them to the very end."""
        memcpy(self.end - len(data), <const char *>data, len(data))
        return self.end - len(data)


cdef class FrameParser:
    """See _fastpath.pyi."""
    cdef bint from_client
    cdef readonly int error
    cdef bytes rest
    cdef object fragments
    cdef int fragment_opcode

    def __cinit__(self, *, bint client=False):
        self.from_client = not client
        self.error = 0
        self.rest = b""
        self.fragments = None

    def feed(self, bytes data not None):
        cdef Frame f
        cdef size_t at = 0
        cdef int status
        cdef size_t have
        cdef _Fenced memory
        cdef uint8_t *p
        frames = []
        if self.error:
            return frames
        data = self.rest + data
        have = len(data)
        memory = _Fenced(have)
        p = memory.put(data)
        while not self.error:
            status = parse_frame(p + at, have - at, self.from_client, &f)
            if status == FRAME_SHORT:
                break
            if status != FRAME_OK:
                self.error = status
                break
            unmask(f.payload, f.payload, f.length, f.mask)
            if f.opcode == OP_CLOSE and not close_code_valid(f.payload, f.length):
                self.error = CLOSE_PROTOCOL_ERROR
            else:
                self.take(f.opcode, f.final, (<char *>f.payload)[:f.length], frames)
            at += f.header + f.length
        self.rest = (<char *>p)[at:have]
        return frames

    cdef take(self, int opcode, bint final, bytes payload, list frames):
        if opcode >= OP_CLOSE:
            frames.append((opcode, payload))
            return
        if (opcode == OP_CONTINUATION) != (self.fragments is not None):
            self.error = CLOSE_PROTOCOL_ERROR
            return
        if opcode != OP_CONTINUATION:
            self.fragments = b""
            self.fragment_opcode = opcode
        self.fragments += payload
        if len(self.fragments) > WIRE_PAYLOAD_MAX:
            self.error = CLOSE_TOO_LARGE
        elif final:
            frames.append((self.fragment_opcode, self.fragments))
            self.fragments = None


def segment(bytes vnet not None, bytes packet not None):
    cdef Super u
    cdef _Fenced memory, room
    cdef uint8_t *data
    cdef uint8_t *out
    cdef uint32_t i, length
    if len(vnet) != VNET_BYTES:
        raise ValueError(f"a virtio header has {VNET_BYTES} bytes, not {len(vnet)}")
    memory = _Fenced(VNET_BYTES + len(packet))
    data = memory.put(vnet + packet)
    if not super_parse(data, data + VNET_BYTES, <uint32_t>len(packet), &u):
        raise ValueError("the packet is not what its virtio header claims")
    found = []
    room = _Fenced(super_segment_size(&u))
    out = room.end - super_segment_size(&u)
    for i in range(super_count(&u)):
        length = super_segment(&u, i, out)
        found.append((<char *>out)[:length])
    return found


def cut(bytes vnet not None, bytes packet not None, uint32_t n):
    cdef Super u
    cdef _Fenced memory, room
    cdef uint8_t *data
    cdef uint8_t *out
    cdef uint32_t length
    cdef uint32_t i = 0
    if len(vnet) != VNET_BYTES or not 1 <= n <= 65535:
        raise ValueError(f"a virtio header has {VNET_BYTES} bytes, not {len(vnet)}; a part 1 packet to 65535")
    memory = _Fenced(VNET_BYTES + len(packet))
    data = memory.put(vnet + packet)
    if not super_parse(data, data + VNET_BYTES, <uint32_t>len(packet), &u) or u.gso_size == 0:
        raise ValueError("not a super-packet that can be cut")
    found = []
    length = VNET_BYTES + min(u.length, u.headers + n * u.gso_size)
    room = _Fenced(length)
    out = room.end - length
    while i < super_count(&u):
        length = super_part(&u, data[1], i, n, out)
        found.append((<char *>out)[:length])
        i += n
    return found


def write_device(list payloads not None, *, bint vnet=True, uint32_t own=0):
    cdef Worker *w = <Worker *>calloc(1, sizeof(Worker))
    cdef Slot *s = <Slot *>calloc(1, sizeof(Slot))
    cdef Merge *m = <Merge *>calloc(1, sizeof(Merge))
    cdef bytes payload
    cdef _Fenced memory
    cdef int i
    kept = []                       # what is put together points into it
    found = []
    ours, kernel = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        if w != NULL:
            w.scratch = <uint8_t *>malloc(2 * WIRE_PAYLOAD_MAX + FRAME_HEADER_MAX)
        if w == NULL or w.scratch == NULL or s == NULL or m == NULL:
            raise MemoryError
        ours.setblocking(False)
        kernel.setblocking(False)
        s.fd = ours.fileno()
        s.vnet = vnet
        s.own_address = own
        for payload in payloads:
            if len(payload) < (SUPER_MIN if payload[:1] == b"\x10" else FORWARD_MIN):
                raise ValueError("too short for what comes to a device")
            memory = _Fenced(len(payload))
            kept.append(memory)
            tun_packet(w, s, m, memory.put(payload), <uint32_t>len(payload))
            collect_written(kernel, found)
        merge_write(w, s, m)
        collect_written(kernel, found)
        return found, {DROPS[i]: w.counters.drops[i] for i in range(DROPS_COUNT) if w.counters.drops[i]}
    finally:
        if w != NULL:
            free(w.scratch)
        free(w)
        free(s)
        free(m)
        ours.close()
        kernel.close()


cdef collect_written(kernel, list found):
    while True:
        try:
            found.append(kernel.recv(65535 + VNET_BYTES))
        except BlockingIOError:
            return


# Interleavings: see tests/engine/test_interleavings.py.

# In the order of the points in engine/types.pxi.
POINTS = ("appended", "locked", "unlocked", "inbox", "moved_on", "closed")
HAS_POINTS = <bint>point_set(0, False)


def hold_at(str point not None):
    if not point_set(POINTS.index(point), True):
        raise RuntimeError("this build of the engine has no points")


def wait_held(str point not None, double seconds=20):
    cdef int number = POINTS.index(point)
    cdef uint64_t milliseconds = <uint64_t>(seconds * 1000)
    cdef bint held
    if not HAS_POINTS:
        raise RuntimeError("this build of the engine has no points")
    with nogil:
        held = point_held(number, milliseconds)
    return held


def release(str point not None):
    if not point_set(POINTS.index(point), False):
        raise RuntimeError("this build of the engine has no points")
