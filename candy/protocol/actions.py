"""What a side decides, for its adapter to carry out: the actions that relay and member share.

    Session, Network ─┐                            ┌─▶ engine   Send, Ping, Secure, Close
                      ├─▶ list[Action] ─▶ adapter ─┼─▶ counter  Drop
    Conversation ─────┘                            └─▶ log      Log

Rules: an adapter carries actions out in the order of the list. An action is a decision that was made: it holds all
that is needed to carry it out, and nothing is returned for it. What one side alone can ask for (the relay a Bind, the
member a Join) is declared where that side decides: candy.relay.session, candy.member.conversation.

A `connection` is the engine's number.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Send:
    """Send one binary message."""

    connection: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Ping:
    """Send a PING. Its PONG, with the same payload, is reported to the side that asked."""

    connection: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Secure:
    """From here on seal and open the connection's CONTROL messages with these keys. A LOGIN still goes in the clear."""

    connection: int
    sends: bytes = field(repr=False)
    receives: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Close:
    """End the connection; with `code` None without a close frame, so `reason` is not sent."""

    connection: int
    code: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Drop:
    """Count a message that was not acted upon; `reason` is a DropReason, or a name among the engine's DROPS."""

    connection: int
    reason: str


@dataclass(frozen=True, slots=True)
class Log:
    """Write one line to the log."""

    level: Literal["debug", "info", "warning"]
    text: str
    kind: str | None = None
    """Of a line that a peer can cause at will, what it is about: the relay limits lines of one kind and source. None:
    every such line is written."""
    source: str = ""
    """Of such a line, what its peer counts as."""
    at_once: int = 1
    """Of such a line, how many of one kind and source are written in a minute; the others are counted."""
    of_member: bool = False
    """Of such a line, whether it says what a member does; `source` is its device then."""
    about: Mapping[str, str | float] = field(default_factory=dict)
    """Whom and what it is about, by name, for programs that read the log."""
