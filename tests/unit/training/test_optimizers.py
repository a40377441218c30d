"""Optimizers: what decays, what does not, and what the recipe's numbers reach."""

import pytest
import torch
from torch import nn

from ichtune.errors import ConfigError
from ichtune.recipe import Recipe
from ichtune.training.optimizers import create_optimizer, find_optimizer


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def test_norms_and_biases_do_not_decay() -> None:
    net = model()
    decayed, free = create_optimizer(net, Recipe(weight_decay=0.1)).param_groups
    assert [p.ndim for p in decayed["params"]] == [4, 2]
    assert decayed["weight_decay"] == 0.1
    assert len(free["params"]) == 4
    assert free["weight_decay"] == 0.0


def test_frozen_weights_are_left_out() -> None:
    net = model()
    for parameter in net.parameters():
        parameter.requires_grad = parameter.ndim > 1
    groups = create_optimizer(net, Recipe()).param_groups
    assert len(groups) == 1


@pytest.mark.parametrize(("name", "decoupled"), [("adamw", True), ("radam", True), ("sgd", False), ("adam", False)])
def test_decoupled_decay_shrinks_a_weight_without_gradient_by_lr_times_decay(name: str, decoupled: bool) -> None:
    net = nn.Linear(1, 1, bias=False)
    nn.init.ones_(net.weight)
    optimizer = create_optimizer(net, Recipe(optimizer=name, lr=0.1, weight_decay=0.5, momentum=0.0))
    net.weight.grad = torch.zeros_like(net.weight)
    optimizer.step()
    shrunk = net.weight.item()
    assert shrunk < 1.0
    if decoupled or name == "sgd":
        assert shrunk == pytest.approx(0.95)
    else:
        assert shrunk == pytest.approx(0.9)  # Adam divides the decay by its own size


def test_momentum_is_sgd_s() -> None:
    assert create_optimizer(model(), Recipe(optimizer="sgd", momentum=0.8)).param_groups[0]["momentum"] == 0.8
    assert not create_optimizer(model(), Recipe(optimizer="sgd", momentum=0.0)).param_groups[0]["nesterov"]


def test_a_misspelt_optimizer_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown optimizer 'adamv'. Did you mean 'adam"):
        find_optimizer("adamv")
