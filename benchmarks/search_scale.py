"""A thousand trials on sixteen nodes: throughput of the controller, its memory, and whether the dashboard answers.

The nodes are declared: sixteen raylets on this machine. Trials look their losses up in the table of full curves instead
of training, so that nothing but the search itself is measured.
"""

import os
import resource
import socket
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.replays import rung_loss, space_of, tables
from ichtune.search.ledger import Ledger
from ichtune.search.names import METRIC
from ichtune.search.telemetry import TrialEvent
from ichtune.search.watchers import EPOCH, create_watchers, is_end
from ichtune.space import EarlyStop

#: One trial runs on a node at a time.
N_NODES, N_TRIALS = 16, 1000
EARLY_STOP = EarlyStop(type="asha", grace=1, factor=3, judge="last")
#: What a search sets before it starts Ray or joins one; and time for the workers of sixteen nodes to start at once on
#: one machine, since Ray starts anew what takes more than a minute.
ENVIRONMENT = {
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}


@cache
def _runs() -> list[dict[str, Any]]:
    """Return the full curves of one seed; each worker reads them, since Tune fetches the class itself for each leg."""
    return list(tables()[1].runs.values())


def table_trial() -> Any:
    """Return the class of trials that look themselves up; made late, since it needs Ray."""
    from ray import tune

    from ichtune.recipe import Recipe
    from ichtune.search.objective import plan_of

    class TableTrial(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self._config, self._epoch = config, config["told"]
            number = int(Recipe.from_dict(config["recipe"]).recipe_id, 16) % len(_runs())
            self._plan, self._run = plan_of(config), _runs()[number]

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.setup(new_config)
            return True

        def step(self) -> dict[str, Any]:
            self._epoch += 1
            place = self._plan.place(self._epoch)
            result = {"epoch": self._epoch, METRIC: self._run["last"][self._epoch - 1], "fold": 0, "cost": 1.0}
            result |= {"train_loss": 0.0, "lr": 0.0, "seconds": 1.0, "images_per_second": 0.0, "failure": ""}
            if place.rung is not None:
                result["rung"], result["rung_loss"] = place.rung, rung_loss(self._run, EARLY_STOP, self._epoch)[0]
            return {**result, "done": self._epoch >= self._plan.n_epochs}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            """Nothing to keep."""

    return TableTrial


@dataclass
class _Progress:
    """Times of a search on the monotonic clock, seconds; the driver's memory, MiB."""

    first_epoch_s: float = 0.0
    last_end_s: float = 0.0
    n_trials: int = 0
    n_epochs: int = 0
    start_mib: float = 0.0

    def event(self, event: TrialEvent) -> None:
        now = time.monotonic()
        self.n_epochs += event.kind == EPOCH
        self.first_epoch_s = self.first_epoch_s or now
        if is_end(event):
            self.last_end_s = now


def measure() -> Iterator[tuple[str, str, str]]:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray
    from ray.cluster_utils import Cluster

    head: dict[str, Any] = {"num_cpus": 2, "include_dashboard": True, "object_store_memory": 10**8}
    head |= {"dashboard_host": "127.0.0.1", "dashboard_port": _free_port()}
    cluster = Cluster(shutdown_at_exit=True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            cluster.add_node(**head)
            for _ in range(N_NODES - 1):
                _add_node(cluster)
            context = ray.init(address=cluster.address, log_to_driver=False)
            asker = _Asker(f"http://{context.dashboard_url}/api/cluster_status")
            progress, ledger = _search(Path(folder), asker)
        finally:
            ray.shutdown()
            cluster.shutdown()
        n_bytes = ledger.path.stat().st_size
    seconds = progress.last_end_s - progress.first_epoch_s
    memory = f"{_peak_mib():.0f} MiB, {progress.start_mib:.0f} of it before the first trial"
    where = f"{N_NODES} declared nodes of 2 CPUs on this machine, trials looked up in a table"
    yield (
        "trials a minute through the controller",
        f"{60 * progress.n_trials / seconds:.0f}",
        f"{progress.n_trials} trials, {progress.n_epochs} epochs, from the first epoch to the last end; {where}",
    )
    yield "memory of the driver", f"{memory}; ledger {n_bytes / 2**20:.1f} MiB", where
    yield "dashboard's answers meanwhile", asker.text, where


def _add_node(cluster: Any) -> None:
    """Add a declared node; Ray gives it 30 s to start, which on a busy machine is not always enough."""
    for is_last in (False, False, False, True):
        try:
            cluster.add_node(num_cpus=2, object_store_memory=10**8)
            return
        except Exception:  # Ray raises no other kind
            if is_last:
                raise


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class _Asker(threading.Thread):
    """Asks the dashboard every few seconds and times its answers."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url, self.n_failed, self.ended = url, 0, threading.Event()
        self.seconds: list[float] = []

    def run(self) -> None:
        while not self.ended.wait(5.0):
            start = time.monotonic()
            try:
                urllib.request.urlopen(self._url, timeout=30).read()
                self.seconds.append(time.monotonic() - start)
            except OSError:
                self.n_failed += 1

    @property
    def text(self) -> str:
        worst = max(self.seconds, default=float("nan"))
        return f"{len(self.seconds)} of {len(self.seconds) + self.n_failed}, the slowest in {worst:.1f} s"


def _search(folder: Path, asker: _Asker) -> tuple[_Progress, Ledger]:
    from ichtune.search.legs import Budget, Legs
    from ichtune.search.schedulers import create_scheduler
    from ichtune.search.study import SearchOptions
    from ichtune.search.tune_run import TuneRun, run_legs

    space = space_of("tpe", EARLY_STOP, seed=7, lr="{low: 1e-4, high: 1e-1, log: true}")
    ledger = Ledger(folder / "searches" / "scale" / "ledger.jsonl")
    ledger.open({"space_id": space.space_id, "folds": [0]})
    legs = Legs(space, ledger, create_scheduler(space.search.early_stop), Budget(n_trials=N_TRIALS))
    layout = SimpleNamespace(root=folder, searches=folder / "searches")
    workspace: Any = SimpleNamespace(layout=layout, origin="")
    run = TuneRun(workspace, space, SearchOptions(concurrent=N_NODES), legs, table_trial())
    progress = _Progress(start_mib=_peak_mib())
    watchers = create_watchers(ledger.path.parent, [], _fail)

    def tell(event: TrialEvent) -> None:
        watchers.event(event)
        if event.epoch:
            progress.event(event)

    watchers.started("scale", None, [])  # type: ignore[arg-type]
    asker.start()
    try:
        run_legs(run, tell)
    finally:
        asker.ended.set()
        watchers.ended()
    progress.n_trials = len(ledger.records())
    return progress, ledger


def _fail(note: str) -> None:
    raise AssertionError(note)
