import numpy as np
import pandas as pd
import pytest

from ichtune.labels import LABELS, SUBTYPES
from ichtune.metrics import prior_predictions, weighted_log_loss
from ichtune.report.data_facts import choose_slices, collect_data, in_words, labels_in_words
from ichtune.tables import SLICES, write_table

pytestmark = pytest.mark.slow  # whole workspaces are searched, trained, blended or drawn


def table(rows):
    """A SliceTable of rows ``(image_id, series, rank, subtypes)``; None for the subtypes is unlabelled."""
    frame = pd.DataFrame(rows, columns=["image_id", "series_instance_uid", "slice_rank", "subtypes"])
    frame["is_labelled"] = frame["subtypes"].notna()
    for label in SUBTYPES:
        frame[label] = [np.nan if s is None else float(label in s) for s in frame["subtypes"]]
    frame["any"] = frame[list(SUBTYPES)].max(axis=1)
    return frame.assign(status="ok", is_blank=False)


def test_what_is_counted(full_workspace):
    data = collect_data(full_workspace.open())
    assert data.counts["DICOM files"] == 420
    assert data.counts["usable slices"] == 419
    assert data.counts["labelled slices"] == 300
    assert data.counts["slices to predict"] == 119
    assert (data.counts["patients"], data.counts["patients with labels"]) == (42, 30)
    assert data.refused == {"truncated_pixel_data": 1}
    assert sum(data.encodings.values()) == 419
    assert list(data.encodings) == ["12u-1024", "16s-1024"]
    assert data.matrices == {"512 x 512": 419}
    assert sorted(set(data.per_series)) == [9, 10]
    assert data.label_issues == (("duplicate_agrees", "listed more than once with the same values; used once", 1),)


def test_rates_and_prior_are_those_of_the_labels(full_workspace):
    workspace = full_workspace.open()
    data = collect_data(workspace)
    y = workspace.labelled[list(LABELS)].to_numpy(float)
    assert list(data.rates.values()) == pytest.approx(y.mean(axis=0))
    assert data.prior_loss == pytest.approx(weighted_log_loss(y, prior_predictions(y, len(y))))
    weighted = sum(fold.rates["any"] * fold.n_labelled for fold in data.folds) / len(y)
    assert weighted == pytest.approx(data.rates["any"])
    assert sum(fold.n_patients for fold in data.folds) == 42


def test_pictures_are_the_cached_slices(full_workspace):
    workspace = full_workspace.open()
    data = collect_data(workspace)
    assert len(data.slices) == 4
    for one in data.slices:
        np.testing.assert_array_equal(one.hu_HW, workspace.hu(one.image_id))


def test_without_labels_folds_or_cache_the_rest_is_still_said(make_blend_workspace):
    made = make_blend_workspace(noises=())
    made.slices[list(LABELS)] = np.nan
    write_table(made.slices.assign(is_labelled=False), made.root / "slices.parquet", SLICES)
    (made.root / "folds.parquet").unlink()
    data = collect_data(made.open())
    assert data.rates == {}
    assert data.prior_loss is None
    assert data.folds == ()
    assert "two patients" in data.folds_note
    assert data.slices == ()
    assert data.slices_note.startswith("no pictures: ")


def test_a_slice_from_the_middle_of_each_series_with_as_many_labels_as_possible():
    rows = [(f"{series}{rank}", series, rank, labels if rank == 1 else ())
            for series, labels in [("a", ()), ("b", ("subdural",)), ("c", ("subdural",)), ("d", ()),
                                   ("e", ("epidural", "subdural")), ("f", ("subarachnoid",))]
            for rank in range(3)]  # fmt: skip
    chosen = choose_slices(table(rows), n=4)
    assert chosen["image_id"].tolist() == ["a1", "e1", "f1", "b1"]
    shuffled = table(rows).sample(frac=1, random_state=1)
    assert choose_slices(shuffled, n=4)["image_id"].tolist() == ["a1", "e1", "f1", "b1"]


def test_labelled_series_go_before_others_and_refused_or_blank_slices_are_left_out():
    frame = table([("a", "a", 0, None), ("b", "b", 0, ("subdural",)), ("c", "c", 0, ()), ("d", "d", 0, ())])
    frame.loc[frame["image_id"] == "c", "is_blank"] = True
    frame.loc[frame["image_id"] == "d", "status"] = "refused"
    assert choose_slices(frame)["image_id"].tolist() == ["b"]
    assert choose_slices(frame[frame["image_id"] == "a"])["image_id"].tolist() == ["a"]
    assert choose_slices(frame.iloc[:0]).empty


def test_labels_in_words():
    rows = table([("a", "a", 0, ("subdural", "epidural")), ("b", "b", 0, ()), ("c", "c", 0, None)])
    words = [labels_in_words(row) for row in rows.to_dict("records")]
    assert words == ["epidural, subdural", "no hemorrhage", "unlabelled"]
    assert in_words(["any"]) == "hemorrhage of no given type"
