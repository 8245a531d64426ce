"""The Python face of the forwarding engine.

A *connection* is an opaque int, unique for the life of the engine (slot number and generation): a stale one is never
mistaken for its successor, and every call with a stale one does nothing and returns False. IPv4 addresses are ints in
host order (`int(ipaddress.IPv4Address(...))`). No call blocks on the network. An Engine is used from one Python thread.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Never, Self

from _typeshed import StrPath
from typing_extensions import disjoint_base

VERSION: Final[str]

MAX_PAYLOAD: Final[int]
"""Longest WebSocket payload accepted from anyone, bytes (65,546); more closes with 1009."""
CANDY3_PAYLOAD: Final[int]
"""The same of a peer that agreed to candy.3 (65,600); to it go 4 bytes more, those of a mask."""
LEGACY_PAYLOAD: Final[int]
"""Longest payload sent to a peer that negotiated no extension, bytes (1,500)."""

CANDY3: Final[int]
"""adopt()'s `extended` for a peer that agreed to candy.3."""

EVENT_MESSAGE: Final[int]
"""A whole binary message that is not a forwarded packet; the detail is its payload, kind byte first. Of a relay's
device that seals: a HANDSHAKE of a member for it."""
EVENT_PONG: Final[int]
"""A PONG with a payload; the detail is that payload."""
EVENT_CLOSED: Final[int]
"""The connection is gone, and its number is dead from here on; the detail is ASCII: the cause (see CAUSES), a blank,
and for how many milliseconds no byte had come from the peer."""
EVENT_CLOSING: Final[int]
"""The relay's close frame, at a client alone; the detail is its payload: two bytes of code, then a reason that nobody
checked. EVENT_CLOSED follows. A close frame without a payload is not reported."""
EVENT_PING: Final[int]
"""The first PING that begins with `candy::` behind an EVENT_MESSAGE of a peer that is not a relay; the detail is its
payload, at most 125 bytes."""
EVENT_TLS: Final[int]
"""TLS with this peer failed; the detail is what X509_verify_cert() says of its certificate, two bytes, 0 if that is not
the reason, then OpenSSL's words. EVENT_CLOSED follows."""
EVENT_HELLO: Final[int]
"""A guest has sent a whole ClientHello."""
EVENT_SECURED: Final[int]
"""A guest's TLS handshake is done: open_http() comes next."""
EVENT_CERTIFICATE: Final[int]
"""The server's certificate will not do; the detail is this certificate, DER, of up to 16 KiB. EVENT_TLS follows."""
EVENT_CONTROL: Final[int]
"""What a member with candy.3 is to be told within a CONTROL; the detail is that message, kind byte first: NOT_SEALING
or COMMIT. Of a relay's device that seals: the same for it."""
EVENT_WANTED: Final[int]
"""Of a device where members seal: a packet for an address waits, or set_peer() asked to be told; the detail is the
address, 4 bytes. Once, and again after the next set_peer(); likewise EVENT_CLEAR. Of a client's device also once a
second where a packet is to be sealed for a peer, and there is neither a relay nor a path."""
EVENT_CLEAR: Final[int]
"""Of such a device: a packet in the clear came from an address that is not known, or of which set_peer() asked to be
told; the detail is the address, 4 bytes: of one behind another member that member's."""
EVENT_UNKNOWN: Final[int]
"""Of such a device: something sealed came for a session that is not there; the detail is its source, 4 bytes. At most
64 a second."""
EVENT_CONFIRMED: Final[int]
"""Of such a device: the first packet has opened under a session that was not confirmed; the detail is its number, 4
bytes. Before the EVENT_NOTED of the same packet."""
EVENT_NOTED: Final[int]
"""Of such a device: a note of type 1, 2 or 3 has opened, whichever way it came; the detail is the session's number, 4
bytes, and the note."""
EVENT_GROUPED: Final[int]
"""Of such a device, after seal_groups(): a SEALED_GROUP came of an epoch that is not open, its length and destination
right; the detail is all of it. At most 16 a second of one source, with 64 saved up; what is beyond is dropped as
handshake_limit."""
EVENT_LINK: Final[int]
"""Of such a device: something authentic came by a link that Python should know of: the answer to a probe, or anything
from an address that is not the path to its sender. The detail is the session's number, 4 bytes, the link, 8, where it
came from as family (4 or 6), 1, address, 16, of IPv4 the first 4 and zeros, and port, 2; then the ANSWER (`2 | id 8 |
family 1 | address 16 | port 2 | length of the probe's datagram 2`), or nothing. All big-endian. At most 32 answers and
4 others a second of one session, with 64 and 8 saved up."""
EVENT_STUN: Final[int]
"""Of a link: a STUN success response to one of expect_stun()'s transactions came; the detail is where it came from,
family, address and port as of EVENT_LINK, and the datagram, of up to 512 bytes."""
EVENT_OLD: Final[int]
"""Of such a device: a message of an original client's opened, other than a packet; the detail is the link, 8 bytes,
where it came from, 19, as of EVENT_LINK, and the message, of up to 64. At most 8 a second of one address, with 16 saved
up."""
EVENT_MET: Final[int]
"""Of a device that opens what original clients send: a packet in the clear, and taken, came by the relay from an
address; the detail is that, 4 bytes. Once in 5 s of one address, or of those that share its place."""
EVENT_QUIET: Final[int]
"""Of such a device: the path to a peer is quiet, and its packets go by the relay until the next set_path(); the detail
is the peer's address, 4 bytes. Once for each set_path(); where too many events wait, with a later packet for it."""
EVENT_DOUBT: Final[int]
"""Of such a device: packets went both ways by the path to a peer, and now what was sent there is not answered; the
detail is the peer's address, 4 bytes. Whether the path is dead is for probes to say. At most once in 3 s of a path."""
EVENT_LOST: Final[int]
"""Another program removed the TUN device; nothing is read from it any more. It stays adopted until stop()."""

