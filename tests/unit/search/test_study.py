"""run_search: what it refuses before Ray is started, and how a run of it is said to have ended."""

import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from ichtune.errors import ConfigError, ConflictError, DataError, NothingUsableError, StorageError
from ichtune.locks import only_one
from ichtune.search import identity, study
from ichtune.search.cluster import Cluster
from ichtune.search.identity import identity_of
from ichtune.search.ledger import FAILED, FINISHED, INTERRUPTED, STOPPED, Ledger
from ichtune.search.legs import MAX_FAILED_IN_A_ROW
from ichtune.search.study import SearchOptions, SearchResult, run_search
from ichtune.search.telemetry import TrialEvent
from ichtune.search.trial_table import ledger_path
from ichtune.search.watchers import Watcher, Watchers
from ichtune.space import EarlyStop, Resources, read_space
from ichtune.tables import TRIALS, read_table


@pytest.fixture
def no_ray(monkeypatch):
    """Ray is not started, and must not be."""

    def refuse(*arguments, **options):
        raise AssertionError("Ray was started although there is nothing to run")

    monkeypatch.setattr(study, "ray_session", refuse)


class Told(Watcher):
    """Remembers what it is told."""

    def __init__(self):
        self.said = []

    def started(self, name, cluster, records):
        self.said.append(f"started {name} after {len(records)}")

    def event(self, event):
        self.said.append(event.kind)

    def ended(self):
        self.said.append("ended")


@pytest.fixture
def fake_ray(monkeypatch, epoch):
    """Instead of Ray's legs: every trial is run as a function says; returns the trials that were run."""
    ran, gpus = [], [0]

    @contextmanager
    def session(*arguments, **options):
        yield Cluster("", "", 2, gpus[0], joined=False)

    def use(end, n_gpus=0):
        gpus[0] = n_gpus

        def run_legs(run, on_event):
            while hasattr(record := run.legs.next(), "trial"):
                ran.append(record.trial)
                end(run, record)
                if run.halted or run.legs.ledger.records()[record.trial].status == INTERRUPTED:
                    return
                on_event(TrialEvent(run.legs.ledger.records()[record.trial].status, record.trial, "net", 1, 9, 0.3))

        monkeypatch.setattr(study, "run_legs", run_legs)
        return ran

    monkeypatch.setattr(study, "ray_session", session)
    monkeypatch.setattr(study, "create_watchers", lambda folder, shown, note, **asked: Watchers(shown, note))
    return use


@pytest.fixture
def plain(space):
    """A space whose trials run to their end."""
    return replace(space, search=replace(space.search, algorithm="random", trials=3, early_stop=EarlyStop()))


def finish(run, record):
    run.legs.ledger.epoch(record.trial, {"epoch": 1, "val_weighted_log_loss": 0.3, "seconds": 3600.0, "gpu": 1.0})
    run.legs.ledger.end(record.trial, FINISHED)


def fail(run, record):
    run.legs.ledger.end(record.trial, FAILED, f"RuntimeError: broken (traceback in {record.trial}.txt)")


def test_data_without_labels_is_refused_before_ray_is_started(fake_workspace, space, no_ray):
    workspace = fake_workspace()
    workspace.slices["is_labelled"] = False

    with pytest.raises(DataError, match=r"no labelled slices.*--labels CSV"):
        run_search(workspace, space, SearchOptions())

    assert not workspace.layout.searches.exists()


def test_a_crop_that_was_not_prepared_is_refused_before_ray_is_started(fake_workspace, tmp_path, no_ray):
    workspace = fake_workspace()
    path = tmp_path / "crops.yaml"
    path.write_text("version: 1\nparameters:\n  epochs: 3\n  crop: [none, head]\n")

    with pytest.raises(DataError, match=r"no cache with crop 'head'.*--size 224 --crop head --folds 3 --seed 7`"):
        run_search(workspace, read_space(path), SearchOptions())

    assert not workspace.layout.searches.exists()


