import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from ichtune.data.audit.leaks import check_leaks, leaks_of
from ichtune.data.audit.split_file import plan_split
from ichtune.data.folds import read_folds
from ichtune.data.label_table import spoilt_labels
from ichtune.data.prepare import PrepareSpec, prepare
from ichtune.errors import ConfigError, DataError, NothingUsableError, StorageError
from ichtune.labels import LABELS
from ichtune.layout import Layout
from ichtune.tables import LABEL_ISSUES, SLICES, read_table
from ichtune.workspace import Workspace

N_TRAIN = 6


@pytest.fixture
def competition(tmp_path, write_slice) -> Path:
    """Six labelled patients of two slices and one unlabelled patient, laid out as the competition is."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "rsna"
    lines, sample = ["ID,Label"], ["ID,Label"]
    for patient in range(N_TRAIN + 1):
        for number in range(2):
            image_id = f"ID_{patient}{number}"
            is_train = patient < N_TRAIN
            write_slice(
                folder / f"stage_2_{'train' if is_train else 'test'}" / f"{image_id}.dcm",
                rng.integers(0, 4096, (32, 32), dtype=np.uint16),
                SOPInstanceUID=image_id,
                PatientID=f"ID_p{patient}",
                StudyInstanceUID=f"1.2.3.{patient}",
                SeriesInstanceUID=f"ID_s{patient}",
                ImagePositionPatient=[0, 0, -5 * number],
            )
            value = int(patient % 2 == 0)
            (lines if is_train else sample).extend(f"{image_id}_{label},{value}" for label in LABELS)
    (folder / "stage_2_train.csv").write_text("\n".join(lines) + "\n")
    (folder / "stage_2_sample_submission.csv").write_text("\n".join(sample) + "\n")
    return folder


@pytest.fixture
def spec(competition, tmp_path) -> PrepareSpec:
    return PrepareSpec(competition, competition / "stage_2_train.csv", tmp_path / "work", 16, k=3)


def test_a_workspace_comes_out_whole(spec):
    summary = prepare(spec)
    assert (summary.files, summary.slices, summary.series, summary.patients) == (14, 14, 7, 7)
    assert (summary.labelled, summary.refused, summary.label_issues) == (12, {}, {})
    assert summary.positive == dict.fromkeys(LABELS, 6)
    workspace = Workspace(spec.out)
    assert len(workspace.labelled) == 12
    assert workspace.unlabelled["image_id"].tolist() == ["ID_60", "ID_61"]
    assert workspace.slices.set_index("image_id").loc[["ID_01", "ID_00"], "slice_rank"].tolist() == [0, 1]
    assert workspace.hu("ID_00").shape == (16, 16)
    assert workspace.fold_plan.plan_hash == summary.fold_plan_hash
    assert workspace.about["cache_id"] == summary.cache_id
    assert workspace.about["generated"] is False
    layout = Layout(spec.out)
    assert layout.sample_submission.read_text().count("\n") == 13


def test_a_phantom_is_marked_also_by_one_of_its_folders(spec):
    (spec.dicom_dir / "phantom.json").write_text("{}", encoding="utf-8")
    prepare(spec)
    assert Workspace(spec.out).about["generated"] is True
    prepare(replace(spec, dicom_dir=spec.dicom_dir / "stage_2_train", replace=True))
    assert Workspace(spec.out).about["generated"] is True


def test_an_unchanged_data_set_is_not_prepared_twice(spec):
    first = prepare(spec)
    before = {path: path.read_bytes() for path in spec.out.rglob("*.parquet")}
    second = prepare(spec)
    assert (first.cache_reused, second.cache_reused) == (False, True)
    assert {path: path.read_bytes() for path in spec.out.rglob("*.parquet")} == before


def test_labels_are_not_lost_by_leaving_them_out(spec):
    prepare(spec)
    before = tables_of(spec.out)
    with pytest.raises(ConfigError, match="--labels"):
        prepare(replace(spec, labels=None, size_px=24))
    assert tables_of(spec.out) == before


def test_another_source_takes_the_place_of_the_first_only_where_that_is_asked_for(spec, competition):
    first = prepare(spec)
    tables = Layout(spec.out).slices.read_bytes()
    moved = competition.rename(competition.with_name("moved"))
    again = replace(spec, dicom_dir=moved, labels=moved / "stage_2_train.csv")

    with pytest.raises(
        ConfigError, match=r"holds the tables of .*rsna, not of .*moved; use another --out, or --replace"
    ):
        prepare(again)

    assert Layout(spec.out).slices.read_bytes() == tables
    second = prepare(replace(again, replace=True))
    assert second.cache_reused
    assert (second.cache_id, second.fold_plan_hash) == (first.cache_id, first.fold_plan_hash)
    assert Workspace(spec.out).about["source_dir"] == str(moved)


def test_what_a_killed_run_was_writing_is_removed(spec):
    spec.out.mkdir(parents=True)
    leftover = spec.out / ".slices.parquet.4711.tmp"
    leftover.write_bytes(b"half")
    of_another_command = spec.out / ".trials.parquet.4711.tmp"
    of_another_command.write_bytes(b"half")
    prepare(spec)
    assert (leftover.exists(), of_another_command.exists()) == (False, True)


def test_other_labels_and_folds_need_no_other_cache(spec, tmp_path):
    first = prepare(spec)
    (tmp_path / "wide.csv").write_text(f"image_id,{','.join(LABELS)}\nID_00,0,0,0,0,0,0\nID_10,1,1,0,0,0,0\n")
    second = prepare(replace(spec, labels=tmp_path / "wide.csv", k=2))
    assert second.cache_reused
    assert second.cache_id == first.cache_id
    assert second.labelled == 2
    assert read_folds(Layout(spec.out).folds).k == 2


def caches_of(out: Path) -> list[tuple[int | None, str]]:
    return [(note["size_px"], note["crop"]) for note in Workspace(out).caches]


def tables_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("*.parquet")}


def test_another_size_or_crop_adds_a_cache_and_changes_nothing_else(spec):
    first = prepare(spec)
    before, about = tables_of(spec.out), Workspace(spec.out).about
    larger = prepare(replace(spec, size_px=24))
    cropped = prepare(replace(spec, size_px=20, crops=("head", "tight")))
    assert caches_of(spec.out) == [(16, "none"), (24, "none"), (20, "head"), (20, "tight")]
    assert {larger.cache_id, cropped.cache_id} == {first.cache_id}
    assert tables_of(spec.out) == before
    after = Workspace(spec.out).about
    assert {**after, "caches": []} == {**about, "caches": []}
    workspace = Workspace(spec.out)
    for image_px, crop, size_px in ((8, "none", 16), (20, "none", 24), (64, "none", 24), (64, "tight", 20)):
        cache = workspace.cache_for(image_px, crop)
        assert (cache.size_px, cache.crop, cache.rows_id) == (size_px, crop, after["rows_id"])


@pytest.mark.slow  # takes seconds
def test_nothing_is_prepared_twice_in_whatever_order_it_is_asked_for(spec, monkeypatch):
    prepare(replace(spec, crops=("none", "head")))
    prepare(replace(spec, size_px=24, crops=("none", "head")))
    cache_ids = [note["cache_id"] for note in Workspace(spec.out).caches]
    monkeypatch.setattr("ichtune.data.cache.shards.read_source", lambda *a: pytest.fail("a file was read again"))
    monkeypatch.setattr(
        "ichtune.data.cache.cache_set.series_boxes", lambda *a: pytest.fail("boxes were looked for again")
    )
    for size_px in (16, 24):
        for crops in (("none",), ("head",), ("none", "head"), ("head", "none")):
            assert prepare(replace(spec, size_px=size_px, crops=crops)).cache_reused
    assert [note["cache_id"] for note in Workspace(spec.out).caches] == cache_ids


def test_a_changed_source_starts_the_list_of_caches_anew(spec, competition, write_slice):
    first = prepare(replace(spec, crops=("none", "head")))
    prepare(replace(spec, size_px=24))
    write_slice(competition / "stage_2_test" / "ID_new.dcm", SOPInstanceUID="ID_new", PatientID="ID_p9")
    second = prepare(replace(spec, size_px=24, crops=("head",)))
    assert caches_of(spec.out) == [(16, "none"), (24, "head")]
    assert second.slices == first.slices + 1
    assert second.cache_id != first.cache_id


def test_a_cache_that_was_removed_is_built_again(spec):
    prepare(replace(spec, crops=("none", "head")))
    cache_id = Workspace(spec.out).cache_for(16, "head").cache_id
    shutil.rmtree(Layout(spec.out).hu / cache_id)
    prepare(spec)
    assert caches_of(spec.out) == [(16, "none")]
    assert not prepare(replace(spec, crops=("head",))).cache_reused
    assert Workspace(spec.out).cache_for(16, "head").cache_id == cache_id


def test_a_crop_is_cut_from_the_files_at_full_resolution(spec, competition, write_slice):
    hu = np.full((64, 64), -1000, np.int16)
    hu[20:44, 10:34] = np.random.default_rng(3).integers(0, 1000, (24, 24))
    path = write_slice(
        competition / "stage_2_train" / "ID_00.dcm",
        (hu + 1024).astype(np.uint16),
        SOPInstanceUID="ID_00",
        PatientID="ID_p0",
        SeriesInstanceUID="ID_own",
        BitsStored=16,
        HighBit=15,
    )
    assert path.is_file()
    prepare(replace(spec, size_px=32, crops=("none", "tight")))
    workspace = Workspace(spec.out)
    row = workspace.slices.index[workspace.slices["image_id"] == "ID_00"][0]
    # the box was found at 32 px, to a pixel of two; inside it no value was averaged with another
    np.testing.assert_array_equal(
        workspace.cache_for(32, "tight").read(row),
        cv2.resize(hu[20:44, 10:34], (32, 32), interpolation=cv2.INTER_LINEAR),
    )


def test_progress_is_told_by_stage(spec):
    told = []
    prepare(replace(spec, crops=("none", "tight")), told.append)
    ends = {progress.stage: progress for progress in told}
    assert list(ends) == ["reading, 16 px", "finding boxes (tight)", "cropping (tight), 16 px"]
    assert {(progress.n_done, progress.n_all) for progress in ends.values()} == {(14, 14)}


def test_a_blank_slice_is_marked_and_stays(spec, competition, write_slice):
    write_slice(competition / "stage_2_train" / "ID_00.dcm", np.zeros((32, 32), np.uint16), SOPInstanceUID="ID_00")
    summary = prepare(replace(spec, crops=("none", "head", "tight")))
    assert (summary.blank, summary.slices, summary.labelled) == (1, 14, 12)
    workspace = Workspace(spec.out)
    row = workspace.slices.index[workspace.slices["is_blank"]][0]
    assert all((workspace.cache_for(16, crop).read(row) == -1024).all() for crop in ("none", "head", "tight"))


def test_linked_patients_lower_the_default_number_of_folds(spec, competition, write_slice):
    for patient in (1, 2, 3):
        for number in range(2):
            name = f"ID_{patient}{number}"
            path = competition / "stage_2_train" / f"{name}.dcm"
            pixels = np.random.default_rng(patient).integers(0, 4096, (32, 32), dtype=np.uint16)
            write_slice(path, pixels, SOPInstanceUID=name, PatientID=f"ID_p{patient}", StudyInstanceUID="1.2.77")
    summary = prepare(replace(spec, k=None))
    assert summary.k == 4
    assert any("1 groups of patients share" in warning for warning in summary.warnings)


def test_native_size_keeps_each_matrix(spec):
    summary = prepare(replace(spec, size_px=None))
    assert summary.size_px is None
    assert Workspace(spec.out).hu("ID_00").shape == (32, 32)


def test_without_labels_every_slice_is_unlabelled(spec):
    summary = prepare(replace(spec, labels=None, k=None))
    assert (summary.labelled, summary.k) == (0, 5)
    slices = read_table(Layout(spec.out).slices, SLICES)
    assert not slices["is_labelled"].any()
    assert json.loads(Layout(spec.out).workspace_json.read_text())["labels_csv"] is None


def test_every_file_and_label_is_accounted_for(spec, competition, write_slice):
    train = competition / "stage_2_train"
    whole = (train / "ID_00.dcm").read_bytes()
    (train / "ID_00.dcm").write_bytes(whole[:-10])
    (train / "copy.dcm").write_bytes((train / "ID_10.dcm").read_bytes())
    (train / "broken.dcm").write_text("no DICOM")
    with (competition / "stage_2_train.csv").open("a") as file:
        file.write("ID_gone_any,1\nID_20_any,1\n")
    summary = prepare(spec)
    assert summary.files == 16
    assert summary.slices == 13
    assert summary.refused == {"duplicate_sop_instance_uid": 1, "not_dicom": 1, "truncated_pixel_data": 1}
    assert summary.label_issues == {
        "duplicate_agrees": 1,
        "incomplete_labels": 1,
        "no_file": 1,
        "refused_file": 1,
    }
    assert summary.ignored == 2
    assert summary.duplicates == 1
    issues = read_table(Layout(spec.out).label_issues, LABEL_ISSUES)
    assert issues.loc[issues["issue"] == "no_file", "image_id"].tolist() == ["ID_gone"]
    workspace = Workspace(spec.out)
    assert workspace.hu("ID_10~2").shape == (16, 16)
    assert not workspace.slices.set_index("image_id").loc["ID_10~2", "is_labelled"]


def test_a_name_that_two_slices_share_gives_neither_a_label_and_no_leak(spec, competition, write_slice):
    train = competition / "stage_2_train"
    other = {
        "SOPInstanceUID": "ID_10",
        "PatientID": "ID_p1",
        "StudyInstanceUID": "1.2.3.1",
        "SeriesInstanceUID": "ID_s1",
    }
    write_slice(train / "other.dcm", np.zeros((32, 32), np.uint16), **other, ImagePositionPatient=[0, 0, 40])
    summary = prepare(spec)
    assert (summary.slices, summary.duplicates, summary.labelled) == (15, 0, 11)
    assert summary.label_issues == {"ambiguous_image_id": 2}
    assert any(warning.startswith("2 slices share their name") for warning in summary.warnings)
    workspace = Workspace(spec.out)
    spoilt = spoilt_labels(workspace.label_issues)
    assert spoilt == {"ID_10", "ID_10~2"}
    assert not leaks_of(check_leaks(workspace.slices, plan_split(workspace.slices, workspace.fold_plan, spoilt)))


def test_a_patient_in_train_and_test_is_reported_and_stays_in_one_fold(spec, competition, write_slice):
    write_slice(competition / "stage_2_test" / "ID_new.dcm", SOPInstanceUID="ID_new", PatientID="ID_p0")
    summary = prepare(spec)
    assert any("1 patients have labelled and unlabelled slices" in warning for warning in summary.warnings)


def test_folds_follow_the_number_of_labelled_patients(spec, tmp_path):
    def labels(n: int) -> Path:
        rows = [f"ID_{patient}0,0,0,0,0,0,0" for patient in range(n)]
        (tmp_path / "some.csv").write_text("\n".join([f"image_id,{','.join(LABELS)}", *rows]) + "\n")
        return tmp_path / "some.csv"

    assert prepare(replace(spec, k=None)).k == 5
    three = prepare(replace(spec, k=None, labels=labels(3)))
    assert three.k == 3
    assert any("only 3 patients" in warning for warning in three.warnings)
    one = prepare(replace(spec, k=None, labels=labels(1)))
    assert (one.k, one.fold_plan_hash) == (None, None)
    assert not Layout(spec.out).folds.exists()
    with pytest.raises(ConfigError, match="--folds 3"):
        prepare(replace(spec, k=4, labels=labels(3)))


def test_a_mistake_in_the_labels_costs_no_pass_over_the_pixels(spec, competition):
    (competition / "stage_2_train.csv").write_text("ID,Label\nID_00_any,7\n")
    with pytest.raises(DataError, match="line 2"):
        prepare(spec)
    assert not spec.out.exists()


def test_a_refused_plan_leaves_the_earlier_workspace_as_it_was(spec):
    first = prepare(spec)
    with pytest.raises(ConfigError):
        prepare(replace(spec, k=9))
    assert Workspace(spec.out).fold_plan.plan_hash == first.fold_plan_hash


def test_files_without_one_slice_are_an_error_with_the_reason(tmp_path, write_slice):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.dcm").write_text("no DICOM")
    for name in "ab":
        write_slice(tmp_path / "in" / f"{name}.dcm", Modality="MR")
    with pytest.raises(
        NothingUsableError, match=r"not one usable CT slice.*not_ct_image \(2 files\), for instance a\.dcm: not_ct"
    ):
        prepare(PrepareSpec(tmp_path / "in", None, tmp_path / "work"))


def test_impossible_settings_are_refused(spec, tmp_path):
    for change, message in (
        ({"size_px": 1}, "--size"),
        ({"k": 1}, "--folds"),
        ({"crops": ("heads",)}, "Did you mean 'head'"),
        ({"crops": ()}, "--crop names no crop"),
        ({"crops": ("none", "head"), "size_px": None}, "not --size native"),
        ({"n_processes": 0}, "--processes"),
    ):
        with pytest.raises(ConfigError, match=message):
            replace(spec, **change)
    with pytest.raises(DataError, match="--labels"):
        replace(spec, labels=tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match="--sample-submission"):
        replace(spec, sample_submission=tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        prepare(replace(spec, dicom_dir=tmp_path / "nowhere"))


def test_a_workspace_that_is_a_file_is_a_storage_error(spec):
    spec.out.write_text("in the way")
    with pytest.raises(StorageError):
        prepare(spec)


def test_two_sample_submissions_leave_the_choice_to_the_user(spec, competition, tmp_path):
    (competition / "stage_1_sample_submission.csv").write_text("ID,Label\n")
    prepare(spec)
    assert not Layout(spec.out).sample_submission.exists()
    (tmp_path / "mine.csv").write_text("ID,Label\nID_60_any,0.5\n")
    prepare(replace(spec, sample_submission=tmp_path / "mine.csv"))
    assert Layout(spec.out).sample_submission.read_text() == "ID,Label\nID_60_any,0.5\n"


def test_no_output_holds_a_name_or_a_birth_date(spec):
    prepare(spec)
    for path in spec.out.rglob("*"):
        if path.is_file():
            held = path.read_bytes()
            if path.suffix == ".parquet":
                held += pd.read_parquet(path).to_csv().encode()
            assert b"Seeded" not in held
            assert b"19010203" not in held
