"""Chosen numbers of what is only counted at the end: layers while a model runs, queries while it generates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headscope.errors import LookError

Numbers = int | slice | Sequence[int] | None


@dataclass(frozen=True)
class Choice:
    """An index, a slice or a list of indices; negative ones count from the end. None chooses all.

    Example:
        >>> Choice("layers", -2).final(5)
        [3]
        >>> Choice("layers", -2).possible(range(4), 4)  # the last of four may become the last but one of five
        [2, 3]
    """

    what: str
    chosen: Numbers

    @property
    def depends_on_the_count(self) -> bool:
        """Whether the count decides what is chosen."""
        if isinstance(self.chosen, slice):
            backwards = self.chosen.step is not None and self.chosen.step < 0
            return backwards or any(end is not None and end < 0 for end in (self.chosen.start, self.chosen.stop))
        return any(number < 0 for number in self._listed())

    def final(self, count: int) -> list[int]:
        """The chosen numbers of `count` things, in the order in which they were chosen.

        Raises:
            LookError: a number that does not exist.
        """
        if self.chosen is None or isinstance(self.chosen, slice):
            return list(range(count))[self.chosen if self.chosen is not None else slice(None)]
        listed = self._listed()
        wrong = [number for number in listed if not -count <= number < count]
        if wrong:
            there = f"from 0 to {count - 1}" if count else "none"
            raise LookError(
                f"record: {self.what}={self.chosen} was asked for and there are {count} {self.what}, {there}; "
                f"{wrong[0]} is not among them."
            )
        return [number % count for number in listed]

    def possible(self, numbers: range, count: int) -> list[int]:
        """Those of some numbers that may be chosen in the end, when there are `count` so far and more may come.

        Where that is costly to tell, more than those.
        """
        if self.chosen is None:
            return list(numbers)
        if not isinstance(self.chosen, slice):
            exact = {number for number in self._listed() if number >= 0}
            # A number from the end can still become any one that is at most that far from the end now.
            lowest = min((count + number for number in self._listed() if number < 0), default=numbers.stop)
            tail = range(max(numbers.start, lowest), numbers.stop)
            return sorted({number for number in exact if number in numbers} | set(tail))
        if not self.depends_on_the_count:
            chosen = range(numbers.stop)[self.chosen]
            return [number for number in chosen if number in numbers]
        start, forwards = self.chosen.start, (self.chosen.step or 1) > 0
        if forwards and start is not None:
            lowest = count + start if start < 0 else start
            return list(range(max(numbers.start, lowest), numbers.stop))
        return list(numbers)

    def _listed(self) -> list[int]:
        if self.chosen is None or isinstance(self.chosen, slice):
            return []
        return [self.chosen] if isinstance(self.chosen, int) else list(self.chosen)
