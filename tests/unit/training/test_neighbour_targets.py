"""Targets of adjacent slices follow the slices when their order is reversed."""

import torch

from ichtune.training.neighbour_targets import exchange_reversed


def test_below_and_above_change_places_where_a_slice_was_reversed_and_only_there() -> None:
    y_BK = torch.arange(36.0).view(2, 18)
    weight_BK = y_BK + 100
    y, weight = exchange_reversed(y_BK, weight_BK, torch.tensor([False, True]))
    assert torch.equal(y[0], y_BK[0])
    assert y[1].tolist() == [*range(18, 24), *range(30, 36), *range(24, 30)]
    assert torch.equal(weight, y + 100)
    again, _ = exchange_reversed(y, weight, torch.tensor([False, True]))
    assert torch.equal(again, y_BK)


def test_a_slice_s_own_targets_have_no_order() -> None:
    y_BK, weight_BK = torch.rand(2, 6), torch.rand(2, 6)
    assert exchange_reversed(y_BK, weight_BK, torch.tensor([True, True])) == (y_BK, weight_BK)
