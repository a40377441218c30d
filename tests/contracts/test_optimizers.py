"""Every optimizer in the table: it learns, and it can be saved and taken up without a trace."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from ichtune.recipe import Recipe
from ichtune.training.checkpoint import load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from ichtune.training.optimizers import (
    OPTIMIZERS,
    check_optimizer,
    create_optimizer,
    group_state,
    restore_group_state,
    set_lr,
)

pytestmark = pytest.mark.parametrize("name", OPTIMIZERS)


def start(name: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
    return model, create_optimizer(model, Recipe(optimizer=name, lr=0.01))


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, n: int) -> list[float]:
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    y = x[:, :1] - 2 * x[:, 1:2]
    losses = []
    for _ in range(n):
        loss = (model(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_it_learns(name: str) -> None:
    losses = steps(*start(name), 100)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.slow  # takes seconds
@pytest.mark.parametrize("n_before", range(9))
def test_it_goes_on_from_a_file_to_the_same_bits(name: str, n_before: int, tmp_path: Path) -> None:
    model, optimizer = start(name)
    steps(model, optimizer, n_before)
    save_checkpoint(tmp_path / "o.safetensors", optimizer_tensors(optimizer), {"kind": "resume"})
    groups = json.loads(json.dumps(group_state(optimizer)))
    copy, taken_up = start(name)
    copy.load_state_dict(model.state_dict())
    restore_optimizer(taken_up, load_checkpoint(tmp_path / "o.safetensors", "resume")[0])
    restore_group_state(taken_up, groups)
    assert steps(copy, taken_up, 12) == steps(model, optimizer, 12)
    assert all(torch.equal(t, copy.state_dict()[name]) for name, t in model.state_dict().items())


def test_the_learning_rate_of_every_group_is_the_recipe_s_until_it_is_set(name: str) -> None:
    _, optimizer = start(name)
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.01]
    set_lr(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5]


def test_the_learning_rate_that_is_set_is_the_one_of_the_step(name: str) -> None:
    model, optimizer = start(name)
    set_lr(optimizer, 0.0)
    before = model[0].weight.detach().clone()
    steps(model, optimizer, 7)
    assert torch.equal(model[0].weight, before)


def test_a_recipe_that_names_only_the_optimizer_is_good(name: str) -> None:
    check_optimizer(Recipe(optimizer=name))
