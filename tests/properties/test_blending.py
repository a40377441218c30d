"""What holds for any members and labels: convex blends are optimal, fair to copies, and never out of range."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ichtune.ensemble.blenders.convex import Convex
from ichtune.ensemble.blenders.logits import from_logits, to_logits
from ichtune.ensemble.scores.bootstrap import loss_intervals
from ichtune.labels import N_LABELS
from ichtune.metrics import CLIP, weighted_log_loss

#: Probabilities as models give them, hard ones included.
PROBABILITY = st.one_of(st.sampled_from([0.0, 1.0, 0.5, 1e-9, 1.0 - 1e-9]), st.floats(0.0, 1.0))


@st.composite
def problems(draw):
    n_members, n_rows = draw(st.integers(1, 5)), draw(st.integers(1, 12))
    p = draw(arrays(np.float64, (n_members, n_rows, N_LABELS), elements=PROBABILITY))
    y = draw(arrays(np.float64, (n_rows, N_LABELS), elements=st.sampled_from([0.0, 1.0])))
    return p, y


blenders = st.builds(
    Convex,
    space=st.sampled_from(["probability", "logit"]),
    weights=st.sampled_from(["shared", "per_label"]),
)


@settings(max_examples=60, deadline=None)
@given(problems(), blenders)
def test_a_convex_blend_is_no_worse_in_sample_than_any_member_or_their_mean(problem, blender):
    p, y = problem
    loss = weighted_log_loss(y, blender.fit(p, y).predict(p))
    mean = p.mean(axis=0) if blender.space == "probability" else from_logits(to_logits(p).mean(axis=0))
    for other in (*p, mean):
        assert loss <= weighted_log_loss(y, other) + 1e-6


@settings(max_examples=60, deadline=None)
@given(problems(), blenders)
def test_a_convex_blend_lies_between_its_members(problem, blender):
    p, y = problem
    p_NL = blender.fit(p, y).predict(p)
    assert np.isfinite(p_NL).all()
    assert (p_NL >= np.clip(p.min(axis=0), CLIP, 1 - CLIP) - 1e-9).all()
    assert (p_NL <= np.clip(p.max(axis=0), CLIP, 1 - CLIP) + 1e-9).all()


@settings(max_examples=40, deadline=None)
@given(problems(), blenders, st.data())
def test_a_copy_of_a_member_changes_nothing(problem, blender, data):
    p, y = problem
    copied = data.draw(st.integers(0, len(p) - 1))
    doubled = np.concatenate([p, p[copied : copied + 1]])
    np.testing.assert_allclose(blender.fit(doubled, y).predict(doubled), blender.fit(p, y).predict(p), atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(1, 4), st.integers(0, 2**31 - 1))
def test_a_bootstrap_interval_lies_within_the_patients_own_losses(n_patients, n_slices, seed):
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), n_slices)
    loss = rng.lognormal(size=len(patient))
    (interval,) = loss_intervals(loss, patient, n_draws=200)
    means = loss.reshape(n_patients, n_slices).mean(axis=1)
    assert means.min() - 1e-12 <= interval.low <= interval.high <= means.max() + 1e-12
