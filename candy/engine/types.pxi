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
    MILLISECOND_NS = 1000000
    PING_AFTER_MOST_S = 86400
    DEAD_AFTER_MOST_S = 86400
    RECEIVE_BYTES = 524288          # a worker's receive buffer: smaller reads cost throughput, larger ones the cache
    RUNS_MAX = 8192                 # runs of frames gathered before they are sent
    TARGETS_MAX = 1024              # destinations gathered before they are sent
    ARENA_CHUNK = 65536             # bytes gathered in one piece for a destination; untouched parts cost nothing
    ARENA_CHUNKS = 128
    IOV_MAX_SEND = 1024             # the kernel's UIO_MAXIOV
    MESSAGES_MAX = 256              # frames in one sendmmsg
    EVENTS_MAX = 256                # of one epoll_wait
    MERGE_MAX = 128                 # packets in one super-packet
    FLOW_SETS = 32                  # sub-queues of a destination, in sets: a flow has any place of the set it hashes to
    FLOW_WAYS = 8
    FLOWS = 256
    CROWD_BITS = 512                # by which flows that have frames in the crowd are known
    BESIDE_MOST = 4096              # memory of a backlog beyond twice the bytes that wait
    SPARE_CLASSES = 256             # sizes of memory that a worker keeps for reuse, each a multiple of MEMORY_UNIT
    MEMORY_UNIT = 8                 # so a record takes no more than twice its frame, of the shortest packet too
    CONTROL_BYTES_MAX = 65536       # memory of the control frames that wait for one peer
    STRANGER_BYTES = 1024           # the same, and all input, of one that has not authenticated
    TOLD_MAX = 8                    # addresses of which one is told something that is repeated only after a while
    NETWORKS_MAX = 4096
    NO_NETWORK = 0xFFFFFFFF
    RELAYS_MAX = 256                # others of a cluster
    TRUNKS_MAX = 8                  # to one of them
    CAPTURES_MAX = 4
    STUN_SLOTS = 4                  # beside connections and guests
    DELAY_LEAST_NS = 250000         # the least bound of the histogram of delays; each further one is twice as much
    DELAYS_COUNT = 14               # and the last has none
    NO_INDEX = 0xFFFFFFFF
    WAITING_NS = 1000000            # until the first look whether a connection takes more, doubled by each in vain
    NOTSENT_LOWAT = 65536           # at first, and at most four times as much: see follow_rate()
    CIPHER_BYTES = 131072           # and one read of ciphertext, so that it, plaintext and what is sealed fit the cache
    RECORD_MAX = 16384              # plaintext in one TLS record
    RECORD_ROOM = 16896             # and more than a whole one has
    RECORD_OVERHEAD = 64            # more than a record has beside its plaintext, and a KeyUpdate before it

# Where a build for tests may hold a thread (point()); what each stands for is in docs/architecture.md.
cdef enum:
    POINT_APPENDED                  # deliver(): appended to the inbox, the lock not tried again yet
    POINT_LOCKED                    # deliver(): has the send lock, the generation not compared yet
    POINT_COMPARED                  # deliver(): the generation compared under the send lock, nothing sent yet
    POINT_UNLOCKED                  # deliver(): unlocked, the inbox not looked at again yet
    POINT_INBOX                     # inbox_append(): the generation compared, nothing appended yet
    POINT_TAKEN                     # connection_close(): found the send lock taken, waits for it from here on
    POINT_MOVED_ON                  # connection_close(): the generation moved on, the descriptor still open
    POINT_CLOSED                    # connection_close(): done, its worker not through with the input at hand
    POINT_TABLE                     # table_read(): a table's address loaded, nothing in it read yet
    POINT_SECURED                   # hand_over(): taken out of the thread's epoll and list, the owner not changed yet
    POINT_HANDED                    # hand_over(): the owner changed under the send lock, not asked to take it yet
    POINT_OPENED                    # set_peer(): a peer's way open, its worker not asked yet to release what waited
    POINT_WATCHED                   # capture_write(): has the capture in its hands, the lock not taken yet
    POINT_CONTENDED                 # capture_write(): found the lock taken, waits for it from here on
    POINT_CAPTURED                  # capture_write(): a packet is in the ring, its reader not told yet
    POINT_PATH                      # link_forward(): a path loaded, nothing sent by it yet
    POINT_CAME                      # link_receive(): datagrams have come, nothing opened yet
    POINT_CHOSEN                    # target_of_trunk(): a trunk chosen for a packet, its relays' agreement not read yet

# Work: what a turn costs all others, in units of about a quarter of a nanosecond. A byte received and sent on is one.
cdef enum:
    WORK_TURN = 2097152             # half a millisecond: a turn that has used it up ends, whatever it has left
    WORK_MUCH = 262144              # what makes a connection a greedy one
    WORK_FRAME = 100                # to parse, check and place one
    WORK_RECORD = 100               # to free one that waited
    WORK_RULE = 4                   # to compare an address with a rule
    WORK_ANSWER = 1600              # to build and queue an answer, or to tell Python something
    WORK_CALL = 12000               # a system call
    WORK_KEYS = 40000               # new keys; and any TLS record that carries no data
    WORK_SEGMENT = 8400             # a TCP segment for one frame alone, a packet to or from a device

