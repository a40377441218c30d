"""A cluster whose nodes can be killed and are started again, and who in it is killed."""

import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import ray  # noqa: F401 - it brings psutil along

import psutil  # isort: skip

from ichtune.errors import NothingUsableError
from ichtune.search import local_cluster, node_processes
from ichtune.search.cluster_state import Node, read_state

N_WORKERS = 2
#: Seconds after which a command that was started counts as hanging, and that a victim may take to appear.
HANGS_S = 600.0
#: Seconds that a node may take until its raylet runs.
STARTS_S = 30.0
#: How often a cluster is started before the benchmark gives up.
START_TRIES = 5


class Cluster:
    """A head and two workers on this machine, as ``ichtune cluster up`` starts them; what died is started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make_ready(self) -> None:
        """Start what is missing: a node, or where the head is gone everything."""
        state = read_state(self.folder)
        if state is None or not all(node_processes.is_alive(state.process(n)) for n in state.nodes if n.is_head):
            self.stop()
            self._start()
            return
        dead = [node.name for node in state.nodes if not _works(node)]
        if dead:
            for node in state.nodes:
                send(signal.SIGKILL, _tree(node.pid) if node.name in dead else [])
            shares = dict.fromkeys(dead, local_cluster._Share(1, 0, None))
            with suppress(NothingUsableError):  # it is tried again at the next look
                local_cluster._start_batch(state, self.folder, shares, time.monotonic() + HANGS_S)

    def _start(self) -> None:
        """Start a cluster; on a machine that is very busy a head may not come up in Ray's time."""
        wanted = local_cluster.Wanted(workers=N_WORKERS, cpus_per_worker=1, dashboard=False)
        for _ in range(START_TRIES):
            with suppress(NothingUsableError):
                local_cluster.start_cluster(self.folder, wanted, lambda step: None)
                return
        raise RuntimeError(f"no cluster came up in {START_TRIES} tries; the machine may be too busy")

    def stop(self) -> None:
        local_cluster.stop_cluster(self.folder)

    def nodes(self) -> tuple[Node, ...]:
        state = read_state(self.folder)
        return state.nodes if state else ()

    def victims(self, victim: str, every_node: bool) -> list[psutil.Process]:
        """The processes that a kill takes now; none while there is no such victim yet.

        Args:
            victim: ``worker``, ``raylet``, ``whole node`` or ``head``.
            every_node: of the nodes that run trials all, and not only the one that trains now.
        """
        trees = {node.name: _tree(node.pid) for node in self.nodes()}
        if victim == "head":
            return trees["head"]
        workers = [tree for name, tree in trees.items() if name != "head" and tree]
        training = [tree for tree in workers if any(map(_is_trial, tree))]
        if victim == "worker":
            return [process for tree in training for process in tree if _is_trial(process)]
        chosen = workers if every_node else (training or workers)[:1]
        processes = [process for tree in chosen for process in tree]
        return processes if victim == "whole node" else [p for p in processes if _title(p)[1] == "raylet"]


def _tree(pid: int) -> list[psutil.Process]:
    """A process and what came from it, without those that have ended."""
    with suppress(psutil.Error):
        root = psutil.Process(pid)
        return [process for process in [root, *root.children(recursive=True)] if _runs(process)]
    return []


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def _works(node: Node) -> bool:
    """Whether a node has a raylet, or may have one soon: ``ray start`` outlives one that was asked to end."""
    tree = _tree(node.pid)
    return any(_title(p)[1] == "raylet" for p in tree) or (bool(tree) and time.time() - node.begun_s < STARTS_S)


def send(number: signal.Signals, processes: Sequence[psutil.Process]) -> None:
    """Send a signal to those that still run."""
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(number)


def _title(process: psutil.Process) -> tuple[str, str]:
    """Command line and name; empty where it has ended."""
    with suppress(psutil.Error):
        return " ".join(process.cmdline()), process.name()
    return "", ""


def _is_trial(process: psutil.Process) -> bool:
    quiet = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent")
    return _title(process)[0].startswith("ray::") and not _title(process)[0].startswith(quiet)
