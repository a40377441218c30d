"""What is told to whoever watches a search."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TrialEvent:
    """One thing that happened to a trial.

    Attributes:
        kind: ``start`` (of a leg), ``epoch``, or how it ended: ``finished``, ``stopped``, ``failed``, ``duplicate``.
        trial: its number.
        summary: of its recipe.
        epoch: epochs that are done, counted over all that the trial trains.
        epochs: of a trial that is never stopped.
        loss: validation weighted log loss after the epoch, in nats.
        reason: why it failed, or of which trial it is a duplicate.
        rung: index, from 0, of the rung that was judged after this epoch.
        rung_loss: the loss by which it was judged.
        train_loss: mean training loss of the epoch, in nats.
        lr: learning rate at its end.
        cost: whole epochs' worth of training that the epoch and its judging were.
        seconds: of this epoch and its judging.
        images_per_second: in training.
        gpu_memory_mb: most memory that the trial's tensors have taken on a GPU.
        parameters: the searched values by flat name.
        resources: what the trial asked Ray for.
        node: name of the machine that it runs on.
        to_end: whether it was stopped before, and is now trained to its end because it is among the best of those.
    """

    kind: str
    trial: int
    summary: str
    epoch: int
    epochs: int
    loss: float | None
    reason: str = ""
    rung: int | None = None
    rung_loss: float | None = None
    train_loss: float | None = None
    lr: float | None = None
    cost: float = 1.0
    seconds: float = 0.0
    images_per_second: float = 0.0
    gpu_memory_mb: float | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    resources: dict[str, float] = field(default_factory=dict)
    node: str = ""
    to_end: bool = False


OnEvent = Callable[[TrialEvent], None]
