"""Augmentation on the device: every key against what it says, read from the pixels that come out."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from ichtune.data.cache.resize import AIR_HU
from ichtune.errors import ConfigError
from ichtune.recipe import Recipe
from ichtune.training.device_augment import augment_on_device, check_augmentation, draw_jitter, warp

NEIGHBOURS = {"neighbours": 1}
MOVES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "flip": lambda hu: hu.flip(-1),
    "flip_vertical": lambda hu: hu.flip(-2),
    "transpose": lambda hu: hu.transpose(-1, -2),
    "flip_slices": lambda hu: hu.flip(-3),
}
EVERYTHING = {
    **dict.fromkeys((*MOVES, "cutout", "geometry_share"), 0.5),
    **{"rotate_deg": 20.0, "shift": 0.1, "zoom": 0.2, "noise_hu": 5.0, "gain_jitter": 0.1, "neighbours": 1},
}
RAMP = 15


def recipe(**keys: Any) -> Recipe:
    return Recipe(**{"flip": 0.0, **keys})


def random_hu(n: int = 4, slices: int = 3, side: int = 8) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(-1024, 1500, (n, slices, side, side)).astype(np.float32))


def augmented(hu: torch.Tensor, seed: int = 3, **keys: Any) -> torch.Tensor:
    return augment_on_device(hu, recipe(**keys), seed)[0]


def same(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Which samples are bit-equal, (B,)."""
    return (one == other).flatten(1).all(dim=1)


def ramps(n: int) -> torch.Tensor:
    """Three slices whose HU are each pixel's own column and row, counted from the middle, and nought."""
    middle = torch.arange(RAMP, dtype=torch.float32) - (RAMP - 1) / 2
    columns, rows = middle.expand(RAMP, RAMP), middle[:, None].expand(RAMP, RAMP)
    return torch.stack([columns, rows, torch.zeros(RAMP, RAMP)]).expand(n, 3, RAMP, RAMP)


def affine_of(moved_3HW: torch.Tensor) -> np.ndarray:
    """Read from moved ramps the 2 x 3 matrix that leads from a pixel, (column, row, 1), back to where it came from."""
    at = ramps(1)[0, :2].flatten(1).double().numpy()
    from_where, air = moved_3HW[:2].flatten(1).double().numpy(), moved_3HW[2].flatten().numpy()
    is_inside = np.abs(air) < 1e-3
    design = np.vstack([at, np.ones(at.shape[1])]).T[is_inside]
    matrix, *_ = np.linalg.lstsq(design, from_where.T[is_inside], rcond=None)
    np.testing.assert_allclose(design @ matrix, from_where.T[is_inside], atol=2e-3)
    return matrix.T


