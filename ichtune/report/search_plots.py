"""The figures of a search: curves with their rungs, what each parameter did, what decided."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from ichtune.report.plots import LOSS, legend, prior_line
from ichtune.report.search_axes import Axis, short_label
from ichtune.report.svg import (
    BLUE,
    CYCLE,
    GRID,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    PURPLE,
    VERMILION,
    draw_panels,
    draw_svg,
)

T = TypeVar("T")
#: Colour, line and mark of each way that a trial can have ended.
STATUS_STYLE: dict[str, tuple[str, str, str]] = {
    "finished": (BLUE, "-", "o"),
    "stopped": (MUTED, "-", "s"),
    "failed": (VERMILION, "--", "x"),
    "interrupted": (PURPLE, ":", "^"),
}
OTHER_STATUS = (MUTED, "-", "o")
#: Multiples of it, modulo 1, never crowd.
GOLDEN = 0.6180339887
#: More trials than this are thinned out in a figure, evenly over the ranking: a page must stay light.
MAX_DRAWN = 300
#: Parameters in the figures; the most important ones are kept.
MAX_PARAMETERS = 12
#: Trials that the parallel coordinates lift out: a tenth, within bounds.
BEST_SHARE, LEAST_BEST, MOST_BEST = 0.1, 3, 10
_COLUMNS = 3
#: Letters of all options that fit below a panel, and ticks of a grid.
_LEVEL, _GRID_TICKS = 36, 6
#: Letters that fit between two of the parallel axes.
_BETWEEN = 14
#: Lines beyond this number are drawn fainter.
_MANY = 100


@dataclass(frozen=True)
class Rung:
    """A trial's score at a rung.

    Attributes:
        epoch: of the trial, after which it was judged.
        loss: its score.
        branch: epochs that the branch trained which gave the score; 0 where the score came without one.
        is_end: whether the trial was stopped there.
    """

    epoch: int
    loss: float
    branch: float
    is_end: bool


@dataclass(frozen=True)
class Curve:
    """One trial's ``(epoch, loss)`` points and its scores at rungs."""

    status: str
    points: Sequence[tuple[int, float]]
    rungs: Sequence[Rung] = ()


@dataclass(frozen=True)
class Point:
    """One trial among the parameters.

    Attributes:
        status: how it ended.
        value: by which trials are compared.
        rank: its place on the leaderboard; lower is better.
        params: by flat name.
    """

    status: str
    value: float
    rank: int
    params: Mapping[str, Any]


def thinned(ranked: Sequence[T], most: int = MAX_DRAWN, n_first: int = MOST_BEST) -> list[T]:
    """Return at most so many items: the first ones and the last one, and of those between an even choice."""
    if len(ranked) <= most:
        return list(ranked)
    places = np.linspace(n_first, len(ranked) - 1, most - n_first)
    return [*ranked[:n_first], *(ranked[round(place)] for place in places)]


