"""Trials whose worker died: how often one may, and what is kept of it where it outlives the cluster."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ichtune.search.mirror import push
from ichtune.workspace import Workspace

#: Deaths in a row, with no new epoch in between, after which a worker that dies once more takes its trial along. Nodes
#: that come and go cost a trial an epoch each; a recipe that kills its worker does so again at the same place.
MAX_FAILURES = 2
#: File in a trial's folder that keeps what Ray said of the deaths.
DEATHS_FILE = "worker_died.txt"
#: Characters of a cause in a trial's reason; the rest is in the file.
MAX_CAUSE = 300

#: Keeps a text beside a trial's checkpoints, by the trial's configuration; returns where, for people.
Keep = Callable[[Mapping[str, Any], str], str]


def gains_tries(trial: Any, n_deaths: int = 0) -> None:
    """Let a trial of Tune's die as often as at its begin, less the deaths since it last told a new epoch.

    Tune's own count may be too high, because a death can reach it twice, and too low, because a trial that it gave up
    for that is handed out as another one.
    """
    trial.max_failures = trial.num_failures + max(0, MAX_FAILURES - n_deaths)


def reason_of(trial: Any, keep: Keep | None = None) -> str:
    """Return why a trial of Tune's failed whose task ended in an error: the cause, and where all of it can be read.

    Args:
        trial: its ``error_file``, in a folder of Ray's on this machine, tells of every death.
        keep: keeps a copy; what it raises as OSError or StorageError is raised.
    """
    try:
        text = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
    except (OSError, TypeError):
        return f"its worker died (traceback in {trial.error_file})"
    cause, died = cause_of(text)
    times = f"its worker died {MAX_FAILURES + 1} times with no epoch in between, the last time: " if died else ""
    place = trial.error_file if keep is None else keep(trial.config, text)
    return f"{times}{cause} (traceback in {place})"


def cause_of(text: str) -> tuple[str, bool]:
    """Return the line that says most of the last error that Tune wrote down, and whether it was a worker's death.

    Args:
        text: of Tune's file, where every error begins with ``Failure # ``.
    """
    last = text.rpartition("Failure # ")[2]
    lines = [line.strip() for line in last.splitlines()[1:] if line.strip()] or ["nothing is known of it"]
    if lines[0].startswith("ray::"):  # an exception in the worker, whose last line names it
        return lines[-1][:MAX_CAUSE], False
    because = [line for line in lines if " because " in line]
    return (because or lines)[0][:MAX_CAUSE], True


def keeper_of(workspace: Workspace) -> Keep:
    """Return what keeps texts in the workspace, at its URL too where it has one."""

    def keep(config: Mapping[str, Any], text: str) -> str:
        path = Path(workspace.layout.root, config["folder"]) / DEATHS_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return next(iter(push(workspace, [path])), str(path))

    return keep
