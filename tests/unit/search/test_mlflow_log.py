import json

import pytest

from ichtune.errors import ConfigError
from ichtune.search import mlflow_log
from ichtune.search.cluster import Cluster
from ichtune.search.ledger import DUPLICATE, FAILED, FINISHED, INTERRUPTED, STOPPED
from ichtune.search.mlflow_log import NO_TELEMETRY, SETTINGS, MlflowLog, store_uri, without_secrets
from ichtune.search.telemetry import TrialEvent

CLUSTER = Cluster("", "", 2, 0, joined=False)
PARAMETERS = {"lr": 1e-3, "windows": [[40, 80], [80, 200]], "windows[0]": "brain"}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in (*SETTINGS, *NO_TELEMETRY):
        monkeypatch.setenv(name, SETTINGS.get(name, "true"))


@pytest.fixture
def store(tmp_path):
    pytest.importorskip("mlflow", reason="needs the extra: pip install 'ichtune[mlflow]'")
    return tmp_path / "store"


def log(store, folder, records, *events, ends=True):
    watcher = MlflowLog(folder, str(store))
    watcher.started("windows", CLUSTER, records)
    for event in events:
        watcher.event(event)
    if ends:
        watcher.ended()


def epoch(trial, number, loss, **figures):
    return TrialEvent(
        "epoch", trial, "net", number, 4, loss, parameters=PARAMETERS, train_loss=loss + 0.1, lr=1e-3, **figures
    )


def end(trial, number, loss, kind=FINISHED, reason=""):
    return TrialEvent(kind, trial, "net", number, 4, loss, reason, parameters=PARAMETERS)


class Store:
    """What a person sees in MLflow: the search's run, and the trials' by number."""

    def __init__(self, store):
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient(tracking_uri=store.as_uri(), registry_uri=store.as_uri())
        runs = self.client.search_runs([self.client.get_experiment_by_name("ichtune").experiment_id])
        self.trials = {int(run.data.tags["ichtune.trial"]): run for run in runs if "ichtune.trial" in run.data.tags}
        self.searches = [run for run in runs if "ichtune.trial" not in run.data.tags]

    def curve(self, trial, metric="loss"):
        points = self.client.get_metric_history(self.trials[trial].info.run_id, metric)
        return [(point.step, pytest.approx(point.value)) for point in points]

    def status(self, trial):
        return self.trials[trial].info.status


@pytest.mark.slow  # takes seconds
def test_a_trial_is_a_child_of_its_search_with_curve_parameters_and_end(store, tmp_path):
    log(store, tmp_path, [], epoch(3, 1, 0.4, rung=0, rung_loss=0.35), epoch(3, 2, 0.3), end(3, 2, 0.3))

    seen = Store(store)
    (search,) = seen.searches
    trial = seen.trials[3]
    assert search.info.run_name == "windows"
    assert search.info.status == "FINISHED"
    assert trial.data.tags["mlflow.parentRunId"] == search.info.run_id
    assert trial.info.run_name == "trial_0003"
    assert trial.info.status == "FINISHED"
    assert trial.data.params == {"lr": "0.001", "windows": "[[40, 80], [80, 200]]", "windows_0_": "brain"}
    assert seen.curve(3) == [(1, 0.4), (2, 0.3)]
    assert seen.curve(3, "train_loss") == [(1, 0.5), (2, 0.4)]
    assert seen.curve(3, "rung_loss") == [(1, 0.35)]


def test_a_failed_trial_says_why(store, tmp_path):
    log(store, tmp_path, [], end(0, 0, None, FAILED, "diverged"))

    seen = Store(store)
    assert seen.status(0) == "FAILED"
    assert seen.trials[0].data.tags["ichtune.reason"] == "diverged"


