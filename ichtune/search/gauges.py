"""Gauges: what a search measures, as Prometheus series that Ray exports with its own.

A trial's own gauges would vanish with its process, so the driver sets them all. Ray forgets a gauge that was not set
again for two of its export intervals (20 s as it comes), so a thread sets them again as long as the search runs. The
values of a trial that ended stay for a minute, long enough for any usual scrape to see the last one; Prometheus keeps
them from there on, and the number of series stays near the number of trials that run.
"""

import logging
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ichtune.search.ledger import DUPLICATE, FAILED, FINISHED, INTERRUPTED, STOPPED
from ichtune.search.watchers import EPOCH, START, Watcher, is_end
from ichtune.tables import write_json

if TYPE_CHECKING:
    from ichtune.search.cluster import Cluster
    from ichtune.search.ledger import TrialRecord
    from ichtune.search.telemetry import TrialEvent

_SEARCH = ("search",)
_TRIAL = ("search", "trial", "recipe")
#: Every gauge: what it is, and its tags. Ray puts ``ray_`` before the names.
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "ichtune_best_loss": ("Lowest validation weighted log loss of any trial so far, nats.", _SEARCH),
    "ichtune_epochs_spent": (
        "Epochs spent on all trials, judging them included, over all runs of the search.",
        _SEARCH,
    ),
    "ichtune_trials": ("Trials of the search by state.", (*_SEARCH, "state")),
    "ichtune_trial_loss": ("Validation weighted log loss after a trial's latest epoch, nats.", _TRIAL),
    "ichtune_trial_rung_loss": ("Loss that a trial's latest rung was judged by, nats.", _TRIAL),
    "ichtune_trial_epoch": ("Epochs that a trial has had.", _TRIAL),
    "ichtune_trial_images_per_second": ("Slices a second in a trial's latest epoch.", _TRIAL),
    "ichtune_trial_gpu_memory_bytes": ("Peak memory of a trial on its GPU, bytes.", _TRIAL),
}
#: What stands before a gauge's name in Prometheus.
RAY_PREFIX = "ray_"
#: States by which trials are counted.
RUNNING = "running"
STATES = (RUNNING, FINISHED, STOPPED, FAILED, INTERRUPTED, DUPLICATE)
#: Seconds between two settings of the same values; below Ray's export interval of 10 s.
REFRESH_S = 4.0
#: Seconds for which the values of a trial that ended stay visible.
LINGER_S = 60.0
_MIB = 1024.0**2

Key = tuple[str, tuple[str, ...]]


def targets_path(folder: Path) -> Path:
    """Return the file that tells Prometheus where a running search is scraped, beside the search's folder."""
    return folder.with_name(f"{folder.name}.prometheus.json")


def in_ascii(text: str) -> str:
    """Return a text as a tag's value: Ray's metrics know no other letters; ± of a recipe's neighbours becomes +-."""
    return text.replace("±", "+-").encode("ascii", "replace").decode("ascii")


