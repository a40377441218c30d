"""What a worker process is called while it trains: by its trial, not by the class of its actor.

Ray fixes an actor's name in the dashboard when it makes the actor, and an actor that is used again for the next trial
keeps it. The name of the process is not fixed, and the dashboard's page of nodes, ``ps`` and ``nvidia-smi`` show it.
Neither is the name in logs, which Ray takes from a line of its own.
"""

import sys

#: Where Ray reads the name that the following lines of a worker's log belong to.
_LOG_NAME = ":actor_name:"


def name_process(name: str) -> None:
    """Give this process a name, until Ray gives it the next one, after the actor's present call.

    Args:
        name: of the trial, as its actor is shown.
    """
    import ray._raylet

    set_title = getattr(ray._raylet, "setproctitle", None)  # Ray's own copy of the package, and no part of its API
    if set_title is not None:
        set_title(f"ray::{name}")


def name_logs(name: str) -> None:
    """Begin the part of this worker's logs, standard output and standard error, that belongs to a trial.

    Args:
        name: of the trial, as its actor is shown.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.write(f"{_LOG_NAME}{name}\n")
        stream.flush()
