# The numbers of the wire: candy's frames (../docs/protocol.md), WebSocket (RFC 6455), IPv4 and its transports, virtio.

# candy
cdef enum:
    KIND_FORWARD = 1
    KIND_UDP4CONN = 3
    KIND_DISCOVERY = 5
    KIND_SUPER = 16
    KIND_SEALED = 18
    KIND_SEALED_GROUP = 19
    KIND_HANDSHAKE = 20
    KIND_CONTROL = 22
    KIND_NETWORK = 24               # between relays: of which network the messages behind it are
    KIND_NOTICE = 25                # and what a member of the other one is to be told
    KIND_NOT_SEALING = 34           # within a CONTROL
    KIND_COMMIT = 35                # within a CONTROL
    KIND_GENERAL = 255
    GENERAL_ENDPOINT = 0            # its subtype of a LAN endpoint
    WIRE_PAYLOAD_MAX = 65546        # more closes with CLOSE_TOO_LARGE
    WIRE_PAYLOAD_CANDY3 = 65600     # the same from a member with candy.3
    WIRE_PAYLOAD_LEGACY = 1500      # most that an original client holds
    FORWARD_MIN = 21                # the kind and an IPv4 header
    TOTAL_LENGTH_AT = 3             # of a FORWARD's payload: kind, then the header's offset 2
    PROTOCOL_AT = 10
    SOURCE_AT = 13
    DESTINATION_AT = 17
    SUPER_MIN = 31                  # the kind, a virtio header and an IPv4 header
    SUPER_SHIFT = 10                # by so much a SUPER's addresses lie behind a FORWARD's
    DISCOVERY_MIN = 9               # the kind and two addresses
    GENERAL_MIN = 12                # 3 bytes more before the addresses
    UDP4CONN_MIN = 15               # and an endpoint behind them
    PADDING_MAX = 4                 # zeros behind a packet, candy.3
    LABEL_AT = 2                    # of a SEALED and a SEALED_GROUP: the flow label
    SEALED_SOURCE_AT = 4            # of these two and of a HANDSHAKE
    SEALED_DESTINATION_AT = 8
    SEALED_SESSION_AT = 12          # of a SEALED: the receiver's session number
    SEALED_HEADER = 24              # its clear bytes, all of them authenticated
    SEAL_TAG = 16
    NETWORK_BYTES = 3               # of a NETWORK: the kind, and a number
    NETWORK_FRAME = 5               # and of its frame
    NOTICE_BYTES = 5                # of a NOTICE before what is told: the kind, and the member's address
    NOTE = 0x80                     # first byte of a note, which is no virtio header's
    NOTE_MAX = 169                  # an offer of 8 addresses; rekeying's two messages are shorter
    NOTE_TYPES = 3
    LINK_HEADER = 16                # of a datagram between our own: its clear bytes
    LINK_MIN = 32                   # and its tag
    LINK_ASKS = 1                   # flags: the sender wants to hear of this path
    LINK_UNSUMMED = 2               # the inner checksum was left out
    LINK_PROBE = 1                  # first byte of what is within, where it is no packet and no note
    LINK_ANSWER = 2
    LINK_ANSWER_BYTES = 30
    SEALED_MIN = 40                 # a header and a tag
    SEALED_MAX = 65589              # and the longest packet behind a virtio header, and padding
    SEALED_EPOCH_AT = 12            # of a SEALED_GROUP: its sender's epoch
    SEALED_GROUP_HEADER = 36        # its clear bytes, the last 8 a counter as a SEALED's
    SEALED_GROUP_MIN = 52
    SEALED_GROUP_MAX = 65597        # without padding
    HANDSHAKE_1_BYTES = 148
    HANDSHAKE_2_BYTES = 100
    GREETING_BYTES = 7              # of "candy::", by which a client begins to say who it is

# WebSocket
cdef enum:
    FRAME_HEADER_MAX = 14           # 2, 8 of extended length, 4 of mask
    CONTROL_FRAME_MAX = 131         # 2, 4 of mask, 125 of payload
    MASK_BYTES = 4
    OP_CONTINUATION = 0
    OP_TEXT = 1
    OP_BINARY = 2
    OP_CLOSE = 8
    OP_PING = 9
    OP_PONG = 10
    CLOSE_PROTOCOL_ERROR = 1002
    CLOSE_TOO_LARGE = 1009

# IPv4, TCP, UDP
cdef enum:
    IPIP = 4
    TCP = 6
    UDP = 17
    IPIP_BYTES = 20                 # of the outer header that we write
    TCP_FIN = 0x01
    TCP_SYN = 0x02
    TCP_RST = 0x04
    TCP_PSH = 0x08
    TCP_ACK = 0x10
    TCP_URG = 0x20
    TCP_CWR = 0x80

# virtio: the header before a super-packet, drawn in offload.pxi
cdef enum:
    VNET_BYTES = 10
    VNET_NEEDS_CSUM = 1
    VNET_DATA_VALID = 2
    GSO_NONE = 0
    GSO_TCP4 = 1
    GSO_UDP = 5
    GSO_ECN = 0x80
