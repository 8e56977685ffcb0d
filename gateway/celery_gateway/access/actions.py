"""Actions: what clients may do beside reading, as the setting ``allow`` lists it. Pure."""

from collections.abc import Iterable
from typing import Final

ACTIONS: Final = ("revoke", "terminate")
"""All actions. ``terminate`` is a revoke that also ends the process of a running task."""
SIGNALS: Final = ("SIGTERM", "SIGKILL", "SIGINT", "SIGQUIT", "SIGUSR1")
"""The signals that ``terminate`` may send; SIGUSR1 raises SoftTimeLimitExceeded (billiard/pool.py)."""


def parse_actions(values: str | Iterable[str]) -> tuple[str, ...]:
    """Return the allowed actions, once each, in the order of ``ACTIONS``.

    Args:
        values: names of actions; one value may have several, separated by commas.

    Raises:
        ValueError: an action is unknown, or ``terminate`` is allowed without ``revoke``.

    >>> parse_actions(["terminate, revoke"])
    ('revoke', 'terminate')
    """
    listed = [values] if isinstance(values, str) else values
    names = {name for value in listed for name in value.replace(",", " ").split()}
    if unknown := sorted(names.difference(ACTIONS)):
        raise ValueError(f"{unknown[0]!r} is no action; the allowed values are {' and '.join(ACTIONS)}")
    if names == {"terminate"}:
        raise ValueError("'terminate' needs 'revoke': write revoke,terminate")
    return tuple(name for name in ACTIONS if name in names)
