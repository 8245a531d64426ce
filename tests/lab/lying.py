"""A candy-server that lies about its members: `python lying.py FILE …candy-server's arguments…`.

FILE holds JSON, from an address to what members are told of it: the key of another device, or that it does not seal
(null). It is read whenever somebody is told; without a file the relay tells the truth. Nothing else is changed.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from candy.cli.server import main
from candy.protocol.control import Peer, State
from candy.relay.telling import Telling


def lie(file: Path) -> None:
    truth: Any = Telling._peer

    def told(telling: Telling, address: int, is_asked: bool) -> Peer:
        peer: Peer = truth(telling, address, is_asked)
        lies = json.loads(file.read_text()) if file.exists() else {}
        if peer.state is not State.SEALS or str(peer.address) not in lies:
            return peer
        key = lies[str(peer.address)]
        if key is None:
            return Peer(peer.address, State.CLEAR, peer.flags & Peer.UNASKED, peer.lease)
        return replace(peer, key=bytes.fromhex(key))

    Telling._peer = told  # type: ignore[assignment,method-assign]


if __name__ == "__main__":
    lie(Path(sys.argv.pop(1)))
    main()
