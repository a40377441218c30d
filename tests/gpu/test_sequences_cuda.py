"""Sequence models of the second level on a CUDA device; skipped with a plain reason where there is none."""

from typing import Any

import numpy as np
import pytest
import torch

from ichtune.second_level.fold_run import open_second_level_fold
from ichtune.second_level.inputs import LevelInputs, load_inputs
from ichtune.second_level.models import create_series_model
from ichtune.second_level.sequences import SequenceModel
from ichtune.second_level_recipe import SEQUENCES, SecondLevelRecipe

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

GPU, CPU = torch.device("cuda"), torch.device("cpu")


def recipe_of(model: str, **keys: Any) -> SecondLevelRecipe:
    return SecondLevelRecipe(
        **{"model": model, "hidden": 16, "epochs": 4, "batch_size": 8, "lr": 5e-3, "dropout": 0.0, **keys}
    )


def model_on(device: torch.device | None, recipe: SecondLevelRecipe) -> SequenceModel:
    """A model on a device, or where it computes by itself."""
    made = create_series_model(recipe)
    assert isinstance(made, SequenceModel)
    return made if device is None else type(made)(recipe, device)


@pytest.fixture
def inputs(first_level_workspace: Any) -> LevelInputs:
    return load_inputs(first_level_workspace(n_patients=30, n_slices=9), recipe_of("gru"))


def losses(model: SequenceModel, n_epochs: int) -> list[float]:
    return [model.run_epoch() for _ in range(n_epochs)]


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_gpu_learns_what_a_cpu_learns(name: str, inputs: LevelInputs) -> None:
    curves, predicted = [], []
    for device in (None, CPU):
        model = model_on(device, recipe_of(name)).begin(inputs.labelled, inputs.y_RL)
        assert all(parameter.device.type == model.device.type for parameter in model._begun().parameters())
        curves.append(losses(model, 4))
        predicted.append(model.predict(inputs.labelled))
        assert model.device.type == (GPU if device is None else CPU).type

    assert curves[0][-1] < 0.97 * curves[0][0]
    # a GPU multiplies in TF32 and adds up in any order
    np.testing.assert_allclose(curves[0], curves[1], rtol=0.01)
    np.testing.assert_allclose(predicted[0], predicted[1], atol=0.02)


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_run_taken_up_on_a_gpu_goes_on_where_it_was(name: str, inputs: LevelInputs) -> None:
    recipe = recipe_of(name, dropout=0.3)
    whole = model_on(None, recipe).begin(inputs.labelled, inputs.y_RL)
    losses(whole, 2)
    state = whole.state()
    taken_up = model_on(None, recipe).restore(state).begin(inputs.labelled, inputs.y_RL)

    assert all(np.array_equal(array, taken_up.state()[0][key]) for key, array in state[0].items())
    # masks of dropout are drawn from seed and epoch; kernels of a GPU add up in any order
    np.testing.assert_allclose(losses(taken_up, 2), losses(whole, 2), rtol=1e-3)


@pytest.mark.parametrize("name", SEQUENCES)
def test_what_a_gpu_learnt_predicts_on_a_cpu(name: str, inputs: LevelInputs) -> None:
    gpu = model_on(None, recipe_of(name)).begin(inputs.labelled, inputs.y_RL)
    losses(gpu, 2)
    cpu = model_on(CPU, recipe_of(name)).restore(gpu.state())

    np.testing.assert_allclose(cpu.predict(inputs.labelled), gpu.predict(inputs.labelled), atol=5e-3)


def test_a_gpu_draws_from_the_seed_and_disturbs_nobody(inputs: LevelInputs) -> None:
    first, again, other = (
        model_on(None, recipe_of("gru", dropout=0.5, seed=seed)).begin(inputs.labelled, inputs.y_RL)
        for seed in (7, 7, 8)
    )
    curve = losses(first, 2)
    torch.rand(5, device=GPU)
    before = torch.cuda.get_rng_state()

    np.testing.assert_allclose(losses(again, 2), curve, rtol=1e-3)
    assert torch.equal(torch.cuda.get_rng_state(), before)
    assert not np.allclose(losses(other, 2), curve, rtol=1e-3)


def test_a_fold_is_trained_on_the_gpu(first_level_workspace: Any) -> None:
    run = open_second_level_fold(first_level_workspace(), recipe_of("gru", epochs=1), 0)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run.run_epoch()

    assert torch.cuda.max_memory_allocated() > before
