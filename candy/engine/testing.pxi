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
    BACKLOG_PAYLOAD_MAX = 65604     # WIRE_PAYLOAD_CANDY3 and a mask


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
    cdef uint32_t most
    cdef readonly int error
    cdef bytes rest
    cdef object fragments
    cdef int fragment_opcode

    def __cinit__(self, *, bint client=False, bint candy3=False):
        self.from_client = not client
        self.most = WIRE_PAYLOAD_CANDY3 if candy3 else WIRE_PAYLOAD_MAX
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
            status = parse_frame(p + at, have - at, self.from_client, self.most, &f)
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
        if len(self.fragments) > self.most:
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


def write_device(list payloads not None, *, bint vnet=True, uint32_t own=0, rules=()):
    cdef EngineState *e = <EngineState *>calloc(1, sizeof(EngineState))
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
            w.scratch = <uint8_t *>malloc(2 * WIRE_PAYLOAD_CANDY3 + FRAME_HEADER_MAX)
        if e != NULL:
            e.networks[0] = network_make(0)
        if (w == NULL or w.scratch == NULL or s == NULL or m == NULL or e == NULL
                or e.networks[0] == NULL):
            raise MemoryError
        w.engine = e
        e.networks[0].check_source = True
        e.networks[0].rules = rules_table(rules)
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
            tun_packet(w, s, m, memory.put(payload), <uint32_t>len(payload), False)
            collect_written(kernel, found)
        merge_write(w, s, m)
        collect_written(kernel, found)
        return found, {DROPS[i]: w.counters.drops[i] for i in range(DROPS_COUNT) if w.counters.drops[i]}
    finally:
        if w != NULL:
            free(w.scratch)
        if e != NULL and e.networks[0] != NULL:
            network_free(e.networks[0])
        free(e)
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


cdef class Backlog:
    """See _fastpath.pyi."""
    cdef EngineState *engine
    cdef Worker *worker
    cdef Slot *slot
    cdef bint masked

    def __cinit__(self, *, tuple key not None, bint masked=False):
        cdef Worker *w
        cdef EngineState *e
        cdef int i
        self.masked = masked
        self.engine = e = <EngineState *>calloc(1, sizeof(EngineState))
        self.worker = w = <Worker *>calloc(1, sizeof(Worker))
        self.slot = <Slot *>calloc(1, sizeof(Slot))
        if e == NULL or w == NULL or self.slot == NULL:
            raise MemoryError
        w.engine = e
        # So much that what waits is never short of it, and no destination stalls.
        e.queue_bytes = 1 << 30
        e.pool.limit_bytes = 1 << 32
        e.networks[0] = network_make(0)
        if e.networks[0] == NULL:
            raise MemoryError
        self.slot.waiting = True            # no worker is to be asked to look again
        for i in range(3):
            e.flow_key[i] = key[i]
        w.scratch = <uint8_t *>malloc(2 * WIRE_PAYLOAD_CANDY3 + FRAME_HEADER_MAX)
        if w.scratch == NULL or queue_of(w, self.slot) == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.worker != NULL and self.slot != NULL and self.engine != NULL:
            queue_free(self.worker, self.slot)
            spare_free(self.worker)
            free(self.worker.scratch)
        if self.engine != NULL and self.engine.networks[0] != NULL:
            network_free(self.engine.networks[0])
        free(self.engine)
        free(self.worker)
        free(self.slot)

    @property
    def rate(self):
        return self.slot.queue.rate

    @rate.setter
    def rate(self, uint64_t rate):
        self.slot.queue.rate = rate

    def limit(self, uint64_t own, uint64_t shared=0):
        cdef Network *network = self.engine.networks[0]
        bucket_set(&self.slot.down.bucket, own)
        bucket_set(&network.down, shared)
        self.slot.down_pace = limit_pace(&self.slot.down, &network.down)

    @property
    def drops(self):
        cdef int i
        return {DROPS[i]: self.slot.drops[i] for i in range(DROPS_COUNT) if self.slot.drops[i]}

    @property
    def memory(self):
        return self.engine.pool.used_bytes

    @property
    def places(self):
        cdef Flow *f
        cdef int i
        if self.slot.queue.sub == NULL:
            return {}
        found = {}
        for i in range(FLOWS + 1):
            f = sub_queue(self.slot.queue, i)
            if f != NULL and f.head != NULL:
                found[i] = f.bytes
        return found

    def append(self, bytes payload not None, uint64_t now):
        cdef bytearray frame
        cdef uint32_t size
        if not 1 <= len(payload) <= BACKLOG_PAYLOAD_MAX:
            raise ValueError(f"a payload has 1 to {BACKLOG_PAYLOAD_MAX} bytes, not {len(payload)}")
        frame = bytearray(len(payload) + FRAME_HEADER_MAX)
        self.worker.now = now
        size = build_frame(<uint8_t *><char *>frame, OP_BINARY, <const uint8_t *><const char *>payload,
                           <uint32_t>len(payload), self.masked, next_mask(self.slot))
        queue_append(self.worker, self.slot, <const uint8_t *><char *>frame, size, now)

    def take(self, uint64_t now):
        cdef Queue *q = self.slot.queue
        cdef Flow *f
        cdef uint32_t size
        self.worker.now = now
        f = queue_next(self.worker, self.slot, q)
        if f == NULL:
            return None
        size = record_size(f.head)
        payload = unmasked_payload(record_frame(f.head))
        f.credit -= <int32_t>size
        record_give(self.worker, flow_take(q, f, size), size)
        queue_settle(self.worker, self.slot, q)
        return payload

    def commit(self, uint64_t now):
        cdef Block *b
        found = []
        self.worker.now = now
        if queue_commit(self.worker, self.slot, self.slot.queue):
            b = self.slot.queue.committed
            while b.start < b.end:
                found.append(unmasked_payload(block_bytes(b) + b.start))
                b.start += frame_size(block_bytes(b) + b.start)
        queue_settle(self.worker, self.slot, self.slot.queue)
        return found

    def shed(self, uint64_t limit):
        queue_make_room(self.worker, self.slot, self.slot.queue, limit, DROP_QUEUE_FULL)


