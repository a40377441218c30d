"""What a sequence model sees of each slice: its own numbers, and how they differ from its neighbours in the series.

Dimension key: M members, R slices of a view, S slices shown, L labels, C metadata columns, F inputs, D embedding
components.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ichtune.ensemble.blenders.logits import to_logits
from ichtune.errors import DataError
from ichtune.second_level.views import SeriesView
from ichtune.second_level_recipe import SecondLevelRecipe

#: Standardised inputs are held within so many standard deviations: nothing that is met later can be far outside.
LIMIT = 10.0
#: Below this share of its mean's size a column's spread is rounding.
_ROUNDING = 1e-6


class SliceInputs:
    """A view as raw inputs of its slices; neighbours are those of the series as it is shown, not as it was scanned.

    Args:
        view: the slices.
        recipe: says which inputs there are.

    Attributes:
        mean_RL: mean log odds of the members, float64; None where the recipe sees metadata only.
        e_RD: components of the embeddings, float32, finite; D is 0 where the recipe asks for none.

    Raises:
        DataError: the recipe asks for embeddings and the view has none, or there is no member.
    """

    def __init__(self, view: SeriesView, recipe: SecondLevelRecipe) -> None:
        self._recipe = recipe
        self._metadata_RC = view.metadata_RC.astype(np.float32)
        self._z_mm_R = view.z_mm_R
        self.mean_RL: np.ndarray | None = None
        if not recipe.metadata_only:
            if not len(view.p_MRL):
                raise DataError("a sequence model needs the predictions of at least one member, got none")
            self.mean_RL, self._z_RK = _log_odds(view.p_MRL)
        self.e_RD = _embeddings(view, recipe)

    def raw(self, rows_S: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return the inputs of slices in the order in which they are shown.

        Args:
            rows_S: their rows in the view, series after series.
            lengths: slices of each series, summing to S.

        Returns:
            float32 (S, F): log odds of every member and label, their mean, their differences to the slice before and
            the one after (0 at the ends), place from -1 to 1, distance to both in mm, metadata; NaN where unknown.
        """
        recipe = self._recipe
        if recipe.metadata_only:
            return self._metadata_RC[rows_S]
        is_first_S = _starts(lengths)
        z_SK = self._z_RK[rows_S]
        blocks = [z_SK]
        if recipe.deltas:
            step_SK = np.diff(z_SK, axis=0, prepend=z_SK[:1])
            step_SK[is_first_S] = 0.0
            blocks += [step_SK, -_of_next(step_SK, 0.0)]
        if recipe.spacing:
            gap_S = np.abs(np.diff(self._z_mm_R[rows_S], prepend=np.nan))
            gap_S[is_first_S] = np.nan
            blocks += [_places(lengths)[:, None], gap_S[:, None], _of_next(gap_S, np.nan)[:, None]]
        if recipe.metadata:
            blocks.append(self._metadata_RC[rows_S])
        return np.concatenate(blocks, axis=1, dtype=np.float32)

    def n_optional(self) -> int:
        """Return how many of the inputs, the last ones, may be missing."""
        recipe = self._recipe
        n_columns = self._metadata_RC.shape[1]
        if recipe.metadata_only:
            return n_columns
        return 2 * recipe.spacing + n_columns * recipe.metadata


@dataclass(frozen=True)
class Scaling:
    """Means and spreads of the inputs that a model was trained on.

    Attributes:
        mean_F: float64.
        scale_F: float64, above 0.
        n_optional: how many columns, the last ones, may be missing; each has a flag that says so.
    """

    mean_F: np.ndarray
    scale_F: np.ndarray
    n_optional: int

    @property
    def n_outputs(self) -> int:
        """Numbers of a slice after standardising: the inputs, and the flags."""
        return len(self.mean_F) + self.n_optional

    def __call__(self, raw_SF: np.ndarray) -> np.ndarray:
        """Return float32 (S, F + flags): standardised, within ±LIMIT, 0 where missing; then the flags, 1 if missing.

        Raises:
            DataError: another number of inputs.
        """
        n_inputs = len(self.mean_F)
        if raw_SF.shape[1] != n_inputs:
            raise DataError(
                f"the model was trained on {n_inputs} numbers of each slice, got {raw_SF.shape[1]}; it needs the same "
                f"members and the same recipe"
            )
        missing_SO = np.isnan(raw_SF[:, n_inputs - self.n_optional :]).astype(np.float32)
        scaled_SF = np.clip((raw_SF - self.mean_F) / self.scale_F, -LIMIT, LIMIT)
        return np.concatenate([np.nan_to_num(scaled_SF), missing_SO], axis=1, dtype=np.float32)


def fit_scaling(parts: Iterable[np.ndarray], n_optional: int = 0) -> Scaling:
    """Return the moments of raw inputs (S, F) that come in parts; columns that are constant or unknown keep scale 1."""
    count_F, sum_F, square_F = np.zeros(1), np.zeros(1), np.zeros(1)
    for part_SF in parts:
        known_SF = ~np.isnan(part_SF)
        values_SF = np.where(known_SF, part_SF, 0.0).astype(np.float64)
        count_F = count_F + known_SF.sum(axis=0)
        sum_F = sum_F + values_SF.sum(axis=0)
        square_F = square_F + (values_SF**2).sum(axis=0)
    mean_F = sum_F / np.maximum(count_F, 1)
    spread_F = np.sqrt(np.maximum(square_F / np.maximum(count_F, 1) - mean_F**2, 0.0))
    scale_F = np.where(spread_F > _ROUNDING * np.maximum(1.0, np.abs(mean_F)), spread_F, 1.0)
    return Scaling(mean_F, scale_F, n_optional)


def _log_odds(p_MRL: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the members' mean log odds (R, L) float64, and side by side those of each and the mean, float32."""
    n_members, n_rows, n_labels = p_MRL.shape
    sum_RL = np.zeros((n_rows, n_labels))
    z_RML = np.empty((n_rows, n_members + 1, n_labels), dtype=np.float32)
    for m, p_RL in enumerate(p_MRL):
        z_RL = to_logits(p_RL)
        sum_RL += z_RL
        z_RML[:, m] = z_RL
    mean_RL = sum_RL / n_members
    z_RML[:, -1] = mean_RL
    return mean_RL, z_RML.reshape(n_rows, (n_members + 1) * n_labels)


def _embeddings(view: SeriesView, recipe: SecondLevelRecipe) -> np.ndarray:
    if recipe.metadata_only or not recipe.embeddings:
        return np.zeros((len(view), 0), dtype=np.float32)
    if view.e_RD is None:
        raise DataError(f"the recipe asks for {recipe.embeddings} embedding components and the view has none")
    return view.e_RD.astype(np.float32)


def _starts(lengths: np.ndarray) -> np.ndarray:
    """Whether each slice is the first of its series (S,)."""
    is_first_S = np.zeros(int(lengths.sum()), dtype=bool)
    is_first_S[np.cumsum(lengths) - lengths] = True
    return is_first_S


def _places(lengths: np.ndarray) -> np.ndarray:
    """Place of each slice in its series, from -1 to 1 (S,); 0 where it is alone."""
    within_S = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    last_S = np.repeat(lengths - 1, lengths)
    return np.where(last_S > 0, 2.0 * within_S / np.maximum(last_S, 1) - 1.0, 0.0)


def _of_next(values_S: np.ndarray, at_the_end: float) -> np.ndarray:
    """Return what the slice after each one has."""
    shifted_S = np.full_like(values_S, at_the_end)
    shifted_S[:-1] = values_S[1:]
    return shifted_S