cdef enum SlotKind:
    SLOT_SERVER                     # we are the WebSocket server: masked in, unmasked out
    SLOT_CLIENT                     # we are the client: unmasked in, masked out
    SLOT_TRUNK                      # between two relays: no end masks
    SLOT_TUN
    SLOT_LINK                       # a UDP socket of a device's, for what is sealed
    SLOT_STUN                       # one that answers STUN

cdef enum Extension:                # what an end of a connection agreed to
    EXTENSION_NONE
    EXTENSION_CANDY2                # candy.2
    EXTENSION_CANDY3                # candy.3, which contains it

cdef enum Sealing:                  # how a device deals with what it knows nothing of
    SEALING_OFF                     # everything in the clear, nothing sealed is taken
    SEALING_PREFER
    SEALING_REQUIRE

cdef enum Way:                      # what becomes of a device's packet for a peer
    WAY_WAIT
    WAY_SEAL
    WAY_CLEAR
    WAY_NO_ROUTE
    WAY_KEY_REFUSED
    WAY_NOT_SEALING

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
    CAUSE_HANDSHAKE_FAILED
    CAUSE_HANDSHAKE_TIMEOUT
    CAUSE_TLS
    CAUSE_TRUNCATED

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
    DROP_INNER_SOURCE
    DROP_INNER_DESTINATION
    DROP_NOT_SEALING
    DROP_BAD_HANDSHAKE
    DROP_HANDSHAKE_LIMIT
    DROP_UNEXPECTED_KIND
    DROP_NO_ACQUAINTANCE
    DROP_UNKNOWN_KIND
    DROP_NO_SESSION
    DROP_UNKNOWN_SESSION
    DROP_REPLAYED
    DROP_BAD_SEAL
    DROP_UNKNOWN_NOTE
    DROP_NOT_SEALED
    DROP_PEER_NOT_SEALING
    DROP_KEY_REFUSED
    DROP_GROUP_NOT_SEALED
    DROP_NO_SECRET
    DROP_LINK_UNKNOWN
    DROP_LINK_MALFORMED
    DROP_LINK_NO_SESSION
    DROP_LINK_REPLAYED
    DROP_LINK_BAD_SEAL
    DROP_LINK_OFF
    DROP_LINK_LIMIT
    DROP_LINK_FULL
    DROP_LINK_REFUSED
    DROP_STUN_MALFORMED
    DROP_STUN_LIMIT
    DROP_NO_RELAY_LINK
    DROP_RELAY_SOURCE
    DROP_MOVED
    DROPS_COUNT

cdef enum:
    TAILS = 4 * DROPS_COUNT + 4     # four for each reason to drop, and for none: see tail_place()

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
    bint unsummed                   # their checksums were left out, and need not be right
    iovec iov[130]                  # the virtio header, then MERGE_MAX pieces
    uint8_t scratch[65536]          # one packet of a super-packet, for a device without offloads

# A piece of memory: input that was not processed yet, or frames on their way to the kernel. Its bytes follow.
cdef struct Block:
    uint32_t start                  # first byte not yet taken
    uint32_t end
    uint32_t capacity
    uint32_t use                    # what it was taken for: see memory_take()

# A wire-ready frame that waits. It follows the struct.
cdef struct Record:
    Record *next
    uint64_t stamp_ns               # CLOCK_MONOTONIC, when it was put in

cdef struct Pool:
    uint64_t limit_bytes            # static
    uint64_t used_bytes             # atomic
    uint64_t stranger_bytes         # atomic: of these, input of and answers to who has not authenticated

# One sub-queue: the frames of one flow to one destination; of several where their places in the set are all taken.
cdef struct Flow:
    Record *head
    Record *tail
    Flow *next                      # in the round
    uint32_t bytes
    int32_t credit                  # deficit round robin
    uint32_t tag                    # the flow's hash
    uint32_t drop_count             # CoDel, RFC 8289: count
    uint32_t last_count             # and lastcount
    uint8_t listed
    uint8_t judged                  # CoDel lets the frame at the head pass
    uint8_t dropping
    uint8_t shared                  # others than the tag's may have frames in it
    uint64_t first_above_ns
    uint64_t drop_next_ns

# How often something may be done: so many times a second, and some saved up.
cdef struct Allowance:
    uint64_t stamp_ns               # up to when it is reckoned, 0 never
    uint32_t left

# How much a sender may still send to groups.
cdef struct Copies:
    uint64_t stamp_ns               # up to when it is reckoned, 0 never
    int64_t left                    # below 0 after one to more members than were left
    int64_t bytes_left

# How many bytes a second may pass: see limit.pxi.
cdef struct Bucket:
    uint64_t rate                   # atomic: 0 no limit
    uint64_t paid_ns                # atomic: when all that passed is paid for

cdef struct Limit:                  # of one direction of a connection
    Bucket bucket                   # its own
    uint64_t due_ns                 # atomic; down: written under the lock, up: by the worker. When the next may pass
    uint64_t held_ns                # atomic, likewise: when something last had to wait, 0 never
    bint is_held                    # likewise: that was counted
    uint64_t stalls_until_ns        # up: until then it may make up for LIMIT_STALL_NS

# What was said of, or to, an address, so that it is not said too often.
cdef struct Told:
    uint32_t address
    uint32_t value
    uint64_t stamp_ns               # 0 nothing

