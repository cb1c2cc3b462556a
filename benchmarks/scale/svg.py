"""Draw line plots as SVG that is readable on light and dark pages. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

Line = Sequence[tuple[float, float]]
WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 50, 150, 34, 40
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7f7f7f")
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#333}.axis{stroke:#888;stroke-width:1}.grid{stroke:#8884}"
    ".title{font-weight:600}@media(prefers-color-scheme:dark){text{fill:#ddd}}"
)


def plot(title: str, x_label: str, lines: Mapping[str, Line], y_most: float) -> str:
    """Return a plot as SVG, with a line for each name. The title includes the unit. Values above `y_most` are
    drawn at the upper edge.
    """
    x_most = max(x for line in lines.values() for x, _ in line)
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(x: float, y: float) -> str:
        return f"{LEFT + x / x_most * width:.1f},{TOP + (1 - min(y, y_most) / y_most) * height:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<text class="title" x="{LEFT}" y="16">{escape(title)}</text>',
    ]
    for share in (0.0, 1 / 3, 2 / 3, 1.0):
        y = TOP + (1 - share) * height
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}h{width}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{share * y_most:g}</text>')
        x = LEFT + share * width
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 22}" text-anchor="middle">{share * x_most:g}</text>')
    parts.append(f'<path class="axis" fill="none" d="M{LEFT} {TOP}v{height}h{width}"/>')
    parts.append(
        f'<text x="{LEFT + width / 2:.0f}" y="{HEIGHT - 5}" text-anchor="middle">{escape(x_label)}</text>'
    )
    for number, (name, line) in enumerate(lines.items()):
        color, y = COLORS[number % len(COLORS)], TOP + 12 + 18 * number
        points = " ".join(at(x, y_value) for x, y_value in line)
        parts.append(f'<polyline fill="none" stroke="{color}" stroke-width="2" points="{points}"/>')
        parts.append(f'<path stroke="{color}" stroke-width="3" d="M{WIDTH - RIGHT + 10} {y - 4}h16"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 31}" y="{y}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
