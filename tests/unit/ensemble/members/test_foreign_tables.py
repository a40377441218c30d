import hashlib

import numpy as np
import pandas as pd
import pytest

from ichtune.ensemble.members.foreign_tables import folds_of, names_of, read_columns, read_foreign
from ichtune.errors import ConflictError, DataError
from ichtune.labels import LABELS
from ichtune.tables import P_COLUMNS, PREDICTIONS, write_table


@pytest.fixture
def wide():
    p = np.random.default_rng(0).random((4, 6))
    return pd.DataFrame(p, columns=list(P_COLUMNS)).assign(image_id=["ID_a", "ID_b", "ID_c", "ID_d"])


def long_rows(wide):
    rows = [
        (f"{row.image_id}_{label}", getattr(row, f"p_{label}"))
        for row in wide.itertuples()
        for label in reversed(LABELS)
    ]
    return pd.DataFrame(rows, columns=["ID", "Label"]).sample(frac=1, random_state=0)


def csv(frame, path):
    frame.to_csv(path, index=False)
    return path


def by_id(table):
    return dict(zip(table.ids.tolist(), table.p_RL.tolist(), strict=True))


def test_every_form_says_the_same(wide, tmp_path):
    plain = wide.rename(columns={f"p_{label}": label.upper() for label in LABELS}).rename(columns={"image_id": "ID"})
    uids = wide.rename(columns={"image_id": "SOPInstanceUID"})[["SOPInstanceUID", *reversed(P_COLUMNS)]]
    wide.to_parquet(tmp_path / "wide.parquet")
    write_table(wide.assign(recipe_id="r", fold=1), tmp_path / "ours.parquet", PREDICTIONS, {"fold_plan_hash": "0f"})
    tables = [
        read_foreign(path)
        for path in (
            csv(wide, tmp_path / "wide.csv"),
            csv(plain, tmp_path / "plain.csv"),
            csv(uids, tmp_path / "uids.csv"),
            csv(long_rows(wide), tmp_path / "long.csv"),
            csv(long_rows(wide).rename(columns={"Label": "probability"}), tmp_path / "named.csv"),
            tmp_path / "wide.parquet",
            tmp_path / "ours.parquet",
        )
    ]
    expected = dict(zip(wide["image_id"], wide[list(P_COLUMNS)].to_numpy().tolist(), strict=True))
    for table in tables:
        assert by_id(table) == expected, table.path
    assert [table.plan_hash for table in tables] == [""] * 6 + ["0f"]
    assert [table.fold_R is None for table in tables] == [True] * 6 + [False]
    assert tables[0].sha256 == hashlib.sha256((tmp_path / "wide.csv").read_bytes()).hexdigest()


def test_folds_are_text_and_whole_numbers_are_one_however_kept(wide, tmp_path):
    for kept in ([0, 1, 2, 1], ["0", "1", "2", "1"], [0.0, 1.0, 2.0, 1.0]):
        wide.assign(fold=kept).to_parquet(tmp_path / "folds.parquet")
        assert read_foreign(tmp_path / "folds.parquet").fold_R.tolist() == ["0", "1", "2", "1"]
    table = read_foreign(csv(wide.assign(fold=["A", "B", "C", "B"]), tmp_path / "named.csv"))
    assert table.fold_R.tolist() == ["A", "B", "C", "B"]
    assert folds_of(read_columns(tmp_path / "folds.parquet")["fold"]).tolist() == ["0", "1", "2", "1"]


def test_long_rows_of_several_fold_models(wide, tmp_path):
    both = pd.concat([long_rows(wide).assign(fold=0), long_rows(wide).assign(fold=1)])
    table = read_foreign(csv(both, tmp_path / "long.csv"))
    assert sorted(zip(table.ids.tolist(), table.fold_R.tolist(), strict=True)) == sorted(
        (image_id, fold) for image_id in wide["image_id"] for fold in "01"
    )


def test_rows_that_cannot_be_used_are_named(wide, tmp_path):
    path = tmp_path / "bad.csv"
    for value, shown in (("1.2", "1.2"), ("-0.1", "-0.1"), ("", ""), ("high", "high"), ("nan", "nan")):
        bad = wide.astype(object)
        bad.loc[2, "p_subdural"] = value
        with pytest.raises(
            DataError, match=f"row 3, 'ID_c': p_subdural must be a probability in .0, 1., got '{shown}'"
        ):
            read_foreign(csv(bad, path))
    bad = wide.assign(image_id=["ID_a", " ", "ID_c", "ID_d"])
    with pytest.raises(DataError, match="row 2: image_id is empty"):
        read_foreign(csv(bad, path))
    with pytest.raises(DataError, match="lacks the columns p_subdural; a member predicts all of"):
        read_foreign(csv(wide.drop(columns="p_subdural"), path))
    with pytest.raises(DataError, match="holds predictions of 2 recipes"):
        read_foreign(csv(wide.assign(recipe_id=["r", "r", "s", "s"]), path))
    with pytest.raises(DataError, match="names no slices: expected a column image_id, ID or SOPInstanceUID"):
        read_foreign(csv(wide.drop(columns="image_id"), path))
    with pytest.raises(DataError, match="no predictions in a known form"):
        read_foreign(csv(wide[["image_id"]], path))


def test_long_rows_that_cannot_be_used_are_named(wide, tmp_path):
    path, rows = tmp_path / "long.csv", long_rows(wide).sort_values("ID").reset_index(drop=True)
    with pytest.raises(
        DataError, match=r"row 25: an ID of the competition's form ends in one of .*, got 'ID_a_stroke'"
    ):
        read_foreign(csv(pd.concat([rows, pd.DataFrame({"ID": ["ID_a_stroke"], "Label": [0.5]})]), path))
    with pytest.raises(ConflictError, match="got 'ID_a_any' in rows 1 and 25"):
        read_foreign(csv(pd.concat([rows, rows.iloc[:1]]), path))
    with pytest.raises(DataError, match=r"'ID_a' \(row 1\) has no row for 'subdural' \(1 slices lack a label\)"):
        read_foreign(csv(rows.drop(index=5), path))
    with pytest.raises(DataError, match="row 7, 'ID_b_any': Label must be a probability"):
        read_foreign(csv(rows.assign(Label=[*rows["Label"][:6], 7.0, *rows["Label"][7:]]), path))


def test_files_that_are_no_tables(wide, tmp_path):
    with pytest.raises(DataError, match="is no file"):
        read_columns(tmp_path / "absent.csv")
    for name, content, message in (
        ("empty.csv", b"", "as CSV"),
        ("header.csv", b"image_id,any\n", "a header and no rows"),
        ("twice.csv", b"ID,Label,label\na,1,2\n", "several columns 'Label', 'label'"),
        ("text.parquet", b"image_id\n", "as parquet"),
        ("bytes.csv", b"\xff\xfe\x00", "as CSV"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_columns(tmp_path / name)


def test_names_keep_their_zeros(tmp_path):
    (tmp_path / "t.csv").write_text("patient_id,fold\n 007 ,1\n7,2\n", encoding="utf-8-sig")
    assert names_of(read_columns(tmp_path / "t.csv"), "patient_id", tmp_path).tolist() == ["007", "7"]