CAPTURE_MOST: Final[int]
"""Captures that an engine has at once."""
CAPTURE_READ: Final[int]
"""Most bytes of one read_capture()."""
MEMBER_FORMAT: Final[str]
"""Of struct's, for a row of Engine.members()."""

CAUSES: Final[tuple[str, ...]]
"""Why a connection ended: what the detail of EVENT_CLOSED can begin with."""

DROPS: Final[tuple[str, ...]]
"""Every reason for which a packet or message is dropped: the keys of Engine.drops()."""

DELAY_BOUNDS_S: Final[tuple[float, ...]]
"""Upper bounds of the histogram of Engine.delays(), seconds; its last count has none."""

@disjoint_base
class TlsContext:
    """TLS of one side, with what OpenSSL needs for it. Connections keep the one that they began with.

    TLS 1.2 and 1.3, AES-128-GCM first where the processor has AES; no renegotiation, compression, tickets or early
    data. Keys are exchanged by X25519, where the peer can. Made by the two functions below alone.
    """

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @staticmethod
    def server(
        *certificates: tuple[StrPath, StrPath], names: dict[str, TlsContext] | None = None, ml_kem: bool = False
    ) -> TlsContext:
        """For connections that are accepted.

        Args:
            certificates: PEM files of a chain and of its unencrypted key, at most one of each kind of key.
            names: other contexts of servers, each for clients that ask for this name, in lower case (SNI). The star of
                *.example.org stands for one label; a name itself goes before.
            ml_kem: let clients exchange keys by X25519MLKEM768, too.

        Raises:
            ValueError: the files can't be used; OpenSSL's words.
            OSError: there is no OpenSSL that will do; says what to do.
        """

    @staticmethod
    def connecting(
        name: str,
        *,
        ca_file: StrPath | None = None,
        insecure: bool = False,
        pins: tuple[bytes, ...] = (),
        ml_kem: bool = False,
    ) -> TlsContext:
        """For connections to a server of this name or address.

        Args:
            name: what its certificate has to be for.
            ca_file: PEM certificates to trust instead of the system's.
            insecure: accept any certificate.
            pins: SHA-256 of public keys (SubjectPublicKeyInfo), of which the server's has to be one. Without a
                `ca_file` nothing else of its certificate is looked at then.
            ml_kem: prefer to exchange keys by X25519MLKEM768, if the server can.

        Raises:
            ValueError, OSError: as server().
        """

def openssl_version() -> str:
    """The OpenSSL in use: the one that Python's ssl has loaded.

    Raises:
        OSError: there is none that will do; says what to do.
    """

def x25519_public(private: bytes) -> bytes:
    """The public key that belongs to a private one, of 32 bytes each.

    Raises:
        ValueError: it has another length.
        OSError: as openssl_version(); or OpenSSL has no memory, or no such algorithm.
    """

def x25519_exchange(private: bytes, public: bytes) -> bytes | None:
    """What is shared with the owner of a public key, 32 bytes; None for a point of low order. Raises as above."""

def hkdf(chaining: bytes, material: bytes, outputs: int) -> list[bytes]:
    """HKDF of SHA-256 with empty info (RFC 5869), as in Noise, section 4.3.

    Args:
        chaining: 32 bytes, its salt.
        material: at most 32 bytes.
        outputs: how many digests of 32 bytes.

    Raises:
        ValueError: a length or number is another.
        OSError: as x25519_public().
    """

def ed25519_public(seed: bytes) -> bytes:
    """The public key that belongs to a seed, of 32 bytes each. Raises as x25519_public()."""

def ed25519_sign(seed: bytes, message: bytes) -> bytes:
    """A signature of 64 bytes. Raises as x25519_public()."""

