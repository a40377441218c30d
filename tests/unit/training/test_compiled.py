"""torch.compile: used where it works, left with a reason where it does not."""

from typing import Any

import pytest
import torch

from ichtune.models.network import create_network
from ichtune.recipe import Recipe
from ichtune.training.compiled import CompiledNetwork

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


def test_a_compiler_that_fails_leaves_the_plain_network_and_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    network = create_network(Recipe(**{**vars(RECIPE), "dropout": 0.5})).train()

    def broken(given: torch.nn.Module) -> Any:
        def call(x_BCHW: torch.Tensor) -> torch.Tensor:
            torch.rand(1)  # draws before it fails
            raise RuntimeError("no C++ compiler found\nand a long tail")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    notes: list[str] = []
    called, x_BCHW = CompiledNetwork(network, True, notes), torch.randn(2, 1, 32, 32)
    torch.manual_seed(1)
    got = called(x_BCHW)
    torch.manual_seed(1)
    torch.testing.assert_close(got, network(x_BCHW))
    called(x_BCHW)
    assert notes == ["not compiled: RuntimeError: no C++ compiler found"]
    assert not called.is_compiled
