# A worker thread: one epoll, set up once per connection, edge-triggered, and the loop around it.
#
# A turn is at most WORK_TURN, whatever there is for it. In each round of the loop every connection that used little of
# its last turn has one, and of those that used much as many as a turn's work allows. What may happen where:
#
#     function          may close `s`   wakes its own eventfd   flushes the batch   ends with the batch empty
#     run_requests      yes             no                      yes                 yes
#     turn: drain       no              no                      no                  yes
#     turn: receive     yes             no                      yes                 yes
#     turn: tun_read    no              no                      yes                 yes
#     turn: links, STUN no              no                      no                  yes
#     look_around       no              no                      no                  yes
#     tick, close_late  yes             no                      no                  yes
#     report_departed   no              no                      no                  yes
#
# A connection that was closed is reported to Python behind the turn that closed it, so no function finds its slot used
# again under its feet; behind a call that may close, only s.state may be read.

cdef enum:
    TICK_NS = SECOND_NS             # a round of look-ups of all connections: liveness, idle queues
    HANDSHAKE_TICK_NS = 100000000   # and of those in a handshake: their deadlines
    TICK_SLOTS = 128                # looked at in one go; more in as many goes a second as that takes
    CLOSING_NS = 20000000           # between two looks at connections that wait for their close frames
    CLOSING_SLOTS = 512             # looked at in one go
    WAITING_MOST_NS = 128000000     # between two looks whether a connection takes more: see WAITING_NS
    LOOKS_MAX = 256                 # in one go
    STANDSTILL_NS = 500000000       # the thread of handshakes was kept from its work
    WORK_CLOCK = 200000             # behind a turn of more than this the clock is read anew

cdef uint64_t WAKE = 0xFFFFFFFFFFFFFFFF


cdef void *worker_main(void *argument) noexcept nogil:
    cdef Worker *w = <Worker *>argument
    cdef epoll_event events[EVENTS_MAX]
    cdef int n, i
    cdef uint64_t wakes
    cdef uint64_t before = now_ns()
    while not load_acquire64(&w.engine.stopping):
        n = epoll_wait(w.ep, events, EVENTS_MAX, pause_ms(w))
        w.now = now_ns()
        if w.tick_ns == HANDSHAKE_TICK_NS and since(w.now, before) > STANDSTILL_NS:
            put_off(w, w.now - before)
        before = w.now
        table_let_go(w)
        for i in range(n):
            if events[i].data.u64 == WAKE:
                read_fd(w.wake, &wakes, 8)
            else:
                note(w, events[i].data.u64, events[i].events)
        run_requests(w)
        run_ready(w)
        if w.secured_count != 0:
            hand_over(w)
        look_around(w)
        if w.closing_count != 0 and w.now >= w.next_closing_ns:
            close_late(w)
        if w.now >= w.next_tick_ns:
            tick(w)
        report_departed(w)
        store_relaxed64(&w.rounds, w.rounds + 1)
    return NULL


cdef void put_off(Worker *w, uint64_t late_ns) noexcept nogil:
    """What this thread has kept its peers waiting is not theirs: all deadlines of handshakes move on."""
    cdef uint32_t i
    for i in range(w.slot_count):
        if w.engine.slots[w.slots[i]].deadline_ns != 0:
            w.engine.slots[w.slots[i]].deadline_ns += late_ns


cdef int pause_ms(Worker *w) noexcept nogil:
    """How long to wait for events at most, milliseconds."""
    cdef uint64_t until
    if w.modest.count != 0 or w.greedy.count != 0 or load_relaxed32(&w.request_count) != 0:
        return 0
    until = w.next_tick_ns
    if w.waiting_count != 0:
        until = min(until, w.waiting_due_ns)
    if w.closing_count != 0:
        until = min(until, w.next_closing_ns)
    w.now = now_ns()
    return <int>((until - w.now + 999999) // 1000000) if until > w.now else 0


cdef void note(Worker *w, uint64_t connection, uint32_t events) noexcept nogil:
    """An event: its connection gets a turn."""
    cdef Slot *s = slot_if_current(w, connection)
    if s == NULL:
        return
    enlist(w, s, connection)
    if events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR):
        s.hung_up |= s.kind != SLOT_TUN
        s.readable = True
    s.readable |= (events & EPOLLIN) != 0 or s.held
    s.writable |= (events & EPOLLOUT) != 0
    make_ready(w, s, connection)


