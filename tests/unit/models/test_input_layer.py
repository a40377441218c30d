"""The input layer: neighbours, windows, jitter and normalisation, each against a formula of its own."""

from typing import Any

import numpy as np
import pytest
import torch

from ichtune.errors import ConfigError, DataError
from ichtune.models.input_layer import IMAGENET_MEAN, IMAGENET_STD, InputLayer
from ichtune.recipe import Recipe
from ichtune.windows import Window, apply_windows

NAN = float("nan")


def hu_batch(batch: int = 3, slices: int = 1, low: int = -200, high: int = 400) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(low, high, (batch, slices, 6, 5)).astype(np.float32))


def layer(**keys: Any) -> InputLayer:
    return InputLayer(Recipe(**keys))


def linear(hu: torch.Tensor, center: float, width: float) -> np.ndarray:
    return np.clip((hu.numpy().astype(np.float64) - center) / (width / 2), -1, 1)


def sigmoid(hu: torch.Tensor, center: float, width: float) -> np.ndarray:
    return 2 / (1 + np.exp(-4 * (hu.numpy().astype(np.float64) - center) / width)) - 1


def assert_like(found: torch.Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=2e-5)


def test_the_default_recipe_is_three_linear_windows_of_one_slice() -> None:
    hu = hu_batch()
    x = layer()(hu)
    assert_like(x, np.concatenate([linear(hu, 40, 80), linear(hu, 80, 200), linear(hu, 600, 2800)], axis=1))


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"window_shape": "sigmoid"},
        {"learnable_windows": True},
        {"normalisation": "imagenet"},
        {"normalisation": "data", "learnable_windows": True},
        {"channel_layout": "paired"},
        {"neighbour_use": "mean"},
        {"neighbour_use": "slice_and_mean", "windows": "dicom"},
    ],
    ids=str,
)
def test_every_way_gives_float32_channels_last_of_the_recipe_s_channels(keys: dict[str, Any]) -> None:
    recipe = Recipe(neighbours=1, **keys)
    hu = hu_batch(2, 3).to(torch.int16)
    before = hu.clone()
    own, jitter = torch.tensor([[50.0, 90.0]]).repeat(2, 1), torch.rand(2, len(recipe.windows), 2) + 0.5
    for x in (InputLayer(recipe)(hu), InputLayer(recipe)(hu, own, jitter)):
        assert x.shape == (2, recipe.n_channels, 6, 5)
        assert x.dtype == torch.float32
        assert x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(hu, before)


def test_the_sigmoid_is_dicom_s() -> None:
    hu = hu_batch()
    assert_like(layer(windows="subdural", window_shape="sigmoid")(hu), sigmoid(hu, 80, 200))


def test_stacked_neighbours_are_channels_slice_by_slice_and_window_by_window() -> None:
    hu = hu_batch(2, 3)
    x = layer(windows=[[40, 80], [80, 200]], neighbours=1)(hu)
    for s in range(3):
        assert_like(x[:, 2 * s], linear(hu[:, s], 40, 80))
        assert_like(x[:, 2 * s + 1], linear(hu[:, s], 80, 200))


def test_the_mean_of_the_neighbours_is_taken_in_hu() -> None:
    hu = hu_batch(2, 5)
    x = layer(windows="brain", neighbours=2, neighbour_use="mean")(hu)
    assert_like(x[:, 0], linear(hu.mean(dim=1), 40, 80))
    assert not torch.allclose(x, layer(windows="brain", neighbours=2)(hu).mean(dim=1, keepdim=True), atol=1e-2)


@pytest.mark.parametrize(("side", "itself"), [("both", 2), ("below", 2), ("above", 0)])
def test_the_slice_itself_comes_before_the_mean(side: str, itself: int) -> None:
    recipe = Recipe(windows="brain", neighbours=2, neighbour_side=side, neighbour_use="slice_and_mean")  # type: ignore[arg-type]
    hu = hu_batch(2, len(recipe.offsets))
    x = InputLayer(recipe)(hu)
    assert_like(x[:, 0], linear(hu[:, itself], 40, 80))
    assert_like(x[:, 1], linear(hu.mean(dim=1), 40, 80))


@pytest.mark.parametrize("jittered", [False, True])
def test_paired_channels_see_each_slice_under_its_own_window(jittered: bool) -> None:
    hu = hu_batch(2, 3)
    jitter = torch.tensor([0.0, 1.0]).expand(2, 3, 2) if jittered else None
    x = layer(neighbours=1, channel_layout="paired")(hu, None, jitter)
    for i, (center, width) in enumerate([(40, 80), (80, 200), (600, 2800)]):
        assert_like(x[:, i], linear(hu[:, i], center, width))