def learning_curves(curves: Sequence[Curve], prior_loss: float | None) -> str:
    """Validation loss of every trial by epoch, and its scores at the rungs.

    Args:
        curves: one a trial.
        prior_loss: loss of the label rates alone, drawn as a line; None draws none.
    """

    def draw(axes: Axes) -> None:
        for status in _statuses(curve.status for curve in curves if curve.points):
            color, line, marker = STATUS_STYLE.get(status, OTHER_STATUS)
            faint = 0.45 if status == "stopped" else 0.8
            label: str | None = status
            for points in (c.points for c in curves if c.status == status and c.points):
                epochs, losses = zip(*points, strict=True)
                # only where a curve ends is there a mark: it shows a curve of one epoch too
                axes.plot(epochs, losses, line, color=color, alpha=faint, lw=1.2, label=label)
                axes.plot(epochs[-1:], losses[-1:], marker, color=color, alpha=faint, ms=4)
                label = None
        _draw_rungs(axes, curves)
        prior_line(axes, [loss for curve in curves for _, loss in curve.points], prior_loss)
        axes.set(xlabel="epoch", ylabel=f"validation {LOSS}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend(axes, ncols=7)

    return draw_svg("curves", "Learning curves of all trials with their scores at the rungs", draw, 10.2, 4.2)


def _draw_rungs(axes: Axes, curves: Sequence[Curve]) -> None:
    """A line where rungs lie, a diamond for each score, and the branch that led to it dashed."""
    rungs = [(curve, rung) for curve in curves for rung in curve.rungs]
    for epoch in sorted({rung.epoch for _, rung in rungs}):
        axes.axvline(epoch, color=GRID, lw=6, alpha=0.6, zorder=0)
    for curve, rung in rungs:
        start = dict(curve.points).get(rung.epoch)
        if start is not None and rung.branch > 0:
            ends = [rung.epoch, rung.epoch + rung.branch], [start, rung.loss]
            axes.plot(*ends, color=ORANGE, lw=0.8, ls=(0, (3, 2)), alpha=0.7)
    for is_end, face, label in ((False, ORANGE, "rung: went on"), (True, PAPER, "rung: stopped there")):
        marks = [(rung.epoch + rung.branch, rung.loss) for _, rung in rungs if rung.is_end is is_end]
        if marks:
            x, y = zip(*marks, strict=True)
            axes.plot(x, y, "D", mfc=face, mec=ORANGE, mew=1.0, ms=3.6, ls="none", label=label)


def best_so_far(searches: Mapping[str, Sequence[tuple[float, float]]], prior_loss: float | None) -> str:
    """Lowest loss seen against epochs spent.

    Args:
        searches: for each search, in the order of its trials, epochs spent so far and that trial's best loss.
        prior_loss: as in ``learning_curves``.
    """

    def draw(axes: Axes) -> None:
        for place, (name, points) in enumerate(searches.items()):
            color = CYCLE[place % len(CYCLE)]
            spent = [epochs for epochs, _ in points]
            losses = np.array([loss for _, loss in points])
            axes.plot(spent, losses, "o", color=color, alpha=0.45, ms=4, mec="none")
            best = np.minimum.accumulate(losses)
            axes.step(spent, best, where="post", color=color, lw=1.8, label=name)
        prior_line(axes, [loss for points in searches.values() for _, loss in points], prior_loss)
        axes.set(xlabel="epochs spent, all trials", ylabel=f"best {LOSS}")
        legend(axes, ncols=3)

    return draw_svg("best", "Best loss so far against epochs spent", draw, height_in=3.6)


def window_strip(groups: Mapping[str, Sequence[tuple[str, float]]], prior_loss: float | None) -> str:
    """Best loss of each trial by window set, one row a set.

    Args:
        groups: status and best loss of each trial, by window set, best set first.
        prior_loss: as in ``learning_curves``.
    """

    def draw(axes: Axes) -> None:
        dots = [
            (status, loss, place + 0.4 * _jitter(n))
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
        prior_line(axes, [loss for trials in groups.values() for _, loss in trials], prior_loss, vertical=True)
        axes.set_yticks(range(len(groups)), list(groups))
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_xlabel(f"best validation {LOSS} of a trial")
        axes.grid(axis="y", visible=False)
        legend(axes, ncols=5, handletextpad=0.3)

    return draw_svg(
        "windows",
        "Best loss of each trial by window set",
        draw,
        width_in=6.2,
        height_in=1.3 + 0.36 * len(groups),
    )


def slices(name: str, axes_of: Sequence[Axis], points: Sequence[Point], what: str) -> str:
    """The value that trials are compared by against each parameter, a panel a parameter, all on one scale.

    Args:
        name: of the search; keeps figures of several apart.
        axes_of: the parameters, ``MAX_PARAMETERS`` at most.
        points: the trials.
        what: the value in words.
    """
    n_columns = min(_COLUMNS, len(axes_of))
    n_rows = math.ceil(len(axes_of) / n_columns)

    def draw(figure: Figure) -> None:
        first: Axes | None = None
        for place, axis in enumerate(axes_of):
            panel = figure.add_subplot(n_rows, n_columns, place + 1, sharey=first)
            first = first or panel
            _draw_slice(panel, axis, points, has_legend=place == 0)
            if place % n_columns:
                panel.tick_params(labelleft=False)
        if first is not None:
            figure.supylabel(what, color=MUTED, fontsize=10)
            low, high = value_range([point.value for point in points])
            first.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))
            legend(first, ncols=5, handletextpad=0.3)

    described = f"{what} of each trial against each searched parameter of search {name}"
    return draw_panels(f"slices-{name}", described, draw, 3.4 * n_columns, 0.6 + 2.1 * n_rows)


def _draw_slice(panel: Axes, axis: Axis, points: Sequence[Point], has_legend: bool) -> None:
    top = value_range([point.value for point in points])[1]
    for status in _statuses(point.status for point in points):
        color, _, marker = STATUS_STYLE.get(status, OTHER_STATUS)
        marks = [
            (number + axis.spread * _jitter(n), min(point.value, top))
            for n, point in enumerate(points)
            if point.status == status and (number := axis.number(point.params.get(axis.name))) is not None
        ]
        x, y = zip(*marks, strict=True) if marks else ((), ())
        face = PAPER if status == "stopped" else color
        panel.plot(
            x, y, marker, color=color, mfc=face, alpha=0.8, ms=4, ls="none", label=status if has_legend else None
        )
    panel.set_xlabel(axis.name)
    if axis.options:
        panel.set_xlim(-0.5, len(axis.options) - 0.5)
        tilt: dict[str, Any] = {"rotation": 20, "ha": "right"} if len("".join(axis.options)) > _LEVEL else {}
        panel.set_xticks(range(len(axis.options)), [short_label(option) for option in axis.options], fontsize=8, **tilt)
        panel.grid(axis="x", visible=False)
    elif axis.grid:
        every = math.ceil(len(axis.grid) / _GRID_TICKS)
        panel.set_xticks(axis.grid[::every], [f"{number:g}" for number in axis.grid[::every]])
    elif axis.log:
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.xaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_locator(MaxNLocator(5))


