# Tables that Python replaces while workers read them, without a lock on either side: a network's rules, a device's
# routes. A table never changes.
#
# 1. table_read()     a worker takes the table there is, for one packet
# 2. table_replace()  Python puts another in its place; the old one stands replaced, under a new epoch
# 3. table_let_go()   a worker between two rounds has no table in its hands: it notes the epoch that it sees then
# 4. tables_free()    what was replaced in an epoch that all workers have noted is freed
#
# A worker that notes an epoch sees what Python stored before it, the new table among it, and has done with all that it
# read before. Python looks for what it can free whenever it replaces one, and wakes the workers that it waits for.

cdef inline const Table *table_read(Table **place) noexcept nogil:
    """The table that is there now, NULL none. The packet at hand is judged by it, and nothing else."""
    cdef const Table *table = <const Table *>load_pointer(<void **>place)
    point(POINT_TABLE)
    return table


cdef Table *table_make(size_t count, size_t entry) noexcept nogil:
    """A table with room for so many entries of this size; NULL when memory is out."""
    cdef Table *table = <Table *>calloc(1, sizeof(Table) + count * entry)
    if table != NULL:
        table.count = <uint32_t>count
    return table


cdef void table_retire(EngineState *e, Table *former) noexcept nogil:
    """Free what no worker finds any more, once none has it in its hands."""
    former.epoch = load_relaxed64(&e.epoch) + 1
    former.next = e.replaced
    e.replaced = former
    store_release64(&e.epoch, former.epoch)
    tables_free(e)


cdef void table_replace(EngineState *e, Table **place, Table *fresh) noexcept nogil:
    """Put this table, or none, in place of the one that is there."""
    cdef Table *former = place[0]
    store_pointer(<void **>place, fresh)
    if former != NULL:
        table_retire(e, former)
    else:
        tables_free(e)


cdef inline void table_let_go(Worker *w) noexcept nogil:
    """This worker has no table in its hands."""
    cdef uint64_t epoch = load_acquire64(&w.engine.epoch)
    if unlikely(epoch != load_relaxed64(&w.seen)):
        store_release64(&w.seen, epoch)


cdef void tables_free(EngineState *e) noexcept nogil:
    """Free what no worker reads any more, and wake those that may still read something."""
    cdef uint64_t seen = load_relaxed64(&e.epoch)
    cdef uint64_t one = 1
    cdef Table **place = &e.replaced
    cdef Table *table
    cdef uint32_t i
    for i in range(e.worker_count):
        seen = min(seen, load_acquire64(&e.workers[i].seen))
    while place[0] != NULL:
        table = place[0]
        if table.epoch > seen:
            place = &table.next
            continue
        place[0] = table.next
        free(table)
    for i in range(e.worker_count):
        if load_relaxed64(&e.workers[i].seen) < load_relaxed64(&e.epoch):
            write_fd(e.workers[i].wake, &one, 8)


cdef void tables_free_all(EngineState *e) noexcept nogil:
    """Free what was replaced; no worker runs any more."""
    cdef Table *table
    while e.replaced != NULL:
        table = e.replaced
        e.replaced = table.next
        free(table)
