"""Splits that are handed over: read by any key, and refused where they do not say where every slice lies."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ichtune.data.audit.leaks import NO_FOLD
from ichtune.data.audit.split_file import plan_split, read_split
from ichtune.data.folds import FoldPlan, write_folds
from ichtune.errors import ConflictError, DataError


@pytest.fixture
def slices() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image_id": ["a0", "a1", "b0", "c0", "t0", "bad"],
            "patient_id": ["A", "A", "B", "C", "T", ""],
            "dicom_study_uid": ["SA", "SA", "SB", "SC", "ST", ""],
            "series_instance_uid": ["1.1", "1.1~2", "1.2", "1.3", "1.9", ""],
            "status": ["ok", "ok", "ok", "ok", "ok", "refused"],
            "is_labelled": [True, True, True, True, False, False],
        }
    )


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_the_plan_says_where_every_usable_slice_lies(slices):
    split = plan_split(slices, FoldPlan(3, 7, {"A": 0, "B": 2, "C": 1, "T": 1}))
    assert split.fold.tolist() == [0, 0, 2, 1, 1, NO_FOLD]
    assert split.is_train.tolist() == [True, True, True, True, False, False]
    assert split.is_test.tolist() == [False, False, False, False, True, False]
    assert split.fold_names == ("fold 0", "fold 1", "fold 2")
    assert plan_split(slices, None).fold_names == ()


@pytest.mark.parametrize(
    "text",
    [
        "image_id,fold\na0,0\na1,0\nb0,2\nc0,10\n",
        "fold,note,patient_id\n0,x,A\n0,y,A\n2,,B\n10,,C\n",
        "dicom_study_uid,fold\nSA,0\nSB,2\nSC,10\n",
        "\ufeffseries_instance_uid,fold\n1.1,0\n1.2, 2\n1.3,10\n",
        "patient_id,image_id,fold\nA,a0,0\nA,a1,0\nB,b0,2\nC,c0,10\nX,bad,10\n",
    ],
    ids=["image", "patient", "study", "series", "finest"],
)
def test_slices_may_be_named_by_any_key(tmp_path, slices, text):
    split = read_split(written(tmp_path / "folds.csv", text), slices)
    assert split.fold_names == ("fold 0", "fold 2", "fold 10")
    assert split.fold.tolist()[:5] == [0, 0, 1, 2, NO_FOLD]
    assert split.is_test.tolist() == [False] * 4 + [True, False]
    assert split.n_unusable == int("bad" in text)
    assert split.name == "folds.csv"


def test_the_workspaces_own_folds_file_can_be_handed_over(tmp_path, slices):
    plan = FoldPlan(3, 7, {"A": 0, "B": 2, "C": 1, "T": 1})
    write_folds(plan, tmp_path / "folds.parquet")
    own, read = plan_split(slices, plan), read_split(tmp_path / "folds.parquet", slices)
    assert own.fold_names == read.fold_names
    for name in ("fold", "is_train", "is_test"):
        np.testing.assert_array_equal(getattr(own, name), getattr(read, name))


def test_a_slice_whose_label_was_spoilt_is_neither_train_nor_test(tmp_path, slices):
    slices.loc[1, "is_labelled"] = False
    plan = FoldPlan(3, 7, {"A": 0, "B": 2, "C": 1, "T": 1})
    assert plan_split(slices, plan).is_test.tolist() == [False, True, False, False, True, False]
    assert plan_split(slices, plan, ["a1"]).is_test.tolist() == [False, False, False, False, True, False]
    path = written(tmp_path / "folds.csv", "image_id,fold\na0,0\nb0,2\nc0,10\n")
    assert read_split(path, slices, ["a1"]).is_test.tolist() == [False, False, False, False, True, False]
    assert read_split(path, slices).is_test.tolist() == [False, True, False, False, True, False]


def test_a_split_column_says_what_is_test(tmp_path, slices):
    text = "image_id,split\na0,train\na1,test\nb0,train\nc0,train\nt0,train\n"
    split = read_split(written(tmp_path / "s.csv", text), slices)
    assert split.is_test.tolist() == [False, True, False, False, False, False]
    assert split.is_train.tolist() == [True, False, True, True, True, False]
    assert split.fold_names == ()
    unlisted = read_split(written(tmp_path / "u.csv", text.replace("t0,train\n", "")), slices)
    assert unlisted.is_test.tolist() == [False, True, False, False, True, False]


def test_test_slices_need_no_fold(tmp_path, slices):
    text = "image_id,fold,split\na0,0,train\na1,0,train\nb0,1,train\nc0,,test\n"
    split = read_split(written(tmp_path / "s.csv", text), slices)
    assert split.fold.tolist() == [0, 0, 1, NO_FOLD, NO_FOLD, NO_FOLD]
    with pytest.raises(DataError, match=r"gives no fold for 'c0'"):
        read_split(written(tmp_path / "s.csv", text.replace("test", "train")), slices)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("image_id,fold\na0,0\na1,0\nb0,2\n", DataError, "lacks 1 labelled slices .* image_id 'c0'"),
        ("image_id,fold\na0,0\na1,0\nb0,2\nc0,1\nx,1\ny,1\n", DataError, "names 2 of image_id .* the first 'x'"),
        ("patient_id,fold\nA,0\nA,1\nB,0\nC,0\n", ConflictError, "1 of patient_id in several places, the first 'A'"),
        ("image_id,fold\na0,0\n,1\n", DataError, "row 2: no image_id"),
        ("imageid,fold\na0,0\n", DataError, "none of the columns image_id.*Did you mean 'image_id'"),
        ("image_id,part\na0,0\n", DataError, "no column 'fold' and no column 'split'"),
        (
            "image_id,split\na0,valid\na1,train\nb0,train\nc0,test\n",
            DataError,
            "must be 'train' or 'test', got 'valid'",
        ),
        ("patient_id,fold\nA,0\nB,0\nC,0\n", DataError, "everything into one fold"),
        ("patient_id,fold\nA,0\nB,0\nC,0\nT,\n", DataError, "everything into one fold"),
        ("", DataError, "cannot read"),
    ],
)
def test_a_split_that_cannot_be_followed_is_refused(tmp_path, slices, text, error, message):
    with pytest.raises(error, match=message):
        read_split(written(tmp_path / "s.csv", text), slices)


def test_a_file_that_is_not_there_or_no_table_is_refused(tmp_path, slices):
    with pytest.raises(DataError, match="--split takes a CSV or parquet"):
        read_split(tmp_path / "nowhere.csv", slices)
    with pytest.raises(DataError, match="cannot read"):
        read_split(written(tmp_path / "s.parquet", "image_id,fold\n"), slices)
