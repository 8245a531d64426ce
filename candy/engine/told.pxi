# What senders of sealed packets are told (Python puts it into a CONTROL), and how often a thing may be done or said.

cdef enum:
    # A sender is told a destination's commit size no more often than that, and again after so long: it counts for 5 s.
    COMMIT_PAUSE_NS = 100000000
    COMMIT_AGAIN_NS = 2000000000
    NOT_SEALING_PAUSE_NS = SECOND_NS
    TOLD_BYTES = 9                  # of a COMMIT; a NOT_SEALING has five


cdef bint allowed(Allowance *a, uint64_t now, uint32_t rate, uint32_t most) noexcept nogil:
    """Take one of what is allowed `rate` times a second, with `most` saved up; False when nothing is left."""
    cdef uint64_t pause = SECOND_NS // rate
    cdef uint64_t earned = since(now, a.stamp_ns) // pause
    if a.stamp_ns == 0 or a.left + earned >= most:
        a.stamp_ns = now
        a.left = most
    else:
        a.stamp_ns += earned * pause
        a.left += <uint32_t>earned
    if a.left == 0:
        return False
    a.left -= 1
    return True


cdef Told *told_of(Told *told, uint32_t address) noexcept nogil:
    """What was told of an address; where that is nothing, the place of what was told of another longest ago."""
    cdef Told *oldest = told
    cdef uint32_t i
    for i in range(TOLD_MAX):
        if told[i].stamp_ns != 0 and told[i].address == address:
            return &told[i]
        if told[i].stamp_ns < oldest.stamp_ns:
            oldest = &told[i]
    return oldest


cdef bint tell_sender(Worker *w, uint32_t network, uint32_t sender, const uint8_t *message,
                      uint32_t length) noexcept nogil:
    """Tell the sender of what was sealed so many bytes, wherever it is; False: it is nowhere, or seals nothing. Takes
    no lock but an inbox's."""
    cdef uint64_t entry = route_find(w.engine.networks[network], sender)
    cdef Slot *s
    if is_relay(entry):
        return trunk_notice(w, entry, network, sender, message, length)
    s = slot_if_current(w, entry)
    if s == NULL or load_relaxed64(&s.takes_sealed) == 0:
        return False
    w.work -= WORK_ANSWER
    tell(w, s, EV_CONTROL, message, length)
    return True


cdef void tell_not_sealing(Worker *w, Slot *s, uint32_t source, uint32_t address) noexcept nogil:
    """Tell a sender that what it sealed for this address was dropped: once a second, of so many addresses at most, by a
    trunk of so many pairs."""
    cdef uint8_t message[5]
    cdef uint32_t about = address if s.kind != SLOT_TRUNK else <uint32_t>pair_hash(w, source, address)
    cdef Told *told = told_of(s.not_sealing, about)
    if told.stamp_ns != 0 and since(w.now, told.stamp_ns) < NOT_SEALING_PAUSE_NS:
        return
    told.address = about
    told.stamp_ns = w.now
    message[0] = KIND_NOT_SEALING
    store_be32(message + 1, address)
    if s.kind == SLOT_TRUNK:
        tell_sender(w, s.network, source, message, sizeof(message))
        return
    w.work -= WORK_ANSWER
    tell(w, s, EV_CONTROL, message, sizeof(message))


cdef void tell_commit(Worker *w, Slot *s, uint32_t limit, const uint8_t *frame, uint32_t size) noexcept nogil:
    """A sealed packet waits for a slow member or trunk, whose send lock is held, and can't be cut: tell its sender how
    long those that follow for its destination should be, when this one comes near to that. Again before it no longer
    counts, and sooner when it has changed by a quarter. Of a trunk each pair is told by itself."""
    cdef uint8_t start[SEALED_SESSION_AT]
    cdef uint8_t message[TOLD_BYTES]
    cdef uint32_t mask, source, destination, about
    cdef uint32_t network = s.network
    cdef uint32_t at = message_start(frame, size, &mask)
    cdef uint64_t before
    cdef const Trunk *trunk
    cdef Told *told
    if size < limit // 2 or size - at < SEALED_MIN or frame[at] ^ <uint8_t>mask != KIND_SEALED:
        return
    unmask(start, frame + at, SEALED_SESSION_AT, mask)
    source = about = load_be32(start + SEALED_SOURCE_AT)
    destination = load_be32(start + SEALED_DESTINATION_AT)
    if is_of_network(frame):
        trunk = trunk_of(s)
        if trunk == NULL:
            return
        network = trunk_network(trunk, frame)
        about = <uint32_t>pair_hash(w, source ^ network, destination)
    told = told_of(s.commits, about)
    before = since(w.now, told.stamp_ns)
    if told.stamp_ns != 0 and (before < COMMIT_PAUSE_NS or (
            told.address == about and before < COMMIT_AGAIN_NS
            and told.value * 4 // 5 <= limit <= told.value * 5 // 4)):
        return
    message[0] = KIND_COMMIT
    store_be32(message + 1, destination)
    store_be32(message + 5, limit)
    if tell_sender(w, network, source, message, sizeof(message)):
        told.address = about
        told.value = limit
        told.stamp_ns = w.now
