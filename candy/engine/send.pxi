# Sending: from a batch to the kernel, or to the destination's queue.
#
# deliver(): send lock free, nothing waiting and no limit: straight to the kernel. Else to the queue, or, with the lock
# taken by another thread, to the inbox, which the lock's holder empties.
# Order within a flow holds: one worker reads a source, and whatever it appended before is sent before.

cdef void deliver(Worker *w, Target *t) noexcept nogil:
    cdef Slot *s = &w.engine.slots[<uint32_t>t.connection]
    cdef Capture *c = capture_of(s)
    cdef uint64_t before
    cdef uint64_t passed = 0        # frames that left at once
    if load_relaxed64(&s.kind) == SLOT_TUN and is_current(s, t.connection):
        tun_write(w, s, t)          # a device's number only goes stale when the engine stops
        if load_relaxed32(&s.owner) == w.index:
            s.readable = True                   # an answer is often there already
            make_ready(w, s, t.connection)
        return
    if unlikely(load_relaxed64(&s.secure)) and load_relaxed32(&s.owner) != w.index:
        inbox_append(w, s, t)       # which asks the owner to send
        return
    if pthread_mutex_trylock(&s.send_lock) != 0:
        inbox_append(w, s, t)
        point(POINT_APPENDED)
        settle(w, s)
        return
    # The descriptor is only closed under this lock and after the generation moved on: checked here, it is the right
    # one.
    point(POINT_LOCKED)
    if not is_current(s, t.connection):
        count(&w.counters.drops[DROP_STALE], t.packets)
    elif load_relaxed64(&s.closing) or s.broken:
        drops(w, s, DROP_CLOSED, t.packets)
    elif (load_ordered64(&s.inbox_bytes) == 0 and likely(load_relaxed64(&s.down_pace) == 0) and queue_idle(s.queue)
            and not worth_cutting(w, s, t)):
        point(POINT_COMPARED)
        before = load_relaxed64(&s.traffic.packets_out)
        if unlikely(s.tls != NULL):
            send_sealed(w, s, t)
        else:
            send_runs(w, s, t)
        passed = load_relaxed64(&s.traffic.packets_out) - before
    else:
        inbox_drain(w, s)
        queue_runs(w, s, t, t.first, 0)
        if s.queue != NULL:
            queue_send(w, s)
    pthread_mutex_unlock(&s.send_lock)
    if unlikely(c != NULL) and passed != 0:
        capture_runs(w, c, t, passed)
    point(POINT_UNLOCKED)
    settle(w, s)


cdef void settle(Worker *w, Slot *s) noexcept nogil:
    """Look again after unlocking, or after finding the lock taken: either this thread empties the inbox or the holder,
    who unlocks later than our append, does, or asks the owner to."""
    cdef bint waits
    while load_ordered64(&s.inbox_bytes) != 0 and pthread_mutex_trylock(&s.send_lock) == 0:
        if unlikely(not may_send(w, s)):
            waits = load_ordered64(&s.inbox_bytes) != 0
            if waits:
                ask(w, s, slot_connection(w, s), DRAIN)
            pthread_mutex_unlock(&s.send_lock)
            if waits:
                break
            # Its owner has emptied it, or closed it. What the owner appended since, because we had the lock, is ours to
            # find.
            continue
        inbox_drain(w, s)
        if s.queue != NULL:
            queue_send(w, s)
        pthread_mutex_unlock(&s.send_lock)


