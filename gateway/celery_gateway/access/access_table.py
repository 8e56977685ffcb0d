"""A table of the access file: typed values, and errors with the names of the file and the key. Pure."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from celery_gateway.access.quota import check_quota
from celery_gateway.access.scope import Scope
from celery_gateway.errors import GatewayError

MAX_TEXT_CHARS = 1_000


class Table:
    """A table of a TOML file.

    Args:
        path: the file, for errors.
        name: the name of the table, such as ``tokens.grafana``; empty for the whole file.
        value: what the file has there.

    Raises:
        GatewayError: it is no table.
    """

    def __init__(self, path: Path, name: str, value: object) -> None:
        self._path = path
        self._name = name
        if not isinstance(value, dict):
            raise self.error("", f"it must be a table: [{name}]")
        self.value: dict[str, Any] = value

    def __contains__(self, key: str) -> bool:
        return key in self.value

    def error(self, key: str, problem: str) -> GatewayError:
        """Return an error about a value; with an empty key, about the table."""
        name = ".".join(part for part in (self._name, key) if part)
        return GatewayError(
            f"{self._path}: invalid {name}: {problem}" if name else f"{self._path}: {problem}"
        )

    def allow(self, *keys: str) -> None:
        """Refuse other keys: a misspelled one would have no effect."""
        if unknown := [key for key in self.value if key not in keys]:
            raise self.error("", f"unknown key {unknown[0]!r}; allowed are {', '.join(keys)}")

    def table(self, key: str) -> "Table":
        """Return a table inside this one."""
        return Table(self._path, f"{self._name}.{key}" if self._name else key, self.value[key])

    def tables(self, key: str) -> Iterator[tuple[str, "Table"]]:
        """Yield the names and tables of a table of tables; nothing if there is none."""
        if key in self:
            group = self.table(key)
            for name in group.value:
                if not name or not name.isprintable() or len(name) > MAX_TEXT_CHARS:
                    raise group.error(
                        "", "a name is empty, too long, or has characters that cannot be printed"
                    )
                yield name, group.table(name)

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text, which is required if there is no default."""
        if key not in self and default is not None:
            return default
        value = self.value.get(key)
        if value is None:
            raise self.error(key, "it is required")
        if not isinstance(value, str) or not value or not value.isprintable() or len(value) > MAX_TEXT_CHARS:
            raise self.error(key, "it must be text in quotes, which is not empty")
        return value

    def choice(self, key: str, allowed: Sequence[str]) -> str:
        """Return one of some texts; it is required."""
        value = self.text(key)
        if value not in allowed:
            raise self.error(key, f"{value!r} is not allowed; allowed are {', '.join(allowed)}")
        return value

    def number(self, key: str, default: float, minimum: float, maximum: float) -> float:
        """Return a number of a range."""
        value = self.value.get(key, default)
        if type(value) not in (int, float) or not minimum <= value <= maximum:
            raise self.error(
                key, f"{value!r} is not allowed; it must be a number from {minimum} to {maximum}"
            )
        return float(value)

    def scope(self) -> Scope:
        """Return the scope of this table, which is required."""
        if "scope" not in self:
            raise self.error("scope", "it is required; write scope = {} for all tasks and events")
        try:
            return Scope.parse(self.value["scope"])
        except ValueError as error:
            raise self.error("scope", str(error)) from None

    def quota(self) -> tuple[tuple[str, float], ...]:
        """Return the limits of the table ``quota`` in this one, sorted by name."""
        if "quota" not in self:
            return ()
        try:
            return tuple(sorted(check_quota(self.table("quota").value).items()))
        except ValueError as error:
            raise self.error("quota", str(error)) from None

    def time(self, key: str) -> float | None:
        """Return a time in epoch seconds; ``None`` if there is none. A date is its first moment in UTC."""
        value = self.value.get(key)
        if value is None:
            return None
        if isinstance(value, datetime):  # also a date, by its type
            if value.tzinfo is None:
                raise self.error(
                    key, f"{value.isoformat()} has no time zone; write {value.isoformat()}Z for UTC"
                )
            return value.timestamp()
        if isinstance(value, date):
            return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
        raise self.error(key, "it must be a time such as 2027-01-01T00:00:00Z, or a date, without quotes")
