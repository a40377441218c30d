"""The learning-rate finder's picture: loss over learning rate, with the rates that it suggests."""

import io
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from ichtune.report.svg import BLUE, GREEN, ORANGE
from ichtune.tables import whole_file
from ichtune.training.lr_finder import LrCurve

#: Losses that rise above the first by more than this multiple of the fall are cut off: they would flatten all else.
CUT_AT = 1.5


def write_lr_plot(curve: LrCurve, marks: Mapping[str, float], title: str, path: Path) -> None:
    """Write a PNG of a sweep.

    Args:
        curve: the sweep.
        marks: learning rates to mark, by what they are.
        title: what was trained on what.
        path: the PNG.

    Raises:
        StorageError: the file cannot be written.
    """
    figure = Figure(figsize=(7.2, 4.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(curve.lrs, curve.losses, color="#bbbbbb", linewidth=1.0, label="loss of each step")
    axes.plot(curve.lrs, curve.smoothed, color=BLUE, linewidth=2.0, label="running average")
    for (name, lr), colour in zip(marks.items(), (ORANGE, GREEN), strict=False):
        axes.axvline(lr, color=colour, linewidth=1.5, linestyle="--", label=f"{name}: {lr:.1e}")
    axes.set_xscale("log")
    first, lowest = curve.smoothed[0], min(curve.smoothed)
    fall = max(first - lowest, 1e-3)
    axes.set_ylim(lowest - 0.3 * fall, first + CUT_AT * fall)
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss, nats")
    axes.set_title(title, fontsize=10)
    axes.grid(visible=True, color="#e5e5e5")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    with whole_file(path) as temporary:
        temporary.write_bytes(buffer.getvalue())