cdef struct Round:                  # a list of flows
    Flow *head
    Flow *tail

cdef struct SubQueues:
    Flow *ways[256]                 # FLOWS, by set and way; NULL where there is none
    # The crowd: flows that share one sub-queue, because what waits does not pay for one each.
    Flow crowd
    uint64_t crowded[8]             # CROWD_BITS: who came lately
    uint64_t crowded_before[8]      # and who came before, until the last of their frames has left
    uint64_t crowd_before           # bytes of those frames

# The backlog of one destination (lock). Made at the first backlog, freed when it is empty: at once, or, when packets
# have waited in it, by the tick before which none did.
cdef struct Queue:
    # Whole frames that are no packets, always first. Its room is no more than twice what it holds, NULL when that is
    # nothing.
    Block *control
    uint64_t control_ns             # since when there are some
    SubQueues *sub                  # NULL before the first packet
    Round fresh
    Round old
    # Frames on their way to the kernel: whole but for the first, never dropped. Its room is as that of the above, once
    # a send is over.
    Block *committed
    uint32_t cut                    # not extended: bytes at its start that are the rest of a begun frame, or record
    bint sealed                     # TLS: what is committed is ciphertext
    uint64_t bytes                  # in all flows, what is committed not included
    int64_t beside                  # memory of records and flows, less twice those bytes
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

# What candy adds to an SSL_CTX, which owns it. Static.
cdef struct Additions:
    uint32_t pin_count
    uint32_t name_count
    uint8_t *pins                   # a client's, PIN_BYTES each: the peer's key has to have one of these digests
    NamedContext *names             # a server's: whom to be for a client that asks for this name

cdef struct NamedContext:
    char *name                      # in lower case; *.example.org is for any single label in the star's place
    void *context                   # SSL_CTX, counted

# The head of an HTTP message as it passes.
cdef struct Head:
    uint8_t first[12]               # of its bytes: a response's as far as its status
    uint32_t size                   # of these
    bint begun                      # there are bytes in the line at hand
    bint over                       # its empty line has passed

# HTTP of one connection, between its handshake and its frames (the thread of handshakes).
cdef struct Http:
    int given                       # the socket to Python, owned; -1 none (lock)
    int plain                       # the same once it is watched
    Head head
    bint held                       # what follows waits for Python
    bint whole                      # no upgrade: nothing is held
    bint upgrading                  # Python has done with it: frames come next
    bint leaving                    # Python has ended it: what the peer still sends is thrown away
    uint32_t left                   # bytes of that
    Block *sealed                   # part of a record that the peer's socket did not take, NULL none

cdef struct Suite:                  # what a handshake has agreed on (static behind it)
    bint tls12                      # else it is TLS 1.3
    const void *cipher              # EVP_CIPHER
    const void *digest              # EVP_MD
    uint32_t key_bytes
    uint32_t secret_bytes           # as the digest's
    uint32_t explicit               # bytes of its nonce that a record carries
    uint32_t fragment_most          # plaintext in one record of ours

cdef struct Keys:                   # of one direction
    void *cipher                    # EVP_CIPHER_CTX
    uint64_t number                 # of its next record
    uint8_t nonce[12]               # of the record with number 0
    uint8_t secret[48]              # TLS 1.3: what its next keys come from
    uint32_t secret_bytes           # of it, as OpenSSL told it; 0 not yet

cdef struct Messages:               # of handshakes, as they come in records
    uint32_t skip                   # bytes of one that is passed over
    uint32_t have                   # bytes of the next one's head, and of a KeyUpdate
    uint8_t head[5]

# TLS of one connection.
cdef struct Tls:
    # owner
    void *context                   # SSL_CTX, counted; NULL behind the handshake
    void *ssl                       # of the handshake; a server's is made when a whole ClientHello is there
    Slot *slot
    Http *http                      # what comes before the frames; NULL nothing, or no more
    bint client                     # static: this end is TLS's client
    bint shaking                    # in the handshake, and with HTTP
    bint secured                    # the handshake is done
    bint ended                      # the peer's close_notify was read
    Cause cause                     # why nothing more can be read, CAUSE_NONE
    uint8_t alert                   # what the peer is told of it, 0 nothing
    Suite suite
    Keys opening
    Messages messages
    Block *rest                     # an incomplete record
    bint update_asked               # the peer wants new keys behind our next record
    # lock
    Keys sealing
    bint finished                   # our close_notify is written
    uint8_t *output                 # where records go
    uint32_t output_used
    uint32_t output_room

# What a link has beside its slot.
cdef struct Link:
    # static
    uint64_t device                 # the TUN device whose peers it leads to
    uint16_t family                 # AF_INET or AF_INET6
    # worker
    bint unsegmented                # the kernel refuses UDP_SEGMENT
    # lock
    uint32_t expected               # STUN transactions whose answers are told
    uint8_t ids[8][12]

