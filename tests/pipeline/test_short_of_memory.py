"""A process that the system gives too little memory trains on, in smaller parts, and comes to the same."""

import json
import subprocess
import sys
from typing import Any

import pytest

from ichtune.workspace import Workspace

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit on address space is Linux's"),
]

#: Trains one epoch with so many MiB of address space above what it has by then, and tells how it went.
TRAIN = """
import json, resource, sys
from pathlib import Path
import torch
from ichtune.recipe import Recipe
from ichtune.training.fold_run import open_fold
from ichtune.workspace import Workspace

def address_space_mb(key):
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key)]
    return int(line.split()[1]) / 1024

torch.set_num_threads(1)
settings = json.loads(sys.argv[2])
recipe = Recipe(image_px=256, batch_size=32, epochs=1, optimizer="sgd", lr=1e-3, **settings)
run = open_fold(Workspace(sys.argv[1]), recipe, 0, torch.device("cpu")).run
run.network(torch.zeros(2, recipe.n_channels, 256, 256)).sum().backward()  # libraries have what they need
run = open_fold(Workspace(sys.argv[1]), recipe, 0, torch.device("cpu")).run
held_mb = address_space_mb("VmSize")
if int(sys.argv[3]):
    resource.setrlimit(resource.RLIMIT_AS, (int((held_mb + int(sys.argv[3])) * 2**20),) * 2)
result = run.run_epoch()
told = {"loss": result.val_weighted_log_loss, "train_loss": result.train_loss, "notes": run.notes}
print(json.dumps(told | {"grew_mb": address_space_mb("VmPeak") - held_mb}))
"""


def train(work: Workspace, settings: dict[str, Any], more_mb: int = 0) -> dict[str, Any]:
    command = [sys.executable, "-c", TRAIN, str(work.layout.root), json.dumps(settings), str(more_mb)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout))


def test_memory_that_the_system_refuses_costs_time_only(session_workspace: Workspace) -> None:
    settings = {"architecture": "test_convnext"}
    enough = train(session_workspace, settings)
    short = train(session_workspace, settings, int(0.7 * enough["grew_mb"]))

    assert not any("out of memory" in note for note in enough["notes"])
    assert any(note.startswith("out of memory: each batch passes in") for note in short["notes"])
    assert short["train_loss"] == pytest.approx(enough["train_loss"], rel=1e-6)
    assert short["loss"] == pytest.approx(enough["loss"], rel=1e-6)
