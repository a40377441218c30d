"""What is written while a fold is trained: checkpoints to go on from, and the weights that it leaves."""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ichtune.errors import ConflictError, DataError
from ichtune.tables import remove_leftovers, write_json
from ichtune.training.loop import TrainingRun


class FoldKeeper:
    """Writes one fold's files.

    ``resume.safetensors`` holds a whole run under way, ``curve.json`` its epochs. ``weights.safetensors`` is what
    predicts: the last epoch, an average or several snapshots, as the recipe says. ``best.safetensors`` is the epoch
    with the lowest validation loss, to look at; that loss flatters it, so it never predicts, and counts as one that
    has learnt from the patients whom it was chosen by.
    ``last.safetensors`` are the plain last weights where an average predicts, ``epoch_<n>.safetensors`` every epoch's.

    Args:
        folder: of the fold.
        about: facts for every weights file.
        learnt_from: marks of the patients that the weights have learnt from.
        scored: marks of the patients on whom the fold is judged.
        checkpoint_s: seconds between two checkpoints within an epoch.
    """

    def __init__(
        self,
        folder: Path,
        about: Mapping[str, Any],
        learnt_from: frozenset[str],
        scored: frozenset[str],
        checkpoint_s: float,
    ) -> None:
        self.folder = folder
        self._about, self._sidecar = dict(about), {"learnt_from": sorted(learnt_from)}
        self._best_sidecar = {"learnt_from": sorted(learnt_from | scored)}
        self._checkpoint_s = checkpoint_s
        self._saved_at = time.monotonic()

    @property
    def resume(self) -> Path:
        """The checkpoint of a run under way."""
        return self.folder / "resume.safetensors"

    def take_up(self, run: TrainingRun) -> None:
        """Let a run go on from the checkpoint that an earlier one left, if there is one."""
        if self.folder.is_dir():
            remove_leftovers(self.folder)
        if self.resume.is_file():
            run.load(self.resume)

    def take_over(self, run: TrainingRun, begun: Path) -> None:
        """Let a run go on from the checkpoint of a trial; the notes say from where, or why not."""
        try:
            run.load(begun)
        except (ConflictError, DataError) as error:
            run.notes.append(f"trained anew, not from the trial's checkpoint: {error}")
            return
        run.notes.append(f"epochs 1 to {run.epoch} are those of a trial of a search: {begun.parent}")

    def after_step(self, run: TrainingRun) -> None:
        """Write a checkpoint within an epoch when the last one is old enough."""
        if time.monotonic() - self._saved_at >= self._checkpoint_s:
            self._checkpoint(run)

    def after_epoch(self, run: TrainingRun, keep_snapshot: bool) -> None:
        """Write what an epoch leaves."""
        epoch = run.epoch
        losses = [result.val_weighted_log_loss for result in run.history]
        about = {**self._about, "epoch": epoch, "val_weighted_log_loss": losses[-1]}
        if losses[-1] == min(losses, default=math.nan):
            run.save_weights(self.folder / "best.safetensors", about, **self._best_sidecar)
        if keep_snapshot:
            run.save_epoch(self.folder / f"epoch_{epoch:02d}.safetensors", about, **self._sidecar)
        self._checkpoint(run)
        self.keep_curve(run)

    def keep_curve(self, run: TrainingRun) -> None:
        """Write the epochs that the run has had."""
        write_json([asdict(result) for result in run.history], self.folder / "curve.json")

    def keep_weights(self, run: TrainingRun) -> None:
        """Write the weights that the finished run predicts with, and its own where those are an average."""
        about = {**self._about, "epoch": run.epoch}
        run.save_weights(self.folder / "weights.safetensors", about, **self._sidecar)
        if run.recipe.ema_decay > 0 or run.recipe.swa_start < 1:
            run.save_last(self.folder / "last.safetensors", about, **self._sidecar)

    def _checkpoint(self, run: TrainingRun) -> None:
        run.save(self.resume)
        self._saved_at = time.monotonic()
