"""Losses: bce is the metric, to the last digit that single precision holds; focal is the published one."""

import numpy as np
import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from ichtune.errors import ConfigError
from ichtune.labels import METRIC_WEIGHTS, N_LABELS
from ichtune.metrics import weighted_log_loss
from ichtune.recipe import Recipe
from ichtune.training.losses import bce, find_loss, focal, reduce_loss

RECIPE = Recipe()


def weight_of(weights: tuple[float, ...], n: int) -> torch.Tensor:
    return (torch.tensor(weights) / sum(weights)).expand(n, -1)


def random_batch(seed: int, n: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits_BL = 3 * torch.randn(n, N_LABELS, generator=generator)
    y_BL = (torch.rand(n, N_LABELS, generator=generator) < 0.3).float()
    return logits_BL, y_BL


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("weights", [METRIC_WEIGHTS, (1.0, 0.0, 3.0, 1.0, 5.0, 0.5)])
def test_reduced_bce_is_the_metric_with_its_weights(seed: int, weights: tuple[float, ...]) -> None:
    logits_BL, y_BL = random_batch(seed)
    metric = weighted_log_loss(y_BL.numpy(), torch.sigmoid(logits_BL.double()).numpy(), weights)
    loss = reduce_loss(bce(logits_BL, y_BL, RECIPE), weight_of(weights, len(y_BL)))
    assert loss.item() == pytest.approx(metric, abs=1e-6)


def test_the_gradient_of_bce_is_that_of_the_metric() -> None:
    logits_BL, y_BL = random_batch(3, n=8)
    logits_BL.requires_grad_()
    reduce_loss(bce(logits_BL, y_BL, RECIPE), weight_of(METRIC_WEIGHTS, 8)).backward()
    z, y, step = logits_BL.detach().double().numpy(), y_BL.numpy(), 1e-5
    for place in np.ndindex(z.shape):
        nudge = np.zeros_like(z)
        nudge[place] = step
        up, down = (weighted_log_loss(y, 1 / (1 + np.exp(-(z + s * nudge)))) for s in (1, -1))
        assert logits_BL.grad is not None
        assert logits_BL.grad[place].item() == pytest.approx((up - down) / (2 * step), abs=1e-7)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_a_sure_answer_has_a_finite_loss_and_gradient_right_or_wrong(gamma: float) -> None:
    for right in (0.0, 1.0):
        for loss in (bce, focal):
            logits_BL = torch.full((2, N_LABELS), 500.0, requires_grad=True)
            value = loss(logits_BL, torch.full((2, N_LABELS), right), Recipe(focal_gamma=gamma)).mean()
            value.backward()
            assert value.item() == pytest.approx(500.0 if right == 0 else 0.0)
            assert logits_BL.grad is not None
            assert torch.isfinite(logits_BL.grad).all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal_is_torchvision_s_for_hard_labels(gamma: float) -> None:
    logits_BL, y_BL = random_batch(4)
    expected_BL = sigmoid_focal_loss(logits_BL, y_BL, alpha=-1, gamma=gamma, reduction="none")
    torch.testing.assert_close(focal(logits_BL, y_BL, Recipe(focal_gamma=gamma)), expected_BL, rtol=1e-4, atol=1e-6)


def test_focal_of_gamma_0_is_bce() -> None:
    logits_BL, y_BL = random_batch(5)
    y_BL = 0.9 * y_BL + 0.05
    recipe = Recipe(focal_gamma=0.0)
    assert torch.equal(focal(logits_BL, y_BL, recipe), bce(logits_BL, y_BL, recipe))


@pytest.mark.parametrize("y", [0.1, 0.5, 0.7])
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_is_least_where_the_answer_is_the_soft_label(y: float, gamma: float) -> None:
    p_B1 = torch.linspace(0.01, 0.99, 99)[:, None]
    losses = focal(torch.logit(p_B1), torch.full_like(p_B1, y), Recipe(focal_gamma=gamma))
    assert p_B1[losses.argmin()].item() == pytest.approx(y, abs=1e-6)
    assert losses.min().item() == pytest.approx(0.0, abs=1e-3)


def test_at_the_soft_label_the_slope_of_focal_is_nearly_none_whatever_the_rounding() -> None:
    y_B = torch.linspace(0.05, 0.95, 500)
    logits_B = torch.logit(y_B).requires_grad_()
    focal(logits_B, y_B, Recipe(focal_gamma=0.5)).sum().backward()
    assert logits_B.grad is not None
    assert logits_B.grad.abs().max().item() < 1e-3


def test_half_precision_logits_are_judged_in_single() -> None:
    logits_BL, y_BL = random_batch(1)
    for loss in (bce, focal):
        half = loss(logits_BL.bfloat16(), y_BL, RECIPE)
        assert half.dtype == torch.float32
        assert torch.equal(half, loss(logits_BL.bfloat16().float(), y_BL, RECIPE))


def test_a_misspelt_loss_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown loss 'bec'. Did you mean 'bce'"):
        find_loss("bec")
