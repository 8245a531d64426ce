"""Never crashes, only documented outcomes, re-encoding is a fix-point, every read and write inside its bytes.

That is the invariant of each target, and what it is re-encoded to stands beside it. scripts/fuzz.sh compiles this
module, the whole engine in it, with libFuzzer's instrumentation, and drives its C functions without Python: it is never
imported. What the fuzzers found is in corpus/, and replays against the slow models in Python: see test_corpus.py.

Every input ends where a page ends, and so does every output; the next page can't be touched.
"""

include "../../candy/_fastpath.pyx"

cdef extern from "<stdlib.h>" nogil:
    void abort()

cdef extern from "<stdio.h>" nogil:
    int puts(const char *text)

cdef extern from *:
    """
    /* Beside the system's own, through the linker's --wrap. */
    extern ssize_t __real_write(int fd, const void *data, size_t n);
    extern ssize_t __real_writev(int fd, const struct iovec *pieces, int n);
    """
    ssize_t real_write "__real_write" (int fd, const void *data, size_t n) nogil
    ssize_t real_writev "__real_writev" (int fd, const iovec *pieces, int n) nogil

cdef enum:
    ROOM = 1 << 20                  # for one input or output
    PACKET_ROOM = 8192              # for one packet of many
    RECORDS = 200
    DEVICE = 1 << 20                # a descriptor that nobody has
    OWN = 0x0A000002                # the device's address, if it unwraps
    LAN = 0x0A000000                # of a /30 behind every member, for those of a /31
    CUTS = 15                       # a header's bytes, and one
    CUT_FRAMES = 4                  # at the start of an input
    RULES = 8
    PEER = LAN + 1                  # the member whose session an input came by
    SEALING = LAN + 3               # the one that seals, where members do
    BEHIND = LAN + 5                # and one that two others reach
    PLACES_HERE = 4                 # from where original clients send, of which no path leads to one

cdef uint64_t DEVICE_NUMBER = <uint64_t>1 << 32
cdef uint64_t FLOW_KEY[3]
cdef uint32_t LAN_BYTES = 0x0100000A
cdef uint8_t *input_end             # of memory that ends at a page's end
cdef uint8_t *vnet_end
cdef uint8_t *output_end
cdef uint8_t *again_end
cdef uint8_t *part_end
cdef uint8_t *record_ends[RECORDS]
cdef Worker *worker
cdef Slot *slot
cdef Merge *merge
cdef Table *rules
cdef Seals *seals
cdef Session *session
cdef OldKey *old_key
cdef OldPath *old_paths[PLACES_HERE]
cdef uint8_t old_places[PLACES_HERE][19]

cdef struct Packets:                # one behind the other, each behind its length
    uint8_t *bytes
    size_t used

cdef Packets written                # what a device was given, as plain packets
cdef Packets wanted
cdef bint overflowed


cdef inline void check(bint holds, const char *what) noexcept nogil:
    if unlikely(not holds):
        puts(what)
        abort()


