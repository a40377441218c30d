"""Every loss in the table: a finite scalar, smaller for better answers, weighted over labels as asked."""

import pytest
import torch

from ichtune.labels import METRIC_WEIGHTS, N_LABELS
from ichtune.training.losses import LOSSES, find_loss

pytestmark = pytest.mark.parametrize("name", LOSSES)
WEIGHTS_L = torch.tensor(METRIC_WEIGHTS)


def labels(n: int = 16) -> torch.Tensor:
    return (torch.rand(n, N_LABELS, generator=torch.Generator().manual_seed(0)) < 0.4).float()


def test_better_answers_cost_less_and_nothing_is_below_nought(name: str) -> None:
    loss, y_BL = find_loss(name), labels()
    right_BL = 8 * y_BL - 4
    values = [loss(share * right_BL, y_BL, WEIGHTS_L) for share in (-1.0, 0.0, 0.5, 1.0)]
    assert all(value.ndim == 0 and value >= 0 for value in values)
    assert values == sorted(values, reverse=True)


def test_the_gradient_points_to_the_labels(name: str) -> None:
    y_BL = labels()
    logits_BL = torch.zeros_like(y_BL, requires_grad=True)
    find_loss(name)(logits_BL, y_BL, WEIGHTS_L).backward()
    assert logits_BL.grad is not None
    assert (torch.sign(logits_BL.grad) == 1 - 2 * y_BL).all()


def test_a_label_without_weight_counts_for_nothing_and_scale_does_not_matter(name: str) -> None:
    loss, y_BL = find_loss(name), labels()
    logits_BL = torch.randn(y_BL.shape, generator=torch.Generator().manual_seed(1))
    without = torch.tensor([2.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    other_BL = logits_BL.clone()
    other_BL[:, -1] += 3.0
    assert torch.equal(loss(logits_BL, y_BL, without), loss(other_BL, y_BL, without))
    torch.testing.assert_close(loss(logits_BL, y_BL, 10 * WEIGHTS_L), loss(logits_BL, y_BL, WEIGHTS_L))


def test_it_is_the_mean_over_slices(name: str) -> None:
    loss, y_BL = find_loss(name), labels()
    logits_BL = torch.randn(y_BL.shape, generator=torch.Generator().manual_seed(1))
    each = torch.stack([loss(z[None], y[None], WEIGHTS_L) for z, y in zip(logits_BL, y_BL, strict=True)])
    torch.testing.assert_close(loss(logits_BL, y_BL, WEIGHTS_L), each.mean())
