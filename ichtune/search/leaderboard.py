"""The leaderboard: trials as rows, ranked, filtered and sorted by any column or searched parameter."""

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ichtune.errors import ConfigError, nearest
from ichtune.layout import Layout
from ichtune.search.cost_model import CostModel, n_epochs_spared, n_folds_of
from ichtune.search.ledger import FAILED, FINISHED, STOPPED, TrialRecord
from ichtune.search.trial_table import RUNNING, chosen_records, is_running

Row = dict[str, Any]
#: Columns of every row, in order; the searched parameters follow. One that is called like a column is found under
#: ``recipe.<name>``.
COLUMNS = (
    "search",
    "trial",
    "recipe_id",
    "status",
    "epochs",
    "rung",
    "best_loss",
    "last_loss",
    "rung_loss",
    "seconds",
    "epochs_spent",
    "spared_epochs",
    "spared_seconds",
    "judged_epochs",
    "duplicate_of",
    "reason",
)
#: Of two operators that begin alike, the longer one comes first.
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
#: So many numbers of a column are named one by one; of more than these the range.
MOST_NAMED = 8
_FILTER = re.compile(rf"\s*(?P<key>[^=!<>]+?)\s*(?P<op>{'|'.join(OPERATORS)})\s*(?P<value>.*?)\s*")
#: Numbers that differ by less than this share are the same: what a file holds and what was typed.
_SAME = 1e-9


def leaderboard_rows(layout: Layout, search: str | None = None) -> list[Row]:
    """Return a row a trial of one search, or of all, ranked; works while a search runs.

    Trials that finished come first, by the loss at the end, since that is what a run keeps; then those that were
    stopped or still run, by how far they came and by their score there, since scores can be compared at one rung only;
    then those that were never judged, by their last loss; those that failed come last. A duplicate stands after the
    trial that answered it.

    Returns:
        A mapping a trial: ``COLUMNS``, then the searched parameters by name. What does not apply is None: a trial that
        was stopped says what it was spared, ``spared_epochs`` and ``spared_seconds``; one that finished says what
        judging it on the way cost, ``judged_epochs``.

    Raises:
        DataError: there is no such search, or none at all.
    """
    ranked: list[tuple[tuple[Any, ...], Row]] = []
    for name, records in chosen_records(layout, search).items():
        runs = is_running(layout, name)
        model, n_folds = CostModel.fit(records), n_folds_of(records)
        places = {r.trial: rank_of(r.status, r.last_loss, r.rung_losses) for r in records}
        for record in records:
            row = _row(name, record, model, n_folds)
            if runs and not record.ended:
                row["status"] = RUNNING
            own = record.duplicate_of is None or record.from_search or record.duplicate_of not in places
            place = places[record.trial if own else record.duplicate_of]  # type: ignore[index]
            ranked.append(((*place, name, record.trial), row))
    return [row for _, row in sorted(ranked, key=lambda entry: entry[0])]


def rank_of(status: str, last_loss: float | None, rungs: Mapping[int, float]) -> tuple[int, float, float]:
    """Return by what trials are ranked, lowest first; ``leaderboard_rows`` says why.

    Args:
        status: how the trial ended.
        last_loss: after its last epoch, None before the first.
        rungs: its score at each rung, by the rung's number.
    """
    loss = last_loss if last_loss is not None and math.isfinite(last_loss) else math.inf
    if status == FAILED:
        return (3, 0.0, loss)
    if status == FINISHED:
        return (0, 0.0, loss)
    if rungs:
        rung = max(rungs)
        return (1, -float(rung), rungs[rung])
    return (2, 0.0, loss)


def _row(search: str, record: TrialRecord, model: CostModel, n_folds: int) -> Row:
    rungs = record.rung_losses
    spared = n_epochs_spared(record, n_folds) if record.status == STOPPED else None
    judged = max(0.0, -n_epochs_spared(record, n_folds)) if record.status == FINISHED else None
    figures: Row = {
        "search": search,
        "trial": record.trial,
        "recipe_id": record.recipe.recipe_id,
        "status": record.status,
        "epochs": len(record.curve),
        "rung": max(rungs) if rungs else None,
        "best_loss": record.best_loss,
        "last_loss": record.last_loss,
        "rung_loss": rungs[max(rungs)] if rungs else None,
        "seconds": model.seconds_of(record),
        "epochs_spent": record.n_epochs_spent,
        "spared_epochs": spared,
        "spared_seconds": None if spared is None else spared * (model.seconds_per_epoch(record.recipe) or 0.0),
        "judged_epochs": judged,
        "duplicate_of": record.duplicate_of,
        "reason": record.reason,
    }
    parameters = {f"recipe.{key}" if key in COLUMNS else key: value for key, value in record.parameters.items()}
    return figures | parameters


