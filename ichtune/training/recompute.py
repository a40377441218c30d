"""Computing activations a second time instead of keeping them, to the same bits: memory is bought with time.

What is recomputed sees the whole batch, so that batch norm's statistics, dropout and whatever else depends on how a
batch is cut stay what they are; parts of a batch cannot promise that.

Source: Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

#: Modules that call what they hold one after the other.
_CHAINS = (nn.Sequential, nn.ModuleList)


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """Return the modules whose inside may be forgotten, none of which holds another.

    They are the blocks that chains are made of, as far inside as possible; where there are none, chains of layers; and
    where there are no chains, the network's own parts.
    """
    found: list[nn.Module] = []
    for child in network.children():
        found += _blocks(child) or _chains(child)
    return found or _parts(network)


def _blocks(module: nn.Module, is_in_chain: bool = False) -> list[nn.Module]:
    """The innermost members of chains that are no chains themselves."""
    is_chain = isinstance(module, _CHAINS)
    inside = [block for child in module.children() for block in _blocks(child, is_chain)]
    return inside or ([module] if is_in_chain and not is_chain and _n_layers(module) > 1 else [])


def _chains(module: nn.Module) -> list[nn.Module]:
    """The innermost chains of several layers."""
    inside = [chain for child in module.children() for chain in _chains(child)]
    return inside or ([module] if isinstance(module, nn.Sequential) and _n_layers(module) > 1 else [])


def _parts(module: nn.Module) -> list[nn.Module]:
    """The parts of several layers of the first module, from outside, that has more than one of them."""
    parts = [child for child in module.children() if _n_layers(child) > 1]
    return _parts(parts[0]) if len(parts) == 1 else parts


def _n_layers(module: nn.Module) -> int:
    return sum(any(True for _ in layer.parameters(recurse=False)) for layer in module.modules())


@contextmanager
def recomputed(blocks: list[nn.Module]) -> Iterator[None]:
    """Let the blocks' insides be forgotten by every forward pass in this context; the backward pass may come later.

    Raises:
        RuntimeError: in the backward pass, a block's input was changed in place, so that it cannot be computed again.
    """
    originals = [(block, block.__dict__.get("forward")) for block in blocks]
    for block in blocks:
        block.__dict__["forward"] = partial(_forgetting, block, block.forward)
    try:
        yield
    finally:
        for block, own in originals:
            del block.__dict__["forward"]
            if own is not None:
                block.__dict__["forward"] = own


def _forgetting(block: nn.Module, forward: Callable[..., Any], *args: Any, **keys: Any) -> Any:
    again = _Again(block)

    def contexts() -> tuple[AbstractContextManager[object], AbstractContextManager[object]]:
        return nullcontext(), again

    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **keys)


class _Again:
    """Around the second computation of a block: it starts from the buffers of the first and changes none.

    Otherwise batch norm's running statistics would move twice, and a spectral norm would take another step.
    """

    def __init__(self, block: nn.Module) -> None:
        # .data: a graph that lives holds on to some of them and would see a change to them as an error
        self._buffers = [buffer.data for buffer in block.buffers()]
        self._first = [buffer.clone() for buffer in self._buffers]

    def __enter__(self) -> None:
        self._now = [buffer.clone() for buffer in self._buffers]
        self._put(self._first)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._put(self._now)

    def _put(self, values: list[torch.Tensor]) -> None:
        for buffer, value in zip(self._buffers, values, strict=True):
            buffer.copy_(value)
