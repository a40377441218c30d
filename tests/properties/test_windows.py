"""Laws of windows, for any centre, width and slice."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ichtune.recipe import WINDOW_SHAPES
from ichtune.windows import (
    DicomWindow,
    Window,
    apply_windows,
    apply_windows_each,
    plain_windows,
    resolve_windows,
    window_image,
)

lawful = settings(derandomize=True, deadline=None, max_examples=60)
WINDOWS = st.builds(Window, st.floats(-200, 1000), st.floats(1, 4000)) | st.builds(DicomWindow)
SHAPES = st.sampled_from(WINDOW_SHAPES)
SLICES = arrays(np.int16, (2, 3, 4, 5), elements=st.integers(-2000, 4095))


def applied(hu: np.ndarray, windows: list[Window], shape: str = "linear") -> np.ndarray:
    return apply_windows(torch.from_numpy(hu.astype(np.float32)), windows, shape).numpy()


@lawful
@given(SLICES, st.lists(WINDOWS, min_size=1, max_size=4))
def test_every_channel_is_its_slice_under_its_window(hu: np.ndarray, windows: list[Window]) -> None:
    out = applied(hu, windows)
    for c in range(hu.shape[1]):
        for n, window in enumerate(windows):
            expected = 2 * window_image(hu[:, c].astype(np.float64), window) - 1
            np.testing.assert_allclose(out[:, c * len(windows) + n], expected, atol=1e-4)


@lawful
@given(SLICES, st.lists(WINDOWS, min_size=1, max_size=4), SHAPES)
def test_batched_equals_one_by_one(hu: np.ndarray, windows: list[Window], shape: str) -> None:
    one_by_one = np.concatenate([applied(one[None], windows, shape) for one in hu])
    np.testing.assert_allclose(applied(hu, windows, shape), one_by_one, atol=1e-6)


@lawful
@given(WINDOWS, st.integers(-2000, 4095), st.integers(0, 500), SHAPES)
def test_denser_is_never_darker(window: Window, hu: int, more: int, shape: str) -> None:
    low, high = applied(np.array([[[[hu, hu + more]]]]), [window], shape).ravel()
    assert -1.0 <= low <= high + 1e-6
    assert high <= 1.0


@lawful
@given(WINDOWS, st.integers(-2000, 4095))
def test_a_sigmoid_window_is_dicom_s_function(window: Window, hu: int) -> None:
    (x,) = applied(np.array([[[[hu]]]]), [window], "sigmoid").ravel()
    power = np.exp(np.clip(-4 * (hu - window.center_hu) / window.width_hu, -700, 700))
    np.testing.assert_allclose(x, 2 / (1 + power) - 1, atol=1e-4)


@lawful
@given(SLICES, st.lists(WINDOWS, min_size=2, max_size=2), SHAPES)
def test_a_window_of_each_slice_s_own_is_that_window(hu: np.ndarray, windows: list[Window], shape: str) -> None:
    numbers = torch.tensor([[[w.center_hu, w.width_hu]] for w in windows])
    batch = torch.from_numpy(hu.astype(np.float32))
    out = apply_windows_each(batch, numbers[..., 0], numbers[..., 1], shape).numpy()
    for b, window in enumerate(windows):
        np.testing.assert_allclose(out[b : b + 1], applied(hu[b : b + 1], [window], shape), atol=1e-4)


@lawful
@given(WINDOWS)
def test_edges_and_centre_land_where_they_should(window: Window) -> None:
    hu = np.array([window.low_hu, window.center_hu, window.high_hu]).reshape(1, 1, 1, 3)
    np.testing.assert_allclose(applied(hu, [window]).ravel(), [-1.0, 0.0, 1.0], atol=2e-3)


@lawful
@given(st.lists(WINDOWS, min_size=1, max_size=6))
def test_numbers_give_the_windows_again(windows: list[Window]) -> None:
    assert resolve_windows(plain_windows(windows)) == tuple(windows)
