"""A real head CT with a tilted gantry and uneven spacing, written by others."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ichtune.data.prepare import PrepareSpec, prepare
from ichtune.workspace import Workspace

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "head_ct_tilt"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="real test files are not beside this checkout")

N_SLICES = 28
PADDING_HU = -1500


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    out = tmp_path_factory.mktemp("tilt")
    prepare(PrepareSpec(FOLDER, None, out, size_px=None, n_processes=1))
    return Workspace(out)


@pytest.fixture(scope="module")
def series(workspace) -> pd.DataFrame:
    return workspace.slices.sort_values("slice_rank", ignore_index=True)


def test_every_file_is_a_slice_of_one_series(series):
    assert (series["status"] == "ok").sum() == N_SLICES
    assert series["series_instance_uid"].nunique() == 1
    assert series["slice_rank"].tolist() == list(range(N_SLICES))
    assert set(series["encoding"]) == {"16s+0"}


def test_slices_lie_along_the_tilted_normal(series):
    assert series["tilt_deg"].to_numpy() == pytest.approx(np.full(N_SLICES, 18.5), abs=0.01)
    assert (np.diff(series["z_mm"]) > 0).all()


def test_spacing_is_measured_along_the_normal(series):
    spacing_mm = series["spacing_mm"].to_numpy()
    assert (spacing_mm.min(), spacing_mm.max()) == pytest.approx((1.08, 7.0), abs=0.01)
    assert np.diff(series["z_mm"]) == pytest.approx(spacing_mm[:-1])
    assert series["pixel_spacing_mm"].tolist() == pytest.approx([0.4883] * N_SLICES, abs=1e-4)


def test_tissues_have_their_hounsfield_units(workspace, series):
    """Brain lies at 20 to 45 HU, bone above 300, air below -900; padding is kept below air at native size."""
    middle = workspace.hu(series["image_id"][N_SLICES // 2])
    brain = middle[196:236, 156:316]
    assert 20 < np.median(brain) < 45
    assert middle.max() > 1000
    inside = middle[middle != PADDING_HU]
    assert np.percentile(inside, 1) < -900
    assert middle.min() == PADDING_HU


def test_resized_slices_hold_no_padding(tmp_path):
    prepare(PrepareSpec(FOLDER, None, tmp_path / "work", size_px=128, n_processes=1))
    cache = Workspace(tmp_path / "work").hu_cache
    batch = cache.gather(np.arange(N_SLICES))
    assert batch.shape == (N_SLICES, 128, 128)
    assert batch.min() >= -1024
    assert batch.max() > 1000
