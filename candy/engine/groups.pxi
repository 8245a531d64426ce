# Packets to groups, over bytes: sealed under this device's own key, opened under those of other members. A key is of
# one sender and one epoch, and comes of a secret that all have; Python says which there are.
#
#     | 19 | 0 | label 2 | source 4 | group 4 | epoch 16 | counter 8 | virtio header of zeros 10, packet | tag 16 |
#
# Workers find both without a lock, and what is replaced or taken out is wiped and freed, as sessions are.

cdef enum:
    EPOCH_BYTES = 16

cdef uint64_t GROUP_PACKETS_MAX = <uint64_t>1 << 32     # of one epoch
cdef uint64_t GROUP_BYTES_MAX = <uint64_t>1 << 36       # plaintext, likewise


cdef GroupSeal *group_seal_make(const uint8_t *epoch, const uint8_t *key) noexcept nogil:
    """A key of this device's; NULL when memory is out."""
    cdef GroupSeal *group = <GroupSeal *>calloc(1, sizeof(GroupSeal))
    if group != NULL and not seal_key_set(&group.sends, CIPHER_AES_256_GCM, key, True, True):
        free(group)
        group = NULL
    if group != NULL:
        memcpy(group.epoch, epoch, EPOCH_BYTES)
    return group


cdef bint group_seal(Seals *seals, const uint8_t *payload, uint8_t *out, uint32_t n, uint32_t mask) noexcept nogil:
    """Seal a payload of `n` bytes under the epoch that is the device's now, as aead_seal(), with the next counter.
    False: there is none, or it is at its end."""
    cdef GroupSeal *group = <GroupSeal *>load_pointer(<void **>&seals.group)
    cdef uint8_t header[SEALED_GROUP_HEADER]
    cdef uint32_t plain = n - SEALED_GROUP_HEADER - SEAL_TAG
    cdef bint done = False
    if group == NULL:
        return False
    pthread_mutex_lock(&group.sends.lock)
    if (group.sends.ready and group.number < GROUP_PACKETS_MAX
            and group.bytes_sent + plain <= GROUP_BYTES_MAX):
        memcpy(header, payload, SEALED_EPOCH_AT)
        memcpy(header + SEALED_EPOCH_AT, group.epoch, EPOCH_BYTES)
        store_be64(header + SEALED_GROUP_HEADER - 8, group.number)
        group.number += 1           # whatever becomes of the packet
        group.bytes_sent += plain
        done = aead_seal(&group.sends, header, SEALED_GROUP_HEADER, payload, out, n, mask)
    pthread_mutex_unlock(&group.sends.lock)
    return done


cdef GroupOpen *group_find(Seals *seals, uint32_t source, const uint8_t *epoch) noexcept nogil:
    """What opens packets of this source and epoch, NULL nothing."""
    cdef GroupOpen *group = <GroupOpen *>load_pointer(<void **>&seals.groups[peer_place(source)])
    while group != NULL and (group.source != source or memcmp(group.epoch, epoch, EPOCH_BYTES) != 0):
        group = <GroupOpen *>load_pointer(<void **>&group.next)
    return group


cdef GroupOpen *group_open_make(uint32_t source, const uint8_t *epoch, const uint8_t *key) noexcept nogil:
    """What opens them; NULL when memory is out."""
    cdef GroupOpen *group = <GroupOpen *>calloc(1, sizeof(GroupOpen))
    if group != NULL and not seal_key_set(&group.opens, CIPHER_AES_256_GCM, key, False, True):
        free(group)
        group = NULL
    if group != NULL:
        group.source = source
        memcpy(group.epoch, epoch, EPOCH_BYTES)
        group.window.packets = GROUP_WINDOW
    return group


cdef int group_open(Seals *seals, GroupOpen *group, uint8_t *payload, uint32_t n) noexcept nogil:
    """Open a payload, which has no mask, where it lies; the reason to drop it, -1 when it is open and its counter
    taken."""
    cdef uint64_t number = load_be64(payload + SEALED_GROUP_HEADER - 8)
    cdef int reason = -1
    pthread_mutex_lock(&group.opens.lock)
    if not group.opens.ready or number >= GROUP_PACKETS_MAX or not window_allows(&group.window, number):
        reason = DROP_REPLAYED
    elif not aead_open(&group.opens, payload, SEALED_GROUP_HEADER, payload, n, 0):
        reason = DROP_BAD_SEAL
    else:
        window_take(&group.window, number, &seals.windows)
    pthread_mutex_unlock(&group.opens.lock)
    return reason


cdef void group_wipe(Seals *seals, GroupOpen *group) noexcept nogil:
    """Overwrite its key, and give its window back."""
    seal_key_wipe(&group.opens)
    pthread_mutex_lock(&group.opens.lock)
    window_free(&group.window, &seals.windows)
    pthread_mutex_unlock(&group.opens.lock)


cdef bint group_remove(EngineState *e, Seals *seals, uint32_t source, const uint8_t *epoch) noexcept nogil:
    """Python has done with an epoch; False: it was not there."""
    cdef GroupOpen **place = &seals.groups[peer_place(source)]
    cdef GroupOpen *group = group_find(seals, source, epoch)
    if group == NULL:
        return False
    while place[0] != group:
        place = &place[0].next
    store_pointer(<void **>place, group.next)
    group_wipe(seals, group)
    table_retire(e, &group.table)
    return True


cdef void groups_free(Seals *seals) noexcept nogil:
    """All of it; no worker runs any more."""
    cdef GroupOpen *group
    cdef uint32_t i
    if seals == NULL:
        return
    if seals.group != NULL:
        seal_key_wipe(&seals.group.sends)
        free(seals.group)
    for i in range(<uint32_t>PLACES):
        while seals.groups[i] != NULL:
            group = seals.groups[i]
            seals.groups[i] = group.next
            group_wipe(seals, group)
            free(group)
