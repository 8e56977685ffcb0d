r"""Parse filters: from query parameters, or from patterns by field, to a ``Filter``.

In a pattern, ``*`` matches any text, ``?`` matches one character, and a leading ``!`` excludes. A query
parameter holds one or more patterns separated by commas. A backslash before ``\``, ``,``, ``*``, ``?`` or
``!`` makes that character literal; any other backslash is a literal backslash.

The limits are checked before any part of a filter is built.
"""

from collections.abc import Iterable, Mapping, Sequence

from celery_gateway.errors import BadRequest
from celery_gateway.events.event import FILTER_FIELDS
from celery_gateway.events.filter import AnyOf, Clause, Filter
from celery_gateway.events.pattern import Glob, quoted, split, unescape, wildcards
from celery_gateway.events.spelling import CONTROL_PREFIX, KNOWN, correction, is_known, is_list

MAX_PATTERNS = 1_000
"""Maximum number of patterns in a filter; it bounds the cost per event."""
MAX_GLOBS = 100
"""Maximum number of patterns with wildcards, which are tried one by one."""
MAX_WILDCARDS = 50_000
"""Maximum number of wildcards in all patterns of a filter."""
MAX_PATTERN_CHARS = 1_000
"""Maximum length of a pattern in characters; an escaped character counts as one."""
MAX_CHARS = 256 << 10
"""Maximum length of all patterns of a filter together, with escapes."""
MAX_SPELLINGS_CHECKED = 20
"""How many types and states of a filter are checked for misspellings, of those that are not Celery's."""


def parse(parameters: Mapping[str, Iterable[str]]) -> Filter:
    """Return the filter of query parameters.

    Args:
        parameters: for each field of ``FILTER_FIELDS`` its values, after percent-decoding. Each value holds
            one or more patterns, separated by commas that are not escaped; spaces around a comma are dropped.

    Raises:
        BadRequest: as for ``build``.

    >>> parse({"name": ["shop.*, !shop.internal.*"]}) == build({"name": ["shop.*", "!shop.internal.*"]})
    True
    >>> parse({"type": ["task_failed"]})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    celery_gateway.errors.BadRequest: invalid type='task_failed': write 'task-failed', or ...
    """
    patterns: dict[str, list[str]] = {}
    patterns_left, chars_left = MAX_PATTERNS, MAX_CHARS
    for name, values in parameters.items():
        patterns[name] = texts = []
        for value in values:
            chars_left -= len(value)
            _check_limits(1, chars_left, name)  # before it is split
            parts = _split(value, patterns_left)
            patterns_left -= len(parts)
            _check_limits(patterns_left, chars_left, name)
            if len(parts) > 1 and ("" in parts or "!" in parts):
                raise BadRequest(
                    f"invalid {name}={quoted(value)}: a value beside a comma is empty; remove the comma, or"
                    r" write '\,' for a comma that is part of a value",
                    code="empty-value",
                    parameter=name,
                )
            texts += parts
    return build(patterns)


def build(patterns: Mapping[str, Sequence[str]]) -> Filter:
    """Return the filter of patterns by field. A comma in a pattern needs no escape.

    Raises:
        BadRequest: a pattern is empty, too long, or a misspelled type or state, or there are too many.
    """
    globs = _checked_globs([patterns], None)
    return _build(patterns, globs, _SpellingBudget())


def build_any(alternatives: Sequence[Mapping[str, Sequence[str]]], parameter: str) -> "Filter | AnyOf":
    """Return the filter that passes what any of several filters passes; the limits are those of one filter.

    Args:
        alternatives: patterns by field, for each filter.
        parameter: the parameter of the request, for errors about all filters.

    Raises:
        BadRequest: as for ``build``.
    """
    globs, spellings = _checked_globs(alternatives, parameter), _SpellingBudget()
    filters = frozenset([_build(patterns, globs, spellings) for patterns in alternatives])
    return next(iter(filters)) if len(filters) == 1 else AnyOf(filters)


def _checked_globs(alternatives: Sequence[Mapping[str, Sequence[str]]], parameter: str | None) -> set[str]:
    """Return the patterns with wildcards of filters that are within the limits.

    Args:
        alternatives: patterns by field, for each filter.
        parameter: the parameter for errors; ``None`` for the name of the field.

    Raises:
        BadRequest: a limit is exceeded.
    """
    patterns_left, chars_left, globs_left, wildcards_left = MAX_PATTERNS, MAX_CHARS, MAX_GLOBS, MAX_WILDCARDS
    for patterns in alternatives:
        for name, texts in patterns.items():
            patterns_left -= len(texts)
            if patterns_left >= 0:
                chars_left -= sum(map(len, texts))
            _check_limits(patterns_left, chars_left, parameter or name)
    globs: set[str] = set()
    for patterns in alternatives:
        for name, texts in patterns.items():
            counts = []
            for text in texts:
                if ("*" in text or "?" in text) and (count := wildcards(text)):
                    counts.append(count)
                    globs.add(text)
            if not counts:
                continue
            globs_left -= len(counts)
            wildcards_left -= sum(counts)
            if globs_left < 0:
                raise _too_many(parameter or name)
            if wildcards_left < 0:
                raise BadRequest(
                    f"too many wildcards in the filter: at most {MAX_WILDCARDS} are allowed; write"
                    r" '\*' and '\?' for literal stars and question marks",
                    code="too-many-values",
                    parameter=parameter or name,
                )
    return globs


