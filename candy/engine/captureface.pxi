# What Python says of captures, and reads of them: the Engine's part of it. Runs on one Python thread.

cdef enum:
    SNAP_LEAST = 64
    SNAP_MOST = 65535
    RING_LEAST = 4096
    READ_MOST = 262144
    OPTION_END = 0
    OPTION_COMMENT = 1
    OPTION_FLAGS = 2
    FLAGS_IN = 1
    FLAGS_OUT = 2

CAPTURE_MOST = CAPTURES_MAX
CAPTURE_READ = READ_MOST


cdef class _Capturing(_OldLinks):
    """Captures: see _fastpath.pyi."""

    cdef Capture *captured(self, int number) except NULL:
        cdef EngineState *e = self.alive()
        if not 0 <= number < CAPTURES_MAX or e.captures[number] == NULL:
            raise ValueError(f"no capture {number}")
        return e.captures[number]

    def capture(self, connection, *, uint64_t ring_bytes=4194304, uint32_t snap=SNAP_MOST, bint drops_only=False,
                uint64_t clock_ns=0):
        cdef EngineState *e = self.alive()
        cdef Slot *s = self.find(connection)
        cdef Capture *c
        cdef int number = 0
        if not RING_LEAST <= ring_bytes <= 1 << 30:
            raise ValueError(f"ring_bytes must be from {RING_LEAST} to {1 << 30}, not {ring_bytes}")
        if not SNAP_LEAST <= snap <= SNAP_MOST:
            raise ValueError(f"snap must be from {SNAP_LEAST} to {SNAP_MOST}, not {snap}")
        if s == NULL or s.kind >= SLOT_TRUNK:
            return None
        if s.capture != NULL:
            raise ValueError("it is being captured")
        while number < CAPTURES_MAX and e.captures[number] != NULL:
            number += 1
        if number == CAPTURES_MAX:
            raise ValueError(f"an engine has at most {CAPTURES_MAX} captures")
        c = <Capture *>calloc(1, sizeof(Capture) + ring_bytes)
        if c == NULL:
            raise MemoryError
        pthread_mutex_init(&c.lock, NULL)
        c.connection = connection
        c.drops_only = drops_only
        c.snap = snap
        c.clock_ns = clock_ns
        c.size = ring_bytes
        tails_write(c)
        e.captures[number] = c
        store_pointer(<void **>&s.capture, c)
        return number

    def read_capture(self, int number):
        cdef Capture *c = self.captured(number)
        cdef uint64_t at = load_relaxed64(&c.read)
        cdef uint64_t place = at % c.size
        cdef uint64_t n = min(load_acquire64(&c.written) - at, <uint64_t>READ_MOST)
        cdef uint64_t first = min(n, c.size - place)
        cdef const char *ring = <const char *>(c + 1)
        found = ring[place:place + first] + ring[:n - first]
        store_release64(&c.read, at + n)
        return found

    def capture_stats(self, int number):
        cdef Capture *c = self.captured(number)
        return load_relaxed64(&c.packets), load_relaxed64(&c.lost), c.over

    def end_capture(self, int number):
        cdef Capture *c = self.captured(number)
        cdef Slot *s = self.find(c.connection)
        self.state.captures[number] = NULL
        if s != NULL and s.capture == c:
            store_pointer(<void **>&s.capture, NULL)
        table_retire(self.state, &c.table)


cdef tails_write(Capture *c):
    """What stands behind packets of each kind."""
    cdef Tail *tail
    for reason in range(DROPS_COUNT + 1):
        for is_sealed in (False, True):
            said = ["sealed"] if is_sealed else []
            if reason < DROPS_COUNT:
                said.append(f"dropped: {DROPS[reason]}")
            for is_out in (False, True):
                written = option(OPTION_COMMENT, "; ".join(said).encode()) if said else b""
                written += option(OPTION_FLAGS, (FLAGS_OUT if is_out else FLAGS_IN).to_bytes(4, "little"))
                written += option(OPTION_END, b"")
                tail = &c.tails[tail_place(reason, is_sealed, is_out)]
                if len(written) > <Py_ssize_t>sizeof(tail.bytes):
                    raise SystemError("a Tail is too short for the name of a drop")
                tail.length = <uint32_t>len(written)
                memcpy(tail.bytes, <const char *>written, len(written))


cdef bytes option(int code, bytes value):
    """An option of a pcapng block."""
    return code.to_bytes(2, "little") + len(value).to_bytes(2, "little") + value + bytes(-len(value) & 3)
