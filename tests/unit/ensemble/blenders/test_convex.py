import numpy as np
import pytest

from ichtune.ensemble.blenders import convex, entry_sample
from ichtune.ensemble.blenders.blend_losses import LogitLoss, MixtureLoss
from ichtune.ensemble.blenders.convex import Convex
from ichtune.ensemble.blenders.logits import from_logits, to_logits
from ichtune.errors import ConfigError, DataError
from ichtune.labels import METRIC_WEIGHTS, N_LABELS
from ichtune.metrics import weighted_log_loss

SETTINGS = [(space, sharing) for space in ("probability", "logit") for sharing in ("shared", "per_label")]


def members(n_rows=600, noises=(0.6, 1.0, 1.5, 3.0), seed=0):
    rng = np.random.default_rng(seed)
    z = -2 + 1.7 * rng.standard_normal((n_rows, N_LABELS))
    y = (rng.random(z.shape) < from_logits(z)).astype(float)
    return np.stack([from_logits(z + noise * rng.standard_normal(z.shape)) for noise in noises]), y


def gradients(blender, p, y):
    """Gradient of each label's loss by its weights, (L, M), computed from the members alone."""
    kind, x = (MixtureLoss, p) if blender.space == "probability" else (LogitLoss, to_logits(p))
    weight = np.full(len(y), 1 / len(y))
    return np.stack([kind(x[:, :, i], y[:, i], weight).derivatives(blender.weights_[:, i])[0] for i in range(N_LABELS)])


@pytest.mark.parametrize(("space", "sharing"), SETTINGS)
def test_weights_meet_the_kkt_conditions(space, sharing):
    p, y = members()
    blender = Convex(space, sharing).fit(p, y)
    gradient = gradients(blender, p, y)
    if sharing == "shared":
        gradient = np.tile(np.asarray(METRIC_WEIGHTS) / sum(METRIC_WEIGHTS) @ gradient, (N_LABELS, 1))
    np.testing.assert_allclose(blender.weights_.sum(axis=0), 1.0, atol=1e-12)
    assert blender.weights_.min() >= 0
    for gradient_M, weight_M in zip(gradient, blender.weights_.T, strict=True):
        multiplier = gradient_M @ weight_M
        assert (gradient_M >= multiplier - 1e-9).all(), "no weight may be worth raising"
        np.testing.assert_allclose(gradient_M[weight_M > 1e-9], multiplier, atol=1e-9)
    assert blender.gap_ < 1e-9


def test_shared_weights_are_one_column_and_per_label_ones_fit_better_in_sample():
    p, y = members(200)
    shared, per_label = Convex(weights="shared").fit(p, y), Convex(weights="per_label").fit(p, y)
    assert np.ptp(shared.weights_, axis=1).max() == 0
    assert weighted_log_loss(y, per_label.predict(p)) < weighted_log_loss(y, shared.predict(p))


@pytest.mark.parametrize(("space", "sharing"), SETTINGS)
def test_the_best_of_random_weights_is_not_better(space, sharing):
    p, y = members(300)
    fitted = weighted_log_loss(y, Convex(space, sharing).fit(p, y).predict(p))
    x = p if space == "probability" else to_logits(p)
    for w in np.random.default_rng(5).dirichlet(np.ones(4), 300):
        mixed = np.einsum("m,mnl->nl", w, x)
        assert weighted_log_loss(y, mixed if space == "probability" else from_logits(mixed)) >= fitted - 1e-12


def test_a_true_mixture_is_found_again():
    rng = np.random.default_rng(2)
    p = rng.uniform(0.02, 0.98, (3, 4000, N_LABELS))
    true = np.array([0.6, 0.4, 0.0])
    soft = np.einsum("m,mnl->nl", true, p)
    blender = Convex("probability").fit(p, soft)
    np.testing.assert_allclose(blender.weights_[:, 0], true, atol=1e-6)


@pytest.mark.parametrize("shrinkage", [0.0, 0.25, 1.0])
def test_shrinkage_goes_straight_back_to_equal_weights(shrinkage):
    p, y = members()
    learned = Convex().fit(p, y).weights_
    shrunk = Convex(shrinkage=shrinkage).fit(p, y).weights_
    np.testing.assert_allclose(shrunk, (1 - shrinkage) * learned + shrinkage / len(p), atol=1e-12)


def test_row_weights_equal_repeated_rows():
    p, y = members(150)
    times = np.random.default_rng(4).integers(0, 4, 150)
    repeated = np.repeat(np.arange(150), times)
    weighted = Convex("probability").fit(p, y, times.astype(float))
    copied = Convex("probability").fit(p[:, repeated], y[repeated])
    np.testing.assert_allclose(weighted.weights_, copied.weights_, atol=1e-8)