def ed25519_verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether it is one of this message, by the owner of this key. Raises OSError as x25519_public()."""

def aes_seal(key: bytes, nonce: bytes, data: bytes, plaintext: bytes) -> bytes:
    """AES-256-GCM.

    Args:
        key: 32 bytes.
        nonce: 12 bytes, never twice with one key.
        data: associated data, at most 2**30 bytes, as of plaintext.

    Returns:
        ciphertext, and a tag of 16 bytes.

    Raises:
        ValueError: a length is another.
        OSError: as x25519_public().
    """

def aes_open(key: bytes, nonce: bytes, data: bytes, sealed: bytes) -> bytes | None:
    """The plaintext of what aes_seal() returned; None if the tag is wrong. Takes and raises what aes_seal() does."""

class _Sealing:
    """Sealing of a network's device: what an Engine does for Python's sessions with other members (docs/protocol.md,
    "Sealed packets"). `tun` is from adopt_tun(). Calls take effect, in their order, for the packets behind them. Times
    are seconds of CLOCK_BOOTTIME. Without set_sealing() everything is in the clear.

    Raises, all of them:
        ValueError: there is no such device, an argument is out of range, or set_sealing() did not come first.
        MemoryError: the machine has none.
    """

    def set_sealing(self, tun: int, sealing: int, own: int, *, checks_source: bool = True) -> None:
        """How it deals with what it knows nothing of: 0 everything is sent and taken in the clear, and the tables count
        for nothing; 1 what comes in the clear is taken; 2 it is dropped.

        Args:
            own: its address: source of what is sealed, destination of what is opened.
            checks_source: inner sources have to be the peer's own, or behind it; else only not this member's.

        Raises:
            OSError: there is no OpenSSL that will do; says what to do.
        """

    def install(
        self,
        tun: int,
        *,
        local: int,
        peer: int,
        remote: int,
        cipher: int,
        sends: bytes,
        receives: bytes,
        sends_until: float,
        opens_until: float,
        confirmed: bool,
    ) -> None:
        """Open what comes for a session, and seal under it once set_peer() names it. Counters begin at 0.

        Args:
            local: its number here: not 0, and not in use.
            peer: the address that it is with.
            remote: its number there.
            cipher: 1 AES-256-GCM, 2 ChaCha20-Poly1305.
            sends, receives: keys, 32 bytes each.
            confirmed: False: the first packet that opens raises EVENT_CONFIRMED.
        """

    def remove_session(self, tun: int, local: int) -> bool:
        """Forget a session; its keys are overwritten when this returns. What was sealed may still go out. False: there
        is none."""

    def set_peer(
        self,
        tun: int,
        address: int,
        way: int,
        *,
        session: int = 0,
        takes_clear: bool = False,
        longest: int = 65535,
        label_key: bytes = ...,
        tells_wanted: bool = False,
        tells_clear: bool = False,
    ) -> None:
        """What becomes of packets for an address, or for networks behind it, and of what comes from there in the clear,
        instead of what was said before.

        Args:
            way: 0 it waits, for up to 6 s; 1 it is sealed, or waits while that can't be; 2 in the clear; dropped as 3
                no_route, 4 key_refused, 5 peer_not_sealing, which is answered with an ICMP. What waits goes this way
                too.
            session: under which it is sealed: `local` of install(), with this address.
            takes_clear: else what comes in the clear is dropped as not_sealed.
            longest: bytes of an IPv4 packet; longer super-packets are cut before they are sealed. 1,500 at least.
            label_key: 16 bytes, of its flow labels.
            tells_wanted, tells_clear: the next packet raises EVENT_WANTED, EVENT_CLEAR. What waits does in any case.

        Raises:
            MemoryError: 4,096 addresses are there.
        """

    def forget_peer(self, tun: int, address: int) -> bool:
        """Know nothing of an address any more; what waits for it is dropped as no_session. False: there was nothing."""

    def send_sealed(self, tun: int, local: int, body: bytes = b"") -> bool:
        """Send a note of up to 169 bytes, its first 0x80, or without a body an empty packet: by the path to its peer,
        where there is one that is not quiet, else by the relay. False: the session is gone, and the relay too."""

    def seal_groups(self, tun: int, epoch: bytes = b"", key: bytes = b"", label_key: bytes = ...) -> None:
        """Seal packets to groups under this epoch from now on, with counters from 0; the key of the one before is
        overwritten when this returns. Without arguments, and before the first call, there is no secret: they go and are
        taken as set_sealing() has it, and what comes sealed is dropped as no_secret.

        Args:
            epoch: 16 bytes.
            key: of AES-256-GCM.
            label_key: 16 bytes, of flow labels.
        """

    def open_group(self, tun: int, source: int, epoch: bytes, key: bytes, message: bytes) -> None:
        """Open what comes of a source under an epoch from now on, with a window of 1,024, if it is not open already;
        `message` is one of them, and opened first."""

    def close_group(self, tun: int, source: int, epoch: bytes) -> bool:
        """Forget an epoch; its key is overwritten when this returns. False: it was not open."""

    def seen(self, tun: int) -> list[tuple[int, int, float, float, float, float]]:
        """What each session has carried: number, plaintext bytes sealed, when the last packet was sent, the first one
        since anything came, when anything came last, and the first packet that came since anything was sent. 0.0 is
        never. Notes and empty packets are none."""

class _Links(_Sealing):
    """Direct links of a network's device that seals: UDP sockets on which what is sealed for a peer goes straight there
    (docs/protocol.md, "Direct links"). A link is numbered as a connection, and counted as one. Addresses of the
    underlay are bytes, 4 or 16, as the link's family. Raises as _Sealing, all of it."""

    def link_prefix(self, tun: int) -> int:
        """The upper 16 bits that `local` of install() has to have for its session to be reached by a link, not 0; the
        same as long as the device is there. A link's socket drops all else in the kernel."""

    def open_link(self, tun: int, fd: int) -> int:
        """Have a link on this UDP socket: bound, of IPv4 or of IPv6 alone, its IP_MTU_DISCOVER (IPV6_MTU_DISCOVER)
        set. Owned by the engine only once open_link() returned; it sets UDP_GRO and a socket filter.

        Returns:
            the link. It lives until close_link(), or stop(); EVENT_CLOSED follows the former.

        Raises:
            OSError: the socket can't be used; ENFILE when every slot is taken.
        """

    def allow_links(self, tun: int, allows: bool) -> None:
        """Take what comes of the device's sessions by its links, as from the start, or drop it as `link_off`: nothing
        of it reaches the device, is answered, or is told. Answers of STUN and original clients have no part in that."""

    def close_link(self, link: int) -> bool:
        """Close it. Paths that go by it are quiet from here on, without an event. False: it is gone."""

    def expect_stun(self, link: int, ids: Sequence[bytes]) -> bool:
        """Take the answers to these STUN transactions from here on, and no others: up to 8, of 12 bytes. False: the
        link is gone.

        Raises:
            ValueError: there are more, or one has another length.
        """

    def send_stun(self, link: int, address: bytes, port: int, message: bytes) -> bool:
        """Send a datagram as it is, of at most 512 bytes. False: the link is gone, or the kernel refused."""

    def send_by(self, tun: int, session: int, link: int, address: bytes, port: int, content: bytes = b"") -> bool:
        """Seal this for the peer of a session and send it by a link to exactly this address, whatever path there is: a
        PROBE, a note, or, empty, a keep-alive. False: session or link is gone, or the kernel refused it (EMSGSIZE: it
        is too long for the interface; ENETUNREACH: there is no way).

        Args:
            session: `local` of install().
            content: at most 9,000 bytes; the datagram has 32 more.
        """

    def set_path(self, tun: int, peer: int, link: int, address: bytes, port: int, longest: int) -> None:
        """Packets for a peer that set_peer() seals leave by this link to this address from now on, if they have at most
        `longest` bytes, or are super-packets of TCP, which are cut to that. A path is proven: an answer came from
        there. One that was quiet goes on.

        Args:
            peer: its address in the network.
            longest: bytes of an inner IPv4 packet, 576 to 9,000: the path's MTU less 60 with IPv4, 80 with IPv6.

        Raises:
            ValueError: the link is gone, or the device's no more; the address is of another family; or set_peer() did
                not come first.
        """

    def clear_path(self, tun: int, peer: int) -> bool:
        """Packets for a peer go by the relay from here on. False: they did."""

    def paths(self, tun: int) -> list[tuple[int, float, float, int, int, int, int, bool]]:
        """Each path: its peer's address, when anything was sent by it last and when anything authentic came from the
        peer by any link (0.0 never), packets in, their bytes, packets out, their bytes, all since set_path() first
        named this address, and whether it is quiet."""

    def open_stun(self, fd: int, other: tuple[bytes, int] | None = None) -> int:
        """Answer STUN Binding requests on this bound UDP socket (RFC 8489), in one of the workers. Owned by the engine
        only once open_stun() returned. At most 10 a second of each source, a /32 or /64, with 20 saved up, and 20,000
        of all.

        Args:
            other: address (of the socket's family, or IPv4 on one of both) and port that answers name as OTHER-ADDRESS
                (RFC 5780).

        Returns:
            its number, for close_link(); an engine has up to 4, beside its connections.

        Raises:
            OSError: the socket can't be used; ENFILE when there are 4.
        """

