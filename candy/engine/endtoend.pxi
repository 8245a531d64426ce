# What members with candy.3 send each other sealed: packets for one, packets for a group, and the handshakes before
# them. The relay looks at the addresses, the label of a flow and the length, and at nothing else.

cdef enum:
    BEGINS_PER_S = 50               # first messages of handshakes of one sender
    ANSWERS_PER_S = 200             # and second ones
    HANDSHAKES_SAVED = 250          # of either
    SHAKES_MAX = 1024               # for this machine's interface that Python has not seen


cdef inline bint is_sender(Worker *w, Slot *s, uint32_t source) noexcept nogil:
    """Whether a source is its sender's own address, whatever lies behind that; False: it was dropped."""
    cdef uint32_t own = <uint32_t>load_relaxed64(&s.address)
    if likely(source == own and own != 0):
        return True
    if s.kind == SLOT_TRUNK:
        return comes_from(w, s, source)
    drop(w, s, DROP_SOURCE if own != 0 else DROP_NOT_AUTHENTICATED)
    return False


cdef inline bint may_be_sealed(Worker *w, Slot *s, uint64_t connection, uint32_t destination) noexcept nogil:
    """Whether something sealed may go to the connection that has its destination, 0 none; False: it was dropped."""
    if unlikely(connection == 0 or destination == <uint32_t>load_relaxed64(&s.address)):
        drop(w, s, nobody(s))
        return False
    if likely(load_relaxed64(&w.engine.slots[<uint32_t>connection].takes_sealed) != 0):
        return True
    drop(w, s, DROP_NOT_SEALING)
    return False


cdef void forward_sealed(Worker *w, Slot *s, uint8_t *frame, Frame *f) noexcept nogil:
    """One SEALED, long enough for its header, from a member with candy.3, or by a trunk. A group has no connection."""
    # The mask lies over both addresses as it lies over the first four bytes.
    cdef uint32_t source = swap32(load32(f.payload + SEALED_SOURCE_AT) ^ f.mask)
    cdef uint32_t destination = swap32(load32(f.payload + SEALED_DESTINATION_AT) ^ f.mask)
    cdef uint64_t connection
    cdef uint32_t header
    cdef uint8_t *out
    cdef Slot *to
    if not is_sender(w, s, source):
        return
    if unlikely(f.length > SEALED_MAX):
        drop(w, s, DROP_TOO_LARGE)
        return
    connection = route_find(w.engine.networks[s.network], destination)
    if unlikely(is_relay(connection)):
        connection = trunk_to(w, s, connection, source, destination)
        if connection == 0:
            return
    to = &w.engine.slots[<uint32_t>connection]
    if not may_be_sealed(w, s, connection, destination):
        if connection != 0 and to != s:
            tell_not_sealing(w, s, source, destination)
        return
    if unlikely(load_relaxed64(&to.kind) == SLOT_TUN):
        receive_sealed(w, s, connection, f)     # this machine is a member, too
    elif unlikely(load_relaxed64(&to.stalled) != 0):
        drop_unread(w, to, DROP_STALLED, f)
    elif likely(passes(f)):
        pass_masked(w, connection, frame, f)
    else:
        header = header_size(f.length, False)
        out = place_unmasked(w, connection, frame, f, header)
        emit(w, connection, out, header + f.length, f.length)


cdef void broadcast_sealed(Worker *w, Slot *s, const uint8_t *payload, uint32_t length) noexcept nogil:
    """A SEALED_GROUP, to the other members that take what is sealed."""
    cdef uint32_t destination
    count_message(w, s, length)
    if length < SEALED_GROUP_MIN:
        drop(w, s, DROP_TOO_SHORT)
        return
    if not is_sender(w, s, load_be32(payload + SEALED_SOURCE_AT)):
        return
    destination = load_be32(payload + SEALED_DESTINATION_AT)
    if is_group(destination) or destination == load_relaxed32(&w.engine.networks[s.network].broadcast):
        broadcast_frame(w, s, payload, length)
    else:
        drop(w, s, nobody(s))


cdef bint may_shake(Worker *w, Slot *s, const uint8_t *payload, uint32_t length) noexcept nogil:
    """Whether a HANDSHAKE is one, and its sender has not had enough of them; False: it was dropped."""
    cdef bint first = length == HANDSHAKE_1_BYTES and payload[1] == 1
    if not first and not (length == HANDSHAKE_2_BYTES and payload[1] == 2):
        drop(w, s, DROP_BAD_HANDSHAKE)
        return False
    if s.kind == SLOT_TRUNK:
        return True                     # its sender's relay has counted it
    if not (allowed(&s.begins, w.now, BEGINS_PER_S, HANDSHAKES_SAVED) if first
            else allowed(&s.answers, w.now, ANSWERS_PER_S, HANDSHAKES_SAVED)):
        drop(w, s, DROP_HANDSHAKE_LIMIT)
        return False
    return True
