"""The counts and violations of all clients of the chaos test together."""

import time
from collections import Counter
from dataclasses import dataclass, field

MAX_TEXTS = 10
"""The number of violations with the same first word that are kept as text; all are counted."""


def clock() -> float:
    """Return the time in epoch seconds: that of the events' timestamps."""
    return time.time()


@dataclass
class Tally:
    """Attributes: the counts by name; the first violations, as text."""

    counts: Counter[str]
    violations: list[str] = field(default_factory=list)
    _texts: Counter[str] = field(default_factory=Counter)

    def count(self, name: str) -> None:
        self.counts[name] += 1

    def violation(self, who: str, what: str) -> None:
        self.counts["violations"] += 1
        kind = what.partition(" ")[0]
        self._texts[kind] += 1
        if self._texts[kind] <= MAX_TEXTS:
            self.violations.append(f"{time.strftime('%H:%M:%S')} {who}: {what}")
