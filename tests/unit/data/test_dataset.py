"""Batches: the right neighbours, every row once, nothing augmented but training."""

from collections.abc import Callable

import numpy as np
import pytest

from ichtune.data.cache.resize import AIR_HU
from ichtune.data.dataset import SliceBatches, batch_rows, n_steps, neighbour_rows
from ichtune.errors import DataError
from ichtune.workspace import Workspace

FakeWorkspace = Callable[..., Workspace]


def open_data(workspace: Workspace, image_px: int = 32, neighbours: int = 1) -> SliceBatches:
    return SliceBatches(workspace.hu_cache, workspace.slices, image_px, neighbours)


def test_neighbours_never_leave_the_series(session_workspace: Workspace) -> None:
    slices = session_workspace.slices
    usable = slices.index[slices["status"] == "ok"].to_numpy()
    table = neighbour_rows(slices, 3)[usable]
    series = slices["series_instance_uid"].to_numpy(str)
    assert (series[table] == series[usable][:, None]).all()
    ranks = slices["slice_rank"].to_numpy()
    last = slices.groupby("series_instance_uid")["slice_rank"].transform("max").to_numpy()[usable][:, None]
    wanted = np.clip(ranks[usable][:, None] + np.arange(-3, 4), 0, last)
    np.testing.assert_array_equal(ranks[table], wanted)


def test_without_neighbours_a_slice_is_alone(session_workspace: Workspace) -> None:
    usable = session_workspace.labelled.index.to_numpy()
    np.testing.assert_array_equal(neighbour_rows(session_workspace.slices, 0)[usable, 0], usable)


def test_a_batch_is_the_cache_with_padding_raised_to_air(session_workspace: Workspace) -> None:
    data = open_data(session_workspace)
    rows = session_workspace.labelled.index.to_numpy()[[5, 2, 9]]
    batch = data.batch(rows)
    assert batch.hu_BCHW.dtype == np.float32
    assert batch.hu_BCHW.shape == (3, 3, 32, 32)
    expected = np.maximum(session_workspace.hu_cache.gather(rows), AIR_HU)
    np.testing.assert_array_equal(batch.hu_BCHW[:, 1], expected)
    np.testing.assert_array_equal(batch.y_BL, session_workspace.labels(rows))
    np.testing.assert_array_equal(batch.rows, rows)
    assert batch.hu_BCHW.min() >= AIR_HU


def test_another_size_is_reached_by_area(session_workspace: Workspace) -> None:
    rows = session_workspace.labelled.index.to_numpy()[:4]
    half = open_data(session_workspace, image_px=16, neighbours=0).batch(rows).hu_BCHW
    whole = open_data(session_workspace, neighbours=0).batch(rows).hu_BCHW
    np.testing.assert_allclose(half, whole.reshape(4, 1, 16, 2, 16, 2).mean(axis=(3, 5)), atol=1e-3)
    assert open_data(session_workspace, image_px=48).batch(rows).hu_BCHW.shape == (4, 3, 48, 48)


def test_a_refused_slice_is_no_input(session_workspace: Workspace) -> None:
    refused = session_workspace.slices.index[session_workspace.slices["status"] == "refused"].to_numpy()
    with pytest.raises(DataError):
        open_data(session_workspace).batch(refused)


@pytest.mark.parametrize("batch_size", [1, 7, 8, 49, 50, 64])
def test_training_visits_each_row_once_an_epoch(session_workspace: Workspace, batch_size: int) -> None:
    data, rows = open_data(session_workspace), session_workspace.labelled.index.to_numpy()
    batches = list(data.training(rows, batch_size, "flip", seed=3, epoch=0))
    visited = np.concatenate([batch.rows for batch in batches])
    assert sorted(visited) == sorted(rows)
    assert visited.tolist() != rows.tolist()
    assert len(batches) == n_steps(len(rows), batch_size)
    for batch in batches:
        np.testing.assert_array_equal(batch.y_BL, session_workspace.labels(batch.rows))


def test_training_is_decided_by_seed_and_epoch(session_workspace: Workspace) -> None:
    data, rows = open_data(session_workspace), session_workspace.labelled.index.to_numpy()

    def epoch_of(seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        batches = list(data.training(rows, 16, "affine", seed, epoch))
        return np.concatenate([b.rows for b in batches]), np.concatenate([b.hu_BCHW for b in batches])

    order, hu = epoch_of(3, 1)
    again_order, again_hu = epoch_of(3, 1)
    np.testing.assert_array_equal(order, again_order)
    np.testing.assert_array_equal(hu, again_hu)
    assert not np.array_equal(order, epoch_of(3, 2)[0])
    assert not np.array_equal(order, epoch_of(4, 1)[0])


def test_training_is_augmented_and_validation_never(session_workspace: Workspace) -> None:
    data, rows = open_data(session_workspace), session_workspace.labelled.index.to_numpy()
    plain = {row: hu for row, hu in zip(rows, data.batch(rows).hu_BCHW, strict=True)}
    for batch in data.in_order(rows, 16):
        assert all(np.array_equal(hu, plain[row]) for row, hu in zip(batch.rows, batch.hu_BCHW, strict=True))
    trained = [
        np.array_equal(hu, plain[row])
        for batch in data.training(rows, 16, "flip", seed=3, epoch=0)
        for row, hu in zip(batch.rows, batch.hu_BCHW, strict=True)
    ]
    assert 0 < sum(trained) < len(trained)


def test_prediction_keeps_the_order_asked_for(session_workspace: Workspace) -> None:
    rows = session_workspace.slices.query("status == 'ok'").index.to_numpy()[::-1]
    got = np.concatenate([batch.rows for batch in open_data(session_workspace).in_order(rows, 7)])
    np.testing.assert_array_equal(got, rows)


@pytest.mark.parametrize(
    ("n_rows", "batch_size", "sizes"),
    [(10, 4, [4, 4, 2]), (9, 4, [4, 5]), (1, 4, [1]), (4, 4, [4]), (5, 4, [5]), (0, 4, [])],
)
def test_a_lone_last_slice_joins_the_batch_before(n_rows: int, batch_size: int, sizes: list[int]) -> None:
    assert [len(rows) for rows in batch_rows(np.arange(n_rows), batch_size)] == sizes
    assert n_steps(n_rows, batch_size) == len(sizes)
