# What waits for a destination and is no packet: control frames, messages between the relay and a member. Always served
# first, by queue_commit(). How much of it may wait is decided where it is left: inbox_control().
#
# They lie in one block, frame behind frame. Most have a few bytes, of which a record each would be many times the size.

cdef void control_put(Worker *w, Slot *s, Queue *q, const uint8_t *frame, uint32_t size) noexcept nogil:
    """Copy a frame behind those that wait. Not subject to the memory limit, which it was left under."""
    cdef Block *b = q.control
    cdef Block *larger
    cdef uint32_t left = 0
    cdef uint32_t room
    if b == NULL or b.capacity - b.end < size:
        if b != NULL:
            left = b.end - b.start
        room = left + size
        if room > STRANGER_BYTES:
            room *= 2               # up to there in steps of a frame: a stranger has no byte in vain
        larger = block_take(w, room, FOR_CERTAIN)
        if larger == NULL:
            control_release(s, size)
            drop(w, s, DROP_MEMORY)
            return
        if b == NULL:
            q.control_ns = w.now
        else:
            memcpy(block_bytes(larger), block_bytes(b) + b.start, left)
            larger.end = left
            block_give(w, b)
        q.control = b = larger
    memcpy(block_bytes(b) + b.end, frame, size)
    b.end += size
    q.bytes += size


cdef inline uint8_t *control_head(Queue *q) noexcept nogil:
    """The first frame, of a queue that has one."""
    return block_bytes(q.control) + q.control.start


cdef inline void control_release(Slot *s, uint32_t size) noexcept nogil:
    """A frame that was left no longer waits."""
    add_relaxed64(&s.control_bytes, -<uint64_t>record_memory(size))


cdef uint32_t control_commit(Worker *w, Slot *s, Queue *q, Block *b, uint32_t most) noexcept nogil:
    """Move frames to the (empty) block to commit, at most so many, and as many as have room there; returns how many."""
    cdef uint32_t frames = 0
    cdef uint32_t size
    while q.control.start < q.control.end and frames < most:
        size = frame_size(control_head(q))
        if b.end + size > b.capacity:
            break
        memcpy(block_bytes(b) + b.end, control_head(q), size)
        b.end += size
        frames += 1
        q.control.start += size
        q.bytes -= size
        control_release(s, size)
    q.control = block_fit(w, q.control)
    return frames