cdef uint8_t *fence(size_t room) noexcept nogil:
    """The end of memory for so many bytes."""
    cdef uint8_t *whole
    room = (room + PAGE - 1) // PAGE * PAGE
    whole = <uint8_t *>mmap(NULL, room + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    check(whole != MAP_FAILED and mprotect(whole + room, PAGE, PROT_NONE) == 0, "no memory")
    return whole + room


cdef uint8_t *put(uint8_t *end, const uint8_t *data, size_t n) noexcept nogil:
    memcpy(end - n, data, n)
    return end - n


cdef public int LLVMFuzzerInitialize(int *argc, char ***argv) noexcept nogil:
    global input_end, vnet_end, output_end, again_end, part_end, worker, slot, merge, rules
    global seals, session
    cdef uint32_t i
    cdef Rule *rule
    choose_unmask()
    input_end, vnet_end, output_end, again_end, part_end = fence(ROOM), fence(1), fence(ROOM), fence(ROOM), fence(ROOM)
    for i in range(RECORDS):
        record_ends[i] = fence(PACKET_ROOM)
    worker = <Worker *>calloc(1, sizeof(Worker))
    slot = <Slot *>calloc(1, sizeof(Slot))
    merge = <Merge *>calloc(1, sizeof(Merge))
    worker.engine = <EngineState *>calloc(1, sizeof(EngineState))
    worker.engine.slots = slot
    worker.engine.outbox.signalled = True
    worker.runs = <Run *>calloc(RUNS_MAX, sizeof(Run))
    worker.targets = <Target *>calloc(TARGETS_MAX, sizeof(Target))
    worker.target_of = <uint32_t *>calloc(1, sizeof(uint32_t))
    worker.merge = merge
    slot.kind = SLOT_TUN
    worker.engine.networks[0] = network_make(0)
    worker.engine.networks[0].check_source = True
    rules = table_make(RULES, sizeof(Rule))
    for i in range(RULES):
        rule = <Rule *>(rules + 1) + i
        rule.next_hop = LAN + i
        rule.destination = LAN
        rule.mask = <uint32_t>0xFFFFFFFC
        rule.device = LAN
        rule.device_mask = <uint32_t>0xFFFFFFFE
    seals = <Seals *>calloc(1, sizeof(Seals))
    seals.device = DEVICE_NUMBER
    seals.own = OWN
    session = <Session *>calloc(1, sizeof(Session))
    session.peer = PEER
    slot.link = <Link *>calloc(1, sizeof(Link))
    slot.link.expected = 1
    written.bytes = <uint8_t *>malloc(4 * ROOM)
    wanted.bytes = <uint8_t *>malloc(4 * ROOM)
    return 0


# ------------------------------------------------------------------------------------------------------------- frames
# An input as frames.py has it: a first byte from 0x80 on says that a server speaks, its bit 0x40 that candy.3 was
# agreed on; the rest is the stream.

cdef public int fuzz_frames(const uint8_t *data, size_t size) noexcept nogil:
    """The parser of either end. A frame that was taken is built again from what was found in it, byte by byte; cut
    before its end it is not taken, and no fault shows that the whole does not have."""
    cdef Frame f
    cdef const uint8_t *stream = data + 1
    cdef uint8_t *p
    cdef uint8_t *out
    cdef size_t at = 0
    cdef size_t have = size - 1
    cdef uint32_t n
    cdef uint32_t frames = 0
    cdef uint32_t most
    cdef int status
    cdef bint from_client
    if size == 0 or have > ROOM:
        return 0
    from_client = data[0] < 128
    most = WIRE_PAYLOAD_CANDY3 if data[0] & 64 else WIRE_PAYLOAD_MAX
    p = put(input_end, stream, have)
    while True:
        status = parse_frame(p + at, have - at, from_client, most, &f)
        check(status in (FRAME_OK, FRAME_SHORT, CLOSE_PROTOCOL_ERROR, CLOSE_TOO_LARGE), "an unknown status")
        if frames < CUT_FRAMES:
            frames_cut(stream + at, have - at, from_client, most, status)
        frames += 1
        if status != FRAME_OK:
            return 0
        n = f.header + f.length
        check(f.length <= most and n <= have - at, "a frame beyond its bytes")
        check(f.payload == p + at + f.header, "a payload somewhere else")
        check(f.opcode <= OP_BINARY or OP_CLOSE <= f.opcode <= OP_PONG, "a reserved opcode")
        check(f.opcode < OP_CLOSE or (f.final and (f.length <= 125 or (
            f.opcode == OP_PONG and not from_client and f.length <= WIRE_PAYLOAD_LEGACY))), "a long control frame")
        unmask(f.payload, f.payload, f.length, f.mask)
        if f.opcode == OP_CLOSE:
            close_code_valid(put(again_end, f.payload, f.length), f.length)
        out = output_end - n
        check(build_frame(out, f.opcode, f.payload, f.length, from_client, f.mask) == n, "built with another size")
        check(frame_size(out) == n and frame_header(out) == f.header, "measured with another size")
        check(out[0] == 128 | f.opcode and out[0] & 127 == stream[at] & 127, "built with another first byte")
        check(memcmp(out + 1, stream + at + 1, n - 1) == 0, "built anew it differs")
        # As it is forwarded: moved left within its own bytes.
        put(again_end, f.payload, f.length)
        n -= build_frame(p + at, f.opcode, f.payload, f.length, False, 0)
        check(n == (4 if from_client else 0), "unmasked it is not 4 bytes shorter")
        check(memcmp(p + at + frame_header(p + at), again_end - f.length, f.length) == 0, "moved it differs")
        at += f.header + f.length
        check(memcmp(p + at, stream + at, min(have - at, <size_t>64)) == 0, "it changed what follows")


cdef void frames_cut(const uint8_t *p, size_t have, bint from_client, uint32_t most, int whole) noexcept nogil:
    """The same bytes cut within the header."""
    cdef Frame f
    cdef size_t n
    cdef int status
    cdef bint fault = False
    for n in range(min(have, <size_t>CUTS)):
        status = parse_frame(put(again_end, p, n), n, from_client, most, &f)
        check(status == FRAME_SHORT or status == whole, "a fault, or a frame, that the whole isn't")
        check(status != FRAME_OK or f.header + f.length <= n, "taken before it was there")
        check(not fault or status == whole, "a fault that went away")
        fault |= status > 0


# ------------------------------------------------------------------------------------------------------------ passing
# An input is a mask and a payload, as a member with candy.3 sends them.

cdef public int fuzz_passing(const uint8_t *data, size_t size) noexcept nogil:
    """A frame on its way between members with candy.3. It may pass where its header has room for the new length, and
    then the receiver parses the same bytes; whatever the relay reads or writes through the mask comes to the same as
    without one."""
    cdef Frame f
    cdef Frame g
    cdef uint8_t mask[MASK_BYTES]
    cdef const uint8_t *payload = data + MASK_BYTES
    cdef uint8_t *passed
    cdef uint8_t *plain
    cdef uint32_t length, n, total, known
    cdef uint32_t passed_hash = 0
    cdef uint32_t plain_hash = 0
    if size < MASK_BYTES or size - MASK_BYTES > WIRE_PAYLOAD_CANDY3:
        return 0
    length = <uint32_t>size - MASK_BYTES
    memcpy(mask, data, MASK_BYTES)
    n = header_size(length, True) + length
    passed = input_end - n
    check(build_frame(passed, OP_BINARY, payload, length, True, load32(mask)) == n, "another size")
    check(parse_frame(passed, n, True, WIRE_PAYLOAD_CANDY3, &f) == FRAME_OK, "no frame")
    check(passes(&f) == (128 <= mask[0] <= 254 and header_size(length + MASK_BYTES, False) + MASK_BYTES
                         == header_size(length, True)), "passes where it may not, or not where it may")
    padding_checked(&f, payload, length)
    if not passes(&f) or length == 0 or is_mask(payload[0]):
        return 0
    check(write_header(passed, OP_BINARY, length + MASK_BYTES, False, 0) + MASK_BYTES == f.header, "its bytes moved")
    check(frame_size(passed) == n, "measured with another size")
    check(parse_frame(passed, n, False, WIRE_PAYLOAD_CANDY3 + MASK_BYTES, &g) == FRAME_OK, "no frame for a client")
    check(g.length == length + MASK_BYTES and memcmp(g.payload, mask, MASK_BYTES) == 0, "another mask")
    check(message_start(passed, n, &known) == f.header and known == load32(mask), "a mask that is not known")
    plain = output_end - header_size(length, False) - length
    total = build_frame(plain, OP_BINARY, payload, length, False, 0)
    check(message_start(plain, total, &known) == frame_header(plain) and known == 0, "a mask where there is none")
    check(frame_flow(passed, n, FLOW_KEY, &passed_hash) == frame_flow(plain, total, FLOW_KEY, &plain_hash)
          and passed_hash == plain_hash, "another flow beneath a mask")
    check(frame_mark(passed) == frame_mark(plain), "marked beneath a mask alone, or without one")
    unmask(again_end - length, passed + f.header, length, load32(mask))
    check(memcmp(again_end - length, plain + frame_header(plain), length) == 0, "marked otherwise beneath a mask")
    check(payload[0] == KIND_FORWARD or payload[0] == KIND_SUPER
          or memcmp(again_end - length, payload, length) == 0, "what is sealed was touched")
    return 0


cdef void padding_checked(Frame *f, const uint8_t *payload, uint32_t length) noexcept nogil:
    """What is cut is behind the packet, and no more than padding may be."""
    cdef Frame g = f[0]
    cdef uint32_t shift = SUPER_SHIFT if length != 0 and payload[0] == KIND_SUPER else 0
    cdef uint32_t total
    if length < FORWARD_MIN + shift or (payload[0] != KIND_FORWARD and payload[0] != KIND_SUPER):
        return
    total = 1 + shift + (payload[3 + shift] << 8 | payload[4 + shift])
    cut_padding(&g, shift)
    check(g.length == (total if total < length <= total + PADDING_MAX else length), "cut elsewhere")


# ------------------------------------------------------------------------------------------------------ super-packets
# An input is a virtio header and a packet.

cdef public int fuzz_supers(const uint8_t *data, size_t size) noexcept nogil:
    """The segmenter. Each segment is a packet with right lengths and checksums that stands for itself, its payload
    where it belongs; parts stand for the same packets, and so do datagrams of a link, whatever fits there; the header
    for a kernel is read as it was written."""
    cdef Super u
    cdef Super v
    cdef uint8_t *vnet
    cdef uint8_t *packet
    cdef uint32_t length
    if size < VNET_BYTES or size > ROOM:
        return 0
    length = <uint32_t>size - VNET_BYTES
    vnet = put(vnet_end, data, VNET_BYTES)
    packet = put(input_end, data + VNET_BYTES, length)
    check(super_parse(vnet, packet, length, &u) == (
        super_parse_any(vnet, packet, length, &u) and super_count(&u) <= SUPER_PACKETS_MAX), "the network's bound")
    if not super_parse_any(vnet, packet, length, &u):
        return 0
    check(u.packet == packet and u.length == length, "another packet")
    check(u.inner < u.transport and u.transport <= u.headers and u.headers <= length <= 65535, "headers beyond it")
    check(u.needs_checksum or u.gso_size == 0, "segments without a checksum")
    check_segments(&u)
    if u.gso_size != 0:
        check_parts(&u, vnet[1], 1 + vnet[2] % 50)
    check_cuts(&u, PATH_LEAST + 5 * <uint32_t>vnet[2])
    super_header(&u, vnet)
    check(super_parse_any(vnet, packet, length, &v), "our own virtio header is refused")
    check(u.inner == v.inner and u.headers == v.headers and u.gso_size == v.gso_size, "it says another thing")
    check(load_le16(vnet + 2) == (u.headers - u.inner if u.needs_checksum else 0), "hdr_len")
    return 0


cdef bint looked_at(uint32_t index, uint32_t count) noexcept nogil:
    """Not all of thousands."""
    return index < 6 or index + 2 >= count or index % 97 == 0


cdef void check_segments(const Super *u) noexcept nogil:
    cdef uint32_t count = super_count(u)
    cdef uint32_t payload = u.length - u.headers
    cdef uint32_t i, n
    cdef uint8_t *out = output_end - super_segment_size(u)
    check(count == 1 or (u.gso_size * (count - 1) < payload <= u.gso_size * count), "another number of packets")
    for i in range(count):
        if looked_at(i, count):
            n = super_segment(u, i, out)
            check(u.headers <= n <= super_segment_size(u), "a segment larger than the largest")
            check(memcmp(out + u.headers, u.packet + u.headers + i * u.gso_size, n - u.headers) == 0, "another payload")
            check(n - u.headers == (payload if count == 1 else u.gso_size if i < count - 1
                                    else payload - i * u.gso_size), "another size")
            check_packet(out, n, u)
            check_itself(out, n, u)


cdef void check_packet(const uint8_t *packet, uint32_t length, const Super *u) noexcept nogil:
    """Lengths and checksums of a segment."""
    cdef const uint8_t *ip = packet + u.inner
    cdef uint32_t rest = length - u.transport
    cdef uint32_t pseudo
    check(ipv4_exact(packet, length) and ipv4_exact(ip, length - u.inner), "a length that is wrong")
    check(slow_sum(packet, (packet[0] & 15) * 4, 0) == 0xFFFF, "an outer checksum that is wrong")
    check(slow_sum(ip, (ip[0] & 15) * 4, 0) == 0xFFFF, "a header checksum that is wrong")
    if not u.needs_checksum:
        return
    pseudo = slow_sum(ip + 12, 8, ip[9] + rest)
    check(slow_sum(packet + u.transport, rest, pseudo) == 0xFFFF, "a transport checksum that is wrong")
    check(ip[9] != UDP or load_be16(packet + u.transport + 4) == rest, "a UDP length that is wrong")
    check(ip[9] != UDP or load_be16(packet + u.transport + 6) != 0, "a UDP checksum that says there is none")


cdef uint32_t slow_sum(const uint8_t *data, uint32_t n, uint32_t total) noexcept nogil:
    """RFC 1071 as it is written."""
    cdef uint32_t i
    for i in range(n):
        total += data[i] if i & 1 else <uint32_t>data[i] << 8
        total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)


