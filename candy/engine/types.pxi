# What the engine is made of: every structure, who may touch each of its fields, and for how long.
#
# Owners, named in the comments below:
#   static   set before another thread can see the structure, then constant
#   worker   only the worker thread that owns the connection
#   lock     the thread that holds the connection's send lock
#   inbox    the thread that holds the connection's inbox lock
#   python   only the Python thread that uses the Engine
#   atomic   every thread, through the atomics of engine/fastpath.h

# Constants of this implementation that several parts use, or that size a structure; others stand where they are used.
cdef enum:
    SECOND_NS = 1000000000
    RECEIVE_BYTES = 524288          # a worker's receive buffer: smaller reads cost throughput, larger ones the cache
    RUNS_MAX = 8192             # runs of frames gathered before they are sent
    TARGETS_MAX = 1024              # destinations gathered before they are sent
    ARENA_CHUNK = 65536             # bytes gathered in one piece for a destination; untouched parts cost nothing
    ARENA_CHUNKS = 128
    IOV_MAX_SEND = 1024             # the kernel's UIO_MAXIOV
    MESSAGES_MAX = 256              # frames in one sendmmsg
    EVENTS_MAX = 256                # of one epoll_wait
    MERGE_MAX = 128                 # packets in one super-packet
    FLOWS = 32                      # sub-queues of a destination, a power of two
    CONTROL_FLOW = 32               # and one for what is not a packet, always first
    FLOWS_ALL = 33
    BLOCK_SMALL = 16384             # capacity of the pooled blocks; anything larger is allocated for itself
    STAMP_BYTES = 8                 # of the time stamp before each frame in a queue or inbox
    CONTROL_BYTES_MAX = 65536       # control frames waiting for one peer
    NETWORKS_MAX = 4096
    NO_INDEX = 0xFFFFFFFF
    NOTSENT_LOWAT = 65536           # at first, and at most four times as much: see follow_rate()

cdef enum SlotKind:
    SLOT_SERVER                     # we are the WebSocket server: masked in, unmasked out
    SLOT_CLIENT                     # we are the client: unmasked in, masked out
    SLOT_TUN

cdef enum SlotState:
    STATE_FREE
    STATE_OPEN
    STATE_CLOSING                   # our close frame is queued; input is read and thrown away
    STATE_CLOSED                    # descriptor gone, waiting for Python to take note

cdef enum Cause:                    # keep in step with CAUSES in engine/face.pxi
    CAUSE_NONE
    CAUSE_LOCAL
    CAUSE_PEER
    CAUSE_EOF
    CAUSE_RESET
    CAUSE_SILENT
    CAUSE_PROTOCOL
    CAUSE_TOO_LARGE

cdef enum:                          # keep in step with DROPS in engine/face.pxi
    DROP_NOT_AUTHENTICATED
    DROP_SOURCE
    DROP_NO_ROUTE
    DROP_STALE
    DROP_TOO_LARGE
    DROP_TOO_SHORT
    DROP_QUEUE_FULL
    DROP_DELAY
    DROP_STALLED
    DROP_MEMORY
    DROP_CLOSED
    DROP_BROADCAST_LIMIT
    DROP_TEXT
    DROP_EVENTS
    DROP_CONTROL
    DROP_NOT_IPV4
    DROP_TUN_WRITE
    DROP_SUPER
    DROPS_COUNT

# One parsed frame. Pointers into the buffer that was parsed: dead when that buffer is read into again.
cdef struct Frame:
    uint8_t *payload
    uint32_t header                 # bytes before the payload
    uint32_t length                 # of the payload, bytes
    uint32_t mask                   # as loaded from memory; 0 when unmasked
    uint8_t opcode
    bint final

# A checked super-packet. Pointers into the buffer that it was read into.
cdef struct Super:
    uint8_t *packet                 # the outermost IPv4 header
    uint32_t length                 # of it all
    # offset of the IPv4 header that the virtio header speaks of: 0, or behind an outer one
    uint32_t inner
    uint32_t transport              # offset of the TCP or UDP header
    uint32_t headers                # offset of the payload
    uint32_t gso_size               # bytes of payload in each packet; 0 when it is but one
    uint8_t protocol
    bint needs_checksum

# Packets of one TCP flow that are being put together for one write.
cdef struct Merge:
    uint8_t *packet                 # the first
    uint32_t length                 # of the whole, first header included
    uint32_t headers
    uint32_t gso_size
    uint32_t next_sequence
    uint32_t pieces                 # packets in it, 0 none
    bint closed                     # nothing may follow
    bint verified                   # the first one's checksum is right
    iovec iov[130]                  # the virtio header, then MERGE_MAX pieces
    uint8_t scratch[65536]          # one packet of a super-packet, for a device without offloads

