import pytest
import torch
from torch import nn

from ichtune.second_level.recurrent import Recurrent, RecurrentBody
from ichtune.second_level_recipe import SecondLevelRecipe

HIDDEN = 6


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def body(cell: type[nn.Module] = nn.GRU, layers: int = 2) -> RecurrentBody:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return RecurrentBody(cell, HIDDEN, layers, dropout=0.3).eval()


def run(one: RecurrentBody, h_BTH: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
    mask_BT = torch.arange(h_BTH.shape[1]) < lengths_B[:, None]
    with torch.inference_mode():
        return one(h_BTH, mask_BT, lengths_B)


@pytest.mark.parametrize(("name", "cell"), [("gru", nn.GRU), ("lstm", nn.LSTM)])
def test_the_recipe_chooses_cell_depth_and_width(name: str, cell: type[nn.Module]) -> None:
    made = Recurrent(SecondLevelRecipe(model=name, hidden=12, layers=3)).body()
    assert isinstance(made, RecurrentBody)
    assert len(made.layers) == 3
    assert all(type(layer) is cell and layer.hidden_size == 12 and layer.bidirectional for layer in made.layers)


@pytest.mark.parametrize("cell", [nn.GRU, nn.LSTM])
def test_series_of_a_batch_do_not_meet_in_any_order_of_lengths(cell: type[nn.Module]) -> None:
    one, h_BTH, lengths_B = body(cell), noise(4, 9, HIDDEN), torch.tensor([2, 9, 1, 5])
    together = run(one, h_BTH, lengths_B)
    for series, length in enumerate(lengths_B.tolist()):
        alone = run(one, h_BTH[series : series + 1, :length], lengths_B[series : series + 1])
        torch.testing.assert_close(together[series, :length], alone[0], rtol=1e-5, atol=1e-6)


def test_a_slice_sees_the_whole_series_both_ways() -> None:
    one, h_BTH, lengths_B = body(), noise(1, 7, HIDDEN), torch.tensor([7])
    before = run(one, h_BTH, lengths_B)
    h_BTH[0, 3] = noise(HIDDEN)
    moved_T = (run(one, h_BTH, lengths_B) - before).abs().amax(dim=-1)[0]
    assert (moved_T > 1e-7).all()


def test_what_went_in_is_added() -> None:
    one = body(layers=1)
    for parameter in one.layers.parameters():
        nn.init.zeros_(parameter)
    h_BTH = noise(1, 3, HIDDEN)
    torch.testing.assert_close(run(one, h_BTH, torch.tensor([3])), h_BTH)