# A connection, a TUN device, or a UDP socket. Never freed, only used again with a new generation.
cdef struct Slot:
    # static while open; a guest's once it is none any more
    int fd
    uint32_t network                # a trunk's: worker, that of the messages at hand; NO_NETWORK before the first
    uint32_t home                   # worker that it was placed on
    bint guest                      # python: it is in no network yet
    # static while open too, but atomic: a stale number leads other threads here while Python reuses the slot
    uint64_t kind                   # SlotKind
    uint64_t extended               # Extension
    uint64_t mask_key[2]
    bint vnet                       # a device with virtio headers
    uint64_t ping_after_ns          # a silence after which it is pinged; 0 never
    uint64_t dead_after_ns          # and given up; 0 never
    # changes under the send lock while no other thread knows the connection, and once behind a handshake
    uint32_t owner                  # worker: its home, or the thread of handshakes
    uint64_t secure                 # TLS: only its owner may send
    # atomic
    uint64_t generation             # low 32 bits, never 0; moves on under the send lock before fd is closed
    uint64_t address                # bound IPv4 address, 0 while unauthenticated
    uint64_t takes_sealed           # it takes SEALED packets
    uint64_t circle                 # members with the same number may tell each other their endpoints; 0 none may
    uint64_t uplink                 # 0, or the connection that gets everything from here
    Trunk *trunk                    # what a trunk's relays have agreed on; NULL: not yet. Python writes it
    Capture *capture                # of its packets; NULL none. Python writes it
    uint64_t received_ns
    uint64_t sent_ns
    uint64_t pending                # events that Python has not taken
    uint64_t inbox_bytes            # written under the inbox lock
    uint64_t rests                  # it is not read, because Python could not take what it says; ordered
    uint64_t down_pace              # bytes a second that it may be sent, by its own limit or its network's; 0 any
    uint64_t up_pace                # and that may be read of it
    uint64_t asked                  # what its worker was asked for and has not looked at: bits of enum Request
    uint64_t queued_bytes           # mirror of queue.bytes
    uint64_t waited_ns              # how long the packet had waited that left the queue last; 0 since it was idle
    uint64_t moved_ns               # when that was, or when the queue began to fill
    uint64_t control_bytes          # memory of the control frames in inbox and queue; grows under the inbox lock
    uint64_t stranger_bytes         # of these, and of those being sent, what counts as a stranger's
    uint64_t stalled                # over its share of memory, and has taken nothing for STALLED_NS; under the lock
    uint64_t mask_counter
    uint64_t drops[DROPS_COUNT]     # of what it sent and of what was for it
    Table *routes                   # a device's, of Route: first match counts; NULL none
    uint64_t own_address            # a device's own address, once it has routes; 0 before
    uint64_t closing                # set once a close frame is queued: packets are no longer sent
    Traffic traffic                 # *_in: worker, *_out and sends: lock
    # worker
    SlotState state
    Cause cause
    Block *spill                    # input that was read and not processed
    bint held                       # the spill may have whole frames: those of the last turn, or what came with the 101
    uint32_t spill_size             # else it is an incomplete frame: its size when whole, 0 while its header isn't
    uint32_t skip                   # bytes of a frame to be read and thrown away
    uint32_t read_most              # bytes of one read: more for who uses little work for each
    bint fragmented                 # fragments of a message have come, and its end has not
    Block *fragments                # they, or NULL where there was no room for them
    uint8_t fragment_opcode
    uint32_t fragment_bytes         # of the message so far
    bint hung_up                    # the kernel reported the peer's FIN or an error: read to the end
    bint ready                      # in one of the worker's lists of those that wait for a turn
    bint greedy                     # its last turn used much work
    bint readable                   # there: it has input
    bint writable                   # there: its socket takes bytes
    Fanout *fanout                  # a packet of its own that has not gone to all members yet
    uint64_t pinged_ns
    uint64_t deadline_ns            # while closing, in a handshake, or when Python has ended HTTP; else 0
    Tls *tls                        # NULL: plain
    Link *link                      # a link's; NULL: it is none (lock, and freed by its worker)
    StunLimits *stun                # a STUN responder's, likewise
    Copies copies                   # broadcast allowance; a trunk has one for each of its networks
    uint64_t tells_stamp_ns         # messages for Python
    uint32_t tells_left
    bint released                   # a device: packets that waited may go on
    bint greets                     # its next PING may say who it is, because a message for Python came before
    uint64_t icmp_stamp_ns          # when it was last told that a packet is too large
    Limit up
    bint up_waits                   # among those that are looked at again, to be read
    int window                      # SO_RCVBUF as set for a limit, 0 none
    int window_before               # and as it was
    uint32_t window_drops           # segments that the kernel had no room for, when it was last read under a limit
    Allowance begins                # handshakes: first messages
    Allowance answers               # and second ones
    Allowance controls              # a member's messages under its log-in's keys, for Python; a trunk's NOTICEs
    Told not_sealing[TOLD_MAX]      # of whom it was told so; a trunk's: see tell_not_sealing()
    uint32_t worker_index           # its place in the worker's list, NO_INDEX before its first event
    uint32_t closing_index          # and in that of closing connections
    uint64_t departed               # the number that it had when it was closed
    # lock
    pthread_mutex_t send_lock
    Queue *queue
    Limit down
    bint broken                     # a send failed: the worker will hear of it from epoll
    bint finished                   # the writing side is shut down
    bint waiting                    # its worker looks again: the peer's window, or the kernel's memory, was too small
    bint short_of_room              # the last send left something for that reason
    Told commits[TOLD_MAX]          # of its commit size, by the sender that was told; a trunk's: see tell_commit()
    # inbox
    pthread_mutex_t inbox_lock
    Record *inbox_head
    Record *inbox_tail
    # python
    uint64_t ended                  # the number that it had, from the report of its end until it is used again; else 0
    uint32_t next_free
    uint32_t member_index           # place in the network's list, under the network's lock; UINT32_MAX none

