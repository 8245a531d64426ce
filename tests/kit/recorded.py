"""A log-in of the original's client at the original's server, as it was recorded, from vectors.json."""

import json
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

_VECTORS = json.loads((Path(__file__).parent / "vectors.json").read_text())
STEPS: list[dict[str, Any]] = _VECTORS["transcript"]
"""In order: VMAC, the request for an address, its answer, AUTH, PING."""
MESSAGES = [step for step in STEPS if step["opcode"] == 2]
COMPUTED: list[dict[str, Any]] = [entry for entry in _VECTORS["computed"] if entry["kind"] == "AUTH"]
"""AUTHs that were not recorded."""
PASSWORD: bytes = _VECTORS["password"].encode()
VMAC: bytes = STEPS[0]["vmac"].encode()
WALL: int = STEPS[0]["timestamp"]
"""When it was, in seconds since 1970."""
GRANTED = IPv4Interface(STEPS[2]["cidr"])
