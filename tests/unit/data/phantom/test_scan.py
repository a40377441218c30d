from dataclasses import replace

import numpy as np
import pytest

from ichtune.data.phantom.anatomy import draw_head
from ichtune.data.phantom.bleeds import INTRAPARENCHYMAL, MIN_AREA_MM2, Bleed
from ichtune.data.phantom.scan import draw_scan, render_series
from ichtune.labels import SUBTYPES

IPH = Bleed(INTRAPARENCHYMAL, (28, -5, 10), (16, 18, 18), 72, 72, rough_mm=2.0, oedema_mm=4.0, shift_mm=4.0)
COLUMN = SUBTYPES.index(INTRAPARENCHYMAL)


def upright(size_px=48, n=8):
    """A scan without tilt, rotation, noise or artefacts, of ``n`` slices from -60 to 80 mm."""
    scan = draw_scan(np.random.default_rng(1), size_px, 1.0)
    step = round(140 / (n - 1), 3)
    return replace(
        scan,
        fov_mm=230.0,
        tilt_deg=0.0,
        pose=(1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0),
        centre_mm=(0.0, 0.0),
        table_mm=tuple(-60 + step * i for i in range(n)),
        thickness_mm=(5.0,) * n,
        noise_hu=0.0,
        cupping_hu=0.0,
        base_streak_hu=0.0,
        glare_rate=0.0,
    )


def render(scan, bleeds=(), seed=2):
    head = replace(draw_head(np.random.default_rng(9), 1.0), spots=())
    return render_series(np.random.default_rng(seed), head, tuple(bleeds), scan)


@pytest.fixture(scope="module")
def plain():
    return render(upright())


@pytest.fixture(scope="module")
def bleeding():
    return render(upright(), [IPH])


def test_hu_are_those_of_a_head(plain):
    hu = plain.hu
    assert hu.dtype == np.int16
    assert hu.shape == (8, 48, 48)
    assert hu[4, 24, 0] == pytest.approx(-1000, abs=5)
    brain = hu[4][(hu[4] > 15) & (hu[4] < 60)]
    assert brain.size > 300
    assert 26 < np.median(brain) < 40
    assert 600 < np.percentile(hu[4][hu[4] > 300], 90) < 1500
    assert plain.area_mm2.sum() == 0


def test_blood_is_where_it_was_put_and_makes_truth(plain, bleeding):
    at = bleeding.hu[3, 23, 29]  # row and column of (28, -5) mm; the fourth slice is at 0 mm
    assert 60 < at < 80
    assert plain.hu[3, 23, 29] < 45
    positive = bleeding.area_mm2[:, COLUMN] > MIN_AREA_MM2[INTRAPARENCHYMAL]
    assert positive.tolist() == [False, False, False, True, True, False, False, False]
    assert np.delete(bleeding.area_mm2, COLUMN, axis=1).sum() == 0


def test_a_mimic_leaves_no_truth():
    out = render(upright(), [replace(IPH, hu=150.0, low_hu=150.0, mimic=True)])
    assert out.hu[3, 23, 29] > 120
    assert out.area_mm2.sum() == 0


def test_area_hardly_depends_on_the_matrix(bleeding):
    fine = render(upright(96), [IPH]).area_mm2[:, COLUMN]
    coarse = bleeding.area_mm2[:, COLUMN]
    assert fine.max() == pytest.approx(coarse.max(), rel=0.12)


def test_thick_slices_average(plain):
    thin = render(replace(upright(), thickness_mm=(0.5,) * 8))
    assert not np.array_equal(thin.hu, plain.hu)
    sharp, soft = (np.abs(np.diff(o.hu[6].astype(int), axis=0)).max() for o in (thin, plain))
    assert soft <= sharp + 60


def test_noise_has_the_set_strength():
    noisy, clean = render(replace(upright(), noise_hu=6.0)), render(upright())
    difference = (noisy.hu.astype(int) - clean.hu)[clean.hu > -900]
    assert difference.std() == pytest.approx(6.0, rel=0.1)
    assert abs(difference.mean()) < 1.0


def test_tilt_moves_the_back_of_the_image_down():
    scan = replace(upright(), tilt_deg=20.0)
    c, s = scan.tilt
    assert (c, s) == (0.939693, 0.34202)
    corner = scan.corner_mm(0)
    last_row_z = corner[2] - s * scan.pixel_mm * (scan.size_px - 1)
    assert (corner[2] + last_row_z) / 2 == pytest.approx(scan.origin_z_mm - 60, abs=1e-3)


@pytest.mark.parametrize("seed", range(25))
def test_drawn_scans_are_within_the_competitions_bounds(seed):
    scan = draw_scan(np.random.default_rng(seed), 128, 1.0)
    assert 20 <= len(scan.table_mm) <= 60
    assert len(scan.thickness_mm) == len(scan.table_mm)
    assert (np.diff(scan.table_mm) > 0).all()
    assert 3.0 <= scan.noise_hu <= 8.0
    assert 220 <= scan.fov_mm <= 250
    rotation = np.array(scan.pose).reshape(3, 3)
    assert rotation @ rotation.T == pytest.approx(np.eye(3), abs=1e-5)


def test_some_series_are_unevenly_spaced():
    uneven = 0
    for seed in range(60):
        steps = np.diff(draw_scan(np.random.default_rng(seed), 64, 1.0).table_mm)
        uneven += steps.max() > 1.5 * steps.min()
    assert 1 <= uneven <= 20