# What Python replaces while workers read it: see table.pxi. Its entries, of one kind, follow the struct.
cdef struct Table:
    uint32_t count                  # static
    uint64_t epoch                  # python: when another took its place
    Table *next                     # python: among those replaced

cdef struct Route:                  # of a device: what goes through which member
    uint32_t destination
    uint32_t mask
    uint32_t next_hop

cdef struct Rule:                   # of a network: what lies behind which member, and for whom
    uint32_t next_hop               # by which a table is sorted
    uint32_t destination
    uint32_t mask
    uint32_t device
    uint32_t device_mask

# What two relays have agreed on for a connection between them: a trunk. Goes as a table does. What they call a network
# is `number`, and `count` of them follow the struct: by number, a Copies each, and then the network here.
cdef struct Trunk:
    Table table                     # its count is of numbers; of what follows the copies are the worker's
    # static
    uint64_t relay                  # whose it is, as the route table has it
    uint32_t numbers[NETWORKS_MAX]  # by network: its number and 1; 0 the other relay does not serve it

# The trunks to another relay. Python writes, workers read.
cdef struct Relay:
    # atomic
    uint64_t count
    uint64_t trunks[TRUNKS_MAX]     # connections; those that have ended are passed over

# What stands behind a packet in a capture: its direction, and a comment.
cdef struct Tail:
    uint32_t length
    uint8_t bytes[76]

# Copies of one member's packets, on their way to a reader: see capture.pxi. What is over goes as a table does. The
# ring follows the struct.
cdef struct Capture:
    Table table
    # static
    uint64_t connection
    bint drops_only
    uint32_t snap                   # most bytes of a packet
    uint64_t clock_ns               # what the time of day is ahead of CLOCK_MONOTONIC
    uint64_t size                   # of the ring, bytes
    Tail tails[TAILS]               # by tail_place()
    # lock: of its writers, held for a copy
    pthread_mutex_t lock
    uint64_t written                # atomic: bytes, ever
    # atomic
    uint64_t read                   # of these, bytes that Python has
    uint64_t packets                # written
    uint64_t lost                   # and not: the ring was full, or a worker had no time
    # python
    bint over                       # its member has left

# A packet as it is copied from a frame.
cdef struct Copy:
    uint8_t *bytes                  # COPY_ROOM, of which `kept` are the packet's
    uint32_t kept
    uint32_t length                 # of the whole packet
    bint is_sealed

# The packet that a watched member has sent, while it is being forwarded.
cdef struct Watched:
    bint on                         # there is one
    bint copied                     # as it came
    Copy copy
    Slot *sender
    const Frame *frame
    uint32_t reason                 # DROPS_COUNT: not dropped yet

# One key of a session, of one direction. The lock is held for a packet: an EVP cipher is one thread's at a time.
cdef struct SealKey:
    pthread_mutex_t lock
    bint ready                      # lock; False once it is wiped
    bint little_endian              # nonces of ChaCha20-Poly1305 (static)
    bint own                        # static: `gcm` has the key
    Gcm gcm                         # lock
    void *cipher                    # EVP_CIPHER_CTX (lock), NULL none: what has the key otherwise

# Which counters have come, of the last so many.
cdef struct Window:
    uint32_t packets                # so many: a power of two, 64 at least (static)
    uint64_t next                   # one above the greatest
    uint64_t *bits                  # by counter modulo `packets`; NULL while all came in order

# What links have of a session: keys, counters and a window of their own.
cdef struct SessionLink:
    # sends.lock, but `number` and `bytes_sent` are read without
    SealKey sends
    uint64_t number                 # atomic: counter of the next datagram; never goes back
    uint64_t bytes_sent             # atomic: plaintext
    # opens.lock
    SealKey opens
    Window window
    uint64_t failures               # datagrams that did not open
    # worker: the device's
    bint heard                      # one has opened
    Allowance answers               # to probes
    Allowance tells                 # of answers to probes
    Allowance moves                 # and of other addresses

# What a device has agreed on with another member. What is replaced goes as a table does.
cdef struct Session:
    Table table
    Session *next                   # atomic: of the same place
    # static
    uint32_t local                  # our number, by which it is found
    uint32_t remote                 # the peer's
    uint32_t peer                   # its address
    uint64_t sends_until_ns         # CLOCK_BOOTTIME
    uint64_t opens_until_ns
    # sends.lock, but `number` and `bytes_sent` are read without
    SealKey sends
    uint64_t number                 # atomic: counter of the next packet; never goes back
    uint64_t bytes_sent             # plaintext
    # opens.lock
    SealKey opens
    Window window
    uint64_t failures               # packets that did not open
    Allowance notes
    bint confirmed                  # one has opened, or this end need not wait for that
    SessionLink link
    # atomic, CLOCK_BOOTTIME or 0: see Engine.seen()
    uint64_t packet_sent_ns
    uint64_t unanswered_ns
    uint64_t received_ns
    uint64_t owes_ns

