"""OPTIMIZERS: built from a recipe, with no weight decay on norms, biases, positions and learnable windows."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import nn, optim

from ichtune.errors import ConfigError, DataError, nearest
from ichtune.models.network import Network, layer_scales, undecayed_parameters
from ichtune.recipe import Recipe

ParameterGroups = list[dict[str, Any]]

#: Share of the way that the slow weights go, and steps of the fast ones before it.
#: Source: Zhang et al., Lookahead Optimizer: k steps forward, 1 step back, NeurIPS 2019.
LOOKAHEAD_ALPHA = 0.5
LOOKAHEAD_K = 6
#: Where timm's Lookahead looks for a parameter's slow weights in the state of the fast optimizer.
_SLOW = "lookahead_slow_buff"


@dataclass(frozen=True)
class OptimizerKind:
    """One optimizer: how it is built, and which of the recipe's keys it reads.

    Attributes:
        build: takes parameter groups, ``lr`` and those of ``betas``, ``eps``, ``momentum`` and ``fused`` that it reads.
        betas: its own betas, which ``beta1`` and ``beta2`` replace; None where it has none.
        eps: its own term in the denominator, which ``eps`` replaces; None where it has none.
        momentum: whether it reads ``momentum``.
        fused: whether it can do a step of all parameters in one kernel of a GPU.
    """

    build: Callable[..., optim.Optimizer]
    betas: tuple[float, float] | None = None
    eps: float | None = None
    momentum: bool = False
    fused: bool = False


def _ranger(groups: ParameterGroups, **settings: Any) -> optim.Optimizer:
    from timm.optim import Lookahead

    fast = optim.RAdam(groups, decoupled_weight_decay=True, **settings)
    _start_slow_weights(fast)
    return Lookahead(fast, alpha=LOOKAHEAD_ALPHA, k=LOOKAHEAD_K)


def _start_slow_weights(fast: optim.Optimizer) -> None:
    """Let each parameter's slow weights begin where it lies before its first step.

    timm's would begin at the first meeting, which then changes nothing. They are put into the state after that step and
    not before it, since RAdam fills a parameter's state only if it finds it empty.
    """
    starts: dict[torch.Tensor, torch.Tensor] = {}

    def before(optimizer: optim.Optimizer, *_: Any) -> None:
        for parameter in (p for group in optimizer.param_groups for p in group["params"] if p.grad is not None):
            if _SLOW not in optimizer.state.get(parameter, {}):
                starts[parameter] = parameter.detach().clone()

    def after(optimizer: optim.Optimizer, *_: Any) -> None:
        while starts:
            parameter, start = starts.popitem()
            optimizer.state[parameter][_SLOW] = start

    fast.register_step_pre_hook(before)
    fast.register_step_post_hook(after)


def _sgd(groups: ParameterGroups, momentum: float, **settings: Any) -> optim.Optimizer:
    return optim.SGD(groups, momentum=momentum, nesterov=momentum > 0, **settings)


def _lion(groups: ParameterGroups, **settings: Any) -> optim.Optimizer:
    from timm.optim import Lion

    return Lion(groups, **settings)


#: Optimizers by name. ``adam`` and ``sgd`` add weight decay to the gradient, the others decouple it.
#: ``ranger`` is RAdam with Lookahead, whose slow weights begin where the fast ones do.
OPTIMIZERS: dict[str, OptimizerKind] = {
    "adamw": OptimizerKind(optim.AdamW, (0.9, 0.999), 1e-8, fused=True),
    "adam": OptimizerKind(optim.Adam, (0.9, 0.999), 1e-8, fused=True),
    "radam": OptimizerKind(partial(optim.RAdam, decoupled_weight_decay=True), (0.9, 0.999), 1e-8),
    "ranger": OptimizerKind(_ranger, (0.95, 0.99), 1e-6),
    "sgd": OptimizerKind(_sgd, momentum=True, fused=True),
    "lion": OptimizerKind(_lion, (0.9, 0.99)),
}


def find_optimizer(name: str) -> OptimizerKind:
    """Return an optimizer by name; ``ConfigError`` with the nearest one otherwise."""
    if name not in OPTIMIZERS:
        raise ConfigError(f"unknown optimizer {name!r}. {nearest(name, OPTIMIZERS)}")
    return OPTIMIZERS[name]


def check_optimizer(recipe: Recipe) -> None:
    """Raise ``ConfigError`` for an unknown optimizer, or a key that is given and that it does not read."""
    kind = find_optimizer(recipe.optimizer)
    for key, own in (("beta1", kind.betas), ("beta2", kind.betas), ("eps", kind.eps)):
        value = getattr(recipe, key)
        if value is not None and own is None:
            raise ConfigError(
                f"recipe key {key!r} is none that optimizer {recipe.optimizer!r} reads, got {value:g}; leave it out, "
                f"or name an optimizer that does"
            )


def create_optimizer(network: nn.Module, recipe: Recipe, *, only: Collection[str] | None = None) -> optim.Optimizer:
    """Build the recipe's optimizer over a network.

    Norms, biases, positions and the like take no weight decay: see ``undecayed_parameters``. Each group holds
    ``lr_scale``, its share of the learning rate: see ``set_lr``.

    Args:
        network: whose parameters that require a gradient are learnt.
        recipe: names the optimizer and its settings.
        only: names of the parameters to learn; None for all.

    Raises:
        ConfigError: an unknown optimizer, a key that it does not read, or layers that are not known.
    """
    check_optimizer(recipe)
    learnt = {name: p for name, p in network.named_parameters() if p.requires_grad and (only is None or name in only)}
    scales = _layer_scales(network, recipe, learnt)
    undecayed = undecayed_parameters(network)
    groups: dict[tuple[bool, float], dict[str, Any]] = {}
    for decays in (True, False):
        for name, parameter in learnt.items():
            if decays == (name not in undecayed):
                weight_decay = recipe.weight_decay if decays else 0.0
                start = {"params": [], "weight_decay": weight_decay, "lr_scale": scales[name]}
                groups.setdefault((decays, scales[name]), start)["params"].append(parameter)
    kind = find_optimizer(recipe.optimizer)
    fused = kind.fused and all(on_cuda(p) for p in learnt.values())
    optimizer = kind.build(list(groups.values()), **_settings(kind, recipe), **({"fused": True} if fused else {}))
    set_lr(optimizer, recipe.lr)
    return optimizer


def on_cuda(parameter: torch.Tensor) -> bool:
    """Return whether a fused step exists where the parameter lies; on CPUs it would change the bits."""
    return parameter.is_cuda


def _layer_scales(network: nn.Module, recipe: Recipe, names: Collection[str]) -> Mapping[str, float]:
    if recipe.layer_lr_decay == 1.0:
        return dict.fromkeys(names, 1.0)
    return layer_scales(cast(Network, network), recipe.layer_lr_decay)


def _settings(kind: OptimizerKind, recipe: Recipe) -> dict[str, Any]:
    settings: dict[str, Any] = {"lr": recipe.lr}
    if kind.betas is not None:
        given = (recipe.beta1, recipe.beta2)
        settings["betas"] = tuple(o if g is None else g for o, g in zip(kind.betas, given, strict=True))
    if kind.eps is not None:
        settings["eps"] = kind.eps if recipe.eps is None else recipe.eps
    if kind.momentum:
        settings["momentum"] = recipe.momentum
    return settings


def set_lr(optimizer: optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every parameter group to its share ``lr_scale`` of ``lr``."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def group_state(optimizer: optim.Optimizer) -> list[dict[str, float | int]]:
    """Return the numbers that each parameter group holds, among them the steps that Lookahead counts there."""
    return [
        {key: v for key, v in group.items() if isinstance(v, int | float) and not isinstance(v, bool)}
        for group in optimizer.param_groups
    ]


def restore_group_state(optimizer: optim.Optimizer, state: Sequence[Mapping[str, float | int]]) -> None:
    """Put back what ``group_state`` returned.

    Raises:
        DataError: it is of an optimizer with other parameter groups.
    """
    if len(state) != len(optimizer.param_groups):
        raise DataError(
            f"the checkpoint's optimizer must have {len(optimizer.param_groups)} parameter groups, got {len(state)}; "
            f"remove the checkpoint to train from the start"
        )
    for group, numbers in zip(optimizer.param_groups, state, strict=True):
        group.update(numbers)
