import numpy as np
import pandas as pd
import pytest

from ichtune.data.folds import (
    FoldPlan,
    fold_rates,
    make_folds,
    n_labelled_groups,
    rate_deviation,
    read_folds,
    write_folds,
)
from ichtune.errors import ConfigError, DataError
from ichtune.labels import LABELS, SUBTYPES

SHARE_OF_PATIENTS = dict(zip(SUBTYPES, (0.03, 0.25, 0.17, 0.18, 0.18), strict=True))


def patients(n: int, seed: int = 0, unlabelled: float = 0.0) -> pd.DataFrame:
    """Slices of ``n`` patients with the competition's mixture of subtypes."""
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(n), rng.integers(20, 60, n))
    table = pd.DataFrame({"patient_id": [f"P{number:05d}" for number in of], "status": "ok"})
    for subtype, share in SHARE_OF_PATIENTS.items():
        rate = rng.beta(2, 4, n) * (rng.random(n) < share)
        table[subtype] = (rng.random(len(of)) < rate[of]).astype(np.float32)
    table["any"] = table[list(SUBTYPES)].max(axis=1)
    table["is_labelled"] = of >= n * unlabelled
    table.loc[~table["is_labelled"], list(LABELS)] = np.nan
    table["image_id"] = [f"ID_{row}" for row in range(len(table))]
    table["dicom_study_uid"] = [f"T{number:05d}" for number in of]
    table["series_instance_uid"] = [f"S{number:05d}" for number in of]
    table["content_hash"] = [f"{row:032x}" for row in range(len(table))]
    table["is_blank"] = False
    return table


def rates(slices: pd.DataFrame, plan: FoldPlan) -> pd.DataFrame:
    labelled = slices[slices["is_labelled"]]
    return labelled.groupby(plan.folds_for(labelled["patient_id"]))[list(LABELS)].mean()


@pytest.mark.slow  # takes seconds
@pytest.mark.parametrize("k", [2, 5, 10])
def test_label_rates_are_within_five_per_cent_in_every_fold(k):
    slices = patients(1500)
    deviation = rates(slices, make_folds(slices, k, 7)) / slices[list(LABELS)].mean() - 1
    assert deviation.shape == (k, len(LABELS))
    assert deviation.abs().max(axis=None) < 0.05


@pytest.mark.parametrize(("n_patients", "k"), [(300, 3), (300, 5)])
def test_a_few_hundred_patients_meet_five_per_cent_where_no_single_patient_forbids_it(n_patients, k):
    slices = patients(n_patients, seed=3)
    n_of = slices.groupby("patient_id")[list(LABELS)].sum()
    attainable = [label for label in LABELS if (n_of[label] > 0).sum() >= 9 * k]
    assert len(attainable) >= 4
    deviation = rate_deviation(fold_rates(slices, make_folds(slices, k, 7)))
    assert deviation[attainable].max() < 0.05


def test_linked_patients_share_a_fold_and_are_counted():
    slices = patients(40)
    for one, other, column in (("P00001", "P00030", "dicom_study_uid"), ("P00030", "P00017", "content_hash")):
        at = [slices.index[slices["patient_id"] == patient][0] for patient in (one, other)]
        slices.loc[at[1], column] = slices.loc[at[0], column]
    plan = make_folds(slices, 5, 7)
    assert len({plan.fold_of[patient] for patient in ("P00001", "P00017", "P00030")}) == 1
    assert plan.n_linked_groups == 1
    assert make_folds(patients(40), 5, 7).n_linked_groups == 0


def test_linked_patients_count_as_one_when_folds_are_asked_for():
    slices = patients(4).assign(dicom_study_uid="one")
    assert n_labelled_groups(slices) == 1
    assert n_labelled_groups(patients(4, unlabelled=0.5)) == 2
    with pytest.raises(ConfigError, match=r"got 1 \(linked patients count as one\); one patient cannot be split"):
        make_folds(slices, 2, 7)


def test_the_rates_of_each_fold_are_told():
    slices = patients(30, unlabelled=0.3)
    plan = make_folds(slices, 3, 7)
    table = fold_rates(slices, plan)
    labelled = slices[slices["is_labelled"]]
    fold = plan.folds_for(labelled["patient_id"])
    assert table.index.tolist() == [0, 1, 2]
    assert table["n_patients"].sum() == 30
    assert table["n"].tolist() == np.bincount(fold).tolist()
    assert table["n_unlabelled"].sum() == len(slices) - len(labelled)
    assert table.loc[1, "subdural"] == pytest.approx(labelled["subdural"][fold == 1].mean())
    expected = max(abs(table["subdural"] / labelled["subdural"].mean() - 1))
    assert rate_deviation(table)["subdural"] == pytest.approx(expected)