def test_a_search_that_runs_already_is_not_joined_by_a_second(fake_workspace, space, no_ray):
    workspace = fake_workspace()
    folder = workspace.layout.searches / space.name

    with only_one(folder / ".lock", "held"), pytest.raises(ConflictError, match="is running already"):
        run_search(workspace, space, SearchOptions())


def test_a_search_is_run_told_of_and_complete(fake_workspace, plain, fake_ray):
    workspace, told = fake_workspace(), Told()
    ran = fake_ray(finish)

    found = run_search(workspace, plain, SearchOptions(), [told])

    assert ran == [0, 1, 2]
    assert found.complete
    assert found.why == "3 trials were proposed"
    assert (found.name, found.n_trials, found.count(FINISHED)) == ("space", 3, 3)
    assert told.said == ["started space after 0", "finished", "finished", "finished", "ended"]
    assert read_table(workspace.layout.trials, TRIALS)["status"].tolist() == [FINISHED] * 3
    about = Ledger(ledger_path(workspace.layout, "space")).about()
    assert about["space"]["parameters"].keys() == plain.resolved()["parameters"].keys()
    assert {key: about[key] for key in identity_of(workspace, plain)} == identity_of(workspace, plain)


def test_a_complete_search_starts_no_ray_and_more_trials_extend_it(fake_workspace, plain, fake_ray, monkeypatch):
    workspace = fake_workspace()
    ran = fake_ray(finish)
    run_search(workspace, plain, SearchOptions())
    with monkeypatch.context() as patch:
        patch.setattr(study, "ray_session", None)
        assert run_search(workspace, plain, SearchOptions()).complete

    found = run_search(workspace, plain, SearchOptions(n_trials=5))

    assert ran == [0, 1, 2, 3, 4]
    assert found.n_trials == 5


def test_another_space_under_the_same_name_is_refused(fake_workspace, plain, fake_ray, no_ray):
    workspace = fake_workspace()
    other = replace(plain, search=replace(plain.search, seed=8))
    Ledger(ledger_path(workspace.layout, "mine")).open(identity_of(workspace, plain))

    with pytest.raises(ConfigError, match=r"search 'mine' was started with another space_id"):
        run_search(workspace, other, SearchOptions(name="mine"))


def test_a_search_of_other_labels_is_not_continued_and_answers_nothing(fake_workspace, plain, fake_ray, monkeypatch):
    workspace = fake_workspace()
    ran = fake_ray(finish)
    run_search(workspace, plain, SearchOptions())
    inputs = {**identity.inputs_of(workspace), "labels_sha256": "others"}
    monkeypatch.setattr(identity, "inputs_of", lambda workspace: inputs)

    with pytest.raises(ConfigError, match=r"search 'space' was started with another labels_sha256"):
        run_search(workspace, plain, SearchOptions(n_trials=5))
    run_search(workspace, plain, SearchOptions(name="again"))

    assert ran == [0, 1, 2, 0, 1, 2]


def test_gpu_hours_that_would_end_nothing_are_refused(fake_workspace, plain, fake_ray):
    fake_ray(finish)
    with pytest.raises(ConfigError, match=r"--gpu-hours 2 would end nothing: .* because this machine has none"):
        run_search(fake_workspace("a"), plain, SearchOptions(gpu_hours=2))

    fake_ray(finish, n_gpus=1)
    assert run_search(fake_workspace("b"), plain, SearchOptions(gpu_hours=9)).complete
    on_cores = replace(plain, resources=Resources(gpu=0))
    with pytest.raises(ConfigError, match=r"--gpu-hours 9 would end nothing: .* `resources` ask for none"):
        run_search(fake_workspace("c"), on_cores, SearchOptions(gpu_hours=9))


def test_gpu_hours_of_a_space_that_end_nothing_here_are_noted(fake_workspace, plain, fake_ray):
    fake_ray(finish)
    notes = []
    shared = replace(plain, search=replace(plain.search, gpu_hours=40.0))

    assert run_search(fake_workspace(), shared, SearchOptions(), note=notes.append).complete

    assert notes == [
        "the 40 GPU hours of the space end nothing here: no trial gets a GPU, because this machine has none"
    ]


