"""Averages of a model's weights, which are what predicts when the recipe asks for one."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn


def _floating(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: t.detach() for name, t in model.state_dict().items() if t.is_floating_point()}


def _is_direction(name: str) -> bool:
    """Return whether a tensor is a vector of a spectral norm's power iteration."""
    return ".parametrizations." in f".{name}" and name.endswith(("._u", "._v"))


class _Average:
    """Every floating-point tensor of a model, running statistics included.

    The singular vectors that a spectral norm keeps are the model's newest and no mean: a mean of unit vectors is none,
    and the weight would be divided by too small a number.

    Attributes:
        tensors: the average, to be saved; empty where none is kept.
    """

    def __init__(self, model: nn.Module, keeps: bool) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        if keeps:
            self.tensors = {name: tensor.clone() for name, tensor in _floating(model).items()}

    @property
    def _is_ready(self) -> bool:
        return bool(self.tensors)

    def _move(self, model: nn.Module, share: float) -> None:
        """Go a share of the way from the average to the model's weights."""
        state = _floating(model)
        means = [name for name in self.tensors if not _is_direction(name)]
        torch._foreach_lerp_([self.tensors[name] for name in means], [state[name] for name in means], share)
        for name in self.tensors.keys() - means:
            self.tensors[name].copy_(state[name])

    @contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[None]:
        """Let the model hold the average inside the block, and its own weights again after it."""
        if not self._is_ready:
            yield
            return
        state = model.state_dict()
        own = {name: state[name].clone() for name in self.tensors}
        model.load_state_dict(self.tensors, strict=False)
        try:
            yield
        finally:
            model.load_state_dict(own, strict=False)

    def _put_back(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            self.tensors[name].copy_(tensor)


class WeightAverage(_Average):
    """Keeps ``average = decay * average + (1 - decay) * weights``, moved after every optimizer step.

    The first steps use a smaller decay, ``(1 + step) / (10 + step)``, so that the random start is soon forgotten.

    Args:
        model: the model to follow.
        decay: decay a step; 0 keeps no average, and the raw weights are evaluated.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, decay > 0)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards the model's weights after optimizer step ``step`` (from 0)."""
        if self.tensors:
            self._move(model, 1.0 - min(self.decay, (1 + step) / (10 + step)))

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back an average that was saved."""
        self._put_back(tensors)


class EqualAverage(_Average):
    """Keeps the plain mean of the weights of all moments at which it is updated, such as the ends of the last epochs.

    The statistics of batch norms are averaged like weights, so that no further pass over the data is needed. Before the
    first update the raw weights are evaluated.

    Args:
        model: the model to follow.
        keeps: whether to keep an average at all; without one the raw weights are evaluated.

    Attributes:
        n_averaged: updates so far; it has to be saved beside ``tensors``.

    Source: Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, UAI 2018.
    """

    def __init__(self, model: nn.Module, keeps: bool) -> None:
        super().__init__(model, keeps)
        self.n_averaged = 0

    @property
    def _is_ready(self) -> bool:
        return self.n_averaged > 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the model's weights as they are now."""
        if self.tensors:
            self.n_averaged += 1
            self._move(model, 1.0 / self.n_averaged)

    def restore(self, tensors: Mapping[str, torch.Tensor], n_averaged: int) -> None:
        """Put back an average that was saved, with its number of updates."""
        self._put_back(tensors)
        self.n_averaged = n_averaged