cdef void plain_header(const Super *u, uint8_t *vnet) noexcept nogil:
    """A virtio header for one of its packets."""
    cdef Super one = u[0]
    one.gso_size = 0
    memset(vnet, 0, VNET_BYTES)
    super_header(&one, vnet)


cdef void check_itself(uint8_t *packet, uint32_t length, const Super *u) noexcept nogil:
    """A segment's only segment is itself."""
    cdef Super one
    cdef uint8_t vnet[VNET_BYTES]
    cdef uint8_t *out = again_end - length
    plain_header(u, vnet)
    check(super_parse(vnet, packet, length, &one) and super_count(&one) == 1, "a segment is refused")
    check(super_segment_size(&one) == length, "a segment counts as larger")
    check(super_segment(&one, 0, out) == length and memcmp(out, packet, length) == 0, "a segment of it differs")


cdef void check_cuts(const Super *u, uint32_t longest) noexcept nogil:
    """By a link: cut to its path, the checksum left out where the receiver makes it."""
    cdef Super cut = u[0]
    cdef Path path
    cdef uint8_t *out
    cdef uint32_t i, n
    path.longest = longest
    if not link_fits(&cut, &path):
        check(super_segment_size(u) > longest, "what fits is refused")
        check(u.protocol != TCP or u.gso_size == 0 or longest < u.headers + GSO_TCP_MIN, "what could be cut is refused")
        return
    check(super_segment_size(&cut) <= longest and cut.gso_size <= u.gso_size, "longer than the path")
    out = output_end - super_segment_size(&cut)
    for i in range(super_count(&cut)):
        if looked_at(i, super_count(&cut)):
            n = link_cut(&cut, i, out)
            check(n == (cut.headers + min(cut.gso_size, cut.length - cut.headers - i * cut.gso_size)
                        if cut.gso_size != 0 else cut.length), "another size than there is room for")
            check(memcmp(out + cut.headers, cut.packet + cut.headers + i * cut.gso_size, n - cut.headers) == 0,
                  "a datagram with another payload")
            if cut.needs_checksum and cut.inner == 0:
                check(link_summable(out, n), "our own receiver refuses it")
                checksum_finish(out, out + cut.transport, n - cut.transport)
            check_packet(out, n, &cut)


cdef void check_parts(const Super *u, uint8_t kind, uint32_t n) noexcept nogil:
    cdef Super part
    cdef uint32_t count = super_count(u)
    cdef uint32_t index = 0
    cdef uint32_t i, size
    cdef uint32_t most = VNET_BYTES + min(u.length, u.headers + n * u.gso_size)
    cdef uint8_t *out = part_end - most
    while index < count:
        if looked_at(index, count):
            size = super_part(u, kind, index, n, out)
            check(size <= most, "a part larger than the largest")
            check(super_parse(out, out + VNET_BYTES, size - VNET_BYTES, &part), "a part is refused")
            check(super_count(&part) == min(n, count - index), "a part stands for another number of packets")
            for i in range(super_count(&part)):
                if looked_at(i, super_count(&part)):
                    size = super_segment(&part, i, again_end - super_segment_size(&part))
                    check(size == super_segment(u, index + i, output_end - super_segment_size(u)), "another size")
                    check(memcmp(again_end - super_segment_size(&part), output_end - super_segment_size(u), size) == 0,
                          "a part stands for another packet")
        index += n


