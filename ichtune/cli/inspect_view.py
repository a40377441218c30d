"""The data card in the terminal: one small table for each thing that is counted."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ichtune.labels import LABELS

if TYPE_CHECKING:
    from rich.console import Group

    from ichtune.report.data_card import DataCard, Spread

#: Rows of one list; ``--json`` has all of them.
MAX_ROWS = 20


def card_tables(card: "DataCard", name: str) -> "Iterator[Group]":
    """Lay out a data card; what is empty is left out.

    Args:
        card: what to show.
        name: what the workspace is called in the title.
    """
    from ichtune.report.data_card_figure import SPREAD_NAMES, bytes_in_words, cache_size, in_words

    title = f"Data card of {name}" + (" (generated data)" if card.is_generated else "")
    yield _table(title, ("", ">"), [(in_words(key), f"{n:,}") for key, n in card.counts.items()])
    yield _table(
        "Pixel encodings",
        ("encoding", ">slices", ">repaired"),
        [(row["encoding"], f"{row['slices']:,}", f"{row['repaired']:,}") for row in card.encodings],
    )
    yield _table("Matrices", ("pixels", ">slices"), [(name, f"{n:,}") for name, n in card.matrices.items()])
    yield _table("Series ordered by", ("", ">series"), [(in_words(k), f"{n:,}") for k, n in card.ordered_by.items()])
    yield _table(
        "Geometry, series",
        ("", ">min", ">5 %", ">median", ">95 %", ">max", ">unknown"),
        [(SPREAD_NAMES[name], *_spread(spread)) for name, spread in card.spreads.items()],
    )
    yield from _label_tables(card)
    yield _table(
        "Refused files and duplicates",
        ("reason", ">files", "example"),
        [(row["reason"], f"{row['files']:,}", row["example"]) for row in card.refused],
    )
    yield _table(
        "Label rows with an issue",
        ("issue", ">rows", "meaning"),
        [(row["issue"], f"{row['rows']:,}", row["meaning"]) for row in card.label_issues],
    )
    yield _table(
        "HU caches",
        ("size", "crop", "on disk", "cache_id"),
        [(cache_size(row), row["crop"], bytes_in_words(row), row["cache_id"]) for row in card.caches],
    )


def _label_tables(card: "DataCard") -> "Iterator[Group]":
    if not card.labels:
        return
    yield _table(
        "Labels, positive of all labelled",
        ("label", ">slices", ">%", ">series", ">%", ">patients", ">%"),
        [(label, *(cell for unit in units.values() for cell in _share(unit))) for label, units in card.labels.items()],
    )
    pairs = [(row, *(f"{card.co_occurrence[row][column]:,}" for column in LABELS)) for row in LABELS]
    yield _table("Slices with both labels", ("", *(f">{label}" for label in LABELS)), pairs)
    if not card.folds:
        return
    yield _table(
        "Folds, % of labelled slices",
        (">fold", ">patients", ">labelled", ">unlabelled", *(f">{label}" for label in LABELS)),
        [
            (
                f"{row['fold']}",
                *(f"{row[key]:,}" for key in ("patients", "labelled_slices", "unlabelled_slices")),
                *(f"{100 * row['rates'][label]:.2f}" for label in LABELS),
            )
            for row in card.folds
        ],
    )


def _share(unit: dict[str, Any]) -> tuple[str, str]:
    return f"{unit['positive']:,} of {unit['of']:,}", f"{100 * unit['rate']:.2f}"


def _spread(spread: "Spread") -> tuple[str, ...]:
    values = (spread.minimum, spread.p5, spread.median, spread.p95, spread.maximum)
    return (*("-" if value != value else f"{value:.4g}" for value in values), f"{spread.n_unknown:,}")


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> "Group":
    """A title and one table without lines; a column whose name begins with ``>`` is right-aligned."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    left_out = f" (the first {MAX_ROWS} of {len(rows)}; --json has all)" if len(rows) > MAX_ROWS else ""
    show_header = any(column.strip(">") for column in columns)
    table = Table(box=None, pad_edge=False, show_header=show_header)
    for column in columns:
        table.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    for row in rows[:MAX_ROWS]:
        table.add_row(*row)
    if not rows:
        table.add_row("none", *[""] * (len(columns) - 1))
    return Group(Text(title + left_out, style="bold"), table)
