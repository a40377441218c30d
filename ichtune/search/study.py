"""run_search: one search, from its space to its table, continued wherever it was left."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from ichtune.errors import ConfigError, DataError, NothingUsableError, StorageError
from ichtune.search.checks import check_data, check_space, inputs_of
from ichtune.search.cluster import Cluster, ray_session
from ichtune.search.growth import can_grow
from ichtune.search.identity import check_noted, identity_of
from ichtune.search.ledger import FAILED, FINISHED, Ledger, TrialRecord
from ichtune.search.legs import MAX_FAILED_IN_A_ROW, Budget, Legs, Nothing
from ichtune.search.levels import search_level
from ichtune.search.mirror import fetch_pixels, push
from ichtune.search.only_writer import only_writer
from ichtune.search.schedulers import create_scheduler, to_finish
from ichtune.search.telemetry import OnEvent, TrialEvent
from ichtune.search.transfer import answers_of, told_by
from ichtune.search.trial_table import ledger_path, write_trials
from ichtune.search.tune_run import TuneRun, run_legs
from ichtune.search.watchers import Watcher, create_watchers
from ichtune.space import SearchSettings, Space
from ichtune.space.setting_fields import SettingError, check_search_name
from ichtune.workspace import Workspace


@dataclass(frozen=True)
class SearchOptions:
    """What a person may set beside the space; None takes the space's.

    Attributes:
        name: of the search's folder; the space's name by default.
        n_trials: trials in all, counted over every run of the search.
        time_s: seconds after which this run ends, starting Ray and measuring included.
        gpu_hours: GPU hours in all, counted over every run of the search.
        until_no_gain: trials in a row without a gain after which none is proposed any more.
        concurrent: trials at a time; else as many as the resources hold.
        address: of a Ray cluster to join.
        dashboard: whether a Ray that is started here has a dashboard.
        tensorboard: whether event files for TensorBoard are written.
        mlflow: URI of an MLflow server, or a folder, to log to as well.
        stage: folder on each node's own disk for a copy of the prepared data; None reads the workspace itself.
    """

    name: str | None = None
    n_trials: int | None = None
    time_s: float | None = None
    gpu_hours: float | None = None
    until_no_gain: int | None = None
    concurrent: int | None = None
    address: str | None = None
    dashboard: bool = True
    tensorboard: bool = True
    mlflow: str | None = None
    stage: str | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            try:
                check_search_name("name", self.name)
            except SettingError as error:
                raise ConfigError(f"--name {error}") from None

    def over(self, settings: SearchSettings) -> SearchSettings:
        """Return a space's settings with what a person set beside them in their place."""
        return replace(
            settings,
            trials=self.n_trials or settings.trials,
            time_s=self.time_s or settings.time_s,
            gpu_hours=self.gpu_hours or settings.gpu_hours,
            until_no_gain=self.until_no_gain or settings.until_no_gain,
            concurrent=self.concurrent or settings.concurrent,
        )


@dataclass(frozen=True)
class SearchResult:
    """How a run of a search ended.

    Attributes:
        name: of the search.
        records: every trial.
        n_trials: trials that were asked for.
        complete: whether there is nothing left to do within the budget.
        why: what ended it, in words.
        time_is_up: whether it was the time.
    """

    name: str
    records: list[TrialRecord]
    n_trials: int
    complete: bool
    why: str = ""
    time_is_up: bool = False

    def count(self, status: str) -> int:
        """Return how many trials have a status."""
        return sum(record.status == status for record in self.records)

    @property
    def best(self) -> TrialRecord | None:
        """The trial with the lowest loss at its end; where none has finished, the best at the highest rung."""
        finished = [r for r in self.records if r.status == FINISHED and r.last_loss is not None]
        if finished:
            return min(finished, key=lambda r: (r.last_loss, r.trial))
        best = to_finish(self.records, 1)
        return next((r for r in self.records if r.trial in best), None)


def run_search(
    workspace: Workspace,
    space: Space,
    options: SearchOptions,
    shown: Sequence[Watcher] = (),
    note: Callable[[str], None] = lambda line: None,
) -> SearchResult:
    """Run a search, or continue the one of the same name.

    Trials that ended are never run again; one that was interrupted goes on after its last whole epoch.

    Args:
        workspace: prepared data.
        space: what to search.
        options: budget and place.
        shown: who else is told how the search goes; none of them can end it.
        note: says one line to the person watching.

    Raises:
        ConfigError: the space does not fit the workspace, or the search of this name had another space.
        ConflictError: a search of this name is running already.
        NothingUsableError: no trial ended with a usable result, or too many failed in a row.
        StorageError: the disk is full; the same command goes on once there is room.
    """
    start = time.monotonic()
    check_space(workspace, space)
    space = search_level(space.level).settled(workspace, space)
    fetch_pixels(workspace, inputs_of(space))
    check_data(workspace, inputs_of(space))
    name = options.name or space.name
    place = workspace.origin or workspace.layout.root
    busy = f"search {name!r} is running already in {place}; watch it with `ichtune leaderboard`"
    with only_writer(workspace, name, busy) as on_append:
        ledger = Ledger(ledger_path(workspace.layout, name), on_append)
        identity = identity_of(workspace, space)
        check_noted(ledger, identity)
        legs = _legs(workspace, space, options, ledger, identity)  # what it refuses leaves no ledger behind
        ledger.open(identity, {"space": space.resolved()})
        run = TuneRun(workspace, space, options, legs, note=note, begun_s=start)
        folder = ledger.path.parent
        watchers = create_watchers(folder, shown, note, tensorboard=options.tensorboard, mlflow=options.mlflow)
        records = ledger.records()
        if _has_work(legs):
            with ray_session(
                options.address, folder / "ray_token", dashboard=options.dashboard, job_name=name
            ) as cluster:
                watchers.started(name, cluster, records)
                try:
                    run.grows = cluster.joined and can_grow()
                    _check_gpu_hours(run, cluster)
                    run_legs(run, _table_writer(workspace, watchers.event))
                finally:
                    watchers.ended()
    write_trials(workspace.layout)
    push(workspace, [workspace.layout.trials])
    return _result(name, ledger, legs, run.halted, time.monotonic() >= run.ends_s)


