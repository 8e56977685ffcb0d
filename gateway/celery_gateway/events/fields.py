"""Which fields of an object a client gets: those that it wants, without hidden ones. Pure."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Fields:
    """A set of fields.

    Attributes:
        wanted: the names of the wanted fields; ``None`` for all.
        hidden: the names of fields that are removed.

    >>> "args" in Fields(), "args" in Fields(None, frozenset({"args"})), "args" in Fields(frozenset({"name"}))
    (True, False, False)
    """

    wanted: frozenset[str] | None = None
    hidden: frozenset[str] = frozenset()

    @property
    def are_all(self) -> bool:
        """True if no field is left out."""
        return self.wanted is None and not self.hidden

    def __contains__(self, name: object) -> bool:
        return (self.wanted is None or name in self.wanted) and name not in self.hidden

    def including(self, names: frozenset[str]) -> "Fields":
        """Return these fields and others; those that are hidden stay hidden."""
        return Fields(None if self.wanted is None else self.wanted | names, self.hidden)

    def without(self, names: frozenset[str]) -> "Fields":
        """Return these fields, and hide others."""
        return Fields(self.wanted, self.hidden | names)


ALL_FIELDS = Fields()

NEVER_HIDDEN: Final = frozenset(
    (
        "id",
        "type",
        "uuid",
        "root_id",
        "parent_id",
        "name",
        "state",
        "time",
        "timestamp",
        "truncated",
        "cluster",
    )
)
"""Fields that the gateway itself needs to identify events and tasks."""
