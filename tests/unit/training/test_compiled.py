"""torch.compile: used where it works, left with a reason where it does not."""

import shutil
from typing import Any

import pytest
import torch

from ichtune.models.network import create_network
from ichtune.recipe import Recipe
from ichtune.training.compiled import CompiledNetwork
from ichtune.training.fold_run import open_fold
from ichtune.workspace import Workspace

RECIPE = Recipe(architecture="tiny_convnet", windows="brain", image_px=32)  # type: ignore[arg-type]


def test_it_is_not_compiled_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda network: pytest.fail("compiled"))
    notes: list[str] = []
    network = create_network(RECIPE).eval()
    x_BCHW = torch.randn(2, 1, 32, 32)
    called = CompiledNetwork(network, False, notes)
    assert torch.equal(called(x_BCHW), network(x_BCHW))
    assert not called.is_compiled
    assert notes == []


def test_what_the_compiler_made_is_what_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    network = create_network(RECIPE).eval()
    monkeypatch.setattr(torch, "compile", lambda given: lambda x_BCHW: given(x_BCHW) + 1)
    x_BCHW = torch.randn(2, 1, 32, 32)
    called = CompiledNetwork(network, True, [])
    assert called.is_compiled
    assert torch.equal(called(x_BCHW), network(x_BCHW) + 1)


@pytest.mark.parametrize("fails_in", ["forward", "backward"])
@pytest.mark.parametrize("learnable_windows", [False, True])
def test_a_compiler_that_fails_leaves_the_plain_network_the_same_weights_and_the_reason(
    session_workspace: Workspace, monkeypatch: pytest.MonkeyPatch, fails_in: str, learnable_windows: bool
) -> None:
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no C++ compiler found\nand a long tail")

    def compiler(network: torch.nn.Module) -> Any:
        def call(x_BCHW: torch.Tensor) -> torch.Tensor:
            torch.rand(1)  # draws before it fails
            if fails_in == "forward":
                raise RuntimeError("no C++ compiler found\nand a long tail")
            return Broken.apply(network(x_BCHW))

        return call

    monkeypatch.setattr(torch, "compile", compiler)
    norm = {"architecture": "test_vit", "dropout": 0.5, "epochs": 1, "accumulation": 2}  # no batch norm to see twice
    settings = {**norm, "learnable_windows": learnable_windows, "batch_size": 16, "windows": "brain", "image_px": 32}
    runs = []
    for wanted in (True, False):
        run = open_fold(session_workspace, Recipe(**settings, compile=wanted), 0, torch.device("cpu")).run
        run.run_epoch()
        runs.append(run)
    assert runs[0].notes == ["not compiled: RuntimeError: no C++ compiler found"]
    assert runs[1].notes == []
    for one, other in zip(runs[0].network.parameters(), runs[1].network.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_the_real_compiler_trains_windows_that_are_learnt_in_parts(session_workspace: Workspace) -> None:
    settings = {"architecture": "tiny_convnet", "epochs": 1, "accumulation": 2, "batch_size": 16, "windows": "brain"}
    runs = []
    for wanted in (True, False):
        recipe = Recipe(**settings, image_px=32, learnable_windows=True, compile=wanted)
        run = open_fold(session_workspace, recipe, 0, torch.device("cpu")).run
        run.run_epoch()
        runs.append(run)
    assert runs[0].notes == []
    for one, other in zip(runs[0].network.parameters(), runs[1].network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-4)
