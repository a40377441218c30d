"""Every loss in the table: element by element, never below nought, smaller for better answers, weighted as asked."""

from itertools import pairwise

import pytest
import torch

from ichtune.labels import N_LABELS
from ichtune.recipe import Recipe
from ichtune.training.losses import LOSSES, find_loss, reduce_loss

pytestmark = pytest.mark.parametrize("name", LOSSES)
RECIPE = Recipe(focal_gamma=2.0)


def labels(n: int = 16) -> torch.Tensor:
    return (torch.rand(n, 3 * N_LABELS, generator=torch.Generator().manual_seed(0)) < 0.4).float()


def logits() -> torch.Tensor:
    return torch.randn(labels().shape, generator=torch.Generator().manual_seed(1))


def test_better_answers_cost_less_and_nothing_is_below_nought(name: str) -> None:
    loss, y_BK = find_loss(name), labels()
    right_BK = 8 * y_BK - 4
    values = [loss(share * right_BK, y_BK, RECIPE) for share in (-1.0, 0.0, 0.5, 1.0)]
    assert all(value.shape == y_BK.shape and (value >= 0).all() for value in values)
    assert all((better < worse).all() for worse, better in pairwise(values))


def test_the_gradient_points_to_the_labels(name: str) -> None:
    y_BK = labels()
    logits_BK = torch.zeros_like(y_BK, requires_grad=True)
    find_loss(name)(logits_BK, y_BK, RECIPE).sum().backward()
    assert logits_BK.grad is not None
    assert (torch.sign(logits_BK.grad) == 1 - 2 * y_BK).all()


def test_each_loss_is_that_of_its_own_logit_and_label(name: str) -> None:
    loss, y_BK, logits_BK = find_loss(name), labels(), logits()
    each = [loss(z[None, None], y[None, None], RECIPE) for z, y in zip(logits_BK.ravel(), y_BK.ravel(), strict=True)]
    torch.testing.assert_close(loss(logits_BK, y_BK, RECIPE).ravel(), torch.cat(each).ravel())


def test_soft_labels_have_a_finite_loss_and_gradient(name: str) -> None:
    y_BK = labels() * 0.9 + 0.05
    for logits_BK in (logits(), torch.logit(y_BK), 100 * logits()):
        logits_BK = logits_BK.clone().requires_grad_()
        losses_BK = find_loss(name)(logits_BK, y_BK, RECIPE)
        losses_BK.sum().backward()
        assert torch.isfinite(losses_BK).all()
        assert logits_BK.grad is not None
        assert torch.isfinite(logits_BK.grad).all()


def test_what_has_no_weight_counts_for_nothing_and_the_rest_by_its_weight(name: str) -> None:
    loss, y_BK, logits_BK = find_loss(name), labels(), logits()
    weight_BK = torch.rand(y_BK.shape, generator=torch.Generator().manual_seed(2))
    weight_BK[3, 2] = 0.0
    other_BK = logits_BK.clone()
    other_BK[3, 2] += 3.0
    value = reduce_loss(loss(logits_BK, y_BK, RECIPE), weight_BK)
    assert torch.equal(reduce_loss(loss(other_BK, y_BK, RECIPE), weight_BK), value)
    torch.testing.assert_close(reduce_loss(loss(logits_BK, y_BK, RECIPE), 3 * weight_BK), 3 * value)


def test_it_is_the_mean_over_slices(name: str) -> None:
    loss, y_BK, logits_BK = find_loss(name), labels(), logits()
    weight_BK = torch.rand(y_BK.shape, generator=torch.Generator().manual_seed(2))
    each = torch.stack(
        [
            reduce_loss(loss(z[None], y[None], RECIPE), w[None])
            for z, y, w in zip(logits_BK, y_BK, weight_BK, strict=True)
        ]
    )
    torch.testing.assert_close(reduce_loss(loss(logits_BK, y_BK, RECIPE), weight_BK), each.mean())