cdef void run_ready(Worker *w) noexcept nogil:
    """A turn for each connection that used little of its last. Then turns for those that used much, until a whole
    turn's work is done: however many they are, a connection with little to do waits for no more than one of them."""
    cdef uint32_t n = w.modest.count
    cdef uint32_t i
    cdef int64_t left = WORK_TURN
    for i in range(n):
        take_turn(w, w.modest.connections[i])
    turns_trim(w, &w.modest, n)
    n = w.greedy.count
    i = 0
    while i < n and left > 0:
        left -= take_turn(w, w.greedy.connections[i])
        i += 1
    turns_trim(w, &w.greedy, i)


cdef int64_t take_turn(Worker *w, uint64_t connection) noexcept nogil:
    """One turn; returns the work that it took."""
    cdef Slot *s = slot_if_current(w, connection)
    cdef int64_t used
    cdef bint more
    if s == NULL:
        return 0
    s.ready = False
    w.work = WORK_TURN
    more = turn(w, s, connection)
    used = WORK_TURN - w.work
    s.greedy = used > WORK_MUCH
    if more:
        # An edge won't come for what is there already.
        make_ready(w, s, connection)
    report_departed(w)
    if used > WORK_CLOCK:
        w.now = now_ns()
    return used


cdef void turns_trim(Worker *w, Turns *t, uint32_t n) noexcept nogil:
    """Take the first `n` out. The list of an engine with N slots has at most N entries afterwards, for stale ones go
    too before they are that many. Until the next time each connection may be added once by an event and once more
    behind its turn."""
    cdef uint32_t i
    cdef uint32_t kept = 0
    t.count -= n
    memmove(t.connections, t.connections + n, t.count * sizeof(uint64_t))
    if t.count <= w.engine.max_slots:
        return
    for i in range(t.count):
        if slot_if_current(w, t.connections[i]) != NULL:
            t.connections[kept] = t.connections[i]
            kept += 1
    t.count = kept


cdef bint turn(Worker *w, Slot *s, uint64_t connection) noexcept nogil:
    """What a connection has to do, as far as there is work. True: more is left."""
    if s.kind == SLOT_TUN:
        s.readable = s.readable and tun_read(w, s)
        return s.readable
    if s.kind == SLOT_LINK:
        s.readable = s.readable and link_receive(w, s)
        return s.readable
    if s.kind == SLOT_STUN:
        s.readable = s.readable and stun_receive(w, s)
        return s.readable
    if unlikely(s.tls != NULL) and s.tls.shaking:
        s.readable = s.writable = False
        if s.tls.secured:
            return http_turn(w, s)
        handshake_turn(w, s)
        return False
    if s.writable:
        s.writable = False
        if s.state == STATE_CLOSING:
            connection_finish(w, s)
        else:
            drain(w, s)
    if s.readable and s.state != STATE_CLOSED:
        s.readable = receive(w, s)
    if w.answered:
        w.answered = False
        if is_current(s, connection):
            settle(w, s)
    return s.state != STATE_CLOSED and (s.readable or s.writable)


cdef void drain(Worker *w, Slot *s) noexcept nogil:
    """The socket takes bytes again."""
    pthread_mutex_lock(&s.send_lock)
    inbox_drain(w, s)
    if s.queue != NULL:
        queue_send(w, s)
    pthread_mutex_unlock(&s.send_lock)
    settle(w, s)


