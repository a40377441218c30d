"""A Ray cluster of several nodes on this machine: a head and workers, each in processes of its own, on loopback only.

What it takes outlives the command that starts it: ``ray start --block``, one process a node, in a session of its own.
It is ended by ending these processes and their children; ``ray stop`` would end every Ray on the machine.
"""

import os
import random
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ichtune.errors import ConfigError, NothingUsableError, StorageError
from ichtune.locks import only_one
from ichtune.search import node_processes
from ichtune.search.cluster import JOB_STOP_WAIT_S, OBJECT_STORE_BYTES
from ichtune.search.cluster_state import HEAD, STATE_FILE, TOKEN_FILE, ClusterState, Node, read_state, write_state
from ichtune.search.loopback import LOOPBACK_SWITCH, START_HOOK, STAY_ON_LOOPBACK, answers
from ichtune.search.ray_token import use_token, write_token

#: Where people look for a Ray dashboard; taken if it is free.
DASHBOARD_PORT = 8265
#: Ports to choose from: below those that the system gives to outgoing connections.
PORTS = range(20_000, 32_000)
LOOPBACK = "127.0.0.1"
SHORT_TMP = "/tmp"
#: Seconds that a cluster may take to start.
START_WAIT_S = 300.0
#: How often a node is started before it counts as one that cannot be.
START_TRIES = 3
#: Seconds that nodes are given to end by themselves; Ray's own need up to 10.
END_WAIT_S = 20.0
_LOOK_S = 0.2
_RAY = (sys.executable, "-c", "from ray.scripts.scripts import main; main()")
#: What a node must not take over from the shell that starts it.
_NOT_INHERITED = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_JOB_CONFIG_JSON_ENV_VAR")


@dataclass(frozen=True)
class Wanted:
    """What a cluster is to be.

    Attributes:
        workers: nodes that run trials; the head runs none, so that losing a node never loses the head.
        cpus_per_worker: declared; by default the machine's shared out, at least one.
        gpus_per_worker: declared; by default the machine's shared out.
        dashboard: whether there is one; without it ``ray job submit`` does not work.
    """

    workers: int = 2
    cpus_per_worker: int | None = None
    gpus_per_worker: int | None = None
    dashboard: bool = True


@dataclass(frozen=True)
class _Share:
    """What one node gets of the machine; ``visible`` is its ``CUDA_VISIBLE_DEVICES``, None to leave it alone."""

    cpus: int
    gpus: int
    visible: str | None


@dataclass(frozen=True)
class NodeStatus:
    """One node as it is now: whether it lives, why not, and what the cluster has of it."""

    node: Node
    lives: bool
    why: str
    resources: dict[str, float]


def start_cluster(folder: Path, wanted: Wanted, on_step: Callable[[str], None]) -> tuple[ClusterState, bool]:
    """Start a cluster, unless the one of this folder runs already.

    Args:
        folder: where its state and its token are kept.
        wanted: what it is to be.
        on_step: told what is waited for.

    Returns:
        The cluster, and whether it was started now.

    Raises:
        ConfigError: more GPUs are declared than the machine has.
        ConflictError: another command starts or ends the cluster of this folder.
        NothingUsableError: a node did not start; nothing is left running.
        StorageError: the folder cannot be written.
    """
    with _alone(folder):
        before = read_state(folder)
        if before is not None:
            if any(node.is_head and node_processes.is_alive(before.process(node)) for node in before.nodes):
                return before, False
            _remove(before, folder)
        shares = _shares(wanted)
        state = _prepared(folder, wanted)
        try:
            return _start_nodes(state, folder, shares, on_step), True
        except BaseException:
            _remove(read_state(folder) or state, folder, keep_logs=True)
            raise


def stop_cluster(folder: Path) -> ClusterState | None:
    """End the cluster of a folder: its processes and their children, and nothing else.

    Returns:
        What was ended; None where no cluster was started.

    Raises:
        ConflictError: another command starts or ends it.
    """
    with _alone(folder):
        state = read_state(folder)
        if state is not None:
            _remove(state, folder)
        return state


def nodes_of(state: ClusterState) -> list[NodeStatus]:
    """Say of each node whether its process runs and the head counts on it.

    This process shows the cluster's token from now on.
    """
    run = {node.name: node_processes.is_alive(state.process(node)) for node in state.nodes}
    known = _known_to_head(state) if run.get(HEAD) else {}
    found = []
    for node in state.nodes:
        resources = known.get(node.name)
        why = "" if resources is not None else "the head does not count on it"
        if not run[HEAD]:
            why = "the head has ended" if not node.is_head else why
        if not run[node.name]:
            why = f"its process {node.pid} has ended; see {node.log}"
        found.append(NodeStatus(node, not why, why, resources or {}))
    return found


