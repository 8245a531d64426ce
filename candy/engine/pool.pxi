# Memory that waits: blocks for backlogs and incomplete frames, under one limit for the whole engine.

cdef enum:
    FOR_PACKETS
    FOR_INPUT
    FOR_CERTAIN

cdef enum:
    POOL_KEEP = 1024                # free blocks kept for the next backlog


cdef inline uint8_t *block_bytes(Block *b) noexcept nogil:
    return <uint8_t *>(b + 1)


cdef Block *block_take(BlockPool *pool, uint32_t capacity, int use) noexcept nogil:
    """A block with room for at least `capacity` bytes; NULL when the pool's limit is reached or memory is out.

    What waits for receivers (FOR_PACKETS) may take all but an eighth, so that stalled ones don't keep the others'
    incomplete and control frames (FOR_INPUT) from being kept. FOR_CERTAIN has no limit: the rest of a begun frame can't
    be dropped any more.
    """
    cdef Block *b = NULL
    cdef bint allowed
    cdef uint64_t limit = pool.limit_bytes
    if use == FOR_PACKETS:
        limit -= limit // 8
    if capacity < BLOCK_SMALL:
        capacity = BLOCK_SMALL
    pthread_mutex_lock(&pool.lock)
    allowed = use == FOR_CERTAIN or load_relaxed64(&pool.used_bytes) + capacity <= limit
    if allowed:
        count(&pool.used_bytes, capacity)
        if capacity == BLOCK_SMALL and pool.free != NULL:
            b = pool.free
            pool.free = b.next
            pool.free_count -= 1
    pthread_mutex_unlock(&pool.lock)
    if not allowed:
        return NULL
    if b == NULL:
        b = <Block *>malloc(sizeof(Block) + capacity)
        if b == NULL:
            pthread_mutex_lock(&pool.lock)
            store_relaxed64(&pool.used_bytes, load_relaxed64(&pool.used_bytes) - capacity)
            pthread_mutex_unlock(&pool.lock)
            return NULL
        b.capacity = capacity
    b.next = NULL
    b.start = 0
    b.end = 0
    return b


cdef void block_give(BlockPool *pool, Block *b) noexcept nogil:
    cdef bint keep
    pthread_mutex_lock(&pool.lock)
    store_relaxed64(&pool.used_bytes, load_relaxed64(&pool.used_bytes) - b.capacity)
    keep = b.capacity == BLOCK_SMALL and pool.free_count < POOL_KEEP
    if keep:
        b.next = pool.free
        pool.free = b
        pool.free_count += 1
    pthread_mutex_unlock(&pool.lock)
    if not keep:
        free(b)


cdef void blocks_give(BlockPool *pool, Block *b) noexcept nogil:
    """Give back a whole list."""
    cdef Block *following
    while b != NULL:
        following = b.next
        block_give(pool, b)
        b = following


cdef Block *block_of(BlockPool *pool, const uint8_t *data, uint32_t length, int use) noexcept nogil:
    """A block that holds a copy of these bytes; NULL as block_take."""
    cdef Block *b = block_take(pool, length, use)
    if b != NULL:
        memcpy(block_bytes(b), data, length)
        b.end = length
    return b


cdef Block *block_grow(BlockPool *pool, Block *b, uint32_t capacity) noexcept nogil:
    """Move a block's bytes to a larger one; NULL as block_take. The old one is given back in any case."""
    cdef Block *larger = block_take(pool, max(capacity, 2 * b.capacity), FOR_INPUT)
    if larger != NULL:
        memcpy(block_bytes(larger), block_bytes(b), b.end)
        larger.end = b.end
    block_give(pool, b)
    return larger


# Lists of blocks that hold records, a time stamp of 8 bytes (CLOCK_MONOTONIC, ns) and a frame each: queues and inboxes.

cdef inline uint64_t record_stamp(Block *b) noexcept nogil:
    """When the first record of a block was put in."""
    return load64(block_bytes(b) + b.start)


cdef inline uint8_t *record_frame(Block *b) noexcept nogil:
    """The first record's frame."""
    return block_bytes(b) + b.start + STAMP_BYTES


cdef bint records_append(BlockPool *pool, Block **head, Block **tail, const uint8_t *frame, uint32_t size,
                         uint64_t stamp_ns, int use) noexcept nogil:
    """Copy a frame to the end of a list; False when there is no memory for it."""
    cdef Block *b = tail[0]
    if b == NULL or b.capacity - b.end < size + STAMP_BYTES:
        b = block_take(pool, size + STAMP_BYTES, use)
        if b == NULL:
            return False
        if tail[0] == NULL:
            head[0] = b
        else:
            tail[0].next = b
        tail[0] = b
    memcpy(block_bytes(b) + b.end, &stamp_ns, STAMP_BYTES)
    memcpy(block_bytes(b) + b.end + STAMP_BYTES, frame, size)
    b.end += size + STAMP_BYTES
    return True


cdef void pool_empty(BlockPool *pool) noexcept nogil:
    cdef Block *b
    while pool.free != NULL:
        b = pool.free
        pool.free = b.next
        free(b)
