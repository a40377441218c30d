"""Where training starts: at the rates that the loss sees, with the data's moments, or from another run's weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ichtune.models.network import create_network
from ichtune.recipe import Recipe
from ichtune.training.fold_run import fold_rows, open_batches
from ichtune.training.predict import save_model
from ichtune.training.start import start_network, start_rates
from ichtune.workspace import Workspace

RECIPE = Recipe(architecture="tiny_convnet", windows="brain", image_px=32)  # type: ignore[arg-type]


def test_plain_rates_are_the_means_of_the_labels(session_workspace: Workspace) -> None:
    train = fold_rows(session_workspace, 0).train
    rates_L = start_rates(RECIPE, open_batches(session_workspace, RECIPE), train)
    np.testing.assert_allclose(rates_L, session_workspace.labels(train).mean(axis=0), rtol=1e-6)


def test_rates_are_those_of_the_weighted_and_resampled_slices(session_workspace: Workspace) -> None:
    train = fold_rows(session_workspace, 0).train
    y_NL = session_workspace.labels(train)
    shifted = replace(RECIPE, negative_share=0.5, positive_weights=(3, 1, 1, 1, 1, 1), calibration="prior_shift")
    rates_L = start_rates(shifted, open_batches(session_workspace, shifted), train)
    n, positive = len(y_NL), y_NL[:, 0].sum()
    assert rates_L[0] == np.float64(3 * positive / (3 * positive + 0.5 * (n - positive))).round(15) or np.isclose(
        rates_L[0], 3 * positive / (3 * positive + 0.5 * (n - positive)), rtol=1e-6
    )
    np.testing.assert_allclose(rates_L[1:], y_NL[:, 1:].sum(axis=0) / (positive + 0.5 * (n - positive)), rtol=1e-6)


def test_each_block_of_targets_starts_at_the_rates(session_workspace: Workspace) -> None:
    recipe = replace(RECIPE, neighbour_targets=0.5)
    data, train = open_batches(session_workspace, recipe), fold_rows(session_workspace, 0).train
    network, notes = start_network(recipe, data, train)
    with torch.no_grad():
        p_BK = torch.sigmoid(network.eval()(torch.randn(3, 1, 32, 32))).numpy()
    np.testing.assert_allclose(p_BK, np.tile(start_rates(recipe, data, train), (3, 3)), rtol=1e-5)
    assert notes == []


def test_a_warm_start_is_the_other_run_s_newest_network(session_workspace: Workspace, tmp_path: Path) -> None:
    torch.manual_seed(3)
    one, other = create_network(RECIPE), create_network(RECIPE)
    path = tmp_path / "w.safetensors"
    save_model(path, [one.state_dict(), other.state_dict()], RECIPE, {})
    rows = fold_rows(session_workspace, 0).train
    network, notes = start_network(RECIPE, open_batches(session_workspace, RECIPE), rows, path)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
    assert notes == []
