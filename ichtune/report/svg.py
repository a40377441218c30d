"""Matplotlib figures as inline SVG that takes its colours from the page: one file for light and dark.

Lines and text are drawn in stand-in colours, which become CSS variables in the SVG. Nothing of pyplot is
used, and the reader's own matplotlib settings have no part in it: the same figure gives the same text.
"""

import html
import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

#: Colours that can be told apart with any common colour blindness; the page may change their brightness.
#: Source: Okabe and Ito, Color Universal Design, 2008.
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9"
CYCLE = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY)
#: Stand-ins for text, quiet text, grid lines and the page itself.
INK, MUTED, GRID, PAPER = "#010203", "#040506", "#070809", "#0a0b0c"
CSS_OF = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    PAPER: "var(--paper)",
    BLUE: "var(--blue)",
    ORANGE: "var(--orange)",
    GREEN: "var(--green)",
    VERMILION: "var(--vermilion)",
    PURPLE: "var(--purple)",
    SKY: "var(--sky)",
}
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def draw_svg(
    name: str, description: str, draw: Callable[[Axes], None], width_in: float = 5.4, height_in: float = 3.2
) -> str:
    """Draw one figure with one pair of axes.

    Args:
        name: unique on the page; keeps the ids inside the SVG apart from those of other figures.
        description: what a person who cannot see the figure is told.
        draw: draws on the axes.
        width_in: width in inches of 72 points.
        height_in: height in inches.

    Returns:
        ``<svg ...>...</svg>``, the same text for the same drawing.
    """
    return draw_panels(name, description, lambda figure: draw(figure.add_subplot()), width_in, height_in)


def draw_panels(name: str, description: str, draw: Callable[[Figure], None], width_in: float, height_in: float) -> str:
    """Draw one figure with as many axes as ``draw`` adds to it; otherwise as ``draw_svg``."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        settings: Any = {**_STYLE, "svg.hashsalt": name}
        matplotlib.rcParams.update(settings)
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _inline(buffer.getvalue(), description, round(96 * width_in))


def _inline(text: str, description: str, width_px: int) -> str:
    """Keep the drawing alone: no prologue, metadata, page-wide style or repeated ids; never blown up."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<style.*?</style>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    for stand_in, css in CSS_OF.items():
        text = text.replace(stand_in, css)
    head, drawing = text.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    label = html.escape(description, quote=True)
    return f'{head} style="max-width: {width_px}px" role="img" aria-label="{label}">{drawing.strip()}'
