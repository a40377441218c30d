"""Laws of the metric, for any labels and probabilities."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ichtune.labels import N_LABELS
from ichtune.metrics import CLIP, label_losses, per_label_log_loss, prior_predictions, slice_losses, weighted_log_loss

lawful = settings(derandomize=True, deadline=None, max_examples=60)
SHAPES = st.tuples(st.integers(1, 12), st.just(N_LABELS))


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(SHAPES)
    y_NL = draw(arrays(np.float32, shape, elements=st.sampled_from([0.0, 1.0])))
    return y_NL, draw(arrays(np.float64, shape, elements=st.floats(0.0, 1.0)))


@lawful
@given(scored())
def test_it_lies_between_nought_and_the_worst_clip(pair: tuple[np.ndarray, np.ndarray]) -> None:
    assert 0.0 < weighted_log_loss(*pair) <= -np.log(CLIP) + 1e-9


@lawful
@given(scored(), st.randoms(use_true_random=False))
def test_the_order_of_slices_does_not_matter(pair: tuple[np.ndarray, np.ndarray], random: object) -> None:
    y_NL, p_NL = pair
    order = np.random.default_rng(len(y_NL)).permutation(len(y_NL))
    np.testing.assert_array_equal(slice_losses(y_NL[order], p_NL[order]), slice_losses(y_NL, p_NL)[order])


@lawful
@given(scored())
def test_it_is_the_weighted_mean_of_the_labels_losses(pair: tuple[np.ndarray, np.ndarray]) -> None:
    by_label = list(per_label_log_loss(*pair).values())
    assert np.isclose(weighted_log_loss(*pair), (2 * by_label[0] + sum(by_label[1:])) / 7, rtol=1e-12)


@lawful
@given(scored())
def test_mirrored_labels_and_probabilities_score_the_same(pair: tuple[np.ndarray, np.ndarray]) -> None:
    y_NL, p_NL = pair
    np.testing.assert_allclose(label_losses(1 - y_NL, 1 - p_NL), label_losses(y_NL, p_NL), rtol=1e-6, atol=1e-9)


@lawful
@given(scored(), st.floats(0.0, 1.0))
def test_a_step_towards_the_truth_never_costs(pair: tuple[np.ndarray, np.ndarray], share: float) -> None:
    y_NL, p_NL = pair
    closer = p_NL + share * (y_NL - p_NL)
    assert weighted_log_loss(y_NL, closer) <= weighted_log_loss(y_NL, p_NL) + 1e-12


@lawful
@given(scored())
def test_no_constant_beats_the_prior(pair: tuple[np.ndarray, np.ndarray]) -> None:
    y_NL, p_NL = pair
    constant = np.tile(p_NL[:1], (len(y_NL), 1))
    assert weighted_log_loss(y_NL, prior_predictions(y_NL, len(y_NL))) <= weighted_log_loss(y_NL, constant) + 1e-9