# --------------------------------------------------------------------------------------------------------------- IPIP
# An input is a device's address and a packet.

cdef public int fuzz_ipip(const uint8_t *data, size_t size) noexcept nogil:
    """Outer headers. What is wrapped is ours, and for nobody else; wrapped as a whole or segment by segment, a
    super-packet comes to the same."""
    cdef Super u
    cdef Super v
    cdef uint8_t vnet[VNET_BYTES]
    cdef uint8_t message[96]
    cdef uint8_t *packet
    cdef uint8_t *wrapped
    cdef uint32_t own, length, i, n
    cdef bint ours
    if size < 4 or size > ROOM // 2:
        return 0
    own = load_be32(data)
    length = <uint32_t>size - 4
    packet = put(input_end, data + 4, length)
    ours = ipip_ours(packet, length, own)
    check(not ours or (length >= 40 and own != 0 and packet[9] == IPIP and load_be32(packet + 16) == own),
          "not for this device")
    check(not ours or packet[0] == 0 or (load_be32(packet + 4) == 0x4000 and packet[0] == 0x45), "the user's own")
    if length < 20:
        ipv4_plausible(packet, length)
        return 0
    flow_hash(packet, length, FLOW_KEY)
    n = icmp_fragmentation_needed(message, packet, length, WIRE_PAYLOAD_LEGACY - 1)
    check(n == 0 or (ipv4_exact(message, n) and n <= 96 and slow_sum(message, 20, 0) == 0xFFFF
                     and slow_sum(message + 20, n - 20, 0) == 0xFFFF), "an ICMP message that is wrong")
    if own == 0 or length + IPIP_BYTES > 65535:
        return 0
    wrapped = put(output_end, packet, length) - IPIP_BYTES
    ipip_wrap(wrapped, ~own, own, length)
    check(ipip_ours(wrapped, length + IPIP_BYTES, own), "our own is not ours")
    check(not ipip_ours(wrapped, length + IPIP_BYTES, own ^ 1), "our own is somebody else's")
    check(ipv4_exact(wrapped, length + IPIP_BYTES) and slow_sum(wrapped, 20, 0) == 0xFFFF, "an outer header is wrong")
    check(memcmp(wrapped + IPIP_BYTES, packet, length) == 0, "an inner packet was touched")
    # As a super-packet, with the virtio header that such a packet has.
    memset(vnet, 0, VNET_BYTES)
    vnet[0] = VNET_NEEDS_CSUM
    vnet[1] = GSO_TCP4 if packet[9] == TCP else GSO_UDP
    store_le16(vnet + 4, 8 + (own & 0x3FF))
    store_le16(vnet + 6, (packet[0] & 15) * 4)
    store_le16(vnet + 8, 16 if packet[9] == TCP else 6)
    if not super_parse(vnet, packet, length, &u) or u.inner != 0:
        return 0
    v = u
    v.packet = wrapped + IPIP_BYTES
    check(ipip_super(&v, ~own, own) == length + IPIP_BYTES, "another length")
    check(super_parse(vnet, wrapped, length + IPIP_BYTES, &u), "our own super-packet is refused")
    check(v.inner == u.inner == IPIP_BYTES and v.transport == u.transport and v.headers == u.headers
          and v.packet == u.packet and v.length == u.length, "it was wrapped as something else")
    super_parse(vnet, packet, length, &u)
    for i in range(super_count(&u)):
        if looked_at(i, super_count(&u)):
            n = super_segment(&u, i, again_end - super_segment_size(&u))
            check(super_segment(&v, i, part_end - super_segment_size(&v)) == n + IPIP_BYTES, "another size")
            wrapped = part_end - super_segment_size(&v)
            check(memcmp(wrapped + IPIP_BYTES, again_end - super_segment_size(&u), n) == 0, "another segment")
            check(ipip_ours(wrapped, n + IPIP_BYTES, own), "a segment that is not ours")
    return 0


# ------------------------------------------------------------------------------------------------------------- device
# An input is a byte of flags (1: no virtio headers, 2: the device has an address, 4: TCP packets get their length and
# checksums right, which no fuzzer guesses) and records: two bytes of length, of which the highest bit says that a
# super-packet follows and not a plain packet.

cdef public ssize_t wrap_write "__wrap_write"(int fd, const void *data, size_t n) noexcept nogil:
    cdef iovec piece
    if fd != DEVICE:
        return real_write(fd, data, n)
    piece.iov_base = <void *>data
    piece.iov_len = n
    return write_device_pieces(&piece, 1)


cdef public ssize_t wrap_writev "__wrap_writev"(int fd, const iovec *pieces, int n) noexcept nogil:
    return write_device_pieces(pieces, n) if fd == DEVICE else real_writev(fd, pieces, n)


cdef ssize_t write_device_pieces(const iovec *pieces, int n) noexcept nogil:
    """What a kernel makes of one write: the packets that it stands for."""
    cdef Super u
    cdef uint8_t *p = output_end
    cdef size_t total = 0
    cdef int i
    for i in range(n):
        total += pieces[i].iov_len
    check(total <= 65535 + VNET_BYTES, "a write longer than a kernel takes")
    p = output_end - total
    for i in range(n):
        memcpy(p, pieces[i].iov_base, pieces[i].iov_len)
        p += pieces[i].iov_len
    p = output_end - total
    if not slot.vnet:
        keep(&written, p, <uint32_t>total)
        return <ssize_t>total
    check(total >= VNET_BYTES, "a write without a virtio header")
    total -= VNET_BYTES
    if p[0] == 0:
        check(load64(p) == 0 and load_le16(p + 8) == 0, "a virtio header of the network's")
        keep(&written, p + VNET_BYTES, <uint32_t>total)
    else:
        check(super_parse(p, p + VNET_BYTES, <uint32_t>total, &u) and u.inner == 0, "a kernel is lied to")
        check(load_le16(p + 2) == u.headers and p[0] == VNET_NEEDS_CSUM, "a virtio header that is not ours")
        keep_segments(&written, &u, 0)
    return <ssize_t>(total + VNET_BYTES)


cdef void keep(Packets *to, const uint8_t *packet, uint32_t length) noexcept nogil:
    global overflowed
    if to.used + 4 + length > 4 * ROOM:
        overflowed = True
        return
    memcpy(to.bytes + to.used, &length, 4)
    memcpy(to.bytes + to.used + 4, packet, length)
    # With DF an id means nothing (RFC 6864), and the header's checksum goes with it; where that was right.
    if packet[0] == 0x45 and packet[6] & 0x40 and slow_sum(packet, 20, 0) == 0xFFFF:
        store_be16(to.bytes + to.used + 8, 0)
        store_be16(to.bytes + to.used + 14, 0)
    to.used += 4 + length


