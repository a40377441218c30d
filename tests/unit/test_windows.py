"""Windows: what is refused, and what Hounsfield units become."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from ichtune.errors import ConfigError
from ichtune.windows import (
    WINDOW_SETS,
    DicomWindow,
    Window,
    apply_windows,
    apply_windows_each,
    plain_windows,
    resolve_windows,
    window_image,
    window_set_name,
)

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


@pytest.mark.parametrize("shape", ["linear", "sigmoid"])
def test_the_batch_that_comes_in_stays_as_it_was(shape: str) -> None:
    hu = torch.full((1, 1, 2, 2), 500.0)
    apply_windows(hu, [BRAIN], shape)
    apply_windows_each(hu, torch.tensor([[40.0]]), torch.tensor([[80.0]], requires_grad=True), shape)
    assert (hu == 500.0).all()


def test_a_sigmoid_window_is_dicom_s_function_from_minus_one_to_one() -> None:
    hu = torch.tensor([-1000.0, 0.0, 20.0, 40.0, 50.0, 80.0, 3000.0])
    expected = [2 / (1 + math.exp(-4 * (v - 40) / 80)) - 1 for v in hu.tolist()]
    x = apply_windows(hu.view(1, 1, 1, 7), [BRAIN], "sigmoid").flatten().tolist()
    assert x == pytest.approx(expected, abs=1e-6)
    assert x != pytest.approx(apply_windows(hu.view(1, 1, 1, 7), [BRAIN]).flatten().tolist(), abs=0.1)


def test_a_sigmoid_window_is_steepest_at_its_centre_where_it_is_as_steep_as_the_linear_one() -> None:
    hu = torch.tensor([39.9, 40.1]).view(1, 1, 1, 2)
    linear, sigmoid = apply_windows(hu, [BRAIN]).flatten(), apply_windows(hu, [BRAIN], "sigmoid").flatten()
    assert sigmoid.tolist() == pytest.approx(linear.tolist(), abs=1e-6)


def test_paired_images_are_seen_each_under_its_own_window() -> None:
    hu = torch.stack([torch.full((2, 3), 60.0), torch.full((2, 3), 60.0)])[None]
    out = apply_windows(hu, [BRAIN, Window(80, 200)], paired=True)
    assert out.shape == (1, 2, 2, 3)
    assert out[0, :, 0, 0].tolist() == pytest.approx([0.5, -0.2])


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("shape", ["linear", "sigmoid"])
def test_windows_of_each_slice_s_own_are_those_windows_with_and_without_gradients(shape: str, paired: bool) -> None:
    rng = np.random.default_rng(1)
    hu = torch.from_numpy(rng.uniform(-100, 300, (3, 2, 4, 5)).astype(np.float32))
    center, width = torch.tensor([[40, 80], [60, 90], [10, 0.0]]), torch.tensor([[80, 200], [50, 100], [30, 400.0]])
    found = apply_windows_each(hu, center, width, shape, paired)
    assert found.is_contiguous(memory_format=torch.channels_last)
    learnt = apply_windows_each(hu, center.requires_grad_(), width.requires_grad_(), shape, paired)
    assert learnt.requires_grad
    assert learnt.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(learnt, found)
    for b, (centers, widths) in enumerate(zip(center.tolist(), width.tolist(), strict=True)):
        windows = [Window(*pair) for pair in zip(centers, widths, strict=True)]
        torch.testing.assert_close(found[b : b + 1], apply_windows(hu[b : b + 1], windows, shape, paired))


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("shape", ["linear", "sigmoid"])
def test_gradients_of_centres_and_widths_are_the_numerical_ones(shape: str, paired: bool) -> None:
    hu = torch.from_numpy(np.random.default_rng(2).uniform(-200, 300, (2, 2, 3, 3)))
    numbers = (torch.tensor([[40.0, 60.0]]).double(), torch.tensor([[80.0, 150.0]]).double())
    center, width = (n.requires_grad_() for n in numbers)
    assert torch.autograd.gradcheck(lambda c, w: apply_windows_each(hu, c, w, shape, paired), (center, width))


def test_a_file_s_own_window_is_no_window_of_fixed_numbers() -> None:
    assert DicomWindow() != BRAIN
    assert resolve_windows(["dicom", [80, 200]]) == (DicomWindow(), Window(80, 200))
    assert plain_windows([DicomWindow(), BRAIN]) == ["dicom", [40.0, 80.0]]
    assert window_set_name([DicomWindow(), Window(80, 200)]) == "dicom+80/200"


@pytest.mark.parametrize("name", WINDOW_SETS)
def test_a_set_by_name_in_full_and_as_windows_is_the_same_set(name: str) -> None:
    windows = resolve_windows(name)
    assert resolve_windows(plain_windows(windows)) == windows
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


def test_a_set_is_found_by_the_name_that_others_gave_it() -> None:
    assert resolve_windows("sasanak") == WINDOW_SETS["brain_stroke_bone"]
