# From an original client to the device: opened, checked as what comes by the relay is, and written with the rest that
# link_receive() puts together; or to another original client, where this member sends on. Runs on the device's worker.

cdef bint old_may(Worker *w, Slot *s, Seals *seals, const uint8_t *place, uint8_t *payload, uint32_t n) noexcept nogil:
    """Whether a FORWARD that opened, of at least FORWARD_MIN bytes, may go to the device: what the relay would refuse
    is refused here. False: it was dropped."""
    cdef const uint8_t *packet = payload + 1
    cdef uint32_t own = <uint32_t>load_relaxed64(&seals.own)
    cdef OldPath *old = old_path_of(seals, load_be32(packet + 12))
    cdef Frame f
    if old == NULL or memcmp(old.path.place, place, sizeof(old.path.place)) != 0:
        old = old_hop_at(seals, load_be32(packet + 12), place)
    if old == NULL:
        drop(w, s, DROP_SOURCE)
        return False
    if ipip_ours(packet, n - 1, own) and table_read(&w.engine.networks[s.network].rules) == NULL:
        # No relay has looked at what is within, and this member knows no rules.
        drop(w, s, DROP_INNER_SOURCE)
        return False
    f.payload = payload
    f.length = n
    f.mask = 0
    if seals_of(w, s) != NULL and not takes_clear(w, s, seals, &f, 0):
        return False
    path_heard(&old.path, boot_now(w))
    count(&old.path.traffic.packets_in, 1)
    count(&old.path.traffic.bytes_in, n - 1)
    return True


cdef void old_resend(Worker *w, Slot *s, Seals *seals, const uint8_t *place, const uint8_t *packet,
                     uint32_t length) noexcept nogil:
    """Send on a packet that is another's, by that one's own path, into the batch that leaves with the turn's end. It
    has come from its source's own path. So nobody has sent it on before, and it does not go back."""
    cdef Links *links = <Links *>load_pointer(<void **>&w.links)
    cdef OldPath *source = old_path_of(seals, load_be32(packet + 12))
    cdef OldPath *to = old_open_path(w, s, peer_find(seals, load_be32(packet + 16)))
    cdef Slot *link = slot_if_current(w, to.path.link) if to != NULL else NULL
    cdef uint8_t *datagram
    cdef bint done
    if source == NULL or memcmp(source.path.place, place, sizeof(source.path.place)) != 0:
        drop(w, s, DROP_SOURCE)
        return
    if (load_relaxed64(&seals.old_resends) == 0 or link == NULL
            or old_open_path(w, s, peer_find(seals, load_be32(packet + 12))) == NULL
            or memcmp(to.path.place, place, sizeof(to.path.place)) == 0):
        drop(w, s, DROP_NO_ROUTE)
        return
    if length > to.path.longest:
        drop(w, s, DROP_TOO_LARGE)
        return
    if load_relaxed64(&seals.old_sealed) >= OLD_SEALED_MAX:
        path_quiet(w, seals, &to.path)
        drop(w, s, DROP_NO_ROUTE)
        return
    path_heard(&source.path, boot_now(w))
    count(&source.path.traffic.packets_in, 1)
    count(&source.path.traffic.bytes_in, length)
    w.work -= WORK_FRAME + length
    pthread_mutex_lock(&to.sends.lock)
    datagram = link_room(w, links, &to.path, link, OLD_OVER + length)
    datagram[OLD_HEADER] = OLD_FORWARD
    memcpy(datagram + OLD_OVER, packet, length)
    done = old_iv(links, datagram) and old_seal(&to.sends, datagram, 1 + length)
    if not done:
        link_take_back(links, OLD_OVER + length)
    pthread_mutex_unlock(&to.sends.lock)
    if not done:
        drop(w, s, DROP_LINK_REFUSED)
        return
    add_relaxed64(&seals.old_sealed, 1)
    add_relaxed64(&seals.old_resent, 1)


cdef bint old_datagram(Worker *w, Slot *s, Slot *device, const uint8_t *place, uint8_t *datagram,
                       uint32_t size) noexcept nogil:
    """One datagram that is none of our own. False: it does not open, and is worth nothing now."""
    cdef Seals *seals = <Seals *>load_pointer(<void **>&w.engine.networks[s.network].seals)
    cdef OldKey *key = <OldKey *>load_pointer(<void **>&seals.old_key) if seals != NULL else NULL
    cdef uint8_t *plain = datagram + OLD_HEADER
    cdef uint32_t n = size - OLD_HEADER
    cdef bint done
    if key == NULL or not OLD_LEAST <= size <= OLD_DATAGRAM_MAX:
        return False
    w.work -= WORK_FRAME + size
    pthread_mutex_lock(&key.opens.lock)
    done = old_open(&key.opens, datagram, size)
    pthread_mutex_unlock(&key.opens.lock)
    if not done:
        return False
    if plain[0] != OLD_FORWARD:
        old_tell(w, s, seals, place, plain, n)
    elif n < FORWARD_MIN:
        drop(w, s, DROP_LINK_MALFORMED)
    elif load_be32(plain + 1 + 16) != <uint32_t>load_relaxed64(&seals.own):
        old_resend(w, s, seals, place, plain + 1, n - 1)
    elif old_may(w, s, seals, place, plain, n):
        count_message(w, s, n)
        tun_packet(w, device, w.merge, plain, n, False)
    return True


cdef void old_tell(Worker *w, Slot *s, Seals *seals, const uint8_t *place, const uint8_t *plain,
                   uint32_t n) noexcept nogil:
    """Tell Python of a message. Of one address it hears few."""
    cdef uint8_t detail[27 + OLD_MESSAGE_MAX]
    cdef uint64_t hashed = fold(load64(place + 1) ^ load64(place + 11), <uint64_t>seals.link_prefix + 1)
    if n > OLD_MESSAGE_MAX or not allowed(&seals.old_tells[hashed % OLD_TELLERS], w.now, OLD_TELLS_PER_S,
                                          OLD_TELLS_SAVED):
        drop(w, s, DROP_LINK_MALFORMED if n > OLD_MESSAGE_MAX else DROP_LINK_LIMIT)
        return
    w.work -= WORK_ANSWER
    store_be64(detail, slot_connection(w, s))
    memcpy(detail + 8, place, 19)
    memcpy(detail + 27, plain, n)
    tell_sealing(w, seals, EV_OLD, detail, 27 + n)
