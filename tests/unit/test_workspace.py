"""Workspace: what it reads, and what it says where there is nothing to read."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ichtune
from ichtune.errors import ConfigError, DataError
from ichtune.labels import LABELS
from ichtune.tables import P_COLUMNS, PREDICTIONS, SLICES, write_json, write_table
from ichtune.workspace import Workspace

FakeWorkspace = Callable[..., Workspace]


def write_run(workspace: Workspace, recipe_id: str, test: bool) -> None:
    ids = workspace.labelled["image_id"]
    frame = pd.DataFrame({"recipe_id": recipe_id, "fold": 0, "image_id": ids} | dict.fromkeys(P_COLUMNS, 0.5))
    write_table(frame, workspace.layout.oof(recipe_id), PREDICTIONS)
    if test:
        frame["image_id"] = [f"{image_id}_test" for image_id in ids]
        write_table(frame, workspace.layout.test(recipe_id), PREDICTIONS)


def test_the_package_offers_it_without_importing_it_at_once() -> None:
    assert ichtune.Workspace is Workspace
    with pytest.raises(AttributeError, match=r"has no attribute 'Workspac'"):
        _ = ichtune.Workspac


def test_slices_are_rows_of_the_cache(session_workspace: Workspace) -> None:
    slices = session_workspace.slices
    assert len(slices) == session_workspace.hu_cache.n_rows
    assert slices.index.tolist() == list(range(len(slices)))
    assert set(slices["status"]) == {"ok", "refused", "duplicate"}


def test_hu_is_the_cached_slice(session_workspace: Workspace) -> None:
    row = 7
    hu = session_workspace.hu(session_workspace.slices["image_id"].iloc[row])
    assert hu.dtype == np.int16
    assert hu.shape == (32, 32)
    np.testing.assert_array_equal(hu, session_workspace.hu_cache.read(row))


def test_a_duplicate_has_pixels_and_a_refused_slice_says_why_not(session_workspace: Workspace) -> None:
    duplicate = session_workspace.slices.query("status == 'duplicate'")["image_id"].iloc[0]
    assert session_workspace.hu(duplicate).shape == (32, 32)
    with pytest.raises(DataError, match=r"'ID_refused' has no pixels: truncated_pixel_data: 12 bytes missing"):
        session_workspace.hu("ID_refused")
    with pytest.raises(DataError, match=r"no slice has image_id 'ID_none'"):
        session_workspace.hu("ID_none")


def test_labelled_and_unlabelled_share_the_readable_slices(session_workspace: Workspace) -> None:
    labelled, unlabelled = session_workspace.labelled, session_workspace.unlabelled
    assert not set(labelled.index) & set(unlabelled.index)
    ok = session_workspace.slices.query("status == 'ok'")
    assert sorted([*labelled.index, *unlabelled.index]) == ok.index.tolist()
    assert labelled[list(LABELS)].notna().all(axis=None)
    assert unlabelled[list(LABELS)].isna().all(axis=None)
    np.testing.assert_array_equal(session_workspace.labels(labelled.index.to_numpy()), labelled[list(LABELS)])


def test_folds_have_a_row_for_each_readable_slice_and_one_fold_a_patient(session_workspace: Workspace) -> None:
    folds = session_workspace.folds
    assert folds.columns.tolist() == ["image_id", "patient_id", "fold"]
    assert folds["image_id"].tolist() == session_workspace.slices.query("status == 'ok'")["image_id"].tolist()
    assert (folds.groupby("patient_id")["fold"].nunique() == 1).all()
    assert set(folds["fold"]) == {0, 1, 2}


def test_it_can_be_sent_to_another_process(session_workspace: Workspace) -> None:
    copy = pickle.loads(pickle.dumps(session_workspace))
    pd.testing.assert_frame_equal(copy.slices, session_workspace.slices)


@pytest.mark.parametrize(("made", "message"), [(False, "does not exist"), (True, "holds no prepared data")])
def test_a_folder_without_data_names_prepare(tmp_path: Path, made: bool, message: str) -> None:
    root = tmp_path / "work"
    if made:
        root.mkdir()
    for read in ("slices", "folds", "trials", "hu_cache", "fold_plan"):
        with pytest.raises(DataError, match=rf"{message}: run `ichtune prepare DICOM_DIR --labels CSV --out "):
            getattr(Workspace(root), read)
    with pytest.raises(DataError, match=message):
        Workspace(root).predictions("oof")


@pytest.mark.parametrize("text", ["{", "[]", "3", "{}"])
def test_a_damaged_workspace_json_is_named(fake_workspace: FakeWorkspace, text: str) -> None:
    workspace = fake_workspace()
    workspace.layout.workspace_json.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"workspace.json describes no workspace .*run `ichtune prepare` again"):
        _ = workspace.slices


def test_a_cache_of_other_slices_is_refused(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace()
    write_table(workspace.slices.iloc[:-1], workspace.layout.slices, SLICES)
    with pytest.raises(DataError, match=r"has 62 rows, but .*slices.parquet has 61"):
        _ = Workspace(workspace.layout.root).hu_cache


def with_caches(workspace: Workspace, *caches: tuple[str, int | None, str]) -> Workspace:
    """Note caches in workspace.json, each a copy of the base cache's folder, and open the workspace anew."""
    notes = list(workspace.caches)
    for cache_id, size_px, crop in caches:
        shutil.copytree(workspace.hu_cache.folder, workspace.layout.hu / cache_id)
        about = json.loads((workspace.hu_cache.folder / "cache.json").read_text(encoding="utf-8"))
        about |= {"cache_id": cache_id, "size_px": size_px, "crop": crop}
        write_json(about, workspace.layout.hu / cache_id / "cache.json")
        notes.append({"cache_id": cache_id, "size_px": size_px, "crop": crop})
    write_json({**workspace.about, "caches": notes}, workspace.layout.workspace_json)
    return Workspace(workspace.layout.root)


