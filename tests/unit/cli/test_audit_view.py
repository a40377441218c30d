"""What the audit shows: counts, examples, rates by fold, and the limits of the proof."""

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from ichtune.cli.audit_view import AuditResult, audit_json, checks_table, notes, pairs_table, rates_table
from ichtune.data.audit.leaks import Split, check_leaks
from ichtune.data.audit.near_duplicates import NearDuplicates
from ichtune.data.cache.check import CacheCheck
from ichtune.labels import LABELS


def text_of(renderable) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


def some_pairs(n: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image_id_a": [f"a{row}" for row in range(n)],
            "image_id_b": "b",
            "patient_id_a": "A",
            "patient_id_b": "B",
            "difference_hu": 1.25,
            "n_bits_apart": 1,
            "is_identical": [row == 0 for row in range(n)],
            "side_a": "train, fold 0",
            "side_b": "test",
            "straddles": True,
        }
    )


@pytest.fixture
def found() -> AuditResult:
    """Four labelled slices of two patients in two folds, one unlabelled slice of the first patient."""
    slices = pd.DataFrame(
        {
            "image_id": [f"ID_{row}" for row in range(6)],
            "patient_id": ["A", "A", "B", "B", "A", "C"],
            "dicom_study_uid": "",
            "series_instance_uid": "",
            "content_hash": "",
            "status": ["ok"] * 5 + ["refused"],
            "is_blank": [True, False, False, False, False, False],
            "is_labelled": [True] * 4 + [False, False],
            **{label: [1.0, 0.0, 0.0, 0.0, np.nan, np.nan] for label in LABELS},
        }
    )
    is_test = np.array([False] * 4 + [True, False])
    is_train = np.array([True] * 4 + [False, False])
    split = Split("theirs.csv", np.array([0, 0, 1, 1, -1, -1]), is_train, is_test, ("fold 0", "fold 1"), n_unusable=1)
    pairs = some_pairs(12)
    return AuditResult(
        slices,
        split,
        check_leaks(slices, split),
        (CacheCheck("abc", 6, True, ""),),
        NearDuplicates(pairs, 5, 40, 7, 0),
        pairs,
        ("Do this.",),
    )


def test_each_check_is_a_line_with_its_count_and_examples(found):
    lines = text_of(checks_table(found)).splitlines()
    assert lines[0].strip() == "Audit of theirs.csv"
    (line,) = [line for line in lines if line.startswith("patients") and "train/test" in line]
    assert line.split() == ["patients", "train/test", "2", "1", "3", "A", "in", "train,", "test"]


def test_rates_are_shown_by_fold_in_per_cent(found):
    lines = text_of(rates_table(found)).splitlines()
    assert [line.split() for line in lines if line.startswith("labelled")] == [["labelled", "2", "2"]]
    assert [line.split() for line in lines if line.startswith("any")] == [["any", "50.00", "0.00", "100.0", "%"]]


def test_the_nearest_pairs_are_shown_and_the_rest_counted(found):
    text = text_of(pairs_table(found.pairs))
    assert "identical" in text
    assert "1.25" in text
    assert "a9" in text
    assert "a10" not in text
    assert "and 2 more: --out writes them all" in text


def test_the_limits_of_the_proof_are_said(found):
    said = " ".join(notes(found))
    assert "1 blank slices took no part" in said
    assert "1 listed slices cannot be used" in said
    assert "at most 5 HU" in said
    assert "7 pairs beyond the limit" in said
    assert "train and test were not compared" not in said


def test_scripts_get_plain_values(found):
    shown = audit_json(found)
    assert shown["is_clean"] is False
    assert [fold["fold"] for fold in shown["folds"]] == ["fold 0", "fold 1"]
    assert shown["furthest_from_mean"]["any"] == 1.0
    assert shown["advice"] == ("Do this.",)
    assert shown["near_duplicates"]["n_candidates"] == 40
    assert len(shown["near_duplicates"]["pairs"]) == 12
    assert "row_a" not in shown["near_duplicates"]["pairs"][0]
