"""The report's figures: each takes plain values and returns inline SVG, or a PNG as a data address."""

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ichtune.report.svg import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    draw_svg,
)
from ichtune.windows import Window, window_image

LOSS = "weighted log loss"
#: Losses beyond this multiple of the prior's are cut off: one diverged trial must not flatten all others.
CUT_AT_PRIORS = 1.5
#: A prior's loss beyond this multiple of every loss is not drawn.
FAR_ABOVE = 1.4
#: Side of a picture of a slice, pixels.
PICTURE_PX = 192


def ladder_plot(rows: Sequence[Mapping[str, float | str | None]]) -> str:
    """Dot plot of the score ladder.

    Args:
        rows: top to bottom, each ``title`` and, where known, ``oof_loss``, ``crossfit_loss``,
            ``crossfit_low``, ``crossfit_high`` and ``test_loss``.
    """

    def draw(axes: Axes) -> None:
        y = np.arange(len(rows))
        for place, row in enumerate(rows):
            low, high = row.get("crossfit_low"), row.get("crossfit_high")
            if low is not None and high is not None:
                axes.plot([float(low), float(high)], [place, place], color=BLUE, linewidth=2.5, alpha=0.55)
        dots = (
            ("oof_loss", "in sample", "o", PAPER, MUTED, 7.0),
            ("crossfit_loss", "cross-fitted, 95 % interval", "o", BLUE, BLUE, 6.0),
            ("test_loss", "test set", "D", ORANGE, PAPER, 6.5),
        )
        for key, label, marker, face, edge, size in dots:
            x = np.array([_or_nan(row.get(key)) for row in rows])
            if np.isfinite(x).any():
                axes.plot(x, y, marker, label=label, mfc=face, mec=edge, markersize=size, linestyle="none")
        axes.set_yticks(y, [str(row["title"]) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(f"{LOSS} (lower is better)")
        axes.grid(axis="y", visible=False)
        legend(axes, ncols=3, handletextpad=0.2)

    return draw_svg("ladder", "Score ladder as a dot plot", draw, width_in=6.2, height_in=1.2 + 0.32 * len(rows))


def reliability_plot(points: Sequence[Mapping[str, float]]) -> str:
    """Observed against predicted share of positive slices.

    Args:
        points: a mapping a bin: ``predicted``, ``observed``, ``low``, ``high`` and ``n`` slices.
    """

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--", label="perfect calibration")
        x, y = ([point[key] for point in points] for key in ("predicted", "observed"))
        for point in points:
            axes.plot([point["predicted"]] * 2, [point["low"], point["high"]], color=BLUE, alpha=0.55, lw=2.5)
        axes.plot(x, y, color=BLUE, marker="o", markersize=5, linewidth=1.2, label="blend, 95 % interval")
        axes.set(xlabel="predicted probability of any", ylabel="share that has a bleed")
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        legend(axes, ncols=2)

    return draw_svg("reliability", "Reliability curve of the blend for the label any", draw, height_in=3.8)


def slices_per_series(counts: Sequence[int]) -> str:
    """Histogram of the number of usable slices in a series."""

    def draw(axes: Axes) -> None:
        low, high = min(counts), max(counts)
        step = max(1, math.ceil((high - low + 1) / 40))
        axes.hist(counts, bins=[edge - 0.5 for edge in range(low, high + step + 1, step)], color=BLUE, rwidth=0.9)
        axes.set(xlabel="usable slices in a series", ylabel="series")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="x", visible=False)

    return draw_svg("series", "Histogram of slices per series", draw, height_in=2.8)


def label_rates(overall: Mapping[str, float], by_fold: Mapping[int, Mapping[str, float]]) -> str:
    """Share of positive slices of each label: a dot a fold, a line for all."""

    def draw(axes: Axes) -> None:
        for place, (label, rate) in enumerate(overall.items()):
            x = [100 * rates[label] for rates in by_fold.values()]
            axes.plot([100 * rate] * 2, [place - 0.32, place + 0.32], color=INK, lw=1.6)
            axes.plot(x, [place] * len(x), "o", color=GREEN, alpha=0.7, ms=6, mec="none", clip_on=False)
        axes.set_yticks(range(len(overall)), list(overall))
        axes.set_ylim(len(overall) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.set_xlabel("labelled slices with it, %")
        axes.grid(axis="y", visible=False)

    return draw_svg("rates", "Share of positive slices by label and fold", draw, height_in=2.8)


def picture(hu_HW: np.ndarray, window: Window) -> str:
    """Return one slice under one window as a grey PNG, ``data:image/png;base64,...``.

    Args:
        hu_HW: int16 (H, W), HU.
        window: what becomes black and white.
    """
    grey = np.rint(window_image(hu_HW, window) * 255).astype(np.uint8)
    scale = PICTURE_PX / max(grey.shape)
    if scale < 1:
        size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
        grey = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    png = cv2.imencode(".png", grey)[1]
    return "data:image/png;base64," + base64.b64encode(png.tobytes()).decode("ascii")


def legend(axes: Axes, ncols: int, handletextpad: float = 0.5) -> None:
    """Put the legend above the axes, if there is anything to name."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.figure.legend(
            handles,
            labels,
            loc="outside upper left",
            ncols=ncols,
            columnspacing=1.2,
            handletextpad=handletextpad,
        )


def prior_line(axes: Axes, losses: Sequence[float], prior_loss: float | None, vertical: bool = False) -> None:
    """Mark the prior's loss, and cut off losses far beyond it.

    Where every loss lies far below the prior's it is named and not drawn: it would press all others together.
    """
    if prior_loss is None or not losses:
        return
    style: dict[str, Any] = {"color": MUTED, "linewidth": 1, "linestyle": (0, (1, 2))}
    if prior_loss > FAR_ABOVE * max(losses):
        axes.plot([], [], label=f"prior: {prior_loss:.2f}, beyond the figure", **style)
        return
    line = axes.axvline if vertical else axes.axhline
    line(prior_loss, label="prior", **style)
    cut = CUT_AT_PRIORS * prior_loss
    if max(losses) > cut and min(losses) < cut:
        limits = (axes.set_xlim, axes.set_ylim)[0 if vertical else 1]
        limits(min(losses) * 0.9, cut)


def _or_nan(value: float | str | None) -> float:
    return math.nan if value is None else float(value)
