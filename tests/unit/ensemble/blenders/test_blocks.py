import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from ichtune.ensemble.blenders import blocks
from ichtune.ensemble.blenders.blocks import Scratch, block_size, on_threads, one_blas_thread, sum_over_blocks

VALUES = np.random.default_rng(0).standard_normal(5000)


def total_and_count(rows):
    return VALUES[rows].sum(), np.array([rows.stop - rows.start, 1])


@pytest.mark.parametrize("size", [1, 7, 4999, 5000, 9000])
def test_every_row_counts_once(size):
    total, (n_rows, n_blocks) = sum_over_blocks(total_and_count, len(VALUES), size)
    assert total == pytest.approx(VALUES.sum(), rel=1e-10)
    assert n_rows == len(VALUES)
    assert n_blocks == -(-len(VALUES) // size)


def test_the_number_of_threads_does_not_change_one_bit(monkeypatch):
    totals = []
    for n in (1, 2, 5):
        monkeypatch.setattr(blocks, "n_threads", lambda n=n: n)
        totals.append(sum_over_blocks(total_and_count, len(VALUES), 7)[0])
    assert totals[0] == totals[1] == totals[2]


def test_no_rows_have_no_sum():
    assert sum_over_blocks(total_and_count, 0, 7) == []


def test_an_error_in_a_thread_is_raised():
    def fails(rows):
        raise ValueError(f"at {rows.start}")

    with pytest.raises(ValueError, match="at 0"):
        sum_over_blocks(fails, 100, 1)


def test_results_come_in_order():
    assert list(on_threads(lambda i: i * i, range(50))) == [i * i for i in range(50)]


def test_scratch_is_kept_by_name_and_thread_and_grows():
    scratch = Scratch()
    first = scratch.array("a", (4, 5))
    assert np.shares_memory(first, scratch.array("a", (2, 5)))
    assert not np.shares_memory(first, scratch.array("b", (4, 5)))
    assert scratch.array("a", (40, 5)).shape == (40, 5)
    assert scratch.array("a", (4, 5), np.float32).dtype == np.float32
    elsewhere = []
    thread = threading.Thread(target=lambda: elsewhere.append(scratch.array("a", (4, 5), np.float32)))
    thread.start()
    thread.join()
    assert not np.shares_memory(elsewhere[0], scratch.array("a", (4, 5), np.float32))


def test_blas_keeps_to_one_thread_inside_and_gets_its_own_back():
    def n_blas():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = n_blas()
    with one_blas_thread():
        assert set(n_blas()) <= {1}
    assert n_blas() == before


def test_blocks_hold_about_so_many_values():
    assert block_size(360) * 360 <= blocks.BLOCK_VALUES
    assert block_size(10**9) == 16
    assert block_size(0) == blocks.BLOCK_VALUES
