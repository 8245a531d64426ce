# Memory that waits: blocks for backlogs and incomplete frames, under one limit for the whole engine.

cdef inline uint8_t *block_bytes(Block *b) noexcept nogil:
    return <uint8_t *>(b + 1)


cdef Block *block_take(BlockPool *pool, uint32_t capacity, bint forced) noexcept nogil:
    """A block with room for at least `capacity` bytes; NULL when the pool's limit is reached or memory is out.

    forced: the bytes can't be dropped any more (the rest of a begun frame), so the limit doesn't apply.
    """
    cdef Block *b = NULL
    cdef bint allowed
    if capacity < BLOCK_SMALL:
        capacity = BLOCK_SMALL
    pthread_mutex_lock(&pool.lock)
    allowed = forced or load_relaxed64(&pool.used_bytes) + capacity <= pool.limit_bytes
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
    b.stamp_ns = 0
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


cdef Block *block_of(BlockPool *pool, const uint8_t *data, uint32_t length, bint forced) noexcept nogil:
    """A block that holds a copy of these bytes; NULL as block_take."""
    cdef Block *b = block_take(pool, length, forced)
    if b != NULL:
        memcpy(block_bytes(b), data, length)
        b.end = length
    return b


cdef Block *block_grow(BlockPool *pool, Block *b, uint32_t capacity) noexcept nogil:
    """Move a block's bytes to a larger one; NULL as block_take. The old one is given back in any case."""
    cdef Block *larger = block_take(pool, max(capacity, 2 * b.capacity), False)
    if larger != NULL:
        memcpy(block_bytes(larger), block_bytes(b), b.end)
        larger.end = b.end
    block_give(pool, b)
    return larger


cdef void pool_empty(BlockPool *pool) noexcept nogil:
    cdef Block *b
    while pool.free != NULL:
        b = pool.free
        pool.free = b.next
        free(b)