@pytest.mark.parametrize(("space", "sharing"), SETTINGS)
def test_a_duplicate_shares_the_weight_and_changes_nothing(space, sharing):
    p, y = members()
    doubled = np.concatenate([p, p[1:2]])
    one, two = Convex(space, sharing, 0.1).fit(p, y), Convex(space, sharing, 0.1).fit(doubled, y)
    np.testing.assert_allclose(two.predict(doubled), one.predict(p), atol=1e-9)
    np.testing.assert_allclose(two.weights_[1], two.weights_[4], atol=1e-15)


def test_weights_per_label_go_straight_to_shared_ones():
    p, y = members()
    shared, own = Convex().fit(p, y).weights_, Convex(weights="per_label").fit(p, y).weights_
    half = Convex(weights="per_label", towards_shared=0.5).fit(p, y).weights_
    np.testing.assert_allclose(half, (shared + own) / 2, atol=1e-12)
    np.testing.assert_allclose(Convex(weights="per_label", towards_shared=1.0).fit(p, y).weights_, shared, atol=1e-12)
    with pytest.raises(ConfigError, match="towards_shared has no effect on shared weights"):
        Convex(towards_shared=0.5)


@pytest.mark.parametrize(("space", "sharing"), SETTINGS)
def test_hard_and_wrong_members_stay_finite(space, sharing):
    p, y = members(200)
    hard = np.stack([p[0], (p[0] > 0.5).astype(float), 1 - y, y])
    blender = Convex(space, sharing).fit(hard, y)
    assert np.isfinite(blender.predict(hard)).all()
    assert weighted_log_loss(y, blender.predict(hard)) < 1e-4, "the member that knows the truth wins"


@pytest.mark.parametrize(("space", "sharing"), SETTINGS)
def test_a_difference_that_all_members_drown_is_still_seen(space, sharing):
    """Both are sure and wrong, but for one label of the first: curvatures of 1e12 beside one of 1."""
    p, y = np.ones((2, 1, N_LABELS)), np.zeros((1, N_LABELS))
    p[0, 0, 1] = 0.0
    blender = Convex(space, sharing).fit(p, y)
    assert blender.weights_[0, 1] == pytest.approx(1, abs=1e-9)
    assert blender.gap_ < 1e-9


def test_prediction_before_fit_and_misspelt_settings_are_refused():
    with pytest.raises(DataError, match="call fit"):
        Convex().predict(np.zeros((1, 2, N_LABELS)))
    with pytest.raises(ConfigError, match="Did you mean 'logit'"):
        Convex(space="logits")
    with pytest.raises(ConfigError, match="Did you mean 'per_label'"):
        Convex(weights="per-label")
    for shrinkage in (-0.1, 1.5, "much", True, float("nan")):
        with pytest.raises(ConfigError, match="shrinkage must be a number between 0 and 1"):
            Convex(shrinkage=shrinkage)


@pytest.mark.parametrize(("space", "sharing"), SETTINGS)
def test_many_slices_are_solved_on_a_sample_and_come_as_near_as_the_gap_says(space, sharing, monkeypatch):
    p, y = members(3000)
    direct = Convex(space, sharing).fit(p, y)
    monkeypatch.setattr(convex, "FEW_ENTRIES", 1000)
    monkeypatch.setattr(entry_sample, "SHARE", 0.0)
    monkeypatch.setattr(entry_sample, "LEAST", 2000)
    sampled = Convex(space, sharing).fit(p, y)
    assert 1e-12 < sampled.gap_ <= 1e-6
    assert (sampled.weights_ != direct.weights_).any(), "it must have taken the other way"
    for label in range(N_LABELS):
        np.testing.assert_allclose(sampled.weights_[:, label], direct.weights_[:, label], atol=5e-3)
    loss, least = (weighted_log_loss(y, blender.predict(p)) for blender in (sampled, direct))
    assert loss - least <= sampled.gap_ + 1e-12


def test_many_slices_of_one_member_need_no_solving(monkeypatch):
    p, y = members(300)
    monkeypatch.setattr(convex, "FEW_ENTRIES", 0)
    blender = Convex().fit(p[[0, 0]], y)
    np.testing.assert_allclose(blender.weights_, 0.5)
    assert blender.gap_ == 0.0


def test_half_shared_and_shrunk_weights_are_found_on_a_sample_too(monkeypatch):
    p, y = members(3000)
    settings = {"weights": "per_label", "towards_shared": 0.5, "shrinkage": 0.1}
    direct = Convex(**settings).fit(p, y)
    monkeypatch.setattr(convex, "FEW_ENTRIES", 1000)
    monkeypatch.setattr(entry_sample, "SHARE", 0.0)
    monkeypatch.setattr(entry_sample, "LEAST", 3000)
    np.testing.assert_allclose(Convex(**settings).fit(p, y).weights_, direct.weights_, atol=5e-3)