class _OldLinks(_Links):
    """Direct links of a device with original clients, by the links that _Links opens: under keys that are their
    recipients', in datagrams of at most 1,500 bytes (docs/protocol.md, "With the original's clients"). Raises as
    _Sealing, and ValueError for a link or an address that is not the device's."""

    def set_old_key(self, tun: int, own: int, key: bytes = b"", *, sealed: int = 0) -> None:
        """Open what original clients send under this key of 32 bytes, from here on; empty: nothing. Links let through
        what needs it.

        Args:
            own: the device's address, as set_sealing() has it.
            sealed: how many datagrams count as sealed before, where a key is given: see old_sealed().

        Raises:
            ValueError: a key of another length.
        """

    def set_old_path(self, tun: int, peer: int, link: int, address: bytes, port: int, key: bytes, longest: int) -> None:
        """Packets in the clear for this peer, of at most `longest` bytes (1,471 at most) or cut to packets of such,
        leave by this link to this address under the peer's key from now on, unless set_peer() says that it seals, or
        is not there; and from this address alone are packets of that peer taken. With `longest` 0 none leaves so, until
        the path is proven: an answer came from there.

        Raises:
            MemoryError: there are too many peers.
        """

    def clear_old_path(self, tun: int, peer: int) -> bool:
        """Packets for this peer go by the relay from here on, and none of it is taken from elsewhere. False: so it
        was."""

    def set_old_hops(self, tun: int, peer: int, hops: Sequence[int]) -> None:
        """Packets for this peer go to the first of these others by its path, where there is none to itself; and by each
        of them its packets are taken. None: by nobody. A peer that is forgotten has none.

        Raises:
            MemoryError: there are too many peers.
            ValueError: these are more than 4, or no others.
        """

    def resend_old(self, tun: int, resends: bool) -> None:
        """Send on what one original client has for another, or do not: from the path of the one to the path of the
        other, and nothing else."""

    def old_resent(self, tun: int) -> int:
        """Packets that were sent on."""

    def send_old(self, tun: int, link: int, address: bytes, port: int, key: bytes, content: bytes) -> bool:
        """Send a message of up to 64 bytes under a peer's key. False: the kernel refused, or old_sealed() is at its
        bound."""

    def old_sealed(self, tun: int) -> int:
        """Datagrams that were sealed for original clients, each under a random IV, with those that set_old_key() was
        given: up to 2**32, beyond which nothing is sent by such links, and paths are quiet (EVENT_QUIET)."""

    def old_paths(self, tun: int) -> list[tuple[int, float, float, int, int, int, int, bool]]:
        """Each of their paths, as paths() has them."""

