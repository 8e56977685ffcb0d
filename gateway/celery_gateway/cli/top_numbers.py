"""Numbers of ``top`` as short text: durations, rates, shares, and a row of bars. Pure."""

import math
from collections.abc import Sequence
from typing import Final

NOTHING: Final = "–"
"""What is shown for a number that is not known."""
BARS: Final = " ▁▂▃▄▅▆▇█"
ASCII_BARS: Final = " .:-=+*#@"
_UNITS: Final = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"))


def number(value: object) -> float | None:
    """Return a JSON number; ``None`` for all other values, and for numbers that are not finite.

    >>> number(3), number(True), number("3")
    (3.0, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer that no float can hold
        return None


def count(value: object) -> int:
    """Return a count; 0 for what is none.

    >>> count(12), count(-1), count(None)
    (12, 0, 0)
    """
    return max(0, int(number(value) or 0))


def duration(seconds: float | None) -> str:
    """Return a duration with its unit and two or three digits.

    >>> [duration(each) for each in (0.0004, 0.02, 0.999, 1.44, 59.96, 240, 5000, 400_000)]
    ['<1 ms', '20 ms', '999 ms', '1.4 s', '60 s', '4 min', '1.4 h', '4.6 d']
    """
    if seconds is None:
        return NOTHING
    seconds = max(0.0, seconds)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.001 else "<1 ms" if seconds else "0 ms"
    size, unit = next(each for each in _UNITS if seconds >= each[0] or each[0] == 1.0)
    value = seconds / size
    text = f"{value:.1f}" if value < 9.95 else f"{value:.0f}"
    return f"{text.removesuffix('.0')} {unit}"


def rate(per_minute: float | None) -> str:
    """Return a rate with at most three digits before the unit of thousands.

    >>> [rate(each) for each in (0.0, 0.4, 3.26, 118.2, 12_345.0)]
    ['0', '0.4', '3.3', '118', '12.3k']
    """
    if per_minute is None:
        return NOTHING
    if per_minute >= 9_999.5:
        return f"{per_minute / 1000:,.1f}k"
    return f"{per_minute:.1f}".removesuffix(".0") if per_minute < 9.95 else f"{per_minute:.0f}"


def share(part: int, whole: int) -> str:
    """Return a share in percent; never 0 % for a part that is not 0, never 100 % for a part of it.

    >>> share(0, 0), share(0, 9), share(1, 3000), share(21, 1000), share(999, 1000), share(3, 3)
    ('–', '0 %', '<0.1 %', '2.1 %', '99.9 %', '100 %')
    """
    if whole <= 0:
        return NOTHING
    if part <= 0 or part >= whole:
        return "0 %" if part <= 0 else "100 %"
    percent = 100.0 * part / whole
    if percent < 0.1:
        return "<0.1 %"
    return ">99.9 %" if percent > 99.9 else f"{percent:.1f} %"


def bars(values: Sequence[float], width: int, symbols: str = BARS) -> str:
    """Return values as a row of bars, the highest one full. Only 0 has no bar.

    Args:
        values: not negative.
        width: characters; neighbouring values are added up to fit.
        symbols: of nothing, and from the lowest to the full bar.

    >>> bars([0, 1, 4, 8], 4), bars([0, 0, 1, 1], 2), bars([], 3)
    (' ▁▄█', ' █', '')
    """
    if not values or width <= 0:
        return ""
    cells = min(width, len(values))
    edges = [len(values) * each // cells for each in range(cells + 1)]
    sums = [sum(values[start:end]) for start, end in zip(edges, edges[1:], strict=False)]
    top = max(sums)
    if top <= 0:
        return symbols[0] * cells
    full = len(symbols) - 1
    return "".join(symbols[math.ceil(full * value / top) if value > 0 else 0] for value in sums)
