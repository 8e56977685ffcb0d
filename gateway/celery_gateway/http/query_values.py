"""Values of parameters about state: texts to search, times, flags, and comparisons with numbers.

Rules: every bad value is an error. Numbers have only the digits 0 to 9: no signs, no exponents, no ``nan``.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from starlette.datastructures import QueryParams

from celery_gateway.errors import BadRequest
from celery_gateway.events.pattern import MAX_QUOTED_CHARS, quoted
from celery_gateway.http.query_params import only
from celery_gateway.http.stream_query import bad_value
from celery_gateway.state.criteria import COMPARISONS, Comparison

MAX_TEXT_CHARS: Final = 1_000
"""Maximum length of a text to search."""
_NUMBER: Final = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")
_AGE: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)")
_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_COMPARISON: Final = re.compile(r"([^<>=]*)(>=|<=|>|<|=)(.*)", re.DOTALL)


def text_to_search(parameters: QueryParams, name: str = "q") -> str:
    """Return the text to search; ``""`` if the parameter is missing.

    Raises:
        BadRequest: it is empty, too long, or has a NUL character.
    """
    text = only(parameters, name)
    if text is None:
        return ""
    if not text:
        message = f"invalid {name}='': it must be a text to search; leave the parameter out to list all"
        raise BadRequest(message, code="empty-value", parameter=name)
    if len(text) > MAX_TEXT_CHARS:
        raise BadRequest(
            f"{name} too long: {len(text)} characters; at most {MAX_TEXT_CHARS} are allowed",
            code="value-too-long",
            parameter=name,
        )
    if "\0" in text:
        raise bad_value(name, f"invalid {name}={quoted(text)}: NUL characters are not allowed")
    return text


def age_seconds(text: str) -> float | None:
    """Return the seconds of an age such as ``10m``; ``None`` if the text is none."""
    age = _AGE.fullmatch(text)
    return None if age is None else float(age[1]) * _UNIT_SECONDS[age[2]]


def moment(parameters: QueryParams, name: str, now: float) -> float | None:
    """Return a time in epoch seconds; ``None`` if the parameter is missing.

    Args:
        now: epoch seconds, which an age counts back from.

    Raises:
        BadRequest: it is neither an age nor a time with its zone.
    """
    text = only(parameters, name)
    if text is None:
        return None
    if age := _AGE.fullmatch(text):
        return now - float(age[1]) * _UNIT_SECONDS[age[2]]
    try:
        at = datetime.fromisoformat(text.replace(" ", "+"))  # a plus sign in a query means a space
        if text.isascii() and at.tzinfo is not None:
            return at.timestamp()
    except (ValueError, OverflowError):
        pass
    message = (
        f"invalid {name}={quoted(text)}: it must be an age such as 10m, or a time with its zone such as "
        "2026-11-21T08:31:00Z"
    )
    raise bad_value(name, message, ("10m", "2026-11-21T08:31:00Z"))


def flag(parameters: QueryParams, name: str) -> bool | None:
    """Return a flag; ``None`` if the parameter is missing.

    Raises:
        BadRequest: it is neither 0 nor 1.
    """
    text = only(parameters, name)
    if text is None:
        return None
    if text not in ("0", "1"):
        raise bad_value(name, f"invalid {name}={quoted(text)}: the allowed values are 0 and 1", ("0", "1"))
    return text == "1"


def choice(parameters: QueryParams, name: str, allowed: Sequence[str]) -> str:
    """Return one of the allowed values; the first one if the parameter is missing.

    Raises:
        BadRequest: it is another value.
    """
    text = only(parameters, name)
    if text is None:
        return allowed[0]
    if text not in allowed:
        message = f"invalid {name}={quoted(text)}: the allowed values are {', '.join(allowed)}"
        raise bad_value(name, message, allowed)
    return text


def choices(parameters: QueryParams, name: str, allowed: Sequence[str]) -> tuple[str, ...]:
    """Return the values of a list with commas, each once; the first allowed one if the parameter is missing.

    Raises:
        BadRequest: a value is not allowed.
    """
    values = [value for text in parameters.getlist(name) for value in text.split(",")] or [allowed[0]]
    for value in values:
        if value not in allowed:
            message = f"invalid {name}={quoted(value)}: the allowed values are {', '.join(allowed)}"
            raise bad_value(name, message, allowed)
    return tuple(dict.fromkeys(values))


def split_comparisons(
    parameters: QueryParams, numbers: Sequence[str], seconds: Sequence[str] = ()
) -> tuple[QueryParams, tuple[Comparison, ...]]:
    """Return the parameters without the comparisons, and these.

    A query splits ``runtime>=5`` at its first ``=``, and ``runtime>5`` nowhere. So a comparison is the name
    and the value of a parameter together.

    Args:
        numbers: the fields that can be compared.
        seconds: those of them that may also be compared with an age, such as ``2m``.

    Raises:
        BadRequest: another field is compared, the number is malformed, or a comparison is repeated.
    """
    others: list[tuple[str, str]] = []
    found: dict[tuple[str, str], Comparison] = {}
    for name, value in parameters.multi_items():
        if name.partition("=")[0] not in numbers and "<" not in name and ">" not in name:
            others.append((name, value))
            continue
        comparison = _comparison(f"{name}={value}" if value else name, numbers, seconds)
        field, operator, _ = comparison
        if (field, operator) in found:
            raise bad_value(field, f"repeated comparison {field}{operator}: give one")
        found[field, operator] = comparison
    return QueryParams(others), tuple(found.values())


def _comparison(text: str, numbers: Sequence[str], seconds: Sequence[str]) -> Comparison:
    parts = _COMPARISON.fullmatch(text)
    field, operator, number = parts.groups() if parts is not None else (text, "=", "")
    if field not in numbers:
        allowed = ", ".join(numbers) or "none is allowed here"
        raise BadRequest(
            f"unknown parameter {quoted(text)}: the fields that can be compared with a number are {allowed}",
            code="unknown-parameter",
            parameter=text[:MAX_QUOTED_CHARS],
            allowed=tuple(numbers),
        )
    if _NUMBER.fullmatch(number):
        return Comparison(field, operator, float(number))
    if field in seconds and (age := _AGE.fullmatch(number)):
        return Comparison(field, operator, float(age[1]) * _UNIT_SECONDS[age[2]])
    kind = "seconds such as 0.5, or an age such as 2m" if field in seconds else "a number such as 2"
    examples = [f"{field}{each}{'0.5' if field in seconds else 2}" for each in COMPARISONS]
    message = f"invalid comparison {quoted(text)}: {field} must be compared with {kind}, without a sign"
    raise bad_value(field, message, examples)
