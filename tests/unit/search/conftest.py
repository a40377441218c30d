from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ichtune.recipe import Recipe
from ichtune.search.ledger import FINISHED, TrialRecord
from ichtune.space import Space, read_space

SPACE = """
version: 1
search: {algorithm: tpe, trials: 12, seed: 7, early_stop: {type: asha, grace: 1, max: 9, factor: 3}}
parameters:
  architecture: tiny_convnet
  windows: [brain, subdural, brain_subdural_bone]
  lr: {low: 1e-4, high: 1e-2, log: true}
  epochs: 9
start_with:
  - {windows: subdural, lr: 3e-3}
"""


@pytest.fixture
def space(tmp_path: Path) -> Space:
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    return read_space(path)


@pytest.fixture
def epoch() -> Callable[[int, float], dict[str, Any]]:
    def make(number: int, loss: float) -> dict[str, Any]:
        return {
            "epoch": number,
            "val_weighted_log_loss": loss,
            "train_loss": loss + 0.01,
            "lr": 1e-3,
            "seconds": 2.0,
            "images_per_second": 100.0,
        }

    return make


@pytest.fixture
def record(epoch: Callable[[int, float], dict[str, Any]]) -> Callable[..., TrialRecord]:
    """A trial that ended, as the ledger would tell it; its curve is the given losses."""

    def make(number: int, losses: list[float], status: str = FINISHED, lr: float = 1e-3, **recipe: Any) -> TrialRecord:
        told = {"params": {"lr": lr}, "distributions": {"lr": _LR}}
        chosen = Recipe(architecture="tiny_convnet", lr=lr, epochs=9, **recipe)
        curve = [epoch(e, loss) for e, loss in enumerate(losses, start=1)]
        return TrialRecord(number, {"lr": lr}, told, chosen, status, "", curve)

    return make


_LR = '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0001, "high": 0.01, "log": true}}'
