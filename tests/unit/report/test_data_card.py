import json

import numpy as np
import pandas as pd
import pytest

from ichtune.labels import LABELS
from ichtune.report.data_card import collect_card
from ichtune.tables import LABEL_ISSUES, SLICES, write_table
from ichtune.workspace import Workspace


@pytest.fixture
def card(session_workspace):
    return collect_card(session_workspace)


def test_every_file_is_counted_once(card, session_workspace):
    table = session_workspace.slices
    usable = table[table["status"] == "ok"]
    counts = card.counts
    assert counts["rows"] == counts["files"] == len(table)
    assert counts["usable_slices"] + counts["duplicates"] + counts["refused"] == counts["rows"]
    assert counts["labelled_slices"] + counts["unlabelled_slices"] == counts["usable_slices"]
    assert counts["series"] == usable["series_instance_uid"].nunique() == len(card.series)
    assert (counts["patients"], counts["labelled_patients"]) == (11, 9)
    assert card.is_generated
    assert sum(row["slices"] for row in card.encodings) == sum(card.matrices.values()) == len(usable)


def test_label_rates_count_a_series_once_for_each_label(card, session_workspace):
    labelled = session_workspace.labelled
    for label in LABELS:
        for unit, column in (("series", "series_instance_uid"), ("patients", "patient_id")):
            has = labelled.groupby(column)[label].max() > 0.5
            assert card.labels[label][unit] == {"positive": has.sum(), "of": len(has), "rate": has.mean()}
        assert card.labels[label]["slices"]["positive"] == (labelled[label] > 0.5).sum()


def test_pairs_of_labels_are_counted_and_the_diagonal_is_each_label(card, session_workspace):
    labelled = session_workspace.labelled
    for row in LABELS:
        assert card.co_occurrence[row][row] == card.labels[row]["slices"]["positive"]
        for column in LABELS:
            both = ((labelled[row] > 0.5) & (labelled[column] > 0.5)).sum()
            assert card.co_occurrence[row][column] == both


def test_refused_files_and_duplicates_have_a_reason_and_an_example(card, session_workspace):
    table = session_workspace.slices
    assert [(row["reason"], row["files"]) for row in card.refused] == [
        ("duplicate_sop_instance_uid", 1),
        ("truncated_pixel_data", 1),
    ]
    for row in card.refused:
        assert table.loc[table["path"] == row["example"], "reason"].iloc[0].startswith(row["reason"])


def test_folds_and_caches_are_listed(card, session_workspace):
    assert [fold["fold"] for fold in card.folds] == [0, 1, 2]
    assert sum(fold["labelled_slices"] for fold in card.folds) == card.counts["labelled_slices"]
    labelled, folds = session_workspace.labelled, session_workspace.folds
    inside = labelled[labelled["image_id"].isin(folds.loc[folds["fold"] == 1, "image_id"])]
    assert card.folds[1]["rates"]["any"] == pytest.approx(inside["any"].mean())
    (cache,) = card.caches
    shards = list((session_workspace.layout.hu / cache["cache_id"]).glob("*.b2"))
    assert cache["bytes"] == sum(path.stat().st_size for path in shards) > 0
    assert (cache["size_px"], cache["crop"]) == (32, "none")


def rewritten(workspace: Workspace, table: pd.DataFrame) -> Workspace:
    write_table(table, workspace.layout.slices, SLICES)
    return Workspace(workspace.layout.root)


def test_distributions_are_over_series_and_say_what_is_unknown(fake_workspace):
    workspace = fake_workspace()
    table = workspace.slices.copy()
    codes, uids = pd.factorize(table["series_instance_uid"])
    table["tilt_deg"] = codes.astype(float)
    table.loc[codes == 0, "tilt_deg"] = np.nan
    card = collect_card(rewritten(workspace, table))
    assert card.spreads["tilt_deg"].n_unknown == 1
    assert card.spreads["tilt_deg"].n_known == len(uids) - 1
    assert (card.spreads["tilt_deg"].minimum, card.spreads["tilt_deg"].maximum) == (1, len(uids) - 1)
    assert card.spreads["tilt_deg"].median == len(uids) / 2
    assert card.spreads["slices_per_series"].median == 5


def test_a_workspace_without_labels_folds_or_caches_has_a_card(fake_workspace):
    workspace = fake_workspace()
    table = workspace.slices.assign(**dict.fromkeys(LABELS, np.nan), is_labelled=False)
    workspace.layout.folds.unlink()
    (workspace.layout.hu / "fakecache" / "cache.json").unlink()
    card = collect_card(rewritten(workspace, table))
    assert (card.labels, card.folds) == ({}, [])
    assert card.counts["labelled_slices"] == 0
    assert card.caches[0]["bytes"] is None
    assert json.loads(json.dumps(card.as_json()))["counts"] == card.counts


def test_label_issues_are_counted_by_kind(fake_workspace):
    workspace = fake_workspace()
    issues = pd.DataFrame({"image_id": ["a", "b", "c"], "issue": ["no_file", "no_file", "any_conflict"], "detail": ""})
    write_table(issues, workspace.layout.label_issues, LABEL_ISSUES)
    found = collect_card(workspace).label_issues
    assert [(row["issue"], row["rows"]) for row in found] == [("no_file", 2), ("any_conflict", 1)]
    assert "no file of that name" in found[0]["meaning"]


def test_an_example_is_named_without_its_folders(fake_workspace):
    workspace = fake_workspace()
    table = workspace.slices.copy()
    table.loc[table["status"] == "refused", "path"] = "DOE^JANE/scans.zip!/19010203/odd.dcm"
    write_table(table, workspace.layout.slices, SLICES)
    card = collect_card(Workspace(workspace.layout.root))
    assert [row["example"] for row in card.refused if row["reason"] == "truncated_pixel_data"] == ["odd.dcm"]
    assert "DOE" not in json.dumps(card.as_json())


def test_repaired_and_unknown_encodings_are_told_apart(fake_workspace):
    workspace = fake_workspace()
    table = workspace.slices.copy()
    ok = table.index[table["status"] == "ok"]
    table.loc[ok[:3], ["encoding", "repaired_12bit"]] = ["12u+0", True]
    table.loc[ok[3], "encoding"] = ""
    encodings = collect_card(rewritten(workspace, table)).encodings
    assert [(row["encoding"], row["slices"], row["repaired"]) for row in encodings] == [
        ("plain", len(ok) - 4, 0),
        ("12u+0", 3, 3),
        ("unknown", 1, 0),
    ]
