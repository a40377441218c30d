import numpy as np
import pytest

from ichtune.data.cache.resize import AIR_HU, WHOLE_BOX, fit_hu


def test_shrinking_averages_areas():
    hu = np.array([[0, 4, 100, 100], [4, 8, 100, 100], [-1024, -1024, 7, 7], [-1024, -1024, 7, 7]], np.int16)
    assert fit_hu(hu, 2).tolist() == [[4, 100], [-1024, 7]]


def test_the_result_is_within_half_an_hu_of_the_exact_mean():
    hu = np.random.default_rng(0).integers(-1024, 3000, (60, 60)).astype(np.int16)
    exact = hu.reshape(12, 5, 12, 5).mean(axis=(1, 3))
    assert np.abs(fit_hu(hu, 12) - exact).max() <= 0.5


def test_padding_below_air_does_not_bleed_into_anatomy():
    hu = np.full((4, 4), 40, np.int16)
    hu[0, 0] = -3024
    assert fit_hu(hu, 2)[0, 0] == (3 * 40 - 1024) / 4
    assert fit_hu(hu, 4)[0, 0] == AIR_HU


@pytest.mark.parametrize("shape", [(20, 10), (10, 20), (21, 10)])
def test_a_slice_that_is_not_square_keeps_its_proportions(shape):
    square = fit_hu(np.full(shape, 40, np.int16), max(shape))
    assert square.shape == (max(shape), max(shape))
    assert (square == 40).sum() == shape[0] * shape[1]
    assert (square == AIR_HU).sum() == max(shape) ** 2 - shape[0] * shape[1]
    assert (fit_hu(np.full(shape, 40, np.int16), 10) > 0).any(axis=0 if shape[0] < shape[1] else 1).all()


def test_enlarging_stays_within_the_values_that_were_there():
    hu = np.array([[0, 100], [50, 75]], np.int16)
    large = fit_hu(hu, 8)
    assert large.shape == (8, 8)
    assert large.dtype == np.int16
    assert large.min() == 0
    assert large.max() == 100


def test_the_slice_itself_is_not_changed():
    hu = np.full((4, 4), -3024, np.int16)
    fit_hu(hu, 4)
    assert (hu == -3024).all()


def test_a_slice_without_padding_is_not_copied():
    hu = np.full((4, 4), 40, np.int16)
    assert fit_hu(hu, 4) is hu or np.shares_memory(fit_hu(hu, 4), hu)
    assert fit_hu(hu, 4).base is hu


def test_a_box_is_cut_at_full_resolution_in_whole_pixels():
    hu = np.arange(100, dtype=np.int16).reshape(10, 10)
    assert fit_hu(hu, 4, (0.1, 0.3, 0.4)).tolist() == hu[1:5, 3:7].tolist()
    assert fit_hu(hu, 4, (0.14, 0.26, 0.43)).tolist() == hu[1:5, 3:7].tolist()
    assert fit_hu(hu, 2, (0.1, 0.3, 0.4)).tolist() == fit_hu(hu[1:5, 3:7], 2).tolist()
    assert fit_hu(hu, 5, WHOLE_BOX).tolist() == fit_hu(hu, 5).tolist()


def test_what_of_a_box_lies_outside_is_air():
    hu = np.full((10, 10), 40, np.int16)
    corner = fit_hu(hu, 4, (-0.2, 0.8, 0.4))
    assert (corner[2:, :2] == 40).all()
    assert (corner[:2] == AIR_HU).all()
    assert (corner[:, 2:] == AIR_HU).all()
    for far in ((2.0, 0.0, 0.4), (-3.0, 0.2, 0.4), (0.0, -0.4, 0.4)):
        assert (fit_hu(hu, 4, far) == AIR_HU).all()


@pytest.mark.parametrize("shape", [(20, 10), (10, 20), (21, 10), (7, 20)])
@pytest.mark.parametrize("box", [(0.0, 0.0, 1.0), (0.1, 0.2, 0.6), (-0.1, 0.5, 0.7)])
def test_a_box_counts_in_the_padded_square(shape, box):
    hu = np.random.default_rng(1).integers(-900, 900, shape).astype(np.int16)
    assert fit_hu(hu, 8, box).tolist() == fit_hu(fit_hu(hu, max(shape)), 8, box).tolist()


def test_padding_inside_a_box_is_lifted_and_a_point_is_a_pixel():
    hu = np.full((8, 8), 40, np.int16)
    hu[:4] = -3024
    assert fit_hu(hu, 4, (0.25, 0.25, 0.5)).tolist() == [[AIR_HU] * 4] * 2 + [[40] * 4] * 2
    assert fit_hu(hu, 1, (0.0, 0.0, 0.01)).tolist() == [[AIR_HU]]
    assert (hu[:4] == -3024).all()


def test_a_slice_that_may_not_be_written_can_be_cut():
    hu = np.frombuffer(np.arange(64, dtype=np.int16).tobytes(), np.int16).reshape(8, 8)
    assert fit_hu(hu, 2, (0.0, 0.5, 0.5)).shape == (2, 2)