# A piece of pooled memory: records, frames back to back, or the beginning of a frame. Its bytes follow the struct.
cdef struct Block:
    Block *next
    uint32_t start                  # first byte not yet taken
    uint32_t end
    uint32_t capacity

cdef struct BlockPool:
    pthread_mutex_t lock
    Block *free                     # of BLOCK_SMALL
    uint64_t free_count
    uint64_t limit_bytes            # static
    uint64_t used_bytes             # atomic, written under the lock

# One sub-queue: the frames of some flows to one destination.
cdef struct Flow:
    Block *head
    Block *tail
    uint32_t bytes
    int32_t credit                  # deficit round robin
    int32_t next                    # in the round, -1 at its end
    bint listed
    bint dropping                   # CoDel
    uint32_t drop_count
    uint64_t first_above_ns
    uint64_t drop_next_ns

cdef struct Round:                  # a list of flows
    int32_t head
    int32_t tail

# The backlog of one destination (lock). Made at the first backlog, freed when it is empty: at once, or, when packets
# have waited in it, by the tick before which none did.
cdef struct Queue:
    Flow flows[FLOWS_ALL]
    Round fresh
    Round old
    Block *committed                # frames on their way to the kernel: whole but for the first, never dropped
    uint32_t cut                    # not extended: bytes at its start that are the rest of a begun frame
    uint64_t bytes                  # in all flows, what is committed not included
    bint carried                    # packets have waited here since the last tick, not just messages of Python's
    uint64_t rate                   # drain rate while there was a backlog, bytes a second, 0 unknown
    int lowat                       # TCP_NOTSENT_LOWAT as set for this rate, 0 not yet
    uint64_t rate_start_ns          # since when there has been a backlog, 0 there is none
    uint64_t rate_ns                # how long there was one before that, since the rate was reckoned last
    uint64_t rate_bytes             # sent in that time
    uint64_t progress_ns            # when the kernel last took something

cdef struct Traffic:                # single writer each, atomic readers
    uint64_t packets_in
    uint64_t bytes_in
    uint64_t packets_out
    uint64_t bytes_out
    uint64_t sends

# A connection or a TUN device. Never freed, only used again with a new generation.
cdef struct Slot:
    # static while open
    int fd
    uint32_t network
    uint32_t owner                  # worker
    # static while open too, but atomic: a stale number leads other threads here while Python reuses the slot
    uint64_t kind                   # SlotKind
    uint64_t extended
    uint64_t mask_seed
    bint vnet                       # a device with virtio headers
    # atomic
    uint64_t generation             # low 32 bits count; moves on under the send lock before fd is closed
    uint64_t address                # bound IPv4 address, 0 while unauthenticated
    uint64_t uplink                 # 0, or the connection that gets everything from here
    uint64_t received_ns
    uint64_t sent_ns
    uint64_t pending                # events that Python has not taken
    uint64_t inbox_bytes            # written under the inbox lock
    uint64_t queued_bytes           # mirror of queue.bytes
    uint64_t control_bytes          # mirror of its control flow's
    uint64_t stalled                # its queue is full and it has taken nothing for STALLED_NS; written under the lock
    uint64_t mask_counter
    uint64_t drops[DROPS_COUNT]     # of what it sent and of what was for it
    uint64_t route_count            # written under the network's lock
    uint64_t own_address            # a device's own address, once it has routes; 0 before
    uint64_t closing                # set once a close frame is queued: packets are no longer sent
    Traffic traffic                 # *_in: worker, *_out and sends: lock
    # worker
    SlotState state
    Cause cause
    Block *spill                    # an incomplete frame
    uint32_t spill_size             # its size when it is whole, 0 while its header isn't
    Block *fragments                # the message of which fragments have come
    uint8_t fragment_opcode
    bint hung_up                    # the kernel reported the peer's FIN or an error: read to the end
    bint ready                      # in the worker's ready list
    bint fresh                      # nothing was read yet: the spill may hold whole frames
    uint64_t pinged_ns
    uint64_t deadline_ns            # while closing
    uint64_t copies_stamp_ns        # broadcast allowance
    uint64_t copies_left
    uint64_t icmp_stamp_ns          # when it was last told that a packet is too large
    uint32_t worker_index           # its place in the worker's list, NO_INDEX before its first event
    # lock
    pthread_mutex_t send_lock
    Queue *queue
    bint broken                     # a send failed: the worker will hear of it from epoll
    bint finished                   # the writing side is shut down
    bint waiting                    # the owner was asked to look at the peer's window
    # inbox
    pthread_mutex_t inbox_lock
    Block *inbox_head
    Block *inbox_tail
    # the network's lock
    uint32_t *lans                  # address and mask of each network that it may send from beside its own address
    uint32_t lan_count
    Route *routes                   # a device's, first match counts
    # python
    uint32_t next_free
    uint32_t member_index           # place in the network's list, under the network's lock; UINT32_MAX none