cdef void send_runs(Worker *w, Slot *s, Target *t) noexcept nogil:
    """Nothing waits: send a target's runs from where they lie, and queue what the kernel leaves."""
    cdef uint32_t index = t.first
    cdef uint32_t offset = 0        # within the run: where the next send begins
    cdef uint32_t n, covered
    cdef uint64_t wanted
    cdef uint64_t total = 0
    cdef uint32_t from_index, from_offset
    cdef uint32_t left
    cdef uint32_t before            # bytes that go before the frames
    cdef ssize_t r
    while index != RUNS_MAX:
        n = 0
        wanted = 0
        from_index = index
        from_offset = offset
        before = 0
        if unlikely(t.before_size != 0) and total == 0:
            before = t.before_size
            w.iov[0].iov_base = t.before
            w.iov[0].iov_len = before
            n = 1
        while index != RUNS_MAX and n < IOV_MAX_SEND:
            if unlikely(t.unsealed):
                covered = seal_run(w, s, t, &w.runs[index], offset, <uint32_t>(SEAL_AHEAD - wanted))
                w.iov[n].iov_base = w.runs[index].bytes + offset
                w.iov[n].iov_len = covered
                wanted += covered
                offset += covered
                n += 1
                if offset < w.runs[index].length or wanted >= SEAL_AHEAD:
                    break
                offset = 0
            elif s.extended:
                w.iov[n].iov_base = w.runs[index].bytes
                w.iov[n].iov_len = w.runs[index].length
                wanted += w.runs[index].length
                n += 1
            else:
                covered = frames_iov(w, w.runs[index].bytes + offset, w.runs[index].length - offset, False, &n)
                wanted += covered
                offset += covered
                if offset < w.runs[index].length:
                    break
                offset = 0
            index = w.runs[index].next
        r = kernel_send(w, s, w.iov, n, 0)
        if r < 0:
            left = runs_frames(w, from_index, from_offset)
            drops(w, s, DROP_CLOSED, left)
            sent(w, s, t.packets - left, total)
            return
        total += <uint64_t>r
        if unlikely(before != 0):
            if <uint64_t>r < before and r != 0:
                queue_commit_rest(w, s, t.before + r, before - <uint32_t>r, before - <uint32_t>r)
            r = max(r - <ssize_t>before, <ssize_t>0)
        if <uint64_t>r < wanted:
            sent(w, s, 0, total)
            # Skip what was taken; queue_runs() finds the frame in which the kernel stopped.
            while True:
                covered = w.runs[from_index].length - from_offset
                if <uint64_t>r < covered:
                    break
                r -= covered
                from_index = w.runs[from_index].next
                from_offset = 0
            queue_runs(w, s, t, from_index, from_offset + <uint32_t>r)
            if s.queue != NULL:
                queue_begin(s.queue, w.now)
            return
    sent(w, s, t.packets, total)


cdef void send_sealed(Worker *w, Slot *s, Target *t) noexcept nogil:
    """send_runs() over TLS: of what the kernel leaves, what was sealed is committed, and all else is queued as
    plaintext."""
    cdef uint32_t index = t.first
    cdef uint32_t offset = 0        # within the run: a frame's first byte
    cdef uint32_t from_index, from_offset, left
    cdef uint64_t total = 0
    cdef ssize_t r
    while index != RUNS_MAX:
        from_index = index
        from_offset = offset
        r = sealed_send(w, s, 0) if seal_runs(w, s, t, &index, &offset) else transport_break(s)
        if r < 0:
            left = runs_frames(w, from_index, from_offset)
            drops(w, s, DROP_CLOSED, left)
            sent(w, s, t.packets - left, total)
            return
        total += <uint64_t>r
        if <uint32_t>r < s.tls.output_used:
            sent(w, s, 0, total)
            queue_runs(w, s, t, index, offset)
            if s.queue != NULL:
                queue_begin(s.queue, w.now)
            return
    sent(w, s, t.packets, total)


cdef bint seal_runs(Worker *w, Slot *s, Target *target, uint32_t *index, uint32_t *offset) noexcept nogil:
    """Seal a target's next frames into w.sealed and move behind them: whole ones, and no more than is sealed ahead of
    the kernel at a time. False: the stream can't be continued."""
    cdef Tls *t = s.tls
    cdef uint32_t most = SEAL_MOST
    cdef uint32_t done = 0
    cdef uint32_t records = 0
    cdef uint32_t staged = 0
    cdef uint32_t length
    cdef uint8_t *data
    if s.queue != NULL and s.queue.rate != 0:
        most = min(most, commit_limit(s, s.queue))
    tls_seal_into(t, w.sealed, SEALED_ROOM)
    if unlikely(target.before_size != 0) and index[0] == target.first and offset[0] == 0:
        staged = target.before_size
        memcpy(w.stage, target.before, staged)
    while index[0] != RUNS_MAX and done < most and records < IOV_MAX_SEND:
        data = w.runs[index[0]].bytes + offset[0]
        length = w.runs[index[0]].length - offset[0]
        if unlikely(target.unsealed):
            length = seal_run(w, s, target, &w.runs[index[0]], offset[0], most - done)
        elif length > most - done or not s.extended:
            # The first is sealed in any case.
            length = whole_frames(data, length, max(most, frame_size(data)) if done == 0 else most - done,
                                  UINT32_MAX if s.extended else IOV_MAX_SEND - records)
        if length == 0 and offset[0] < w.runs[index[0]].length:
            break
        if not s.extended:
            if not tls_seal_frames(t, data, length, 0, &records):
                return False
        else:
            # A record costs as much as a thousand bytes: short runs share one.
            if staged != 0 and (length >= SEAL_STAGED or staged + length > RECORD_MAX):
                if not tls_seal(t, w.stage, staged):
                    return False
                staged = 0
            if length < SEAL_STAGED:
                memcpy(w.stage + staged, data, length)
                staged += length
            elif not tls_seal(t, data, length):
                return False
        done += length
        offset[0] += length
        if offset[0] == w.runs[index[0]].length:
            index[0] = w.runs[index[0]].next
            offset[0] = 0
    w.work -= done
    return staged == 0 or tls_seal(t, w.stage, staged)


