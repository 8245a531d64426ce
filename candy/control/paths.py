"""What both ends of the control interface go by, and that --help of the commands shows: without any library.

This module does not know which calls there are.
"""

from urllib.parse import quote

VERSION = "/v1"
"""Every path begins with it: see candy.control.calls, rule 1."""
SNAP_LEAST, SNAP_MOST = 64, 65535
"""Of a capture: most bytes of a packet."""
OVER_LEAST_S, OVER_MOST_S = 0.1, 10.0
"""Bounds of the time over which a call may look."""


def quoted(part: str) -> str:
    """A part of a path."""
    return quote(part, safe="", errors="surrogateescape")