cdef void keep_segments(Packets *to, const Super *u, uint32_t skip) noexcept nogil:
    cdef uint32_t i, n
    for i in range(super_count(u)):
        n = super_segment(u, i, again_end - super_segment_size(u))
        keep(to, again_end - super_segment_size(u) + skip, n - skip)


cdef bint may_come_out(const uint8_t *packet) noexcept nogil:
    """Whether this device was told no rules, or they allow what is within. It is a member of the LAN itself."""
    cdef uint32_t source = load_be32(packet + 12)
    cdef uint32_t inner_source = load_be32(packet + 32)
    cdef uint32_t inner_destination = load_be32(packet + 36)
    cdef bint is_from_lan = inner_source >> 2 == LAN >> 2 and source >> 3 == LAN >> 3
    cdef bint is_to_lan = inner_destination >> 2 == LAN >> 2 and source >> 1 == LAN >> 1
    return worker.engine.networks[0].rules == NULL or (
        (inner_source == source or is_from_lan) and (inner_destination == OWN or is_to_lan))


cdef void want(const uint8_t *payload, uint32_t length) noexcept nogil:
    """What a device has to be given of one FORWARD or SUPER."""
    cdef Super u
    cdef uint32_t own = <uint32_t>slot.own_address
    cdef uint8_t *packet
    cdef bint ours
    if payload[0] == KIND_FORWARD:
        packet = put(input_end, payload + 1, length - 1)
        length -= 1
        if ipip_ours(packet, length, own):
            if not may_come_out(packet):
                return
            packet += IPIP_BYTES
            length -= IPIP_BYTES
        if ipv4_plausible(packet, length):
            keep(&wanted, packet, length)
        return
    packet = put(input_end, payload + 1 + VNET_BYTES, length - 1 - VNET_BYTES)
    length -= 1 + VNET_BYTES
    if not super_parse(payload + 1, packet, length, &u):
        return
    ours = ipip_ours(packet, length, own)
    if ours and not may_come_out(packet):
        return
    if not slot.vnet:
        keep_segments(&wanted, &u, u.inner if ours else 0)
    elif u.inner == 0 or ours:
        if u.needs_checksum:
            keep_segments(&wanted, &u, u.inner)
        else:
            keep(&wanted, packet + u.inner, length - u.inner)


cdef void put_right(uint8_t *packet, uint32_t length) noexcept nogil:
    """Length and checksums of a TCP packet."""
    if length < 40 or packet[0] != 0x45 or packet[9] != TCP or load_be16(packet + 6) & 0x3FFF:
        return
    ipv4_finish(packet, length, 0)
    checksum_finish(packet, packet + 20, length - 20)


cdef public int fuzz_device(const uint8_t *data, size_t size) noexcept nogil:
    """What is put together for a device is, taken apart by a kernel, what came; with and without virtio headers."""
    global overflowed
    cdef size_t at = 1
    cdef uint32_t length, least, record
    cdef uint8_t *payload
    if size == 0:
        return 0
    slot.fd = DEVICE
    slot.vnet = data[0] & 1 == 0
    slot.own_address = OWN if data[0] & 2 else 0
    worker.engine.networks[0].rules = rules if data[0] & 8 else NULL
    written.used = wanted.used = 0
    overflowed = False
    for record in range(RECORDS):
        if size - at < 2:
            break
        length = load_be16(data + at) & 0x7FFF
        least = SUPER_MIN if data[at] >> 7 else FORWARD_MIN
        length = <uint32_t>min(<size_t>length, size - at - 2)
        if length + 1 >= least and length < PACKET_ROOM:
            payload = put(record_ends[record], data + at + 2, length) - 1
            payload[0] = KIND_SUPER if data[at] >> 7 else KIND_FORWARD
            if data[0] & 4 and payload[0] == KIND_FORWARD:
                put_right(payload + 1, length)
            want(payload, length + 1)
            tun_packet(worker, slot, merge, payload, length + 1, False)
        at += 2 + length
    merge_write(worker, slot, merge)
    check(overflowed or (written.used == wanted.used and memcmp(written.bytes, wanted.bytes, wanted.used) == 0),
          "a device was given something else")
    return 0


# ------------------------------------------------------------------------------------------------------------- opened
# An input is a byte of flags (1: no virtio headers, 2: rules are known, 4: inner sources are not checked) and what a
# member sealed for the device.

cdef public int fuzz_opened(const uint8_t *data, size_t size) noexcept nogil:
    """What comes out of a seal has one outcome: nothing, an event, a drop under its name, or a frame for the device
    with the very packet, written over what lay before it, and of that the device is given what is in it."""
    global overflowed
    cdef Outbox *outbox = &worker.engine.outbox
    cdef const uint8_t *plain = data + 1
    cdef uint32_t length
    cdef uint64_t before = drops_so_far()
    cdef uint64_t dropped
    cdef int reason
    cdef Frame f
    if size == 0 or size - 1 > SEALED_MAX - SEALED_HEADER - SEAL_TAG:
        return 0
    length = <uint32_t>size - 1
    memset(&f, 0, sizeof(f))
    f.length = SEALED_HEADER + length + SEAL_TAG
    f.payload = part_end - f.length
    memset(f.payload, 0xA5, f.length)
    memcpy(f.payload + SEALED_HEADER, plain, length)
    slot.fd = DEVICE
    slot.vnet = data[0] & 1 == 0
    slot.own_address = OWN
    worker.engine.networks[0].rules = rules if data[0] & 2 else NULL
    seals.checks_source = data[0] & 4 == 0
    outbox.used = 0
    slot.pending = 0
    written.used = wanted.used = 0
    overflowed = False
    reason = opened_drop(plain, length)
    take_opened(worker, slot, DEVICE_NUMBER, seals, session, &f)
    dropped = drops_so_far() - before
    check(dropped == (1 if reason >= 0 else 0), "dropped, and should not be, or taken")
    check((outbox.used != 0) == (reason < 0 and length != 0 and plain[0] == NOTE), "told of no note, or not of one")
    check(outbox.used == 0 or (outbox.used == 16 + 4 + length
                               and memcmp(outbox.bytes + 16 + 4, plain, length) == 0), "told of another note")
    check((worker.target_count != 0) == (reason < 0 and length != 0 and plain[0] != NOTE), "a packet too many, or few")
    if worker.target_count != 0:
        opened_written(&f, plain)
    return 0


cdef uint64_t drops_so_far() noexcept nogil:
    cdef uint64_t total = 0
    cdef uint32_t i
    for i in range(<uint32_t>DROPS_COUNT):
        total += worker.counters.drops[i]
    return total


