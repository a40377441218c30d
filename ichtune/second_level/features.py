"""Features of slices for boosted trees: one declared list, generated for each label and any number of members.

``DECLARED`` is everything there is. What a recipe switches off and what a single member cannot have is left out, and an
entry that speaks of members or of other labels becomes one feature for each. Log odds stand for probabilities.

Dimension key: M members, R slices, L labels, F features, C columns of metadata.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ichtune.ensemble.blenders.logits import to_logits
from ichtune.labels import LABELS, N_LABELS
from ichtune.second_level.along_series import AlongSeries
from ichtune.second_level.one_epoch import mean_log_odds, spread_of_log_odds
from ichtune.second_level.views import METADATA_COLUMNS, SeriesView
from ichtune.second_level_recipe import SecondLevelRecipe

MAX_NEIGHBOURS = 30
WINDOWS = (3, 5, 9, 17)
HALF_LIVES = (1, 4)
OWN, OTHERS = "own", "others"


@dataclass(frozen=True)
class Feature:
    """One column, or, as it is declared, one for each member or label.

    Attributes:
        kind: how it is computed, a key of ``KINDS``.
        source: what it is computed from: ``mean`` or ``spread`` of the members' log odds, one ``member``'s, the
            ``place`` of the slice, or ``metadata``.
        of: whose log odds: the ``own`` label's or those of the ``others``; empty where there are none.
        statistic: which of the kind.
        width: an offset, a window or a half-life in slices.
        switch: the recipe's key that turns it on; empty where it always is.
        label: number of the label, once it is generated.
        member: number of the member, once it is generated from one.
    """

    kind: str
    source: str
    of: str = ""
    statistic: str = ""
    width: int = 0
    switch: str = ""
    label: int | None = None
    member: int | None = None

    @property
    def name(self) -> str:
        """Name in words, unlike that of any other feature of the same label."""
        label = "" if self.label is None else f" {LABELS[self.label]}"
        member = "" if self.member is None else f" {self.member}"
        width = f" {self.width:+d}" if self.kind in ("value", "difference") else f" {self.width}" * bool(self.width)
        return f"{self.source}{member}{label} {self.kind}{f' {self.statistic}' * bool(self.statistic)}{width}"


def _both_ways(furthest: int) -> list[int]:
    return [sign * offset for offset in range(1, furthest + 1) for sign in (-1, 1)]


_SIDES = ("below", "above")

DECLARED: tuple[Feature, ...] = (
    Feature("value", "mean", OWN),
    *(Feature("value", "mean", OWN, width=offset) for offset in _both_ways(MAX_NEIGHBOURS)),
    *(Feature("difference", "mean", OWN, width=offset) for offset in _both_ways(3)),
    *(Feature("value", "mean", OTHERS, width=offset) for offset in (0, *_both_ways(1))),
    Feature("value", "spread", OWN),
    *(Feature("value", "member", OWN, width=offset) for offset in (0, *_both_ways(2))),
    Feature("rank", "mean", OWN, switch="aggregates"),
    *(
        Feature("rolling", "mean", OWN, statistic, window, "aggregates")
        for statistic in ("mean", "min", "max", "std")
        for window in WINDOWS
    ),
    *(
        Feature("exponential", "mean", OWN, side, half_life, "aggregates")
        for side in _SIDES
        for half_life in HALF_LIVES
    ),
    *(Feature("series", "mean", OWN, statistic, switch="aggregates") for statistic in ("max", "mean", "std", "share")),
    *(Feature("peak", "mean", OWN, side, switch="aggregates") for side in _SIDES),
    Feature("series", "mean", OTHERS, "max", switch="aggregates"),
    *(Feature("slices", "place", statistic=which, switch="spacing") for which in (*_SIDES, "all", "relative")),
    *(Feature("spacing_mm", "place", statistic=side, switch="spacing") for side in _SIDES),
    *(Feature("extent_mm", "place", statistic=side, switch="spacing") for side in _SIDES),
    *(Feature("acquired", "metadata", statistic=column, switch="metadata") for column in METADATA_COLUMNS),
)


def features_of(recipe: SecondLevelRecipe, n_members: int, label: int) -> tuple[Feature, ...]:
    """Return the features from which one label is learnt, each with its label and member.

    Args:
        recipe: its switches and how many neighbours it looks at.
        n_members: M; a single member has no spread, and is its own mean.
        label: number of the label.
    """
    others = [other for other in range(N_LABELS) if other != label]
    generated: list[Feature] = []
    for feature in DECLARED:
        if not _is_on(feature, recipe) or (n_members == 1 and feature.source in ("spread", "member")):
            continue
        if feature.of == OTHERS:
            generated += [replace(feature, label=other) for other in others]
        elif feature.source == "member":
            generated += [replace(feature, label=label, member=member) for member in range(n_members)]
        else:
            generated.append(replace(feature, label=label if feature.of == OWN else None))
    return tuple(generated)


def digest_of(features: Sequence[Feature]) -> str:
    """Return a short hash of the names in order: a fitted model reads these columns and no others."""
    return hashlib.sha256("\n".join(feature.name for feature in features).encode()).hexdigest()[:16]


def _is_on(feature: Feature, recipe: SecondLevelRecipe) -> bool:
    if recipe.metadata_only:
        return feature.source == "metadata"
    if feature.kind in ("value", "difference") and abs(feature.width) > recipe.neighbours:
        return False
    return not feature.switch or bool(getattr(recipe, feature.switch))


class FeatureTable:
    """Computes features of a view; what several of them need is computed once."""

    def __init__(self, view: SeriesView) -> None:
        self.view = view
        self.along = AlongSeries(view.series_R)
        self._mean_LR: dict[int, np.ndarray] = {}
        self._latest: tuple[tuple[str, int | None, int | None], np.ndarray] | None = None

    def matrix(self, features: Sequence[Feature]) -> np.ndarray:
        """Return the features as columns: float32 (R, F), NaN where a neighbour or a position does not exist."""
        x_RF = np.empty((len(self.view), len(features)), dtype=np.float32, order="F")
        for column, feature in enumerate(features):
            x_RF[:, column] = KINDS[feature.kind](self, feature)
        return x_RF

    def signal(self, feature: Feature) -> np.ndarray:
        """Return the log odds that a feature is computed from, or their spread: float64 (R,)."""
        key = (feature.source, feature.label, feature.member)
        if self._latest is None or self._latest[0] != key:
            self._latest = (key, self._signal(*key))
        return self._latest[1]

    def _signal(self, source: str, label: int | None, member: int | None) -> np.ndarray:
        assert label is not None  # only features of log odds ask
        if source == "member":
            return np.asarray(to_logits(self.view.p_MRL[member, :, label]))
        if source == "spread":
            return spread_of_log_odds(self.view.p_MRL, label)
        if label not in self._mean_LR:
            self._mean_LR[label] = mean_log_odds(self.view.p_MRL, label)
        return self._mean_LR[label]


def _value(table: FeatureTable, feature: Feature) -> np.ndarray:
    return table.along.shifted(table.signal(feature), feature.width)


def _difference(table: FeatureTable, feature: Feature) -> np.ndarray:
    return table.signal(feature) - _value(table, feature)


def _rank(table: FeatureTable, feature: Feature) -> np.ndarray:
    return table.along.rank(table.signal(feature))


def _rolling(table: FeatureTable, feature: Feature) -> np.ndarray:
    along = table.along
    statistics = {
        "mean": along.rolling_mean,
        "min": along.rolling_min,
        "max": along.rolling_max,
        "std": along.rolling_std,
    }
    return statistics[feature.statistic](table.signal(feature), feature.width)


def _exponential(table: FeatureTable, feature: Feature) -> np.ndarray:
    along = table.along
    sides = {"below": along.exponential_below, "above": along.exponential_above}
    return sides[feature.statistic](table.signal(feature), feature.width)


def _series(table: FeatureTable, feature: Feature) -> np.ndarray:
    z_R = table.signal(feature)
    if feature.statistic == "share":  # of slices that are more likely than not
        return table.along.mean((z_R > 0).astype(np.float64))
    along = table.along
    return {"max": along.maximum, "mean": along.mean, "std": along.std}[feature.statistic](z_R)


def _peak(table: FeatureTable, feature: Feature) -> np.ndarray:
    along = table.along
    return {"below": along.peak_below, "above": along.peak_above}[feature.statistic](table.signal(feature))


def _slices(table: FeatureTable, feature: Feature) -> np.ndarray:
    along = table.along
    if feature.statistic == "relative":  # from nearly -1/2 at the first to nearly 1/2 at the last
        return (along.below_R - along.above_R) / (2.0 * along.lengths)
    return {"below": along.below_R, "above": along.above_R, "all": along.lengths}[feature.statistic]


def _spacing_mm(table: FeatureTable, feature: Feature) -> np.ndarray:
    z_mm_R = table.view.z_mm_R
    return np.abs(table.along.shifted(z_mm_R, -1 if feature.statistic == "below" else 1) - z_mm_R)


def _extent_mm(table: FeatureTable, feature: Feature) -> np.ndarray:
    """Distance to the first or the last slice of the series."""
    z_mm_R, along = table.view.z_mm_R, table.along
    step_R = -along.below_R if feature.statistic == "below" else along.above_R
    return np.abs(z_mm_R[np.arange(len(z_mm_R)) + step_R] - z_mm_R)


def _acquired(table: FeatureTable, feature: Feature) -> np.ndarray:
    return table.view.metadata_RC[:, METADATA_COLUMNS.index(feature.statistic)]


KINDS: dict[str, Callable[[FeatureTable, Feature], np.ndarray]] = {
    "value": _value,
    "difference": _difference,
    "rank": _rank,
    "rolling": _rolling,
    "exponential": _exponential,
    "series": _series,
    "peak": _peak,
    "slices": _slices,
    "spacing_mm": _spacing_mm,
    "extent_mm": _extent_mm,
    "acquired": _acquired,
}
