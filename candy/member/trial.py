"""One address of a peer, as it is tried: when the next probe is due, how long answers take, how much fits.

    sent() ─▶ answered(round trip) | lost() ─▶ is_good, round_trip, loss       measure() ─▶ SIZES ─▶ measured() ─▶ mtu

Rules:
 1. The first probes come close together, because a NAT drops what comes before its own host has sent something. Behind
    them those of an address that has answered come every EACH_S, of one that has not ever more seldom.
 2. The MTU is the longest IP packet of which an answer came. All sizes are tried at once, in a round; what is answered
    counts at once, what is not by the end of the round counts as too long.
 3. Of two that are about as fast the one by which more fits is better, for a tunnel of another program takes its share
    of each packet; then the nearer one by its kind.
 4. One is much faster than another if each of its RECENT answers was faster than each of the other's: some wait behind
    a stream, or for a busy machine. Where the last answer of each says so clearly, the next RECENT probes come as
    close together as the first. One that was left is held off for a while, ever longer: it may have been slow because
    it was used.

This module sends nothing, and knows neither keys nor peers. `now` is in seconds of CLOCK_BOOTTIME.
"""

from math import inf
from typing import Final

from candy.protocol.linking import Candidate, Endpoint, Kind

FIRST_S: Final = (0.2, 0.4, 0.8)
EACH_S: Final = 1.0
SELDOM_S: Final = 120.0
AGAIN_S: Final = 5.0
"""From a restart of one that has never answered to the next: the peer that names it may want another host probed."""
DOUBLED_MOST: Final = 7
"""Times, from the one to the other."""
MTU_LEAST: Final = 1280
SIZES: Final = (MTU_LEAST, 1420, 1460, 1480, 1500)
"""Bytes of an IP packet. A device's packets have at most 1,479, and 60 more on the way, 80 with IPv6."""
ROUNDS_MOST: Final = 2
"""In a row."""
SMOOTHED: Final = 8
"""Of the round trips that the mean is of, the last one is one in so many."""
_BY_KIND: Final = {Kind.LAN: 0, Kind.GLOBAL6: 1, Kind.FIXED: 1, Kind.REFLEXIVE: 2}
BETTER: Final = 0.8
BETTER_S: Final = 0.001
CLEARLY_S: Final = 0.005
RECENT: Final = 4
HELD_S: Final = (5.0, 20.0)
"""At first, and at most."""


