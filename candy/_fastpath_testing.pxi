# The frame parser over bytes in memory: the same functions that the workers run, for tests and fuzzing.

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
                self.error = 1002
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
            self.error = 1002
            return
        if opcode != OP_CONTINUATION:
            self.fragments = b""
            self.fragment_opcode = opcode
        self.fragments += payload
        if len(self.fragments) > WIRE_PAYLOAD_MAX:
            self.error = 1009
        elif final:
            frames.append((self.fragment_opcode, self.fragments))
            self.fragments = None
