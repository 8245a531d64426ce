# Memory that waits, under one limit for the whole engine: frames in queues and inboxes, input that was not processed.
#
# A frame that waits has a piece of memory of its own (a Record), of its own size: what a backlog takes is in proportion
# to what waits in it, whatever the frames' sizes, and the order in which they leave. Each worker keeps some pieces for
# reuse, so that neither a lock nor the C library stands in the way of most.

cdef enum:
    FOR_PACKETS                     # what waits for receivers: all but an eighth of the limit
    FOR_INPUT                       # members' incomplete frames, control frames: all of it
    FOR_STRANGERS                   # input of and answers to who has not authenticated: a sixteenth, within the above
    FOR_CERTAIN                     # what can't be dropped any more: no limit
    SPARE_BYTES = 1048576           # kept by a worker for reuse


cdef inline uint32_t memory_size(uint32_t size) noexcept nogil:
    """What a piece of this size takes."""
    return (size + MEMORY_UNIT - 1) & ~<uint32_t>(MEMORY_UNIT - 1)


cdef inline uint64_t pool_room(const Pool *pool) noexcept nogil:
    """Bytes that packets may still take."""
    cdef uint64_t used = load_relaxed64(&pool.used_bytes)
    cdef uint64_t limit = pool.limit_bytes - pool.limit_bytes // 8
    return limit - used if used < limit else 0


cdef inline bint pool_is_short(const Pool *pool) noexcept nogil:
    """Whether memory is worth taking back from who makes no use of it."""
    return load_relaxed64(&pool.used_bytes) > pool.limit_bytes // 2


cdef bint pool_charge(Pool *pool, uint32_t size, int use) noexcept nogil:
    """Count memory that is to be taken; False when it would be more than `use` may have."""
    cdef uint64_t limit = pool.limit_bytes
    if use == FOR_PACKETS:
        limit -= limit // 8
    elif use == FOR_STRANGERS:
        if add_relaxed64(&pool.stranger_bytes, size) + size > limit // 16:
            add_relaxed64(&pool.stranger_bytes, -<uint64_t>size)
            return False
    if add_relaxed64(&pool.used_bytes, size) + size > limit and use != FOR_CERTAIN:
        pool_discharge(pool, size, use)
        return False
    return True


cdef void pool_discharge(Pool *pool, uint32_t size, int use) noexcept nogil:
    """Count memory that was given back, or could not be had."""
    add_relaxed64(&pool.used_bytes, -<uint64_t>size)
    if use == FOR_STRANGERS:
        add_relaxed64(&pool.stranger_bytes, -<uint64_t>size)


cdef void *memory_take(Worker *w, uint32_t size, int use) noexcept nogil:
    """A piece of memory; NULL when `use` has had all that it may have, or the machine has none."""
    cdef uint32_t place
    cdef void *piece
    size = memory_size(size)
    if not pool_charge(&w.engine.pool, size, use):
        return NULL
    place = size // MEMORY_UNIT - 1
    if place < SPARE_CLASSES and w.spare[place] != NULL:
        piece = w.spare[place]
        w.spare[place] = (<void **>piece)[0]
        w.spare_bytes -= size
        return piece
    piece = malloc(size)
    if piece == NULL:
        pool_discharge(&w.engine.pool, size, use)
    return piece


cdef void memory_give(Worker *w, void *piece, uint32_t size, int use) noexcept nogil:
    """Give a piece back: the size and the use that it was taken with."""
    cdef uint32_t place
    size = memory_size(size)
    pool_discharge(&w.engine.pool, size, use)
    place = size // MEMORY_UNIT - 1
    if place < SPARE_CLASSES and w.spare_bytes < SPARE_BYTES:
        (<void **>piece)[0] = w.spare[place]
        w.spare[place] = piece
        w.spare_bytes += size
    else:
        free(piece)


cdef void spare_free(Worker *w) noexcept nogil:
    """Give a worker's spare pieces to the machine."""
    cdef uint32_t i
    cdef void *piece
    for i in range(SPARE_CLASSES):
        while w.spare[i] != NULL:
            piece = w.spare[i]
            w.spare[i] = (<void **>piece)[0]
            free(piece)


# Blocks: input, and what is handed to the kernel.

