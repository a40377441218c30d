"""Every window set in the table: applied alike to one slice and to many, and never outside [-1, 1]."""

import numpy as np
import pytest
import torch

from ichtune.recipe import WINDOW_SHAPES, Recipe
from ichtune.windows import (
    WINDOW_SETS,
    apply_windows,
    apply_windows_each,
    plain_windows,
    resolve_windows,
    window_image,
    window_set_name,
)

pytestmark = pytest.mark.parametrize("name", WINDOW_SETS)


def hu_batch(batch: int = 3, slices: int = 2) -> torch.Tensor:
    hu = np.random.default_rng(0).uniform(-1024, 3071, (batch, slices, 8, 6)).astype(np.float32)
    return torch.from_numpy(hu)


@pytest.mark.parametrize("shape", WINDOW_SHAPES)
def test_batched_equals_one_by_one(name: str, shape: str) -> None:
    windows, hu = resolve_windows(name), hu_batch()
    whole = apply_windows(hu, windows, shape)
    assert whole.shape == (3, 2 * len(windows), 8, 6)
    assert whole.abs().max() <= 1.0
    one_by_one = torch.cat([apply_windows(one[None], windows, shape) for one in hu])
    assert torch.equal(whole, one_by_one)
    for c in range(2):
        for n, window in enumerate(windows):
            alone = apply_windows(hu[:, c : c + 1], [window], shape)[:, 0]
            assert torch.equal(whole[:, c * len(windows) + n], alone)


@pytest.mark.parametrize("shape", WINDOW_SHAPES)
def test_windows_written_for_each_slice_are_the_set_itself(name: str, shape: str) -> None:
    windows, hu = resolve_windows(name), hu_batch()
    numbers = torch.tensor([[w.center_hu, w.width_hu] for w in windows]).repeat(3, 1, 1)
    torch.testing.assert_close(
        apply_windows_each(hu, numbers[..., 0], numbers[..., 1], shape), apply_windows(hu, windows, shape)
    )


def test_written_plainly_it_is_read_as_the_same_set(name: str) -> None:
    assert resolve_windows(plain_windows(resolve_windows(name))) == resolve_windows(name)


def test_pictures_and_input_agree(name: str) -> None:
    hu = hu_batch(1, 1)
    for n, window in enumerate(resolve_windows(name)):
        image = window_image(hu[0, 0].numpy(), window)
        x_HW = apply_windows(hu, resolve_windows(name))[0, n].numpy()
        np.testing.assert_allclose(x_HW, 2 * image - 1, atol=1e-5)
        assert np.abs(x_HW).max() <= 1.0


def test_its_name_is_its_own_and_leads_to_a_recipe(name: str) -> None:
    assert window_set_name(resolve_windows(name)) == name
    assert Recipe(windows=name).to_dict()["windows"] == name  # type: ignore[arg-type]
