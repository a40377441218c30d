"""What an epoch and a fold came to; of the first level and of the second."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EpochResult:
    """What one epoch came to; losses in nats, ``val_weighted_log_loss`` is the metric on the held-out rows."""

    epoch: int
    train_loss: float
    val_weighted_log_loss: float
    lr: float
    seconds: float
    images_per_second: float


@dataclass(frozen=True)
class FoldResult:
    """One recipe trained without one fold and judged on it."""

    recipe_id: str
    fold: int
    val_weighted_log_loss: float
    epochs: int
    seconds: float