cdef void run_requests(Worker *w) noexcept nogil:
    """What this and other threads asked for, of connections that have not ended since."""
    cdef uint32_t n, i
    cdef uint64_t what
    cdef Slot *s
    if load_relaxed32(&w.request_count) == 0:
        return
    pthread_mutex_lock(&w.request_lock)
    n = w.request_count
    w.requests, w.taken = w.taken, w.requests
    store_relaxed32(&w.request_count, 0)
    pthread_mutex_unlock(&w.request_lock)
    for i in range(n):
        s = slot_if_current(w, w.taken[i])
        if s == NULL:
            continue
        if unlikely(load_acquire32(&s.owner) != w.index):
            pass_on(w, s, w.taken[i])
            continue
        what = take_ordered64(&s.asked)
        w.work = WORK_TURN
        enlist(w, s, w.taken[i])
        if what & ABORT or (what & END and s.tls != NULL and s.tls.shaking):
            if s.tls != NULL and not s.tls.shaking:
                drain(w, s)         # what was sent before; a plain connection's sender has done that itself
            connection_close(w, s, CAUSE_LOCAL)
            continue
        if what & (OPEN | PASS | UPGRADE) and not http_asked(w, s, what):
            continue
        if what & TAKE and not take_over(w, s):
            continue
        if what & RETRY:
            wait_until(w, s, next_look(w, s, WAITING_NS), False)
        if what & CUT:
            pthread_mutex_lock(&s.send_lock)
            queue_cut(w, s)
            pthread_mutex_unlock(&s.send_lock)
        if what & RELEASE:
            s.readable = s.released = True
            make_ready(w, s, w.taken[i])
        if what & PACE:
            begin_anew(w, s)
            s.readable = s.writable = True
            make_ready(w, s, w.taken[i])
        if what & DRAIN:
            s.writable = True
            make_ready(w, s, w.taken[i])
        if what & END:
            connection_begin_close(w, s, CAUSE_LOCAL)
        if what & LISTEN or (what & END and load_relaxed64(&s.rests) != 0):
            s.readable = True       # at its end it is read to be thrown away
            make_ready(w, s, w.taken[i])


cdef void begin_anew(Worker *w, Slot *s) noexcept nogil:
    """Other limits than before: nothing is owed."""
    pthread_mutex_lock(&s.send_lock)
    store_relaxed64(&s.down.due_ns, 0)
    pthread_mutex_unlock(&s.send_lock)
    store_relaxed64(&s.up.due_ns, 0)
    limit_window(s)


cdef void pass_on(Worker *w, Slot *s, uint64_t connection) noexcept nogil:
    """It was this worker's when something was asked of it, and is another's now. Under the lock, so that it stays the
    same connection."""
    cdef uint64_t what
    pthread_mutex_lock(&s.send_lock)
    what = take_ordered64(&s.asked) if is_current(s, connection) else 0
    if what != 0:
        ask(w, s, connection, what)
    pthread_mutex_unlock(&s.send_lock)


cdef void look_around(Worker *w) noexcept nogil:
    """Look at connections for which no event will tell that they take more. One that takes nothing is looked at more
    and more seldom, so that a thousand of them cost next to nothing."""
    cdef uint32_t i = w.waiting_count
    cdef uint32_t looks = 0
    cdef uint64_t due = 0
    cdef Wait *wait
    if i == 0 or w.now < w.waiting_due_ns:
        return
    while i > 0:
        i -= 1
        wait = &w.waiting[i]
        if wait.due_ns <= w.now and looks < LOOKS_MAX:
            looks += 1
            w.work = WORK_TURN
            if not look_at(w, wait):
                w.waiting_count -= 1
                w.waiting[i] = w.waiting[w.waiting_count]
                continue
        if due == 0 or wait.due_ns < due:
            due = wait.due_ns
    w.waiting_due_ns = due


cdef bint look_at(Worker *w, Wait *wait) noexcept nogil:
    """Send what a connection takes now; False: it need not be looked at again."""
    cdef Slot *s = slot_if_current(w, wait.connection)
    cdef bint again
    cdef uint64_t before
    if s == NULL:
        return False
    if wait.reads:
        s.up_waits = False
        s.readable = True
        make_ready(w, s, wait.connection)
        return False
    pthread_mutex_lock(&s.send_lock)
    before = load_relaxed64(&s.traffic.bytes_out)
    s.short_of_room = False
    inbox_drain(w, s)
    if s.queue != NULL:
        queue_send(w, s)
    again = s.short_of_room
    s.waiting = again
    if load_relaxed64(&s.traffic.bytes_out) != before:
        wait.pause_ns = WAITING_NS
    else:
        wait.pause_ns = min(2 * wait.pause_ns, <uint64_t>WAITING_MOST_NS)
    pthread_mutex_unlock(&s.send_lock)
    wait.due_ns = next_look(w, s, wait.pause_ns)
    settle(w, s)
    return again


