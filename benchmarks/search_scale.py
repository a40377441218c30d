"""A thousand trials on sixteen nodes: throughput of the controller, its memory, and whether the dashboard answers.

The nodes are declared: sixteen raylets on this machine. Trials look their losses up in the table of full curves instead
of training, so that nothing but the search itself is measured.
"""

import resource
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.replays import rung_loss, space_of, tables
from ichtune.search.ledger import FINISHED, STOPPED, Ledger
from ichtune.search.names import METRIC
from ichtune.space import EarlyStop

N_NODES, N_TRIALS = 16, 1000
EARLY_STOP = EarlyStop(type="asha", grace=1, factor=3)


def table_trial() -> Any:
    """Return the class of trials that look themselves up; made late, since it needs Ray."""
    from ray import tune

    from ichtune.recipe import Recipe
    from ichtune.search.objective import plan_of

    rows = list(tables()[1].runs.values())

    class TableTrial(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self._config, self._epoch = config, config["told"]
            number = int(Recipe.from_dict(config["recipe"]).recipe_id, 16) % len(rows)
            self._plan, self._run = plan_of(config), rows[number]

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


def measure() -> Iterator[tuple[str, str, str]]:
    import ray
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 2, "include_dashboard": True, "dashboard_host": "127.0.0.1", "object_store_memory": 10**8}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    with tempfile.TemporaryDirectory() as folder:
        try:
            for _ in range(N_NODES - 1):
                cluster.add_node(num_cpus=2, object_store_memory=10**8)
            context = ray.init(address=cluster.address, log_to_driver=False)
            answers = _Asker(f"http://{context.dashboard_url}/api/cluster_status")
            seconds, ledger = _search(Path(folder), answers)
        finally:
            ray.shutdown()
            cluster.shutdown()
        records = ledger.records()
        ended = sum(record.status in (FINISHED, STOPPED) for record in records)
        n_bytes = ledger.path.stat().st_size
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    where = f"{N_NODES} declared nodes of 2 CPUs on this machine, trials looked up in a table"
    yield "trials a minute through the controller", f"{60 * ended / seconds:.0f}", f"{ended} trials, {where}"
    yield "memory of the driver", f"{peak_mb:.0f} MiB, ledger {n_bytes / 2**20:.1f} MiB", where
    yield "dashboard's answers meanwhile", answers.text, where


class _Asker(threading.Thread):
    """Asks the dashboard every few seconds and times its answers."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url, self.seconds, self.n_failed, self.ended = url, [], 0, threading.Event()

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


def _search(folder: Path, asker: _Asker) -> tuple[float, Ledger]:
    from ichtune.search.legs import Budget, Legs
    from ichtune.search.schedulers import create_scheduler
    from ichtune.search.study import SearchOptions
    from ichtune.search.tune_run import TuneRun, run_legs

    space = space_of("tpe", EARLY_STOP, seed=7, lr="{low: 1e-4, high: 1e-1, log: true}")
    ledger = Ledger(folder / "searches" / "scale" / "ledger.jsonl")
    ledger.open({"space_id": space.space_id, "folds": [0]})
    legs = Legs(space, ledger, create_scheduler(space.search.early_stop), Budget(n_trials=N_TRIALS))
    layout = SimpleNamespace(root=folder, searches=folder / "searches")
    run = TuneRun(SimpleNamespace(layout=layout, origin=""), space, SearchOptions(), legs, table_trial())  # type: ignore[arg-type]
    asker.start()
    start = time.monotonic()
    run_legs(run, lambda event: None)
    asker.ended.set()
    return time.monotonic() - start, ledger