def test_a_search_cannot_learn_from_itself(fake_workspace, plain, no_ray):
    itself = replace(plain, search=replace(plain.search, learn_from=("space",)))

    workspace = fake_workspace()

    with pytest.raises(ConfigError, match="learn_from: search 'space' knows its own trials"):
        run_search(workspace, itself, SearchOptions())

    assert not ledger_path(workspace.layout, "space").exists(), "a name that is taken by a search that never began"


def test_an_interrupted_search_is_not_complete_and_goes_on(fake_workspace, plain, fake_ray):
    workspace = fake_workspace()
    fake_ray(lambda run, record: None)
    found = run_search(workspace, plain, SearchOptions())
    assert not found.complete
    assert [r.status for r in found.records] == [INTERRUPTED]

    ran = fake_ray(finish)
    assert run_search(workspace, plain, SearchOptions()).complete
    assert ran == [0, 0, 1, 2]


def test_whoever_watches_is_let_go_however_the_run_ends(fake_workspace, plain, fake_ray):
    told = Told()

    def interrupt(run, record):
        raise KeyboardInterrupt

    fake_ray(interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_search(fake_workspace(), plain, SearchOptions(), [told])

    assert told.said == ["started space after 0", "ended"]


def test_spent_gpu_hours_complete_a_search_wherever_its_trials_stand(fake_workspace, plain, fake_ray):
    workspace = fake_workspace()

    def leave(run, record):
        run.legs.ledger.epoch(record.trial, {"epoch": 1, "val_weighted_log_loss": 0.3, "seconds": 3600.0, "gpu": 1.0})

    fake_ray(leave, n_gpus=1)
    found = run_search(workspace, plain, SearchOptions(gpu_hours=1.0))
    assert found.complete

    again = run_search(workspace, plain, SearchOptions(gpu_hours=1.0))
    assert again.complete
    assert again.why == "1 GPU hours are spent"


def test_what_is_set_beside_the_space_goes_before_it(fake_workspace, plain, fake_ray):
    settings = replace(plain.search, gpu_hours=7.0, until_no_gain=3)
    seen = []

    def look(run, record):
        seen.append(run.legs.budget)
        finish(run, record)

    fake_ray(look, n_gpus=1)
    run_search(fake_workspace("a"), replace(plain, search=settings), SearchOptions(n_trials=1, gpu_hours=5))
    run_search(fake_workspace("b"), replace(plain, search=settings), SearchOptions(until_no_gain=2))

    assert (seen[0].n_trials, seen[0].gpu_hours, seen[0].until_no_gain) == (1, 5, 3)
    assert (seen[1].n_trials, seen[1].gpu_hours, seen[1].until_no_gain) == (3, 7.0, 2)


def test_a_recipe_that_another_search_of_the_workspace_finished_is_not_run(fake_workspace, plain, fake_ray):
    workspace = fake_workspace()
    ran = fake_ray(finish)
    run_search(workspace, plain, SearchOptions(name="first"))

    found = run_search(workspace, plain, SearchOptions(name="second"))

    assert ran == [0, 1, 2]
    assert [(r.from_search, r.duplicate_of, r.status) for r in found.records] == [
        ("first", number, FINISHED) for number in range(3)
    ]


def test_a_full_disk_is_said_to_be_one(fake_workspace, plain, fake_ray):
    def halt(run, record):
        run.halted = "the disk is full."

    fake_ray(halt)
    with pytest.raises(StorageError, match=r"the disk is full\. The search stopped where it was; the same"):
        run_search(fake_workspace(), plain, SearchOptions())


def test_a_table_that_cannot_be_written_ends_no_trial(fake_workspace, plain, fake_ray, monkeypatch):
    workspace = fake_workspace()
    fake_ray(finish)
    writes = []

    def write(layout):
        writes.append(layout)
        if len(writes) <= 3:
            raise StorageError("the disk is full")

    monkeypatch.setattr(study, "write_trials", write)

    assert run_search(workspace, plain, SearchOptions()).count(FINISHED) == 3
    assert len(writes) == 4


def test_a_ledger_of_another_search_that_is_damaged_meanwhile_ends_no_trial(fake_workspace, plain, fake_ray):
    workspace = fake_workspace()

    def damage(run, record):
        path = ledger_path(workspace.layout, "other")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("no line of a ledger\n")
        finish(run, record)

    fake_ray(damage)

    assert run_search(workspace, plain, SearchOptions()).count(FINISHED) == 3
    assert len(read_table(workspace.layout.trials, TRIALS)) == 3


def test_the_table_is_written_again_only_when_there_is_time_for_it(fake_workspace, plain, fake_ray, monkeypatch):
    now, writes = [0.0], []

    def end(run, record):
        now[0] += 7.0
        finish(run, record)

    def write(layout):
        writes.append(now[0])
        now[0] += 1.0

    fake_ray(end)
    monkeypatch.setattr(study, "write_trials", write)
    monkeypatch.setattr(study.time, "monotonic", lambda: now[0])

    run_search(fake_workspace(), plain, SearchOptions(n_trials=6))

    assert writes == [7.0, 29.0, 44.0]  # a second each, so not before twenty have passed; and once in the end


def test_too_many_failures_in_a_row_end_a_search_with_what_they_share(fake_workspace, plain, fake_ray):
    fake_ray(fail)

    with pytest.raises(NothingUsableError, match=r"last 5 trials failed one after the other, 5 of them with: Runt.*br"):
        run_search(fake_workspace(), plain, SearchOptions(n_trials=9))


def test_failures_of_all_sorts_are_told_by_the_last(fake_workspace, plain, fake_ray):
    fake_ray(lambda run, record: run.legs.ledger.end(record.trial, FAILED, f"reason {record.trial}"))

    with pytest.raises(NothingUsableError, match=r"each in its own way, the last: reason 4"):
        run_search(fake_workspace(), plain, SearchOptions(n_trials=9))
    assert MAX_FAILED_IN_A_ROW == 5


def test_a_search_all_of_whose_trials_failed_has_nothing_to_show(fake_workspace, plain, fake_ray):
    fake_ray(fail)

    with pytest.raises(NothingUsableError, match=r"all 3 trials of search 'space' failed, the last with: RuntimeError"):
        run_search(fake_workspace(), plain, SearchOptions())


def test_a_result_knows_its_best_trial(record):
    records = [record(0, [0.3, 0.2], FINISHED), record(1, [0.1], STOPPED), record(2, [0.05], FAILED)]

    assert SearchResult("x", records, 3, complete=True).best.trial == 0  # a stopped trial's loss was never annealed
    assert SearchResult("x", records, 3, complete=True).count(FAILED) == 1
    assert SearchResult("x", [], 3, complete=False).best is None


@pytest.mark.parametrize("joined", [True, False])
def test_a_run_knows_when_it_was_begun_and_whether_a_cluster_that_it_joined_can_grow(
    fake_workspace, plain, monkeypatch, joined
):
    seen, said = [], []

    @contextmanager
    def session(*arguments, **options):
        time.sleep(0.2)  # Ray starts
        yield Cluster("", "", 2, 0, joined=joined)

    def run_legs(run, on_event):
        seen.append((run.grows, time.monotonic() - run.begun_s))
        run.note("it waits")

    monkeypatch.setattr(study, "ray_session", session)
    monkeypatch.setattr(study, "can_grow", lambda: True)
    monkeypatch.setattr(study, "create_watchers", lambda folder, shown, note, **asked: Watchers(shown, note))
    monkeypatch.setattr(study, "run_legs", run_legs)

    run_search(fake_workspace(), plain, SearchOptions(), note=said.append)

    ((grows, after_s),) = seen
    assert grows is joined
    assert after_s >= 0.2, "the time counts from when Ray was ready, and not from the command"
    assert said == ["it waits"]
