"""What both commands write to their logs on SIGUSR1: the engine's totals, and the drops by reason.

    packets_in: 1200
    …
    dropped no_route: 3

Rules: every total has a line, also when it is zero; a reason has one only when something was dropped for it, because
most reasons never occur. This module does not know what is counted, nor which side logs it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping


def lines(totals: Mapping[str, int], *drops: Mapping[str, int]) -> Iterator[str]:
    """One line each; drops for the same reason are added up."""
    for name, value in totals.items():
        yield f"{name}: {value}"
    summed: Counter[str] = Counter()
    for counted in drops:
        summed.update(counted)
    for reason, value in summed.items():
        if value:
            yield f"dropped {reason}: {value}"
