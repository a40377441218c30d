"""Laws of windows, for any centre, width and slice."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ichtune.windows import Window, apply_windows, resolve_windows, window_image

lawful = settings(derandomize=True, deadline=None, max_examples=60)
WINDOWS = st.builds(Window, st.floats(-200, 1000), st.floats(1, 4000))
SLICES = arrays(np.int16, (2, 3, 4, 5), elements=st.integers(-2000, 4095))


def applied(hu: np.ndarray, windows: list[Window]) -> np.ndarray:
    return apply_windows(torch.from_numpy(hu.astype(np.float32)), windows).numpy()


@lawful
@given(SLICES, st.lists(WINDOWS, min_size=1, max_size=4))
def test_every_channel_is_its_slice_under_its_window(hu: np.ndarray, windows: list[Window]) -> None:
    out = applied(hu, windows)
    for c in range(hu.shape[1]):
        for n, window in enumerate(windows):
            expected = 2 * window_image(hu[:, c].astype(np.float64), window) - 1
            np.testing.assert_allclose(out[:, c * len(windows) + n], expected, atol=1e-4)


@lawful
@given(SLICES, st.lists(WINDOWS, min_size=1, max_size=4))
def test_batched_equals_one_by_one(hu: np.ndarray, windows: list[Window]) -> None:
    np.testing.assert_array_equal(applied(hu, windows), np.concatenate([applied(one[None], windows) for one in hu]))


@lawful
@given(WINDOWS, st.integers(-2000, 4095), st.integers(0, 500))
def test_denser_is_never_darker(window: Window, hu: int, more: int) -> None:
    pair = applied(np.array([[[[hu, hu + more]]]]), [window]).ravel()
    assert -1.0 <= pair[0] <= pair[1] <= 1.0


@lawful
@given(WINDOWS)
def test_edges_and_centre_land_where_they_should(window: Window) -> None:
    hu = np.array([window.low_hu, window.center_hu, window.high_hu]).reshape(1, 1, 1, 3)
    np.testing.assert_allclose(applied(hu, [window]).ravel(), [-1.0, 0.0, 1.0], atol=2e-3)


@lawful
@given(st.lists(WINDOWS, min_size=1, max_size=6))
def test_numbers_give_the_windows_again(windows: list[Window]) -> None:
    assert resolve_windows([[w.center_hu, w.width_hu] for w in windows]) == tuple(windows)
