"""The ratios as a picture: a bar for each row, a mark for what it must reach. SVG without scripts. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.results import Reached

_LEFT, _WIDTH, _ROW, _BAR = 130, 480, 26, 16  # px
_MOST = 1.25  # where the picture ends, as a ratio; longer bars are cut, their figure is not
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#333}.bar{fill:#4878a8}.short{fill:#c0703a}"
    ".must{stroke:#222;stroke-width:2}.hand{stroke:#999;stroke-dasharray:3 3}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.must{stroke:#eee}}"
)


def bars(found: Sequence[Reached], title: str) -> str:
    """A picture of those of `found` that are shares of the rate by hand."""
    shares = [one for one in found if one.more and one.value < 2 * _MOST]
    height = (len(shares) + 2) * _ROW
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 60} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<text x="{_LEFT}" y="16">{escape(title)}</text>',
        f'<line class="hand" x1="{_x(1)}" x2="{_x(1)}" y1="{_ROW}" y2="{height - _ROW / 2}"/>',
    ]
    for number, one in enumerate(shares, start=1):
        top = number * _ROW + (_ROW - _BAR) / 2
        kind = "short" if one.holds is False else "bar"
        lines.append(f'<text x="{_LEFT - 8}" y="{top + 13}" text-anchor="end">{escape(one.name)}</text>')
        lines.append(
            f'<rect class="{kind}" x="{_LEFT}" y="{top}" width="{_x(one.value) - _LEFT:.0f}" height="{_BAR}"/>'
        )
        lines.append(f'<text x="{_x(one.value) + 6:.0f}" y="{top + 13}">{one.value:.0%}</text>')
        if one.must is not None:
            lines.append(
                f'<line class="must" x1="{_x(one.must)}" x2="{_x(one.must)}" y1="{top - 3}" y2="{top + _BAR + 3}"/>'
            )
    return "\n".join([*lines, "</svg>", ""])


def _x(share: float) -> float:
    return _LEFT + _WIDTH * min(share, _MOST) / _MOST
