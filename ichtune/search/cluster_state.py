"""What is known of the cluster that ``ichtune cluster up`` started: one JSON file in a folder of the user."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ichtune.errors import DataError
from ichtune.search.node_processes import Started

STATE_FILE = "cluster.json"
TOKEN_FILE = "token"
#: The variable that names the folder, for every command that looks for the cluster.
FOLDER_VARIABLE = "ICHTUNE_CLUSTER_FOLDER"
HEAD = "head"


@dataclass(frozen=True)
class Node:
    """One node: its name, its process, what it declares, and where its output goes."""

    name: str
    pid: int
    begun_s: float
    cpus: int
    gpus: int
    log: str

    @property
    def is_head(self) -> bool:
        """Whether it holds the cluster together."""
        return self.name == HEAD


@dataclass(frozen=True)
class ClusterState:
    """A cluster of this machine.

    Attributes:
        cluster_id: random, different for each ``up``; the mark of its processes.
        address: of its head, ``127.0.0.1:port``.
        dashboard_url: ``""`` without one.
        token_path: file that only its owner can read.
        temp_dir: folder of its sockets, logs and spilled objects; it goes with the cluster.
        nodes: the head first.
    """

    cluster_id: str
    address: str
    dashboard_url: str
    token_path: str
    temp_dir: str
    nodes: tuple[Node, ...]

    @property
    def metrics_targets(self) -> str:
        """File in which Ray lists for Prometheus where its metrics are."""
        return f"{self.temp_dir}/{HEAD}/prom_metrics_service_discovery.json"

    def process(self, node: Node) -> Started:
        """Return what a node's process is known by."""
        return Started(node.pid, node.begun_s, self.cluster_id)


def cluster_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the user's folder for the cluster of this machine.

    ``$ICHTUNE_CLUSTER_FOLDER``, else ``ichtune/cluster`` in the folder for state of the XDG base directories
    (``$XDG_STATE_HOME``, ``~/.local/state``).
    """
    if environ.get(FOLDER_VARIABLE):
        return Path(environ[FOLDER_VARIABLE])
    home = environ.get("XDG_STATE_HOME", "")
    states = Path(home) if Path(home).is_absolute() else Path.home() / ".local" / "state"
    return states / "ichtune" / "cluster"


def write_state(state: ClusterState, folder: Path) -> None:
    """Write the file, whole or not at all."""
    from ichtune.tables import write_json  # parquet and pandas come with it

    write_json(asdict(state), folder / STATE_FILE)


def read_state(folder: Path) -> ClusterState | None:
    """Read the file; None where no cluster was started. It may speak of processes that are long gone.

    Raises:
        DataError: the file cannot be read.
    """
    path = folder / STATE_FILE
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        nodes = tuple(Node(**node) for node in written["nodes"])
        fields = {name: str(written[name]) for name in ClusterState.__dataclass_fields__ if name != "nodes"}
        return ClusterState(**fields, nodes=nodes)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise DataError(
            f"{path} cannot be read ({error!r}); if no cluster of yours runs, remove it and run `ichtune cluster up`"
        ) from error