cdef inline uint8_t *block_bytes(Block *b) noexcept nogil:
    return <uint8_t *>(b + 1)


cdef Block *block_take(Worker *w, uint32_t capacity, int use) noexcept nogil:
    """A block with room for so many bytes; NULL as memory_take."""
    cdef Block *b = <Block *>memory_take(w, <uint32_t>sizeof(Block) + capacity, use)
    if b != NULL:
        b.start = 0
        b.end = 0
        b.capacity = capacity
        b.use = use
    return b


cdef void block_give(Worker *w, Block *b) noexcept nogil:
    if b != NULL:
        memory_give(w, b, <uint32_t>sizeof(Block) + b.capacity, b.use)


cdef Block *block_of(Worker *w, const uint8_t *data, uint32_t length, int use) noexcept nogil:
    """A block that holds a copy of these bytes; NULL as memory_take."""
    cdef Block *b = block_take(w, length, use)
    if b != NULL:
        memcpy(block_bytes(b), data, length)
        b.end = length
    return b


cdef Block *block_grow(Worker *w, Block *b, uint32_t capacity, int use) noexcept nogil:
    """Move a block's bytes to a larger one; NULL as memory_take. The old one is given back in any case."""
    cdef Block *larger = block_take(w, capacity, use)
    if larger != NULL:
        memcpy(block_bytes(larger), block_bytes(b), b.end)
        larger.end = b.end
    block_give(w, b)
    return larger


cdef Block *block_fit(Worker *w, Block *b) noexcept nogil:
    """A block with no more room than twice what this one holds, in place of it; NULL for one that holds nothing."""
    cdef Block *smaller
    if b == NULL or b.capacity <= 2 * (b.end - b.start):
        return b
    if b.start == b.end:
        block_give(w, b)
        return NULL
    smaller = block_of(w, block_bytes(b) + b.start, b.end - b.start, b.use)
    if smaller == NULL:
        return b                    # the machine has no memory: then as it is
    block_give(w, b)
    return smaller


# Records: frames that wait.

cdef inline uint8_t *record_frame(Record *r) noexcept nogil:
    return <uint8_t *>(r + 1)


cdef inline uint32_t record_size(Record *r) noexcept nogil:
    """Bytes of its frame."""
    return frame_size(record_frame(r))


cdef inline uint32_t record_memory(uint32_t size) noexcept nogil:
    """What a record takes whose frame has so many bytes."""
    return memory_size(<uint32_t>sizeof(Record) + size)


cdef inline int64_t record_beside(uint32_t size) noexcept nogil:
    """What it takes beyond twice the bytes of its frame; less than nothing for most."""
    return <int64_t>record_memory(size) - 2 * <int64_t>size


cdef inline Record *record_take(Worker *w, uint32_t size, uint64_t stamp_ns, int use) noexcept nogil:
    """Room for a frame of so many bytes; NULL as memory_take."""
    cdef Record *r = <Record *>memory_take(w, <uint32_t>sizeof(Record) + size, use)
    if r != NULL:
        r.next = NULL
        r.stamp_ns = stamp_ns
    return r


cdef inline Record *record_of(Worker *w, const uint8_t *frame, uint32_t size, uint64_t stamp_ns,
                              int use) noexcept nogil:
    """A record that holds a copy of this frame; NULL as memory_take."""
    cdef Record *r = record_take(w, size, stamp_ns, use)
    if r != NULL:
        memcpy(record_frame(r), frame, size)
    return r


cdef inline Record *record_behind(Worker *w, const uint8_t *before, uint32_t before_size, const uint8_t *frame,
                                  uint32_t size, uint64_t stamp_ns, int use) noexcept nogil:
    """The same with something before the frame."""
    cdef Record *r = record_take(w, before_size + size, stamp_ns, use)
    if r != NULL:
        memcpy(record_frame(r), before, before_size)
        memcpy(record_frame(r) + before_size, frame, size)
    return r


cdef inline void record_give(Worker *w, Record *r, uint32_t size) noexcept nogil:
    """Give a record back whose frame has so many bytes."""
    # Packets and control frames are counted alike. What counts as a stranger's as well, its slot knows.
    memory_give(w, r, <uint32_t>sizeof(Record) + size, FOR_PACKETS)
