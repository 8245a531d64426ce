"""What lies behind members, and for whom, as a relay with candy.2 tells a gateway on one connection.

    received() … ─▶ told: that of the last whole set

Rules:
 1. The messages from a first to a last one are a set. Complete, it replaces what was told before; an empty one takes it
    back, and then the gateway leaves the check of what is wrapped for it to the relay again.
 2. A set that is incomplete, or of which a message can't be used, changes nothing.
 3. Nothing of it outlives its connection: the next relay may be an older one, which tells nothing.

This module does not know what is made of it.
"""

from candy.errors import WireError
from candy.member.routeset import MAX_ROUTES
from candy.protocol.wire import Behind, DropReason, Placement


class Placements:
    """All that the relay told, and what of a set has come."""

    def __init__(self) -> None:
        self.told: tuple[Placement, ...] = ()
        """In force; none: nothing was told."""
        self._coming: tuple[Placement, ...] | None = None
        """A set whose last message has not come yet."""

    def received(self, message: Behind) -> bool:
        """A BEHIND of this connection; whether it completes a set.

        Raises:
            WireError: it can't be used, nor can the set that it is part of.
        """
        coming = () if message.flags & Behind.FIRST else self._coming
        self._coming = None
        if coming is None:
            raise WireError(DropReason.OUTSIDE_SET)
        coming += message.placements
        if len(coming) > MAX_ROUTES:
            raise WireError(DropReason.TOO_MANY_ROUTES)
        if not message.flags & Behind.LAST:
            self._coming = coming
            return False
        self.told = coming
        return True

    def abandon(self) -> None:
        """A BEHIND could not be read: the set that it was part of is incomplete."""
        self._coming = None
