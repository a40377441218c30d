"""Clusters that start nodes as they are needed: whether this is one, how many trials to ask for, what is waited for."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from ray import tune

from ichtune.search.nodes import gpu_facts

#: Trials beyond those that fit that wait for new nodes: so much a cluster is asked to grow by at a time.
N_AHEAD = 4
#: Seconds without a new node after which a cluster counts as grown up: one trial waits then, so that few are proposed
#: before they must be.
GROWS_NO_MORE_S = 900.0
#: Seconds that an autoscaler is given to report for the first time; it does every 5 s, from about the head's start on.
REPORT_WAIT_S = 20.0
#: Seconds between two looks at the nodes.
LOOK_S = 2.0
#: Seconds that every trial waits before it is said, where nodes have room: their processes take a while to start.
SLOW_S = 60.0
#: Seconds between two times that it is said.
SAY_AGAIN_S = 300.0
#: Begins the kinds of nodes that Ray makes up where nothing scales.
_MADE_UP = "node_"


def can_grow(wait_s: float = REPORT_WAIT_S) -> bool:
    """Return whether the connected cluster starts nodes when somebody asks for what it does not have.

    Ray has no call that says so. What its autoscaler (either version) reports of the nodes is looked at: where none
    scales, Ray's own reporter makes up a kind for each node, and kinds with a name are those of an autoscaler's
    settings. A cluster of fixed size whose nodes were given such names by hand is taken for one that can grow: there a
    trial that fits nowhere waits, and it is said.

    Args:
        wait_s: seconds that a cluster which has just begun is given to report.
    """
    deadline = time.monotonic() + wait_s
    while True:
        kinds = _reported_kinds() or _reported_kinds_v2()
        if kinds:
            return any(not kind.startswith(_MADE_UP) for kind in kinds)
        if time.monotonic() >= deadline:
            return False
        time.sleep(min(LOOK_S, wait_s))


def _reported_kinds() -> set[str]:
    """Return the kinds of nodes that the first version of Ray's autoscaler reports; empty if it has reported none."""
    from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
    from ray.experimental.internal_kv import _internal_kv_get

    told = json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS) or "{}").get("autoscaler_report") or {}
    return {*(told.get("active_nodes") or ()), *(told.get("node_type_mapping") or {}).values()}


def _reported_kinds_v2() -> set[str]:
    """Return the kinds of nodes where the second version has reported at least once, which numbers its reports."""
    import ray
    from ray.autoscaler.v2.sdk import get_cluster_status

    try:
        status = get_cluster_status(ray.get_runtime_context().gcs_address)
    except (ray.exceptions.RayError, RuntimeError):
        return set()
    if status.stats.autoscaler_version in (None, "", "0"):
        return set()
    return {node.ray_node_type_name for node in (*status.active_nodes, *status.idle_nodes)}


def wait_for_gpu(note: Callable[[str], None], timeout_s: float) -> bool:
    """Ask a cluster that can grow for a whole GPU, and wait for it; return whether there is one now.

    Args:
        note: says one line to the person watching.
        timeout_s: seconds to wait at most.
    """
    import ray

    note(
        f"no node of the cluster has a GPU yet, and what recipes take of one is to be measured: waiting up to "
        f"{timeout_s:.0f} s for a node with one (`resources: {{gpu: 0}}` in the space searches without)"
    )
    asked = ray.remote(num_cpus=0, num_gpus=1, max_retries=0, max_calls=1)(gpu_facts).remote()
    ready, _ = ray.wait([asked], timeout=timeout_s)
    if not ready:
        ray.cancel(asked)
        note(f"no node with a GPU came within {timeout_s:.0f} s: nothing is measured, each trial asks for a whole one")
    return bool(ready)


class Room:
    """How many trials may run or wait on a cluster that can grow: those that fit on its nodes now, and some more.

    Those that wait are what makes it grow. They are proposed before others have ended, though, so only one waits once
    the cluster grows no more.

    Args:
        n_that_fit: returns how many fit now.
        clock: seconds; replaced in tests.
    """

    def __init__(self, n_that_fit: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._n_that_fit, self._clock = n_that_fit, clock
        self._most = self._fits = n_that_fit()
        self._looked = self._grew = clock()

    def __call__(self) -> int:
        """Return how many there may be at a time."""
        now = self._clock()
        if now - self._looked >= LOOK_S:
            self._looked, self._fits = now, self._n_that_fit()
            if self._fits > self._most or not self._fits:
                self._grew = now
            self._most = max(self._fits, self._most)
        return self._fits + (N_AHEAD if now - self._grew < GROWS_NO_MORE_S else 1)


class Waiting(tune.Callback):
    """Says that every trial waits for a node, once they have for a while.

    Args:
        note: says one line to the person watching; left behind when Ray copies the callback.
        n_that_fit: returns how many trials fit on the nodes that there are, whoever uses them.
        clock: seconds; replaced in tests.
    """

    def __init__(
        self,
        note: Callable[[str], None],
        n_that_fit: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._note, self._n_that_fit, self._clock = note, n_that_fit, clock
        self._look_at = 0.0
        self._since: float | None = None
        self._said: float | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Look at the trials now and then."""
        now = self._clock()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_S
        waiting = [trial for trial in trials if trial.status == "PENDING"]
        if not waiting or any(trial.status == "RUNNING" for trial in trials):
            self._since = self._said = None
            return
        self._since = now if self._since is None else self._since
        quiet_s = SLOW_S if self._n_that_fit() else LOOK_S
        if now - self._since >= quiet_s and (self._said is None or now - self._said >= SAY_AGAIN_S):
            self._said = now
            self._note(_waits_for(waiting[0].config["resources"]))


def _waits_for(asked: Mapping[str, float]) -> str:
    parts = " and ".join(f"{asked[kind]:g} {kind.upper()}" for kind in ("gpu", "cpu") if asked.get(kind))
    hint = "; where no kind of node has a GPU, `resources: {gpu: 0}` in the space" if asked.get("gpu") else ""
    return (
        f"no node has room for a trial, which asks for {parts}: waiting for the cluster to start one "
        f"(`ray status` says what it does{hint})"
    )
