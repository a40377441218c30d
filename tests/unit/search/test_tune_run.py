"""One run of Ray Tune: what it is handed, and how it ends. Nothing here starts Ray."""

import math
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from ichtune.errors import StorageError
from ichtune.search import tune_run
from ichtune.search.growth import N_AHEAD, Waiting
from ichtune.search.ledger import Ledger
from ichtune.search.legs import Budget, Legs
from ichtune.search.objective import plan_of
from ichtune.search.schedulers import create_scheduler
from ichtune.search.study import SearchOptions
from ichtune.search.trial_table import ledger_path
from ichtune.search.tune_adapters import LedgerCallback, LegSearcher, RungScheduler
from ichtune.search.tune_run import MOST_AT_ONCE, TuneRun, run_legs
from ichtune.workspace import Workspace

REQUEST = {"resources": {"cpu": 2.0}, "n_threads": 2, "wants_gpu": False, "gpu_memory_mb": None}


class FakePacker:
    n_concurrent = 5
    notes = ("recipe x could not be measured",)
    made: ClassVar[list["FakePacker"]] = []

    def __init__(self, *about, **options):
        self.options = options
        FakePacker.made.append(self)

    def n_that_fit(self):
        return 2

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
    monkeypatch.setenv("TUNE_PRINT_ALL_TRIAL_ERRORS", "")  # recorded, so that what the code sets is undone
    monkeypatch.delenv("TUNE_PRINT_ALL_TRIAL_ERRORS")
    FakePacker.made.clear()
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
    assert os.environ["TUNE_PRINT_ALL_TRIAL_ERRORS"] == "0", "tracebacks of Ray's would run through the live table"
    assert [type(callback) for callback in config.callbacks] == [LedgerCallback]
    assert FakePacker.made[0].options["grows"] is False


@pytest.mark.parametrize(("asked", "n"), [(None, 5), (3, 3)])
def test_trials_at_a_time_are_what_was_asked_for_or_what_fits(run_of, tuner, asked, n):
    run_legs(run_of(concurrent=asked), lambda event: None)

    assert tuner.tune_config.max_concurrent_trials == n


def test_on_a_cluster_that_grows_the_searcher_looks_for_room_and_whoever_waits_is_told(run_of, tuner, record):
    run, said = run_of(), []
    run.grows, run.note = True, said.append

    run_legs(run, lambda event: None)

    chosen = tuner.tune_config
    assert chosen.max_concurrent_trials == MOST_AT_ONCE
    assert chosen.search_alg._room() == 2 + N_AHEAD
    assert [type(callback) for callback in tuner.run_config.callbacks] == [LedgerCallback, Waiting]
    assert FakePacker.made[0].options["grows"] is True
    FakePacker.made[0].options["note"]("it waits")
    assert said == ["it waits"]


def test_whoever_says_how_many_trials_at_a_time_is_heeded_where_the_cluster_grows(run_of, tuner):
    run = run_of(concurrent=3)
    run.grows = True

    run_legs(run, lambda event: None)

    assert tuner.tune_config.max_concurrent_trials == 3


def test_the_time_counts_from_the_command_and_not_from_when_tune_is_ready(run_of, tuner):
    run = run_of(time_s=600.0)
    run.begun_s -= 590.0  # Ray's start and what was measured
    stopped = []

    def fit():
        stop = tuner.run_config.stop
        stopped.append(stop.stop_all())
        stop._ends_s -= 11.0
        stopped.append(stop.stop_all())

    tuner.fit = fit
    run_legs(run, lambda event: None)

    assert stopped == [False, True]
    assert FakePacker.made[0].options["ends_s"] == run.ends_s, "measuring may take what is left of the time"
    assert run_of().ends_s == math.inf


def test_when_measuring_took_all_of_the_time_nothing_is_begun(run_of, tuner):
    run = run_of(time_s=60.0)
    run.begun_s = time.monotonic() - 61.0
    tuner.fit = lambda: pytest.fail("Tune was started")

    run_legs(run, lambda event: None)

    assert run.legs.ledger.records() == []


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
