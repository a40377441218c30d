import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ichtune.errors import ConflictError, DataError, StorageError
from ichtune.labels import LABELS, N_LABELS
from ichtune.report import submission as module
from ichtune.report.submission import COMPETITION_ORDER, read_competition_csv, split_row_ids, write_submission


def predictions(made):
    ids = made.slices["image_id"].to_numpy(object)[made.test]
    return ids, made.rng.uniform(0.01, 0.99, (len(ids), N_LABELS))


def test_rows_stand_in_the_samples_exact_order_with_each_slices_own_value(make_blend_workspace):
    made = make_blend_workspace(noises=())
    row_ids = made.write_sample()
    ids, p = predictions(made)
    written = write_submission(made.open(), ids, p)
    table = pd.read_csv(made.root / "submission.csv")
    assert table.columns.tolist() == ["ID", "Label"]
    assert table["ID"].tolist() == row_ids
    assert written.n_rows == len(row_ids) == len(table)
    value = {f"{i}_{label}": p[n, m] for n, i in enumerate(ids) for m, label in enumerate(LABELS)}
    predicted = table[table["ID"].isin(value)]
    np.testing.assert_allclose(predicted["Label"], [value[i] for i in predicted["ID"]], rtol=1e-15)


def test_a_refused_slice_gets_the_training_rates_and_is_listed(make_blend_workspace):
    made = make_blend_workspace(noises=())
    made.write_sample()
    ids, p = predictions(made)
    written = write_submission(made.open(), ids, p)
    refused = made.slices.loc[made.slices["status"] == "refused", "image_id"].item()
    assert written.filled == {refused: "truncated_pixel_data: 12 bytes missing"}
    assert written.filled_by_reason == {"truncated_pixel_data": 1}
    table = pd.read_csv(written.path).set_index("ID")["Label"]
    rates = made.y_NL[made.labelled].mean(axis=0)
    np.testing.assert_allclose([table[f"{refused}_{label}"] for label in LABELS], rates, rtol=1e-12)


