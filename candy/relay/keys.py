"""A network's keys on the relay: the network's, which signs, and the relay's, by which members log in.

    keys/PATH/network.key     Ed25519 seed, 32 bytes; for `rotate` and for another relay alone
    keys/PATH/relay.key       private key 32, Candy-Key 138, then the Candy-Successions
    keys/PATH/device.key      private key of the relay's own interface, 32
    keys/PATH/handshake       the times of that interface's handshakes (candy.sealing.stamps)

PATH is the network's, percent-encoded.

Rules:
 1. Made once, at the first start. A file that is damaged, or that others can read, ends the start
    (candy.host.keyfiles); a network.key that is kept elsewhere is missed by `rotate` alone.
 2. What is new is written before it is told to anybody.
 3. A generation is the time, but more than the one before.
 4. Relays of a cluster have different numbers, by their names: members count each one's generations. A key that was
    made when the relay was alone, or had another name, has another number, and is replaced.
"""

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Final
from urllib.parse import quote

from candy.errors import OperationalError, RequestError
from candy.host import keyfiles
from candy.primitives import key_pair, sign, signing_public, verify
from candy.protocol.keys import SUCCESSIONS_MAX, RelayKey, Succession, decode_successions, encode_successions
from candy.protocol.noise import KEY_BYTES, KeyPair
from candy.relay.login import RelayKeyPair

_HEAD_BYTES = KEY_BYTES + RelayKey.BYTES
_SEED = "network.key"
_NEXT = "network.key.next"
"""What is to replace it."""
_LENGTHS = range(_HEAD_BYTES, _HEAD_BYTES + SUCCESSIONS_MAX * Succession.BYTES + 1, Succession.BYTES)

ALONE: Final = 0
"""The number of a relay without others."""
_NUMBERS: Final = (1 << 16) - 1

Draw = Callable[[int], bytes]


def number_of(name: str) -> int:
    """Of the relay of this name in a cluster: from 1 to 65,535."""
    return int.from_bytes(sha256(name.encode()).digest()[:4], "big") % _NUMBERS + 1


class RelayKeys:
    """The keys of one network.

    Args:
        folder: the relay's state folder.
        path: the network's.
        draw: that many random bytes.
    """

    def __init__(self, folder: Path, path: str, draw: Draw) -> None:
        self._folder = folder
        self._keys = folder / "keys" / quote(path, safe="").replace(".", "%2E")
        self._draw = draw

    def current(self, wall: int, number: int | None = None) -> RelayKeyPair:
        """The keys in use, made at the first call.

        Args:
            wall: Unix seconds.
            number: the relay's, by rule 4; None: whatever it has, and ALONE if it has none yet.

        Raises:
            OperationalError: a file is damaged, or what signs is not there.
        """
        current = self._current(wall, ALONE if number is None else number)
        if number is None or current.key.number == number:
            return current
        try:
            seed = self._seed(current)
        except RequestError as error:
            raise OperationalError(f"this relay needs a key with its own number among others: {error}") from None
        return self._keep(self._new(seed, number, max(wall, current.key.generation + 1), current.successions))

    def _current(self, wall: int, number: int) -> RelayKeyPair:
        held = keyfiles.read(self._keys / "relay.key", _LENGTHS, "relay's key")
        if held is None:
            seed = keyfiles.make(self._folder, self._keys / _SEED, KEY_BYTES, "network's key", self._draw)
            return self._keep(self._new(seed, number, wall, ()))
        current = RelayKeyPair(
            key_pair(held[:KEY_BYTES]),
            RelayKey.decode(held[KEY_BYTES:_HEAD_BYTES]),
            decode_successions(held[_HEAD_BYTES:]),
        )
        if current.key.relay != current.pair.public or not current.key.is_signed(verify):
            raise OperationalError(f"{self._keys / 'relay.key'} is damaged: its parts do not fit: put a copy back")
        return current

    def rotate(self, wall: int) -> RelayKeyPair:
        """A new relay's key of the next generation. Raises OperationalError, or RequestError without network.key."""
        before = self.current(wall)
        generation = max(wall, before.key.generation + 1)
        return self._keep(self._new(self._seed(before), before.key.number, generation, before.successions))

    def rotate_network(self, wall: int) -> RelayKeyPair:
        """A new network's key, signed by the old one, and a new relay's key under it. Raises as rotate()."""
        before = self.current(wall)
        old, seed = self._seed(before), self._draw(KEY_BYTES)
        last = before.successions[-1].number if before.successions else 0
        entry = Succession.make(sign, old, before.key.network, signing_public(seed), max(wall, last + 1))
        successions = (*before.successions, entry)[-SUCCESSIONS_MAX:]
        current = self._new(seed, before.key.number, max(wall, before.key.generation + 1), successions)
        # So that whenever this is cut short the seed of the key in use is in one of the two files.
        keyfiles.replace(self._folder, self._keys / _NEXT, seed)
        self._keep(current)
        os.replace(self._keys / _NEXT, self._keys / _SEED)
        return current

    def own_device(self) -> KeyPair:
        """Of the relay's own interface. Raises OperationalError."""
        path = self._keys / "device.key"
        return key_pair(keyfiles.make(self._folder, path, KEY_BYTES, "interface's key", self._draw))

    @property
    def times(self) -> Path:
        """The file of that interface's times."""
        return self._keys / "handshake"

    def _seed(self, current: RelayKeyPair) -> bytes:
        path = self._keys / _SEED
        found = [keyfiles.read(self._keys / name, (KEY_BYTES,), "network's key") for name in (_SEED, _NEXT)]
        for seed in found:
            if seed is not None and signing_public(seed) == current.key.network:
                return seed
        what = "another network's key than the one in use" if found[0] is not None else "not there"
        raise RequestError(f"{path} is {what}, and nothing else can sign a new key: put the right one back")

    def _new(self, seed: bytes, number: int, generation: int, successions: tuple[Succession, ...]) -> RelayKeyPair:
        pair = key_pair(self._draw(KEY_BYTES))
        key = RelayKey.make(sign, seed, signing_public(seed), pair.public, number, generation)
        return RelayKeyPair(pair, key, successions)

    def _keep(self, current: RelayKeyPair) -> RelayKeyPair:
        content = current.pair.private + current.key.encode() + encode_successions(current.successions)
        keyfiles.replace(self._folder, self._keys / "relay.key", content)
        return current
