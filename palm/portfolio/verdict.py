"""What a check says, line by line: for `palm.portfolio.verify` and its parts."""

from dataclasses import dataclass

HOLDS, FAILS, OPEN = "holds", "FAILS", "open"


@dataclass(frozen=True)
class Line:
    """One thing that was checked.

    Attributes:
        verdict: "holds", "FAILS", or "open" where it cannot be told.
        what: the claim and what was found.
    """

    verdict: str
    what: str

    def __str__(self) -> str:
        return f"{self.verdict:5s}  {self.what}"


def told(fine: bool, what: str) -> Line:
    """A line that holds or fails."""
    return Line(HOLDS if fine else FAILS, what)


def sound(lines: list[Line]) -> bool:
    """Whether nothing fails."""
    return all(line.verdict != FAILS for line in lines)
