"""What a benchmark must reach, and whether it did."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One line under a table.

    Attributes:
        text: the figure and what it must be.
        reached: None for a remark on the line before.
    """

    text: str
    reached: bool | None = None

    def __str__(self) -> str:
        word = {True: "reached", False: "missed", None: ""}[self.reached]
        return f"{word:7}  {self.text}"


def missed(targets: Iterable[Target]) -> bool:
    """Whether one of them was."""
    return any(target.reached is False for target in targets)
