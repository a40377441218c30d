"""Activations that are computed twice: the same bits, less kept, and no buffer moved twice."""

import pytest
import torch
from torch import nn

from ichtune.models.network import Network, create_network
from ichtune.recipe import Recipe
from ichtune.training.recompute import blocks_of, recomputed

#: Networks whose batch norms, dropouts and spectral norms change or draw in every forward pass, of many builds.
NETWORKS = (
    "tiny_convnet",
    "xresnet50_attention_sym",
    "test_resnet",
    "test_efficientnet",
    "test_byobnet",
    "test_vit",
    "test_maxvit",
    "regnetx_002",
)


def network(architecture: str) -> Network:
    torch.manual_seed(3)
    made = create_network(Recipe(architecture=architecture, image_px=32, dropout=0.4)).train()
    return made.to(memory_format=torch.channels_last)


def passed(one: Network, blocks: list[nn.Module], n_passes: int = 2) -> tuple[torch.Tensor, int]:
    """Pass two batches and return the sum of their answers and the bytes that were saved outside of the blocks."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(11)
    logits_BK = torch.zeros(())
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), recomputed(blocks):
        for _ in range(n_passes):
            logits_BK = logits_BK + one(torch.randn(4, 3, 32, 32).contiguous(memory_format=torch.channels_last))
    logits_BK.square().mean().backward()
    return logits_BK.detach(), sum(kept.values())


@pytest.mark.slow  # takes seconds
@pytest.mark.parametrize("architecture", NETWORKS)
def test_answers_gradients_and_buffers_are_the_same_bits(architecture: str) -> None:
    plain, again = network(architecture), network(architecture)
    blocks = blocks_of(again)
    assert len(blocks) > 1
    (expected, n_plain), (got, n_again) = passed(plain, []), passed(again, blocks)
    assert torch.equal(got, expected)
    for (name, one), other in zip(plain.named_parameters(), again.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        assert one.grad is None or torch.equal(one.grad, other.grad), name  # type: ignore[arg-type]
    for (name, one), other in zip(plain.named_buffers(), again.buffers(), strict=True):
        assert torch.equal(one, other), name
    assert n_again < 0.8 * n_plain


def test_no_block_holds_another() -> None:
    for architecture in NETWORKS:
        blocks = blocks_of(network(architecture))
        inside = [id(module) for block in blocks for module in block.modules()]
        assert len(inside) == len(set(inside)), architecture


def test_blocks_are_as_before_afterwards() -> None:
    one = network("test_resnet")
    blocks = blocks_of(one)
    own = blocks[0].forward
    blocks[0].forward = own  # somebody's own forward stays
    with recomputed(blocks):
        assert all("forward" in block.__dict__ for block in blocks)
    assert blocks[0].__dict__["forward"] == own
    assert not any("forward" in block.__dict__ for block in blocks[1:])


class ChangesItsInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layers(x.mul_(2.0))
        return y


def test_a_block_that_changes_its_input_is_refused_and_not_computed_wrongly() -> None:
    block = ChangesItsInput()
    with recomputed([block]):
        y = block(torch.ones(2, 3, requires_grad=True) + 1.0)
    with pytest.raises(RuntimeError, match="has been modified by an inplace operation"):
        y.sum().backward()
