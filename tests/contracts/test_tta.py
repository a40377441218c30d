"""Every set of views in the table: the slice as it is first, then others of its shape, each the same every time."""

from itertools import combinations

import pytest
import torch

from ichtune.data.cache.resize import AIR_HU
from ichtune.training.tta import VIEWS, find_views

pytestmark = pytest.mark.parametrize("name", VIEWS)


def head(n_slices: int = 3) -> torch.Tensor:
    """Return two smooth heads with slices unlike each other, float32 (2, S, 32, 32) in HU, with air around."""
    row, column = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    hu_HW = torch.where(row**2 + 1.4 * column**2 < 0.7, 40 + 30 * row + 20 * column, torch.tensor(float(AIR_HU)))
    return torch.stack([torch.stack([hu_HW + 5 * (s + 4 * b) * row for s in range(n_slices)]) for b in range(2)])


def test_the_first_view_is_the_slice_itself(name: str) -> None:
    hu_BSHW = head()
    assert find_views(name)[0](hu_BSHW) is hu_BSHW


def test_shape_and_type_are_kept_and_the_input_is_not_changed(name: str) -> None:
    hu_BSHW = head()
    for view in find_views(name):
        seen_BSHW = view(hu_BSHW)
        assert seen_BSHW.shape == hu_BSHW.shape
        assert seen_BSHW.dtype == torch.float32
    assert torch.equal(hu_BSHW, head())


def test_a_view_is_the_same_every_time_and_in_every_batch(name: str) -> None:
    hu_BSHW = head()
    for view in find_views(name):
        assert torch.equal(view(hu_BSHW), view(hu_BSHW))
        torch.testing.assert_close(view(hu_BSHW[1:]), view(hu_BSHW)[1:])


def test_all_slices_take_the_same_view(name: str) -> None:
    hu_BSHW = head()
    for view in find_views(name):
        alone = [view(hu_BSHW[:, s, None]) for s in range(3)]
        torch.testing.assert_close(view(hu_BSHW), torch.cat(alone, dim=1))


def test_views_differ_from_each_other(name: str) -> None:
    hu_BSHW = head()
    for one, other in combinations([view(hu_BSHW) for view in find_views(name)], 2):
        assert (one - other).abs().mean() > 1.0


def test_no_view_makes_hounsfield_units_that_were_not_there(name: str) -> None:
    hu_BSHW = head()
    for view in find_views(name):
        seen_BSHW = view(hu_BSHW)
        assert AIR_HU - 120 <= hu_BSHW.min() - 1e-3 <= seen_BSHW.min()
        assert seen_BSHW.max() <= hu_BSHW.max() + 1e-3
