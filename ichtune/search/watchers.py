"""Watchers: whoever is told how a search goes. None of them can end it.

A search is worth hours of compute, a log line is not: a watcher that raises is noted once and told nothing more.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ichtune.search.names import METRIC

if TYPE_CHECKING:
    from ichtune.search.cluster import Cluster
    from ichtune.search.ledger import TrialRecord
    from ichtune.search.telemetry import TrialEvent

#: What happened, where a trial goes on; every other kind of event is the end of a trial.
START, EPOCH = "start", "epoch"


def is_end(event: "TrialEvent") -> bool:
    """Return whether an event is the end of a trial, which for a stopped one may be for a while only."""
    return event.kind not in (START, EPOCH)


def figures(event: "TrialEvent") -> dict[str, Any]:
    """Return what an epoch's event measured, by the names that a trial's curve has for it; None is not known."""
    return {
        "epoch": event.epoch,
        METRIC: event.loss,
        "train_loss": event.train_loss,
        "rung_loss": event.rung_loss,
        "lr": event.lr,
        "seconds": event.seconds,
        "images_per_second": event.images_per_second,
        "gpu_memory_mb": event.gpu_memory_mb,
    }


class Watcher(ABC):
    """Is told of a search, in the driver's main thread, once the ledger holds what it is told."""

    @abstractmethod
    def started(self, name: str, cluster: "Cluster", records: "list[TrialRecord]") -> None:
        """Hear that Ray is ready.

        Args:
            name: of the search.
            cluster: the Ray that it runs on.
            records: the trials of earlier runs of the same search.
        """

    @abstractmethod
    def event(self, event: "TrialEvent") -> None:
        """Hear of one thing that happened to a trial."""

    @abstractmethod
    def ended(self) -> None:
        """Hear that this run of the search ends, while Ray is still there; free what is held."""


class Watchers(Watcher):
    """Several watchers as one; a watcher that raises is dropped, with one note, and the others go on.

    Args:
        members: in the order in which they are told.
        note: says one line to the person watching.
    """

    def __init__(self, members: Iterable[Watcher], note: Callable[[str], None]) -> None:
        self._members = list(members)
        self._note = note

    def started(self, name: str, cluster: "Cluster", records: "list[TrialRecord]") -> None:
        """Tell every watcher that Ray is ready."""
        self._tell(lambda member: member.started(name, cluster, records))

    def event(self, event: "TrialEvent") -> None:
        """Tell every watcher what happened."""
        self._tell(lambda member: member.event(event))

    def ended(self) -> None:
        """Tell every watcher that this run ends."""
        self._tell(lambda member: member.ended())

    def _tell(self, say: Callable[[Watcher], None]) -> None:
        for member in tuple(self._members):
            try:
                say(member)
            except Exception as error:  # noqa: BLE001 - whatever a watcher stumbles over, the search goes on
                self._drop(member, error)

    def _drop(self, member: Watcher, error: Exception) -> None:
        self._members.remove(member)
        first = str(error).splitlines()[0] if str(error) else ""
        why = f"{type(error).__name__}: {first}"
        self._note(f"{type(member).__name__} is told nothing more of this search, which goes on: {why}")


def create_watchers(
    folder: Path,
    shown: Iterable[Watcher],
    note: Callable[[str], None],
    *,
    tensorboard: bool = True,
    mlflow: str | None = None,
) -> Watchers:
    """Gather who watches a search: what the command shows, gauges for Prometheus, TensorBoard, MLflow.

    Args:
        folder: of the search, in the workspace.
        shown: the command's own watchers, told first.
        note: says one line to the person watching, when a watcher is dropped.
        tensorboard: whether event files for TensorBoard are written.
        mlflow: URI of an MLflow tracking server, or a folder; None logs to none.

    Raises:
        ConfigError: MLflow was asked for and is not installed, or does not answer.
    """
    from ichtune.search.gauges import Gauges
    from ichtune.search.tensorboard import TensorBoardLog

    members = [*shown, Gauges(folder)]
    if tensorboard:
        members.append(TensorBoardLog(folder))
    if mlflow is not None:
        from ichtune.search.mlflow_log import MlflowLog

        members.append(MlflowLog(folder, mlflow))
    return Watchers(members, note)
