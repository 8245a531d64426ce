"""The forwarding engine: WebSocket frames between sockets, and packets to and from TUN devices, without Python.

Table of contents, from the bytes up. Declarations, with the owner of every field: _fastpath.pxd. The Python face:
_fastpath.pyi. How it works as a whole: docs/architecture.md.
"""

include "_fastpath_ipv4.pxi"            # the few header fields that forwarding needs
include "_fastpath_websocket.pxi"       # parse and build frames
include "_fastpath_pool.pxi"            # memory that waits, under one limit
include "_fastpath_routes.pxi"          # address -> connection; the members of a network
include "_fastpath_queue.pxi"           # the backlog of one destination: fq_codel
include "_fastpath_gather.pxi"          # a batch, by destination
include "_fastpath_send.pxi"            # from there to the kernel, the queue or the inbox
include "_fastpath_legacy.pxi"          # the same for peers to which each frame is a segment
include "_fastpath_receive.pxi"         # from a socket to a batch
include "_fastpath_message.pxi"         # and what is no packet
include "_fastpath_offload.pxi"         # super-packets: check, take apart
include "_fastpath_ipip.pxi"            # SD-WAN: wrap, tell from others
include "_fastpath_coalesce.pxi"        # and put together
include "_fastpath_tun.pxi"             # packets of a TUN device
include "_fastpath_connection.pxi"      # the end of a connection; events for Python
include "_fastpath_worker.pxi"          # the thread and its epoll
include "_fastpath_core.pxi"            # memory, threads, slots
include "_fastpath_engine.pxi"          # the Python face
include "_fastpath_testing.pxi"         # parts of it over bytes in memory: frames, segments, a device
include "_fastpath_bench.pxi"           # endpoints of the benchmarks
include "_fastpath_bench_relay.pxi"     # the limit that they compare with
