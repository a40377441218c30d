"""Windows: what is refused, and what Hounsfield units become."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from ichtune.errors import ConfigError
from ichtune.windows import WINDOW_SETS, Window, apply_windows, resolve_windows, window_image, window_set_name

BRAIN = Window(40, 80)


@pytest.mark.parametrize(
    ("center", "width"),
    [(40, 0), (40, -80), (math.nan, 80), (40, math.inf), ("40", 80), (40, None), (True, 80), (40, 10**400)],
)
def test_a_window_that_is_none_is_refused(center: Any, width: Any) -> None:
    with pytest.raises(ConfigError, match=r"window width must be a positive number of HU"):
        Window(center, width)


def test_equal_windows_are_alike_in_every_way() -> None:
    assert repr(Window(40, 80)) == repr(Window(40.0, 80.0))
    assert repr(Window(-0.0, 80)) == repr(Window(0, 80))


def test_edges_are_half_a_width_from_the_centre() -> None:
    assert (BRAIN.low_hu, BRAIN.high_hu) == (0.0, 80.0)


def test_the_brain_window_maps_its_edges_to_minus_one_and_one() -> None:
    hu = torch.tensor([-1000.0, 0.0, 20.0, 40.0, 80.0, 3000.0]).view(1, 1, 1, 6)
    assert apply_windows(hu, [BRAIN]).flatten().tolist() == [-1.0, -1.0, -0.5, 0.0, 1.0, 1.0]


def test_channels_go_slice_by_slice_and_window_by_window() -> None:
    hu = torch.stack([torch.full((2, 3), 40.0), torch.full((2, 3), 80.0)])[None]
    out = apply_windows(hu, [BRAIN, Window(80, 200)])
    assert out.shape == (1, 4, 2, 3)
    assert out[0, :, 0, 0].tolist() == pytest.approx([0.0, -0.4, 1.0, 0.0])


def test_the_batch_that_comes_in_stays_as_it_was() -> None:
    hu = torch.full((1, 1, 2, 2), 500.0)
    apply_windows(hu, [BRAIN])
    assert (hu == 500.0).all()


@pytest.mark.parametrize("name", WINDOW_SETS)
def test_a_set_by_name_in_full_and_as_windows_is_the_same_set(name: str) -> None:
    windows = resolve_windows(name)
    assert resolve_windows([[w.center_hu, w.width_hu] for w in windows]) == windows
    assert resolve_windows(list(windows)) == windows
    assert window_set_name(windows) == name


def test_a_set_without_a_name_is_called_by_its_numbers() -> None:
    assert window_set_name(resolve_windows([[40, 80], [35.5, 90]])) == "40/80+35.5/90"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("brian", "unknown window set 'brian'. Did you mean 'brain'"),
        ([], "must be a set's name or a list"),
        (40, "must be a set's name or a list"),
        ([40, 80], r"must be \[centre, width\] in HU, got 40 in \[40, 80\]"),
        ([[40, 80, 1]], r"must be \[centre, width\] in HU"),
        ([["40", "80"]], r"must be \[centre, width\] in HU"),
        (["40"], r"must be \[centre, width\] in HU"),
        ([[True, 80]], r"must be \[centre, width\] in HU"),
        ([[]], r"must be \[centre, width\] in HU"),
    ],
)
def test_a_set_that_cannot_be_read_is_refused_with_what_was_got(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_windows(value)


def test_a_picture_runs_from_nought_to_one() -> None:
    image = window_image(np.array([[-1024, 0, 40, 80, 900]], dtype=np.int16), BRAIN)
    assert image.dtype == np.float32
    assert image.tolist() == [[0.0, 0.0, 0.5, 1.0, 1.0]]
