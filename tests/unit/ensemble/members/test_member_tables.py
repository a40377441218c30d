import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ichtune.ensemble.members.member_tables import (
    NO_FOLD_MODEL,
    SliceOrder,
    mean_of_fold_models,
    out_of_fold,
    read_member,
)
from ichtune.errors import ConflictError, DataError
from ichtune.tables import P_COLUMNS, PREDICTIONS, read_table


def slice_order(made):
    return SliceOrder(made.slices["image_id"].to_numpy(object)[made.labelled])


def test_the_short_way_reads_what_the_long_way_does(make_blend_workspace):
    made = make_blend_workspace(noises=(1.0,))
    path = made.open().layout.oof("r0")
    member, frame = read_member(path, "r0", made.plan.plan_hash), read_table(path, PREDICTIONS)
    assert member.image_ids.to_pylist() == frame["image_id"].tolist()
    np.testing.assert_array_equal(member.p, frame[list(P_COLUMNS)].to_numpy())
    np.testing.assert_array_equal(member.fold, frame["fold"])
    other = pq.read_table(path)
    other = other.set_column(1, "fold", other["fold"].cast(pa.int64()))
    pq.write_table(other, path)
    again = read_member(path, "r0", made.plan.plan_hash)
    np.testing.assert_array_equal(again.p, member.p)
    np.testing.assert_array_equal(again.fold, member.fold)


def test_an_order_that_was_seen_is_not_looked_up_again_and_another_one_is():
    order = SliceOrder(np.array(["a", "b", "c"], object))
    first = order.positions(pa.array(["c", "a", "b"]), "rows")
    assert first.tolist() == [2, 0, 1]
    assert order.positions(pa.array(["c", "a", "b"]), "rows") is first
    assert order.positions(pa.array(["a", "b", "c"]), "rows").tolist() == [0, 1, 2]


def test_every_slice_once():
    order = SliceOrder(np.array(["a", "b", "c"], object))
    with pytest.raises(ConflictError, match="rows must hold each slice once, got 'b' 2 times"):
        order.positions(pa.array(["a", "b", "b", "c"]), "rows")
    with pytest.raises(DataError, match="1 of 3 are missing, the first is 'c'"):
        order.positions(pa.array(["a", "b"]), "rows")
    with pytest.raises(DataError, match="1 slices that do not belong there, the first is 'x'"):
        order.positions(pa.array(["a", "b", "x"]), "rows")


def test_out_of_fold_rows_come_from_the_model_that_did_not_see_the_patient(make_blend_workspace):
    made = make_blend_workspace(noises=(1.0,))
    member = read_member(made.open().layout.oof("r0"), "r0", made.plan.plan_hash)
    fold = made.plan.folds_for(made.slices["patient_id"].iloc[made.labelled])
    np.testing.assert_array_equal(out_of_fold(member, "r0", slice_order(made), fold), member.p)
    with pytest.raises(ConflictError, match="leaked rows: member r0 predicts 300 slices"):
        out_of_fold(member, "r0", slice_order(made), (fold + 1) % 3)


def test_one_table_for_all_fold_models_is_taken_as_it_is(make_blend_workspace):
    made = make_blend_workspace(noises=())
    oof, test = made.predictions("r0", 1.0)
    one = test[test["fold"] == 0].assign(fold=NO_FOLD_MODEL)
    made.write_run("r0", oof, one.sample(frac=1, random_state=0))
    member = read_member(made.open().layout.test("r0"), "r0", made.plan.plan_hash)
    order = SliceOrder(made.slices["image_id"].to_numpy(object)[made.test])
    p_TL = mean_of_fold_models(member, "r0", order, np.arange(3))
    np.testing.assert_array_equal(p_TL, one[list(P_COLUMNS)].to_numpy())
