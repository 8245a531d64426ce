"""What a log-in gave a member, and what it is in any network: from both come the parties of handshakes and groups."""

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final

from candy.protocol.handshake import ALL_CIPHERS
from candy.protocol.keys import of_pair
from candy.protocol.login import Asks
from candy.protocol.noise import KEY_BYTES, KeyPair, Primitives
from candy.sealing.agreement import Party
from candy.sealing.groups import Membership

_NO_PSK: Final = bytes(KEY_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """What this member is, whatever the network."""

    device: KeyPair
    flags: Asks
    """As in its log-in."""
    commit_bytes: int
    """The longest packet that it wants in one piece."""
    primitives: Primitives
    key_pair: Callable[[bytes], KeyPair]
    """Of X25519, from 32 random bytes."""
    randbytes: Callable[[int], bytes]
    ciphers: int = ALL_CIPHERS
    """Bits, of candy.protocol.handshake."""
    prefix: int = 0
    """The upper 16 bits of its session numbers, by which a link's socket knows them; 0: any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What the log-in gave."""

    connection: int
    """The engine's number."""
    address: IPv4Address
    lease: bytes
    network: bytes
    """The network's key."""
    secret: bytes | None = field(repr=False)
    """Of --secret, 32 bytes; a text is one under a network's key (candy.protocol.secret)."""
    checks_source: bool = True
    """Flag 2 of payload 2 is not set."""

    def party(self, own: Own) -> Party:
        """In handshakes."""
        return Party(
            device=own.device,
            address=self.address,
            network=self.network,
            psk=_NO_PSK if self.secret is None else of_pair(self.secret, self.network),
            flags=own.flags,
            commit_bytes=own.commit_bytes,
            ciphers=own.ciphers,
            primitives=own.primitives,
            key_pair=own.key_pair,
        )

    def membership(self, own: Own) -> Membership | None:
        """In groups; None without a secret."""
        if self.secret is None:
            return None
        return Membership(secret=self.secret, network=self.network, address=self.address, key=own.device.public)
