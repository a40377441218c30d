"""Prediction: probabilities in the order asked for, and the same from a file."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ichtune.data.dataset import SliceBatches
from ichtune.errors import DataError
from ichtune.labels import N_LABELS
from ichtune.models.create import create_model
from ichtune.recipe import Recipe
from ichtune.training import predict
from ichtune.training.checkpoint import save_checkpoint
from ichtune.training.predict import autocast, load_model, predict_rows, to_input
from ichtune.workspace import Workspace

CPU = torch.device("cpu")
RECIPE = Recipe(architecture="tiny_convnet", windows="brain_subdural_bone", image_px=32, neighbours=1)  # type: ignore[arg-type]


@pytest.fixture
def data(session_workspace: Workspace) -> SliceBatches:
    return SliceBatches(session_workspace.hu_cache, session_workspace.slices, 32, RECIPE.neighbours)


@pytest.fixture
def rows(session_workspace: Workspace) -> np.ndarray:
    return session_workspace.labelled.index.to_numpy()


def model() -> torch.nn.Module:
    torch.manual_seed(3)
    return create_model("tiny_convnet", RECIPE.n_channels, dropout=0.5)


def test_input_has_a_channel_for_each_window_and_slice_and_lies_between_minus_one_and_one(
    data: SliceBatches, rows: np.ndarray
) -> None:
    x_BCHW = to_input(data.batch(rows[:3]).hu_BCHW, RECIPE, CPU)
    assert x_BCHW.shape == (3, 9, 32, 32)
    assert x_BCHW.dtype == torch.float32
    assert x_BCHW.is_contiguous(memory_format=torch.channels_last)
    assert x_BCHW.min() == -1.0
    assert x_BCHW.max() <= 1.0


def test_probabilities_follow_the_rows_whatever_the_batches(
    data: SliceBatches, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = model()
    done: list[int] = []
    monkeypatch.setattr(predict, "PREDICT_BATCH", {"cpu": 16})
    p_NL = predict_rows(net, RECIPE, data, rows, CPU, done.append)
    assert p_NL.shape == (len(rows), N_LABELS)
    assert p_NL.dtype == np.float64
    assert ((p_NL > 0) & (p_NL < 1)).all()
    assert done == [16, 32, 48, 50]
    order = np.random.default_rng(0).permutation(len(rows))
    np.testing.assert_allclose(predict_rows(net, RECIPE, data, rows[order], CPU), p_NL[order], atol=1e-6)


def test_no_rows_give_no_predictions(data: SliceBatches) -> None:
    assert predict_rows(model(), RECIPE, data, np.array([], dtype=int), CPU).shape == (0, N_LABELS)


def test_a_saved_model_predicts_the_same(data: SliceBatches, rows: np.ndarray, tmp_path: Path) -> None:
    net = model()
    expected = predict_rows(net, RECIPE, data, rows, CPU)
    path = tmp_path / "weights.safetensors"
    save_checkpoint(path, net.state_dict(), {"kind": "weights", "recipe": RECIPE.to_dict()})
    loaded, recipe = load_model(path, CPU)
    assert recipe == RECIPE
    np.testing.assert_array_equal(predict_rows(loaded, recipe, data, rows, CPU), expected)


def test_a_checkpoint_to_resume_from_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "resume.safetensors"
    save_checkpoint(path, {}, {"kind": "resume", "recipe": RECIPE.to_dict()})
    with pytest.raises(DataError, match=r"must be of kind 'weights', got 'resume'"):
        load_model(path, CPU)


def test_a_processor_computes_in_full_precision() -> None:
    with autocast(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
