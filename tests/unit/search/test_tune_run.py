"""One run of Ray Tune: what it is handed, and how it ends. Nothing here starts Ray."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from ichtune.errors import StorageError
from ichtune.search import tune_run
from ichtune.search.ledger import Ledger
from ichtune.search.legs import Budget, Legs
from ichtune.search.objective import plan_of
from ichtune.search.schedulers import create_scheduler
from ichtune.search.study import SearchOptions
from ichtune.search.trial_table import ledger_path
from ichtune.search.tune_adapters import LegSearcher, RungScheduler
from ichtune.search.tune_run import TuneRun, run_legs
from ichtune.workspace import Workspace

REQUEST = {"resources": {"cpu": 2.0}, "n_threads": 2, "wants_gpu": False, "gpu_memory_mb": None}


class FakePacker:
    n_concurrent = 5
    notes = ("recipe x could not be measured",)

    def __init__(self, *about):
        pass

    def request(self, recipe):
        return REQUEST


@pytest.fixture
def run_of(tmp_path, space):
    def make(origin: str = "", **options) -> TuneRun:
        workspace = Workspace(tmp_path / "work", origin)
        ledger = Ledger(ledger_path(workspace.layout, "mine"))
        ledger.open({"space_id": space.space_id})
        legs = Legs(space, ledger, create_scheduler(space.search.early_stop), Budget(2))
        return TuneRun(workspace, space, SearchOptions(**options), legs)

    return make


@pytest.fixture
def tuner(monkeypatch):
    """Record what Tune would be given; ``fit`` does what the test says."""
    made = SimpleNamespace(fit=lambda: None)

    class FakeTuner:
        def __init__(self, trainable, tune_config, run_config):
            made.trainable, made.tune_config, made.run_config = trainable, tune_config, run_config

        def fit(self):
            return made.fit()

    monkeypatch.setattr(tune_run.tune, "Tuner", FakeTuner)
    monkeypatch.setattr(tune_run, "Packer", FakePacker)
    monkeypatch.setenv("TUNE_GLOBAL_CHECKPOINT_S", "3600")
    return made


def test_an_actor_receives_all_that_a_leg_needs(run_of, record, tmp_path):
    run = run_of(stage="/somewhere")
    one = record(3, [0.5, 0.4, 0.3], rungs={1: 0.4, 3: 0.3})
    one.to_end = True

    config = run.config_of(one, FakePacker())

    assert config["work"] == str((tmp_path / "work").resolve())
    assert config["folder"] == str((tmp_path / "work").resolve() / "searches" / "mine" / "trials" / "0003")
    assert (config["trial"], config["told"], config["to_end"], config["stage"]) == (3, 3, True, "/somewhere")
    assert (config["folds"], config["epochs"], config["rungs"]) == ([0], 9, [1, 3])
    assert config["rung_epochs"] == {"1": 1, "3": 3}
    assert config["parameters"] == {"lr": 1e-3}
    assert REQUEST.items() <= config.items()
    assert plan_of(config).n_epochs == 9
    assert plan_of(config).stages[0].recipe == one.recipe


def test_where_the_workspace_lies_at_a_url_an_actor_is_told_the_url(run_of, record):
    config = run_of("memory://bucket/work").config_of(record(3, []), FakePacker())

    assert config["work"] == "memory://bucket/work"
    assert config["folder"] == str(Path("searches") / "mine" / "trials" / "0003")


def test_tune_is_handed_adapters_that_read_the_ledger(run_of, tuner):
    run = run_of()

    run_legs(run, lambda event: None)

    chosen, config = tuner.tune_config, tuner.run_config
    assert isinstance(chosen.search_alg, LegSearcher)
    assert isinstance(chosen.scheduler, RungScheduler)
    assert (chosen.num_samples, chosen.max_concurrent_trials, chosen.reuse_actors) == (-1, 5, True)
    assert config.failure_config.max_failures == tune_run.MAX_FAILURES
    assert Path(config.storage_path) == run.legs.ledger.path.parent.resolve()
    assert tuner.trainable is not None
    assert run.halted == ""
    assert os.environ["TUNE_GLOBAL_CHECKPOINT_S"] == "3600"


@pytest.mark.parametrize(("asked", "n"), [(None, 5), (3, 3)])
def test_trials_at_a_time_are_what_was_asked_for_or_what_fits(run_of, tuner, asked, n):
    run_legs(run_of(concurrent=asked), lambda event: None)

    assert tuner.tune_config.max_concurrent_trials == n


def test_what_the_packer_could_not_measure_is_said(run_of, tuner, caplog):
    run_legs(run_of(), lambda event: None)

    assert "recipe x could not be measured" in caplog.text


def test_a_trial_that_met_a_full_disk_ends_the_run(run_of, tuner):
    run = run_of()

    def fit():
        stop = tuner.run_config.stop
        assert not stop("a", {"epoch": 1})
        assert not stop.stop_all()
        assert not stop("a", {"epoch": 2, "halt": "the disk is full"})  # the trial ends by itself
        assert stop.stop_all()

    tuner.fit = fit
    run_legs(run, lambda event: None)

    assert run.halted == "the disk is full"


def test_a_ledger_that_could_not_be_written_ends_the_run_with_its_own_error(run_of, tuner, monkeypatch):
    run = run_of()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    def fit():
        monkeypatch.setattr("ichtune.search.ledger.os.fsync", full)
        with pytest.raises(StorageError):
            run.legs.ledger.end(0, "failed", "why")
        assert tuner.run_config.stop.stop_all()

    tuner.fit = fit
    with pytest.raises(StorageError, match="No space left"):
        run_legs(run, lambda event: None)


def test_what_tune_makes_of_the_ledger_s_error_is_the_ledger_s_error(run_of, tuner, monkeypatch):
    run = run_of()

    def fit():
        run.legs.ledger.failure = StorageError("the disk is full")
        raise RuntimeError("Tune's own words")

    tuner.fit = fit
    with pytest.raises(StorageError, match="the disk is full"):
        run_legs(run, lambda event: None)

    tuner.fit = lambda: (_ for _ in ()).throw(RuntimeError("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        run_legs(run_of(), lambda event: None)


def test_tune_s_names_say_which_leg_of_which_trial_it_is():
    name = tune_run._trial_name

    assert name(SimpleNamespace(config={"trial": 7, "told": 0})) == "trial_0007"
    assert name(SimpleNamespace(config={"trial": 7, "told": 3})) == "trial_0007_from_epoch_4"
