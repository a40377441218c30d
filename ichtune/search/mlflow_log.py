"""MlflowLog: a search as MLflow runs, one for the search and a child of it a trial. An extra: ``ichtune[mlflow]``.

MLflow gives runs their ids, so the search's folder keeps which run is whose, and a continued search goes on in the same
runs. What an earlier run of the search could not log any more (it was killed, the server was away, or nobody had asked
for MLflow yet) is logged when the search is started again.
"""

import importlib
import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from ichtune.errors import ConfigError
from ichtune.search.ledger import DUPLICATE, FAILED, TrialRecord
from ichtune.search.names import METRIC
from ichtune.search.watchers import EPOCH, Watcher, figures, is_end
from ichtune.tables import write_json
from ichtune.version import __version__

if TYPE_CHECKING:
    from ichtune.search.cluster import Cluster
    from ichtune.search.telemetry import TrialEvent

#: MLflow experiment under which all searches lie, unless MLFLOW_EXPERIMENT_NAME names another one.
EXPERIMENT = "ichtune"
#: File in the search's folder that keeps the ids of its runs.
IDS_FILE = "mlflow.json"
#: Metric of each figure of an epoch, by its name in a trial's curve.
METRICS = {
    METRIC: "loss",
    "train_loss": "train_loss",
    "rung_loss": "rung_loss",
    "lr": "lr",
    "seconds": "seconds_per_epoch",
    "images_per_second": "images_per_second",
    "gpu_memory_mb": "gpu_memory_mb",
}
#: What MLflow is told of itself, unless the environment says otherwise: a server that is away must not hold up a search
#: for minutes, and a folder is a store that it writes to when asked.
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ALLOW_FILE_STORE": "true",
}
#: MLflow reports its own use to its makers; ichtune calls nobody who was not named.
NO_TELEMETRY = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
#: MLflow's limit on a parameter's value, characters; of older servers.
LONGEST_VALUE = 500
#: MLflow's limit on the points that it takes at a time.
MOST_POINTS = 1000
_RUNNING, _FINISHED, _FAILED, _KILLED = "RUNNING", "FINISHED", "FAILED", "KILLED"
_PARENT = "mlflow.parentRunId"
#: What the name of a parameter may not hold.
_NO_KEY = re.compile(r"[^\w\-./: ]")