cdef uint32_t opened_length(const uint8_t *plain, uint32_t length) noexcept nogil:
    """Of the packet, without the zeros that may follow it."""
    cdef uint32_t total = load_be16(plain + VNET_BYTES + 2)
    length -= VNET_BYTES
    return total if total < length <= total + PADDING_MAX else length


cdef int opened_drop(const uint8_t *plain, uint32_t length) noexcept nogil:
    """Why this goes no further; -1: it does."""
    cdef const uint8_t *packet = plain + VNET_BYTES
    cdef uint32_t source, destination
    cdef bint has_rules = worker.engine.networks[0].rules != NULL
    if length == 0:
        return -1
    if plain[0] == NOTE:
        return -1 if 2 <= length <= NOTE_MAX and 1 <= plain[1] <= NOTE_TYPES else DROP_UNKNOWN_NOTE
    if length < VNET_BYTES + 20 or not ipv4_exact(packet, opened_length(plain, length)):
        return DROP_SUPER
    source = load_be32(packet + 12)
    destination = load_be32(packet + 16)
    # Of RULES: a /30 behind each of eight members, for those of a /31, of which this device is none.
    if source == OWN or (source != PEER and seals.checks_source != 0):
        return DROP_INNER_SOURCE
    if destination != OWN and not (has_rules and destination >> 2 == LAN >> 2 and PEER >> 1 == LAN >> 1):
        return DROP_INNER_DESTINATION
    return -1


cdef void opened_written(const Frame *f, const uint8_t *plain) noexcept nogil:
    """The frame, and what the device is given of it."""
    cdef uint8_t *frame = worker.runs[0].bytes
    cdef uint32_t size = worker.runs[0].length
    cdef uint32_t header = frame_header(frame)
    cdef uint32_t length = opened_length(plain, f.length - SEALED_HEADER - SEAL_TAG)
    cdef const uint8_t *payload = frame + header
    check(worker.target_count == 1 and worker.run_count == 1 and worker.targets[0].packets == 1, "not one frame")
    check(worker.targets[0].connection == DEVICE_NUMBER, "somebody else's")
    check(frame >= f.payload and frame + size <= f.payload + f.length - SEAL_TAG, "a frame beyond what was opened")
    check(frame[0] == OPENED and frame_size(frame) == size, "no frame, or another's size")
    if load64(plain) == 0 and load_le16(plain + 8) == 0:
        check(payload[0] == KIND_FORWARD and size == header + 1 + length, "not as a packet")
        check(memcmp(payload + 1, plain + VNET_BYTES, length) == 0, "another packet")
    else:
        check(payload[0] == KIND_SUPER and size == header + 1 + VNET_BYTES + length, "not as a super-packet")
        check(memcmp(payload + 1, plain, VNET_BYTES + length) == 0, "another super-packet")
    # Nothing that was sealed is unwrapped.
    slot.own_address = 0
    want(payload, size - header)
    slot.own_address = OWN
    tun_write(worker, slot, &worker.targets[0])
    check(overflowed or (written.used == wanted.used and memcmp(written.bytes, wanted.bytes, wanted.used) == 0),
          "a device was given something else")
    worker.target_of[0] = 0
    worker.target_count = worker.run_count = 0
    worker.run_connection = 0


# ------------------------------------------------------------------------------------------------------------- linked
# An input is a byte of flags (those of fuzz_opened; 128: what follows is one datagram of a stranger's), and records: a
# byte of a datagram's flags, two of length, and what a member sealed in it.

cdef public int fuzz_linked(const uint8_t *data, size_t size) noexcept nogil:
    """What comes by a link in one call has one outcome each: nothing, an event, a drop under its name, or a packet. The
    device is given the very packets, with the checksums that were left out."""
    global overflowed
    cdef Outbox *outbox = &worker.engine.outbox
    cdef LinkFrom f
    cdef uint8_t name[28]
    cdef uint8_t flags
    cdef uint8_t *plain
    cdef size_t at = 1
    cdef uint32_t length, record
    cdef uint64_t before, dropped
    cdef int reason
    if size == 0:
        return 0
    memset(&f, 0, sizeof(f))
    f.name = name
    f.name_size = name_of(AF_INET, <const uint8_t *>&LAN_BYTES, 7, name)
    f.session = session
    f.expected = True
    place_of(name, f.place)
    outbox.used = 0
    slot.pending = 0
    if data[0] >> 7:
        linked_stranger(&f, data + 1, <uint32_t>(size - 1))
        return 0
    slot.fd = DEVICE
    slot.vnet = data[0] & 1 == 0
    slot.own_address = OWN
    worker.engine.networks[0].rules = rules if data[0] & 2 else NULL
    seals.checks_source = data[0] & 4 == 0
    written.used = wanted.used = 0
    overflowed = False
    merge.pieces = 0
    for record in range(RECORDS):
        if size - at < 3:
            break
        flags = data[at] & (LINK_ASKS | LINK_UNSUMMED)
        length = <uint32_t>min(<size_t>load_be16(data + at + 1), size - at - 3)
        if length < PACKET_ROOM:
            plain = put(record_ends[record], data + at + 3, length)
            reason = linked_drop(plain, length, flags)
            before = drops_so_far()
            f.size = LINK_MIN + length
            outbox.used = 0
            slot.pending = 0
            link_content(worker, slot, slot, seals, &f, flags, plain, length)
            dropped = drops_so_far() - before
            check(dropped == (1 if reason >= 0 else 0), "dropped, and should not be, or taken")
            check((outbox.used != 0) == (reason < 0 and length != 0 and (plain[0] == NOTE or plain[0] == LINK_ANSWER)),
                  "an event too many, or none")
        at += 3 + length
    merge_write(worker, slot, merge)
    check(overflowed or (written.used == wanted.used and memcmp(written.bytes, wanted.bytes, wanted.used) == 0),
          "a device was given something else")
    return 0


