import numpy as np
import pytest

from ichtune.ensemble.blenders import entry_sample, many_rows
from ichtune.ensemble.blenders.blend_losses import LogitLoss, MixtureLoss, SharedLoss
from ichtune.ensemble.blenders.entry_sample import sample_entries
from ichtune.ensemble.blenders.logits import clip_probabilities, to_logits
from ichtune.ensemble.blenders.many_rows import ENOUGH, ManyRows
from ichtune.ensemble.blenders.simplex import minimise_on_simplex
from ichtune.labels import METRIC_WEIGHTS, N_LABELS

SHARED = np.array([METRIC_WEIGHTS]) / sum(METRIC_WEIGHTS)
SHARES = [pytest.param(SHARED, id="shared"), pytest.param(np.eye(N_LABELS), id="per_label")]
KINDS = [MixtureLoss, LogitLoss]
NOISES = (0.5, 0.8, 0.9, 1.3, 2.0)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(entry_sample, "SHARE", 0.0)
    monkeypatch.setattr(entry_sample, "LEAST", 3000)


@pytest.fixture
def members(generated):
    p, y, _ = generated(400, noises=NOISES)
    return p, y


def problem(p, y, kind, shares, weight=None):
    return ManyRows(p, y, np.full(len(y), 1 / len(y)) if weight is None else weight, kind, shares)


def directly(p, y, kind, share_L, weight_N):
    """The loss of one problem, from the definition."""
    x = clip_probabilities(p) if kind is MixtureLoss else to_logits(p)
    return SharedLoss([kind(x[:, :, i], y[:, i].astype(float), weight_N) for i in range(N_LABELS)], share_L)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shares", SHARES)
def test_the_loss_over_all_entries_is_as_near_its_minimum_as_the_gap_says(members, kind, shares):
    p, y = members
    w_KG, gap = problem(p, y, kind, shares).solve()
    excesses = []
    for w_G, share_L in zip(w_KG, shares, strict=True):
        loss = directly(p, y, kind, share_L, np.full(len(y), 1 / len(y)))
        best, _ = minimise_on_simplex(loss, len(p))
        excesses.append(loss.value(w_G) - loss.value(best))
        assert w_G.sum() == pytest.approx(1, abs=1e-12)
        assert w_G.min() >= 0
    assert max(excesses) <= gap <= ENOUGH
    assert max(excesses) > 1e-13, "a sample cannot lead to the optimum itself"


@pytest.mark.parametrize("kind", KINDS)
def test_a_gap_holds_at_any_weights_and_is_nearer_than_frank_and_wolfe_s(members, kind, monkeypatch):
    monkeypatch.setattr(entry_sample, "LEAST", 30_000)  # most of the entries that tell anything are in
    p, y = members
    weight = np.full(len(y), 1 / len(y))
    (sample,) = sample_entries(p, y, weight, SHARED)
    solver, loss = many_rows._OnSample(sample, kind), directly(p, y, kind, SHARED[0], weight)
    least = loss.value(minimise_on_simplex(loss, len(p))[0])
    near = solver.first()
    for w_G in [*(0.98 * near + 0.02 * np.eye(len(p))), *np.random.default_rng(6).dirichlet(np.ones(len(p)), 5)]:
        gradient_G = problem(p, y, kind, SHARED).gradients(w_G[None])[0]
        gap = solver.gap(w_G, gradient_G)
        assert loss.value(w_G) - least <= gap + 1e-14
        assert gap <= gradient_G @ w_G - gradient_G.min()
    gradient_G = problem(p, y, kind, SHARED).gradients(near[None])[0]
    assert solver.gap(near, gradient_G) < 0.1 * (gradient_G @ near - gradient_G.min()), "near the optimum far nearer"


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_a_pass_is_that_of_the_definition(members, kind):
    p, y = members
    weight = np.random.default_rng(5).dirichlet(np.ones(len(y)))
    w_KG = np.random.default_rng(6).dirichlet(np.ones(len(p)), N_LABELS)
    gradient_KG = problem(p, y, kind, np.eye(N_LABELS), weight).gradients(w_KG)
    for k, share_L in enumerate(np.eye(N_LABELS)):
        expected = directly(p, y, kind, share_L, weight).derivatives(w_KG[k])[0]
        along = gradient_KG[k] - gradient_KG[k] @ w_KG[k]
        np.testing.assert_allclose(along, expected, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_soft_labels_and_row_weights_are_taken(members, kind):
    p, _ = members
    soft = 0.7 * p[1] + 0.3 * p[3]
    weight = np.random.default_rng(5).dirichlet(np.ones(len(soft)))
    (w_G,), gap = problem(p, soft, kind, SHARED, weight).solve()
    best, _ = minimise_on_simplex(directly(p, soft, kind, SHARED[0], weight), len(p))
    np.testing.assert_allclose(w_G, best, atol=2e-2)
    assert gap <= ENOUGH
    if kind is MixtureLoss:
        np.testing.assert_allclose(w_G, [0, 0.7, 0, 0.3, 0], atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shares", SHARES)
def test_a_sample_that_leads_nowhere_is_given_up(members, kind, shares, monkeypatch):
    p, y = members
    monkeypatch.setattr(many_rows, "MAX_PASSES", 0)
    w_KG, gap = problem(p, y, kind, shares).solve()
    assert gap <= ENOUGH
    np.testing.assert_allclose(w_KG.sum(axis=1), 1)


@pytest.mark.parametrize("kind", KINDS)
def test_neither_the_order_of_slices_nor_of_members_matters(members, kind):
    p, y = members
    rng = np.random.default_rng(3)
    rows, order = rng.permutation(len(y)), rng.permutation(len(p))
    (w_G,), _ = problem(p, y, kind, SHARED).solve()
    (turned_G,), _ = problem(p[order][:, rows], y[rows], kind, SHARED).solve()
    np.testing.assert_allclose(turned_G, w_G[order], atol=1e-9)


def test_memory_order_and_integer_labels_do_not_matter(members):
    p, y = members
    (w_G,), _ = problem(p, y, LogitLoss, SHARED).solve()
    (other_G,), _ = problem(np.asfortranarray(p), y.astype(np.int8), LogitLoss, SHARED).solve()
    np.testing.assert_allclose(other_G, w_G, atol=1e-9)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shares", SHARES)
def test_hard_members_that_are_sure_and_wrong_stay_finite(members, kind, shares):
    p, y = members
    hard = np.stack([p[0], (p[1] > 0.5).astype(float), 1.0 - y, np.zeros_like(y), p[2]])
    w_KG, gap = problem(hard, y, kind, shares).solve()
    assert np.isfinite(w_KG).all()
    assert gap <= ENOUGH