def test_a_fold_without_labels_has_no_rates():
    slices = patients(4, unlabelled=0.5)
    table = fold_rates(slices, FoldPlan(5, 7, {"P00000": 0, "P00001": 0, "P00002": 1, "P00003": 2}))
    assert table["n_patients"].tolist() == [2, 1, 1, 0, 0]
    assert table["any"].isna().tolist() == [True, False, False, True, True]
    assert rate_deviation(table.assign(epidural=0.0))[["any", "epidural"]].isna().tolist() == [False, True]


def test_all_slices_of_a_patient_share_a_fold_labelled_or_not():
    slices = patients(60, unlabelled=0.3)
    slices.loc[slices["patient_id"] == "P00059", "is_labelled"] = (
        np.arange((slices["patient_id"] == "P00059").sum()) > 5
    )
    plan = make_folds(slices, 5, 7)
    assert set(plan.fold_of) == set(slices["patient_id"])
    assert set(plan.fold_of.values()) == set(range(5))


@pytest.mark.slow  # takes seconds
def test_folds_have_nearly_equal_sizes():
    slices = patients(300, unlabelled=0.2)
    plan = make_folds(slices, 5, 7)
    for is_labelled in (True, False):
        chosen = slices[slices["is_labelled"] == is_labelled]
        sizes = np.bincount(plan.folds_for(chosen["patient_id"]), minlength=5)
        assert sizes.max() / sizes.min() < 1.1


@pytest.mark.slow  # takes seconds
def test_the_plan_depends_on_seed_and_content_and_not_on_the_order_of_rows():
    slices = patients(100)
    plan = make_folds(slices, 5, 7)
    shuffled = slices.sample(frac=1, random_state=0).reset_index(drop=True)
    assert make_folds(shuffled, 5, 7).plan_hash == plan.plan_hash
    assert make_folds(slices, 4, 7).plan_hash != plan.plan_hash
    assert make_folds(slices[slices["patient_id"] != "P00000"], 5, 7).plan_hash != plan.plan_hash
    assert make_folds(slices, 5, 8).plan_hash != plan.plan_hash


def test_few_patients_fill_every_fold():
    slices = patients(5)
    assert sorted(make_folds(slices, 5, 7).fold_of.values()) == [0, 1, 2, 3, 4]


def test_only_usable_slices_count():
    slices = patients(10)
    slices.loc[slices["patient_id"] == "P00003", "status"] = "refused"
    assert "P00003" not in make_folds(slices, 3, 7).fold_of


def test_unlabelled_slices_alone_can_be_dealt_out():
    slices = patients(3, unlabelled=1.0)
    assert set(make_folds(slices, 5, 7).fold_of) == {"P00000", "P00001", "P00002"}


@pytest.mark.parametrize(
    ("n_patients", "k", "message"),
    [
        (3, 5, "got 3; use --folds 3 or fewer"),
        (1, 2, "one patient cannot be split"),
        (9, 1, "at least 2, got 1"),
    ],
)
def test_impossible_numbers_of_folds_are_refused(n_patients, k, message):
    with pytest.raises(ConfigError, match=message):
        make_folds(patients(n_patients), k, 7)


def test_a_plan_survives_the_disk(tmp_path):
    slices = patients(20)
    slices.loc[slices["patient_id"] == "P00003", "dicom_study_uid"] = "T00004"
    plan = make_folds(slices, 4, 11)
    write_folds(plan, tmp_path / "folds.parquet")
    read = read_folds(tmp_path / "folds.parquet")
    assert read.n_linked_groups == plan.n_linked_groups == 1
    assert (read.k, read.seed, read.plan_hash, dict(read.fold_of)) == (
        4,
        11,
        plan.plan_hash,
        dict(plan.fold_of),
    )


def test_a_plan_that_was_changed_is_noticed(tmp_path):
    plan = make_folds(patients(20), 4, 11)
    other = FoldPlan(4, 11, {**plan.fold_of, "P00000": (plan.fold_of["P00000"] + 1) % 4})
    object.__setattr__(other, "plan_hash", plan.plan_hash)
    write_folds(other, tmp_path / "folds.parquet")
    with pytest.raises(DataError, match="was changed"):
        read_folds(tmp_path / "folds.parquet")


def test_folds_out_of_range_and_unknown_patients_are_refused():
    with pytest.raises(DataError, match="0 to 2, got 3"):
        FoldPlan(3, 7, {"P": 3})
    with pytest.raises(DataError, match="knows no patient 'Q'"):
        FoldPlan(3, 7, {"P": 0}).folds_for(["P", "Q"])
    assert FoldPlan(3, 7, {"P": 0, "Q": 2}).folds_for(["Q", "P", "Q"]).tolist() == [2, 0, 2]
