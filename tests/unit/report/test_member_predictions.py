import weakref

import numpy as np
import pandas as pd
import pytest
import torch

from ichtune.ensemble.members.panel import load_panel
from ichtune.errors import DataError
from ichtune.recipe import Recipe
from ichtune.report import member_predictions as module
from ichtune.report.fold_ensemble import ensemble_of
from ichtune.report.member_predictions import member_predictions
from ichtune.training.predict import load_model

pytestmark = pytest.mark.slow  # whole workspaces are searched, trained, blended or drawn

COMMON = {"architecture": "tiny_convnet", "image_px": 32, "batch_size": 8, "epochs": 1}


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    """Where the runs were predicted."""
    monkeypatch.setattr(module, "best_device", lambda: torch.device("cpu"))


def test_it_is_what_the_runs_say_of_the_test_set(stacked_networks):
    workspace, stacked = stacked_networks()
    ensemble = ensemble_of(workspace)
    assert [member.recipe_id for member in ensemble.stacked] == sorted(stacked)
    assert ensemble.unweighted == ()
    panel, steps = load_panel(workspace), []

    p_MTL = member_predictions(
        ensemble, workspace, workspace.unlabelled.index.to_numpy(), lambda done, total: steps.append((done, total))
    )

    assert [member.recipe_id for member in ensemble.members] == [member.recipe_id for member in panel.members]
    np.testing.assert_allclose(p_MTL, panel.p_MTL, rtol=0, atol=1e-6)
    assert panel.p_MTL.std(axis=1).min() > 1e-3, "one number for every slice would hide mistakes"
    assert steps[-1] == (12, 12)
    assert sorted(steps) == steps


def test_networks_without_a_weight_run_for_the_second_level(stacked_networks):
    workspace, stacked = stacked_networks(alone=True)
    ensemble = ensemble_of(workspace)
    networks = sorted(set(workspace.run_ids()) - set(stacked))
    assert [member.recipe_id for member in ensemble.members] == sorted(stacked)
    assert [member.recipe_id for member in ensemble.unweighted] == networks

    p_MTL = member_predictions(ensemble, workspace, workspace.unlabelled.index.to_numpy())

    panel = load_panel(workspace, stacked)
    np.testing.assert_allclose(p_MTL, panel.p_MTL, rtol=0, atol=1e-6)


def test_the_order_of_slices_does_not_matter(stacked_networks):
    workspace, _ = stacked_networks(alone=True)
    rows = workspace.unlabelled.index.to_numpy()
    shuffled = np.random.default_rng(0).permutation(len(rows))
    ensemble = ensemble_of(workspace)
    expected = member_predictions(ensemble, workspace, rows)[:, shuffled]
    np.testing.assert_allclose(member_predictions(ensemble, workspace, rows[shuffled]), expected, rtol=0, atol=1e-6)


@pytest.mark.slow  # networks over some hundred slices
@pytest.mark.parametrize("snapshots", [1, 2])
def test_embeddings_come_from_the_networks_through_the_kept_space(
    fake_workspace, stacked_networks, tmp_path, write_untrained, snapshots
):
    workspace = fake_workspace("embedded", n_test_patients=42)
    for seed, windows in enumerate(("brain", "subdural")):
        write_untrained(workspace, Recipe(**COMMON, windows=windows), seed, embeddings=True, n_networks=snapshots)
    keys = {"model": "gru", "hidden": 8, "layers": 1, "epochs": 2, "batch_size": 4, "lr": 0.05, "embeddings": 3}
    workspace, stacked = stacked_networks(keys, alone=True, workspace=workspace)

    p_MTL = member_predictions(ensemble_of(workspace), workspace, workspace.unlabelled.index.to_numpy())

    expected = load_panel(workspace, stacked).p_MTL
    np.testing.assert_allclose(p_MTL, expected, rtol=0, atol=1e-6)
    assert expected.std(axis=1).min() > 1e-3


def test_one_network_is_gone_before_the_next_one_is_loaded(stacked_networks, monkeypatch):
    workspace, _ = stacked_networks(alone=True)
    loaded = []

    def load(path, device):
        assert [model() for model in loaded] == [None] * len(loaded)
        model, recipe = load_model(path, device)
        loaded.append(weakref.ref(model))
        return model, recipe

    monkeypatch.setattr(module, "load_model", load)
    member_predictions(ensemble_of(workspace), workspace, workspace.unlabelled.index.to_numpy())
    assert len(loaded) == 6


def test_a_second_level_that_cannot_be_used_is_known_before_a_network_runs(stacked_networks, monkeypatch):
    workspace, stacked = stacked_networks(alone=True)
    ensemble = ensemble_of(workspace)
    path = workspace.layout.runs / stacked[0] / "fold_2" / "weights.safetensors"
    path.write_bytes(b"nothing")
    monkeypatch.setattr(module, "load_model", lambda *_: pytest.fail("a network was loaded"))
    with pytest.raises(DataError, match=f"{path} is no second-level model"):
        member_predictions(ensemble, workspace, workspace.unlabelled.index.to_numpy())


def test_a_slice_alone_is_a_series(stacked_networks):
    workspace, _ = stacked_networks()
    p_MTL = member_predictions(ensemble_of(workspace), workspace, workspace.unlabelled.index.to_numpy()[:1])
    assert p_MTL.shape == (4, 1, 6)
    assert pd.notna(p_MTL).all()
