import numpy as np

from ichtune.ensemble.blenders import equal_mean_logit
from ichtune.ensemble.blenders.equal_mean_logit import EqualMeanLogit, mean_of_logits
from ichtune.labels import N_LABELS


def test_is_the_geometric_mean_of_the_odds():
    p = np.stack([np.full((1, N_LABELS), 0.2), np.full((1, N_LABELS), 0.8), np.full((1, N_LABELS), 0.8)])
    odds = (0.25 * 4.0 * 4.0) ** (1 / 3)
    np.testing.assert_allclose(mean_of_logits(p), odds / (1 + odds), rtol=1e-12)


def test_confident_members_count_for_more_than_in_the_plain_mean():
    p = np.stack([np.full((1, N_LABELS), 0.001), np.full((1, N_LABELS), 0.5)])
    blender = EqualMeanLogit().fit(p, np.zeros((1, N_LABELS)))
    assert (blender.predict(p) < p.mean(axis=0) / 5).all()


def test_contradicting_hard_members_meet_in_the_middle():
    p = np.stack([np.zeros((1, N_LABELS)), np.ones((1, N_LABELS))])
    np.testing.assert_allclose(mean_of_logits(p), 0.5, atol=1e-9)


def test_blocks_of_slices_do_not_change_the_mean(monkeypatch):
    p = np.random.default_rng(0).random((3, 50, N_LABELS))
    whole = mean_of_logits(p)
    monkeypatch.setattr(equal_mean_logit, "PREDICT_ROWS", 7)
    np.testing.assert_array_equal(mean_of_logits(p), whole)
    assert mean_of_logits(p[:, :0]).shape == (0, N_LABELS)
