from dataclasses import replace

import numpy as np
import pytest

from ichtune.errors import DataError
from ichtune.metrics import prior_predictions, weighted_log_loss
from ichtune.second_level.metadata import metadata_losses, metadata_only_loss, prior_loss


@pytest.fixture
def seen(generated_series):
    view, y = generated_series(n_series=150, lengths=(6, 10))
    return view, y, view.series_R % 3


def test_metadata_that_tell_nothing_are_near_the_rates(seen) -> None:
    view, y, fold = seen
    losses = metadata_losses(view, y, fold)
    assert losses.prior == prior_loss(y, fold)
    assert losses.prior - 0.003 < losses.metadata_only < 1.1 * losses.prior


def test_a_scanner_that_stands_for_a_diagnosis_is_seen(seen) -> None:
    view, y, fold = seen
    metadata = view.metadata_RC.copy()
    has_bleed = np.maximum.reduceat(y[:, 0], view.starts)[view.series_R]
    metadata[:, 3] = np.where(has_bleed == 1, 80.0, 40.0)
    loss = metadata_only_loss(replace(view, metadata_RC=metadata), y, fold)
    assert loss < 0.95 * prior_loss(y, fold)


def test_it_reads_nothing_but_metadata(generated_series) -> None:
    view, y = generated_series(n_series=30)
    fold = view.series_R % 2
    blind = replace(view, p_MRL=np.full_like(view.p_MRL, 0.5), z_mm_R=np.full(len(view), np.nan))
    assert metadata_only_loss(blind, y, fold) == metadata_only_loss(view, y, fold)
    unknown = replace(view, metadata_RC=np.full_like(view.metadata_RC, np.nan))
    np.testing.assert_allclose(metadata_only_loss(unknown, y, fold), prior_loss(y, fold), atol=5e-3)


def test_the_rates_of_a_fold_are_those_of_the_others(seen) -> None:
    _, y, fold = seen
    p_RL = np.concatenate([prior_predictions(y[fold != one], int((fold == one).sum())) for one in range(3)])
    y_RL = np.concatenate([y[fold == one] for one in range(3)])
    assert prior_loss(y, fold) == pytest.approx(weighted_log_loss(y_RL, p_RL), rel=1e-12)


def test_one_fold_cannot_be_cross_fitted(seen) -> None:
    view, y, fold = seen
    with pytest.raises(DataError, match="at least two folds"):
        metadata_only_loss(view, y, np.zeros_like(fold))
