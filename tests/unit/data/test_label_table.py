from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ichtune.data.label_table import (
    LABEL_ISSUE_KINDS,
    LabelTable,
    attach_labels,
    no_issues,
    read_labels,
    spoilt_labels,
)
from ichtune.errors import DataError
from ichtune.labels import LABELS, SUBTYPES


def competition_csv(path: Path, rows: dict[str, list[int]], extra: str = "") -> Path:
    """The competition's form; subtypes come before any in it."""
    order = [*SUBTYPES, "any"]
    lines = [f"{image}_{label},{values[LABELS.index(label)]}" for image, values in rows.items() for label in order]
    path.write_text("ID,Label\n" + "\n".join(lines) + "\n" + extra)
    return path


def issues_of(table: LabelTable) -> dict[str, str]:
    return dict(zip(table.issues["image_id"], table.issues["issue"], strict=True))


def values_of(table: LabelTable, image_id: str) -> list[float]:
    chosen = table.labels[table.labels["image_id"] == image_id]
    return [float(chosen[label].iloc[0]) for label in LABELS]


@pytest.fixture
def slices() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image_id": ["ID_a", "ID_b", "ID_b~2", "ID_c"],
            "status": ["ok", "ok", "duplicate", "refused"],
        }
    )


def test_the_competitions_form_is_read_into_label_order(tmp_path):
    table = read_labels(competition_csv(tmp_path / "l.csv", {"ID_a": [1, 0, 1, 0, 0, 0], "ID_b": [0] * 6}))
    assert list(table.labels.columns) == ["image_id", *LABELS]
    assert values_of(table, "ID_a") == [1, 0, 1, 0, 0, 0]
    assert values_of(table, "ID_b") == [0] * 6
    assert len(table.issues) == 0


def test_the_wide_form_gives_the_same(tmp_path):
    columns = ["image_id", "note", *SUBTYPES, "any"]
    (tmp_path / "w.csv").write_text(f'\ufeff{",".join(columns)}\r\n1.2.3,x,0,1.0,0,0,0,1\r\n"4.5",,0,0,0,0,0,0\r\n')
    table = read_labels(tmp_path / "w.csv")
    assert values_of(table, "1.2.3") == [1, 0, 1, 0, 0, 0]
    assert values_of(table, "4.5") == [0] * 6


def test_repeats_that_agree_are_used_once_and_listed(tmp_path):
    extra = "".join(f"ID_a_{label},{int(label in ('any', 'subdural'))}\n" for label in LABELS)
    path = competition_csv(tmp_path / "l.csv", {"ID_a": [1, 0, 0, 0, 0, 1], "ID_b": [0] * 6}, extra)
    table = read_labels(path)
    assert issues_of(table) == {"ID_a": "duplicate_agrees"}
    assert values_of(table, "ID_a") == [1, 0, 0, 0, 0, 1]


def test_the_competitions_24_repeated_rows_are_4_images_listed_once(tmp_path):
    images = {f"ID_{number}": [0] * 6 for number in range(10)}
    extra = "".join(f"ID_{number}_{label},0\n" for number in (1, 3, 5, 7) for label in LABELS)
    table = read_labels(competition_csv(tmp_path / "l.csv", images, extra))
    assert issues_of(table) == dict.fromkeys(("ID_1", "ID_3", "ID_5", "ID_7"), "duplicate_agrees")
    assert set(table.issues["detail"]) == {"6 rows repeat the same values; used once"}
    assert len(table.labels) == 10


def test_known_bad_images_are_listed_and_keep_their_labels(tmp_path):
    rows = {name: [1, 0, 0, 0, 0, 1] for name in ("ID_6431af929", "ID_a", "ID_d91d52bdc")}
    table = read_labels(competition_csv(tmp_path / "l.csv", rows))
    assert issues_of(table) == dict.fromkeys(("ID_6431af929", "ID_d91d52bdc"), "known_bad")
    assert values_of(table, "ID_6431af929") == [1, 0, 0, 0, 0, 1]
    slices = pd.DataFrame({"image_id": ["ID_6431af929", "ID_a"], "status": "ok"})
    attached, issues = attach_labels(slices, table, tmp_path / "l.csv")
    assert attached["is_labelled"].all()
    assert sorted(issues["issue"]) == ["known_bad", "known_bad", "no_file"]


