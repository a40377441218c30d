"""Batches: the right neighbours, every row once, nothing augmented but training."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from ichtune.data.cache.resize import AIR_HU
from ichtune.data.dataset import SliceBatches, batch_rows, n_steps, neighbour_rows, resized
from ichtune.data.sampling import epoch_rows, n_epoch_rows
from ichtune.data.targets import Targets, make_targets
from ichtune.errors import DataError
from ichtune.labels import N_LABELS
from ichtune.recipe import Recipe
from ichtune.workspace import Workspace

FakeWorkspace = Callable[..., Workspace]


def recipe(**keys: Any) -> Recipe:
    return Recipe(**{"image_px": 32, "neighbours": 1, "batch_size": 16, "seed": 3} | keys)


def open_data(workspace: Workspace, **keys: Any) -> SliceBatches:
    return SliceBatches(workspace.hu_cache, workspace.slices, recipe(**keys))


def labelled_rows(workspace: Workspace) -> np.ndarray:
    return workspace.labelled.index.to_numpy()


def test_neighbours_never_leave_the_series(session_workspace: Workspace) -> None:
    slices = session_workspace.slices
    usable = slices.index[slices["status"] == "ok"].to_numpy()
    offsets = range(-3, 4)
    table = neighbour_rows(slices, offsets)[usable]
    series = slices["series_instance_uid"].to_numpy(str)
    assert (series[table] == series[usable][:, None]).all()
    ranks = slices["slice_rank"].to_numpy()
    last = slices.groupby("series_instance_uid")["slice_rank"].transform("max").to_numpy()[usable][:, None]
    wanted = np.clip(ranks[usable][:, None] + np.array(offsets), 0, last)
    np.testing.assert_array_equal(ranks[table], wanted)


def test_a_batch_is_the_cache_with_padding_raised_to_air(session_workspace: Workspace) -> None:
    data = open_data(session_workspace)
    rows = labelled_rows(session_workspace)[[5, 2, 9]]
    batch = data.batch(rows)
    assert batch.hu_BSHW.dtype == np.float32
    assert batch.hu_BSHW.shape == (3, 3, 32, 32)
    expected = np.maximum(session_workspace.hu_cache.gather(rows), AIR_HU)
    np.testing.assert_array_equal(batch.hu_BSHW[:, 1], expected)
    np.testing.assert_array_equal(batch.y_BK, session_workspace.labels(rows))
    np.testing.assert_array_equal(batch.rows, rows)
    assert batch.hu_BSHW.min() >= AIR_HU


@pytest.mark.parametrize(
    "keys",
    [
        {"neighbours": 0},
        {"neighbours": 2},
        {"neighbours": 1, "neighbour_stride": 2},
        {"neighbours": 2, "neighbour_side": "below"},
        {"neighbours": 1, "neighbour_side": "above"},
    ],
)
def test_the_slices_that_are_seen_are_those_at_the_recipes_offsets(
    session_workspace: Workspace, keys: dict[str, Any]
) -> None:
    slices, rows = session_workspace.slices, labelled_rows(session_workspace)[:8]
    batch = open_data(session_workspace, **keys).batch(rows)
    for hu_SHW, row in zip(batch.hu_BSHW, rows, strict=True):
        own = slices.loc[row]
        series = slices[(slices["series_instance_uid"] == own["series_instance_uid"]) & (slices["slice_rank"] >= 0)]
        ranks = np.clip(own["slice_rank"] + np.array(recipe(**keys).offsets), 0, len(series) - 1)
        wanted = [series.index[series["slice_rank"] == rank][0] for rank in ranks]
        np.testing.assert_array_equal(hu_SHW, session_workspace.hu_cache.gather(np.array(wanted)))


def test_targets_are_those_of_the_recipe_until_others_are_set(session_workspace: Workspace) -> None:
    keys = {"neighbour_targets": 0.5, "boundary_softness": 0.2, "loss_weights": (1, 2, 3, 4, 5, 6)}
    data, rows = open_data(session_workspace, **keys), labelled_rows(session_workspace)[:9]
    expected = make_targets(session_workspace.slices, recipe(**keys))
    batch = data.batch(rows)
    assert batch.y_BK.shape == (9, 3 * N_LABELS)
    np.testing.assert_array_equal(batch.y_BK, expected.y_NK[rows])
    np.testing.assert_array_equal(batch.weight_BK, expected.weight_NK[rows])
    data.set_targets(Targets(1 - expected.y_NK, 2 * expected.weight_NK))
    np.testing.assert_array_equal(data.batch(rows).y_BK, 1 - expected.y_NK[rows])
    np.testing.assert_array_equal(data.batch(rows).weight_BK, 2 * expected.weight_NK[rows])
    np.testing.assert_array_equal(data.labels(rows), session_workspace.labels(rows))
    with pytest.raises(DataError, match=r"targets must be given for each of \d+ rows, got 3"):
        data.set_targets(Targets(expected.y_NK[:3], expected.weight_NK[:3]))


def test_labels_are_unknown_where_there_are_none(session_workspace: Workspace) -> None:
    data, rows = open_data(session_workspace), session_workspace.unlabelled.index.to_numpy()
    assert np.isnan(data.labels(rows)).all()
    assert (data.batch(rows).weight_BK == 0).all()


def test_each_slice_brings_the_window_of_its_file(session_workspace: Workspace) -> None:
    slices, rows = session_workspace.slices, labelled_rows(session_workspace)
    own_B2 = open_data(session_workspace).batch(rows).own_B2
    assert own_B2.dtype == np.float32
    np.testing.assert_array_equal(own_B2, slices.loc[rows, ["window_center_hu", "window_width_hu"]])
    assert 0 < np.isnan(own_B2[:, 0]).sum() < len(rows)


def test_another_size_is_reached_by_area(session_workspace: Workspace) -> None:
    rows = labelled_rows(session_workspace)[:4]
    half = open_data(session_workspace, image_px=16, neighbours=0).batch(rows).hu_BSHW
    whole = open_data(session_workspace, neighbours=0).batch(rows).hu_BSHW
    np.testing.assert_allclose(half, whole.reshape(4, 1, 16, 2, 16, 2).mean(axis=(3, 5)), atol=1e-3)
    assert open_data(session_workspace, image_px=48).batch(rows).hu_BSHW.shape == (4, 3, 48, 48)


@pytest.mark.parametrize(
    ("size", "image_px"),
    [((64, 64), 28), ((64, 64), 32), ((64, 64), 63), ((50, 70), 45), ((64, 64), 65), ((20, 30), 40), ((30, 50), 40)],
)
def test_slices_are_resized_together_as_one_by_one(size: tuple[int, int], image_px: int) -> None:
    hu_NHW = np.random.default_rng(0).uniform(-1024, 3000, (37, *size)).astype(np.float32)
    how = cv2.INTER_LINEAR if image_px > max(size) else cv2.INTER_AREA
    expected = [cv2.resize(hu_HW, (image_px, image_px), interpolation=how) for hu_HW in hu_NHW]
    np.testing.assert_allclose(resized(hu_NHW, image_px), expected, atol=1e-2)


def test_many_slices_do_not_run_into_each_other() -> None:
    hu_NHW = np.ones((600, 96, 96), np.float32) * np.where(np.arange(600) % 2, 3000, -1024)[:, None, None]
    out = resized(hu_NHW.astype(np.float32), 42)
    np.testing.assert_allclose(out, hu_NHW[:, :42, :42], atol=1e-2)


def test_the_same_size_and_no_slice_at_all_need_no_resizing() -> None:
    hu_NHW = np.zeros((3, 8, 8), np.float32)
    assert resized(hu_NHW, 8) is hu_NHW
    assert resized(hu_NHW[:0], 4).shape == (0, 4, 4)


def test_padding_is_raised_before_it_is_mixed_with_what_lies_beside_it(
    session_workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = open_data(session_workspace, image_px=16, neighbours=0)
    padded = np.where(np.arange(32) % 2, -2000, 0).astype(np.int16) * np.ones((1, 32, 1), np.int16)
    monkeypatch.setattr(data.cache, "gather", lambda rows: padded.copy())
    np.testing.assert_allclose(data.batch(labelled_rows(session_workspace)[:1]).hu_BSHW, -512)


def test_a_refused_slice_is_no_input(session_workspace: Workspace) -> None:
    refused = session_workspace.slices.index[session_workspace.slices["status"] == "refused"].to_numpy()
    with pytest.raises(DataError):
        open_data(session_workspace).batch(refused)


@pytest.mark.parametrize("batch_size", [1, 7, 8, 49, 50, 64])
def test_training_visits_each_row_once_an_epoch(session_workspace: Workspace, batch_size: int) -> None:
    data, rows = open_data(session_workspace), labelled_rows(session_workspace)
    batches = list(data.training(rows, recipe(batch_size=batch_size), 0))
    visited = np.concatenate([batch.rows for batch in batches])
    assert sorted(visited) == sorted(rows)
    assert visited.tolist() != rows.tolist()
    assert len(batches) == n_steps(len(rows), batch_size)
    for batch in batches:
        np.testing.assert_array_equal(batch.y_BK, session_workspace.labels(batch.rows))


def test_training_takes_the_rows_that_are_drawn(session_workspace: Workspace) -> None:
    rows = labelled_rows(session_workspace)
    sampled = recipe(slices_per_series=3)
    batches = list(open_data(session_workspace).training(rows, sampled, 4))
    visited = np.concatenate([batch.rows for batch in batches])
    np.testing.assert_array_equal(visited, epoch_rows(rows, session_workspace.slices, sampled, 4))
    assert len(batches) == n_steps(n_epoch_rows(rows, session_workspace.slices, sampled), 16)
    assert len(visited) < len(rows)


def test_training_is_decided_by_seed_and_epoch(session_workspace: Workspace) -> None:
    data, rows = open_data(session_workspace), labelled_rows(session_workspace)

    def epoch_of(seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        batches = list(data.training(rows, recipe(augmentation="affine", seed=seed), epoch))
        return np.concatenate([b.rows for b in batches]), np.concatenate([b.hu_BSHW for b in batches])

    order, hu = epoch_of(3, 1)
    again_order, again_hu = epoch_of(3, 1)
    np.testing.assert_array_equal(order, again_order)
    np.testing.assert_array_equal(hu, again_hu)
    assert not np.array_equal(order, epoch_of(3, 2)[0])
    assert not np.array_equal(order, epoch_of(4, 1)[0])


@pytest.mark.parametrize("start_step", [0, 1, 3, 99])
def test_an_epoch_taken_up_at_a_step_goes_on_with_the_same_batches(
    session_workspace: Workspace, start_step: int
) -> None:
    data, rows = open_data(session_workspace), labelled_rows(session_workspace)
    augmented = recipe(augmentation="affine_cutout", batch_size=8)
    whole = list(data.training(rows, augmented, 2))[start_step:]
    late = list(data.training(rows, augmented, 2, start_step))
    assert len(late) == len(whole)
    for one, other in zip(late, whole, strict=True):
        np.testing.assert_array_equal(one.rows, other.rows)
        np.testing.assert_array_equal(one.hu_BSHW, other.hu_BSHW)


def test_training_is_augmented_and_validation_never(session_workspace: Workspace) -> None:
    data, rows = open_data(session_workspace, augmentation="affine"), labelled_rows(session_workspace)
    plain = {row: hu for row, hu in zip(rows, data.batch(rows).hu_BSHW, strict=True)}
    for batch in data.in_order(rows, 16):
        assert all(np.array_equal(hu, plain[row]) for row, hu in zip(batch.rows, batch.hu_BSHW, strict=True))

    def share_of_plain(augmentation: str) -> float:
        batches = data.training(rows, replace(recipe(), augmentation=augmentation), 0)
        same = [np.array_equal(h, plain[row]) for b in batches for row, h in zip(b.rows, b.hu_BSHW, strict=True)]
        return sum(same) / len(same)

    assert share_of_plain("none") == 1
    assert 0 < share_of_plain("affine") < 1


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