@pytest.mark.parametrize("shape", ["linear", "sigmoid"])
def test_a_file_s_own_window_is_that_of_its_slice_and_the_brain_s_where_it_has_none(shape: str) -> None:
    hu = hu_batch(5, 3)
    own = torch.tensor([[36.0, 120.0], [NAN, 100.0], [50.0, NAN], [30.0, 0.0], [47.0, 70.0]], dtype=torch.float64)
    x = layer(windows=["dicom", [80, 200]], neighbours=1, window_shape=shape)(hu, own)
    formula = {"linear": linear, "sigmoid": sigmoid}[shape]
    for b, pair in enumerate([(36, 120), (40, 80), (40, 80), (40, 80), (47, 70)]):
        for s in range(3):
            assert_like(x[b, 2 * s], formula(hu[b, s], *pair))
            assert_like(x[b, 2 * s + 1], formula(hu[b, s], 80, 200))


def test_without_windows_of_files_dicom_is_the_brain_window() -> None:
    hu = hu_batch()
    assert torch.equal(layer(windows="dicom")(hu), layer(windows="brain")(hu))


def test_a_file_s_window_changes_nothing_where_the_recipe_does_not_ask_for_it() -> None:
    hu = hu_batch()
    assert torch.equal(layer()(hu, torch.tensor([[300.0, 30.0]]).repeat(3, 1)), layer()(hu))


def test_jitter_shifts_centres_by_shares_of_the_width_and_multiplies_widths() -> None:
    hu = hu_batch(2)
    jitter = torch.tensor([[[0.1, 1.2], [-0.2, 0.9]], [[0.0, 1.0], [0.3, 1.1]]])
    x = layer(windows=["dicom", [80, 200]])(hu, torch.tensor([[36.0, 120.0], [NAN, NAN]]), jitter)
    pairs = [[(36 + 12, 144), (80 - 40, 180)], [(40, 80), (80 + 60, 220)]]
    for b in range(2):
        for n in range(2):
            assert_like(x[b, n], linear(hu[b, 0], *pairs[b][n]))


@pytest.mark.parametrize("shape", ["linear", "sigmoid"])
def test_learnable_windows_start_as_the_fixed_ones_to_the_last_bit(shape: str) -> None:
    hu = hu_batch(2, 3)
    keys: dict[str, Any] = {"neighbours": 1, "window_shape": shape}
    learnable = layer(**keys, learnable_windows=True)
    assert sorted(name for name, _ in learnable.named_parameters()) == ["center_N", "width_N"]
    assert list(layer(**keys).named_parameters()) == []
    assert torch.equal(learnable(hu), layer(**keys)(hu))


def test_what_is_learnt_moves_centres_by_shares_of_the_width_and_widths_by_a_factor() -> None:
    hu = hu_batch()
    learnable = layer(windows=[[40, 80], [80, 200]], learnable_windows=True)
    with torch.no_grad():
        learnable.center_N.copy_(torch.tensor([0.25, -0.1]))
        learnable.width_N.copy_(torch.log(torch.tensor([1.5, 0.5])))
    x = learnable(hu)
    assert_like(x[:, :1], linear(hu, 60, 120))
    assert_like(x[:, 1:], linear(hu, 60, 100))
    found = [(window.center_hu, window.width_hu) for window in learnable.learnt_windows()]
    np.testing.assert_allclose(found, [(60, 120), (60, 100)], rtol=1e-5)
    own = torch.tensor([[30.0, 100.0]]).repeat(3, 1)
    dicom = layer(windows="dicom", learnable_windows=True)
    with torch.no_grad():
        dicom.center_N.fill_(0.25)
    assert_like(dicom(hu, own), linear(hu, 55, 100))


@pytest.mark.parametrize("shape", ["linear", "sigmoid"])
def test_gradients_of_learnable_windows_are_those_of_the_formula(shape: str) -> None:
    hu = hu_batch(2, 1, low=10, high=70)
    learnable = layer(windows="brain", window_shape=shape, learnable_windows=True)
    learnable(hu).sum().backward()
    u = 2 * (hu.numpy().astype(np.float64) - 40) / 80
    slope = np.ones_like(u) if shape == "linear" else 1 - np.tanh(u) ** 2
    # x = f(2 (hu - c - w a) / (w exp b)) at a = b = 0: dx/da = -2 f'(u), dx/db = -u f'(u)
    assert learnable.center_N.grad is not None
    assert learnable.width_N.grad is not None
    np.testing.assert_allclose(learnable.center_N.grad.item(), (-2 * slope).sum(), rtol=1e-5)
    np.testing.assert_allclose(learnable.width_N.grad.item(), (-u * slope).sum(), rtol=1e-4)


