import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ichtune.data.cache_build import CacheBuild
from ichtune.data.folds import FoldPlan
from ichtune.data.label_table import no_issues
from ichtune.data.prepare_summary import PrepareSummary, refusal_codes, summarise
from ichtune.labels import LABELS


@pytest.fixture
def slices() -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "status": ["ok", "ok", "ok", "refused", "refused", "duplicate"],
            "reason": [
                "",
                "",
                "",
                "not_dicom: text",
                "not_dicom: other",
                "duplicate_sop_instance_uid: same as a",
            ],
            "patient_id": ["P", "P", "Q", "", "", "P"],
            "series_instance_uid": ["s", "s", "t", "", "", "s"],
            "is_labelled": [True, False, True, False, False, False],
            "repaired_12bit": [True, False, False, False, False, True],
            "is_blank": [False, False, True, False, False, False],
        }
    )
    for label in LABELS:
        table[label] = [1.0, np.nan, 0.0, np.nan, np.nan, np.nan]
    return table


def summary_of(slices: pd.DataFrame, plan: FoldPlan | None, **rows) -> PrepareSummary:
    told = pd.DataFrame({"patient_id": slices["patient_id"], "position_z_mm": 0.0} | rows)
    build = CacheBuild(Path("hu/abc"), "abc", told, False)
    return summarise(slices, no_issues(), plan, build, n_ignored=2, size_px=256, seconds=1.5)


def test_counts_are_over_usable_slices_and_refusals_over_the_rest(slices):
    summary = summary_of(slices, FoldPlan(2, 7, {"P": 0, "Q": 1}))
    assert (summary.files, summary.slices, summary.ignored, summary.series, summary.patients) == (
        6,
        3,
        2,
        2,
        2,
    )
    assert (summary.labelled, summary.duplicates, summary.repaired_12bit, summary.blank) == (2, 1, 1, 1)
    assert summary.refused == {"duplicate_sop_instance_uid": 1, "not_dicom": 2}
    assert summary.positive == dict.fromkeys(LABELS, 1)


def test_it_is_plain_json(slices):
    read = json.loads(json.dumps(summary_of(slices, None).as_json()))
    assert {"slices", "series", "patients", "refused", "seconds", "labelled", "duplicates"} <= set(read)
    assert (read["fold_plan_hash"], read["cache_id"], read["label_issues"]) == (None, "abc", {})


def test_what_a_person_should_know_is_a_sentence(slices):
    warnings = summary_of(slices, None, patient_id="", position_z_mm=[0, 0, np.nan, np.nan, 0, 0]).warnings
    assert [warning.split(" ", 2)[:2] for warning in warnings] == [
        ["3", "slices"],
        ["1", "series"],
        ["1", "patients"],
        ["only", "one"],
    ]


def test_codes_end_at_the_colon(slices):
    assert refusal_codes(slices) == ["not_dicom", "not_dicom", "duplicate_sop_instance_uid"]