def settings_for(state: ClusterState) -> dict[str, str]:
    """Return the variables with which every command joins the cluster: ``ray``, ``ray job submit`` and ours."""
    dashboard = {"RAY_API_SERVER_ADDRESS": state.dashboard_url} if state.dashboard_url else {}
    return {
        "RAY_ADDRESS": state.address,
        **dashboard,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": state.token_path,
        LOOPBACK_SWITCH: "0",
    }


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {error.strerror}; name another one with --folder") from error
    with only_one(folder / "lock", f"another command starts or ends the cluster of {folder}; wait for it"):
        yield


def _prepared(folder: Path, wanted: Wanted) -> ClusterState:
    """Choose names and ports, write the token, and note it all before anything runs."""
    token = (folder / TOKEN_FILE).resolve()
    token.unlink(missing_ok=True)
    write_token(token)
    (port,) = _free_ports(1)
    dashboard = ""
    if wanted.dashboard:
        dashboard_port = DASHBOARD_PORT if _is_free(DASHBOARD_PORT) else _free_ports(1)[0]
        dashboard = f"http://{LOOPBACK}:{dashboard_port}"
    # Ray opens its folder to everybody, so it lies in one of the user's own.
    temporary = tempfile.mkdtemp(prefix="ichtune-", dir=_temporary_root())
    state = ClusterState(secrets.token_hex(16), f"{LOOPBACK}:{port}", dashboard, str(token), temporary, ())
    write_state(state, folder)
    return state


def _start_nodes(
    state: ClusterState, folder: Path, shares: list[_Share], on_step: Callable[[str], None]
) -> ClusterState:
    """Start the head, then the workers, a few at a time: Ray gives a node 30 s, and many at once take longer."""
    deadline = time.monotonic() + START_WAIT_S
    on_step("starting the head")
    state = _start_batch(state, folder, {HEAD: _Share(0, 0, None)}, deadline)
    named = [(f"worker-{number}", share) for number, share in enumerate(shares, start=1)]
    at_once = max(2, _n_cpus() // 2)
    for first in range(0, len(named), at_once):
        batch = dict(named[first : first + at_once])
        on_step(f"starting {' and '.join(batch)} of {len(named)}")
        state = _start_batch(state, folder, batch, deadline)
    if state.dashboard_url:
        on_step("waiting for the dashboard")
        while not _listens(state.dashboard_url.removeprefix("http://")):
            _check_patience(state, deadline)
    return state


def _start_batch(state: ClusterState, folder: Path, batch: dict[str, _Share], deadline: float) -> ClusterState:
    """Start nodes and wait until the head counts on each; one that does not come up is started again.

    Raises:
        NothingUsableError: one does not start, or it takes too long.
    """
    tries = dict.fromkeys(batch, 1)
    for name, share in batch.items():
        state = _start_node(state, folder, name, share)
    while not set(batch) <= set(_known_to_head(state)):
        for node in state.nodes:
            if node_processes.is_alive(state.process(node)):
                continue
            if tries.get(node.name, START_TRIES) == START_TRIES:
                raise NothingUsableError(f"node {node.name} did not start: {_last_words(node)}; see {node.log}")
            tries[node.name] += 1
            state = _start_node(state, folder, node.name, batch[node.name])
        _check_patience(state, deadline)
    return state


def _check_patience(state: ClusterState, deadline: float) -> None:
    if time.monotonic() > deadline:
        raise NothingUsableError(f"the cluster is not ready after {START_WAIT_S:.0f} s; see {state.nodes[-1].log}")
    time.sleep(_LOOK_S)


def _head_options(state: ClusterState) -> tuple[str, ...]:
    port = state.address.rpartition(":")[2]
    (client_port,) = _free_ports(1)
    options = ("--head", f"--port={port}", f"--ray-client-server-port={client_port}", "--disable-usage-stats")
    if not state.dashboard_url:
        return (*options, "--include-dashboard=false")
    dashboard_port = state.dashboard_url.rpartition(":")[2]
    return (*options, "--include-dashboard=true", f"--dashboard-host={LOOPBACK}", f"--dashboard-port={dashboard_port}")


def _start_node(state: ClusterState, folder: Path, name: str, share: _Share) -> ClusterState:
    """Start one node and note it at once, so that it is found again whatever happens to this command."""
    (agent_port,) = _free_ports(1)  # Ray's own choice is fixed: a second Ray on the host could submit no job
    options = _head_options(state) if name == HEAD else (f"--address={state.address}",)
    log = folder / "logs" / f"{name}.log"
    log.parent.mkdir(exist_ok=True)
    command = (
        *_RAY,
        "start",
        *options,
        "--block",
        f"--node-name={name}",
        f"--num-cpus={share.cpus}",
        f"--num-gpus={share.gpus}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        f"--dashboard-agent-listen-port={agent_port}",
        "--min-worker-port=0",  # any: the nodes of one host would take the same from a range
        "--max-worker-port=0",
        f"--temp-dir={state.temp_dir}/{name}",
    )
    environment = _environment(state) | ({} if share.visible is None else {"CUDA_VISIBLE_DEVICES": share.visible})
    started = node_processes.start(command, environment, state.cluster_id, log, Path(state.temp_dir))
    node = Node(name, started.pid, started.begun_s, share.cpus, share.gpus, str(log.resolve()))
    others = tuple(other for other in state.nodes if other.name != name)
    state = replace(state, nodes=(*others, node))
    write_state(state, folder)
    return state


def _environment(state: ClusterState) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    programs = (str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))
    return {
        **inherited,
        "PATH": os.pathsep.join(programs),  # what a job calls python, ray or ichtune is what started the cluster
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": state.token_path,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_JOB_STOP_WAIT_TIME_S": JOB_STOP_WAIT_S,
        LOOPBACK_SWITCH: "0",
        START_HOOK: STAY_ON_LOOPBACK,
    }


