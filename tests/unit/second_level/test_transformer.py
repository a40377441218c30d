import torch

from ichtune.second_level.sequence_network import parameter_groups
from ichtune.second_level.transformer import MAX_DISTANCE, AttentionBody, Transformer
from ichtune.second_level_recipe import SecondLevelRecipe

HIDDEN = 8


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def body(layers: int = 2, heads: int = 2) -> AttentionBody:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = Transformer(SecondLevelRecipe(model="transformer", hidden=HIDDEN, layers=layers, heads=heads)).body()
    assert isinstance(made, AttentionBody)
    return made.eval()


def run(one: AttentionBody, h_BTH: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
    mask_BT = torch.arange(h_BTH.shape[1]) < lengths_B[:, None]
    with torch.inference_mode():
        return one(h_BTH, mask_BT, lengths_B)


def test_padding_is_not_attended_to() -> None:
    one, h_BTH, lengths_B = body(), noise(4, 9, HIDDEN), torch.tensor([2, 9, 1, 5])
    together = run(one, h_BTH, lengths_B)
    assert torch.isfinite(together).all()
    for series, length in enumerate(lengths_B.tolist()):
        alone = run(one, h_BTH[series : series + 1, :length], lengths_B[series : series + 1])
        torch.testing.assert_close(together[series, :length], alone[0], rtol=1e-5, atol=1e-6)


def test_it_knows_which_slices_are_near() -> None:
    """The order of the others matters: attention without places could not tell."""
    one, h_BTH, lengths_B = body(), noise(1, 7, HIDDEN), torch.tensor([7])
    shuffled = h_BTH[:, [0, 6, 3, 1, 4, 2, 5]]
    assert (run(one, h_BTH, lengths_B)[0, 0] - run(one, shuffled, lengths_B)[0, 0]).abs().max() > 1e-4


def test_before_training_near_slices_count_most_and_all_places_are_alike() -> None:
    one = body(layers=1)
    h_BTH, lengths_B = noise(1, 41, HIDDEN), torch.tensor([41])
    before = run(one, h_BTH, lengths_B)
    h_BTH[0, 20] += noise(HIDDEN)
    moved_T = (run(one, h_BTH, lengths_B) - before).abs().amax(dim=-1)[0]
    assert moved_T[19] > moved_T[12]
    assert moved_T[21] > moved_T[28]


def test_the_distance_of_far_slices_is_cut_off() -> None:
    one, length = body(), 3 * MAX_DISTANCE
    assert one.layers[0].distance_bias.shape == (2, 2 * MAX_DISTANCE + 1)
    assert torch.isfinite(run(one, noise(1, length, HIDDEN), torch.tensor([length]))).all()


def test_weight_decay_does_not_pull_at_what_distances_mean() -> None:
    one = body()
    decaying, still = parameter_groups(one, 0.1)
    biases = {id(layer.distance_bias) for layer in one.layers}
    assert biases <= {id(parameter) for parameter in still["params"]}
    assert not biases & {id(parameter) for parameter in decaying["params"]}
