# The engine's parts over bytes in memory, for tests and fuzzing: the same functions that the workers run, each input
# and output in memory of exactly its size, so that a sanitizer sees a step too far.

import socket as _socket

cdef class FrameParser:
    """See _fastpath.pyi."""
    cdef bint from_client
    cdef readonly int error
    cdef bytes rest
    cdef object fragments
    cdef int fragment_opcode

    def __cinit__(self, *, bint client=False):
        self.from_client = not client
        self.error = 0
        self.rest = b""
        self.fragments = None

    def feed(self, bytes data not None):
        cdef Frame f
        cdef size_t at = 0
        cdef int status
        cdef bytearray work
        cdef uint8_t *p
        frames = []
        if self.error:
            return frames
        work = bytearray(self.rest + data)
        p = <uint8_t *><char *>work
        while not self.error:
            status = parse_frame(p + at, len(work) - at, self.from_client, &f)
            if status == FRAME_SHORT:
                break
            if status != FRAME_OK:
                self.error = status
                break
            unmask(f.payload, f.payload, f.length, f.mask)
            if f.opcode == OP_CLOSE and not close_code_valid(f.payload, f.length):
                self.error = CLOSE_PROTOCOL_ERROR
            else:
                self.take(f.opcode, f.final, (<char *>f.payload)[:f.length], frames)
            at += f.header + f.length
        self.rest = bytes(work[at:])
        return frames

    cdef take(self, int opcode, bint final, bytes payload, list frames):
        if opcode >= OP_CLOSE:
            frames.append((opcode, payload))
            return
        if (opcode == OP_CONTINUATION) != (self.fragments is not None):
            self.error = CLOSE_PROTOCOL_ERROR
            return
        if opcode != OP_CONTINUATION:
            self.fragments = b""
            self.fragment_opcode = opcode
        self.fragments += payload
        if len(self.fragments) > WIRE_PAYLOAD_MAX:
            self.error = CLOSE_TOO_LARGE
        elif final:
            frames.append((self.fragment_opcode, self.fragments))
            self.fragments = None


def segment(bytes vnet not None, bytes packet not None):
    cdef Super u
    cdef uint32_t length = <uint32_t>len(packet)
    cdef uint32_t i
    cdef uint8_t *data = <uint8_t *>malloc(VNET_BYTES + length)
    cdef uint8_t *out = NULL
    if len(vnet) != VNET_BYTES:
        raise ValueError(f"a virtio header has {VNET_BYTES} bytes, not {len(vnet)}")
    if data == NULL:
        raise MemoryError
    memcpy(data, <const char *>vnet, VNET_BYTES)
    memcpy(data + VNET_BYTES, <const char *>packet, length)
    found = []
    try:
        if not super_parse(data, data + VNET_BYTES, length, &u):
            raise ValueError("the packet is not what its virtio header claims")
        for i in range(super_count(&u)):
            out = <uint8_t *>malloc(super_segment_size(&u))
            if out == NULL:
                raise MemoryError
            length = super_segment(&u, i, out)
            found.append(<bytes>(<char *>out)[:length])
            free(out)
            out = NULL
    finally:
        free(out)
        free(data)
    return found


def cut(bytes vnet not None, bytes packet not None, uint32_t n):
    cdef Super u
    cdef uint32_t length = <uint32_t>len(packet)
    cdef uint32_t i = 0
    cdef uint8_t *data = <uint8_t *>malloc(VNET_BYTES + length)
    cdef uint8_t *out = NULL
    if len(vnet) != VNET_BYTES or not 1 <= n <= 65535:
        raise ValueError(f"a virtio header has {VNET_BYTES} bytes, not {len(vnet)}; a part 1 packet to 65535")
    if data == NULL:
        raise MemoryError
    memcpy(data, <const char *>vnet, VNET_BYTES)
    memcpy(data + VNET_BYTES, <const char *>packet, length)
    found = []
    try:
        if not super_parse(data, data + VNET_BYTES, length, &u) or u.gso_size == 0:
            raise ValueError("not a super-packet that can be cut")
        while i < super_count(&u):
            out = <uint8_t *>malloc(VNET_BYTES + min(u.length, u.headers + n * u.gso_size))
            if out == NULL:
                raise MemoryError
            length = super_part(&u, data[1], i, n, out)
            found.append(<bytes>(<char *>out)[:length])
            free(out)
            out = NULL
            i += n
    finally:
        free(out)
        free(data)
    return found


def write_device(list payloads not None, *, bint vnet=True, uint32_t own=0):
    cdef Worker *w = <Worker *>calloc(1, sizeof(Worker))
    cdef Slot *s = <Slot *>calloc(1, sizeof(Slot))
    cdef Merge *m = <Merge *>calloc(1, sizeof(Merge))
    cdef bytes payload
    cdef uint8_t *data
    cdef int i
    copies = []
    found = []
    ours, kernel = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        if w != NULL:
            w.scratch = <uint8_t *>malloc(2 * WIRE_PAYLOAD_MAX + FRAME_HEADER_MAX)
        if w == NULL or w.scratch == NULL or s == NULL or m == NULL:
            raise MemoryError
        ours.setblocking(False)
        kernel.setblocking(False)
        s.fd = ours.fileno()
        s.vnet = vnet
        s.own_address = own
        for payload in payloads:
            if len(payload) < (SUPER_MIN if payload[:1] == b"\x10" else FORWARD_MIN):
                raise ValueError("too short for what comes to a device")
            data = <uint8_t *>malloc(len(payload))
            if data == NULL:
                raise MemoryError
            copies.append(<size_t>data)
            memcpy(data, <const char *>payload, len(payload))
            tun_packet(w, s, m, data, <uint32_t>len(payload))
            collect_written(kernel, found)
        merge_write(w, s, m)
        collect_written(kernel, found)
        return found, {DROPS[i]: w.counters.drops[i] for i in range(DROPS_COUNT) if w.counters.drops[i]}
    finally:
        for copy in copies:
            free(<void *><size_t>copy)
        if w != NULL:
            free(w.scratch)
        free(w)
        free(s)
        free(m)
        ours.close()
        kernel.close()


cdef collect_written(kernel, list found):
    while True:
        try:
            found.append(kernel.recv(65535 + VNET_BYTES))
        except BlockingIOError:
            return
