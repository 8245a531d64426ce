"""The other end of a session that a test plays by hand: it answers a member's handshake, opens and seals.

Counterpart(key, …) ── answer(message 1) ─▶ message 2 ── opened(SEALED) ─▶ Sealed, sealed(packet) ─▶ SEALED
"""

import os
from ipaddress import IPv4Address

from kit.primitives import PRIMITIVES, pair
from kit.sealing import Sealed, of_packet, opened

from candy.protocol.handshake import Message
from candy.protocol.login import Asks
from candy.protocol.noise import KeyPair
from candy.sealing import agreement
from candy.sealing.joined import Joined, Own

SESSION = 7
"""What it calls its end."""


class Counterpart:
    """See above.

    Args:
        key: its device's.
        network: the network's key.
    """

    def __init__(
        self, key: KeyPair, address: IPv4Address, lease: bytes, network: bytes, *, flags: Asks = Asks.HAS_AES
    ) -> None:
        own = Own(
            device=key,
            flags=flags,
            commit_bytes=65535,
            primitives=PRIMITIVES,
            key_pair=pair,
            randbytes=os.urandom,
        )
        self._party = Joined(connection=0, address=address, lease=lease, network=network, secret=None).party(own)
        self._agreed: agreement.Agreed
        self._peer: IPv4Address
        self._counter = 0

    def answer(self, first: bytes) -> bytes:
        """Message 2, whatever becomes of it."""
        message = Message.decode(first)
        heard = agreement.heard(self._party, message, os.urandom(32), None)
        second, self._agreed = agreement.answered(self._party, heard, SESSION)
        self._peer = message.source
        return second.encode()

    def opened(self, payload: bytes) -> Sealed:
        """What the member has sealed, taken out of its mask."""
        sealed = opened(self._agreed.receives, payload, self._agreed.cipher)
        assert sealed is not None
        assert sealed.session == SESSION
        return sealed

    def sealed(self, packet: bytes) -> bytes:
        """A packet for the member, with the next counter."""
        number, self._counter = self._counter, self._counter + 1
        own, peer = int(self._party.address), int(self._peer)
        return of_packet(packet, own, peer, self._agreed.remote, number).seal(self._agreed.sends, self._agreed.cipher)