cdef int linked_drop(const uint8_t *plain, uint32_t length, uint8_t flags) noexcept nogil:
    """Why this goes no further; -1: it does, and a packet is wanted at the device."""
    cdef uint8_t *packet
    cdef uint32_t header
    cdef bint has_rules = worker.engine.networks[0].rules != NULL
    cdef uint32_t source, destination
    if length == 0:
        return -1
    if plain[0] >> 4 != 4:
        if flags & LINK_UNSUMMED:
            return DROP_LINK_MALFORMED
        if plain[0] == NOTE:
            return -1 if 2 <= length <= NOTE_MAX and 1 <= plain[1] <= NOTE_TYPES else DROP_UNKNOWN_NOTE
        if (plain[0] == LINK_PROBE and length >= 30) or (plain[0] == LINK_ANSWER and length == 30):
            return -1
        return DROP_LINK_MALFORMED
    if length < 20 or plain[0] & 15 < 5 or length < (plain[0] & 15) * 4 or load_be16(plain + 2) != length:
        return DROP_LINK_MALFORMED
    header = (plain[0] & 15) * 4
    if flags & LINK_UNSUMMED and (load_be16(plain + 6) & 0x3FFF or not (
            (plain[9] == 6 and length >= header + 20 and plain[header + 12] >> 4 >= 5
             and length >= header + (plain[header + 12] >> 4) * 4)
            or (plain[9] == 17 and length >= header + 8 and load_be16(plain + header + 4) == length - header))):
        return DROP_LINK_MALFORMED
    source = load_be32(plain + 12)
    destination = load_be32(plain + 16)
    if source == OWN or (source != PEER and seals.checks_source != 0):
        return DROP_INNER_SOURCE
    if destination != OWN and not (has_rules and destination >> 2 == LAN >> 2 and PEER >> 1 == LAN >> 1):
        return DROP_INNER_DESTINATION
    packet = put(input_end, plain, length)
    if flags & LINK_UNSUMMED:
        checksum_finish(packet, packet + header, length - header)
        if slot.vnet:
            ipv4_finish(packet, length, 0)          # what takes it apart here makes this anew, though no kernel does
    keep(&wanted, packet, length)
    return -1


cdef void linked_stranger(LinkFrom *f, const uint8_t *data, uint32_t length) noexcept nogil:
    """One datagram that no session seals: it is dropped, once, or an answer of STUN that is waited for; and a request
    of STUN has an answer that is one."""
    cdef StunLimits limits
    cdef uint64_t before = drops_so_far()
    cdef uint8_t *datagram
    cdef uint8_t *answer = again_end - STUN_ANSWER_MOST
    cdef uint32_t n
    if length > PACKET_ROOM:
        return
    datagram = put(input_end, data, length)
    f.size = length
    slot.link.expected = 1
    link_datagram(worker, slot, slot, seals, f, datagram)
    check(drops_so_far() - before == (1 if worker.engine.outbox.used == 0 else 0), "not one outcome")
    check(worker.engine.outbox.used == 0 or (20 <= length <= STUN_TOLD and load_be16(data) == STUN_SUCCESS
                                             and load_be32(data + 4) == STUN_COOKIE), "told of no answer")
    if stun_request(datagram, length):
        check(length >= 20 and load_be16(data) == STUN_REQUEST and load_be16(data + 2) == length - 20, "no request")
        memset(&limits, 0, sizeof(limits))
        limits.has_other = True
        memcpy(limits.other, f.place, sizeof(f.place))
        n = stun_answer(&limits, datagram, length, f.place, answer)
        check(stun_like(answer, n, STUN_SUCCESS) and n == (44 if length >= 44 else 32)
              and memcmp(answer + 8, datagram + 8, 12) == 0, "no answer")


# ---------------------------------------------------------------------------------------------------------------- old
# An input is a byte of flags (1: no virtio headers, 2: rules are known, 4: what is for others is sent on, 8: members
# seal here) and records: a byte (its lowest two bits: from which place; the next three: what the IV looks like), two of
# length, and what an original client sealed. There are 10.0.0.1 at place 0, 10.0.0.3, which seals where members do, at
# 1, 10.0.0.4 at 3, and 10.0.0.5, which is reached by the first and the last.

cdef enum:
    NOT_OPENED = -1
    TOLD = -2
    FOR_DEVICE = -3
    FOR_OTHER = -4
    OLD_ROOM = 1600
    IV_FLAGS = 1                    # of a session's datagram, with flags that there are not
    IV_NO_SESSION = 2
    IV_SESSION = 3
    IV_STUN = 4


cdef void old_begin() noexcept nogil:
    """Make the device's key, the paths, and a session, with which no datagram is sealed."""
    global old_key, OLD_SEALED_MAX, COUNTER_MAX, FORGERIES_MAX
    cdef uint32_t[PLACES_HERE] addresses = [PEER, SEALING, 0, LAN + 4]
    cdef uint32_t[PLACES_HERE] longest = [OLD_DATAGRAM_MAX - OLD_OVER, 200, 0, 100]
    cdef uint8_t key[SEAL_KEY_BYTES]
    cdef uint8_t name[28]
    cdef SealPeer *peer
    cdef uint32_t i
    check(gcm_here(), "this processor has no instructions for AES")
    # Where Python runs, the module has them.
    OLD_SEALED_MAX = <uint64_t>1 << 32
    COUNTER_MAX = <uint64_t>1 << 48
    FORGERIES_MAX = <uint64_t>1 << 30
    worker.links = <Links *>calloc(1, sizeof(Links))
    worker.engine.networks[0].seals = seals
    memset(key, 0xA5, sizeof(key))
    old_key = <OldKey *>calloc(1, sizeof(OldKey))
    check(seal_key_set(&old_key.opens, CIPHER_AES_256_GCM, key, False, True), "no key")
    seals.old_key = old_key
    for i in range(<uint32_t>PLACES_HERE):
        name_of(AF_INET, <const uint8_t *>&LAN_BYTES, <uint16_t>(7 + i), name)
        place_of(name, old_places[i])
        if addresses[i] == 0:
            continue
        key[0] = <uint8_t>i
        old_paths[i] = <OldPath *>calloc(1, sizeof(OldPath))
        check(seal_key_set(&old_paths[i].sends, CIPHER_AES_256_GCM, key, True, True), "no key")
        path_fill(&old_paths[i].path, addresses[i], slot_connection(worker, slot), AF_INET,
                  <const uint8_t *>&LAN_BYTES, <uint16_t>(7 + i), longest[i], OLD_OVER)
        peer = peer_make(seals, addresses[i])
        peer.old = old_paths[i]
        peer.way = WAY_SEAL if addresses[i] == SEALING else WAY_CLEAR
        peer.takes_clear = addresses[i] != SEALING
        peer.tells_clear = False
    peer = peer_make(seals, BEHIND)
    peer.way = WAY_CLEAR
    peer.takes_clear = True
    peer.tells_clear = False
    peer.hops[0] = PEER
    peer.hops[1] = LAN + 4
    seals.clear_count = 3
    seals.peer_count = PEERS_MAX                    # others that are met are not remembered
    session.local = 0x12340001
    session.opens_until_ns = UINT64_MAX
    check(seal_key_set(&session.link.opens, CIPHER_AES_256_GCM, key, False, True), "no key")
    seals.sessions[session.local & (PLACES - 1)] = session