class GaugeValues:
    """The values of all gauges, and when each of them is to be forgotten. Knows nothing of Ray.

    Args:
        search: its name.
        records: the trials of earlier runs.
    """

    def __init__(self, search: str, records: "list[TrialRecord]") -> None:
        self._search = search
        self._values: dict[Key, float] = {}
        self._forget_at: dict[Key, float] = {}
        self._states = {record.trial: record.status for record in records}
        self._n_in_state = Counter(self._states.values())
        self._epochs = sum(record.n_epochs_spent for record in records)
        self._best = min((r.best_loss for r in records if r.best_loss is not None), default=None)
        self._of_search()

    def take(self, event: "TrialEvent", now_s: float) -> None:
        """Take in what happened to a trial, at a time of a clock in seconds."""
        self._set_state(event.trial, RUNNING if event.kind in (START, EPOCH) else event.kind)
        if event.loss is not None and event.loss == event.loss:
            self._best = event.loss if self._best is None else min(self._best, event.loss)
        if event.kind == EPOCH:
            self._epochs += event.cost
        self._of_trial(event, now_s)
        self._of_search()

    def current(self, now_s: float) -> dict[Key, float]:
        """Return every value that is to be seen, by gauge and the values of its tags."""
        for key in [key for key, until in self._forget_at.items() if until < now_s]:
            del self._forget_at[key], self._values[key]
        return dict(self._values)

    def _of_search(self) -> None:
        self._values["ichtune_epochs_spent", (self._search,)] = self._epochs
        if self._best is not None:
            self._values["ichtune_best_loss", (self._search,)] = self._best
        for state in STATES:
            self._values["ichtune_trials", (self._search, state)] = self._n_in_state[state]

    def _set_state(self, trial: int, state: str) -> None:
        if trial in self._states:
            self._n_in_state[self._states[trial]] -= 1
        self._states[trial] = state
        self._n_in_state[state] += 1

    def _of_trial(self, event: "TrialEvent", now_s: float) -> None:
        tags = (self._search, str(event.trial), in_ascii(event.summary))
        measured = {"ichtune_trial_loss": event.loss, "ichtune_trial_rung_loss": event.rung_loss}
        if event.kind != START:  # which knows nothing of epochs before it
            measured["ichtune_trial_epoch"] = float(event.epoch)
        if event.kind == EPOCH:
            measured["ichtune_trial_images_per_second"] = event.images_per_second
        if event.gpu_memory_mb is not None:
            measured["ichtune_trial_gpu_memory_bytes"] = event.gpu_memory_mb * _MIB
        for name, value in measured.items():
            if value is not None and value == value:
                self._values[name, tags] = value
        for key in [(name, tags) for name in GAUGES if (name, tags) in self._values]:
            if is_end(event):
                self._forget_at[key] = now_s + LINGER_S
            else:
                self._forget_at.pop(key, None)


class Gauges(Watcher):
    """Exports the gauges of a search through Ray, and tells Prometheus where to scrape them.

    Args:
        folder: of the search; ``targets_path`` of it is written while the search runs.
    """

    def __init__(self, folder: Path) -> None:
        self._targets = targets_path(folder)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._values: GaugeValues | None = None
        self._gauges: dict[str, Any] = {}
        self._thread: threading.Thread | None = None

    def started(self, name: str, cluster: "Cluster", records: "list[TrialRecord]") -> None:
        """Create the gauges and keep them set."""
        from ray.util.metrics import Gauge

        self._gauges = {gauge: Gauge(gauge, about, tag_keys=tags) for gauge, (about, tags) in GAUGES.items()}
        self._values = GaugeValues(in_ascii(name), records)
        self._write_targets()
        self._thread = threading.Thread(target=self._keep_set, name="ichtune-gauges", daemon=True)
        self._thread.start()

    def event(self, event: "TrialEvent") -> None:
        """Take in what happened; it is exported within seconds."""
        if self._values is not None:
            with self._lock:
                self._values.take(event, time.monotonic())

    def ended(self) -> None:
        """Stop, before Ray does; Prometheus is told to scrape no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * REFRESH_S)
        self._targets.unlink(missing_ok=True)

    def _keep_set(self) -> None:
        try:
            while not self._stop.is_set():
                self._set_all()
                self._stop.wait(REFRESH_S)
        except Exception as error:  # noqa: BLE001 - a series that is not exported must not end a search
            logging.getLogger(__name__).warning("gauges are exported no more: %s", error)

    def _set_all(self) -> None:
        if self._values is None:
            return
        with self._lock:
            current = self._values.current(time.monotonic())
        for (gauge, values), value in current.items():
            self._gauges[gauge].set(value, tags=dict(zip(GAUGES[gauge][1], values, strict=True)))

    def _write_targets(self) -> None:
        address = driver_metrics_address()
        if address is not None:
            write_json([{"targets": [address], "labels": {"job": "ichtune"}}], self._targets)


def driver_metrics_address() -> str | None:
    """Return ``host:port`` where Ray exports what this process measures; None where this Ray exports nothing."""
    import ray

    mine = ray.get_runtime_context().get_node_id()
    for node in ray.nodes():
        if node["NodeID"] == mine and node["MetricsExportPort"] > 0:
            host = node["NodeManagerAddress"]
            return f"[{host}]:{node['MetricsExportPort']}" if ":" in host else f"{host}:{node['MetricsExportPort']}"
    return None
