"""The forwarding engine: WebSocket frames between sockets, and packets to and from TUN devices, without Python.

Table of contents, from the bytes up. Declarations, with the owner of every field: _fastpath.pxd. The Python face:
_fastpath.pyi. How it works as a whole: docs/architecture.md.
"""

include "engine/ipv4.pxi"            # the few header fields that forwarding needs
include "engine/websocket.pxi"       # parse and build frames
include "engine/pool.pxi"            # memory that waits, under one limit
include "engine/routes.pxi"          # address -> connection; the members of a network
include "engine/queue.pxi"           # the backlog of one destination: fq_codel
include "engine/gather.pxi"          # a batch, by destination
include "engine/send.pxi"            # from there to the kernel, the queue or the inbox
include "engine/legacy.pxi"          # the same for peers to which each frame is a segment
include "engine/receive.pxi"         # from a socket to a batch
include "engine/message.pxi"         # and what is no packet
include "engine/offload.pxi"         # super-packets: check, take apart
include "engine/ipip.pxi"            # SD-WAN: wrap, tell from others
include "engine/coalesce.pxi"        # and put together
include "engine/tun.pxi"             # packets of a TUN device
include "engine/connection.pxi"      # the end of a connection; events for Python
include "engine/worker.pxi"          # the thread and its epoll
include "engine/core.pxi"            # memory, threads, slots
include "engine/face.pxi"          # the Python face
include "engine/testing.pxi"         # parts of it over bytes in memory: frames, segments, a device
include "engine/bench.pxi"           # endpoints of the benchmarks
include "engine/bench_relay.pxi"     # the limit that they compare with