def geometry_of(n: int = 400, seed: int = 3, **keys: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rotation in degrees (n), zoom (n) and shift to the right and down in shares of the side (n, 2)."""
    back = np.stack([affine_of(moved) for moved in augmented(ramps(n), seed, **keys)])
    zoom = 1 / np.sqrt(np.linalg.det(back[:, :, :2]))
    degrees = np.degrees(np.arctan2(back[:, 1, 0], back[:, 0, 0]))
    shift = np.stack([np.linalg.solve(one[:, :2], -one[:, 2]) for one in back]) / RAMP
    return degrees, zoom, shift


def is_uniform(values: np.ndarray, low: float, high: float) -> bool:
    inside = bool(values.min() > low - 1e-3 and values.max() < high + 1e-3)
    return inside and stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 0.005


def test_a_recipe_that_asks_for_nothing_gets_the_batch_itself() -> None:
    hu = random_hu()
    out, is_reversed_B = augment_on_device(hu, recipe(), 3)
    assert out is hu
    assert is_reversed_B.tolist() == [False] * 4


def test_the_batch_that_comes_in_stays_as_it_was_and_float32_goes_out() -> None:
    hu = random_hu().to(torch.int16)
    before = hu.clone()
    out, is_reversed_B = augment_on_device(hu, recipe(**EVERYTHING), 3)
    assert torch.equal(hu, before)
    assert (out.dtype, out.shape, is_reversed_B.dtype) == (torch.float32, hu.shape, torch.bool)
    assert out.min() >= AIR_HU


@pytest.mark.parametrize("key", MOVES)
def test_a_move_is_exact_and_happens_in_the_share_asked_for(key: str) -> None:
    hu = random_hu(2000, 3, 3)
    neighbours = NEIGHBOURS if key == "flip_slices" else {}
    for share in (0.2, 1.0):
        out, is_reversed_B = augment_on_device(hu, recipe(**{key: share}, **neighbours), 5)
        moved = same(out, MOVES[key](hu))
        assert torch.equal(moved, ~same(out, hu))
        assert moved.double().mean().item() == pytest.approx(share, abs=0.03)
        assert torch.equal(is_reversed_B, moved if key == "flip_slices" else torch.zeros_like(moved))


def test_moves_are_drawn_independently_and_all_of_them_can_meet() -> None:
    hu = random_hu(2000, 3, 3)
    out = augmented(hu, flip=0.5, flip_vertical=0.5, transpose=0.5)
    seen = []
    for number in range(8):
        expected = hu
        for bit, key in enumerate(("flip", "flip_vertical", "transpose")):
            expected = MOVES[key](expected) if number >> bit & 1 else expected
        seen.append(same(out, expected).double().mean().item())
    np.testing.assert_allclose(seen, 1 / 8, atol=0.03)


def test_a_flip_is_its_own_inverse() -> None:
    hu = random_hu()
    assert torch.equal(augmented(augmented(hu, flip=1.0), flip=1.0), hu)


@pytest.mark.parametrize(
    "keys",
    [{}, {"neighbours": 1, "neighbour_side": "below"}, {"neighbours": 1, "neighbour_use": "mean"}],
    ids=str,
)
def test_slices_that_are_not_on_both_sides_are_not_reversed(keys: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="'flip_slices' reverses stacked neighbours on both sides, got neighbours "):
        check_augmentation(recipe(flip_slices=0.5, **keys))
    check_augmentation(recipe(**keys))
    check_augmentation(recipe(flip_slices=0.5, neighbours=2))


@pytest.mark.parametrize("quarter", range(4))
def test_a_quarter_turn_is_a_quarter_turn(quarter: int) -> None:
    hu = random_hu()
    found = warp(hu, torch.full((4,), 90.0 * quarter), torch.ones(4), torch.zeros(4, 2))
    torch.testing.assert_close(found, torch.rot90(hu, quarter, (-2, -1)), atol=0.05, rtol=0)


def test_a_shift_by_whole_pixels_moves_down_and_to_the_right_and_lets_air_in() -> None:
    hu = random_hu(1)
    found = warp(hu, torch.zeros(1), torch.ones(1), torch.tensor([[2 / 8, 3 / 8]]))
    expected = torch.full_like(hu, AIR_HU)
    expected[:, :, 2:, 3:] = hu[:, :, :-2, :-3]
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0)


def test_a_warp_is_what_opencv_makes_of_the_same_matrix() -> None:
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 3000, (2, 40, 40)), (0, 2, 2)).astype(
        np.float32
    )
    degrees, zoom, down, right = 25.0, 1.2, 0.1, -0.05
    numbers = torch.tensor([degrees]), torch.tensor([zoom]), torch.tensor([[down, right]])
    found = warp(torch.from_numpy(smooth)[None], *numbers)
    matrix = cv2.getRotationMatrix2D((19.5, 19.5), degrees, zoom)
    matrix[:, 2] += (right * 40, down * 40)
    for s in range(2):
        expected = cv2.warpAffine(smooth[s], matrix, (40, 40), flags=cv2.INTER_LINEAR, borderValue=AIR_HU)
        # opencv rounds places to a 32nd of a pixel
        np.testing.assert_allclose(found[0, s, 8:-8, 8:-8], expected[8:-8, 8:-8], atol=25)
        corners = (found[0, s, [0, 0, -1, -1], [0, -1, 0, -1]].numpy() == AIR_HU).tolist()
        assert corners == (expected[[0, 0, -1, -1], [0, -1, 0, -1]] == AIR_HU).tolist()


@pytest.mark.parametrize("zoom", [0.7, 1.5])
def test_a_zoom_is_scipy_s_affine_transform_from_the_middle(zoom: float) -> None:
    hu = random_hu(1, 1, 21)
    found = warp(hu, torch.zeros(1), torch.tensor([zoom]), torch.zeros(1, 2))[0, 0]
    expected = ndimage.affine_transform(hu[0, 0].numpy(), [1 / zoom] * 2, offset=10 - 10 / zoom, order=1, cval=AIR_HU)
    is_inside = ndimage.affine_transform(np.ones((21, 21)), [1 / zoom] * 2, offset=10 - 10 / zoom, order=1) > 0.999
    np.testing.assert_allclose(found[is_inside], expected[is_inside], atol=0.1)
    if zoom < 1:
        assert (found[:2] == AIR_HU).all()


def test_an_image_that_is_not_square_turns_without_shear() -> None:
    hu = torch.full((1, 1, 9, 21), float(AIR_HU))
    hu[0, 0, 4, 7:14] = 100.0
    found = warp(hu, torch.tensor([90.0]), torch.ones(1), torch.zeros(1, 2))[0, 0]
    expected = torch.full((9, 21), float(AIR_HU))
    expected[1:8, 10] = 100.0
    torch.testing.assert_close(found, expected, atol=0.1, rtol=0)


def test_half_precision_elsewhere_does_not_blur_where_pixels_go() -> None:
    hu, third = random_hu(1, 1, 64), torch.full((1,), 1 / 3)
    plain = warp(hu, 30 * third, 1 + third, torch.zeros(1, 2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(warp(hu, 30 * third, 1 + third, torch.zeros(1, 2)), plain)


def test_rotation_zoom_and_shift_are_uniform_within_what_the_recipe_says() -> None:
    degrees, zoom, shift = geometry_of(rotate_deg=30.0, zoom=0.2, shift=0.1)
    assert is_uniform(degrees, -30, 30)
    assert is_uniform(zoom, 0.8, 1.2)
    assert is_uniform(shift[:, 0], -0.1, 0.1)
    assert is_uniform(shift[:, 1], -0.1, 0.1)
    apart = np.corrcoef(np.stack([degrees, zoom, *shift.T])) - np.eye(4)
    assert np.abs(apart).max() < 0.2


@pytest.mark.parametrize(("key", "value"), [("rotate_deg", 40.0), ("zoom", 0.3), ("shift", 0.2)])
def test_each_of_them_alone_leaves_the_others_at_rest(key: str, value: float) -> None:
    degrees, zoom, shift = geometry_of(100, **{key: value})
    spreads = {"rotate_deg": np.ptp(degrees), "zoom": np.ptp(zoom), "shift": np.ptp(shift)}
    assert [name for name, spread in spreads.items() if spread > 1e-2] == [key]
    assert spreads[key] > 1.7 * value


def test_slices_outside_the_share_of_geometry_are_bit_equal() -> None:
    hu = random_hu(1000, 1, 6)
    out = augmented(hu, rotate_deg=30.0, zoom=0.2, geometry_share=0.3)
    assert same(out, hu).double().mean().item() == pytest.approx(0.7, abs=0.05)
    assert augmented(hu, rotate_deg=30.0, geometry_share=0.0) is hu


def test_slices_seen_together_stay_registered() -> None:
    hu = random_hu(20, 1).repeat(1, 3, 1, 1)
    out = augmented(hu, **{**EVERYTHING, "noise_hu": 0.0})
    assert torch.equal(out[:, 0], out[:, 1])
    assert torch.equal(out[:, 1], out[:, 2])
    assert not same(out, hu).all()


def test_one_key_turned_on_changes_no_draw_of_another() -> None:
    hu = random_hu(200, 3, 3)
    alone = augment_on_device(hu, recipe(flip_slices=0.5, neighbours=1), 9)[1]
    assert torch.equal(alone, augment_on_device(hu, recipe(**EVERYTHING), 9)[1])
    assert 60 < int(alone.sum()) < 140


def blanked(n: int = 600, side: int = 20, **keys: Any) -> torch.Tensor:
    """Return which pixels cutout blanked, (n, side, side), having seen that the others stayed."""
    hu = random_hu(n, 2, side).clamp_(min=0)
    out = augmented(hu, **keys)
    is_blank = out != hu
    assert (out[is_blank] == AIR_HU).all()
    assert torch.equal(is_blank[:, 0], is_blank[:, 1])
    return is_blank[:, 0]


def test_cutout_happens_in_the_share_asked_for() -> None:
    assert blanked(2000, cutout=0.3).flatten(1).any(dim=1).double().mean().item() == pytest.approx(0.3, abs=0.04)
    assert blanked(cutout=1.0).flatten(1).any(dim=1).all()


def test_a_hole_is_a_square_anywhere_of_a_side_up_to_the_largest() -> None:
    is_blank = blanked(cutout=1.0, cutout_holes=1, cutout_size=0.3)
    assert is_blank.any(dim=0).all()
    heights, widths = is_blank.any(dim=2).sum(dim=1), is_blank.any(dim=1).sum(dim=1)
    assert torch.equal(is_blank.flatten(1).sum(dim=1), heights * widths)
    is_inside = ~(is_blank[:, [0, -1]].any(dim=(1, 2)) | is_blank[:, :, [0, -1]].any(dim=(1, 2)))
    assert torch.equal(heights[is_inside], widths[is_inside])
    assert set(heights.tolist()) == set(range(1, 7))
    assert blanked(cutout=1.0, cutout_holes=1, cutout_size=0.5).any(dim=2).sum(dim=1).max() == 10


@pytest.mark.parametrize("holes", [1, 3, 6])
def test_from_one_to_the_largest_number_of_holes_are_cut(holes: int) -> None:
    """Holes of one pixel, of which few fall on each other."""
    n_blank = blanked(side=40, cutout=1.0, cutout_holes=holes, cutout_size=0.01).flatten(1).sum(dim=1)
    assert set(n_blank.tolist()) == set(range(1, holes + 1))
    assert n_blank.double().mean().item() == pytest.approx((1 + holes) / 2, abs=0.25)


def test_noise_has_the_deviation_asked_for_and_is_white() -> None:
    noise = (augmented(torch.zeros(40, 2, 48, 48), noise_hu=20.0) / 20.0).double()
    flat = noise.flatten(2)
    assert stats.kstest(noise[::10].flatten(), "norm").statistic < 0.02
    np.testing.assert_allclose(flat.std(dim=2), 1.0, atol=0.12)
    np.testing.assert_allclose(flat.mean(dim=2), 0.0, atol=0.15)
    beside = [(noise[..., 1:] * noise[..., :-1]).mean(), (noise[..., 1:, :] * noise[..., :-1, :]).mean()]
    np.testing.assert_allclose(beside, 0.0, atol=0.03)
    # two of many slices may happen to have been cut at the same place of the field
    among = np.corrcoef(flat.flatten(0, 1).numpy()) - np.eye(80)
    assert (np.abs(among) > 0.15).mean() < 0.01


def test_gain_is_one_uniform_factor_a_sample() -> None:
    factor = augmented(torch.full((500, 2, 2, 2), 50.0), gain_jitter=0.2) / 50.0
    assert (factor - factor[:, :1, :1, :1]).abs().max() < 1e-6
    assert is_uniform(factor[:, 0, 0, 0].numpy(), 0.8, 1.2)


@pytest.mark.parametrize("keys", [{"gain_jitter": 0.3}, {"noise_hu": 50.0}], ids=str)
def test_nothing_falls_below_air(keys: dict[str, float]) -> None:
    out = augmented(torch.full((50, 1, 4, 4), float(AIR_HU)), **keys)
    assert out.min() == AIR_HU
    assert out.max() > AIR_HU


def test_a_seed_says_it_all_and_no_global_generator_is_touched() -> None:
    hu, everything = random_hu(8), recipe(**EVERYTHING, window_jitter=0.2)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, jitter = augment_on_device(hu, everything, 7), draw_jitter(everything, 8, 7, hu.device)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = augment_on_device(hu, everything, 7)
    assert torch.equal(again[0], first[0])
    assert torch.equal(again[1], first[1])
    jitter_again = draw_jitter(everything, 8, 7, hu.device)
    assert jitter is not None
    assert jitter_again is not None
    assert torch.equal(jitter, jitter_again)
    assert not torch.equal(augment_on_device(hu, everything, 8)[0], first[0])


def test_jitter_is_uniform_around_no_shift_and_a_factor_of_one() -> None:
    jitter = draw_jitter(recipe(window_jitter=0.1), 400, 3, torch.device("cpu"))
    assert jitter is not None
    assert (jitter.shape, jitter.dtype) == ((400, 3, 2), torch.float32)
    for n in range(3):
        assert is_uniform(jitter[:, n, 0].numpy(), -0.1, 0.1)
        assert is_uniform(jitter[:, n, 1].numpy(), 0.9, 1.1)
    assert draw_jitter(recipe(), 400, 3, torch.device("cpu")) is None


def test_jitter_has_nothing_to_do_with_the_other_draws_of_its_seed() -> None:
    hu = random_hu(2000, 1, 2)
    jitter = draw_jitter(recipe(window_jitter=0.1), 2000, 3, hu.device)
    assert jitter is not None
    flipped = (~same(augmented(hu, flip=0.5), hu)).double()
    among = np.corrcoef(np.vstack([flipped, jitter.flatten(1).T]))
    assert np.abs(among[0, 1:]).max() < 0.1
