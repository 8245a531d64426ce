"""Whether what several relays were answered about one address can have happened in some order: linearizability.

Each operation takes effect at one moment between its question and its answer, or, without an answer, at any moment
behind its question or never. The search is by Wing and Gong, with what was looked at remembered (Lowe).
"""

from dataclasses import dataclass
from math import inf


@dataclass(frozen=True)
class Operation:
    """One that a relay has begun. `holder` claims the address, or gives it up."""

    asked: float
    answered: float
    """inf: no answer came."""
    is_claim: bool
    holder: bytes
    result: bytes | bool | None = None
    """Of a claim the holder behind it, of a release whether it took effect; None: not known."""


def follows(operation: Operation, holder: bytes) -> tuple[bytes, bytes | bool]:
    """The holder behind an operation, and its result, where the address was this holder's; empty: nobody's."""
    if operation.is_claim:
        behind = holder or operation.holder
        return behind, behind
    is_own = holder == operation.holder
    return (b"" if is_own else holder), is_own


def is_linearizable(operations: list[Operation]) -> bool:
    """Whether they can have happened, one after the other, on one address that was nobody's."""
    operations = sorted(operations, key=lambda each: each.asked)
    everything = (1 << len(operations)) - 1
    unanswered = sum(1 << at for at, each in enumerate(operations) if each.result is None)
    seen = set()
    ways = [(0, b"")]
    while ways:
        done, holder = ways.pop()
        if done | unanswered == everything:
            return True
        if (done, holder) in seen:
            continue
        seen.add((done, holder))
        left = [at for at in range(len(operations)) if not done >> at & 1]
        before = min((operations[at].answered for at in left), default=inf)
        for at in left:
            operation = operations[at]
            if operation.asked > before:
                break
            behind, result = follows(operation, holder)
            if operation.result is None or operation.result == result:
                ways.append((done | 1 << at, behind))
    return False