cdef void close_late(Worker *w) noexcept nogil:
    """Connections that wait for their close frames, some at a time: has the frame left, is the deadline there?
    Backwards, because closing moves the last one into the gap."""
    cdef uint32_t left = min(w.closing_count, <uint32_t>CLOSING_SLOTS)
    cdef Slot *s
    w.work = WORK_TURN
    while left > 0 and w.closing_count > 0:
        left -= 1
        if w.closing_place == 0 or w.closing_place > w.closing_count:
            w.closing_place = w.closing_count
        w.closing_place -= 1
        s = &w.engine.slots[w.closing[w.closing_place]]
        if w.now >= s.deadline_ns:
            connection_close(w, s, s.cause)
        else:
            connection_finish(w, s)
    w.next_closing_ns = w.now + CLOSING_NS


cdef void tick(Worker *w) noexcept nogil:
    """Look at some of the connections; at all of them within w.tick_ns. Backwards, because closing moves the last one
    into the gap: one may be looked at twice, and none is missed."""
    cdef uint32_t goes = (w.slot_count + TICK_SLOTS - 1) // TICK_SLOTS
    cdef uint32_t left = TICK_SLOTS
    cdef Slot *s
    w.work = WORK_TURN
    if w.tick_place == 0 or w.tick_place > w.slot_count:
        w.tick_place = w.slot_count
    while left > 0 and w.tick_place > 0 and w.work > 0:
        left -= 1
        w.tick_place -= 1
        s = &w.engine.slots[w.slots[w.tick_place]]
        if s.kind == SLOT_TUN:
            room_tick(w, <Seals *>load_pointer(<void **>&w.engine.networks[s.network].seals))
        elif s.kind <= SLOT_TRUNK and s.state == STATE_OPEN:
            tick_open(w, s)
        w.tick_place = min(w.tick_place, w.slot_count)
    w.next_tick_ns = w.now + w.tick_ns // max(goes, <uint32_t>1)


cdef void tick_open(Worker *w, Slot *s) noexcept nogil:
    """Liveness of one connection; its queue given back when no packet waited in it since the last look, and cut when it
    has more than its share and takes nothing."""
    cdef EngineState *e = w.engine
    cdef uint64_t silent = since(w.now, load_relaxed64(&s.received_ns))
    if unlikely(s.tls != NULL) and s.tls.shaking:
        if s.deadline_ns and w.now >= s.deadline_ns:
            connection_close(w, s, CAUSE_LOCAL if s.tls.secured else CAUSE_HANDSHAKE_TIMEOUT)
        return
    if unlikely(load_relaxed64(&s.rests) != 0):
        store_relaxed64(&s.rests, 0)
        s.readable = True
        make_ready(w, s, slot_connection(w, s))
    if s.dead_after_ns and silent > s.dead_after_ns:
        connection_close(w, s, CAUSE_SILENT)
        return
    if s.ping_after_ns and since(w.now, s.pinged_ns) > s.ping_after_ns // 3 and (
            silent > s.ping_after_ns
            or (e.ping_when_quiet and since(w.now, load_relaxed64(&s.sent_ns)) > s.ping_after_ns)):
        s.pinged_ns = w.now
        w.work -= WORK_CALL
        post_message(w, slot_connection(w, s), OP_PING, NULL, 0)
    if unlikely(load_relaxed64(&s.up_pace) != 0):
        limit_window(s)
    if pthread_mutex_trylock(&s.send_lock) != 0:
        return
    if s.queue != NULL and queue_idle(s.queue):
        if s.queue.carried:
            s.queue.carried = False             # it knows a drain rate that may be of use again at once
        else:
            queue_free(w, s)
    elif s.queue != NULL and queue_stalled(w, s.queue, s.queue.bytes):
        store_relaxed64(&s.stalled, 1)
        queue_cut(w, s)
    pthread_mutex_unlock(&s.send_lock)
    settle(w, s)
