"""Draw a chart of horizontal bars as SVG. Its colors follow the reader's preference for light or dark pages.
Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.figures import VESTAL
from benchmarks.report.summary import is_ours

WIDTH, MARGIN, NAME_WIDTH, VALUE_WIDTH = 760, 16, 190, 150
BAR, GAP, GROUP_GAP, HEAD = 16, 5, 14, 50
OURS, VARIANT = "#e8590c", "#f4a26c"
PEERS = ("#4c78a8", "#7f7f7f", "#72a0c1", "#9c7fb5", "#6b9080", "#b0885a", "#a3a3a3")
STYLE = """text{font-family:system-ui,-apple-system,"Segoe UI",sans-serif;font-size:13px;fill:#1f2328}
.title{font-size:16px;font-weight:600}.quiet{fill:#59636e}.ours{font-weight:600}.page{fill:#ffffff}
.line{stroke:#59636e;stroke-width:1.5}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.quiet{fill:#9198a1}.page{fill:#0d1117}.line{stroke:#9198a1}}"""


@dataclass(frozen=True)
class Bar:
    """One bar, with the text `shown` beside it. Without a `value` there is only the text, such as `failed`.
    `spread`, the smallest and largest value, is drawn as a line.
    """

    name: str
    value: float | None
    shown: str
    spread: tuple[float, float] | None = None


@dataclass(frozen=True)
class Group:
    """Bars under a common label."""

    label: str
    bars: Sequence[Bar]


def chart(title: str, subtitle: str, groups: Sequence[Group]) -> str:
    """Return the chart as SVG. All bars have the same scale, which begins at zero."""
    most = max(
        (max(bar.value or 0, *(bar.spread or (0,))) for group in groups for bar in group.bars), default=0
    )
    scale = (WIDTH - 2 * MARGIN - NAME_WIDTH - VALUE_WIDTH) / (most or 1)
    colors = _colors(groups)
    y, parts = HEAD + 2, list[str]()
    for group in groups:
        y += GROUP_GAP + BAR
        parts.append(f'<text x="{MARGIN}" y="{y - 4}" class="quiet">{escape(group.label)}</text>')
        y += 2
        for bar in group.bars:
            parts += _bar(bar, y, scale, colors[bar.name])
            y += BAR + GAP
    height = y + MARGIN
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title, {chr(34): "&quot;"})}">',
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}" rx="6"/>',
        f'<text x="{MARGIN}" y="28" class="title">{escape(title)}</text>',
        f'<text x="{MARGIN}" y="48" class="quiet">{escape(subtitle)}</text>',
    )
    return "\n".join([*head, *parts, "</svg>"]) + "\n"


def _bar(bar: Bar, y: int, scale: float, color: str) -> list[str]:
    left, middle = MARGIN + NAME_WIDTH, y + BAR / 2
    weight = ' class="ours"' if is_ours(bar.name) else ""
    end = left + (bar.value or 0) * scale
    parts = [f'<text x="{left - 8}" y="{y + 13}" text-anchor="end"{weight}>{escape(bar.name)}</text>']
    if bar.value is not None:
        width = max(end - left, 1)
        parts.append(f'<rect x="{left}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2" fill="{color}"/>')
    if bar.spread and bar.spread[1] > bar.spread[0]:
        ends = [left + each * scale for each in bar.spread]
        parts.append(
            f'<line x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" y1="{middle:g}" y2="{middle:g}" class="line"/>'
        )
        end = max(end, ends[1])
    parts.append(f'<text x="{end + 8:.1f}" y="{y + 13}"{weight}>{escape(bar.shown)}</text>')
    return parts


def _colors(groups: Sequence[Group]) -> dict[str, str]:
    """Return a color for each name: Vestal's own color for its bars, and one for each peer in the order of
    appearance.
    """
    names = dict.fromkeys(bar.name for group in groups for bar in group.bars)
    peers = [name for name in names if not is_ours(name)]
    colors = {name: PEERS[number % len(PEERS)] for number, name in enumerate(peers)}
    return colors | {name: OURS if name == VESTAL else VARIANT for name in names if is_ours(name)}
