"""What a search costs beside training: the way to the first step, and how long workers stand idle between trials.

Real training on a phantom, two trials at a time on two cores, each about a minute long. Generated data.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ichtune.data.phantom.generate import PhantomSpec, write_phantom
from ichtune.data.prepare import PrepareSpec, prepare
from ichtune.search.ledger import TrialRecord
from ichtune.search.study import SearchOptions, run_search
from ichtune.search.telemetry import TrialEvent
from ichtune.search.watchers import Watcher
from ichtune.space import read_space
from ichtune.workspace import Workspace

N_WORKERS, N_TRIALS = 2, 8
#: Epochs of a trial: as many as make it about a minute long on one core.
EPOCHS = 30
SPACE = f"""
search: {{algorithm: random, trials: {N_TRIALS}, seed: 7, concurrent: {N_WORKERS}}}
resources: {{gpu: 0.25, cpu: 1}}
parameters:
  architecture: tiny_convnet
  windows: [brain_subdural_blood, brain_subdural_bone]
  neighbours: 1
  image_px: 64
  batch_size: 32
  lr: {{low: 1e-3, high: 1e-2, log: true}}
  epochs: {EPOCHS}
"""


class Clock(Watcher):
    """Notes when epochs end and how long they were."""

    def __init__(self) -> None:
        self.first_step_s: float | None = None
        self.spans: dict[int, list[tuple[float, float]]] = {}

    def started(self, name: str, cluster: object, records: list[TrialRecord]) -> None:
        """Nothing to note."""

    def event(self, event: TrialEvent) -> None:
        now = time.monotonic()
        if event.kind == "epoch":
            self.spans.setdefault(event.trial, []).append((now, event.seconds))
            if self.first_step_s is None:
                self.first_step_s = now - event.seconds

    def ended(self) -> None:
        """Nothing to note."""


def measure() -> Iterator[tuple[str, str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_phantom(root / "phantom", PhantomSpec(n_patients=60, size_px=96, seed=11))
        prepare(PrepareSpec(root / "phantom", root / "phantom" / "stage_2_train.csv", root / "work", size_px=64, k=3))
        (root / "overhead.yaml").write_text(SPACE)
        clock, start = Clock(), time.monotonic()
        run_search(Workspace(root / "work"), read_space(root / "overhead.yaml"), SearchOptions(), [clock])
    first_s = (clock.first_step_s or start) - start
    trained_s = sum(seconds for spans in clock.spans.values() for _, seconds in spans)
    begin = min(spans[0][0] - spans[0][1] for spans in clock.spans.values())
    # until the last trial is handed out both workers should be busy; after it one may be left alone
    last_begun = max(spans[0][0] for spans in clock.spans.values())
    busy_s = sum(
        max(0.0, min(end, last_begun) - max(end - seconds, begin))
        for spans in clock.spans.values()
        for end, seconds in spans
    )
    yield (
        "from run_search to the first training step",
        f"{first_s:.0f} s",
        "Ray with its dashboard and two workers started, imports of torch and timm, on this machine",
    )
    yield (
        "share of worker time inside training, while there are trials to hand out",
        f"**{busy_s / (N_WORKERS * (last_begun - begin)):.1%}**",
        f"{N_TRIALS} trials of {trained_s / N_TRIALS:.0f} s, two at a time, reused workers, generated data",
    )