def test_frames_of_one_file_are_labelled_by_their_own_names(tmp_path):
    slices = pd.DataFrame({"image_id": ["1.2#1", "1.2#2", "1.2#3"], "status": "ok"})
    (tmp_path / "w.csv").write_text(f"image_id,{','.join(LABELS)}\n1.2#2,1,0,0,0,0,1\n1.2,0,0,0,0,0,0\n")
    attached, issues = attach_labels(slices, read_labels(tmp_path / "w.csv"), tmp_path / "w.csv")
    assert attached["is_labelled"].tolist() == [False, True, False]
    assert issues[["image_id", "issue"]].to_numpy().tolist() == [["1.2", "no_file"]]


def test_repeats_that_disagree_make_the_slice_unlabelled(tmp_path):
    path = competition_csv(tmp_path / "l.csv", {"ID_a": [1, 0, 0, 0, 0, 1]}, "ID_a_epidural,1\n")
    table = read_labels(path)
    assert issues_of(table) == {"ID_a": "duplicate_disagrees"}
    assert np.isnan(values_of(table, "ID_a")).all()


def test_a_missing_label_makes_the_slice_unlabelled(tmp_path):
    (tmp_path / "l.csv").write_text("ID,Label\nID_a_any,1\nID_a_epidural,1\n")
    table = read_labels(tmp_path / "l.csv")
    assert issues_of(table) == {"ID_a": "incomplete_labels"}
    assert "subdural" in table.issues["detail"].iloc[0]
    (tmp_path / "w.csv").write_text(f"image_id,{','.join(LABELS)}\nx,1,1,0,0,0,\n")
    assert issues_of(read_labels(tmp_path / "w.csv")) == {"x": "incomplete_labels"}


def test_any_unlike_the_maximum_is_listed_and_kept(tmp_path):
    path = competition_csv(tmp_path / "l.csv", {"ID_a": [0, 0, 0, 0, 0, 1], "ID_b": [1, 0, 0, 0, 0, 0]})
    table = read_labels(path)
    assert issues_of(table) == {"ID_a": "any_conflict", "ID_b": "any_conflict"}
    assert table.issues["detail"].tolist() == ["any=0, subtypes say 1", "any=1, subtypes say 0"]
    assert values_of(table, "ID_a") == [0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "ID,Label\nID_a_any,1\nID_a_epidurall,0\n",
            r"line 3: ID must end in one of .*'ID_a_epidurall'",
        ),
        ("ID,Label\nany,1\n", "line 2: ID must be an image id, an underscore and a label name, got 'any'"),
        ("ID,Label\nID_a_any,1\nID_a_epidural,2\n", "line 3: Label must be 0 or 1, got '2'"),
        ("ID,Label\nID_a_any,\n", "line 2: Label must be 0 or 1, got ''"),
        ("ID,Label\nID_a_any,yes\n", "line 2: Label must be 0 or 1, got 'yes'"),
        ("ID,Value\nID_a_any,1\n", "lacks the columns .* expected either ID,Label"),
        ("image_id,any,epidural\nx,1,1\n", "lacks the columns intraparenchymal"),
        (f"image_id,{','.join(LABELS)}\n,0,0,0,0,0,0\n", "line 2: no image_id"),
        (f"image_id,{','.join(LABELS)}\nx,0,0,0,0,0.5,0\n", "line 2: .* must be 0 or 1, got '0.5'"),
        ("ID,Label\nID_a_any,1,7\n", r"cannot read .* as CSV: .*Expected 2 columns, got 3$"),
        ("ID,Label\n\n\nID_a_any,1\n\nID_b_any,2\n", "line 6: Label must be 0 or 1, got '2'"),
        ("ID,Label,Label\nID_a_any,1,1\n", "several columns 'Label'; each must be there once"),
        (f"image_id,{','.join(LABELS)},Any\n", "several columns 'any'"),
        ("ID,Label\n", "a header and no labels"),
        ("", "cannot read|lacks the columns"),
    ],
)
def test_a_malformed_csv_names_the_line(tmp_path, text, message):
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_labels(tmp_path / "l.csv")