# A device's own key for packets to groups, of one epoch. What is replaced goes as a table does.
cdef struct GroupSeal:
    Table table
    # static
    uint8_t epoch[16]
    uint64_t label_key[2]
    # sends.lock
    SealKey sends
    uint64_t number                 # counter of the next packet; never goes back
    uint64_t bytes_sent             # plaintext

# Another member's, likewise.
cdef struct GroupOpen:
    Table table
    GroupOpen *next                 # atomic: of the same place
    # static
    uint32_t source
    uint8_t epoch[16]
    # opens.lock
    SealKey opens
    Window window

# A device's packet that waits. A virtio header, of zeros where there is none, and the packet follow.
cdef struct Waiting:
    Waiting *next                   # of the same peer
    Waiting *older                  # of all peers
    Waiting *newer
    SealPeer *peer
    uint64_t stamp_ns               # CLOCK_MONOTONIC
    uint32_t length                 # of what follows

# Where packets for a peer go directly. What is replaced goes as a table does.
cdef struct Path:
    Table table
    # static
    uint32_t peer                   # whose it is
    uint32_t longest                # bytes of an inner packet that fit
    uint32_t over                   # bytes of a datagram beside its packet
    uint64_t link
    uint32_t name_size              # of a sockaddr
    uint8_t name[28]
    uint8_t place[19]               # the same as place_of() has it
    # atomic, CLOCK_BOOTTIME or 0
    uint64_t sent_ns
    uint64_t heard_ns               # anything authentic from the peer, by any link
    uint64_t asked_ns               # since when it has been asked whether it hears, in vain
    uint64_t asks_ns                # when it was last asked
    uint64_t asks                   # how often, since asked_ns
    uint64_t answered_ns            # when we last answered it
    uint64_t packet_ns              # when a packet last came by it
    uint64_t doubted_ns             # when Python was last told that it may be dead
    uint64_t quiet                  # packets go by the relay
    uint64_t told                   # Python knows that
    Traffic traffic                 # of packets; worker: the device's

# The same to an original client, with the key that it opens by.
cdef struct OldPath:
    Path path                       # first: its table is this one's
    SealKey sends                   # its lock

# By which a device opens what original clients send it.
cdef struct OldKey:
    Table table
    SealKey opens                   # its lock

# What becomes of packets for an address, and of what comes from there in the clear.
cdef struct SealPeer:
    Table table
    SealPeer *next                  # atomic: of the same place
    uint32_t address                # static
    # atomic, written by Python under the lock of Seals
    uint64_t way
    Session *session                # NULL none
    uint64_t takes_clear
    uint64_t longest                # bytes of a packet that is sealed
    uint64_t label_key[2]
    uint64_t tells_wanted           # the next packet for it raises an event, though it need not wait
    uint64_t tells_clear
    # atomic
    uint64_t told_wanted            # it was raised
    uint64_t told_clear
    Path *path                      # NULL: none but the relay's
    OldPath *old                    # likewise, of an original client
    uint32_t hops[4]                # OLD_HOPS: by whom packets of such a one come, and by the first go; else 0
    uint64_t icmp_ns                # when a sender was told that nothing goes there, 0 never
    uint64_t stranded_ns            # when Python was told that a packet has no way, 0 never
    uint64_t waiting                # packets; written under the lock of Seals
    # the lock of Seals
    uint64_t waiting_bytes
    Waiting *first
    Waiting *last
    SealPeer *next_opened
    bint opened                     # in that list of Seals
    bint gone                       # Python forgot it: nothing waits here any more

# Sealing of a network's device. Made once, and there as long as the network.
cdef struct Seals:
    uint64_t device                 # static: its number
    uint16_t link_prefix            # static: the upper half of the numbers of sessions that links reach
    uint64_t links_off              # atomic: what comes of sessions by links is dropped
    OldKey *old_key                 # atomic: NULL: no links with original clients
    uint64_t old_sealed             # atomic: datagrams for them, each under a random IV
    uint64_t old_resends            # atomic: what one of them has for another is sent on
    uint64_t old_resent             # atomic: such packets
    Allowance old_tells[256]        # OLD_TELLERS (worker: the device's)
    uint64_t met_ns[4096]           # atomic: when Python was told who sends by the relay, by PLACES of their addresses
    # atomic
    uint64_t sealing                # Sealing
    uint64_t own                    # address
    uint64_t checks_source          # inner sources have to be the peer's own, or behind it
    SealPeer *peers[4096]           # lists by PEER_PLACES; Python and, for what is new, workers add under the lock
    Session *sessions[4096]         # lists by SESSION_PLACES; Python adds and removes
    GroupSeal *group                # NULL: there is no secret
    GroupOpen *groups[4096]         # lists by PEER_PLACES, of their source; Python adds and removes
    uint64_t windows                # bytes of bits that they have
    # lock: held for copies
    pthread_mutex_t lock
    uint32_t peer_count
    uint32_t clear_count            # of them, those that takes_clear is set of; read without the lock
    Waiting *oldest
    Waiting *newest
    uint64_t waiting_bytes
    SealPeer *opened                # a list of those whose way is open, and for which something waits
    Allowance unknown               # events about sessions that are not there
    Allowance grouped[64]           # and about epochs that are not there, by their source
    Told unknown_of[4096]           # sources of sessions that are not there, by PLACES

