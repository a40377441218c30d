"""The data card as a picture: one page of counts, distributions, labels, refusals, folds and caches."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ichtune.labels import LABELS
from ichtune.report.data_card import SPREAD_COLUMNS, UNITS, DataCard
from ichtune.report.png import Page, png_page
from ichtune.report.svg import BLUE, GREEN, ORANGE

PAPER, INK, MUTED, GRID, ALARM = "#ffffff", "#16161a", "#6a6a74", "#dcdce2", "#b3400a"
WIDTH_PX = 1500
#: Rows of one list on the picture; ``--json`` has all of them, and the picture says how many are left out.
MAX_ENTRIES = 12
_MARGIN_PX, _LINE_PX, _HEADING_PX = 40, 21, 30
_HISTOGRAM_PX, _LABELS_PX = 150, 250
_STYLE: dict[str, Any] = {
    "font.size": 8.6,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
}
#: What the distributions are called.
SPREAD_NAMES: dict[str, str] = {
    "slices_per_series": "slices in a series",
    "pixel_spacing_mm": "pixel spacing, mm",
    "slice_spacing_mm": "slice spacing, mm",
    "slice_thickness_mm": "slice thickness, mm",
    "tilt_deg": "gantry tilt, degrees",
}
_TILES = ("files", "usable_slices", "series", "studies", "patients", "labelled_slices", "unlabelled_slices", "refused")


def write_data_card(card: DataCard, path: Path, name: str) -> Path:
    """Draw the data card.

    Args:
        card: what to show.
        path: the PNG to write.
        name: what the workspace is called in the title.

    Raises:
        StorageError: the file cannot be written.
    """
    sections: list[tuple[int, Callable[[Page, float], None]]] = [
        (150, lambda page, top: _draw_counts(page, top, card, name)),
        (_n_lines(card.encodings, card.matrices, card.ordered_by), lambda page, top: _draw_bars(page, top, card)),
        (_HISTOGRAM_PX + 124, lambda page, top: _draw_histograms(page, top, card)),
        (_LABELS_PX + 170 if card.labels else _HEADING_PX + 46, lambda page, top: _draw_labels(page, top, card)),
        (_n_lines(card.refused, card.label_issues), lambda page, top: _draw_refusals(page, top, card)),
        (_n_lines(card.folds, card.caches), lambda page, top: _draw_folds(page, top, card)),
    ]
    height = 2 * _MARGIN_PX + sum(part for part, _ in sections)
    with png_page(path, WIDTH_PX, height, PAPER, _STYLE) as page:
        top = float(_MARGIN_PX)
        for part, draw in sections:
            draw(page, top)
            top += part
    return path


def _n_lines(*lists: Mapping[str, Any] | Sequence[Any]) -> int:
    """Height of lists side by side."""
    longest = max(min(len(entries), MAX_ENTRIES) + (len(entries) > MAX_ENTRIES) for entries in lists)
    return _HEADING_PX + max(longest, 1) * _LINE_PX + 36


def _draw_counts(page: Page, top: float, card: DataCard, name: str) -> None:
    page.write(_MARGIN_PX, top, f"Data card of {name}", 22, INK, bold=True)
    if card.is_generated:
        page.write(page.width - _MARGIN_PX, top + 4, "generated data", 17, ALARM, align="right")
    width = (page.width - 2 * _MARGIN_PX) / len(_TILES)
    for place, key in enumerate(_TILES):
        left = _MARGIN_PX + place * width
        page.write(left, top + 46, f"{card.counts[key]:,}", 24, ALARM if key == "refused" and card.counts[key] else INK)
        page.write(left, top + 76, in_words(key), 13, MUTED)
    others = [f"{in_words(k)} {n:,}" for k, n in card.counts.items() if k not in _TILES and n]
    for number, line in enumerate(textwrap.wrap(" · ".join(others), 190)[:2]):
        page.write(_MARGIN_PX, top + 102 + number * 18, line, 13, MUTED)


def in_words(key: str) -> str:
    """Return a key as a person would read it: ``usable_slices`` is ``usable slices``."""
    return {"repaired_12bit": "12-bit wraps repaired", "refused": "refused rows"}.get(key, key.replace("_", " "))


def _draw_bars(page: Page, top: float, card: DataCard) -> None:
    repaired = {row["encoding"]: f", {row['repaired']:,} repaired" for row in card.encodings if row["repaired"]}
    encodings = {row["encoding"]: row["slices"] for row in card.encodings}
    lists: tuple[tuple[str, dict[str, int], dict[str, str]], ...] = (
        ("Pixel encoding, slices", encodings, repaired),
        ("Matrix, slices", card.matrices, {}),
        ("Ordered by, series", {in_words(k): n for k, n in card.ordered_by.items()}, {}),
    )
    width = (page.width - 2 * _MARGIN_PX) / len(lists)
    for place, (heading, counts, remarks) in enumerate(lists):
        _bar_list(page, _MARGIN_PX + place * width, top, width - 40, heading, counts, remarks)


def _bar_list(
    page: Page, left: float, top: float, width: float, heading: str, counts: Mapping[str, int], remarks: dict[str, str]
) -> None:
    """A list of names, each with a bar in proportion to the largest count."""
    _heading(page, left, top, heading, len(counts))
    names_px, remark_px = 120, 160
    shown = dict(list(counts.items())[:MAX_ENTRIES])
    for number, (name, count) in enumerate(shown.items()):
        y = top + _HEADING_PX + number * _LINE_PX
        bar = max(2.0, (width - names_px - remark_px) * count / max(counts.values()))
        page.write(left, y, _shortened(name, 17), 13, INK)
        field = page.axes(left + names_px, y + 1, bar, 13)
        field.set_axis_off()
        field.add_patch(_whole(field, BLUE))
        page.write(left + names_px + bar + 8, y, f"{count:,}{remarks.get(name, '')}", 13, MUTED)


def _whole(axes: Axes, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((0, 0), 1, 1, transform=axes.transAxes, color=colour, linewidth=0)


def _draw_histograms(page: Page, top: float, card: DataCard) -> None:
    _heading(page, _MARGIN_PX, top, "Geometry, series")
    width = (page.width - 2 * _MARGIN_PX) / len(SPREAD_NAMES)
    for place, (name, title) in enumerate(SPREAD_NAMES.items()):
        left = _MARGIN_PX + place * width
        spread = card.spreads[name]
        if not spread.n_known:
            page.write(left, top + _HEADING_PX, f"{title}: unknown", 13, INK)
            continue
        page.write(left, top + _HEADING_PX, title, 13, INK)
        axes = page.axes(left + 34, top + _HEADING_PX + 28, width - 64, _HISTOGRAM_PX)
        values = card.series[SPREAD_COLUMNS[name]].to_numpy(float)
        axes.hist(values[np.isfinite(values)], bins=_bins(spread.minimum, spread.maximum), color=BLUE)
        axes.axvline(spread.median, color=ORANGE, linewidth=1.6)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        unknown = f", {spread.n_unknown:,} unknown" if spread.n_unknown else ""
        said = f"median {spread.median:.4g} (5–95 %: {spread.p5:.4g}–{spread.p95:.4g}){unknown}"
        page.write(left, top + _HEADING_PX + _HISTOGRAM_PX + 54, said, 11.5, MUTED)


def _bins(low: float, high: float) -> list[float]:
    """Edges of 40 bars; a single value gets a bar of its own."""
    return np.linspace(low, high, 41).tolist() if high > low else np.linspace(low - 0.5, low + 0.5, 12).tolist()


def _draw_labels(page: Page, top: float, card: DataCard) -> None:
    third = (page.width - 2 * _MARGIN_PX) / 3
    if not card.labels:
        _heading(page, _MARGIN_PX, top, "Labels")
        page.write(_MARGIN_PX, top + _HEADING_PX, "no slice is labelled", 13, MUTED)
        return
    _heading(page, _MARGIN_PX, top, "Positive share of labelled slices, series, patients")
    _heading(page, _MARGIN_PX + third, top, "Slices with both labels")
    _heading(page, _MARGIN_PX + 2 * third, top, "Positive share of labelled slices, a dot a fold")
    _rates(page.axes(_MARGIN_PX + 110, top + _HEADING_PX + 16, third - 170, _LABELS_PX), card)
    side = third - 190
    _pairs(page.axes(_MARGIN_PX + third + 110, top + _HEADING_PX + 16, side, _LABELS_PX), card)
    if card.folds:
        _fold_dots(page.axes(_MARGIN_PX + 2 * third + 110, top + _HEADING_PX + 16, third - 150, _LABELS_PX), card)
    else:
        page.write(_MARGIN_PX + 2 * third, top + _HEADING_PX, "no fold plan", 13, MUTED)


def _rates(axes: Axes, card: DataCard) -> None:
    marks = zip(UNITS, ("o", "s", "D"), (BLUE, GREEN, ORANGE), (6, 9, 6), strict=True)
    for unit, marker, colour, size in marks:
        rates = [100 * card.labels[label][unit]["rate"] for label in LABELS]
        style: dict[str, Any] = {"mfc": "none" if unit != UNITS[0] else colour, "mec": colour, "markersize": size}
        axes.plot(rates, range(len(LABELS)), marker, label=unit, clip_on=False, linestyle="none", **style)
    _label_axis(axes)
    axes.set_xlim(left=0)
    axes.set_xlabel("%", color=MUTED)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.12), ncols=3, handletextpad=0.1, columnspacing=1.0)


def _pairs(axes: Axes, card: DataCard) -> None:
    """Counts of slices, shaded by the share of the row's label that also has the column's."""
    counts = np.array([[card.co_occurrence[row][column] for column in LABELS] for row in LABELS], dtype=float)
    shares = counts / np.maximum(np.diag(counts), 1)[:, None]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for y, row in enumerate(counts):
        for x, count in enumerate(row):
            colour = PAPER if shares[y, x] > 0.55 else INK
            axes.text(x, y, f"{count:,.0f}", ha="center", va="center", color=colour, fontsize=7.6)
    axes.set_yticks(range(len(LABELS)), LABELS)
    axes.set_xticks(range(len(LABELS)), LABELS, rotation=28, ha="right")
    axes.tick_params(length=0, labelcolor=INK)
    axes.set_xlabel("shade: share of the row's slices", color=MUTED)


def _fold_dots(axes: Axes, card: DataCard) -> None:
    for place, label in enumerate(LABELS):
        rate = 100 * card.labels[label]["slices"]["rate"]
        axes.plot([rate] * 2, [place - 0.32, place + 0.32], color=INK, linewidth=1.5)
        folds = [100 * fold["rates"][label] for fold in card.folds]
        axes.plot(folds, [place] * len(folds), "o", color=GREEN, alpha=0.7, ms=6, mew=0, clip_on=False)
    _label_axis(axes)
    axes.set_xlim(left=0)
    axes.set_xlabel("%, line: all folds", color=MUTED)


def _label_axis(axes: Axes) -> None:
    axes.set_yticks(range(len(LABELS)), LABELS)
    axes.set_ylim(len(LABELS) - 0.5, -0.5)
    axes.grid(axis="x", color=GRID, linewidth=0.8)


def _draw_refusals(page: Page, top: float, card: DataCard) -> None:
    half = (page.width - 2 * _MARGIN_PX) / 2
    refused = [(f"{row['files']:,}", row["reason"], _end_of(row["example"], 50)) for row in card.refused]
    _table(page, _MARGIN_PX, top, "Refused files and duplicates, with an example", refused, (60, 72, 300))
    issues = [(f"{row['rows']:,}", row["issue"], _shortened(row["meaning"], 78)) for row in card.label_issues]
    _table(page, _MARGIN_PX + half, top, "Label rows with an issue", issues, (60, 72, 220))


def _draw_folds(page: Page, top: float, card: DataCard) -> None:
    half = (page.width - 2 * _MARGIN_PX) / 2
    folds = [
        (
            f"{row['fold']}",
            f"{row['patients']:,} patients, {row['labelled_slices']:,} labelled slices",
            f"{row['unlabelled_slices']:,} unlabelled",
        )
        for row in card.folds
    ]
    _table(page, _MARGIN_PX, top, "Folds", folds, (20, 32, 330))
    caches = [(cache_size(row), f"crop {row['crop']}, {bytes_in_words(row)}", row["cache_id"]) for row in card.caches]
    _table(page, _MARGIN_PX + half, top, "HU caches", caches, (60, 72, 300))


def cache_size(cache: Mapping[str, Any]) -> str:
    """Return the side of a cache's slices: ``256 px`` or ``native``."""
    return "native" if cache["size_px"] is None else f"{cache['size_px']} px"