def test_columns_in_capitals_are_known(tmp_path):
    columns = ["Image_ID", *(name.capitalize() for name in LABELS)]
    (tmp_path / "w.csv").write_text(f"{','.join(columns)}\nx,1,0,0,0,0,1\n")
    assert values_of(read_labels(tmp_path / "w.csv"), "x") == [1, 0, 0, 0, 0, 1]


def test_a_name_that_slices_share_labels_none_of_them_unless_each_has_its_own_row(tmp_path):
    slices = pd.DataFrame({"image_id": ["ID_a", "ID_a~2", "ID_b", "ID_b~2", "ID_b~x"], "status": "ok"})
    slices.loc[3, "status"] = "duplicate"
    rows = {"ID_a": [1, 0, 0, 0, 0, 1], "ID_b": [0] * 6}
    table, issues = attach_labels(slices, read_labels(competition_csv(tmp_path / "l.csv", rows)), tmp_path / "l.csv")
    assert table["is_labelled"].tolist() == [False, False, True, False, False]
    assert issues.to_numpy()[:, :2].tolist() == [["ID_a", "ambiguous_image_id"], ["ID_a~2", "ambiguous_image_id"]]
    assert spoilt_labels(issues) == {"ID_a", "ID_a~2"}
    both = {**rows, "ID_a~2": [0] * 6}
    table, issues = attach_labels(slices, read_labels(competition_csv(tmp_path / "l.csv", both)), tmp_path / "l.csv")
    assert table["is_labelled"].tolist() == [True, True, True, False, False]
    assert table["any"].tolist()[:3] == [1, 0, 0]
    assert len(issues) == 0


def test_a_sample_submission_is_recognised(tmp_path):
    (tmp_path / "stage_2_sample_submission.csv").write_text("ID,Label\nID_a_any,0.5\n")
    with pytest.raises(DataError, match="a sample submission holds no labels"):
        read_labels(tmp_path / "stage_2_sample_submission.csv")


def test_a_missing_csv_names_the_option(tmp_path):
    with pytest.raises(DataError, match="--labels"):
        read_labels(tmp_path / "nowhere.csv")


def test_only_usable_slices_get_labels(tmp_path, slices):
    rows = {name: [1, 1, 0, 0, 0, 0] for name in ("ID_a", "ID_c", "ID_gone")}
    table, issues = attach_labels(slices, read_labels(competition_csv(tmp_path / "l.csv", rows)), tmp_path / "l.csv")
    assert table["is_labelled"].tolist() == [True, False, False, False]
    assert table["any"].tolist()[0] == 1
    assert table.loc[1:, list(LABELS)].isna().all(axis=None)
    assert dict(zip(issues["image_id"], issues["issue"], strict=True)) == {
        "ID_gone": "no_file",
        "ID_c": "refused_file",
    }


def test_labels_of_other_images_altogether_are_an_error(tmp_path, slices):
    labels = read_labels(competition_csv(tmp_path / "l.csv", {"ID_x": [0] * 6}))
    with pytest.raises(DataError, match=r"l\.csv names a file.*'ID_x'.*'ID_a'"):
        attach_labels(slices, labels, tmp_path / "l.csv")


def test_every_issue_is_explained():
    assert all(LABEL_ISSUE_KINDS.values())
    assert len(no_issues()) == 0


def test_the_rows_may_come_in_any_order(tmp_path):
    rows = {f"ID_{number}": [int(number % 2 == 0), 0, 0, int(number % 2 == 0), 0, 0] for number in range(50)}
    path = competition_csv(tmp_path / "l.csv", rows)
    head, *lines = path.read_text().splitlines()
    np.random.default_rng(0).shuffle(lines)
    (tmp_path / "s.csv").write_text("\n".join([head, *lines]) + "\n")
    ordered, shuffled = (read_labels(tmp_path / name).labels.sort_values("image_id") for name in ("l.csv", "s.csv"))
    assert ordered.reset_index(drop=True).equals(shuffled.reset_index(drop=True))