def _check_limits(patterns_left: int, chars_left: int, parameter: str) -> None:
    if patterns_left < 0:
        raise _too_many(parameter)
    if chars_left < 0:
        raise BadRequest(
            f"the filter is too long: at most {MAX_CHARS} characters are allowed in all values together",
            code="value-too-long",
            parameter=parameter,
        )


def _too_many(parameter: str) -> BadRequest:
    return BadRequest(
        f"too many values in the filter: at most {MAX_PATTERNS} are allowed, {MAX_GLOBS} of them with"
        r" wildcards; write '\*' and '\?' for literal stars and question marks",
        code="too-many-values",
        parameter=parameter,
    )


class _SpellingBudget:
    """How many more types and states of a request are checked for misspellings."""

    def __init__(self) -> None:
        self.left = MAX_SPELLINGS_CHECKED


def _build(patterns: Mapping[str, Sequence[str]], globs: set[str], spellings: _SpellingBudget) -> Filter:
    clauses = []
    for index, name in enumerate(FILTER_FIELDS):
        texts = patterns.get(name)
        if not texts:
            continue
        for text in texts:
            _check_pattern(name, text)
        if name in KNOWN:
            for text in texts:
                _check_spelling(name, text.removeprefix("!"), text in globs, spellings)
        if len(texts) == 1 and texts[0] not in globs and texts[0][0] != "!":  # the common case
            clauses.append(Clause(index, frozenset((unescape(texts[0]),))))
            continue
        wanted, wanted_globs = _parsed([text for text in texts if text[0] != "!"], globs, 0)
        unwanted, unwanted_globs = _parsed([text for text in texts if text[0] == "!"], globs, 1)
        clauses.append(Clause(index, wanted, unwanted, wanted_globs, unwanted_globs))
    return Filter(tuple(clauses))


def _split(value: str, max_parts: int) -> list[str]:
    """Return the parts of a value between commas (see ``split``), without the spaces beside commas."""
    parts = split(value, max_parts)
    last = len(parts) - 1
    for at, part in enumerate(parts if last else ()):
        if at:
            part = part.lstrip(" ")
        parts[at] = part.rstrip(" ") if at < last else part
    return parts


def _parsed(patterns: Iterable[str], globs: set[str], start: int) -> tuple[frozenset[str], frozenset[Glob]]:
    """Return the exact values without escapes, and the globs.

    Args:
        patterns: all with a leading ``!``, or all without.
        globs: the patterns that have wildcards.
        start: the index at which the values begin in the patterns.
    """
    exact, parsed = set(), set()
    for pattern in patterns:
        if pattern in globs:
            parsed.add(Glob.parse(pattern[start:]))
        else:
            exact.add(unescape(pattern[start:]))
    return frozenset(exact), frozenset(parsed)


def _check_pattern(name: str, text: str) -> None:
    """Raise BadRequest if a pattern is empty or too long."""
    if not text:
        raise BadRequest(
            f"invalid {name}='': an empty value matches no event; leave the field out to match every event",
            code="empty-value",
            parameter=name,
        )
    if text == "!":
        raise BadRequest(
            rf"invalid {name}='!': the excluded value is empty; write '\!' for the value '!'",
            code="empty-value",
            parameter=name,
        )
    if len(text) > MAX_PATTERN_CHARS and (length := len(unescape(text))) > MAX_PATTERN_CHARS:
        raise BadRequest(
            f"invalid {name}: a value has {length} characters; at most {MAX_PATTERN_CHARS} are allowed",
            code="value-too-long",
            parameter=name,
        )


def _check_spelling(name: str, text: str, has_wildcards: bool, spellings: _SpellingBudget) -> None:
    """Raise BadRequest if a type or state is a misspelled one.

    Args:
        text: the pattern without a leading ``!``.
        has_wildcards: the pattern has wildcards that are not escaped.
    """
    is_control = name == "type" and text.startswith(CONTROL_PREFIX)
    if not is_control and (is_known(name, text) or spellings.left <= 0):
        return
    spellings.left -= 1
    value = unescape(text)
    if is_control:
        problem = "every stream has all control messages; a filter selects events only"
    elif "\\" not in text and is_list(name, text):
        problem = f"it is one value; separate several with commas ({name}=a,b), or use a list in JSON"
    elif (correct := correction(name, text if has_wildcards else value, is_glob=has_wildcards)) is None:
        return
    elif has_wildcards or wildcards(correct):
        problem = f"it matches nothing; write {correct!r}"
    else:
        problem = f"write {correct!r}, or {f'{value[:-1]}?'!r} for a custom {name}"
    raise BadRequest(
        f"invalid {name}={quoted(value)}: {problem}", code="bad-value", parameter=name, allowed=KNOWN[name]
    )
