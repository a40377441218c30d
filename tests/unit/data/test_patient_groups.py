"""Patients who share a study, a series or pixels are one group; nothing else links them."""

import pandas as pd
import pytest

from ichtune.data.patient_groups import link_keys, patient_groups


def slices(patients: str, **columns: object) -> pd.DataFrame:
    n = len(patients)
    plain = {
        "patient_id": list(patients),
        "status": "ok",
        "dicom_study_uid": [f"study{i}" for i in range(n)],
        "series_instance_uid": [f"series{i}" for i in range(n)],
        "content_hash": [f"{i:032x}" for i in range(n)],
        "is_blank": False,
    }
    return pd.DataFrame(plain | columns)


def test_patients_with_nothing_in_common_are_groups_of_their_own():
    groups = patient_groups(slices("CABA"))
    assert groups.index.tolist() == ["A", "B", "C"]
    assert groups.tolist() == [0, 1, 2]


@pytest.mark.parametrize("column", ["dicom_study_uid", "series_instance_uid", "content_hash"])
def test_a_shared_study_series_or_picture_links(column: str):
    table = slices("ABCD")
    table.loc[[1, 3], column] = "shared"
    assert patient_groups(table).to_dict() == {"A": 0, "B": 1, "C": 2, "D": 1}


def test_links_reach_over_a_third_patient():
    table = slices("ABCDC")
    table.loc[[0, 2], "dicom_study_uid"] = "shared study"
    table.loc[[3, 4], "content_hash"] = "shared picture"
    assert patient_groups(table).to_dict() == {"A": 0, "B": 1, "C": 0, "D": 0}


def test_stacks_of_one_series_are_one_series():
    table = slices("AB", series_instance_uid=["1.2.3", "1.2.3~2"])
    assert patient_groups(table).tolist() == [0, 0]


def test_blank_pictures_and_empty_identifiers_link_nobody():
    assert patient_groups(slices("AB", content_hash="air", is_blank=True)).tolist() == [0, 1]
    assert patient_groups(slices("AB", content_hash="", dicom_study_uid="")).tolist() == [0, 1]
    table = slices("ABC", content_hash="air", is_blank=[True, False, False])
    assert patient_groups(table).to_dict() == {"A": 0, "B": 1, "C": 1}


def test_files_that_cannot_be_used_link_nobody():
    table = slices("ABA", dicom_study_uid=["x", "x", "y"], status=["duplicate", "ok", "ok"])
    assert patient_groups(table).tolist() == [0, 1]
    assert len(patient_groups(slices("AB", status="refused"))) == 0


def test_what_a_slice_does_not_say_is_no_key():
    keys = link_keys(slices("AB", dicom_study_uid=["", "s"]))
    assert keys["study"].isna().tolist() == [True, False]
    assert keys["series"].tolist() == ["series0", "series1"]