cdef public int fuzz_old(const uint8_t *data, size_t size) noexcept nogil:
    """What original clients seal has one outcome each, whatever its IV looks like: an event with the very message, a
    drop under its name, a packet for the device, or the very packet for another of them, sealed under that one's
    key."""
    global overflowed
    cdef size_t at = 1
    cdef uint32_t length, record
    if size == 0:
        return 0
    if old_key == NULL:
        old_begin()
    slot.fd = DEVICE
    slot.vnet = data[0] & 1 == 0
    slot.own_address = OWN
    worker.engine.networks[0].rules = rules if data[0] & 2 else NULL
    seals.old_resends = data[0] >> 2 & 1
    seals.sealing = SEALING_PREFER if data[0] & 8 else SEALING_OFF
    session.link.failures = 0
    written.used = wanted.used = 0
    overflowed = False
    merge.pieces = 0
    for record in range(RECORDS):
        if size - at < 3:
            break
        length = <uint32_t>min(<size_t>load_be16(data + at + 1), size - at - 3)
        if length <= OLD_ROOM:
            old_record(data[at], data + at + 3, length, record_ends[record])
        at += 3 + length
    merge_write(worker, slot, merge)
    check(overflowed or (written.used == wanted.used and memcmp(written.bytes, wanted.bytes, wanted.used) == 0),
          "a device was given something else")
    return 0


cdef void old_record(uint8_t how, const uint8_t *plain, uint32_t length, uint8_t *end) noexcept nogil:
    """One datagram, in memory that ends there."""
    cdef Outbox *outbox = &worker.engine.outbox
    cdef Links *links = worker.links
    cdef LinkFrom f
    cdef uint8_t name[28]
    cdef uint8_t *datagram = end - OLD_HEADER - length
    cdef uint32_t place = how & 3
    cdef uint64_t dropped = drops_so_far()
    cdef size_t wanted_before = wanted.used
    cdef int outcome = old_outcome(place, plain, length)
    cdef OldPath *path
    memset(&f, 0, sizeof(f))
    f.name = name
    f.name_size = name_of(AF_INET, <const uint8_t *>&LAN_BYTES, <uint16_t>(7 + place), name)
    f.size = OLD_HEADER + length
    place_of(name, f.place)
    old_looks(datagram, how >> 2 & 7, f.size)
    memcpy(datagram + OLD_HEADER, plain, length)
    check(old_seal(&old_key.opens, datagram, length), "not sealed")
    if outcome == NOT_OPENED:
        outcome = old_unopened(how >> 2 & 7, f.size)
    elif outcome == FOR_DEVICE:
        want(plain, length)
    outbox.used = 0
    slot.pending = 0
    link_datagram(worker, slot, slot, seals_of(worker, slot), &f, datagram)
    dropped = drops_so_far() - dropped
    if outcome == FOR_DEVICE:
        check(overflowed or dropped == (1 if wanted.used == wanted_before else 0), "neither given nor dropped, or both")
    else:
        check(dropped == (1 if outcome >= 0 else 0), "dropped, and should not be, or taken")
        check(outcome < 0 or slot.drops[outcome] != 0, "dropped under another name")
    check((outbox.used != 0) == (outcome == TOLD), "an event too many, or none")
    check(outcome != TOLD or (outbox.used == 16 + 27 + length
                              and memcmp(outbox.bytes + 16 + 8, old_places[place], 19) == 0
                              and memcmp(outbox.bytes + 16 + 27, plain, length) == 0), "told of something else")
    check(links.run_count == (1 if outcome == FOR_OTHER else 0), "sent on, and should not be, or not sent on")
    if outcome == FOR_OTHER:
        path = old_paths[old_place(load_be32(plain + 17))]
        check(links.runs[0].path == &path.path and links.used == OLD_HEADER + length, "sent on to somebody else")
        check(old_open(&path.sends, links.out, links.used), "sealed under another key")
        check(memcmp(links.out + OLD_HEADER, plain, length) == 0, "another packet was sent on")
        links.run_count = links.used = 0
    memset(slot.drops, 0, sizeof(slot.drops))


cdef void old_looks(uint8_t *iv, uint32_t what, uint32_t size) noexcept nogil:
    """An IV that looks like this."""
    memset(iv, 0xFF, NONCE_BYTES)
    if IV_FLAGS <= what <= IV_SESSION:
        store_be32(iv, 0x12040000 if what == IV_FLAGS else 0x12000000)
        store_be32(iv + 4, session.local ^ 1 if what == IV_NO_SESSION else session.local)
        store_be32(iv + 8, 0)
    elif what == IV_STUN:
        store_be16(iv, STUN_SUCCESS)
        store_be16(iv + 2, <uint16_t>(size - STUN_HEADER))
        store_be32(iv + 4, STUN_COOKIE)


cdef int old_unopened(uint32_t what, uint32_t size) noexcept nogil:
    """Why a datagram is dropped that is no original client's."""
    if seals.sealing == SEALING_OFF or size < LINK_MIN or not IV_FLAGS <= what <= IV_SESSION:
        return DROP_LINK_UNKNOWN
    if what == IV_FLAGS:
        return DROP_LINK_MALFORMED
    return DROP_LINK_NO_SESSION if what == IV_NO_SESSION else DROP_LINK_BAD_SEAL


cdef int old_place(uint32_t address) noexcept nogil:
    """Where a member is; -1: no path leads there."""
    if address == PEER:
        return 0
    if address == SEALING:
        return 1
    return 3 if address == LAN + 4 else -1


cdef int old_outcome(uint32_t place, const uint8_t *plain, uint32_t length) noexcept nogil:
    """What becomes of a message: why it is dropped, or where it goes. What the device drops is for it."""
    cdef const uint8_t *packet = plain + 1
    cdef bint seals_here = seals.sealing != SEALING_OFF
    cdef bint ours
    cdef uint32_t source, destination
    cdef int at, to
    if not 12 <= length <= 1472:
        return NOT_OPENED
    if plain[0] != 1:
        return TOLD if length <= 64 else DROP_LINK_MALFORMED
    if length < 21:
        return DROP_LINK_MALFORMED
    source = load_be32(packet + 12)
    destination = load_be32(packet + 16)
    at = old_place(source)
    if destination != OWN:
        to = old_place(destination)
        if at != <int>place:
            return DROP_SOURCE
        if (seals.old_resends == 0 or to < 0 or to == at
                or (seals_here and (source == SEALING or destination == SEALING))):
            return DROP_NO_ROUTE
        return DROP_TOO_LARGE if length - 1 > old_paths[to].path.longest else FOR_OTHER
    if at != <int>place and not (source == BEHIND and (place == 0 or place == 3)):
        return DROP_SOURCE
    ours = ipip_ours(packet, length - 1, OWN)
    if ours and worker.engine.networks[0].rules == NULL:
        return DROP_INNER_SOURCE
    if seals_here and (source == SEALING or (ours and load_be32(packet + 32) == SEALING)):
        return DROP_NOT_SEALED
    return FOR_DEVICE
