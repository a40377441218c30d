import csv
import hashlib
import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from ichtune.data.phantom.generate import (
    CSV_LABELS,
    MANIFEST,
    SAMPLE_CSV,
    TEST_DIR,
    TRAIN_CSV,
    TRAIN_DIR,
    TRUTH_CSV,
    PhantomSpec,
    PhantomSummary,
    read_border_noise,
    write_phantom,
)
from ichtune.errors import ConfigError, DataError
from ichtune.labels import SUBTYPES

SPEC = PhantomSpec(n_patients=12, size_px=32, seed=3)
TINY = PhantomSpec(n_patients=2, size_px=32, seed=5, test_fraction=0.5)
# sha256 over the stored pixels of TINY, file by file in the order of their names. It changes whenever the
# generator draws or computes anything else: raise SCHEMA_VERSION in the same commit.
GOLDEN = "c90868ffb31ff1c46a4810dd4cbe1179d8801c5ecae3d5488209095650bec145"

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR UI")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PhantomSummary]:
    out = tmp_path_factory.mktemp("phantom") / "made"
    return out, write_phantom(out, SPEC, n_processes=1)


def rows_of(path: Path) -> list[tuple[str, float]]:
    with path.open(encoding="ascii") as f:
        return [(r["ID"], float(r["Label"])) for r in csv.DictReader(f)]


