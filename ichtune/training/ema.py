"""Exponential average of a model's weights, which is what is evaluated when the recipe asks for one."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn


class WeightAverage:
    """Keeps ``average = decay * average + (1 - decay) * weights`` over every floating-point tensor of a model.

    The first steps use a smaller decay, ``(1 + step) / (10 + step)``, so that the random start is soon forgotten.

    Args:
        model: the model to follow.
        decay: decay a step; 0 keeps no average, and the raw weights are evaluated.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors: dict[str, torch.Tensor] = {}
        if decay > 0:
            self.tensors = {k: v.detach().clone() for k, v in model.state_dict().items() if v.is_floating_point()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards the model's weights after optimizer step ``step`` (from 0)."""
        if not self.tensors:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        state = model.state_dict()
        names = list(self.tensors)
        torch._foreach_lerp_([self.tensors[n] for n in names], [state[n] for n in names], 1.0 - decay)

    @contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[None]:
        """Let the model hold the average inside the block, and its own weights again after it."""
        if not self.tensors:
            yield
            return
        state = model.state_dict()
        own = {name: state[name].clone() for name in self.tensors}
        model.load_state_dict(self.tensors, strict=False)
        try:
            yield
        finally:
            model.load_state_dict(own, strict=False)

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back an average that was saved."""
        for name, tensor in tensors.items():
            self.tensors[name].copy_(tensor)