class MlflowLog(Watcher):
    """Logs curves as metrics, searched values as parameters, ends as the runs' status.

    Args:
        folder: of the search.
        uri: of a tracking server (``http://...``), or a folder.

    Raises:
        ConfigError: MLflow is not installed, or there is no store at the URI.
    """

    def __init__(self, folder: Path, uri: str) -> None:
        self._uri = store_uri(uri)
        self._client, self._experiment = _connect(self._uri)
        self._ids_path = folder / IDS_FILE
        self._search_run = ""
        self._runs: dict[int, str] = {}
        self._open: set[int] = set()

    def started(self, name: str, cluster: "Cluster", records: list[TrialRecord]) -> None:
        """Find or make the search's run, and log what earlier runs of the search left out."""
        self._read_ids()
        if self._search_run:
            self._client.update_run(self._search_run, status=_RUNNING)
        else:
            tags = {"ichtune.version": __version__}
            self._search_run = self._client.create_run(self._experiment, run_name=name, tags=tags).info.run_id
            self._write_ids()
        statuses = self._statuses()
        for record in records:
            self._complete(record, statuses.get(self._runs.get(record.trial, "")))

    def event(self, event: "TrialEvent") -> None:
        """Log an epoch, or the end of a trial."""
        if event.kind != EPOCH and not is_end(event):
            return
        run = self._run_of(event.trial, event.summary, event.parameters)
        if event.kind in (EPOCH, DUPLICATE):
            self._log(run, [figures(event)])
        if is_end(event):
            self._end(event.trial, event.kind, event.reason)

    def ended(self) -> None:
        """Close the runs; those of trials that go on in another run of the search are opened again by it."""
        for trial in self._open:
            self._client.set_terminated(self._runs[trial], _KILLED)
        if self._search_run:
            self._client.set_terminated(self._search_run, _KILLED if self._open else _FINISHED)
        self._open.clear()

    def _statuses(self) -> dict[str, str]:
        """Return the status of every trial's run that the store holds."""
        found: dict[str, str] = {}
        token: str | None = None
        while token != "":
            wanted = f"tags.`{_PARENT}` = '{self._search_run}'"
            page = self._client.search_runs([self._experiment], wanted, max_results=1000, page_token=token)
            found.update({run.info.run_id: run.info.status for run in page})
            token = page.token or ""
        return found

    def _complete(self, record: TrialRecord, status: str | None) -> None:
        """Log of a trial what is not logged yet; an ended one whose run was closed lacks nothing."""
        lacks_nothing = record.ended and status in (_FINISHED, _FAILED)
        if lacks_nothing or not (record.curve or record.ended):
            return
        run = self._run_of(record.trial, record.recipe.summary, record.parameters)
        logged = {metric.step for metric in self._client.get_metric_history(run, METRICS[METRIC])}
        self._log(run, [epoch for epoch in record.curve if epoch["epoch"] not in logged])
        if record.ended:
            self._end(record.trial, record.status, record.reason)

    def _run_of(self, trial: int, summary: str, parameters: Mapping[str, Any]) -> str:
        """Return the id of a trial's run, which is running from now on; made where there is none."""
        from mlflow.entities import Param

        if trial not in self._runs:
            tags = {_PARENT: self._search_run, "ichtune.trial": str(trial), "ichtune.recipe": summary}
            made = self._client.create_run(self._experiment, run_name=f"trial_{trial:04d}", tags=tags)
            self._runs[trial] = made.info.run_id
            self._write_ids()
            told = [Param(_NO_KEY.sub("_", key), _text(value)) for key, value in parameters.items()]
            self._client.log_batch(self._runs[trial], params=told)
        elif trial not in self._open:
            self._client.update_run(self._runs[trial], status=_RUNNING)
        self._open.add(trial)
        return self._runs[trial]

    def _log(self, run: str, curve: Iterable[Mapping[str, Any]]) -> None:
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        points = [
            Metric(metric, float(epoch[name]), now_ms, int(epoch["epoch"]))
            for epoch in curve
            for name, metric in METRICS.items()
            if epoch.get(name) is not None
        ]
        for first in range(0, len(points), MOST_POINTS):
            self._client.log_batch(run, metrics=points[first : first + MOST_POINTS])

    def _end(self, trial: int, state: str, reason: str) -> None:
        run = self._runs[trial]
        self._client.set_tag(run, "ichtune.state", state)
        if reason:
            self._client.set_tag(run, "ichtune.reason", reason[:LONGEST_VALUE])
        self._client.set_terminated(run, _FAILED if state == FAILED else _FINISHED)
        self._open.discard(trial)

    def _read_ids(self) -> None:
        """Take the runs of earlier runs of the search; those of another store, or that were deleted, are not ours."""
        from mlflow.exceptions import MlflowException

        if not self._ids_path.is_file():
            return
        ids = json.loads(self._ids_path.read_text(encoding="utf-8"))
        if ids["uri"] != without_secrets(self._uri):
            return
        try:
            is_there = self._client.get_run(ids["search"]).info.lifecycle_stage == "active"
        except MlflowException:
            is_there = False
        if is_there:
            self._search_run = ids["search"]
            self._runs = {int(trial): run for trial, run in ids["trials"].items()}

    def _write_ids(self) -> None:
        runs = {str(trial): run for trial, run in self._runs.items()}
        write_json({"uri": without_secrets(self._uri), "search": self._search_run, "trials": runs}, self._ids_path)


def store_uri(uri: str) -> str:
    """Return a store's URI in full; a path becomes that of a folder.

    Example:
        >>> store_uri("http://tracking:5000/"), store_uri("/data/mlruns")
        ('http://tracking:5000', 'file:///data/mlruns')
    """
    return uri.rstrip("/") if "://" in uri else Path(uri.removeprefix("file:")).resolve().as_uri()


def without_secrets(uri: str) -> str:
    """Return a URI without the user and password that it may hold.

    Example:
        >>> without_secrets("https://me:secret@tracking:5000/x")
        'https://tracking:5000/x'
    """
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _connect(uri: str) -> tuple[Any, str]:
    """Return a client of the store at a URI, and the id of the experiment in it, which is made if it is not there."""
    os.environ.update(NO_TELEMETRY)
    for setting, value in SETTINGS.items():
        os.environ.setdefault(setting, value)
    try:
        mlflow_errors = importlib.import_module("mlflow.exceptions")
        tracking = importlib.import_module("mlflow.tracking")
    except ImportError as error:
        raise ConfigError(
            f"--mlflow needs MLflow, which is not installed ({error}): pip install 'ichtune[mlflow]', or leave "
            f"--mlflow out"
        ) from error
    try:
        client = tracking.MlflowClient(tracking_uri=uri, registry_uri=uri)
        return client, _experiment(client)
    except (mlflow_errors.MlflowException, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"cannot log to MLflow at {without_secrets(uri)}: {first}. Give --mlflow the URI of a tracking server that "
            f"runs (http://host:5000) or a folder"
        ) from error


def _experiment(client: Any) -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    found = client.get_experiment_by_name(name)
    return str(client.create_experiment(name) if found is None else found.experiment_id)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:LONGEST_VALUE]