def contents(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def headers(out: Path) -> list[pydicom.Dataset]:
    files = sorted([*(out / TRAIN_DIR).iterdir(), *(out / TEST_DIR).iterdir()])
    return [pydicom.dcmread(f, stop_before_pixels=True) for f in files]


@pytest.mark.slow  # takes seconds
def test_every_train_image_has_six_rows_and_one_image_has_them_twice(made):
    out, summary = made
    rows = rows_of(out / TRAIN_CSV)
    count = Counter(i for i, _ in rows)
    images = {p.stem for p in (out / TRAIN_DIR).iterdir()}
    assert len(images) == summary.n_train
    assert set(count) == {f"{i}_{label}" for i in images for label in CSV_LABELS}
    twice = {i for i, n in count.items() if n == 2}
    assert twice == {f"{summary.duplicated_image}_{label}" for label in CSV_LABELS}
    assert {i: v for i, v in rows[:6]} == {
        f"{rows[0][0].rsplit('_', 1)[0]}_{label}": v for label, (_, v) in zip(CSV_LABELS, rows[:6], strict=True)
    }


def test_truth_and_sample_submission_name_every_test_image(made):
    out, summary = made
    images = {p.stem for p in (out / TEST_DIR).iterdir()}
    expected = {f"{i}_{label}" for i in images for label in CSV_LABELS}
    truth, sample = rows_of(out / TRUTH_CSV), rows_of(out / SAMPLE_CSV)
    assert len(images) == summary.n_test
    assert {i for i, _ in truth} == expected == {i for i, _ in sample}
    assert {v for _, v in sample} == {0.5}
    assert {v for _, v in truth} == {0.0, 1.0}


def test_any_is_the_maximum_of_the_subtypes(made):
    out, _ = made
    by_id = dict(rows_of(out / TRAIN_CSV))
    for image in {i.rsplit("_", 1)[0] for i in by_id}:
        assert by_id[f"{image}_any"] == max(by_id[f"{image}_{s}"] for s in SUBTYPES)


def test_every_subtype_occurs_in_train(made):
    out, _ = made
    positive = Counter(i.rsplit("_", 1)[1] for i, v in rows_of(out / TRAIN_CSV) if v == 1)
    assert set(positive) == set(CSV_LABELS)


def test_no_patient_is_in_both_sets(made):
    out, summary = made
    patients = [
        {pydicom.dcmread(p, stop_before_pixels=True).PatientID for p in (out / d).iterdir()}
        for d in (TRAIN_DIR, TEST_DIR)
    ]
    assert not patients[0] & patients[1]
    assert len(patients[0] | patients[1]) == summary.n_patients


def test_headers_look_like_the_competitions(made):
    out, summary = made
    found = headers(out)
    assert {d.SOPInstanceUID for d in found} == {p.stem for p in out.rglob("*.dcm")}
    encodings = {(d.BitsStored, d.PixelRepresentation, int(d.RescaleIntercept)) for d in found}
    assert encodings == {
        (12, 0, -1024),
        (12, 0, -1000),
        (12, 0, 0),
        (12, 0, 1),
        (12, 1, 0),
        (16, 1, -1024),
        (16, 1, 0),
    }
    assert all(215 < float(d.PixelSpacing[0]) * d.Rows < 255 for d in found)
    assert max(Counter(d.PatientID for d in found).values()) > 60 or summary.n_studies > summary.n_patients
    lengths = Counter(d.SeriesInstanceUID for d in found)
    assert len(lengths) == summary.n_series
    assert all(20 <= n <= 60 for n in lengths.values())


def test_file_names_say_nothing_about_position(made):
    out, _ = made
    by_series: dict[str, list[float]] = {}
    for d in headers(out):
        by_series.setdefault(d.SeriesInstanceUID, []).append(float(d.ImagePositionPatient[2]))
    for z in by_series.values():
        assert z != sorted(z)
        assert z != sorted(z, reverse=True)


def test_exactly_the_named_file_is_truncated(made):
    out, summary = made
    size = {p.stem: p.stat().st_size for p in (out / TRAIN_DIR).iterdir()}
    assert min(size, key=lambda i: size[i]) == summary.truncated_image
    assert size[summary.truncated_image] < 1024 * 2
    assert sorted(size.values())[1] > 2 * 32 * 32


def test_a_finished_phantom_is_left_alone_and_an_interrupted_one_is_made_anew(tmp_path):
    out = tmp_path / "p"
    first = write_phantom(out, TINY, n_processes=1)
    before = contents(out)
    calls: list[tuple[int, int]] = []
    assert write_phantom(out, TINY, n_processes=1, on_progress=lambda a, b: calls.append((a, b))) == first
    assert not calls
    manifest = json.loads((out / MANIFEST).read_text())
    assert manifest["spec"] == asdict(TINY)
    (out / MANIFEST).write_text(json.dumps({**manifest, "complete": False, "summary": None}))
    (out / TRAIN_DIR / "ID_stray.dcm").write_bytes(b"left behind")
    write_phantom(out, TINY, n_processes=1, on_progress=lambda a, b: calls.append((a, b)))
    assert calls[-1] == (first.n_series, first.n_series)
    assert contents(out) == before
    with pytest.raises(DataError, match="holds another phantom: seed 5 \\(asked: 6\\)"):
        write_phantom(out, replace(TINY, seed=6), n_processes=1)


def test_two_processes_write_the_same_bytes_as_one(tmp_path):
    write_phantom(tmp_path / "one", TINY, n_processes=1)
    write_phantom(tmp_path / "two", TINY, n_processes=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_golden(tmp_path):
    write_phantom(tmp_path / "p", TINY, n_processes=1)
    digest = hashlib.sha256()
    for path in sorted((tmp_path / "p").rglob("*.dcm"), key=lambda p: p.name):
        digest.update(path.read_bytes()[-2 * 32 * 32 :])
    assert digest.hexdigest() == GOLDEN


def test_refuses_a_folder_of_something_else(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"not empty and no phantom"):
        write_phantom(tmp_path, TINY)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        write_phantom(tmp_path, TINY)
    with pytest.raises(DataError, match="is a file"):
        write_phantom(tmp_path / "notes.txt", TINY)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("difficulty", 0.0),
        ("n_patients", 1),
        ("size_px", 8),
        ("test_fraction", 1.0),
        ("broken_12bit_rate", -0.1),
        ("seed", -1),
    ],
)
def test_spec_refuses_values_out_of_range(field, value):
    with pytest.raises(ConfigError, match=f"{field} is out of range"):
        PhantomSpec(**{field: value})


def test_readers_are_unsure_at_the_borders_of_a_bleed_only():
    truth = np.zeros((40, len(SUBTYPES)), bool)
    truth[10:20] = True
    changed = np.zeros(40, int)
    for seed in range(60):
        labels = read_border_noise(truth, np.random.default_rng(seed))
        changed += (labels != truth).sum(axis=1)
    assert set(np.flatnonzero(changed)) == {9, 10, 19, 20}
    assert 0.05 < changed[10] / (60 * len(SUBTYPES)) < 0.35