class Engine(_OldLinks):
    """Worker threads that carry WebSocket frames between connections and TUN devices.

    Args:
        workers: threads, 1 to 64.
        queue_bytes: most bytes waiting for one receiver; past that the oldest are dropped.
        memory_bytes: most bytes in all queues and incomplete frames together.
        max_connections: slots, TUN devices included.
        max_guests: slots for connections that come with TLS and are not upgraded yet, beside those.
        max_trunks: slots for links to other relays, beside both.
        ping_after: seconds without a byte from a peer after which it is pinged; 0 never.
        dead_after: seconds without a byte from a peer after which it is given up (cause "silent"); 0 never.
        ping_when_quiet: ping also when nothing was *sent* for ping_after seconds (clients).
        broadcast_rate: copies of broadcast packets a second that one member may cause, and as many times 1,514 bytes. A
            packet passes while something of that is left, to however many members, and its sender waits afterwards.
        tls_deadline: seconds from adopt() to the end of a TLS handshake, after which the connection is closed (cause
            "handshake_timeout").
        first_generation: for tests: of a slot when it is used for the first time, 1 to 2³² - 1.

    Raises:
        ValueError: an argument is out of range.
        OSError: the kernel refused a thread, an epoll or the memory.
    """

    def __new__(
        cls,
        workers: int = 1,
        *,
        queue_bytes: int = 4194304,
        memory_bytes: int = 268435456,
        max_connections: int = 65536,
        ping_after: float = 15.0,
        dead_after: float = 45.0,
        ping_when_quiet: bool = False,
        broadcast_rate: int = 20000,
        tls_deadline: float = 5.0,
        max_guests: int = 0,
        max_trunks: int = 64,
        first_generation: int = 1,
    ) -> Self: ...
    def fileno(self) -> int:
        """An eventfd, readable while events() has something to give."""

    def add_network(
        self, broadcast: int = 0xFFFFFFFF, *, forward_broadcast: bool = True, check_source: bool = True
    ) -> int:
        """Make an empty network (a route table of its own) and return its number, the lowest that is free, from 0.

        Args:
            broadcast: the network's own broadcast address, beside 255.255.255.255.
            forward_broadcast: copy broadcast and multicast packets to all other members; else they are dropped.
            check_source: drop packets whose source is neither their sender's address nor, by set_rules(), behind it,
                and those in an outer header whose inner addresses are not such.
        """

    def set_broadcast(self, network: int, broadcast: int) -> None:
        """Give a network another broadcast address of its own.

        Raises:
            ValueError: there is no such network.
        """

    def remove_network(self, network: int) -> None:
        """Let no connection join the network any more. Those in it go on until they end, each by close(); with the last
        EVENT_CLOSED the network is gone, and its number free. A device stays, and with it its network.

        Raises:
            ValueError: there is no such network.
        """

    def adopt(
        self,
        fd: int,
        *,
        network: int = 0,
        extended: int = 0,
        client: bool = False,
        trunk: bool = False,
        preamble: bytes = b"",
        tail: bytes = b"",
        ping_after: float | None = None,
        dead_after: float | None = None,
        tls: TlsContext | None = None,
    ) -> int:
        """Take over a connected stream socket behind its WebSocket upgrade; the engine closes fd from here on.

        Args:
            fd: a stream socket (TCP, or one end of a socketpair). Owned by the engine only once adopt() returned.
            network: number from add_network().
            extended: 1, the peer agreed to candy.2: a plain byte stream, payloads up to MAX_PAYLOAD; CANDY3, it agreed
                to candy.3, which contains that: payloads up to CANDY3_PAYLOAD, masks that pass through. At 0 every
                frame is a TCP segment of its own and carries at most LEGACY_PAYLOAD bytes.
            client: this end is the WebSocket client: frames are masked outwards and must be unmasked inwards.
            trunk: a link to another relay of the cluster, in no network, where neither end masks; `network` and
                `extended` do not matter. It carries messages for Python (CONTROL), and nothing else before agree().
            preamble: bytes to write first (the 101 response).
            tail: bytes already read from the peer behind the upgrade.
            ping_after: as of the engine, for this connection; None: the engine's.
            dead_after: likewise. The kernel, too, ends the connection when what was sent stays without an answer for so
                long; None: for 45 s.
            tls: make a handshake first; frames begin right behind it. Without a tail.

        Returns:
            the connection.

        Raises:
            OSError: the socket can't be used; ENFILE when every slot is taken, of a trunk those for trunks.
            ValueError: there is no such network, no such `extended`, ping_after or dead_after is out of range, the tail
                is longer than any upgrade leaves (512 KB), or the context is for the other side.
        """

    def begin_tls(self, fd: int, *, tls: TlsContext, client: bool = False, deadline: float | None = None) -> int:
        """Make a TLS handshake on a connected stream socket, with HTTP next: a *guest* until upgrade(). It is in no
        network, and of all else that can be asked of a connection there is only close() for it.

        Args:
            fd: as of adopt().
            deadline: seconds for the handshake; None: the engine's.

        Returns:
            the connection. EVENT_SECURED follows, or EVENT_CLOSED.

        Raises:
            OSError: the socket can't be used; EUSERS when there are as many guests as may be.
            ValueError: the context is for the other side.
        """

    def open_http(self, connection: int, fd: int) -> bool:
        """Pass plaintext between a guest and this socket: of a server's each request, up to and with the empty line
        behind its head, and of a client's the response likewise if it is a 101, else all. What follows a head waits for
        pass_http() or upgrade(), because what is in a socket can't be taken back. An end of either side ends the other.

        Args:
            fd: one end of a socketpair, a stream. Owned by the engine only once True was returned.

        Returns:
            False: the guest is gone, or has one.
        """

    def pass_http(self, connection: int) -> bool:
        """The head that a guest has sent is of no upgrade: what follows may pass, as far as the next empty line."""

    def upgrade(
        self,
        connection: int,
        *,
        network: int = 0,
        extended: int = 0,
        trunk: bool = False,
        preamble: bytes = b"",
        ping_after: float | None = None,
        dead_after: float | None = None,
    ) -> bool:
        """Frames come next, behind what was written to a guest's socket and behind the preamble: a guest no more.

        Args:
            network, extended, trunk, preamble, ping_after, dead_after: as of adopt().

        Returns:
            False: the guest is gone; EVENT_CLOSED tells why.

        Raises:
            OSError: ENFILE when every slot is taken, of a trunk those for trunks; the guest stays one.
            ValueError: as adopt().
        """

    def adopt_tun(self, fd: int, *, network: int = 0, vnet: bool = False) -> int:
        """Carry packets of a TUN device (IFF_TUN | IFF_NO_PI), or of a packet-preserving socket.

        Args:
            fd: stays the caller's: the engine uses a duplicate, until stop().
            network: number from add_network().
            vnet: each packet has a little-endian virtio header of 10 bytes (IFF_VNET_HDR, TUNSETVNETLE).
        """

    def join(self, connection: int, tun: int) -> bool:
        """Send everything from the connection to the TUN device and everything from the device to the connection,
        without source check and route table (a client)."""

    def bind(self, connection: int, ip: int, *, takes_sealed: bool = True, circle: int = 1) -> bool:
        """Authenticate a member: map ip to it in its network's route table, replacing its holder.

        Args:
            takes_sealed: with candy.3, it takes what is sealed; False where its user has said `seal = "off"`.
            circle: members that have the same may tell each other their endpoints (UDP4CONN, GENERAL 0); 0: it tells
                nobody, and is told none.
        """

    def unbind(self, connection: int) -> bool:
        """Take the member's address away; its packets are dropped from here on."""

    def agree(self, connection: int, relay: int, networks: Sequence[int]) -> bool:
        """Say to which relay a trunk leads, and of which networks it carries packets: from here on what comes by it is
        taken. Before, the other relay's packets are dropped.

        Args:
            relay: from 0 to 255, whatever number this relay has given that one.
            networks: numbers from add_network(), in the order on which both relays have agreed. None is gone before the
                trunk has ended.

        Returns:
            False: there is no such trunk.

        Raises:
            ValueError: there is no such network, or it is named twice; the relay's number is out of range; or this was
                said before.
        """

    def open_trunk(self, connection: int) -> bool:
        """The other relay takes what comes by a trunk: packets leave by it from here on. Those for a group go to each
        relay that serves their network.

        Returns:
            False: there is no such trunk, or its relays have not agreed.

        Raises:
            ValueError: there are 8 trunks to this relay.
        """

    def lead(self, network: int, ip: int, relay: int) -> None:
        """Map an address to the relay that has it, replacing its holder: what is for it leaves by a trunk to that
        relay, and by trunks nobody else is believed who sends from it.

        Raises:
            ValueError: there is no such network, the address is 0, or the relay's number is out of range.
        """

    def unlead(self, network: int, ip: int, relay: int) -> bool:
        """Take that back; False: the address is another's, or nobody's."""

    def set_rules(self, network: int, rules: Sequence[tuple[int, int, int, int, int]]) -> None:
        """Say what lies behind which members, instead of what was said before. A member may send from there, and wrap
        for another what lies behind that one for it; all else that is wrapped is dropped where it passes the relay, and
        where a device unwraps it. A member without rules leaves that to its relay.

        Args:
            network: number from add_network().
            rules: (destination, mask, next hop, device, its mask) each: the destination lies behind the member `next
                hop`, for members within `device`.

        Raises:
            ValueError: there is no such network.
        """

    def set_limits(self, connection: int, *, down: int = 0, up: int = 0) -> bool:
        """Say how many bytes a second of packets a member is sent (`down`) and are read of it (`up`), without what is
        around them; 0: as many as ever. It goes for what comes from now on, and lasts as long as the connection.
        Messages and control frames to it do not wait. False: there is no such connection, or it is a device."""

    def set_network_limits(self, network: int, *, down: int = 0, up: int = 0) -> None:
        """The same for all members of a network together, those that join later included. A member has the lower one of
        its own limit and what the others leave of this. Traffic of a device is counted at its other end alone.

        Raises:
            ValueError: there is no such network.
        """

    def set_routes(self, tun: int, address: int, routes: Sequence[tuple[int, int, int]]) -> bool:
        """Wrap what a TUN device sends, and unwrap what it is sent, in IPIP (a client's SD-WAN).

        Args:
            tun: from adopt_tun().
            address: the device's own: source of the outer header; wrapped packets for it are unwrapped.
            routes: (destination, mask, next hop) each, the first match counts, next hop 0 for directly; they replace
                those set before.
        """

    def send(self, connection: int, message: bytes) -> bool:
        """Queue one binary message (at most LEGACY_PAYLOAD bytes) ahead of packets; False if it is gone or full."""

    def ping(self, connection: int, payload: bytes = b"") -> bool:
        """Queue a PING with at most 125 bytes; a non-empty payload comes back as EVENT_PONG."""

    def close(self, connection: int, code: int | None = None, reason: str = "") -> bool:
        """End a connection: with a close frame and a short wait for the peer's, or, code None, at once and without a
        word. EVENT_CLOSED follows (cause "local")."""

    def events(self) -> list[tuple[int, int, bytes]]:
        """All that happened since the last call: (connection, EVENT_*, detail), in order per connection."""

    def received_ns(self, connection: int) -> int | None:
        """CLOCK_MONOTONIC nanoseconds of the last byte from the peer; None when it is gone."""

    def stats(self) -> dict[str, int]:
        """Totals over all workers: packets_in, bytes_in, packets_out, bytes_out, receives, sends, copies (of broadcast
        packets), connections, guests, queued_bytes (memory of all queues and incomplete frames), held_down and held_up
        (how often a backlog, and a source, had to wait for a limit)."""

    def drops(self) -> dict[str, int]:
        """Packets and messages not delivered, by reason; every name in DROPS is there."""

    def connection_stats(self, connection: int) -> dict[str, int] | None:
        """The same for one member: packets_in, bytes_in, packets_out, bytes_out, sends, drops, queued_bytes, held_down
        and held_up as in members(), and queue_age_ns, how long the oldest packet has waited. Of one whose EVENT_CLOSED
        was given, what it came to, until its slot is another's; else None."""

    def members(self) -> bytes:
        """The counters of all that have an address, without a lock; a row by MEMBER_FORMAT each: connection,
        packets_in, bytes_in, packets_out, bytes_out, drops, queued_bytes, queue_delay_ns, held_down, held_up. Packed,
        because there may be many: as objects they take five times the room, and longer.

        queue_delay_ns: while packets wait, how long the one that left last had waited, and the time since then.
        held_down, held_up: 1, within the last second something had to wait for this limit.
        """

    def round_trip_us(self, connection: int) -> int | None:
        """The kernel's smoothed round-trip time of a connection (TCP_INFO), microseconds; None where it is not TCP, or
        not known yet."""

    def delays(self) -> tuple[list[int], int]:
        """How long packets had waited that left a queue: how many of them by DELAY_BOUNDS_S, and the sum, nanoseconds.
        A packet that need not wait is in neither."""

    def connection_drops(self, connection: int) -> dict[str, int] | None:
        """What one member sent, and what was for it, that was not delivered: by reason, as in drops()."""

    def capture(
        self,
        connection: int,
        *,
        ring_bytes: int = 4194304,
        snap: int = 65535,
        drops_only: bool = False,
        clock_ns: int = 0,
    ) -> int | None:
        """Copy the packets that a member sends, as they come, and those for it, as they leave; and what of either is
        dropped. Until end_capture(), or the member's end.

        Args:
            ring_bytes: of copies that were not read yet, from 4096 to 1 GiB; no more memory than that, and 20 KiB, is
                taken. What finds no room is lost.
            snap: bytes of a packet that are kept, from 64 to 65,535.
            drops_only: only what is dropped.
            clock_ns: what the time of day is ahead of CLOCK_MONOTONIC, nanoseconds.

        Returns:
            The capture's number; None: there is no such connection, or it is a device.

        Raises:
            ValueError: an argument is out of bounds, the connection is being captured, or there are CAPTURE_MOST
                captures.
        """

    def read_capture(self, number: int) -> bytes:
        """What was captured and not read, at most CAPTURE_READ bytes: Enhanced Packet Blocks of pcapng in this
        machine's order of bytes, for interface 0, of LINKTYPE_RAW, with times in nanoseconds. The last block may be cut
        where there are that many; the next read goes on.

        Raises:
            ValueError: no such capture.
        """

    def capture_stats(self, number: int) -> tuple[int, int, bool]:
        """Packets captured, packets lost, and whether the member has left.

        Raises:
            ValueError: no such capture.
        """

    def end_capture(self, number: int) -> None:
        """Copy no more, and forget what was not read.

        Raises:
            ValueError: no such capture.
        """

    def worker_cpu_ns(self) -> list[int]:
        """CPU time used by each worker thread, nanoseconds (CLOCK_THREAD_CPUTIME_ID)."""

    def worker_rounds(self) -> list[int]:
        """How often each worker thread has come round, the thread of handshakes last once there is one. One that has
        nothing to do comes round once a second; one whose number stays is stuck."""

    def stop(self) -> None:
        """Close every descriptor, end the threads and free everything. Idempotent. What is asked of a connection then
        is False or None, events() is empty, and anything else raises RuntimeError."""

