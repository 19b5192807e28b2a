"""Small pictures of curves for HTML, drawn as SVG without a plotting package."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# The picture, and within it the place of the curves: left, top, right and bottom edge.
_WIDTH, _HEIGHT = 340, 132
_LEFT, _TOP, _RIGHT, _BOTTOM = 62, 8, 332, 92
# Both stand out from white and from black pages: 4.9 and 3.9 to 1. Words take the page's colour.
_COLOR = "#1f77b4"
_AXES = 'stroke="currentColor" stroke-opacity="0.35"'


@dataclass(frozen=True)
class Mark:
    """A point of a curve that is to be seen, and what the legend calls it."""

    x: float
    y: float
    label: str


def draw_curves(
    x: NDArray[np.float64], curves: Mapping[str, NDArray[np.float64]], mark: Mark | None = None
) -> str:
    """Draw curves of one colour, the second one dashed, with a legend.

    Parameters
    ----------
    x : ndarray of shape (n_points,)
        Rising.
    curves : mapping of str to ndarray of shape (n_points,)
        One or two curves by their names; what is not finite is left out.
    mark : Mark, default=None
        A point to be marked.

    Returns
    -------
    svg : str
        An element that goes into any page, light or dark; empty where there is nothing to draw.
    """
    finite = [float(value) for values in curves.values() for value in values[np.isfinite(values)]]
    if len(x) < 2 or not finite:
        return ""
    low, high = min(finite), max(finite)
    across, up = (float(x[0]), float(x[-1])), (low, high)
    parts = [_frame(across, up)]
    for name, values, dashes in zip(curves, curves.values(), ("", "5 3"), strict=False):
        points = [
            _place(place, value, across, up)
            for place, value in zip(x, values, strict=True)
            if math.isfinite(value)
        ]
        if len(points) == 1:
            # Of which no line is drawn.
            left, top = points[0].split(",")
            parts.append(f'<circle cx="{left}" cy="{top}" r="2" fill="{_COLOR}"/>')
        parts.append(
            f'<polyline points="{" ".join(points)}" fill="none" stroke="{_COLOR}" '
            f'stroke-width="1.6" stroke-dasharray="{dashes}"><title>{html.escape(name)}</title>'
            "</polyline>"
        )
    if mark is not None:
        place = _place(mark.x, mark.y, across, up).split(",")
        parts.append(f'<circle cx="{place[0]}" cy="{place[1]}" r="3.5" fill="{_COLOR}"/>')
    title = html.escape(f"curves of {' and '.join(curves)}")
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img" '
        f'aria-label="{title}" style="max-width: 100%; font: 11px sans-serif" '
        f'fill="currentColor">{"".join(parts)}{_legend(list(curves), mark)}</svg>'
    )


def _place(x: float, y: float, across: tuple[float, float], up: tuple[float, float]) -> str:
    """The point of the picture for a point of a curve, within these ranges."""
    right = (x - across[0]) / ((across[1] - across[0]) or 1.0)
    # What is constant lies in the middle.
    above = (y - up[0]) / (up[1] - up[0]) if up[1] > up[0] else 0.5
    return f"{_LEFT + right * (_RIGHT - _LEFT):.1f},{_BOTTOM - above * (_BOTTOM - _TOP):.1f}"


def _frame(across: tuple[float, float], up: tuple[float, float]) -> str:
    """The axes, and the numbers at their ends."""
    texts: list[tuple[float, float, str, str]] = [
        (_LEFT - 5, _TOP + 8, "end", f"{up[1]:.3g}"),
        (_LEFT - 5, _BOTTOM, "end", f"{up[0]:.3g}"),
        (_LEFT, _BOTTOM + 14, "start", f"{across[0]:g}"),
        ((_LEFT + _RIGHT) / 2, _BOTTOM + 14, "middle", "epoch"),
        (_RIGHT, _BOTTOM + 14, "end", f"{across[1]:g}"),
    ]
    if up[0] == up[1]:
        texts = [(_LEFT - 5, (_TOP + _BOTTOM) / 2 + 4, "end", f"{up[0]:.3g}"), *texts[2:]]
    line = f'<path d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}" fill="none" {_AXES}/>'
    return line + "".join(
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}">{text}</text>'
        for x, y, anchor, text in texts
    )


def _legend(names: list[str], mark: Mark | None) -> str:
    """A line of signs with their names."""
    height, left, parts = _HEIGHT - 8, float(_LEFT), []
    for name, dashes in zip(names, ("", "5 3"), strict=False):
        parts.append(
            f'<path d="M{left:g} {height - 4}h20" stroke="{_COLOR}" stroke-width="1.6" '
            f'stroke-dasharray="{dashes}"/>'
            f'<text x="{left + 25:g}" y="{height}">{html.escape(name)}</text>'
        )
        left += 40 + 6.2 * len(name)
    if mark is not None:
        parts.append(
            f'<circle cx="{left + 4:g}" cy="{height - 4}" r="3.5" fill="{_COLOR}"/>'
            f'<text x="{left + 13:g}" y="{height}">{html.escape(mark.label)}</text>'
        )
    return "".join(parts)