def _legs(workspace: Workspace, space: Space, options: SearchOptions, ledger: Ledger, identity: dict[str, Any]) -> Legs:
    settings = options.over(space.search)
    budget = Budget(settings.trials, settings.gpu_hours, settings.until_no_gain)
    name = ledger.path.parent.name
    if name in settings.learn_from:
        raise ConfigError(f"learn_from: search {name!r} knows its own trials; leave it out or give this one a new name")
    told = told_by(workspace.layout, space, identity)
    answers = answers_of(workspace.layout, name, identity)
    return Legs(space, ledger, create_scheduler(settings.early_stop), budget, told, answers)


def _check_gpu_hours(run: TuneRun, cluster: Cluster) -> None:
    """Say so where GPU hours end nothing, because no trial gets a GPU.

    Raises:
        ConfigError: they were asked for beside the space, which may be meant for other machines too.
    """
    gpu_hours, asks = run.legs.budget.gpu_hours, run.space.resources.gpu > 0
    if gpu_hours is None or (asks and (cluster.n_gpus > 0 or run.grows)):
        return
    where = "the cluster" if cluster.joined else "this machine"
    why = f"{where} has none" if asks else "the space's `resources` ask for none"
    if run.options.gpu_hours is not None:
        raise ConfigError(
            f"--gpu-hours {gpu_hours:g} would end nothing: no trial gets a GPU, because {why}. Limit the search with "
            f"--time, --trials or --until-no-gain"
        )
    run.note(f"the {gpu_hours:g} GPU hours of the space end nothing here: no trial gets a GPU, because {why}")


def _has_work(legs: Legs) -> bool:
    """Return whether a leg is waiting; it is written as begun, so that the run takes it up as interrupted."""
    return legs.next() is not Nothing.LEFT


def _result(name: str, ledger: Ledger, legs: Legs, halted: str, time_is_up: bool) -> SearchResult:
    records = ledger.records()
    if halted:
        raise StorageError(f"{halted} The search stopped where it was; the same command continues it")
    if legs.is_broken(records):
        raise NothingUsableError(_diagnosis(name, records))
    is_done = bool(legs.why_done) and all(record.ended for record in records)
    if records and is_done and all(record.status == FAILED for record in records):
        raise NothingUsableError(
            f"all {len(records)} trials of search {name!r} failed, the last with: {records[-1].reason}"
        )
    complete = is_done or legs.budget.is_gpu_time_up(records)
    return SearchResult(name, records, legs.budget.n_trials, complete, legs.why_done, time_is_up)


def _diagnosis(name: str, records: list[TrialRecord]) -> str:
    """Say what the trials that failed in a row have in common."""
    failed = [record for record in records if record.status == FAILED][-MAX_FAILED_IN_A_ROW:]
    reasons = Counter(record.reason.split(" (traceback")[0] for record in failed)
    reason, count = reasons.most_common(1)[0]
    shared = f"{count} of them with: {reason}" if count > 1 else f"each in its own way, the last: {failed[-1].reason}"
    return (
        f"search {name!r} stopped, because the last {len(failed)} trials failed one after the other, {shared}. Mend "
        f"that and run the same command again: finished trials are kept, and failed ones are not tried again"
    )


def _table_writer(workspace: Workspace, on_event: OnEvent) -> OnEvent:
    """Keep trials.parquet about as new as the last trial that ended, so that a kill leaves it current.

    It holds all trials, so the more there are the longer it takes: it gets a twentieth of the time at most.
    """
    next_s = 0.0

    def tell(event: TrialEvent) -> None:
        nonlocal next_s
        if event.kind not in ("start", "epoch") and (start := time.monotonic()) >= next_s:
            # it is made anew from the ledgers; Tune would take it for the trial's fault
            with suppress(StorageError, DataError):
                write_trials(workspace.layout)
                next_s = start + 20.0 * (time.monotonic() - start)
        on_event(event)

    return tell