def test_a_duplicate_has_the_loss_that_answered_it(store, tmp_path):
    log(store, tmp_path, [], end(1, 2, 0.3, DUPLICATE, "of trial 0"))

    seen = Store(store)
    assert seen.curve(1) == [(2, 0.3)]
    assert seen.trials[1].data.tags["ichtune.state"] == DUPLICATE


def test_a_continued_search_goes_on_in_the_same_runs_and_logs_what_a_kill_kept_out(store, tmp_path, record):
    log(store, tmp_path, [], epoch(0, 1, 0.4), epoch(1, 1, 0.5), ends=False)
    before = Store(store)

    records = [record(0, [0.4, 0.3], INTERRUPTED), record(1, [0.5, 0.45], FINISHED), record(2, [], INTERRUPTED)]
    log(store, tmp_path, records, epoch(0, 3, 0.2))

    seen = Store(store)
    assert {n: run.info.run_id for n, run in seen.trials.items()} == {
        n: run.info.run_id for n, run in before.trials.items()
    }
    assert len(seen.searches) == 1
    assert seen.curve(0) == [(1, 0.4), (2, 0.3), (3, 0.2)]
    assert seen.curve(1) == [(1, 0.5), (2, 0.45)]
    assert seen.status(1) == "FINISHED"
    assert seen.status(0) == "KILLED"
    assert seen.searches[0].info.status == "KILLED"


def test_a_stopped_trial_that_is_promoted_runs_again(store, tmp_path, record):
    log(store, tmp_path, [], epoch(0, 1, 0.4), end(0, 1, 0.4, STOPPED))
    watcher = MlflowLog(tmp_path, str(store))
    watcher.started("windows", CLUSTER, [record(0, [0.4], STOPPED)])
    watcher.event(epoch(0, 2, 0.3))

    assert Store(store).status(0) == "RUNNING"
    watcher.event(end(0, 2, 0.3))
    assert Store(store).status(0) == "FINISHED"
    assert Store(store).curve(0) == [(1, 0.4), (2, 0.3)]


def test_a_search_whose_runs_were_deleted_gets_new_ones(store, tmp_path, record):
    log(store, tmp_path, [], epoch(0, 1, 0.4), end(0, 1, 0.4))
    seen = Store(store)
    seen.client.delete_run(seen.searches[0].info.run_id)

    log(store, tmp_path, [record(0, [0.4], FINISHED)])

    assert Store(store).searches[0].info.run_id != seen.searches[0].info.run_id
    assert Store(store).curve(0) == [(1, 0.4)]


def test_another_store_gets_the_whole_search(store, tmp_path, record):
    log(store, tmp_path, [], epoch(0, 1, 0.4), end(0, 1, 0.4))
    other = tmp_path / "other"

    log(other, tmp_path, [record(0, [0.4], FINISHED)])

    assert Store(other).curve(0) == [(1, 0.4)]


def test_no_user_or_password_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(mlflow_log, "_connect", lambda uri: (None, "0"))
    watcher = MlflowLog(tmp_path, "http://me:secret@tracking:5000")
    watcher._write_ids()

    assert json.loads((tmp_path / "mlflow.json").read_text())["uri"] == "http://tracking:5000"
    assert without_secrets("http://tracking:5000/a") == "http://tracking:5000/a"


def test_a_path_is_a_folder_and_a_uri_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert store_uri("runs") == (tmp_path / "runs").as_uri()
    assert store_uri("file:runs") == (tmp_path / "runs").as_uri()
    assert store_uri("https://host/") == "https://host"


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(mlflow_log.importlib, "import_module", missing)

    with pytest.raises(ConfigError, match=r"ichtune\[mlflow\]"):
        MlflowLog(tmp_path, str(tmp_path))


def test_a_server_that_is_not_there_is_said_before_anything_runs(store, tmp_path):
    with pytest.raises(ConfigError, match=r"cannot log to MLflow at http://127\.0\.0\.1:9"):
        MlflowLog(tmp_path, "http://me:secret@127.0.0.1:9")