def _last_words(node: Node) -> str:
    lines = [line.strip() for line in Path(node.log).read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _known_to_head(state: ClusterState) -> dict[str, dict[str, float]]:
    """Return the resources of each node that the head counts on, by name; nothing where the head does not answer."""
    if not _listens(state.address):
        return {}
    use_token(Path(state.token_path))
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.gcs_pb2 import GcsNodeInfo  # type: ignore[attr-defined]
    from ray.exceptions import RayError

    try:
        found = GcsClient(address=state.address).get_all_node_info(timeout=5).values()
    except (RayError, RuntimeError):
        return {}
    alive = [info for info in found if info.state == GcsNodeInfo.GcsNodeState.ALIVE]
    return {info.node_name: dict(info.resources_total) for info in alive}


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    return answers(host, int(port), 1.0)


def _remove(state: ClusterState, folder: Path, *, keep_logs: bool = False) -> None:
    """End what runs of a cluster, the workers before the head, and remove what it left."""
    workers = [state.process(node) for node in state.nodes if not node.is_head]
    heads = [state.process(node) for node in state.nodes if node.is_head]
    node_processes.end([*workers, *heads], state.cluster_id, END_WAIT_S)
    shutil.rmtree(state.temp_dir, ignore_errors=True)
    (folder / STATE_FILE).unlink(missing_ok=True)
    Path(state.token_path).unlink(missing_ok=True)
    if not keep_logs:
        shutil.rmtree(folder / "logs", ignore_errors=True)


def _shares(wanted: Wanted) -> list[_Share]:
    """Share the machine out among the workers; GPUs that are declared where there are none stay a declaration.

    Raises:
        ConfigError: there are GPUs, but fewer than declared.
    """
    there, workers = visible_gpus(), wanted.workers
    cpus = wanted.cpus_per_worker or max(1, _n_cpus() // workers)
    gpus = len(there) // workers if wanted.gpus_per_worker is None else wanted.gpus_per_worker
    if not there:
        return [_Share(cpus, gpus, None)] * workers
    if gpus * workers > len(there):
        raise ConfigError(
            f"{workers} workers with {gpus} GPUs each need {gpus * workers}, this machine has {len(there)}; give fewer "
            f"--workers or --gpus-per-worker: trials share a GPU by `resources: {{gpu: 0.5}}`"
        )
    return [_Share(cpus, gpus, ",".join(there[gpus * n : gpus * (n + 1)])) for n in range(workers)]


def visible_gpus() -> list[str]:
    """Return the ids of the GPUs that this process may use, without importing what would use them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [part.strip() for part in visible.split(",") if part.strip() not in ("", "-1")]
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    with suppress(OSError, subprocess.SubprocessError):
        told = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
        return [line.strip() for line in told.splitlines() if line.strip().isdigit()]
    return []


def _temporary_root() -> str | None:
    """Ray's choice, else a short one: the name of a Unix socket may have about 100 bytes, and TMPDIR is often long."""
    return os.environ.get("RAY_TMPDIR") or (SHORT_TMP if os.access(SHORT_TMP, os.W_OK) else None)


def _n_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_ports(n_ports: int) -> list[int]:
    """Choose ports that nobody listens on, at random, so that clusters started at once seldom choose the same."""
    chosen: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        if len(chosen) == n_ports:
            break
        if _is_free(port):
            chosen.append(port)
    return chosen


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
