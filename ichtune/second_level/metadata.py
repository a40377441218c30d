"""What metadata alone can tell: a model that sees how slices were acquired and nothing of what is on them.

Dimension key: R slices, L labels.
"""

from dataclasses import dataclass

import numpy as np

from ichtune.ensemble.crossfit import crossfit
from ichtune.labels import N_LABELS
from ichtune.metrics import prior_predictions, weighted_log_loss
from ichtune.second_level.base import fit
from ichtune.second_level.hist_gradient_boosting import HistGradientBoosting
from ichtune.second_level.views import SeriesView
from ichtune.second_level_recipe import SecondLevelRecipe

#: A leaf holds this share of all slices at least. Whole series have the same metadata: smaller leaves and larger trees
#: would learn single series by heart, and hide a shortcut behind their own overfitting.
_LEAF_SHARE = 0.05


@dataclass(frozen=True)
class MetadataLosses:
    """What metadata alone buys: cross-fitted weighted log losses of the same slices, nats.

    Attributes:
        metadata_only: of a model that sees metadata alone.
        prior: of the labels' rates, which see nothing.
    """

    metadata_only: float
    prior: float


def metadata_losses(view: SeriesView, y_RL: np.ndarray, fold_R: np.ndarray) -> MetadataLosses:
    """Return the loss of metadata alone beside that of the labels' rates; see ``metadata_only_loss``.

    Raises:
        DataError: fewer than two folds.
    """
    return MetadataLosses(metadata_only_loss(view, y_RL, fold_R), prior_loss(y_RL, fold_R))


def prior_loss(y_RL: np.ndarray, fold_R: np.ndarray) -> float:
    """Return the cross-fitted weighted log loss of the labels' rates: those of the other folds, nats.

    Raises:
        DataError: fewer than two folds.
    """

    def rates(fit_rows: np.ndarray, predict_rows: np.ndarray) -> np.ndarray:
        return prior_predictions(y_RL[fit_rows], len(predict_rows))

    return weighted_log_loss(y_RL, crossfit(rates, fold_R, N_LABELS))


def metadata_only_loss(view: SeriesView, y_RL: np.ndarray, fold_R: np.ndarray) -> float:
    """Return the cross-fitted weighted log loss of a model that sees metadata alone, nats.

    The place in the series is not among it, for it tells of anatomy. A loss clearly below that of the labels' rates
    says that how a slice was acquired stands for what is on it: a model that sees metadata may then have learnt a
    scanner or a department, and will fail at another.

    Args:
        view: labelled slices.
        y_RL: their labels.
        fold_R: their folds, which hold whole patients.

    Raises:
        DataError: fewer than two folds.
    """
    recipe = SecondLevelRecipe(
        model="hist_gradient_boosting",
        metadata_only=True,
        rounds=30,
        learning_rate=0.1,
        leaves=3,
        min_slices=int(np.clip(_LEAF_SHARE * len(view), 1, 100_000)),
        feature_share=1.0,
    )

    def fit_predict(fit_rows: np.ndarray, predict_rows: np.ndarray) -> np.ndarray:
        fitted = fit(HistGradientBoosting(recipe), view.take(fit_rows), y_RL[fit_rows])
        return fitted.predict(view.take(predict_rows))

    return weighted_log_loss(y_RL, crossfit(fit_predict, fold_R, N_LABELS))
