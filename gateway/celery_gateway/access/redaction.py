"""Redaction: hidden fields are removed from events on arrival, and secrets in them are replaced. Pure.

The pipeline applies it before anything else reads an event, so that the state, the history, the streams and
the dashboard never have these values.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from celery_gateway.access.secret_names import SecretNames
from celery_gateway.access.secret_texts import LEAST_CHARS, REDACTED, SecretTexts
from celery_gateway.events.fields import NEVER_HIDDEN

TEXT_FIELDS: Final = ("args", "kwargs", "result", "exception", "traceback")
"""Celery's fields that may contain secrets: texts of any values."""
_OTHER_FIELDS: Final = (
    # of the gateway and of all events (celery/events/event.py, celery/events/dispatcher.py)
    *("type", "time", "cluster", "hostname", "utcoffset", "pid", "clock", "timestamp", "local_received"),
    # of tasks (celery/app/amqp.py, celery/worker/strategy.py, celery/worker/request.py)
    *("uuid", "root_id", "parent_id", "name", "state", "retries", "eta", "expires", "queue", "exchange"),
    *("routing_key", "runtime", "requeue", "terminated", "signum", "expired"),
    # of workers (celery/worker/heartbeat.py, celery/worker/state.py)
    *("freq", "active", "processed", "loadavg", "sw_ident", "sw_ver", "sw_sys"),
)
"""Celery's other fields: they are never changed."""
_KNOWN_FIELDS: Final = frozenset((*TEXT_FIELDS, *_OTHER_FIELDS))


_MAX_NAME_CHARS: Final = 60


class Redactor:
    """Removes hidden fields from an event, and replaces the secrets in it, in place.

    Args:
        hide: the fields that are removed.
        redact: whether secrets are replaced.
        keys: names of secrets beside those that are always replaced (``secret_names``).

    Raises:
        ValueError: a field cannot be hidden, or a name is malformed.

    >>> event = {"type": "task-sent", "uuid": "a", "args": "()", "kwargs": "{'password': 'hunter2'}"}
    >>> Redactor(hide=["args"])(event)
    >>> event
    {'type': 'task-sent', 'uuid': 'a', 'kwargs': "{'password': '***'}"}
    """

    def __init__(self, hide: Iterable[str] = (), redact: bool = True, keys: Iterable[str] = ()) -> None:
        self._hide = parse_hide([*hide])
        self._redacts = redact
        self._names = SecretNames(parse_redact_keys([*keys]))
        self._may_be_in = self._names.may_be_in
        self._redacted = SecretTexts(self._names).redacted

    @property
    def is_needed(self) -> bool:
        """False if it leaves all events unchanged."""
        return bool(self._hide) or self._redacts

    def __call__(self, event: dict[str, Any]) -> None:
        """Change one event.

        Args:
            event: as ``normalize`` returns it.
        """
        for field in self._hide:
            event.pop(field, None)
        if not self._redacts:
            return
        get = event.get
        for field in TEXT_FIELDS:
            value = get(field)
            if value is None:
                continue
            if type(value) is not str:
                event[field] = self._value(value)
            elif len(value) >= LEAST_CHARS and self._may_be_in(value):
                event[field] = self._redacted(value)
        if not _KNOWN_FIELDS.issuperset(event):
            for field, value in event.items():
                if field not in _KNOWN_FIELDS:
                    event[field] = self._named_value(field, value)

    def _named_value(self, name: str, value: Any) -> Any:
        """Return the value of a custom field, or of a key in it."""
        if value is None or type(value) is bool or value in ("", [], {}):
            return value
        return REDACTED if self._names.has(name) else self._value(value)

    def _value(self, value: Any) -> Any:
        kind = type(value)
        if kind is str:
            return self._redacted(value)
        if kind is dict:
            return {name: self._named_value(name, item) for name, item in value.items()}
        if kind is list:
            if len(value) == 2 and type(value[0]) is str:  # such as a header
                return [self._value(value[0]), self._named_value(value[0], value[1])]
            return [self._value(item) for item in value]
        return value


def parse_hide(values: Sequence[str]) -> tuple[str, ...]:
    """Return the fields that are removed from all events, once each.

    Args:
        values: names of fields; one value may have several, separated by commas.

    Raises:
        ValueError: a name is empty, or the gateway needs the field.
    """
    names = _listed(values, "field", "args,kwargs")
    for name in names:
        if name in NEVER_HIDDEN:
            raise ValueError(
                f"{name!r} cannot be hidden, since the gateway and its clients need it to identify events "
                f"and tasks. These fields cannot be hidden: {', '.join(sorted(NEVER_HIDDEN))}"
            )
    return names


def parse_redact_keys(values: Sequence[str]) -> tuple[str, ...]:
    """Return names of secrets, once each.

    Args:
        values: as for ``parse_hide``.

    Raises:
        ValueError: a name is empty, or has characters that names do not have.
    """
    names = _listed(values, "name", "iban,card_number")
    for name in names:
        if len(name) > _MAX_NAME_CHARS:
            raise ValueError(f"a name has {len(name)} characters; at most {_MAX_NAME_CHARS} are allowed")
        if wrong := [character for character in name if not (character.isalnum() or character in "_-.")]:
            # The name itself is not shown: it may have a secret behind a sign.
            raise ValueError(
                f"a name contains {wrong[0]!r}; allowed are letters, digits, '_', '-' and '.', such as "
                "card_number. Give names only, without values or patterns"
            )
        if not any(character.isalpha() for character in name):
            raise ValueError(f"{name!r} is not a name: it has no letter")
    return names


def _listed(values: Sequence[str], kind: str, example: str) -> tuple[str, ...]:
    if isinstance(values, str):
        values = [values]
    # In the environment, values are separated by spaces: "args, kwargs" comes as "args," and "kwargs".
    names = [name.strip() for value in values for name in value.strip().removesuffix(",").split(",")]
    if not all(names):
        raise ValueError(f"a {kind} is empty; separate several with one comma each, such as {example}")
    return tuple(dict.fromkeys(names))
