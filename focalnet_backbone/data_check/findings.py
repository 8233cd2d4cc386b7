"""What is wrong with a dataset, one line for each kind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

EXAMPLES = 3


class DataError(ValueError):
    """A dataset that cannot be trained on.

    Attributes:
        lines: what is wrong, one line for each kind.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = list(lines)


@dataclass
class Findings:
    """Errors, which stop a training, and warnings, which do not.

    A line is `PLACE: COUNT NOUN WHAT: FIRST NAMES; WHAT TO DO`.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, line: str, *, error: bool = True) -> None:
        """Add a line, once."""
        lines = self.errors if error else self.warnings
        if line not in lines:
            lines.append(line)

    def count(
        self, place: str, noun: str, what: str, names: Iterable[str], cure: str, *, total: int = 0, error: bool = True
    ) -> None:
        """Add a line for all that are odd in one way, if there are any.

        Args:
            place: the file or folder that they are in.
                noun: what they are, in the singular, of a regular plural.
            what: what is odd about them, such as `"cannot be read"`.
            names: their names, or the first ones.
            cure: what to do.
            total: how many they are, if not as many as the names.
            error: whether it stops a training.
        """
        names = list(names)
        total = total or len(names)
        if not total:
            return
        shown = ", ".join(names[:EXAMPLES]) + (", ..." if total > EXAMPLES else "")
        self.add(f"{place}: {counted(total, noun)} {what}: {shown}; {cure}", error=error)

    def merge(self, others: Findings) -> None:
        """Add those of others, each once."""
        for line in others.errors:
            self.add(line)
        for line in others.warnings:
            self.add(line, error=False)

    def raise_errors(self) -> None:
        """Raise `DataError` if there is an error."""
        if self.errors:
            raise DataError(self.errors)


def counted(number: int, noun: str) -> str:
    """A number and its noun, such as `"1 photo"`, `"1,200 photos"` or `"2 categories"`."""
    if number == 1:
        return f"1 {noun}"
    if noun.endswith("y"):
        return f"{number:,} {noun[:-1]}ies"
    return f"{number:,} {noun}{'es' if noun.endswith(('s', 'x')) else 's'}"
