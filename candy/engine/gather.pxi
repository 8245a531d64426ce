# Gathering: the frames of one batch, brought to their final places and linked by destination.
#
# 1. place()    says where a frame is put together
# 2. emit()     adds it to its destination's runs, which lie in the receive buffer or in the worker's arena
# 3. flush()    hands each destination's on, to deliver()

cdef enum:
    GATHER_BELOW = 8192             # runs shorter than this are worth gathering


cdef inline uint8_t *place(Worker *w, uint64_t connection, uint8_t *frame, uint32_t size) noexcept nogil:
    """Where the next frame, of at most `size` bytes in its final form and now at `frame`, is to be put together.

    In a run to one destination each frame moves left, to where the one before ended: the run becomes one piece
    without further copying. Where destinations alternate, the frame, which has to be unmasked anyhow, goes straight to
    the destination's own piece of the worker's arena, because system calls of many tiny pieces are slow.
    """
    if likely(connection == w.run_connection and <size_t>(w.run_limit - w.run_end) >= size):
        return w.run_end
    return place_apart(w, connection, frame, size)


cdef uint8_t *place_apart(Worker *w, uint64_t connection, uint8_t *frame, uint32_t size) noexcept nogil:
    """The slower half of place()."""
    cdef uint32_t index
    cdef Target *t
    if w.run_count == RUNS_MAX or w.target_count == TARGETS_MAX:
        flush(w)                    # before anything is put into the arena, which this empties
    run_end(w)
    index = w.target_of[<uint32_t>connection]
    if index == 0 or size > ARENA_CHUNK:
        return frame
    t = &w.targets[index - 1]
    if t.last == RUNS_MAX or (w.runs[t.last].length >= GATHER_BELOW and not t.chunk_left):
        return frame                # nothing there yet, or long runs, which go as they are
    if t.chunk_left < size:
        if w.arena_used == ARENA_CHUNKS:
            return frame
        t.chunk = w.arena + <size_t>w.arena_used * ARENA_CHUNK
        t.chunk_left = ARENA_CHUNK
        w.arena_used += 1
    return t.chunk


cdef inline bint emit(Worker *w, uint64_t connection, uint8_t *frame, uint32_t size, uint32_t payload) noexcept nogil:
    """Add one wire-ready frame to its destination's runs. It stays where it is until flush(). False: dropped."""
    cdef Target *t
    cdef Run *g
    if likely(connection == w.run_connection):
        t = &w.targets[w.run_target]
        g = &w.runs[t.last]
        if likely(frame == w.run_end and payload <= t.payload_max):
            g.length += size
            t.packets += 1
            w.run_end = frame + size
            w.work -= w.run_work
            return True
    return emit_apart(w, connection, frame, size, payload)


cdef bint target_of_trunk(Worker *w, Slot *s, Target *t) noexcept nogil:
    """Say before a trunk's frames of which network they are; False: the trunk has ended."""
    cdef const Trunk *trunk
    point(POINT_CHOSEN)
    trunk = trunk_of(s)
    if trunk == NULL or trunk.numbers[w.trunk_network] == 0:
        return False
    t.before_size = network_frame(t.before, trunk.numbers[w.trunk_network] - 1)
    return True


cdef bint emit_apart(Worker *w, uint64_t connection, uint8_t *frame, uint32_t size, uint32_t payload) noexcept nogil:
    """The slower half of emit(): another destination than the frame before."""
    cdef uint32_t slot = <uint32_t>connection
    cdef uint32_t index
    cdef Target *t
    cdef Run *g
    cdef Slot *s = &w.engine.slots[slot]
    if w.run_count == RUNS_MAX or w.target_count == TARGETS_MAX:
        send_targets(w)             # not flush(): this very frame may lie in the arena
    run_end(w)
    index = w.target_of[slot]
    if index == 0:
        t = &w.targets[w.target_count]
        t.before_size = 0
        if unlikely(load_relaxed64(&s.kind) == SLOT_TRUNK) and not target_of_trunk(w, s, t):
            count(&w.counters.drops[DROP_STALE], 1)
            return False
        w.target_count += 1
        w.target_of[slot] = w.target_count
        t.connection = connection
        t.first = t.last = RUNS_MAX
        t.packets = 0
        t.unsealed = False
        t.chunk = NULL
        t.chunk_left = 0
        t.payload_max = WIRE_PAYLOAD_MAX if takes_super(s) else WIRE_PAYLOAD_LEGACY
        if has_candy3(s):
            t.payload_max = WIRE_PAYLOAD_CANDY3 + MASK_BYTES
        w.work -= WORK_CALL
        index = w.target_count
    t = &w.targets[index - 1]
    if unlikely(t.connection != connection):
        count(&w.counters.drops[DROP_STALE], 1)         # the slot changed hands within this batch
        return False
    if unlikely(payload > t.payload_max):
        watched_moved(w, frame, size)
        drop_frame(w, s, DROP_TOO_LARGE, frame, size)
        return False
    if t.last != RUNS_MAX and w.runs[t.last].bytes + w.runs[t.last].length == frame:
        w.runs[t.last].length += size
    else:
        g = &w.runs[w.run_count]
        g.bytes = frame
        g.length = size
        g.next = RUNS_MAX
        if t.first == RUNS_MAX:
            t.first = w.run_count
        else:
            w.runs[t.last].next = w.run_count
        t.last = w.run_count
        w.run_count += 1
    t.packets += 1
    w.run_connection = connection
    w.run_target = index - 1
    # A frame of its own for the kernel: a TCP segment to an old peer, a write to a device.
    w.run_work = 0 if load_relaxed64(&s.extended) else <uint32_t>WORK_SEGMENT
    w.work -= w.run_work
    w.run_end = frame + size
    # In the arena a run ends with the chunk; in the receive buffer what moves left can't outgrow what it came from.
    w.run_limit = t.chunk + t.chunk_left if frame == t.chunk else <uint8_t *>UINTPTR_MAX
    return True


cdef uint8_t *arena_take(Worker *w, uint32_t size) noexcept nogil:
    """Room in the arena; the caller moves w.bump over the part that it used. A frame emitted from here ends its run."""
    if w.bump_left < size:
        if w.arena_used == ARENA_CHUNKS:
            flush(w)
        w.bump = w.arena + <size_t>w.arena_used * ARENA_CHUNK
        w.bump_left = ARENA_CHUNK
        w.arena_used += 1
    return w.bump


cdef inline void run_end(Worker *w) noexcept nogil:
    """The next frame is no continuation of the last one: neither of its destination nor of its place in memory."""
    cdef Target *t
    if w.run_connection != 0:
        t = &w.targets[w.run_target]
        if w.run_limit != <uint8_t *>UINTPTR_MAX:
            t.chunk = w.run_end
            t.chunk_left = <uint32_t>(w.run_limit - w.run_end)
    w.run_connection = 0


cdef void flush(Worker *w) noexcept nogil:
    """Send everything gathered. The receive buffer and the arena are free again afterwards."""
    send_targets(w)
    w.arena_used = 0
    w.bump_left = 0


cdef void send_targets(Worker *w) noexcept nogil:
    """Send everything gathered; the arena goes on from where it is."""
    cdef uint32_t i
    cdef bint watched = w.watched.on
    w.watched.on = False            # what is dropped here is another packet than the one at hand
    for i in range(w.target_count):
        w.target_of[<uint32_t>w.targets[i].connection] = 0
        deliver(w, &w.targets[i])
    w.watched.on = watched
    w.target_count = 0
    w.run_count = 0
    w.run_connection = 0
