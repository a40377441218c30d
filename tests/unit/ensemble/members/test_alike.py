import numpy as np

from ichtune.ensemble.blenders.logits import from_logits, to_logits
from ichtune.ensemble.members.alike import find_alike


def test_members_that_say_nearly_the_same_are_told(generated):
    p, _, _ = generated(noises=(1.0, 1.1, 1.2))
    rng = np.random.default_rng(0)
    near = from_logits(to_logits(p[1]) + 1e-3 * rng.standard_normal(p[1].shape))
    (pair,) = find_alike(["a", "b", "c", "d"], np.concatenate([p, near[None]]))
    assert (pair.recipe_id, pair.other) == ("b", "d")
    assert 0.9999 < pair.correlation <= 1.0
    assert "net b and d say nearly the same" in pair.text({"b": "net b"})


def test_good_members_and_constants_are_not_alike(generated):
    p, _, _ = generated(noises=(0.1, 0.1, 0.1))
    flat = np.full((1, *p.shape[1:]), 0.1)
    assert find_alike(list("abcde"), np.concatenate([p, flat, flat])) == ()
