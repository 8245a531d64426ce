"""The forwarding engine: WebSocket frames between sockets, and packets to and from TUN devices, without Python.

Table of contents, from the bytes up: a part uses those above it. The Python face: _fastpath.pyi. How it works as a
whole: docs/architecture.md.
"""

include "engine/system.pxi"             # libc, the kernel, the compiler
include "engine/wire.pxi"               # the numbers of the wire
include "engine/types.pxi"              # every structure, each field with its owner
include "engine/libssl.pxi"             # OpenSSL: the library, its functions and numbers
include "engine/checksum.pxi"           # of IPv4, TCP and UDP headers
include "engine/ipv4.pxi"               # the few header fields that forwarding needs
include "engine/websocket.pxi"          # parse and build frames
include "engine/capture.pxi"            # copies of one member's packets, for who watches it
include "engine/pool.pxi"               # memory that waits, under one limit
include "engine/slot.pxi"               # a connection's number, counters and masks
include "engine/event.pxi"              # commands to a worker, events for Python
include "engine/limit.pxi"              # how much a second, down and up: buckets, turns, windows
include "engine/table.pxi"              # what Python replaces while workers read it
include "engine/routes.pxi"             # address -> connection; the members of a network; what lies behind whom
include "engine/offload.pxi"            # super-packets: check, take apart
include "engine/unsealed.pxi"           # frames that are sealed when they are committed
include "engine/ipip.pxi"               # SD-WAN: wrap, tell from others, check what is within
include "engine/flow.pxi"               # the sub-queues of a backlog
include "engine/codel.pxi"              # what waits too long: dropped, or marked
include "engine/control.pxi"            # what waits and is no packet
include "engine/inbox.pxi"              # what threads leave for the holder of a send lock
include "engine/trunk.pxi"              # links between relays: of which network a frame is, and from whom
include "engine/told.pxi"               # how often; what senders of sealed packets are told
include "engine/queue.pxi"              # the backlog of one destination: fq_codel
include "engine/transport.pxi"          # read from, write to, end a connection
include "engine/recordlayer.pxi"        # TLS records: sealed and opened
include "engine/aead.pxi"               # sealed packets, over bytes
include "engine/window.pxi"             # which counters have come
include "engine/sessions.pxi"           # what a device knows of sealing: sessions and members
include "engine/link.pxi"               # direct links, over bytes; paths
include "engine/groups.pxi"             # packets to groups, over bytes
include "engine/waiting.pxi"            # packets that wait for a session
include "engine/sealing.pxi"            # a frame that waited becomes what is on the wire
include "engine/tls.pxi"                # TLS of one connection
include "engine/legacy.pxi"             # writing to old peers: each frame a TCP segment
include "engine/drain.pxi"              # from a backlog to the kernel
include "engine/send.pxi"               # from a batch to the kernel, the queue or the inbox
include "engine/unseal.pxi"             # reading over TLS
include "engine/coalesce.pxi"           # super-packets: put together
include "engine/gather.pxi"             # a batch, by destination
include "engine/trunksend.pxi"          # by which of them a packet goes
include "engine/passing.pxi"            # frames of members with candy.3: as they came, or unmasked
include "engine/fanout.pxi"             # one packet for several
include "engine/opening.pxi"            # what comes to a device: opened, or taken in the clear
include "engine/endtoend.pxi"           # what members seal for each other: to whom it may go
include "engine/outway.pxi"             # what becomes of a device's packet where members seal
include "engine/linksend.pxi"           # from a device to a link
include "engine/oldlink.pxi"            # direct links with original clients
include "engine/connection.pxi"         # the end of a connection
include "engine/input.pxi"              # input that waits: held, or not whole yet
include "engine/receive.pxi"            # from a socket to a batch
include "engine/message.pxi"            # and what is no packet
include "engine/trunkreceive.pxi"       # from a link between relays
include "engine/tun.pxi"                # packets of a TUN device
include "engine/oldreceive.pxi"         # from an original client to a device
include "engine/linkreceive.pxi"        # from a link to a device
include "engine/stun.pxi"               # a relay's STUN responder
include "engine/handshake.pxi"          # of TLS, on a thread of their own
include "engine/http.pxi"               # between that and the frames: plaintext for Python
include "engine/worker.pxi"             # the thread and its epoll
include "engine/context.pxi"            # TLS contexts, from files
include "engine/primitives.pxi"         # X25519, Ed25519 and AES-256-GCM, for Python
include "engine/core.pxi"               # memory, threads, slots
include "engine/sealface.pxi"           # what Python says of sealing
include "engine/trunkface.pxi"          # of links between relays
include "engine/linkface.pxi"           # and of direct links
include "engine/oldface.pxi"            # with original clients too
include "engine/captureface.pxi"        # and of captures
include "engine/face.pxi"               # the Python face
include "engine/testing.pxi"            # parts of it over bytes in memory: frames, segments, a device, a backlog
include "engine/testing_tls.pxi"        # and TLS records
include "engine/testing_seal.pxi"       # and sealed packets
