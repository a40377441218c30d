"""The report's figures: each takes plain values and returns inline SVG, or a PNG as a data address."""

import base64
import math
from collections.abc import Iterable, Mapping, Sequence

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ichtune.report.svg import (
    BLUE,
    CYCLE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    PURPLE,
    VERMILION,
    draw_svg,
)
from ichtune.windows import Window, window_image

#: Colour, line and mark of each way that a trial can have ended.
STATUS_STYLE: dict[str, tuple[str, str, str]] = {
    "finished": (BLUE, "-", "o"),
    "stopped": (ORANGE, "-", "s"),
    "failed": (VERMILION, "--", "x"),
    "interrupted": (PURPLE, ":", "^"),
}
OTHER_STATUS = (MUTED, "-", "o")
#: Multiples of it, modulo 1, never crowd.
GOLDEN = 0.6180339887
LOSS = "weighted log loss"
#: Losses beyond this multiple of the prior's are cut off: one diverged trial must not flatten all others.
CUT_AT_PRIORS = 1.5
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
        _legend(axes, ncols=3, handletextpad=0.2)

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
        _legend(axes, ncols=2)

    return draw_svg("reliability", "Reliability curve of the blend for the label any", draw, height_in=3.8)


def learning_curves(curves: Sequence[tuple[str, Sequence[tuple[int, float]]]], prior_loss: float | None) -> str:
    """Validation loss of every trial by epoch.

    Args:
        curves: status and ``(epoch, loss)`` points of each trial.
        prior_loss: loss of the label rates alone, drawn as a line; None draws none.
    """

    def draw(axes: Axes) -> None:
        for status in _statuses(status for status, _ in curves):
            color, line, marker = STATUS_STYLE.get(status, OTHER_STATUS)
            label: str | None = status
            for points in (points for s, points in curves if s == status and points):
                epochs, losses = zip(*points, strict=True)
                # only where a curve ends is there a mark: it shows a curve of one epoch too
                axes.plot(epochs, losses, line, color=color, alpha=0.75, lw=1.3, label=label)
                axes.plot(epochs[-1:], losses[-1:], marker, color=color, alpha=0.75, ms=4)
                label = None
        _prior_line(axes, [loss for _, points in curves for _, loss in points], prior_loss)
        axes.set(xlabel="epoch", ylabel=f"validation {LOSS}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _legend(axes, ncols=5)

    return draw_svg("curves", "Learning curves of all trials", draw, height_in=3.6)


def best_so_far(searches: Mapping[str, Sequence[tuple[int, float]]], prior_loss: float | None) -> str:
    """Lowest loss seen against epochs spent.

    Args:
        searches: for each search, in the order of its trials, epochs spent so far and that trial's best loss.
        prior_loss: as in ``learning_curves``.
    """

    def draw(axes: Axes) -> None:
        for (name, points), color in zip(searches.items(), _colors(len(searches)), strict=True):
            spent = [epochs for epochs, _ in points]
            losses = np.array([loss for _, loss in points])
            axes.plot(spent, losses, "o", color=color, alpha=0.45, ms=4, mec="none")
            best = np.minimum.accumulate(losses)
            axes.step(spent, best, where="post", color=color, lw=1.8, label=name)
        _prior_line(axes, [loss for points in searches.values() for _, loss in points], prior_loss)
        axes.set(xlabel="epochs spent, all trials", ylabel=f"best {LOSS}")
        _legend(axes, ncols=3)

    return draw_svg("best", "Best loss so far against epochs spent", draw, height_in=3.6)


def window_strip(groups: Mapping[str, Sequence[tuple[str, float]]], prior_loss: float | None) -> str:
    """Best loss of each trial by window set, one row a set.

    Args:
        groups: status and best loss of each trial, by window set, best set first.
        prior_loss: as in ``learning_curves``.
    """

    def draw(axes: Axes) -> None:
        dots = [
            (status, loss, place + 0.4 * (n * GOLDEN % 1 - 0.5))  # spread out, the same way each time
            for place, trials in enumerate(groups.values())
            for n, (status, loss) in enumerate(trials)
        ]
        for status in _statuses(status for status, _, _ in dots):
            color, _, marker = STATUS_STYLE.get(status, OTHER_STATUS)
            x, y = zip(*[(loss, height) for s, loss, height in dots if s == status], strict=True)
            axes.plot(x, y, marker, color=color, alpha=0.8, ms=5.5, label=status)
        for place, trials in enumerate(groups.values()):
            middle = float(np.median([loss for _, loss in trials]))
            axes.plot([middle] * 2, [place - 0.32, place + 0.32], color=INK, lw=1.6)
        _prior_line(axes, [loss for trials in groups.values() for _, loss in trials], prior_loss, vertical=True)
        axes.set_yticks(range(len(groups)), list(groups))
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_xlabel(f"best validation {LOSS} of a trial")
        axes.grid(axis="y", visible=False)
        _legend(axes, ncols=5, handletextpad=0.3)

    return draw_svg(
        "windows",
        "Best loss of each trial by window set",
        draw,
        width_in=6.2,
        height_in=1.3 + 0.36 * len(groups),
    )


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


def _legend(axes: Axes, ncols: int, handletextpad: float = 0.5) -> None:
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


def _prior_line(axes: Axes, losses: Sequence[float], prior_loss: float | None, vertical: bool = False) -> None:
    """Mark the prior's loss, and cut off losses far beyond it."""
    if prior_loss is None or not losses:
        return
    line = axes.axvline if vertical else axes.axhline
    line(prior_loss, color=MUTED, linewidth=1, linestyle=(0, (1, 2)), label="prior")
    cut = CUT_AT_PRIORS * prior_loss
    if max(losses) > cut and min(losses) < cut:
        limits = (axes.set_xlim, axes.set_ylim)[0 if vertical else 1]
        limits(min(losses) * 0.9, cut)


def _statuses(seen: Iterable[str]) -> list[str]:
    """The ways of ending that occur, in the table's order; unknown ones last."""
    present = set(seen)
    return [s for s in STATUS_STYLE if s in present] + sorted(present - set(STATUS_STYLE))


def _colors(n: int) -> list[str]:
    return [CYCLE[place % len(CYCLE)] for place in range(n)]


def _or_nan(value: float | str | None) -> float:
    return math.nan if value is None else float(value)