@disjoint_base
class SealLayer:
    """Sealed packets of one key over bytes in memory, for tests and fuzzing: the same functions that the workers run.

    Args:
        cipher: 1 AES-256-GCM, 2 ChaCha20-Poly1305.
        key: 32 bytes.
        own: with the processor's own instructions, where there are some for this cipher; else with OpenSSL.
    """

    def __new__(cls, cipher: int, key: bytes, *, own: bool = True) -> Self: ...
    def seal(self, header: bytes, plain: bytes, mask: int = 0, *, apart: bool = False) -> bytes:
        """A SEALED's payload with these 24 clear bytes, masked (a little-endian number); `apart`: sealed into other
        memory."""

    def open(self, payload: bytes, mask: int = 0) -> bytes | None:
        """What is within; None when it is not authentic."""

@disjoint_base
class ReplayWindow:
    """Which counters have come, for tests: the same functions that the workers run.

    Args:
        packets: that it has, a power of two, 64 at least.
        room: there is memory for its bits.

    Raises:
        ValueError: another number of packets.
    """

    def __new__(cls, packets: int = 65536, *, room: bool = True) -> Self: ...
    def take(self, number: int) -> bool:
        """Whether this counter may come; then it has."""

    @property
    def has_bits(self) -> bool:
        """Whether not all came in order."""

