"""The seam for blenders: what every way of combining members must offer.

Dimension key: M members, N slices, L labels in the order of ``ichtune.labels.LABELS``.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from ichtune.ensemble.blenders.numbers import Shapes, table_of_numbers
from ichtune.errors import DataError
from ichtune.labels import LABELS
from ichtune.metrics import check_probabilities


class Blender(ABC):
    """Combines the probabilities of M members into one; learned state ends in ``_``.

    What every implementation keeps: predictions are probabilities in [0, 1]; hard 0 and 1, duplicated members and a
    single member give finite results; neither the order of rows nor that of members matters; ``fit`` reads nothing but
    its arguments, so that fitting on some folds and predicting another one is honest; what ``learned`` returns goes
    through JSON and makes a blender that predicts the same to the last bit.
    """

    #: Whether predictions always lie between those of the members.
    is_mean: ClassVar[bool] = True

    #: Shapes of the arrays beside ``weights_`` that ``fit`` learns, by attribute; None leaves a length open.
    arrays: ClassVar[Shapes] = {}

    #: Weight of each member for each label, (M, L), columns summing to one; None before ``fit`` or where
    #: there is none.
    weights_: np.ndarray | None = None

    @abstractmethod
    def fit(
        self,
        p_MNL: np.ndarray,
        y_NL: np.ndarray,
        weight_N: np.ndarray | None = None,
        group_N: np.ndarray | None = None,
    ) -> Self:
        """Learn from out-of-fold predictions.

        Args:
            p_MNL: probabilities (M, N, L).
            y_NL: labels (N, L), 0 or 1.
            weight_N: weight of each slice (N,), at least 0; None weighs all alike.
            group_N: the patient of each slice (N,); only a blender that cross-fits while it learns reads it.
        """

    @abstractmethod
    def predict(self, p_MNL: np.ndarray) -> np.ndarray:
        """Combine probabilities (M, N, L), members in the order of ``fit``: float64 (N, L) in [0, 1]."""

    def learned(self) -> dict[str, Any]:
        """Return what ``fit`` learned as plain values for JSON.

        Here that is ``weights_`` and ``arrays``; a blender that predicts from more extends this and ``restore``.
        """
        told = {key: getattr(self, key) for key in ("weights_", *self.arrays)}
        return {key: None if value is None else value.tolist() for key, value in told.items()}

    def live(self) -> np.ndarray | None:
        """Return the numbers of the members that predictions depend on; None where it is all of them."""
        return None

    def learned_of(self, members: Sequence[int]) -> dict[str, Any]:
        """Return what ``learned`` would of a blender with these members alone, all others being without effect."""
        told = self.learned()
        if self.weights_ is not None:
            told["weights_"] = self.weights_[list(members)].tolist()
        return told

    def restore(self, learned: Mapping[str, Any]) -> Self:
        """Take what ``learned`` returned of a blender with the same settings: as if fitted again on the same rows.

        Raises:
            DataError: not what such a blender learns.
        """
        if "weights_" not in learned:
            raise DataError(f"what a blender has learned must hold weights_, got {sorted(learned)}")
        told = learned["weights_"]
        self.weights_ = None if told is None else _weights(told)
        for key, shape in self.arrays.items():
            setattr(self, key, table_of_numbers(learned, key, shape))
        return self


def _weights(told: Any) -> np.ndarray:
    """Return weights (M, L) that were kept as nested lists."""
    try:
        weights_ML = np.array(told, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"a blender's weights must be rows of {len(LABELS)} numbers, got {str(told)[:60]!r}") from error
    is_table = weights_ML.ndim == 2 and len(weights_ML) > 0 and weights_ML.shape[1] == len(LABELS)
    if not is_table or not np.isfinite(weights_ML).all() or (weights_ML < 0).any():
        raise DataError(
            f"a blender's weights must be at least 0, a row a member and a column for each of {len(LABELS)} labels, "
            f"got shape {weights_ML.shape}: {str(told)[:60]}"
        )
    return weights_ML


def check_members(p_MNL: np.ndarray, n_members: int | None = None) -> None:
    """Raise ``DataError`` unless the shape is (M >= 1, N, L), of ``n_members`` where given."""
    if p_MNL.ndim != 3 or p_MNL.shape[0] == 0 or p_MNL.shape[2] != len(LABELS):
        raise DataError(f"members must have shape (M, N, {len(LABELS)}) with M at least 1, got {p_MNL.shape}")
    if n_members is not None and p_MNL.shape[0] != n_members:
        raise DataError(f"the blender was fitted on {n_members} members, got {p_MNL.shape[0]}")


def check_fit(p_MNL: np.ndarray, y_NL: np.ndarray, weight_N: np.ndarray | None) -> np.ndarray:
    """Check what ``fit`` was given and return the row weights: float64 (N,), summing to one.

    Raises:
        DataError: wrong shapes, no rows, values outside [0, 1], or row weights that are negative or all zero.
    """
    check_members(p_MNL)
    n_rows = p_MNL.shape[1]
    if y_NL.shape != p_MNL.shape[1:]:
        raise DataError(f"labels must have shape {p_MNL.shape[1:]} as the members do, got {y_NL.shape}")
    if n_rows == 0:
        raise DataError("a blender cannot be fitted on no rows: check that image_ids overlap")
    check_probabilities(y_NL, "labels")
    for m, p_NL in enumerate(p_MNL):
        check_probabilities(p_NL, f"member {m}")
    if weight_N is None:
        return np.full(n_rows, 1.0 / n_rows)
    weights = np.asarray(weight_N, dtype=np.float64)
    usable = weights.shape == (n_rows,) and bool(np.isfinite(weights).all() and (weights >= 0).all())
    if not usable or weights.sum() <= 0:
        raise DataError(f"row weights must be {n_rows} numbers of at least 0, not all 0, got {weight_N!r}")
    return weights / weights.sum()
