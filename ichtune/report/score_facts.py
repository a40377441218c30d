"""What a blend is worth beside the metric, and what of it is luck or suspect, as plain values for the page.

Dimension key: L labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ichtune.ensemble.blenders.auto import Tried
from ichtune.ensemble.comparisons import WAY
from ichtune.ensemble.ladder import BEST_SINGLE
from ichtune.ensemble.members.suspicions import FOLD
from ichtune.labels import LABELS

#: Scores on the page, by their key in blend.json.
TITLES = {
    "auc": "AUC",
    "average_precision": "average precision",
    "sensitivity_at_specificity_0.9": "sensitivity at specificity 0.9",
    "sensitivity_at_specificity_0.95": "sensitivity at specificity 0.95",
    "specificity_at_sensitivity_0.9": "specificity at sensitivity 0.9",
    "specificity_at_sensitivity_0.95": "specificity at sensitivity 0.95",
    "calibration_error": "expected calibration error",
}
MEMBERS, WAYS = "members_compared", "ways_compared"
CHOICES = {BEST_SINGLE: "the best of {n} runs", WAY: "one of {n} ways to blend"}


@dataclass(frozen=True)
class ScoreValue:
    """A score with its interval; None where it is undefined, and why."""

    estimate: float | None
    low: float | None
    high: float | None
    reason: str = ""


@dataclass(frozen=True)
class ScoreRow:
    """One score: of each label in label order, then pooled over labels."""

    title: str
    values: tuple[ScoreValue, ...]


@dataclass(frozen=True)
class ScoreTable:
    """The scores of slices or of series; ``n_positive`` in label order."""

    unit: str
    n: int
    n_positive: tuple[int, ...]
    rows: tuple[ScoreRow, ...]


@dataclass(frozen=True)
class LuckRow:
    """A choice by loss: the loss as it is, what of it is luck, and the loss without it, with its interval (nats)."""

    title: str
    loss: float
    luck: float
    corrected: float
    low: float
    high: float


@dataclass(frozen=True)
class ComparedRow:
    """A candidate's loss and its difference to another one (nats), with the interval that holds for all at once."""

    title: str
    loss: float
    estimate: float
    low: float
    high: float
    is_chosen: bool = False


def score_tables(about: Mapping[str, Any]) -> tuple[ScoreTable, ...]:
    """Return the scores that blend.json holds, of slices and then of series; nothing of an older one."""
    scores = about.get("scores") or {}
    return tuple(_table(unit, scores[unit]) for unit in ("slices", "series") if unit in scores)


def _table(unit: str, told: Mapping[str, Any]) -> ScoreTable:
    columns = [*(told["labels"][label] for label in LABELS), told["pooled"]]
    rows = (
        ScoreRow(title, tuple(_value(column[key]) for column in columns))
        for key, title in TITLES.items()
        if all(key in column for column in columns)
    )
    counts = tuple(int(told["labels"][label]["n_positive"]) for label in LABELS)
    return ScoreTable(unit, int(told["n"]), counts, tuple(rows))


def _value(told: Mapping[str, Any]) -> ScoreValue:
    return ScoreValue(told["estimate"], told["low"], told["high"], str(told.get("reason") or ""))


def luck_rows(about: Mapping[str, Any]) -> tuple[LuckRow, ...]:
    """Return what of the lead of each choice is luck."""
    return tuple(
        LuckRow(
            title=CHOICES.get(name, name).format(n=one["n_candidates"]),
            loss=one["loss"],
            luck=one["estimate"],
            corrected=one["corrected"]["estimate"],
            low=one["corrected"]["low"],
            high=one["corrected"]["high"],
        )
        for name, one in (about.get("optimism") or {}).items()
    )


def chosen_way(about: Mapping[str, Any]) -> str:
    """Return the way to blend that was chosen, as people call it; empty where none was."""
    tried = ((about.get("learned") or {}).get("blender") or {}).get("tried") or []
    return next((Tried(**one).title for one in tried if one.get("chosen")), "")


def compared_rows(about: Mapping[str, Any], key: str) -> tuple[ComparedRow, ...]:
    """Return the comparisons of ``members_compared`` or ``ways_compared``, in the order in which they were kept."""
    chosen = chosen_way(about)
    return tuple(
        ComparedRow(
            title=str(one["name"]),
            loss=one["loss"],
            estimate=one["together"]["estimate"],
            low=one["together"]["low"],
            high=one["together"]["high"],
            is_chosen=key == WAYS and one["name"] == chosen,
        )
        for one in about.get(key) or []
    )


def search_caveat(about: Mapping[str, Any]) -> str:
    """Return a sentence on members that a search chose; empty where none was."""
    searches = about.get("searches") or {}
    if not searches:
        return ""
    told = ", ".join(f"{name} ({n} trials)" for name, n in searches.items())
    return (
        f"Some runs won a search: {told}. They were chosen among its trials on some of these patients, before any "
        "blend, so that every loss here is a little too low; only patients whom no search has seen are free of that."
    )


def warnings_of(about: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a sentence on each suspicion and each pair of members that is nearly the same; it names no slice."""
    names = {
        str(member["recipe_id"]): f"{member['name']} ({member['recipe_id']})" for member in about.get("members") or []
    }
    told = []
    for one in about.get("suspicions") or []:
        name = names.get(one["recipe_id"], one["recipe_id"])
        if one["kind"] == FOLD:
            told.append(
                f"Leak suspected: {name} predicts fold {one['fold']} far better than the others, as no other run does."
            )
        else:
            told.append(
                f"Leak suspected: {name} is sure and right about slices of {one['n_patients']} patients on which the "
                "other runs are not; blend.json names some."
            )
    for pair in about.get("alike") or []:
        a, b = (names.get(pair[key], pair[key]) for key in ("recipe_id", "other"))
        told.append(
            f"{a} and {b} say nearly the same (log odds correlate to {pair['correlation']:.6f}) and count as two."
        )
    return tuple(told)