cdef class TokenBucket:
    """See _fastpath.pyi."""
    cdef Bucket bucket

    def __cinit__(self, uint64_t rate):
        self.bucket.rate = rate

    def take(self, uint64_t size, uint64_t now):
        return bucket_take(&self.bucket, now, size, LIMIT_CREDIT_NS)

    def give(self, uint64_t size):
        bucket_give(&self.bucket, size)


cdef class Limited:
    """See _fastpath.pyi."""
    cdef Limit limit
    cdef TokenBucket shared
    cdef readonly uint64_t held

    def __cinit__(self, uint64_t rate, TokenBucket shared not None):
        self.limit.bucket.rate = rate
        self.shared = shared

    @property
    def piece(self):
        return limit_piece(limit_pace(&self.limit, &self.shared.bucket))

    def dropped(self, uint64_t now):
        limit_stalled(&self.limit, now)

    def passes(self, uint64_t size, uint64_t now):
        cdef Worker w
        w.now = now
        if not limit_open(&w, &self.limit, &self.held):
            return False
        limit_charge(&w, &self.limit, &self.shared.bucket, size)
        return True


cdef bytes unmasked_payload(uint8_t *frame):
    """The payload of a frame that this engine built and sends no more."""
    cdef uint32_t header = frame_header(frame)
    cdef uint8_t *payload = frame + header
    cdef uint32_t length = frame_size(frame) - header
    if frame[1] >> 7:
        unmask(payload, payload, length, load32(payload - 4))
    return (<char *>payload)[:length]


def flow_key(_Core engine not None):
    cdef uint64_t *key = engine.alive().flow_key
    return key[0], key[1], key[2]


def replaced_tables(_Core engine not None):
    cdef Table *table = engine.alive().replaced
    n = 0
    while table != NULL:
        n += 1
        table = table.next
    return n


def kept_networks(_Core engine not None):
    cdef EngineState *e = engine.alive()
    cdef uint32_t i
    return sum([e.networks[i] != NULL for i in range(e.network_count)])


def capture_afforded(moments, uint32_t size):
    cdef Worker *w = <Worker *>calloc(1, sizeof(Worker))
    if w == NULL:
        raise MemoryError
    found = []
    for moment in moments:
        w.now = moment
        found.append(capture_afford(w, size))
    free(w)
    return found


# Interleavings: see tests/engine/test_interleavings.py.

# In the order of the points in engine/types.pxi.
POINTS = ("appended", "locked", "compared", "unlocked", "inbox", "taken", "moved_on", "closed", "table", "secured",
          "handed", "opened", "watched", "contended", "captured", "path", "came", "chosen")
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
