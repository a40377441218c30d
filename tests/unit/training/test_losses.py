"""Losses: bce is the metric, to the last digit that single precision holds."""

import numpy as np
import pytest
import torch

from ichtune.errors import ConfigError
from ichtune.labels import METRIC_WEIGHTS, N_LABELS
from ichtune.metrics import weighted_log_loss
from ichtune.training.losses import bce, find_loss, focal

WEIGHTS_L = torch.tensor(METRIC_WEIGHTS)


def random_batch(seed: int, n: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits_BL = 3 * torch.randn(n, N_LABELS, generator=generator)
    y_BL = (torch.rand(n, N_LABELS, generator=generator) < 0.3).float()
    return logits_BL, y_BL


@pytest.mark.parametrize("seed", range(5))
def test_bce_with_the_metric_s_weights_is_the_metric(seed: int) -> None:
    logits_BL, y_BL = random_batch(seed)
    metric = weighted_log_loss(y_BL.numpy(), torch.sigmoid(logits_BL.double()).numpy())
    assert bce(logits_BL, y_BL, WEIGHTS_L).item() == pytest.approx(metric, abs=1e-6)


def test_bce_with_other_weights_is_the_metric_with_those_weights() -> None:
    logits_BL, y_BL = random_batch(7)
    weights = (1.0, 0.0, 3.0, 1.0, 5.0, 0.5)
    metric = weighted_log_loss(y_BL.numpy(), torch.sigmoid(logits_BL.double()).numpy(), weights)
    assert bce(logits_BL, y_BL, torch.tensor(weights)).item() == pytest.approx(metric, abs=1e-6)


def test_the_gradient_of_bce_is_that_of_the_metric() -> None:
    logits_BL, y_BL = random_batch(3, n=8)
    logits_BL.requires_grad_()
    bce(logits_BL, y_BL, WEIGHTS_L).backward()
    z, y, step = logits_BL.detach().double().numpy(), y_BL.numpy(), 1e-5
    for place in np.ndindex(z.shape):
        nudge = np.zeros_like(z)
        nudge[place] = step
        up, down = (weighted_log_loss(y, 1 / (1 + np.exp(-(z + s * nudge)))) for s in (1, -1))
        assert logits_BL.grad is not None
        assert logits_BL.grad[place].item() == pytest.approx((up - down) / (2 * step), abs=1e-7)


def test_a_sure_mistake_has_a_finite_loss_and_gradient() -> None:
    logits_BL = torch.full((2, N_LABELS), 500.0, requires_grad=True)
    for loss in (bce, focal):
        value = loss(logits_BL, torch.zeros(2, N_LABELS), WEIGHTS_L)
        value.backward()
        assert value.item() == pytest.approx(500.0)
    assert logits_BL.grad is not None
    assert torch.isfinite(logits_BL.grad).all()


def test_focal_is_bce_times_the_doubt() -> None:
    logits_BL = torch.zeros(4, N_LABELS)
    y_BL = torch.ones(4, N_LABELS)
    assert focal(logits_BL, y_BL, WEIGHTS_L).item() == pytest.approx(0.5 * np.log(2))
    easy, hard = (focal(logits_BL + z, y_BL, WEIGHTS_L) / bce(logits_BL + z, y_BL, WEIGHTS_L) for z in (4.0, -4.0))
    assert easy < 0.02 < 0.98 < hard


def test_half_precision_logits_are_judged_in_single() -> None:
    logits_BL, y_BL = random_batch(1)
    half = bce(logits_BL.bfloat16(), y_BL, WEIGHTS_L)
    assert half.dtype == torch.float32
    assert half.item() == bce(logits_BL.bfloat16().float(), y_BL, WEIGHTS_L).item()


def test_a_misspelt_loss_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown loss 'bec'. Did you mean 'bce'"):
        find_loss("bec")
