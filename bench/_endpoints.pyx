"""What the benchmarks measure with, compiled like the engine: the members, and the bare relay that is the limit.

An extension of its own, so that nothing of it is installed. It takes the numbers, the frame builder and the unmasking
loop from the engine's parts.
"""

include "../candy/engine/system.pxi"
include "../candy/engine/wire.pxi"
include "../candy/engine/types.pxi"
include "../candy/engine/libssl.pxi"
include "../candy/engine/websocket.pxi"
choose_unmask()

include "members.pxi"                   # members that send and check
include "barerelay.pxi"                 # recv and send, and nothing between
include "cipherrelay.pxi"               # the same, and the cipher