def bytes_in_words(cache: Mapping[str, Any]) -> str:
    """Return what a slice takes in a cache as a person would say it: ``17.2 kB a slice``."""
    n_bytes = cache["bytes_per_slice"]
    if n_bytes is None:
        return "size unknown"
    return f"{n_bytes / 1e3:,.1f} kB a slice"


def _table(
    page: Page,
    left: float,
    top: float,
    heading: str,
    rows: Sequence[tuple[str, str, str]],
    places: tuple[float, float, float],
) -> None:
    """Three columns: a figure that ends at the first place, and texts that begin at the other two."""
    _heading(page, left, top, heading, len(rows))
    if not rows:
        page.write(left, top + _HEADING_PX, "none", 13, MUTED)
    for number, (figure, first, second) in enumerate(rows[:MAX_ENTRIES]):
        y = top + _HEADING_PX + number * _LINE_PX
        page.write(left + places[0], y, figure, 13, INK, align="right")
        page.write(left + places[1], y, first, 13, INK)
        page.write(left + places[2], y, second, 12, MUTED)


def _heading(page: Page, left: float, top: float, heading: str, n_entries: int = 0) -> None:
    """A list's heading, with how many of its entries are left out."""
    left_out = f" (the first {MAX_ENTRIES} of {n_entries:,})" if n_entries > MAX_ENTRIES else ""
    page.write(left, top, heading + left_out, 15, INK, bold=True)


def _shortened(text: str, n_letters: int) -> str:
    return text if len(text) <= n_letters else text[: n_letters - 1] + "…"


def _end_of(path: str, n_letters: int) -> str:
    """The end of a path, which tells more than its beginning."""
    return path if len(path) <= n_letters else "…" + path[1 - n_letters :]
