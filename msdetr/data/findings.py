"""Findings of data set checks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

NUM_EXAMPLES = 5

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One kind of fault, with how often it occurs.

    Attributes:
        check: Name of the check, for machines.
        severity: "error" if the data must not be trained on as they are, else "warning".
        message: What is wrong, and what training does about it; the count follows.
        count: How many images, annotations or classes are affected.
        examples: The first few of them; none if the message is sufficient.
    """

    check: str
    severity: Severity
    message: str
    count: int
    examples: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, check: str, severity: Severity, message: str, affected: Sequence[object]
    ) -> Finding | None:
        """Make a finding about what is affected; None if nothing is.

        Args:
            check: Name of the check.
            severity: How bad it is.
            message: Sentence about what is affected.
            affected: Every affected thing.
        """
        if not len(affected):
            return None
        examples = tuple(str(entry) for entry in affected[:NUM_EXAMPLES])
        return cls(check, severity, message, len(affected), examples)

    def line(self) -> str:
        """Format the finding as one line."""
        if not self.examples:
            return self.message
        more = ", ..." if self.count > len(self.examples) else ""
        return f"{self.message}: {self.count} ({', '.join(self.examples)}{more})"

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as JSON values."""
        return {
            "check": self.check,
            "severity": self.severity,
            "message": self.message,
            "count": self.count,
            "examples": list(self.examples),
        }


def present(findings: Iterable[Finding | None]) -> tuple[Finding, ...]:
    """Drop the checks that found nothing."""
    return tuple(finding for finding in findings if finding is not None)
