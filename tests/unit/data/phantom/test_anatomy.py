import numpy as np
import pytest

from ichtune.data.phantom import anatomy
from ichtune.data.phantom.anatomy import Push


@pytest.fixture(scope="module")
def head() -> anatomy.Head:
    return anatomy.draw_head(np.random.default_rng(4), 1.0)


def points(head, xyz, pushes=()):
    x, y, z = np.array(xyz, np.float32).T
    return anatomy.place(head, x, y, z, tuple(pushes))


def test_ramp_is_half_on_the_surface():
    d = np.array([-9, -0.5, 0, 0.5, 9], np.float32)
    assert anatomy.ramp(d, 2.0).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_distances_to_simple_bodies():
    x, y, z = (np.array(v, np.float32) for v in ([0.0, 5.0], [0.0, 0.0], [3.0, 0.0]))
    ball = anatomy.ellipsoid(x, y, z, (0, 0, 0), (2, 2, 2))
    assert ball == pytest.approx([1.0, 3.0], abs=1e-4)
    rod = anatomy.capsule(x, y, z, (0, 0, -5), (0, 0, 5), 1.0)
    assert rod == pytest.approx([-1.0, 4.0], abs=1e-4)


def test_brain_lies_within_skull_within_scalp(head):
    x = np.arange(0, 130, 0.5)
    fields = anatomy.bone_fields(head, points(head, np.stack([x, 0 * x, 0 * x + 30], axis=1)))
    inner, outer, skin = (x[np.flatnonzero(fields[k] < 0)[-1]] for k in ("cavity", "skull", "scalp"))
    assert 45 < inner < outer < skin < 100
    assert 4 < outer - inner < 12


def test_ventricles_are_paired_and_central(head):
    p = points(head, [(12, -6, 21), (-12, -6, 21), (60, 0, 20)])
    d = anatomy.ventricle_mm(head, p)
    assert d[0] < 2
    assert d[1] < 2
    assert d[2] > 20


def test_noise_is_smooth_has_unit_variance_and_repeats(head):
    assert head.lattice.dtype == np.float32
    assert float(head.lattice.std()) == pytest.approx(1.0, abs=0.15)
    x = np.linspace(-60, 60, 500, dtype=np.float32)
    a = anatomy.noise(head, x, x, x, 2.0)
    assert np.array_equal(a, anatomy.noise(head, x, x, x, 2.0))
    assert np.abs(np.diff(a)).max() < 0.5


def test_mass_effect_moves_brain_away_from_a_lesion_but_not_the_skull(head):
    at = [(20, 0, 10)]
    still, pushed = points(head, at), points(head, at, [Push((0, 0, 10), 20.0, 8.0)])
    assert pushed.bx[0] < still.bx[0]  # what is seen at 20 mm was nearer to the lesion before
    assert pushed.vault_mm[0] == still.vault_mm[0]


def test_head_is_reproducible_and_differs_between_patients():
    one, same, other = (anatomy.draw_head(np.random.default_rng(s), 1.0) for s in (1, 1, 2))
    assert one.half_width_mm == same.half_width_mm != other.half_width_mm
    assert np.array_equal(one.lattice, same.lattice)
    assert one.spots == same.spots
