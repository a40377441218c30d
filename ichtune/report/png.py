"""Pictures for the disk: one matplotlib figure, measured in pixels, written as PNG whole or not at all.

Nothing of pyplot is used, and the reader's own matplotlib settings have no part in it: the same figure gives the
same bytes.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ichtune.labels import LABELS
from ichtune.tables import whole_file

#: Colours of the labels on a dark page, told apart with any common colour blindness; ``any`` is white, as it belongs
#: to each. Source: Okabe and Ito, Color Universal Design, 2008.
LABEL_COLOURS: dict[str, str] = dict(
    zip(LABELS, ("#ffffff", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00"), strict=True)
)

#: Pixels an inch; text of 7.2 points is then 10 pixels high.
DPI = 100
#: Points of one pixel, for font sizes and lines.
POINTS_A_PX = 72 / DPI
_STYLE: dict[str, Any] = {"font.family": ["DejaVu Sans"], "figure.dpi": DPI, "savefig.dpi": DPI}


class Page:
    """A figure that is drawn on in pixels, measured from its top left corner.

    Attributes:
        width: width in pixels.
        height: height in pixels.
    """

    def __init__(self, figure: Figure, width: int, height: int) -> None:
        self._figure, self.width, self.height = figure, width, height

    def write(
        self,
        x: float,
        y: float,
        text: str,
        size_px: float,
        colour: str,
        *,
        align: str = "left",
        bold: bool = False,
        box: str | None = None,
    ) -> None:
        """Write text with its top at y; ``align`` says which end of it is at x, ``box`` colours what is behind."""
        self._figure.text(
            x / self.width,
            1 - y / self.height,
            text,
            color=colour,
            fontsize=size_px * POINTS_A_PX,
            fontweight="bold" if bold else "normal",
            va="top",
            ha=align,
            parse_math=False,
            bbox={"facecolor": box, "edgecolor": "none", "pad": 2.0} if box else None,
        )

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Return axes whose plotting area is this rectangle."""
        bottom = self.height - top - height
        place = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        return self._figure.add_axes(place)

    def paint(self, canvas: np.ndarray) -> None:
        """Cover the page with a picture of its size, uint8 (H, W, 3), pixel by pixel."""
        self._figure.figimage(canvas, 0, 0, origin="upper")


@contextmanager
def png_page(
    path: Path, width_px: int, height_px: int, background: str, style: Mapping[str, Any] | None = None
) -> Iterator[Page]:
    """Give an empty page to draw on, and write it when the block ends well.

    Args:
        path: the PNG to write; its folder is made.
        width_px: width in pixels.
        height_px: height in pixels.
        background: colour of the page.
        style: matplotlib settings beside the page's own, in force inside the block only.

    Raises:
        StorageError: the disk is full, or the folder may not be written.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        settings: Any = {**_STYLE, **(style or {})}
        matplotlib.rcParams.update(settings)
        figure = Figure(figsize=(width_px / DPI, height_px / DPI), facecolor=background)
        yield Page(figure, width_px, height_px)
        with whole_file(path) as temporary:
            figure.savefig(temporary, format="png", dpi=DPI, facecolor=background, metadata={"Software": "ichtune"})