def test_a_workspace_without_a_list_of_caches_has_its_base(session_workspace: Workspace) -> None:
    assert session_workspace.caches == [
        {"cache_id": session_workspace.hu_cache.cache_id, "size_px": 32, "crop": "none"}
    ]
    assert session_workspace.cache_for(224) is session_workspace.hu_cache


@pytest.mark.parametrize(
    ("image_px", "crop", "cache_id"),
    [
        (32, "none", "fakecache"),
        (33, "none", "n64"),
        (64, "none", "n64"),
        (65, "none", "native"),
        (16, "head", "h48"),
        (49, "head", "h96"),
        (300, "head", "h96"),
    ],
)
def test_the_smallest_cache_that_need_not_be_enlarged_is_read(
    fake_workspace: FakeWorkspace, image_px: int, crop: str, cache_id: str
) -> None:
    sizes = (("native", None, "none"), ("h96", 96, "head"), ("n64", 64, "none"), ("h48", 48, "head"))
    workspace = with_caches(fake_workspace(), *sizes)
    found = workspace.cache_for(image_px, crop)
    assert (found.cache_id, found.crop) == (cache_id, crop)
    assert workspace.hu_cache.cache_id == "fakecache"


def test_a_crop_that_was_not_prepared_names_the_whole_command(fake_workspace: FakeWorkspace) -> None:
    workspace = with_caches(fake_workspace(), ("h", 32, "head"))
    with pytest.raises(DataError) as caught:
        workspace.cache_for(48, "tight")
    root = workspace.layout.root
    assert str(caught.value) == (
        f"workspace {root} has no cache with crop 'tight', only head, none; build it with `ichtune prepare nowhere "
        f"--labels nowhere/labels.csv --out {root} --size 48 --crop tight --folds 3 --seed 7`"
    )


def test_missing_trials_and_runs_name_the_command_that_makes_them(session_workspace: Workspace) -> None:
    with pytest.raises(DataError, match=r"run `ichtune search` first"):
        _ = session_workspace.trials
    with pytest.raises(DataError, match=r"no complete run in .*: run `ichtune train` first"):
        session_workspace.predictions("oof")
    with pytest.raises(ConfigError, match=r"unknown kind of predictions 'oofs'. Did you mean 'oof'"):
        session_workspace.predictions("oofs")


def test_predictions_join_every_complete_run(fake_workspace: FakeWorkspace) -> None:
    workspace = fake_workspace()
    write_run(workspace, "r2", test=False)
    assert workspace.predictions("test").columns.tolist() == list(PREDICTIONS.columns)
    assert workspace.predictions("test").empty
    write_run(workspace, "r1", test=True)
    (workspace.layout.runs / "unfinished").mkdir()
    assert workspace.run_ids() == ["r1", "r2"]
    oof = workspace.predictions("oof")
    assert oof.groupby("recipe_id").size().to_dict() == {"r1": 50, "r2": 50}
    assert set(workspace.predictions("test")["recipe_id"]) == {"r1"}


def test_about_is_what_prepare_noted(session_workspace: Workspace) -> None:
    noted = json.loads(session_workspace.layout.workspace_json.read_text(encoding="utf-8"))
    assert session_workspace.about == noted
    assert session_workspace.fold_plan.plan_hash == noted["fold_plan_hash"]
