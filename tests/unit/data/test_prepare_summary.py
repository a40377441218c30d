import json

import numpy as np
import pandas as pd
import pytest

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
            "image_id": ["ID_6431af929", "b", "c", "d", "e", "f"],
            "path": ["a.dcm", "b.dcm", "b.dcm", "d.dcm", "e.dcm", "f.dcm"],
            "frame_number": [1, 1, 2, 1, 1, 1],
            "slice_rank": [0, 1, 0, -1, -1, -1],
            "n_at_position": [2, 2, 1, 0, 0, 0],
            "spacing_mm": [np.nan] * 6,
            "slice_thickness_mm": [5.0] * 6,
            "tilt_deg": [0.0] * 6,
            "ordered_by": ["position", "position", "slice_location", "", "", ""],
            "padding_ignored": [True, False, True, False, False, True],
            "is_lossy": [False, True, True, True, False, False],
            "repaired_12bit": [True, False, False, False, False, True],
            "is_blank": [False, False, True, False, False, False],
        }
    )
    for label in LABELS:
        table[label] = [1.0, np.nan, 0.0, np.nan, np.nan, np.nan]
    return table


CACHES = [
    {"cache_id": "head", "size_px": 64, "crop": "head"},
    {"cache_id": "abc", "size_px": 256, "crop": "none"},
    {"cache_id": "large", "size_px": 512, "crop": "none"},
]


def summary_of(slices: pd.DataFrame, plan: FoldPlan | None, **rows) -> PrepareSummary:
    told = slices[["patient_id"]].assign(**rows)
    return summarise(slices, no_issues(), plan, told, CACHES, n_ignored=2, is_reused=False, seconds=1.5)


def test_counts_are_over_usable_slices_and_refusals_over_the_rest(slices):
    summary = summary_of(slices, FoldPlan(2, 7, {"P": 0, "Q": 1}))
    assert (summary.files, summary.slices, summary.ignored, summary.series, summary.patients) == (5, 3, 2, 2, 2)
    assert (summary.labelled, summary.duplicates, summary.repaired_12bit, summary.blank) == (2, 1, 1, 1)
    assert summary.refused == {"duplicate_sop_instance_uid": 1, "not_dicom": 2}
    assert summary.positive == dict.fromkeys(LABELS, 1)


def test_what_is_odd_about_the_data_is_counted(slices):
    summary = summary_of(slices, None)
    assert (summary.multi_frame, summary.padding_ignored, summary.lossy, summary.known_bad) == (1, 2, 2, 1)
    assert (summary.duplicate_positions, summary.uneven_spacing, summary.stacks) == (1, 0, 0)


def test_uneven_and_parted_series_are_counted(slices):
    slices["slice_rank"] = range(6)
    slices["series_instance_uid"] = ["s", "s", "s", "s", "t~2", "t~2"]
    slices["status"], slices["n_at_position"] = "ok", 1
    slices["spacing_mm"] = [5.0, 5.0, 2.0, 2.0, 5.0, 5.0]
    summary = summary_of(slices, None)
    assert (summary.duplicate_positions, summary.uneven_spacing, summary.stacks) == (0, 1, 1)


def test_the_first_cache_of_whole_slices_is_the_base(slices):
    summary = summary_of(slices, None)
    assert (summary.cache_id, summary.size_px, summary.caches) == ("abc", 256, CACHES)


def test_patients_that_are_linked_are_told(slices):
    (warning,) = [w for w in summary_of(slices, FoldPlan(2, 7, {"P": 0, "Q": 1}, 3)).warnings if "share" in w]
    assert warning.startswith("3 groups of patients")


def test_it_is_plain_json(slices):
    read = json.loads(json.dumps(summary_of(slices, None).as_json()))
    assert {"slices", "series", "patients", "refused", "seconds", "labelled", "duplicates"} <= set(read)
    assert (read["fold_plan_hash"], read["cache_id"], read["label_issues"]) == (None, "abc", {})


def test_what_a_person_should_know_is_a_sentence(slices):
    warnings = summary_of(slices, None, patient_id="").warnings
    assert [warning.split(" ", 2)[:2] for warning in warnings] == [
        ["3", "slices"],
        ["1", "series"],
        ["1", "patients"],
        ["only", "one"],
    ]


def test_codes_end_at_the_colon(slices):
    assert refusal_codes(slices) == ["not_dicom", "not_dicom", "duplicate_sop_instance_uid"]
