"""TensorBoardLog: the curves of a search as event files, ``tensorboard --logdir`` on the search's folder shows them.

Event files are appended to, never changed, and a search is continued. So a trial that goes on is told to TensorBoard
from its first epoch again, in a file that starts a session there, which makes TensorBoard leave out what earlier files
say of these steps: each epoch is shown once, and one that a kill kept from an earlier file is there as well.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ichtune.search.names import METRIC
from ichtune.search.watchers import EPOCH, Watcher, figures, is_end

if TYPE_CHECKING:
    from ichtune.search.cluster import Cluster
    from ichtune.search.ledger import TrialRecord
    from ichtune.search.telemetry import TrialEvent

#: Folder of the event files, in the search's.
FOLDER = "tensorboard"
LOSS = "loss/validation"
FIRST_EPOCH = 1
#: Tag of each figure of an epoch, by its name in a trial's curve.
TAGS = {
    METRIC: LOSS,
    "train_loss": "loss/training",
    "rung_loss": "loss/rung",
    "lr": "learning_rate",
    "seconds": "speed/seconds_per_epoch",
    "images_per_second": "speed/images_per_second",
    "gpu_memory_mb": "gpu_memory_mb",
}


class TensorBoardLog(Watcher):
    """Writes one TensorBoard run a trial: its curve as it grows, its parameters once it has ended.

    Args:
        folder: of the search; the runs lie in ``tensorboard/<trial>`` in it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._files: dict[int, _EventFile] = {}
        self._curves: dict[int, list[dict[str, Any]]] = {}

    def started(self, name: str, cluster: "Cluster", records: "list[TrialRecord]") -> None:
        """Remember the curves of earlier runs; write those that ended before TensorBoard was asked for."""
        for record in records:
            self._curves[record.trial] = list(record.curve)
            if record.curve and record.ended and not self._run(record.trial).exists():
                self._open(record.trial).write(record.curve)
                self._close(record.trial, record.parameters, record.last_loss)

    def event(self, event: "TrialEvent") -> None:
        """Write an epoch, or the end of a trial."""
        if event.kind == EPOCH:
            curve = self._curves.setdefault(event.trial, [])
            curve[event.epoch - 1 :] = [figures(event)]
            if event.trial in self._files:
                self._files[event.trial].write(curve[-1:])
            else:
                self._open(event.trial).write(curve)
        elif is_end(event) and event.trial in self._files:
            self._close(event.trial, event.parameters, event.loss)

    def ended(self) -> None:
        """Close the files of trials that go on in another run of the search."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _run(self, trial: int) -> Path:
        return self._folder / f"trial_{trial:04d}"

    def _open(self, trial: int) -> "_EventFile":
        self._files[trial] = _EventFile(self._run(trial))
        return self._files[trial]

    def _close(self, trial: int, parameters: Mapping[str, Any], loss: float | None) -> None:
        file = self._files.pop(trial)
        if loss is not None:
            file.write_parameters(parameters, loss)
        file.close()


class _EventFile:
    """One event file that tells a run from its first epoch; what is written lies on the disk."""

    def __init__(self, run: Path) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        run.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(run / "events"))
        self._write(step=FIRST_EPOCH, session_log=SessionLog(status=SessionLog.START))

    def write(self, curve: Sequence[Mapping[str, Any]]) -> None:
        """Write what is known of some epochs."""
        from tensorboardX.summary import scalar

        for epoch in curve:
            for name, tag in TAGS.items():
                value = epoch.get(name)
                if value is not None:
                    self._write(step=int(epoch["epoch"]), summary=scalar(tag, float(value)))
        self._writer.flush()

    def write_parameters(self, parameters: Mapping[str, Any], loss: float) -> None:
        """Write what the run was, for TensorBoard's page of hyperparameters."""
        from tensorboardX.summary import hparams

        for summary in hparams({key: _plain(value) for key, value in parameters.items()}, {LOSS: loss}):
            self._write(summary=summary)

    def close(self) -> None:
        """Let go of the file."""
        self._writer.close()

    def _write(self, **event: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._writer.write_event(Event(wall_time=time.time(), **event))


def _plain(value: Any) -> bool | float | str:
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)