cdef struct Route:                  # of a device: what goes through which member
    uint32_t destination
    uint32_t mask
    uint32_t next_hop

cdef struct Network:
    void *pages[65536]              # atomic: by the address's upper half, NULL or 65536 connections by the lower half
    uint32_t broadcast              # static
    bint forward_broadcast          # static
    bint check_source               # static
    # Of the member list, and of its slots' lans: for broadcasts, log-ins, and packets from a LAN behind a member.
    pthread_mutex_t lock
    uint64_t *members
    uint32_t member_count
    uint32_t member_room

cdef struct Run:                # frames back to back in the receive buffer
    uint8_t *bytes
    uint32_t length
    uint32_t next                   # of the same target, RUNS_MAX at the end

cdef struct Target:                 # one destination of the batch at hand
    uint64_t connection
    uint32_t first
    uint32_t last
    uint32_t packets
    uint32_t payload_max            # what it may get
    uint32_t chunk_left             # room at chunk
    uint8_t *chunk                  # its piece of the arena, where its next gathered frame goes

cdef struct Counters:               # one set for each worker and one for Python
    uint64_t packets_in
    uint64_t bytes_in
    uint64_t packets_out
    uint64_t bytes_out
    uint64_t receives
    uint64_t sends
    uint64_t copies                 # of broadcast and multicast packets
    uint64_t drops[DROPS_COUNT]

cdef enum:                          # what a worker can be asked for
    ABORT                           # close at once
    END                             # a close frame is on its way
    RETRY                           # send again when the peer's window may have opened

cdef struct Command:
    uint64_t connection
    int what

cdef struct Worker:
    EngineState *engine             # static
    uint32_t index                  # static
    pthread_t thread
    int ep
    int wake                        # eventfd: commands, stop
    uint64_t load                   # python: connections placed here
    Counters counters
    # everything below: worker
    uint64_t now
    uint64_t next_tick_ns
    uint8_t *buffer
    uint64_t rest_of                # connection that read last
    size_t rest_size                # and its incomplete frame at the start of the buffer, bytes
    Run *runs
    uint32_t run_count
    Target *targets
    uint32_t target_count
    uint32_t *target_of             # by slot: index + 1 into targets
    uint64_t run_connection         # destination of the frame before, 0 none
    uint32_t run_target
    uint8_t *run_end                # where a further frame of the run would go
    uint8_t *run_limit              # and how far, UINTPTR_MAX in the receive buffer
    uint8_t *arena                  # ARENA_CHUNKS of ARENA_CHUNK bytes, for gathering
    uint32_t arena_used
    uint8_t *bump                   # room in the arena for frames made of segments
    uint32_t bump_left
    Merge *merge
    uint8_t *scratch                # a payload and a frame, while a super-packet is cut
    iovec *iov
    mmsghdr *messages
    uint32_t *slots                 # indices of the connections owned
    uint32_t slot_count
    uint64_t *ready                 # connections with input left
    uint32_t ready_count
    uint32_t closing_count
    uint32_t *departed              # slots closed that Python was not told of
    uint32_t departed_count
    uint64_t *waiting               # old peers whose windows were too small; at most one entry each, and stale ones
    uint32_t waiting_count
    # commands (command_lock)
    pthread_mutex_t command_lock
    Command *commands
    uint32_t command_count
    uint32_t command_room

cdef struct Outbox:                 # events for Python
    pthread_mutex_t lock
    int signal                      # eventfd
    uint8_t *bytes
    size_t used
    size_t room
    uint64_t *closed                # connection numbers, room for every slot
    uint8_t *closed_cause
    uint32_t closed_count
    bint signalled

cdef struct EngineState:
    Slot *slots                     # mapped for max_slots, resident as far as used
    uint32_t max_slots
    uint32_t high_slot              # python: slots ever used
    uint32_t free_slot              # python: head of the free list, UINT32_MAX none
    uint32_t open_slots             # python
    Worker *workers                 # worker_count, then one for the Python thread
    uint32_t worker_count
    Network *networks[NETWORKS_MAX]         # atomic pointers
    uint32_t network_count
    BlockPool pool
    Outbox outbox
    uint64_t queue_bytes
    uint64_t ping_after_ns
    uint64_t dead_after_ns
    bint ping_when_quiet
    uint64_t broadcast_rate
    uint64_t stopping               # atomic