cdef struct Network:
    void *pages[65536]              # atomic: by the address's upper half, NULL or 65536 connections by the lower half
    uint32_t broadcast              # atomic
    bint forward_broadcast          # static
    bint check_source               # static
    Table *rules                    # atomic: of Rule; NULL none, or none that this end was told
    Bucket down                     # of all members
    Bucket up
    Seals *seals                    # atomic: of its device; NULL: nothing is sealed here
    # Of the member list: for broadcasts and log-ins. Held for copies alone.
    pthread_mutex_t lock
    uint64_t *members               # 0 where one left, so that the others keep their places
    uint32_t member_count           # those that are not 0
    uint32_t member_high            # places used
    uint32_t member_free            # first of those that are 0, a list through free_next; NO_INDEX none
    uint32_t *free_next
    uint32_t member_room
    # python
    uint32_t connections            # in it, until Python has taken note of their ends
    bint leaving                    # nobody joins it any more; freed with the last of them

# One packet for all members of a network, on its way: a turn that runs out of work goes on with it the next time.
cdef struct Fanout:
    uint32_t size                   # of all this in memory
    uint32_t place                  # in the member list: the next one to get it
    uint32_t segment                # number of the packet at hand
    uint32_t segments
    bint cut                        # it is a super-packet
    Super whole                     # then: what it is cut from, which follows the frame
    bint without_candy3             # a message that those with candy.3 don't take of each other
    bint tells_endpoint             # a message for who is acquainted with its sender
    uint32_t frame_size             # of the packet at hand, which follows this struct
    uint32_t payload

cdef struct Run:                    # frames back to back in the receive buffer
    uint8_t *bytes
    uint32_t length
    uint32_t next                   # of the same target, RUNS_MAX at the end

cdef struct Target:                 # one destination of the batch at hand
    uint64_t connection
    uint32_t first
    uint32_t last
    uint32_t packets
    bint unsealed                   # frames of it are to be sealed when they are committed
    uint32_t before_size            # of what goes before its first frame, and before each that waits: 0, or a trunk's
    uint8_t before[NETWORK_FRAME]   # the frame that says of which network they are
    uint32_t payload_max            # what it may get
    uint32_t chunk_left             # room at chunk
    uint8_t *chunk                  # its piece of the arena, where its next gathered frame goes

cdef struct LinkRun:                # datagrams for one path back to back, of one size but for the last
    Path *path
    Slot *link
    uint32_t at                     # in Links.out
    uint32_t size                   # of all
    uint32_t each
    uint32_t count
    bint closed                     # the last one is shorter: none may follow

# What a worker sends and receives by links with.
cdef struct Links:
    LinkRun runs[64]                # LINK_RUNS
    uint32_t run_count
    uint32_t used                   # of `out`
    mmsghdr messages[64]
    iovec iov[64]
    uint8_t controls[64][64]        # one cmsg each
    uint8_t names[64][28]           # a sockaddr each
    uint8_t ivs[768]                # random, for datagrams to original clients
    uint32_t ivs_left
    uint8_t out[262144]             # LINK_OUT: datagrams that are sealed

# Who asks a STUN responder how often: sources share a place by their hash.
cdef struct StunLimits:
    uint64_t key[2]                 # static
    Allowance all
    Allowance sources[4096]         # STUN_SOURCES
    # static
    bint has_other
    uint8_t other[19]               # the address of the other socket, as place_of() has one

cdef struct Counters:               # one set for each worker and one for Python
    uint64_t packets_in
    uint64_t bytes_in
    uint64_t packets_out
    uint64_t bytes_out
    uint64_t receives
    uint64_t sends
    uint64_t copies                 # of broadcast and multicast packets
    uint64_t drops[DROPS_COUNT]
    uint64_t delays[DELAYS_COUNT]   # packets that left a queue, by how long they had waited: see delay_count()
    uint64_t delay_ns               # of all these
    uint64_t held_down              # how often a backlog waited for its limit
    uint64_t held_up                # and a source for being read

cdef enum Request:                  # what a worker can be asked for
    ABORT = 1                       # close at once
    END = 2                         # a close frame is on its way
    RETRY = 4                       # look again whether it takes more: no event will tell
    DRAIN = 8                       # send on: the thread that did so had no work left
    CUT = 16                        # it is stalled: keep STALLED_BYTES
    TAKE = 32                       # its handshake is done: it is this worker's from now on
    OPEN = 64                       # HTTP has a socket to Python
    PASS = 128                      # the head that passed was of no upgrade: the next one may pass
    UPGRADE = 256                   # it was: frames come next
    RELEASE = 512                   # a device: what waits may go on
    LISTEN = 1024                   # read it again: Python has taken what it had
    PACE = 2048                     # its limits have changed

cdef struct Wait:                   # a connection that is looked at again
    uint64_t connection
    uint64_t due_ns
    uint64_t pause_ns               # until the look after that
    bint reads                      # a limited source is read again then

cdef struct Turns:                  # connections that wait for a turn, in order
    uint64_t *connections           # room for each slot three times: turns_trim() says why
    uint32_t count