cdef uint32_t whole_frames(const uint8_t *data, uint32_t length, uint32_t most, uint32_t n) noexcept nogil:
    """Bytes of the first `n` frames that have no more than `most`."""
    cdef uint32_t at = 0
    cdef uint32_t size
    while at < length and n != 0:
        size = frame_size(data + at)
        if at + size > most:
            break
        at += size
        n -= 1
    return at


cdef uint32_t runs_frames(Worker *w, uint32_t index, uint32_t offset) noexcept nogil:
    """How many frames a target's runs hold, from the one that begins at this byte on."""
    cdef uint32_t n = 0
    while index != RUNS_MAX:
        while offset < w.runs[index].length:
            offset += frame_size(w.runs[index].bytes + offset)
            n += 1
        offset = 0
        index = w.runs[index].next
    return n


cdef void queue_runs(Worker *w, Slot *s, Target *t, uint32_t index, uint32_t offset) noexcept nogil:
    """Queue a target's frames from this byte on; a frame that begins before it is finished first of all."""
    cdef uint32_t at, size, length
    cdef uint8_t *data
    cdef bint first = offset != 0
    cdef uint64_t left = 0
    while index != RUNS_MAX:
        data = w.runs[index].bytes
        length = w.runs[index].length
        at = 0
        while at < length:
            size = frame_size(data + at)
            if first and at + size <= offset:
                at += size
                continue
            if first and at < offset:
                queue_commit_rest(w, s, data + offset, at + size - offset, at + size - offset)
            else:
                left += 1
                if unlikely(t.before_size != 0):
                    queue_behind(w, s, t, data + at, size)
                else:
                    queue_append(w, s, data + at, size, w.now)
            at += size
        first = False
        index = w.runs[index].next
    queue_mirror(s)
    if t.packets > left:
        sent(w, s, t.packets - left, 0)


cdef inline bint can_be_cut(const uint8_t *frame, uint32_t size) noexcept nogil:
    """Whether a frame is a super-packet's, by its kind, or may hold one that is to be sealed. All others gain nothing
    by the queue."""
    cdef uint32_t mask
    cdef uint32_t at = message_start(frame, size, &mask)
    return is_unsealed(frame) or (size > at and frame[at] ^ <uint8_t>mask == KIND_SUPER)


cdef bint worth_cutting(Worker *w, Slot *s, Target *t) noexcept nogil:
    """Whether the batch has a super-packet that takes too long for a destination known to be slow, so that it goes by
    the queue, which cuts it; not where that has no room for the batch."""
    cdef Queue *q = s.queue
    cdef uint32_t index = t.first
    cdef uint32_t limit, size, at
    cdef uint64_t total = 0
    cdef bint found = False
    if q == NULL or q.rate == 0 or not s.extended:
        return False
    limit = commit_limit(s, q)
    if limit >= WIRE_PAYLOAD_CANDY3:
        return False
    while index != RUNS_MAX:
        at = 0
        while at < w.runs[index].length:
            size = frame_size(w.runs[index].bytes + at)
            found |= size > limit and can_be_cut(w.runs[index].bytes + at, size)
            total += size
            at += size
        index = w.runs[index].next
    total *= 2                      # headers of the parts
    return found and total <= queue_share(w)


cdef bint post_message(Worker *w, uint64_t connection, uint8_t opcode, const uint8_t *payload,
                       uint32_t length) noexcept nogil:
    """Frame up to WIRE_PAYLOAD_LEGACY bytes as the connection's end demands, and send them. False: it is gone or has
    too much waiting."""
    cdef bint taken = leave_message(w, connection, opcode, payload, length)
    if taken:
        settle(w, &w.engine.slots[<uint32_t>connection])
    return taken


cdef bint answer(Worker *w, Slot *s, uint8_t opcode, const uint8_t *payload, uint32_t length) noexcept nogil:
    """The same for the connection whose turn it is: all answers of a turn leave with its end."""
    w.work -= WORK_ANSWER
    if not leave_message(w, slot_connection(w, s), opcode, payload, length):
        return False
    w.answered = True
    return True


cdef bint leave_message(Worker *w, uint64_t connection, uint8_t opcode, const uint8_t *payload,
                        uint32_t length) noexcept nogil:
    """Frame a message and leave it in the inbox."""
    cdef uint8_t frame[1514]        # WIRE_PAYLOAD_LEGACY + FRAME_HEADER_MAX
    cdef uint32_t size
    cdef Slot *s = &w.engine.slots[<uint32_t>connection]
    if length > WIRE_PAYLOAD_LEGACY or (opcode != OP_CLOSE and load_relaxed64(&s.closing)):
        return False
    size = build_frame(frame, opcode, payload, length, load_relaxed64(&s.kind) == SLOT_CLIENT, next_mask(s))
    return inbox_control(w, connection, frame, size)