def value_range(values: Sequence[float]) -> tuple[float, float]:
    """Return from where to where values are drawn: bad ones beyond are drawn at the edge, so that the others show."""
    low, middle, high = (float(np.quantile(values, share)) for share in (0.0, 0.5, 1.0))
    cut = middle + 3.0 * (middle - low) if middle > low else high
    high = min(high, max(cut, middle))
    return (low, high) if high > low else (low - 0.5 * abs(low) - 1e-6, low + 0.5 * abs(low) + 1e-6)


def parallel_coordinates(name: str, axes_of: Sequence[Axis], points: Sequence[Point], what: str) -> str:
    """A line a trial across all parameters to its value; those that the leaderboard puts first are lifted out.

    Args:
        name: as in ``slices``.
        axes_of: the parameters from left to right.
        points: the trials.
        what: the value in words, the last axis.
    """
    ranked = sorted(points, key=lambda point: point.rank)
    n_best = min(max(LEAST_BEST, round(BEST_SHARE * len(ranked))), MOST_BEST, len(ranked))
    low, high = value_range([point.value for point in points])
    last = Axis(what, low, high)
    columns = [*axes_of, last]
    faint = 0.4 if len(points) <= _MANY else 0.2

    def draw(axes: Axes) -> None:
        for place in reversed(range(len(ranked))):
            point, is_best = ranked[place], place < n_best
            heights = [*(_height(axis, point, place) for axis in axes_of), last.share(point.value) or 0.0]
            label = {0: f"first {n_best} of the leaderboard", n_best: "other trials"}.get(place)
            color, width, alpha = (BLUE, 1.6, 0.9) if is_best else (MUTED, 0.7, faint)
            axes.plot(range(len(columns)), heights, color=color, lw=width, alpha=alpha, label=label)
        for place, axis in enumerate(columns):
            axes.axvline(place, color=INK, lw=0.8)
            for share, text in axis.ticks:
                box = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.6, "alpha": 0.85}
                axes.text(
                    place + 0.03, share, short_label(text, _BETWEEN), fontsize=7.5, va="center", bbox=box, zorder=5
                )
        axes.set_xlim(-0.2, len(columns) - 0.4)
        axes.set_ylim(-0.2, 1.06)
        is_absent = any(None in _places(axes_of, point) for point in points)
        axes.set_yticks(*(([_ABSENT], ["not there"]) if is_absent else ([],)))
        axes.set_xticks(range(len(columns)), [axis.name for axis in columns], rotation=20, ha="right")
        axes.grid(visible=False)
        axes.spines[["left", "bottom"]].set_visible(False)
        legend(axes, ncols=2)

    described = f"Parallel coordinates of the parameters and the {what} of search {name}"
    return draw_panels(
        f"parallel-{name}", described, lambda figure: draw(figure.add_subplot()), max(5.4, 1.02 * len(columns)), 4.4
    )


#: Height of a parameter that a condition leaves out, below every axis.
_ABSENT = -0.14


def _places(axes_of: Sequence[Axis], point: Point) -> list[float | None]:
    return [axis.number(point.params.get(axis.name)) for axis in axes_of]


def _height(axis: Axis, point: Point, place: int) -> float:
    share = axis.share(point.params.get(axis.name))
    if share is None:
        return _ABSENT
    return share + _jitter(place) * 0.12 / max(1, len(axis.options) - 1) if axis.options else share


def importance_bars(name: str, shares: Mapping[str, tuple[Mapping[str, float], Mapping[str, float]]]) -> str:
    """Shares of the parameters by each method, and what shuffled losses give.

    Args:
        name: as in ``slices``.
        shares: for each method the parameters' shares and what chance gives, the first method's largest first.
    """
    names = list(dict.fromkeys(one for found, _ in shares.values() for one in found))[:MAX_PARAMETERS]
    thickness = 0.8 / len(shares)

    def draw(axes: Axes) -> None:
        for row, (method, (found, chance)) in enumerate(shares.items()):
            y = np.arange(len(names)) - 0.4 + thickness * (row + 0.5)
            width = [100 * found.get(one, 0.0) for one in names]
            axes.barh(y, width, height=0.9 * thickness, color=CYCLE[row], label=method)
            by_chance = [100 * chance.get(one, math.nan) for one in names]
            axes.plot(by_chance, y, "|", color=INK, ms=8, mew=1.6, ls="none", label=None if row else "by chance")
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel("share of the importance, %")
        axes.grid(axis="y", visible=False)
        legend(axes, ncols=3)

    described = f"Importance of each searched parameter of search {name}"
    return draw_svg(f"importance-{name}", described, draw, width_in=6.2, height_in=1.2 + 0.42 * len(names))


def _jitter(n: int) -> float:
    """Between -0.5 and 0.5, spread out, the same way each time."""
    return n * GOLDEN % 1 - 0.5


def _statuses(seen: Iterable[str]) -> list[str]:
    """The ways of ending that occur, in the table's order; unknown ones last."""
    present = set(seen)
    return [s for s in STATUS_STYLE if s in present] + sorted(present - set(STATUS_STYLE))
