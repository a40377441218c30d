"""Calibration: what a reweighted, resampled loss is fitted by, computed in closed form, comes back as the truth."""

import numpy as np
import pytest
import torch

from ichtune.labels import ANY, LABELS, N_LABELS
from ichtune.recipe import Recipe
from ichtune.training.calibration import undo_prior_shift

I_ANY = LABELS.index(ANY)
WEIGHTS = (3.0, 0.5, 2.0, 10.0, 1.0, 7.0)


def truth() -> np.ndarray:
    """Return p(label | x) on a grid of 500 x: subtypes given a bleed, times the bleed."""
    rng = np.random.default_rng(0)
    p_NL = rng.random((500, N_LABELS))
    p_any_N = 1 / (1 + np.exp(-np.linspace(-12, 12, 500)))
    p_NL *= p_any_N[:, None]
    p_NL[:, I_ANY] = p_any_N
    return p_NL


def fitted(p_NL: np.ndarray, weights: tuple[float, ...], negative_share: float) -> np.ndarray:
    """Return the logits of least loss: sum over y of the drawn mass times -(w y log p + (1 - y) log(1 - p))."""
    p_any_N1 = p_NL[:, I_ANY, None]
    drawn_N1 = p_any_N1 + negative_share * (1 - p_any_N1)
    positive_NL = np.array(weights) * p_NL / drawn_N1
    negative_NL = 1 - p_NL / drawn_N1
    return np.log(positive_NL / negative_NL)


def undone(logits_NL: np.ndarray, weights: tuple[float, ...], negative_share: float) -> np.ndarray:
    recipe = Recipe(positive_weights=weights, negative_share=negative_share, calibration="prior_shift")
    return torch.sigmoid(undo_prior_shift(torch.from_numpy(logits_NL), recipe)).numpy()


@pytest.mark.parametrize("weights", [(1.0,) * N_LABELS, WEIGHTS])
@pytest.mark.parametrize("negative_share", [1.0, 0.3, 0.01])
def test_the_truth_comes_back(weights: tuple[float, ...], negative_share: float) -> None:
    p_NL = truth()
    shifted_NL = fitted(p_NL, weights, negative_share)
    np.testing.assert_allclose(undone(shifted_NL, weights, negative_share), p_NL, rtol=1e-9, atol=1e-9)
    if negative_share < 1 or weights == WEIGHTS:
        assert np.abs(1 / (1 + np.exp(-shifted_NL)) - p_NL).max() > 0.1


def test_the_fit_is_that_of_slices_that_were_drawn() -> None:
    """The closed form above against counts: 400,000 slices of one x, a fifth of the negatives drawn."""
    rng = np.random.default_rng(1)
    is_any, is_sub = rng.random(400_000) < 0.2, rng.random(400_000) < 0.4
    drawn = is_any | (rng.random(400_000) < 0.2)
    counted = [(is_any & drawn).sum() / drawn.sum(), (is_any & is_sub & drawn).sum() / drawn.sum()]
    p_NL = np.full((1, N_LABELS), 0.2 * 0.4)
    p_NL[0, I_ANY] = 0.2
    p_fitted = 1 / (1 + np.exp(-fitted(p_NL, (1.0,) * N_LABELS, 0.2)))
    assert [p_fitted[0, I_ANY], p_fitted[0, -1]] == pytest.approx(counted, abs=0.01)


def test_nothing_is_changed_where_nothing_was_shifted() -> None:
    logits_BL = torch.randn(20, N_LABELS, generator=torch.Generator().manual_seed(0))
    for recipe in (Recipe(), Recipe(calibration="prior_shift")):
        got_BL = undo_prior_shift(logits_BL, recipe)
        assert got_BL.dtype == torch.float64
        assert torch.equal(got_BL, logits_BL.double())


def test_a_subtype_more_probable_than_any_becomes_just_as_probable() -> None:
    logits_NL = np.zeros((1, N_LABELS))
    logits_NL[0, -1] = 3.0
    p_NL = undone(logits_NL, (1.0,) * N_LABELS, 0.5)
    assert p_NL[0, I_ANY] == pytest.approx(1 / 3)
    assert p_NL[0, -1] == p_NL[0, I_ANY]


def test_sure_answers_stay_finite() -> None:
    logits_BL = torch.tensor([[300.0] * N_LABELS, [-300.0] * N_LABELS, [-300.0] + [300.0] * (N_LABELS - 1)])
    got_BL = undo_prior_shift(logits_BL, Recipe(negative_share=0.1, calibration="prior_shift"))
    assert torch.isfinite(got_BL).all()
    torch.testing.assert_close(got_BL[:, I_ANY], logits_BL[:, I_ANY].double() + np.log(0.1))
    assert (got_BL <= got_BL[:, I_ANY, None]).all()