def set_counter(engine: Engine, tun: int, local: int, number: int) -> None:
    """For tests: have a session go on with this counter."""

def set_carried(engine: Engine, tun: int, local: int, *, bytes_sent: int = 0, failures: int = 0) -> None:
    """For tests: have a session have sent so many bytes, and refused to open so many packets."""

def age_waiting(engine: Engine, tun: int, seconds: float) -> None:
    """For tests: have everything that waits for sessions have come so much earlier."""

def set_link_counter(engine: Engine, tun: int, local: int, number: int) -> None:
    """For tests: have a session's links go on with this counter."""

def age_stranded(engine: Engine, tun: int, peer: int, seconds: float) -> None:
    """For tests: Python was told so much earlier that a packet for a peer has no way."""

def set_pending(engine: Engine, tun: int, number: int) -> None:
    """For tests: so many of a device's events wait for Python. It may have 16,384 there."""

def set_old_sealed(engine: Engine, tun: int, number: int) -> None:
    """For tests: so many datagrams were sealed for original clients."""

def age_path(engine: Engine, tun: int, peer: int, seconds: float) -> None:
    """For tests: have everything that a path remembers have been so much earlier."""

def set_group_counter(engine: Engine, tun: int, number: int, carried: int) -> None:
    """For tests: have the device's own epoch go on with this counter, as if so many bytes were sealed under it."""

def waiting_bytes_of(engine: Engine, tun: int) -> int:
    """For tests: bytes of packets that wait for sessions, virtio headers included."""

