"""What becomes of packets for an address, and of those that come from it in the clear, by what the member knows of it.

    known of it                        a packet for it
    nothing                            waits, the relay is asked
    nobody, away, revoked              is dropped as no_route; one away that has a link is sealed for
    what pins refuse                   is dropped as key_refused
    that it does not seal              goes in the clear; under REQUIRE it is dropped as peer_not_sealing
    that it seals, without a session   waits, the relay is asked once more, and a session begun
    that it seals, with a session      is sealed

Rules:
 1. In the clear is taken what comes from addresses of which nobody says, or has said, that they seal; under REQUIRE
    from none.
 2. With a packet for one that is neither sealed for nor waited for, the relay is asked again once in ASK_S; with one in
    the clear from where none may come, once in ASK_SOON_S. So it is with one for who is away and has a session still,
    which may answer by a direct link (candy.member.links).
 3. What was told on a connection before this one is as nothing, but for a session, and for rule 1. Without a connection
    it goes on to count, for nothing leaves in the clear then but what an old client's direct link takes.

This module changes nothing. `now` is in seconds of CLOCK_BOOTTIME.
"""

from math import inf
from typing import Final

from candy.sealing.directory import LONGEST, Contact, Standing
from candy.sealing.seals import Seal, SetPeer, Way

ASK_S: Final = 60.0
ASK_SOON_S: Final = 5.0
LONGEST_LEAST: Final = 1500
"""Bytes: below it a member goes for nobody."""


def way(contact: Contact, seal: Seal, now: float) -> tuple[Way, int]:
    """The table above; and the local number of the session, for Way.SEAL."""
    sealing = contact.slots.sealing(now)
    match contact.standing:
        case _ if sealing is not None and contact.is_there:
            return Way.SEAL, sealing.local
        case _ if contact.is_stale:
            return Way.WAIT, 0
        case Standing.ABSENT:
            return Way.NO_ROUTE, 0
        case Standing.REFUSED:
            return Way.KEY_REFUSED, 0
        case Standing.CLEAR:
            return (Way.NOT_SEALING if seal is Seal.REQUIRE else Way.CLEAR), 0
        case Standing.SEALS | Standing.UNKNOWN:
            return Way.WAIT, 0


def takes_clear(contact: Contact, seal: Seal) -> bool:
    """Rule 1."""
    return seal is Seal.PREFER and not contact.seals and not any(contact.slots)


def entry(contact: Contact, seal: Seal, now: float) -> tuple[SetPeer, float]:
    """All that the engine is to know of it; and until when that holds, or a session of it."""
    how, local = way(contact, seal, now)
    takes = takes_clear(contact, seal)
    sealing = contact.slots.sealing(now)
    longest = LONGEST if sealing is None else min(LONGEST, sealing.commit_bytes)
    if now < contact.longest_until:
        longest = min(longest, contact.longest)
    wanted_at = inf if how in (Way.WAIT, Way.SEAL) else contact.asked_at + (ASK_S if sealing is None else ASK_SOON_S)
    clear_at = inf if takes else contact.asked_at + ASK_SOON_S
    made = SetPeer(
        contact.address,
        how,
        local,
        takes,
        max(LONGEST_LEAST, longest),
        contact.label_key,
        tells_wanted=now >= wanted_at,
        tells_clear=now >= clear_at,
    )
    changes = [wanted_at, clear_at, contact.longest_until, inf if sealing is None else sealing.sends_until]
    ends = [session.opens_until for session in contact.slots]
    return made, min([*ends, *(change for change in changes if change > now)], default=inf)
