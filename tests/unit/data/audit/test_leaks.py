"""Leaks: each kind is found across folds and across train and test, and nothing else is called one."""

import numpy as np
import pandas as pd
import pytest

from ichtune.data.audit.leaks import KINDS, NO_FOLD, Split, advice, check_leaks, leaks_of
from ichtune.data.audit.split_file import plan_split
from ichtune.data.folds import make_folds
from ichtune.labels import LABELS

N_PATIENTS, N_SLICES = 12, 4


@pytest.fixture
def slices() -> pd.DataFrame:
    """Patients P00 to P11 with two series of two slices each; P09 to P11 are unlabelled."""
    n = N_PATIENTS * N_SLICES
    patient, series = np.arange(n) // N_SLICES, np.arange(n) // 2
    is_labelled = patient < 9
    return pd.DataFrame(
        {
            "image_id": [f"ID_{row}" for row in range(n)],
            "patient_id": [f"P{number:02d}" for number in patient],
            "dicom_study_uid": [f"T{number}" for number in series],
            "series_instance_uid": [f"S{number}" for number in series],
            "content_hash": [f"{row:032x}" for row in range(n)],
            "is_blank": False,
            "status": "ok",
            "is_labelled": is_labelled,
            **{label: np.where(is_labelled, 0.0, np.nan) for label in LABELS},
        }
    )


def checked(slices: pd.DataFrame, split: Split | None = None) -> dict[tuple[str, str], int]:
    split = split or plan_split(slices, make_folds(slices, 3, 7))
    return {(leak.kind, leak.across): leak.n_keys for leak in leaks_of(check_leaks(slices, split))}


def in_folds(slices: pd.DataFrame, fold: np.ndarray, is_test: np.ndarray | None = None) -> Split:
    ok = (slices["status"] == "ok").to_numpy()
    is_test = np.zeros(len(slices), bool) if is_test is None else is_test
    return Split("theirs.csv", fold, ok & ~is_test, ok & is_test, ("fold 0", "fold 1"))


def test_a_plan_of_ichtune_leaks_nothing(slices):
    checks = check_leaks(slices, plan_split(slices, make_folds(slices, 3, 7)))
    assert [(check.kind, check.across) for check in checks] == [
        (kind, across) for across in ("folds", "train/test") for kind in KINDS
    ]
    assert [check.n_keys for check in checks] == 2 * [12, 24, 24, 48]
    assert leaks_of(checks) == []
    assert advice([], is_plan=True) == []


def test_the_plan_keeps_linked_patients_together_so_that_they_do_not_leak(slices):
    slices.loc[[0, 16], "content_hash"] = "twice"
    slices.loc[[4, 20], "dicom_study_uid"] = "shared"
    assert checked(slices) == {}


def test_an_image_level_split_is_caught(slices):
    assert checked(slices, in_folds(slices, np.arange(len(slices)) % 2)) == {
        ("patient", "folds"): 12,
        ("study", "folds"): 24,
        ("series", "folds"): 24,
    }


def test_a_study_level_split_is_caught(slices):
    assert checked(slices, in_folds(slices, np.arange(len(slices)) // 2 % 2)) == {("patient", "folds"): 12}


def test_identical_pixels_in_two_folds_are_caught_and_shown_by_two_slices(slices):
    fold = np.arange(len(slices)) // N_SLICES % 2
    slices.loc[[3, 5, 41], "content_hash"] = "thrice"
    (leak,) = leaks_of(check_leaks(slices, in_folds(slices, fold)))
    assert (leak.kind, leak.n_keys, leak.n_slices) == ("content", 1, 3)
    assert leak.examples == ("ID_3 in fold 0, ID_5 in fold 1",)


def test_identical_blank_slices_are_no_leak(slices):
    fold = np.arange(len(slices)) // N_SLICES % 2
    slices.loc[[3, 5], ["content_hash", "is_blank"]] = ["air", True]
    assert checked(slices, in_folds(slices, fold)) == {}


def test_a_patient_with_labelled_and_unlabelled_slices_is_a_leak_with_a_way_out(slices):
    slices.loc[0, "is_labelled"], slices.loc[0, "series_instance_uid"] = False, "another"
    leaks = leaks_of(check_leaks(slices, plan_split(slices, make_folds(slices, 3, 7))))
    assert [(leak.kind, leak.across, leak.n_keys) for leak in leaks] == [
        ("patient", "train/test", 1),
        ("study", "train/test", 1),
    ]
    assert leaks[0].examples == ("P00 in train, test",)
    (sentence,) = advice(leaks, is_plan=True)
    assert "leave the unlabelled slices of such patients out of the folder, or label them" in sentence


def test_a_slice_without_a_label_is_a_test_slice_wherever_it_lies_unless_its_label_was_spoilt(slices):
    slices.loc[0, "is_labelled"] = False
    plan = make_folds(slices, 3, 7)
    leaks = leaks_of(check_leaks(slices, plan_split(slices, plan)))
    assert [(leak.kind, leak.across, leak.n_keys) for leak in leaks] == [
        (kind, "train/test", 1) for kind in ("patient", "study", "series")
    ]
    assert leaks_of(check_leaks(slices, plan_split(slices, plan, {"ID_0"}))) == []


def test_pixels_shared_between_train_and_test_are_caught(slices):
    slices.loc[[0, 47], "content_hash"] = "twice"
    leaks = leaks_of(check_leaks(slices, plan_split(slices, make_folds(slices, 3, 7))))
    assert [(leak.kind, leak.across, leak.examples) for leak in leaks] == [
        ("content", "train/test", ("ID_0 in train, ID_47 in test",))
    ]
    assert "filed under two patients" in advice(leaks, is_plan=True)[0]


def test_what_cannot_be_used_takes_no_part(slices):
    slices.loc[[0, 1], "status"] = ["refused", "duplicate"]
    slices.loc[[0, 1], "patient_id"] = "P05"
    slices.loc[[0, 1], "content_hash"] = slices.loc[47, "content_hash"]
    assert checked(slices) == {}


def test_slices_without_a_fold_or_without_an_identifier_straddle_nothing(slices):
    fold = np.where(np.arange(len(slices)) % 2, NO_FOLD, 0)
    assert checked(slices, in_folds(slices, fold)) == {}
    anonymous = slices.assign(dicom_study_uid="", content_hash="")
    assert checked(anonymous, in_folds(anonymous, np.arange(len(slices)) // N_SLICES % 2)) == {}


def test_a_split_without_folds_or_test_slices_has_nothing_to_compare(slices):
    labelled = slices[slices["is_labelled"]]
    assert check_leaks(labelled, plan_split(labelled, None)) == ()


def test_only_the_first_examples_are_told(slices):
    leak = leaks_of(check_leaks(slices, in_folds(slices, np.arange(len(slices)) % 2)))[0]
    assert leak.examples == tuple(f"P{number:02d} in fold 0, fold 1" for number in range(3))
    assert advice([leak], is_plan=False)[0].startswith("Make the split by patient")
    assert advice([leak], is_plan=True)[0].startswith("Run `ichtune prepare` again")