def test_slices_that_cannot_be_predicted_say_why(make_blend_workspace):
    made = make_blend_workspace(noises=())
    ids, p = predictions(made)
    labelled_id = made.slices["image_id"].iloc[0]
    rows = [f"{i}_{label},0.5" for i in (ids[0], ids[1], "ID_stranger", labelled_id) for label in COMPETITION_ORDER]
    (made.root / "sample_submission.csv").write_text("ID,Label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    written = write_submission(made.open(), ids[1:], p[1:])
    assert written.filled_by_reason == {"not_predicted": 1, "no_such_slice": 1, "labelled_slice": 1}
    assert written.n_unused == len(ids) - 2


def test_without_a_sample_slices_stand_in_order_of_their_ids(make_blend_workspace):
    made = make_blend_workspace(noises=())
    ids, p = predictions(made)
    order = made.rng.permutation(len(ids))
    written = write_submission(made.open(), ids[order], p[order])
    table = pd.read_csv(written.path)
    assert table["ID"].tolist() == [f"{i}_{label}" for i in sorted(ids) for label in COMPETITION_ORDER]
    assert COMPETITION_ORDER[-1] == "any"
    assert table["Label"].iloc[5] == pytest.approx(p[0, LABELS.index("any")], rel=1e-15)
    assert written.n_filled == 0


def test_ids_with_underscores_and_dots_are_split_at_the_last_one():
    rows = split_row_ids(pa.array(["ID_a_b_any", "1.2.840~2_subdural", "ID_a_b_subdural"]), "x.csv")
    assert rows.image_ids.tolist() == ["ID_a_b", "1.2.840~2"]
    assert rows.slice_R.tolist() == [0, 1, 0]
    assert [LABELS[i] for i in rows.label_R] == ["any", "subdural", "subdural"]


@pytest.mark.parametrize("row_id", ["ID_1_subdurl", "nothing", "", "ID_1_"])
def test_a_row_without_a_label_is_named(row_id):
    with pytest.raises(DataError, match=r"x.csv: a row's ID must be a slice, an underscore and a label"):
        split_row_ids(pa.array(["ID_1_any", row_id]), "x.csv")


def test_the_nearest_label_is_named():
    with pytest.raises(DataError, match=r"'ID_1_subdurl'.*Did you mean 'subdural'"):
        split_row_ids(pa.array(["ID_1_subdurl"]), "x.csv")


@pytest.mark.parametrize("value", [np.nan, 1.5, -0.5])
def test_no_file_is_written_with_a_value_that_is_no_probability(make_blend_workspace, value):
    made = make_blend_workspace(noises=())
    made.write_sample()
    ids, p = predictions(made)
    p[3, 2] = value
    with pytest.raises(DataError, match="row 3, label 'intraparenchymal'"):
        write_submission(made.open(), ids, p)
    assert not (made.root / "submission.csv").exists()


def test_a_slice_predicted_twice_is_refused(make_blend_workspace):
    made = make_blend_workspace(noises=())
    ids, p = predictions(made)
    ids[1] = ids[0]
    with pytest.raises(ConflictError, match=f"{ids[0]}.*more than once"):
        write_submission(made.open(), ids, p)


def test_a_sample_that_repeats_an_id_is_refused(make_blend_workspace):
    made = make_blend_workspace(noises=())
    ids, p = predictions(made)
    rows = [f"{ids[0]}_any,0.5"] * 2
    (made.root / "sample_submission.csv").write_text("ID,Label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    with pytest.raises(ConflictError, match="must hold each ID once"):
        write_submission(made.open(), ids, p)


def test_a_sample_of_other_files_is_refused(make_blend_workspace):
    made = make_blend_workspace(noises=())
    ids, p = predictions(made)
    (made.root / "sample_submission.csv").write_text("ID,Label\nID_x_any,0.5\n", encoding="utf-8")
    with pytest.raises(ConflictError, match=r"none of which is predicted.*ID_x"):
        write_submission(made.open(), ids, p)


def test_an_older_submission_survives_a_failed_write(make_blend_workspace):
    made = make_blend_workspace(noises=())
    ids, p = predictions(made)
    write_submission(made.open(), ids, p)
    before = (made.root / "submission.csv").read_bytes()
    with pytest.raises(StorageError, match="cannot make the folder"):
        write_submission(made.open(), ids, p, made.root / "workspace.json" / "submission.csv")
    (made.root / "folder").mkdir()
    with pytest.raises(StorageError, match="cannot write"):
        write_submission(made.open(), ids, p, made.root / "folder")
    assert (made.root / "submission.csv").read_bytes() == before
    assert not list(made.root.glob("*.tmp"))


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda text: text.replace(b"ID_", b"IX_", 1), "its IDs are others"),
        (lambda text: text.replace(b",0.", b",1.", 1), "its numbers are others"),
        (lambda text: text[: len(text) // 2], "others|must be a CSV"),
        (lambda text: b"", "must be a CSV file"),
    ],
)
def test_a_file_that_does_not_read_back_never_takes_its_place(make_blend_workspace, monkeypatch, change, cause):
    made = make_blend_workspace(noises=())
    ids, p = predictions(made)
    write_submission(made.open(), ids, p)
    before = (made.root / "submission.csv").read_bytes()
    read = module.read_competition_csv

    def spoil(path):
        path.write_bytes(change(path.read_bytes()))
        return read(path)

    monkeypatch.setattr(module, "read_competition_csv", spoil)
    with pytest.raises(StorageError, match=rf"submission.csv does not read back as it was written \(.*({cause})"):
        write_submission(made.open(), ids, p)
    assert (made.root / "submission.csv").read_bytes() == before
    assert not list(made.root.glob(".*"))


@pytest.mark.parametrize("extreme", [0.0, 1.0, 1e-300, 1 - 1e-16, 1 / 3])
def test_numbers_are_written_to_the_last_bit(make_blend_workspace, extreme):
    made = make_blend_workspace(noises=())
    ids, p = predictions(made)
    p[:, 0] = extreme
    written = write_submission(made.open(), ids, p)
    values = read_competition_csv(written.path).column("Label").to_numpy()
    assert (values[5::6] == extreme).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,p\na_any,1\n", "columns ID,Label"),
        ("ID,Label\na_any,high\n", "a number in each Label"),
        ("ID,Label\n", "no rows"),
        ("", "columns ID,Label"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, text, message):
    path = tmp_path / "x.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_competition_csv(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_competition_csv(tmp_path / "x.csv")


def test_quoted_ids_and_windows_line_ends_are_read(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b'"ID","Label"\r\n"ID_1_any",0.25\r\n')
    table = read_competition_csv(path)
    assert table.to_pydict() == {"ID": ["ID_1_any"], "Label": [0.25]}


def test_an_id_that_would_break_the_file_is_refused(make_blend_workspace):
    made = make_blend_workspace(noises=())
    ids, p = predictions(made)
    ids[0] = "a,b"
    with pytest.raises(DataError, match="must not hold commas"):
        write_submission(made.open(), ids, p)
    assert sorted(path.name for path in made.root.glob("*submission*")) == []
