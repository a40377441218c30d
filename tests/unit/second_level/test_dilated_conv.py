import pytest
import torch

from ichtune.second_level.dilated_conv import DilatedBody, DilatedConv
from ichtune.second_level_recipe import SecondLevelRecipe

HIDDEN = 6


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def body(layers: int) -> DilatedBody:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = DilatedConv(SecondLevelRecipe(model="conv", hidden=HIDDEN, layers=layers)).body()
    assert isinstance(made, DilatedBody)
    return made.eval()


def run(one: DilatedBody, h_BTH: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
    mask_BT = torch.arange(h_BTH.shape[1]) < lengths_B[:, None]
    with torch.inference_mode():
        return one(h_BTH, mask_BT, lengths_B)


@pytest.mark.parametrize(("layers", "reach"), [(1, 1), (2, 3), (3, 7), (4, 8)])
def test_dilations_of_one_two_and_four_widen_what_a_slice_sees(layers: int, reach: int) -> None:
    one, h_BTH, lengths_B = body(layers), noise(1, 41, HIDDEN), torch.tensor([41])
    before = run(one, h_BTH, lengths_B)
    h_BTH[0, 20] = noise(HIDDEN)
    moved_T = (run(one, h_BTH, lengths_B) - before).abs().amax(dim=-1)[0] > 0
    assert moved_T.nonzero().flatten().tolist() == list(range(20 - reach, 21 + reach))


def test_nothing_comes_out_of_the_padding_through_any_layer() -> None:
    one, lengths_B = body(4), torch.tensor([2, 9, 1, 5])
    h_BTH = noise(4, 9, HIDDEN)
    together = run(one, h_BTH, lengths_B)
    for series, length in enumerate(lengths_B.tolist()):
        alone = run(one, h_BTH[series : series + 1, :length], lengths_B[series : series + 1])
        torch.testing.assert_close(together[series, :length], alone[0], rtol=1e-5, atol=1e-6)
