import numpy as np
import pandas as pd
import pytest

from ichtune.errors import DataError
from ichtune.labels import LABELS
from ichtune.report import series_view
from ichtune.report.series_view import example_series, find_series, view_series
from ichtune.tables import SLICES, write_table
from ichtune.workspace import Workspace


def changed(workspace: Workspace, **columns) -> Workspace:
    """The same workspace with other values in its SliceTable; callables get the table."""
    table = workspace.slices.copy()
    for column, values in columns.items():
        table[column] = values(table) if callable(values) else values
    write_table(table, workspace.layout.slices, SLICES)
    return Workspace(workspace.layout.root)


def a_series(workspace: Workspace, labelled: bool = True) -> pd.DataFrame:
    table = workspace.slices
    uid = table.loc[(table["status"] == "ok") & (table["is_labelled"] == labelled), "series_instance_uid"].iloc[0]
    return table[(table["series_instance_uid"] == uid) & (table["status"] == "ok")].sort_values("slice_rank")


def test_a_series_is_found_by_its_name_an_image_or_its_patient(session_workspace):
    table = session_workspace.slices
    row = a_series(session_workspace).iloc[2]
    of_patient = table.loc[table["patient_id"] == row["patient_id"], "series_instance_uid"].unique().tolist()
    assert find_series(table, series=row["series_instance_uid"]) == [row["series_instance_uid"]]
    assert find_series(table, image=row["image_id"]) == [row["series_instance_uid"]]
    assert find_series(table, patient=row["patient_id"]) == of_patient


def test_stacks_that_were_parted_from_a_series_come_with_it():
    table = pd.DataFrame({"series_instance_uid": ["1.2", "1.2~2", "1.3"]}, dtype="string")
    assert find_series(table, series="1.2") == ["1.2", "1.2~2"]
    assert find_series(table, series="1.2~2") == ["1.2~2"]


def test_an_unknown_name_and_a_file_of_no_series_are_said(session_workspace):
    table = session_workspace.slices.copy()
    known = a_series(session_workspace)["image_id"].iloc[0]
    with pytest.raises(DataError, match=f"no image is called '{known}x'.*Did you mean '{known}'"):
        find_series(table, image=f"{known}x")
    with pytest.raises(DataError, match="no patient is called '###'"):
        find_series(table, patient="###")
    table.loc[table["status"] == "refused", "series_instance_uid"] = ""
    with pytest.raises(DataError, match="was refused: truncated_pixel_data"):
        find_series(table, image="ID_refused")


def test_a_series_of_refused_files_alone_can_be_looked_at(fake_workspace):
    workspace = fake_workspace()
    table = workspace.slices
    name = str(table["series_instance_uid"].iloc[0])
    of_series = table["series_instance_uid"] == name
    table.loc[of_series, "status"], table.loc[of_series, "slice_rank"] = "refused", -1
    view = view_series(workspace, name)
    assert view.n_slices == 0
    assert len(view.tiles) == of_series.sum()


def test_the_example_has_the_most_positive_labels_or_the_most_slices(fake_workspace):
    workspace = fake_workspace()
    table = workspace.slices
    counts = (
        (table[list(LABELS)] > 0.5).sum(axis=1)[table["status"] == "ok"].groupby(table["series_instance_uid"]).sum()
    )
    assert counts[example_series(table)] == counts.max()
    unlabelled = table.assign(**dict.fromkeys(LABELS, np.nan), is_labelled=False)
    longest = unlabelled.copy()
    longest.loc[longest.index[longest["status"] == "ok"][:9], "series_instance_uid"] = "the longest"
    assert example_series(longest) == "the longest"
    with pytest.raises(DataError, match="no usable slice"):
        example_series(table.assign(status="refused"))


def test_slices_stand_in_order_and_refused_files_at_the_end(fake_workspace):
    workspace = fake_workspace()
    rows = a_series(workspace)
    uid = rows["series_instance_uid"].iloc[0]
    workspace = changed(
        workspace, series_instance_uid=lambda t: t["series_instance_uid"].mask(t["status"] != "ok", uid)
    )

    view = view_series(workspace, uid)

    assert [tile.rank for tile in view.tiles] == [*range(len(rows)), -1, -1]
    assert [tile.row for tile in view.tiles[: len(rows)]] == rows.index.tolist()
    assert [tile.refusal for tile in view.tiles[-2:]] == ["duplicate_sop_instance_uid", "truncated_pixel_data"]
    assert view.n_slices == len(rows)
    assert "2 files of this series are refused or duplicates" in view.notes[0]
    assert view.positives == {label: int(rows[label].sum()) for label in LABELS}
    first = rows.iloc[0]
    assert view.tiles[0].is_positive == tuple(bool(first[label]) for label in LABELS)


def test_what_is_unusual_is_marked(fake_workspace):
    workspace = fake_workspace()
    rows = a_series(workspace)
    at = rows.index

    def put(column, default, **values):
        def fill(table):
            filled = pd.Series([default] * len(table), index=table.index)
            for rank, value in values.items():
                filled[at[int(rank[1:])]] = value
            return filled

        return {column: fill}

    workspace = changed(
        workspace,
        **put("spacing_mm", 5.0, r2=10.0, r3=10.4, r4=10.4),
        **put("n_at_position", 1, r1=2),
        **put("is_blank", False, r0=True),
        **put("repaired_12bit", False, r0=True),
        **put("padding_ignored", False, r2=True),
        **put("is_lossy", False, r3=True),
    )
    view = view_series(workspace, rows["series_instance_uid"].iloc[0], "head")
    marks = [tile.marks for tile in view.tiles]
    assert marks[:4] == [("blank", "repaired"), ("2 at z",), ("padding", "gap 10.0"), ("lossy",)]
    assert view.crop == "head"
    assert "5 slices" in view.facts
    assert "gap 5.0 mm / 10.4 mm / 10.0 mm" in view.facts


def test_facts_name_what_varies_and_what_is_unknown(fake_workspace):
    workspace = fake_workspace()
    rows = a_series(workspace)
    workspace = changed(
        workspace,
        spacing_mm=np.nan,
        slice_thickness_mm=np.nan,
        rows_px=lambda t: np.where(t.index == rows.index[0], 768, 512),
        columns_px=512,
    )
    facts = view_series(workspace, rows["series_instance_uid"].iloc[0]).facts
    assert "matrix 512 x 512 / 768 x 512" in facts
    assert "gap unknown, thickness unknown" in facts


def test_too_many_slices_are_thinned_out_and_the_view_says_so(fake_workspace, monkeypatch):
    monkeypatch.setattr(series_view, "MAX_SLICES", 2)
    workspace = fake_workspace()
    view = view_series(workspace, a_series(workspace)["series_instance_uid"].iloc[0])
    assert [tile.rank for tile in view.tiles if not tile.refusal] == [0, 3]
    assert view.notes[0] == "2 of 5 slices are shown: one in 3, counted from the first."
    assert view.n_slices == 5


def test_a_series_without_labels_says_so(session_workspace):
    view = view_series(session_workspace, a_series(session_workspace, labelled=False)["series_instance_uid"].iloc[0])
    assert view.positives is None
    assert {tile.is_positive for tile in view.tiles} == {None}