cdef struct Worker:
    EngineState *engine             # static
    uint32_t index                  # static
    pthread_t thread
    int ep
    int wake                        # eventfd: commands, stop
    uint64_t load                   # python: connections placed here
    Counters counters
    uint64_t rounds                 # atomic, worker writes: how often it has come round; once a TICK_NS at least
    uint64_t seen                   # atomic: no table that was replaced in this epoch or before is in its hands
    # everything below: worker
    uint64_t now
    uint64_t boot                   # CLOCK_BOOTTIME
    uint64_t boot_of                # at this `now`
    int64_t work                    # left in this turn
    bint stopped                    # the turn's work was used up before its input, or the connection rests
    bint unheld                     # there is no memory to hold the rest of its input: all of it is this turn's
    bint answered                   # answers of this turn wait in the inbox of the connection that has it
    void *spare[SPARE_CLASSES]      # memory for reuse, by size
    uint64_t spare_bytes
    uint64_t tick_ns                # static: a round of look-ups of all connections
    uint64_t next_tick_ns
    uint32_t tick_place             # in slots: those below it are still to be looked at in this round
    uint64_t next_closing_ns
    uint32_t closing_place
    uint8_t *buffer
    uint8_t *cipher                 # an incomplete record, up to RECORD_ROOM, and a read of CIPHER_BYTES behind it
    uint8_t *sealed                 # and SEALED_ROOM that was not sent yet
    Block *commit                   # plaintext of a commit, room for the longest
    uint8_t *stage                  # RECORD_MAX: short runs, to be sealed as one record
    uint64_t rest_of                # connection that read last
    size_t rest_size                # and its incomplete frame at the start of the buffer, bytes
    Run *runs
    uint32_t run_count
    Target *targets
    uint32_t target_count
    uint32_t *target_of             # by slot: index + 1 into targets
    uint32_t trunk_network          # of all in the batch that is for trunks
    uint64_t run_connection         # destination of the frame before, 0 none
    uint32_t run_target
    uint32_t run_work               # for each further frame
    uint8_t *run_end                # where a further frame of the run would go
    uint8_t *run_limit              # and how far, UINTPTR_MAX in the receive buffer
    uint8_t *arena                  # ARENA_CHUNKS of ARENA_CHUNK bytes, for gathering
    uint32_t arena_used
    uint8_t *bump                   # room in the arena for frames made of segments
    uint32_t bump_left
    Watched watched
    Copy copy                       # of another packet that is captured
    uint64_t capture_ns             # when capture_left was reckoned last
    int64_t capture_left            # time that it may spend on captures, nanoseconds
    Merge *merge
    Links *links                    # atomic: made with the first link of its, or the first STUN responder
    uint8_t *scratch                # a payload and a frame, while a super-packet is cut
    iovec *iov
    mmsghdr *messages
    uint32_t *slots                 # indices of the connections owned
    uint32_t slot_count
    Turns modest                    # connections with something to do that used little of their last turns
    Turns greedy                    # and those that used much
    uint32_t *closing               # slots that wait for their close frames
    uint32_t closing_count
    uint32_t *departed              # slots closed that Python was not told of
    uint32_t departed_count
    uint32_t *secured               # the thread of handshakes': slots that are to move to their homes
    uint32_t secured_count
    Wait *waiting                   # at most one entry for each connection and direction, and stale ones
    uint32_t waiting_count
    uint64_t waiting_due_ns         # the earliest
    uint64_t *taken                 # requests taken from the list below
    # requests (request_lock)
    pthread_mutex_t request_lock
    uint64_t *requests              # connections with bits in `asked`; room for each slot twice, for one may be stale
    uint32_t request_count

cdef struct Outbox:                 # events for Python
    pthread_mutex_t lock
    int signal                      # eventfd
    uint8_t *bytes
    size_t used
    size_t room
    uint64_t *closed                # connection numbers, room for every slot
    uint8_t *closed_cause
    uint32_t closed_count
    uint64_t *closed_spare          # Python's: exchanged for the two above when it looks
    uint8_t *closed_cause_spare
    bint signalled

cdef struct EngineState:
    Slot *slots                     # mapped for max_slots, resident as far as used
    uint32_t max_slots              # connections, guests, trunks and STUN responders
    uint32_t max_connections
    uint32_t max_guests
    uint32_t max_trunks
    uint32_t high_slot              # python: slots ever used
    uint32_t free_slot              # python: head of the free list, UINT32_MAX none
    uint32_t open_slots             # python
    uint32_t guest_slots            # python: of these
    uint32_t stun_slots             # python: and of those
    uint32_t trunk_slots            # python: of the open ones
    Worker *workers                 # worker_count, then one for the Python thread and one for handshakes
    uint32_t worker_count
    Network *networks[NETWORKS_MAX]         # python, but a connection's worker reads its own; NULL none
    uint32_t network_count          # python: numbers ever used
    uint64_t epoch                  # atomic: how many tables Python has replaced
    Table *replaced                 # python: those that a worker may still read
    Relay relays[RELAYS_MAX]
    Capture *captures[CAPTURES_MAX]         # python: NULL none
    Pool pool
    uint64_t flow_key[3]            # static: of the hash that spreads flows over sub-queues
    Outbox outbox
    uint64_t queue_bytes
    uint64_t ping_after_ns
    uint64_t dead_after_ns
    bint ping_when_quiet
    uint64_t broadcast_rate
    uint64_t handshake_ns           # deadline of a handshake, from adopt() on
    uint64_t stopping               # atomic