class Trial:
    """See above.

    Args:
        is_offered: by the peer; else something authentic came from there.
    """

    __slots__ = (
        "_held_s",
        "_hurried",
        "_recent",
        "_restarted_at",
        "_round_began",
        "_rounds",
        "_tries",
        "answered_at",
        "answers",
        "endpoint",
        "has_sizes_due",
        "held_until",
        "is_narrow",
        "is_offered",
        "kind",
        "loss",
        "lost_in_row",
        "measured_at",
        "mtu",
        "next_at",
        "round_best",
        "round_trip",
        "round_until",
        "sent_at",
    )

    def __init__(self, candidate: Candidate, now: float, *, is_offered: bool = True) -> None:
        self.kind, self.endpoint = candidate
        self.is_offered = is_offered
        self.next_at = now
        """When the next probe is due."""
        self.sent_at = -inf
        self.answered_at = -inf
        self.answers = 0
        self.lost_in_row = 0
        self.round_trip = 0.0
        """Seconds, smoothed; of no use before there was an answer."""
        self.loss = 0.0
        """A share, smoothed."""
        self.held_until = -inf
        """Before that it takes no other one's place (rule 4)."""
        self.mtu = 0
        """0: nothing was measured."""
        self.measured_at = -inf
        """When a round has ended, with the network as it is; -inf: none has."""
        self.round_until = inf
        """The end of the round of sizes; inf: there is none."""
        self.round_best = 0
        self.has_sizes_due = False
        self.is_narrow = False
        """Less than MTU_LEAST fits."""
        self._round_began = -inf
        self._rounds = 0
        self._tries = 0
        self._recent: tuple[float, ...] = ()
        self._held_s = 0.0
        self._hurried = 0
        """Probes that are still to come close together."""
        self._restarted_at = now

    @property
    def is_good(self) -> bool:
        """It answers."""
        return self.answers > 0 and self.lost_in_row < 2

    @property
    def is_routine(self) -> bool:
        """Its next probe is one of many, and may come later: neither is it new, nor in doubt, nor compared."""
        if self._hurried:
            return False
        return self._tries > len(FIRST_S) and not (self.answers and 0 < self.lost_in_row <= len(FIRST_S))

    @property
    def is_measuring(self) -> bool:
        return self.round_until < inf

    @property
    def patience(self) -> float:
        """Seconds after which a probe is lost."""
        return min(max(3 * self.round_trip + 0.1, 0.3), 1.5) if self.answers else 1.0

    @property
    def deadline(self) -> float:
        return min(self.next_at, self.round_until)

    def restart(self, now: float) -> None:
        """Things may be different now: probe at once."""
        self.held_until = -inf
        if not self.answers and now < self._restarted_at + AGAIN_S:
            return
        self._restarted_at = now
        self._tries = 0
        self.is_narrow = False
        self.measured_at = -inf
        self.next_at = now

    def hasten(self, now: float) -> None:
        """Probe soon, but not because somebody wants many probes."""
        self.next_at = min(self.next_at, max(now, self.sent_at + FIRST_S[0]))

    def hurry(self, now: float) -> None:
        """Have RECENT new answers soon (rule 4)."""
        self._hurried = RECENT
        self.hasten(now)

    def sent(self, now: float, pause: float | None) -> None:
        """A probe was sent; the next one is due by rule 1, or after this pause."""
        self.sent_at = now
        if pause is None:
            number, self._tries = self._tries, min(self._tries + 1, len(FIRST_S) + DOUBLED_MOST)
            if self._hurried:
                self._hurried -= 1
                pause = FIRST_S[0]
            elif number < len(FIRST_S):
                pause = FIRST_S[number]
            else:
                pause = EACH_S if self.is_good else min(EACH_S * 2 ** (number - len(FIRST_S)), SELDOM_S)
        self.next_at = now + pause

    def answered(self, round_trip: float, now: float) -> None:
        """A probe was answered after so many seconds."""
        # What it took longer than is no measure of what it takes: a way may have become another one.
        is_new = self.answers == 0 or round_trip > self.patience
        self.round_trip = round_trip if is_new else self.round_trip + (round_trip - self.round_trip) / SMOOTHED
        self._recent = (*self._recent, round_trip)[-RECENT:]
        self.loss -= self.loss / SMOOTHED
        self.answers += 1
        self.lost_in_row = 0
        self.answered_at = now

    def lost(self, now: float) -> None:
        """A probe was not answered. Another one says soon whether that was an accident."""
        self.lost_in_row += 1
        if self.lost_in_row <= 2:
            # More in a row are no loss, but a way that is closed.
            self.loss += (1 - self.loss) / SMOOTHED
        if self.answers and self.lost_in_row <= len(FIRST_S):
            self.next_at = min(self.next_at, now)

    def left(self, now: float) -> None:
        """It was the path, and another one is faster."""
        least, most = HELD_S
        self._held_s = min(2 * self._held_s, most) if now < self.held_until + most else least
        self.held_until = now + self._held_s

    def measure(self, now: float) -> None:
        """Begin a round: the sizes are to be sent."""
        self._rounds += 1
        self.round_best = 0 if self._rounds == 1 else self.round_best
        self._round_began = now if self._rounds == 1 else self._round_began
        self.round_until = now + max(self.patience, 0.5)
        self.has_sizes_due = True

    def measured(self, size: int) -> None:
        """One of the sizes was answered."""
        self.round_best = max(self.round_best, size)
        self.mtu = max(self.mtu, size)

    def end_round(self, now: float) -> None:
        """Rule 2. A round that has found less than was known, or nothing, is repeated: probes get lost. What answers
        nothing at all says nothing about sizes."""
        self.round_until = inf
        if self.answered_at < self._round_began:
            self._rounds = 0
            return
        if self._rounds < ROUNDS_MOST and (self.round_best < self.mtu or not self.round_best):
            self.measure(now)
            return
        self.mtu, self.measured_at = self.round_best, now
        self.is_narrow = not self.round_best
        self._rounds = 0

    def is_better(self, other: "Trial") -> bool:
        """Much faster, or as fast and better by rule 3. Of two at most one is better than the other."""
        if self.is_much_faster(other):
            return True
        return self._rank < other._rank and not other.is_much_faster(self)

    def seems_faster(self, other: "Trial") -> bool:
        """Clearly, by the last answer of each."""
        ours, theirs = self._recent[-1], other._recent[-1]
        return ours < BETTER * theirs and theirs - ours >= CLEARLY_S

    @property
    def _rank(self) -> tuple[int, int]:
        # What was not measured yet may be wide: it is measured then.
        unknown = 0 if self.is_narrow else SIZES[-1]
        return -(self.mtu or unknown), _BY_KIND[self.kind]

    def is_much_faster(self, other: "Trial") -> bool:
        """By all recent answers of each (rule 4)."""
        ours = max(self._recent) / max(1 - self.loss, 0.1)
        theirs = min(other._recent) / max(1 - other.loss, 0.1)
        return ours < BETTER * theirs and theirs - ours >= BETTER_S


def longest(endpoint: Endpoint, mtu: int) -> int:
    """Bytes of an inner packet that fit into an IP packet of this size to there."""
    return mtu - (60 if endpoint.family == 4 else 80)
