"""The chart: CPU time per delivery, one panel per load, as an SVG for light and dark pages.

A bar more than twice as long as the next one is drawn shortened, with a break and its figure.
"""

from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH = 760
BAR_LEFT, BAR_RIGHT = 230, 680
BAR_HEIGHT, ROW_HEIGHT = 18, 28
TITLE_HEIGHT, PANEL_TITLE_HEIGHT, MARGIN = 58, 34, 16
BROKEN_BEYOND = 2.0

STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #24292f; }
.title { font-size: 16px; font-weight: 600; }
.panel { font-weight: 600; }
.note { font-size: 12px; fill: #57606a; }
.bar { fill: #8c959f; }
.own { fill: #2da44e; }
.axis { stroke: #8c959f; }
.break { stroke: #ffffff; stroke-width: 3; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .note { fill: #9198a1; }
  .bar { fill: #6e7681; }
  .own { fill: #3fb950; }
  .break { stroke: #0d1117; }
}"""


class Bar(NamedTuple):
    """A row of a panel; ``is_own`` marks the gateway."""

    label: str
    value: float
    is_own: bool


class Panel(NamedTuple):
    title: str
    bars: Sequence[Bar]


def chart(panels: Sequence[Panel], title: str, note: str, unit: str) -> str:
    """Return an SVG document.

    Args:
        unit: the text after each figure.
    """
    parts = [
        f'<text class="title" x="{MARGIN}" y="26">{escape(title)}</text>',
        f'<text class="note" x="{MARGIN}" y="45">{escape(note)}</text>',
    ]
    top = TITLE_HEIGHT
    for panel in panels:
        parts += _panel(panel, top, unit)
        top += PANEL_TITLE_HEIGHT + ROW_HEIGHT * len(panel.bars) + MARGIN
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}"'
            f' viewBox="0 0 {WIDTH} {top}" role="img" aria-label="{escape(title)}">',
            f"<style>\n{STYLE}\n</style>",
            *parts,
            "</svg>\n",
        )
    )


def _panel(panel: Panel, top: float, unit: str) -> list[str]:
    parts = [f'<text class="panel" x="{MARGIN}" y="{top + 20}">{escape(panel.title)}</text>']
    top += PANEL_TITLE_HEIGHT
    values = sorted(bar.value for bar in panel.bars)
    longest = values[-1] if values else 1.0
    if len(values) > 1 and longest > BROKEN_BEYOND * values[-2]:
        longest = values[-2] * 1.2
    for number, bar in enumerate(panel.bars):
        y = top + number * ROW_HEIGHT
        middle = y + BAR_HEIGHT / 2
        is_broken = bar.value > longest
        width = max(1.0, min(1.0, bar.value / longest) * (BAR_RIGHT - BAR_LEFT))
        kind = "bar own" if bar.is_own else "bar"
        parts += [
            f'<text x="{BAR_LEFT - 10}" y="{middle + 4.5}" text-anchor="end">{escape(bar.label)}</text>',
            f'<rect class="{kind}" x="{BAR_LEFT}" y="{y}" width="{width:.1f}" height="{BAR_HEIGHT}" rx="2"/>',
        ]
        if is_broken:
            x = BAR_RIGHT - 24
            parts.append(f'<path class="break" d="M{x} {y + BAR_HEIGHT + 2} l6 -{BAR_HEIGHT + 4}"/>')
        parts.append(
            f'<text x="{BAR_LEFT + width + 7:.1f}" y="{middle + 4.5}">{bar.value:.2f}{escape(unit)}</text>'
        )
    bottom = top + ROW_HEIGHT * len(panel.bars) - (ROW_HEIGHT - BAR_HEIGHT) + 4
    parts.append(f'<path class="axis" d="M{BAR_LEFT} {top - 4} V{bottom}"/>')
    return parts
