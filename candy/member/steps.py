"""The steps of an attempt to connect, in their order, and who is told that one begins."""

from collections.abc import Callable
from enum import StrEnum


class Step(StrEnum):
    """One of them."""

    NAME = "name"
    TCP = "TCP"
    PROXY = "proxy"
    TLS = "TLS"
    UPGRADE = "upgrade"


Begin = Callable[[Step, str], None]
"""Is told of a step, and in words what the attempt is at."""
