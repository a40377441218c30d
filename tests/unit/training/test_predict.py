"""Prediction: probabilities in the order asked for, averaged over views and networks, and the same from a file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ichtune.data.dataset import SliceBatches
from ichtune.errors import DataError
from ichtune.labels import N_LABELS
from ichtune.models.network import Network, create_network
from ichtune.recipe import Recipe
from ichtune.training import predict
from ichtune.training.checkpoint import save_checkpoint
from ichtune.training.predict import FoldModel, extract, load_model, predict_rows, save_model
from ichtune.training.tta import VIEWS
from ichtune.workspace import Workspace

CPU = torch.device("cpu")
RECIPE = Recipe(
    architecture="tiny_convnet",
    windows="brain_subdural_bone",  # type: ignore[arg-type]
    image_px=32,
    neighbours=1,
    dropout=0.5,
)


@pytest.fixture
def data(session_workspace: Workspace) -> SliceBatches:
    return SliceBatches(session_workspace.hu_cache, session_workspace.slices, RECIPE)


@pytest.fixture
def rows(session_workspace: Workspace) -> np.ndarray:
    return session_workspace.labelled.index.to_numpy()


def network(seed: int = 3) -> Network:
    torch.manual_seed(seed)
    return create_network(RECIPE)


def test_probabilities_follow_the_rows_whatever_the_batches(
    data: SliceBatches, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = FoldModel((network(),))
    done: list[int] = []
    monkeypatch.setattr(predict, "PREDICT_BATCH", {"cpu": 16})
    p_NL = predict_rows(model, RECIPE, data, rows, CPU, done.append)
    assert p_NL.shape == (len(rows), N_LABELS)
    assert p_NL.dtype == np.float64
    assert ((p_NL > 0) & (p_NL < 1)).all()
    assert done == [16, 32, 48, 50]
    order = np.random.default_rng(0).permutation(len(rows))
    np.testing.assert_allclose(predict_rows(model, RECIPE, data, rows[order], CPU), p_NL[order], atol=1e-6)


def test_no_rows_give_no_predictions(data: SliceBatches) -> None:
    none = np.array([], dtype=int)
    assert predict_rows(FoldModel((network(),)), RECIPE, data, none, CPU).shape == (0, N_LABELS)
    found = extract(FoldModel((network(),)), RECIPE, data, none, CPU, embeddings=True)
    assert found.e_MND is not None
    assert found.e_MND.shape[:2] == (1, 0)


def test_several_networks_are_extracted_in_one_pass_over_the_slices(data: SliceBatches, rows: np.ndarray) -> None:
    networks = (network(3), network(4), network(5))
    alone = [extract(FoldModel((one,)), RECIPE, data, rows, CPU, embeddings=True) for one in networks]
    reads: list[int] = []
    gather = data.cache.gather
    data.cache.gather = lambda wanted: reads.append(len(wanted)) or gather(wanted)  # type: ignore[method-assign]
    together = extract(FoldModel(networks), RECIPE, data, rows, CPU, embeddings=True)
    del data.cache.gather
    assert sum(reads) == 3 * len(rows)  # a slice and its neighbours, once
    assert together.e_MND is not None
    for m, one in enumerate(alone):
        assert one.e_MND is not None
        np.testing.assert_array_equal(together.p_MNL[m], one.p_MNL[0])
        np.testing.assert_array_equal(together.e_MND[m], one.e_MND[0])
    p_NL = predict_rows(FoldModel(networks), RECIPE, data, rows, CPU)
    np.testing.assert_allclose(p_NL, together.p_MNL.mean(axis=0), rtol=1e-12)


def test_embeddings_are_what_the_classifier_answers_from(data: SliceBatches, rows: np.ndarray) -> None:
    one = network()
    found = extract(FoldModel((one,)), RECIPE, data, rows, CPU, embeddings=True)
    assert found.e_MND is not None
    with torch.no_grad():
        logits_NK = one.eval().answer(torch.from_numpy(found.e_MND[0]))
    np.testing.assert_allclose(torch.sigmoid(logits_NK).numpy(), found.p_MNL[0], atol=1e-6)


@pytest.mark.parametrize("tta", ["flip", "scales"])
def test_views_are_averaged_in_probability_and_in_embedding(data: SliceBatches, rows: np.ndarray, tta: str) -> None:
    one, some = network().eval(), rows[:9]
    found = extract(FoldModel((one,)), replace(RECIPE, tta=tta), data, some, CPU, embeddings=True)
    hu_BSHW = torch.from_numpy(data.batch(some).hu_BSHW)
    with torch.no_grad():
        e_VBD = torch.stack([one.embed(one.inputs(view(hu_BSHW))) for view in VIEWS[tta]])
        p_VBL = torch.sigmoid(torch.stack([one.answer(e_BD) for e_BD in e_VBD]).double())
    np.testing.assert_allclose(found.p_MNL[0], p_VBL.mean(dim=0), rtol=1e-5)
    assert found.e_MND is not None
    np.testing.assert_allclose(found.e_MND[0], e_VBD.mean(dim=0), rtol=1e-4, atol=1e-6)


def test_views_and_windows_are_made_in_full_precision_where_the_network_is_not(
    data: SliceBatches, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    one = network()
    embed = one.embed
    one.embed = lambda x_BCHW: seen.append(x_BCHW.clone()) or embed(x_BCHW)  # type: ignore[assignment, func-returns-value]
    monkeypatch.setattr(predict, "autocast", lambda device: torch.autocast("cpu", dtype=torch.bfloat16))
    extract(FoldModel((one,)), replace(RECIPE, tta="rotate10"), data, rows[:4], CPU)
    hu_BSHW = torch.from_numpy(data.batch(rows[:4]).hu_BSHW)
    for x_BCHW, view in zip(seen, VIEWS["rotate10"], strict=True):
        with torch.no_grad():
            assert torch.equal(x_BCHW, one.inputs(view(hu_BSHW)))


def test_a_saved_model_predicts_the_same(data: SliceBatches, rows: np.ndarray, tmp_path: Path) -> None:
    networks = (network(3), network(4))
    expected = predict_rows(FoldModel(networks), RECIPE, data, rows, CPU)
    path = tmp_path / "weights.safetensors"
    save_model(path, [one.state_dict() for one in networks], RECIPE, {"fold": 1})
    loaded, recipe = load_model(path, CPU)
    assert recipe == RECIPE
    np.testing.assert_array_equal(predict_rows(loaded, recipe, data, rows, CPU), expected)


def test_weights_of_another_network_say_so(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_model(path, [network().state_dict()], replace(RECIPE, architecture="small_convnet"), {})
    with pytest.raises(DataError, match=r"does not hold the weights of its recipe \(small_convnet"):
        load_model(path, CPU)


def test_a_model_is_loaded_without_what_it_was_started_from(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    recipe = replace(RECIPE, warm_start="0123456789ab")
    save_model(path, [network().state_dict()], recipe, {})
    assert load_model(path, CPU)[1] == recipe


def test_a_checkpoint_to_resume_from_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "resume.safetensors"
    save_checkpoint(path, {}, {"kind": "resume", "recipe": RECIPE.to_dict()})
    with pytest.raises(DataError, match=r"must be of kind 'weights', got 'resume'"):
        load_model(path, CPU)


def test_batches_that_do_not_fit_are_halved_and_give_the_same(
    data: SliceBatches, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "PREDICT_BATCH", {"cpu": 16})
    one, done = network(), list[int]()
    expected = extract(FoldModel((one,)), RECIPE, data, rows, CPU, embeddings=True)
    embed, given = one.embed, list[int]()

    def limited(x_BCHW: torch.Tensor) -> torch.Tensor:
        given.append(len(x_BCHW))
        if len(x_BCHW) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return embed(x_BCHW)

    one.embed = limited  # type: ignore[method-assign]
    found = extract(FoldModel((one,)), RECIPE, data, rows, CPU, embeddings=True, on_batch=done.append)
    np.testing.assert_allclose(found.p_MNL, expected.p_MNL, atol=1e-6)
    assert found.e_MND is not None
    np.testing.assert_allclose(found.e_MND, expected.e_MND, atol=1e-5)  # type: ignore[arg-type]
    assert done == [16, 32, 48, 50]
    assert given == [16, 8, *[4] * 12, 2]  # found out once, and kept to
