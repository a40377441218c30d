"""Views: against scipy's resampling, and what each name is made of."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from ichtune.data.cache.resize import AIR_HU
from ichtune.errors import ConfigError
from ichtune.training.tta import VIEWS, View, corner, find_views, identity, mirror, rotate, transpose, zoom


def image(height: int = 20, width: int = 20) -> torch.Tensor:
    return 100 * torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def resampled(hu_BSHW: torch.Tensor, matrix: np.ndarray, fixed: tuple[float, float]) -> np.ndarray:
    """Return what scipy makes of ``input = fixed + matrix (output - fixed)``, rows before columns."""
    at = np.array(fixed)
    return np.stack(
        [
            [
                affine_transform(hu_HW, matrix, at - matrix @ at, order=1, mode="grid-constant", cval=AIR_HU)
                for hu_HW in hu_SHW
            ]
            for hu_SHW in hu_BSHW.double().numpy()
        ]
    )


@pytest.mark.parametrize("degrees", [10.0, -10.0, 33.0])
@pytest.mark.parametrize("shape", [(20, 20), (15, 24)])
def test_a_rotation_is_scipy_s(degrees: float, shape: tuple[int, int]) -> None:
    hu_BSHW = image(*shape)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    middle = ((shape[0] - 1) / 2, (shape[1] - 1) / 2)
    expected = resampled(hu_BSHW, np.array([[cos, -sin], [sin, cos]]), middle)
    np.testing.assert_allclose(rotate(hu_BSHW, degrees).numpy(), expected, atol=0.05)


def test_a_quarter_turn_is_clockwise() -> None:
    hu_BSHW = image()
    torch.testing.assert_close(rotate(hu_BSHW, 90.0), torch.rot90(hu_BSHW, -1, (-2, -1)), atol=0.05, rtol=0)


@pytest.mark.parametrize("scale", [0.9, 1.1])
def test_a_zoom_is_scipy_s(scale: float) -> None:
    hu_BSHW = image()
    expected = resampled(hu_BSHW, np.eye(2) / scale, (9.5, 9.5))
    np.testing.assert_allclose(zoom(hu_BSHW, scale).numpy(), expected, atol=0.05)


@pytest.mark.parametrize(("vertical", "horizontal"), [(-1, -1), (-1, 1), (1, -1), (1, 1)])
def test_a_corner_stays_where_it_is(vertical: int, horizontal: int) -> None:
    hu_BSHW = image()
    edges = {-1: -0.5, 1: 19.5}  # the corner of the corner pixel
    expected = resampled(hu_BSHW, np.eye(2) / 1.1, (edges[vertical], edges[horizontal]))
    got = corner(hu_BSHW, vertical, horizontal).numpy()
    inside = expected != AIR_HU
    np.testing.assert_allclose(got[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], atol=0.05)
    assert inside[..., 1:-1, 1:-1].all()


def test_what_comes_in_from_outside_is_air() -> None:
    hu_BSHW = torch.full((1, 1, 40, 40), 30.0)
    small = zoom(hu_BSHW, 0.5)
    assert small[0, 0, 20, 20].item() == pytest.approx(30.0, abs=1e-3)
    assert (small[..., :9, :] == AIR_HU).all()
    turned = rotate(hu_BSHW, 45.0)
    assert turned[0, 0, 0, 0].item() == AIR_HU
    assert turned.min().item() >= AIR_HU


def test_a_flip_and_a_transposition_are_their_own_inverses() -> None:
    hu_BSHW = image(15, 24)
    assert mirror(hu_BSHW).shape == hu_BSHW.shape
    for view in (mirror, transpose):
        assert not torch.equal(view(image()), image())
        assert torch.equal(view(view(hu_BSHW)), hu_BSHW)
    assert torch.equal(mirror(hu_BSHW)[0, 0, 0], hu_BSHW[0, 0, 0].flip(0))


def described(view: View) -> object:
    """Return a view as its function and arguments, however deep they are."""
    if isinstance(view, partial):
        return view.func.__name__, *(described(a) for a in view.args), tuple(view.keywords.items())
    return view.__name__


def test_each_name_is_made_of_the_views_that_it_promises() -> None:
    turns = [("rotate", (("degrees", degrees),)) for degrees in (10.0, -10.0)]
    large, small = (("zoom", (("scale", scale),)) for scale in (1.1, 0.9))
    corners = [("corner", (("vertical", v), ("horizontal", h))) for v in (-1, 1) for h in (-1, 1)]
    got = {name: [described(view) for view in views] for name, views in VIEWS.items()}
    assert got["none"] == ["identity"]
    assert got["flip"] == ["identity", "mirror"]
    assert got["flip_transpose"] == ["identity", "mirror", "transpose"]
    assert got["rotate10"] == ["identity", "mirror", *turns]
    assert got["scales"] == ["identity", small, large]
    assert got["eight"] == ["identity", "mirror", *(v for t in (large, *turns) for v in (t, ("_mirrored", t, ())))]
    assert got["corners"] == ["identity", *(v for c in corners for v in (c, ("_mirrored", c, ())))]
    assert len(VIEWS["eight"]) == 8


def test_a_mirrored_view_is_mirrored_first() -> None:
    hu_BSHW = image()
    assert torch.equal(VIEWS["eight"][3](hu_BSHW), zoom(hu_BSHW.flip(-1), 1.1))


def test_views_are_found_by_name_and_a_misspelt_one_is_answered_with_the_nearest() -> None:
    assert find_views("none") == (identity,)
    with pytest.raises(ConfigError, match=r"unknown tta 'flipp'. Did you mean 'flip'"):
        find_views("flipp")
