import numpy as np
import pandas as pd
import pytest

from ichtune.ensemble.members.foreign_rows import place_labelled, place_unlabelled
from ichtune.ensemble.members.foreign_tables import read_foreign
from ichtune.errors import ConflictError, DataError
from ichtune.tables import LABEL_ISSUES, P_COLUMNS, SLICES, read_table, write_table


@pytest.fixture
def made(make_blend_workspace):
    return make_blend_workspace(noises=())


@pytest.fixture
def frames(made):
    oof, test = made.predictions("r0", 1.0)
    keep = ["image_id", *P_COLUMNS]
    return oof[keep], test.loc[test["fold"] == 0, keep]


def read(frame, tmp_path):
    frame.to_csv(tmp_path / "p.csv", index=False)
    return read_foreign(tmp_path / "p.csv")


def test_rows_find_their_slices_in_any_order(made, frames, tmp_path):
    oof, test = frames
    placed = place_labelled(made.open(), read(oof.sample(frac=1, random_state=0), tmp_path))
    np.testing.assert_array_equal(placed.in_order(len(oof)), oof[list(P_COLUMNS)].to_numpy())
    assert placed.notes == ()
    placed = place_unlabelled(made.open(), read(test.sample(frac=1, random_state=0), tmp_path))
    np.testing.assert_array_equal(placed.in_order(len(test)), test[list(P_COLUMNS)].to_numpy())


def test_slices_may_go_by_their_uid(made, frames, tmp_path):
    slices = read_table(made.root / "slices.parquet", SLICES)
    slices["sop_instance_uid"] = "1.2." + slices.index.astype(str)
    write_table(slices, made.root / "slices.parquet", SLICES)
    oof = frames[0]
    uid_of = dict(zip(slices["image_id"], slices["sop_instance_uid"], strict=True))
    mixed = oof.assign(image_id=[uid_of[i] if n % 2 else i for n, i in enumerate(oof["image_id"])])
    placed = place_labelled(made.open(), read(mixed, tmp_path))
    np.testing.assert_array_equal(placed.in_order(len(oof)), oof[list(P_COLUMNS)].to_numpy())


def test_slices_that_cannot_be_used_are_ignored_with_a_note(made, frames, tmp_path):
    oof, test = frames
    refused = made.slices.loc[made.slices["status"] == "refused", "image_id"].iloc[0]
    placed = place_labelled(made.open(), read(pd.concat([oof, oof.iloc[:1].assign(image_id=refused)]), tmp_path))
    assert len(placed.position_R) == len(oof)
    (note,) = placed.notes
    assert f"1 rows of slices that cannot be used here are ignored: row 301 '{refused}'" in note
    placed = place_unlabelled(made.open(), read(pd.concat([test, test.iloc[:1].assign(image_id=refused)]), tmp_path))
    assert len(placed.notes) == 1
    spoilt = test["image_id"].iloc[0]
    issue = pd.DataFrame({"image_id": [spoilt], "issue": ["duplicate_disagrees"], "detail": [""]})
    write_table(issue, made.root / "label_issues.parquet", LABEL_ISSUES)
    placed = place_labelled(made.open(), read(pd.concat([oof, oof.iloc[:1].assign(image_id=spoilt)]), tmp_path))
    assert spoilt in placed.notes[0]


def test_slices_that_belong_elsewhere_are_refused(made, frames, tmp_path):
    oof, test = frames
    with pytest.raises(
        DataError, match=r"1 rows are of slices that this workspace does not have, such as row 301 'ID_x'"
    ):
        place_labelled(made.open(), read(pd.concat([oof, oof.iloc[:1].assign(image_id="ID_x")]), tmp_path))
    with pytest.raises(
        DataError, match=r"119 rows are of slices without a label, such as row 301 .*, \.\.\.; .*for --test"
    ):
        place_labelled(made.open(), read(pd.concat([oof, test]), tmp_path))
    with pytest.raises(DataError, match="300 rows are of labelled slices"):
        place_unlabelled(made.open(), read(pd.concat([oof, test]), tmp_path))


def test_each_slice_once(made, frames, tmp_path):
    oof = frames[0]
    twice = place_labelled(made.open(), read(pd.concat([oof, oof.iloc[4:5]]), tmp_path))
    image_id = oof["image_id"].iloc[4]
    with pytest.raises(
        ConflictError, match=f"each slice must be there once, got row 5 '{image_id}', row 301 '{image_id}'"
    ):
        twice.in_order(len(oof))
    missing = place_labelled(made.open(), read(oof.drop(index=oof.index[[4, 7]]), tmp_path))
    with pytest.raises(DataError, match=f"cover every labelled slice: 2 of 300 are missing, such as '{image_id}', "):
        missing.in_order(len(oof))
