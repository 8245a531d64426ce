# A worker thread: one epoll, set up once per connection, edge-triggered, and the loop around it.

cdef enum:
    TICK_NS = SECOND_NS
    CLOSING_TICK_MS = 20            # while connections wait for their close frames
    WAITING_TICK_MS = 1             # while old peers' windows are too small for a frame


cdef uint64_t WAKE = 0xFFFFFFFFFFFFFFFF


cdef void *worker_main(void *argument) noexcept nogil:
    cdef Worker *w = <Worker *>argument
    cdef epoll_event events[EVENTS_MAX]
    cdef int n, i, timeout
    cdef uint64_t turn
    while not load_acquire64(&w.engine.stopping):
        timeout = (0 if w.ready_count else WAITING_TICK_MS if w.waiting_count
                   else CLOSING_TICK_MS if w.closing_count else 1000)
        n = epoll_wait(w.ep, events, EVENTS_MAX, timeout)
        w.now = now_ns()
        for i in range(n):
            if events[i].data.u64 == WAKE:
                read_fd(w.wake, &turn, 8)
                run_commands(w)
            else:
                handle_event(w, events[i].data.u64, events[i].events)
            report_departed(w)
        run_ready(w)
        legacy_retry(w)
        if w.now >= w.next_tick_ns or w.closing_count:
            tick(w)
        report_departed(w)
    return NULL


cdef void handle_event(Worker *w, uint64_t connection, uint32_t events) noexcept nogil:
    cdef Slot *s = slot_if_current(w, connection)
    if s == NULL:
        return
    enlist(w, s, connection)
    if s.kind == SLOT_TUN:
        if events & (EPOLLIN | EPOLLHUP | EPOLLERR) and tun_read(w, s):
            make_ready(w, s, connection)
        return
    if events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR):
        s.hung_up = True
    if events & EPOLLOUT:
        if s.state == STATE_CLOSING:
            connection_finish(w, s)
        else:
            drain(w, s)
    if s.state != STATE_CLOSED and (s.hung_up or s.fresh or events & EPOLLIN):
        if receive(w, s):
            make_ready(w, s, connection)


cdef void drain(Worker *w, Slot *s) noexcept nogil:
    """The socket takes bytes again."""
    pthread_mutex_lock(&s.send_lock)
    inbox_drain(w, s)
    if s.queue != NULL:
        queue_send(w, s)
    pthread_mutex_unlock(&s.send_lock)
    settle(w, s)


cdef void run_ready(Worker *w) noexcept nogil:
    """One more turn for each connection with input left."""
    cdef uint32_t n = w.ready_count
    cdef uint32_t i
    cdef uint64_t connection
    cdef Slot *s
    cdef bint more
    for i in range(n):
        connection = w.ready[i]
        s = slot_if_current(w, connection)
        if s == NULL:
            continue
        s.ready = False
        w.now = now_ns()
        more = tun_read(w, s) if s.kind == SLOT_TUN else receive(w, s)
        if more:
            make_ready(w, s, connection)
    w.ready_count -= n
    memmove(w.ready, w.ready + n, w.ready_count * sizeof(uint64_t))


cdef void run_commands(Worker *w) noexcept nogil:
    """What others asked for."""
    cdef Command *commands
    cdef uint32_t n, i
    cdef Slot *s
    pthread_mutex_lock(&w.command_lock)
    commands = w.commands
    n = w.command_count
    w.commands = NULL
    w.command_count = 0
    w.command_room = 0
    pthread_mutex_unlock(&w.command_lock)
    for i in range(n):
        s = slot_if_current(w, commands[i].connection)
        if s == NULL:
            continue
        enlist(w, s, commands[i].connection)
        if commands[i].what == ABORT:
            connection_close(w, s, CAUSE_LOCAL)
        elif commands[i].what == END:
            connection_begin_close(w, s, CAUSE_LOCAL)
        else:
            w.waiting[w.waiting_count] = commands[i].connection
            w.waiting_count += 1
    free(commands)


cdef void tick(Worker *w) noexcept nogil:
    """Deadlines: of closing connections always, of silence and idle queues once a second. Backwards, because closing
    moves the last slot into the gap."""
    cdef uint32_t i = w.slot_count
    cdef bint full = w.now >= w.next_tick_ns
    cdef Slot *s
    while i > 0:
        i -= 1
        s = &w.engine.slots[w.slots[i]]
        if s.state == STATE_CLOSING:
            if w.now >= s.deadline_ns:
                connection_close(w, s, s.cause)
            else:
                connection_finish(w, s)
        elif full and s.kind != SLOT_TUN:
            tick_open(w, s)
    if full:
        w.next_tick_ns = w.now + TICK_NS


cdef void tick_open(Worker *w, Slot *s) noexcept nogil:
    """Liveness of one connection, and its queue given back when no packet waited in it since the last tick."""
    cdef EngineState *e = w.engine
    cdef uint64_t silent = since(w.now, load_relaxed64(&s.received_ns))
    if e.dead_after_ns and silent > e.dead_after_ns:
        connection_close(w, s, CAUSE_SILENT)
        return
    if e.ping_after_ns and since(w.now, s.pinged_ns) > e.ping_after_ns // 3 and (
            silent > e.ping_after_ns
            or (e.ping_when_quiet and since(w.now, load_relaxed64(&s.sent_ns)) > e.ping_after_ns)):
        s.pinged_ns = w.now
        post_message(w, slot_connection(w, s), OP_PING, NULL, 0)
    if pthread_mutex_trylock(&s.send_lock) == 0:
        if s.queue != NULL and queue_idle(s.queue):
            if s.queue.carried:
                s.queue.carried = False         # it knows a drain rate that may be of use again at once
            else:
                queue_free(w, s)
        pthread_mutex_unlock(&s.send_lock)
        settle(w, s)