@pytest.mark.parametrize(("shape", "learns"), [("linear", False), ("sigmoid", True)])
def test_only_a_sigmoid_window_learns_from_what_lies_beyond_its_edges(shape: str, learns: bool) -> None:
    learnable = layer(windows="brain", window_shape=shape, learnable_windows=True)
    learnable(torch.full((1, 1, 4, 4), 120.0)).sum().backward()
    for parameter in learnable.parameters():
        assert parameter.grad is not None
        assert bool(parameter.grad != 0) == learns


def test_a_window_learns_its_way_to_what_explains_the_target() -> None:
    hu = hu_batch(4, low=-50, high=200)
    wanted = apply_windows(hu, [Window(60, 120)])
    learnable = layer(windows="brain", learnable_windows=True)
    for _ in range(100):
        learnable.zero_grad()
        (learnable(hu) - wanted).square().mean().backward()
        with torch.no_grad():
            for parameter in learnable.parameters():
                assert parameter.grad is not None
                parameter -= 0.2 * parameter.grad
    (window,) = learnable.learnt_windows()
    assert window.center_hu == pytest.approx(60, abs=1.0)
    assert window.width_hu == pytest.approx(120, abs=2.0)


def test_imagenet_s_moments_go_round_the_channels() -> None:
    hu = hu_batch(2, 3)
    plain, scaled = (
        layer(windows=[[40, 80], [80, 200]], neighbours=1, normalisation=n)(hu) for n in ("none", "imagenet")
    )
    for c in range(6):
        expected = ((plain[:, c].numpy() + 1) / 2 - IMAGENET_MEAN[c % 3]) / IMAGENET_STD[c % 3]
        assert_like(scaled[:, c], expected)
    timm_data = pytest.importorskip("timm.data")
    assert (IMAGENET_MEAN, IMAGENET_STD) == (timm_data.IMAGENET_DEFAULT_MEAN, timm_data.IMAGENET_DEFAULT_STD)


def test_the_data_s_moments_make_training_input_of_mean_nought_and_deviation_one() -> None:
    inputs = layer(normalisation="data")
    batches = [hu_batch(n, 1, -100 * n, 200 * n) for n in (1, 2, 5)]
    plain = torch.cat([inputs.windowed(hu) for hu in batches])
    assert torch.equal(inputs(batches[0]), inputs.windowed(batches[0]))
    inputs.fit_moments(inputs.windowed(hu) for hu in batches)
    np.testing.assert_allclose(inputs.mean_C.numpy(), plain.double().mean(dim=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(inputs.std_C.numpy(), plain.double().std(dim=(0, 2, 3), correction=0), rtol=1e-6)
    x = torch.cat([inputs(hu) for hu in batches])
    np.testing.assert_allclose(x.mean(dim=(0, 2, 3)), np.zeros(3), atol=1e-5)
    np.testing.assert_allclose(x.std(dim=(0, 2, 3), correction=0), np.ones(3), rtol=1e-5)
    again = layer(normalisation="data")
    again.load_state_dict(inputs.state_dict())
    assert torch.equal(again(batches[2]), inputs(batches[2]))


def test_a_channel_that_never_varies_is_not_blown_up() -> None:
    inputs = layer(windows="brain", normalisation="data")
    inputs.fit_moments([inputs.windowed(torch.full((2, 1, 4, 4), 33.3))] * 3)
    assert inputs.std_C.item() == 1.0
    assert inputs(torch.full((1, 1, 4, 4), 33.3)).abs().max() < 1e-6


def test_only_the_data_s_moments_are_kept_with_the_weights() -> None:
    assert list(layer(normalisation="imagenet").state_dict()) == []
    assert sorted(layer(normalisation="data").state_dict()) == ["mean_C", "std_C"]


def test_moments_of_nothing_and_moments_that_nobody_asked_for_are_refused() -> None:
    with pytest.raises(DataError, match="at least one batch"):
        layer(normalisation="data").fit_moments([])
    with pytest.raises(ConfigError, match="normalisation 'data' only, got 'imagenet'"):
        layer(normalisation="imagenet").fit_moments([torch.zeros(1, 3, 2, 2)])


def test_a_batch_of_another_number_of_slices_is_refused() -> None:
    with pytest.raises(DataError, match="a batch of 1 slices for each sample, but the recipe sees 3"):
        layer(neighbours=1)(hu_batch())