def parameter_names(rows: Sequence[Row]) -> list[str]:
    """Return the names of the searched parameters of some rows, in the order in which they come."""
    return list(dict.fromkeys(key for row in rows for key in row if key not in COLUMNS))


@dataclass(frozen=True)
class RowFilter:
    """One condition on rows: a column or parameter, an operator of ``OPERATORS``, and a value as it was written."""

    key: str
    op: str
    value: str

    @classmethod
    def parse(cls, text: str) -> "RowFilter":
        """Read ``lr<1e-3`` or ``windows=brain``.

        Raises:
            ConfigError: no operator, or no name before it.
        """
        found = _FILTER.fullmatch(text)
        if found is None:
            raise ConfigError(
                f"--filter must be a column, one of = != < <= > >= and a value, as in 'lr<1e-3' or 'windows=brain', "
                f"got {text!r}"
            )
        return cls(found["key"], found["op"], found["value"])

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Say whether a row fulfils it; a value that is not there equals ``none`` and nothing else.

        Raises:
            ConfigError: an order is asked for between things that are no numbers.
        """
        there = row.get(self.key)
        if self.op in ("=", "==", "!="):
            return OPERATORS[self.op](_equals(there, self.value), True)
        wanted = _number(self.value)
        if wanted is None or (there is not None and _number(there) is None):
            raise ConfigError(
                f"--filter {self.key}{self.op}{self.value} compares numbers, got "
                f"{self.value if wanted is None else there!r}; use = or !="
            )
        number = _number(there)
        return number is not None and OPERATORS[self.op](number, wanted)


def filter_rows(rows: Sequence[Row], filters: Sequence[RowFilter]) -> list[Row]:
    """Return the rows that fulfil every filter, in their order.

    Raises:
        ConfigError: a column that no row has (the nearest one is named).
    """
    for one in filters:
        _check_key(one.key, rows)
    return [row for row in rows if all(one.holds(row) for one in filters)]


def in_vain(rows: Sequence[Row], filters: Sequence[RowFilter]) -> list[str]:
    """Return a sentence for each filter that no row fulfils, with what there is in its column; none where some do.

    Args:
        rows: before they are filtered.
        filters: with columns that the rows have.
    """
    return [_what_there_is(one, rows) for one in filters if rows and not any(one.holds(row) for row in rows)]


def _what_there_is(one: RowFilter, rows: Sequence[Row]) -> str:
    there = {_text(value): value for row in rows if not _is_missing(value := row.get(one.key))}
    numbers = [number for value in there.values() if (number := _number(value)) is not None]
    if not there:
        has = "it is none for all of them"
    elif len(numbers) == len(there) and len(there) > MOST_NAMED:
        has = f"it lies in {min(numbers):g} to {max(numbers):g}"
    else:
        has = nearest(one.value, there)
    return f"no trial has {one.key} {one.op} {one.value}. {has[0].upper()}{has[1:]}"


def sort_rows(rows: Sequence[Row], key: str, reverse: bool = False) -> list[Row]:
    """Sort rows by a column or a searched parameter; those without a value come last either way.

    Args:
        rows: in any order, which is kept among equal ones.
        key: the column or parameter; with ``-`` before it from large to small.
        reverse: from large to small.

    Raises:
        ConfigError: a column that no row has (the nearest one is named).
    """
    if key.startswith("-"):
        key, reverse = key[1:], not reverse
    _check_key(key, rows)
    there = [row for row in rows if not _is_missing(row.get(key))]
    missing = [row for row in rows if _is_missing(row.get(key))]
    return sorted(there, key=lambda row: _order(row[key]), reverse=reverse) + missing


def _check_key(key: str, rows: Sequence[Row]) -> None:
    known = [*COLUMNS, *parameter_names(rows)]
    if rows and key not in known:
        raise ConfigError(f"the leaderboard has no column {key!r}. {nearest(key, known)}")


def _is_missing(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _order(value: Any) -> tuple[bool, float, str]:
    """Numbers before names."""
    number = _number(value) if not isinstance(value, str) else None
    return (number is None, 0.0 if number is None else number, _text(value))


def _equals(there: Any, wanted: str) -> bool:
    if _is_missing(there):
        return wanted.lower() in ("none", "")
    if not isinstance(there, str | bool) and (number := _number(wanted)) is not None:
        return math.isclose(float(there), number, rel_tol=_SAME)
    return _text(there) == wanted or (isinstance(there, bool) and _text(there) == wanted.lower())


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
