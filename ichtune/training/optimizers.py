"""OPTIMIZERS: built from a recipe, with no weight decay on norms and biases."""

from collections.abc import Callable
from typing import Any

from torch import nn, optim

from ichtune.errors import ConfigError, nearest
from ichtune.recipe import Recipe

ParameterGroups = list[dict[str, Any]]


def _adamw(groups: ParameterGroups, recipe: Recipe) -> optim.Optimizer:
    return optim.AdamW(groups, lr=recipe.lr)


def _adam(groups: ParameterGroups, recipe: Recipe) -> optim.Optimizer:
    return optim.Adam(groups, lr=recipe.lr)


def _radam(groups: ParameterGroups, recipe: Recipe) -> optim.Optimizer:
    return optim.RAdam(groups, lr=recipe.lr, decoupled_weight_decay=True)


def _sgd(groups: ParameterGroups, recipe: Recipe) -> optim.Optimizer:
    return optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0)


#: Optimizers by name. ``adam`` adds weight decay to the gradient, ``adamw`` and ``radam`` decouple it.
OPTIMIZERS: dict[str, Callable[[ParameterGroups, Recipe], optim.Optimizer]] = {
    "adamw": _adamw,
    "adam": _adam,
    "radam": _radam,
    "sgd": _sgd,
}


def find_optimizer(name: str) -> Callable[[ParameterGroups, Recipe], optim.Optimizer]:
    """Return an optimizer's builder by name; ``ConfigError`` with the nearest one otherwise."""
    if name not in OPTIMIZERS:
        raise ConfigError(f"unknown optimizer {name!r}. {nearest(name, OPTIMIZERS)}")
    return OPTIMIZERS[name]


def create_optimizer(model: nn.Module, recipe: Recipe) -> optim.Optimizer:
    """Build the recipe's optimizer over a model; vectors and scalars (norms, biases) take no weight decay."""
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    free = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return find_optimizer(recipe.optimizer)([g for g in groups if g["params"]], recipe)
