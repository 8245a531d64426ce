# Which counters have come: each is taken once, and none that is a window's packets below the greatest. Pure.
#
# While all come in order, a number says it all. With the first that does not, a window gets its bits; where there is no
# memory for them, what is late is dropped.

cdef enum:
    WINDOW_PACKETS = 65536          # of a session: fair queueing reorders flows, and 4 MiB of 100 bytes are 32,000
    GROUP_WINDOW = 1024             # of a sender's packets to groups
    WINDOWS_BYTES_MAX = 33554432    # bits of a device


cdef inline bint window_allows(const Window *v, uint64_t number) noexcept nogil:
    """Whether a counter may still come."""
    if number >= v.next:
        return True
    if v.bits == NULL or number + v.packets < v.next:
        return False
    return v.bits[(number & (v.packets - 1)) >> 6] >> (number & 63) & 1 == 0


cdef bint window_bits(Window *v, uint64_t *windows) noexcept nogil:
    """Give a window bits, that say that all came so far; False where there is no memory."""
    cdef uint64_t size = v.packets // 8
    if v.bits != NULL:
        return True
    if add_relaxed64(windows, size) + size <= WINDOWS_BYTES_MAX:
        v.bits = <uint64_t *>malloc(size)
    if v.bits == NULL:
        add_relaxed64(windows, -size)
        return False
    memset(v.bits, 0xFF, size)
    return True


cdef void window_clear(Window *v, uint64_t number, uint64_t end) noexcept nogil:
    """Have these counters, no more than the window has, not come."""
    cdef uint64_t place
    while number < end:
        place = number & (v.packets - 1)
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
        least = number + 1 - v.packets if number >= v.packets else 0
        window_clear(v, max(v.next, least), number)
    if v.bits != NULL:
        v.bits[(number & (v.packets - 1)) >> 6] |= <uint64_t>1 << (number & 63)
    v.next = max(v.next, number + 1)


cdef void window_free(Window *v, uint64_t *windows) noexcept nogil:
    if v.bits != NULL:
        free(v.bits)
        v.bits = NULL
        add_relaxed64(windows, -<uint64_t>(v.packets // 8))
