# Which counters have come: each is taken once, and none that is WINDOW_PACKETS below the greatest. Fair queueing
# reorders flows, and 4 MiB of packets of 100 bytes are 32,000. Pure.
#
# While all come in order, a number says it all. With the first that does not, a window gets its bits; where there is no
# memory for them, what is late is dropped.

cdef enum:
    WINDOW_PACKETS = 65536
    WINDOW_BYTES = 8192
    WINDOWS_MAX = 4096              # of a device, 32 MB


cdef inline bint window_allows(const Window *v, uint64_t number) noexcept nogil:
    """Whether a counter may still come."""
    if number >= v.next:
        return True
    if v.bits == NULL or number + WINDOW_PACKETS < v.next:
        return False
    return v.bits[(number & (WINDOW_PACKETS - 1)) >> 6] >> (number & 63) & 1 == 0


cdef bint window_bits(Window *v, uint64_t *windows) noexcept nogil:
    """Give a window bits, that say that all came so far; False where there is no memory."""
    if v.bits != NULL:
        return True
    if add_relaxed64(windows, 1) < WINDOWS_MAX:
        v.bits = <uint64_t *>malloc(WINDOW_BYTES)
    if v.bits == NULL:
        add_relaxed64(windows, <uint64_t>-1)
        return False
    memset(v.bits, 0xFF, WINDOW_BYTES)
    return True


cdef void window_clear(Window *v, uint64_t number, uint64_t end) noexcept nogil:
    """Have these counters, at most WINDOW_PACKETS, not come."""
    cdef uint64_t place
    while number < end:
        place = number & (WINDOW_PACKETS - 1)
        if number & 63 == 0 and end - number >= 64:
            v.bits[place >> 6] = 0
            number += 64
        else:
            v.bits[place >> 6] &= ~(<uint64_t>1 << (number & 63))
            number += 1


cdef void window_take(Window *v, uint64_t number, uint64_t *windows) noexcept nogil:
    """A counter that window_allows() has come."""
    cdef uint64_t least
    if number == v.next and v.bits == NULL:
        v.next += 1
        return
    if number >= v.next and window_bits(v, windows):
        least = number + 1 - WINDOW_PACKETS if number >= WINDOW_PACKETS else 0
        window_clear(v, max(v.next, least), number)
    if v.bits != NULL:
        v.bits[(number & (WINDOW_PACKETS - 1)) >> 6] |= <uint64_t>1 << (number & 63)
    v.next = max(v.next, number + 1)


cdef void window_free(Window *v, uint64_t *windows) noexcept nogil:
    if v.bits != NULL:
        free(v.bits)
        v.bits = NULL
        add_relaxed64(windows, <uint64_t>-1)