@disjoint_base
class FrameParser:
    """The engine's frame parser over bytes in memory, for tests and fuzzing: the same functions that the workers run.

    Args:
        client: parse what a client receives (unmasked frames) instead of what a server receives.
        candy3: of a peer that agreed to candy.3.
    """

    def __new__(cls, *, client: bool = False, candy3: bool = False) -> Self: ...
    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Frames completed by these bytes as (opcode, unmasked payload), fragments assembled. After an error nothing
        more is returned."""

    @property
    def error(self) -> int:
        """0, or the close code that the bytes deserve (1002, 1009)."""

@disjoint_base
class RecordLayer:
    """TLS records of one end over bytes in memory, for tests and fuzzing: the same functions that the workers run.

    Args:
        cipher: "AES-128-GCM", "AES-256-GCM" or "CHACHA20-POLY1305".
        secret: of the peer's records; with TLS 1.2 the master secret, 48 bytes.
        own: of this end's; with TLS 1.2 the server's random and the client's, 64 bytes.
        client: TLS 1.2: which end this is.
    """

    sealed: int
    """Records sealed with the keys at hand."""

    def __new__(cls, cipher: str, secret: bytes, own: bytes, *, tls12: bool = False, client: bool = False) -> Self: ...
    def seal(self, content: bytes, kind: int = 23) -> bytes:
        """One record, and a KeyUpdate before it where one is due."""

    def open(self, records: bytes) -> list[tuple[int, bytes]]:
        """Kind and content of each whole record.

        Raises:
            ValueError: the number of the alert that they deserve; the records before are lost.
        """

    def hear(self, content: bytes, *, client: bool = False) -> bool:
        """Follow the messages in a record of the peer's handshakes; whether no message is incomplete.

        Raises:
            ValueError: as open().
        """

def segment(vnet: bytes, packet: bytes) -> list[bytes]:
    """For tests and fuzzing: the packets that a super-packet stands for, as a peer without candy.2 gets them.

    Args:
        vnet: its virtio header, 10 bytes, little-endian.
        packet: IPv4.

    Raises:
        ValueError: the packet is not what its virtio header claims: it would be dropped as "bad_super".
    """

def cut(vnet: bytes, packet: bytes, n: int) -> list[bytes]:
    """For tests and fuzzing: the same as several super-packets of n packets each, as they are sent over a slow link.

    Returns:
        Virtio header and packet of each.

    Raises:
        ValueError: as segment(), or it is but one packet.
    """

def write_device(
    payloads: list[bytes], *, vnet: bool = True, own: int = 0, rules: Sequence[tuple[int, int, int, int, int]] = ()
) -> tuple[list[bytes], dict[str, int]]:
    """For tests and fuzzing: what a batch of FORWARDs and SUPERs becomes at a TUN device.

    Args:
        payloads: of the frames, kind byte first; a FORWARD has at least 21 bytes, a SUPER 31.
        vnet: the device has virtio headers: packets are coalesced, and each write begins with such a header.
        own: the device's address if it unwraps IPIP, else 0.
        rules: as of Engine.set_rules().

    Returns:
        each write, and the drops by reason.
    """

@disjoint_base
class TokenBucket:
    """For tests: the bucket of a limit, without a clock.

    Args:
        rate: bytes a second; 0: no limit.
    """

    def __new__(cls, rate: int) -> Self: ...
    def take(self, size: int, now: int) -> int:
        """Let so many bytes pass at `now`, nanoseconds; when they will be paid for, 0 without a limit."""

    def give(self, size: int) -> None:
        """Have so many of these bytes count for nothing."""

@disjoint_base
class Limited:
    """For tests: one direction of a member.

    Args:
        rate: its own limit, bytes a second; 0: none.
        shared: its network's.
    """

    def __new__(cls, rate: int, shared: TokenBucket) -> Self: ...

    held: int
    """How often something had to wait."""
    @property
    def piece(self) -> int:
        """Bytes that pass at a time."""

    def dropped(self, now: int) -> None:
        """Say at `now`, nanoseconds, that the kernel had no room for a segment of it."""

    def passes(self, size: int, now: int) -> bool:
        """Let so many bytes pass at `now`, nanoseconds; False: what passed before is not paid for yet."""

@disjoint_base
class Backlog:
    """For tests: the queue of one destination, whose clock the test sets. It has all the memory that it may want.

    Args:
        key: of the flow hash, three words of 64 bits.
        masked: frames wait as a client sends them.
    """

    def __new__(cls, *, key: tuple[int, int, int], masked: bool = False) -> Self: ...

    rate: int
    """The destination's drain rate, bytes a second; 0 unknown."""
    def limit(self, own: int, shared: int = 0) -> None:
        """Send it no more bytes a second than this, and all members of its network together; 0: any number."""

    @property
    def drops(self) -> dict[str, int]:
        """What was dropped so far, by reason."""

    @property
    def places(self) -> dict[int, int]:
        """Bytes that wait, by sub-queue: eight of them in a row are a set, and behind the last is the crowd."""

    @property
    def memory(self) -> int:
        """Bytes of memory that it takes."""

    def append(self, payload: bytes, now: int) -> None:
        """Queue a frame.

        Args:
            payload: kind byte first.
            now: nanoseconds, above 0.

        Raises:
            ValueError: it has no byte, or too many for a frame.
        """

    def take(self, now: int) -> bytes | None:
        """The payload of the frame with a flow that is sent next; None when none waits."""

    def commit(self, now: int) -> list[bytes]:
        """The payloads of those that are handed to the kernel next, together."""

    def shed(self, limit: int) -> None:
        """Drop from the fattest flow until at most so many bytes wait."""

def flow_key(engine: Engine) -> tuple[int, int, int]:
    """For tests: the key of an engine's flow hash."""

def replaced_tables(engine: Engine) -> int:
    """For tests: how many tables were replaced that a worker may still read."""

def kept_networks(engine: Engine) -> int:
    """For tests: how many networks have memory."""

POINTS: Final[tuple[str, ...]]
"""For tests: where a thread can be held (docs/architecture.md)."""
HAS_POINTS: Final[bool]
"""Whether this build can: all but the fast one."""

def capture_afforded(moments: Iterable[int], size: int) -> list[bool]:
    """For tests: at which of these moments, nanoseconds, a worker has time to capture a packet of so many bytes."""

def hold_at(point: str) -> None:
    """For tests: hold the next thread that reaches this point, for a minute at most.

    Raises:
        RuntimeError: this build of the engine has no points.
    """

def wait_held(point: str, seconds: float = 20.0) -> bool:
    """For tests: wait until a thread is held at this point; False if none was in this time.

    Raises:
        RuntimeError: as hold_at().
    """

def release(point: str) -> None:
    """For tests: let go on who is held at this point, and hold nobody there any more.

    Raises:
        RuntimeError: as hold_at().
    """
