import numpy as np
import pandas as pd
import pytest

from ichtune.data.folds import FoldPlan
from ichtune.ensemble.members.foreign_plan import Vouched, check_recorded_plan, own_folds, vouched_plan
from ichtune.ensemble.members.foreign_tables import read_foreign
from ichtune.errors import ConfigError, ConflictError, DataError
from ichtune.tables import P_COLUMNS


@pytest.fixture
def made(make_blend_workspace):
    return make_blend_workspace(noises=())


def plan_table(made, tmp_path, rename=None, **changes):
    fold_of = {**made.plan.fold_of, **changes}
    frame = pd.DataFrame({"patient_id": list(fold_of), "fold": [(rename or str)(f) for f in fold_of.values()]})
    path = tmp_path / "their_folds.csv"
    frame.to_csv(path, index=False)
    return str(path)


def test_the_hash_or_a_word_is_enough(made):
    assert vouched_plan(made.open(), made.plan.plan_hash.upper()) == Vouched("hash")
    assert vouched_plan(made.open(), "this") == Vouched("this")


def test_another_hash_is_refused_because_it_leaks(made):
    with pytest.raises(
        ConflictError, match=r"0123456789abcdef is not this workspace's, .*who are held out here"
    ) as error:
        vouched_plan(made.open(), "0123456789abcdef")
    assert made.plan.plan_hash in str(error.value)
    with pytest.raises(ConfigError, match=f"--fold-plan must be the hash of the plan .{made.plan.plan_hash} here."):
        vouched_plan(made.open(), "folds.csv")


def test_a_table_of_patients_may_number_the_folds_otherwise(made, tmp_path):
    found = vouched_plan(made.open(), plan_table(made, tmp_path))
    assert found == Vouched("patients", {"0": 0, "1": 1, "2": 2})
    found = vouched_plan(made.open(), plan_table(made, tmp_path, rename=lambda fold: "ABC"[(fold + 1) % 3]))
    assert found.own_fold == {"B": 0, "C": 1, "A": 2}
    found = vouched_plan(made.open(), plan_table(made, tmp_path, elsewhere=0))
    assert "lists 1 patients that this workspace does not have" in found.note


def test_a_table_of_another_partition_is_refused(made, tmp_path):
    other = (made.plan.fold_of["P003"] + 1) % 3
    with pytest.raises(
        ConflictError, match=rf"another fold plan .*1 of 42 patients lie elsewhere, .*'P003' \(row 4\): fold '{other}'"
    ):
        vouched_plan(made.open(), plan_table(made, tmp_path, P003=other))


def test_a_table_must_list_every_labelled_patient_once(made, tmp_path):
    path = plan_table(made, tmp_path)
    frame = pd.read_csv(path)
    frame[frame["patient_id"] != "P004"].to_csv(path, index=False)
    with pytest.raises(DataError, match="no fold for 1 patients with labels, the first is 'P004'"):
        vouched_plan(made.open(), path)
    pd.concat([frame, frame.iloc[:1].assign(fold=9)]).to_csv(path, index=False)
    with pytest.raises(ConflictError, match="puts patient 'P000' into two folds, again in row 43"):
        vouched_plan(made.open(), path)
    frame.rename(columns={"fold": "part"}).to_csv(path, index=False)
    with pytest.raises(DataError, match="must have the columns patient_id and fold, got patient_id, part"):
        vouched_plan(made.open(), path)


def foreign(tmp_path, folds):
    frame = pd.DataFrame(np.full((len(folds), 6), 0.5), columns=list(P_COLUMNS))
    frame.assign(image_id=[f"ID_{i}" for i in range(len(folds))], fold=folds).to_csv(tmp_path / "p.csv", index=False)
    return read_foreign(tmp_path / "p.csv")


def test_a_fold_column_is_checked_slice_by_slice(tmp_path):
    own = np.array([0, 0, 1, 1, 2, 2])
    assert own_folds(foreign(tmp_path, [3, 3, 1, 1, 2, 2]), own, Vouched("this")) == {"3": 0, "1": 1, "2": 2}
    with pytest.raises(ConflictError, match=r"1 of 6 slices .* row 4 'ID_3': fold '2' there, fold 1 here"):
        own_folds(foreign(tmp_path, [0, 0, 1, 2, 2, 2]), own, Vouched("this"))
    with pytest.raises(ConflictError, match="2 of 6 slices"):  # one fold for two is another partition
        own_folds(foreign(tmp_path, [0, 0, 1, 1, 1, 1]), own, Vouched("this"))
    with pytest.raises(ConflictError, match="4 of 6 slices"):  # numbers that contradict the table of patients
        own_folds(foreign(tmp_path, [1, 1, 0, 0, 2, 2]), own, Vouched("patients", {"0": 0, "1": 1, "2": 2}))


def test_a_plan_that_the_file_itself_records_counts_more_than_a_word(made):
    oof, test = made.predictions("r0", 1.0)
    made.write_run("r0", oof, test, plan_hash=FoldPlan(2, 0, {"a": 0, "b": 1}).plan_hash)
    with pytest.raises(ConflictError, match="as the file itself says"):
        check_recorded_plan(made.open(), read_foreign(made.open().layout.oof("r0")))
    made.write_run("r0", oof, test)
    check_recorded_plan(made.open(), read_foreign(made.open().layout.oof("r0")))
