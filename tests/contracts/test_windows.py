"""Every window set in the table: applied alike to one slice and to many, and never outside [-1, 1]."""

import numpy as np
import pytest
import torch

from ichtune.recipe import Recipe
from ichtune.windows import WINDOW_SETS, apply_windows, resolve_windows, window_image, window_set_name

pytestmark = pytest.mark.parametrize("name", WINDOW_SETS)


def hu_batch(batch: int = 3, slices: int = 2) -> torch.Tensor:
    hu = np.random.default_rng(0).uniform(-1024, 3071, (batch, slices, 8, 6)).astype(np.float32)
    return torch.from_numpy(hu)


def test_batched_equals_one_by_one(name: str) -> None:
    windows, hu = resolve_windows(name), hu_batch()
    whole = apply_windows(hu, windows)
    assert whole.shape == (3, 2 * len(windows), 8, 6)
    one_by_one = torch.cat([apply_windows(one[None], windows) for one in hu])
    assert torch.equal(whole, one_by_one)
    for c in range(2):
        for n, window in enumerate(windows):
            alone = apply_windows(hu[:, c : c + 1], [window])[:, 0]
            assert torch.equal(whole[:, c * len(windows) + n], alone)


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
