"""ichtune cluster: a Ray cluster of several nodes on this machine, for the searches of its user."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ichtune.cli.options import JsonOption, QuietOption

if TYPE_CHECKING:
    from ichtune.search.cluster_state import ClusterState
    from ichtune.search.local_cluster import NodeStatus

cluster = typer.Typer(
    name="cluster",
    help="Start, look at and end a Ray cluster of several nodes on this machine.\n\n"
    "It listens on the loopback interface only, asks for a token, and outlives the command that started it.\n\n"
    "Example: ichtune cluster up --workers 2",
    no_args_is_help=True,
    rich_markup_mode=None,
)

FolderOption = Annotated[
    Path | None,
    typer.Option(
        "--folder",
        envvar="ICHTUNE_CLUSTER_FOLDER",
        help="Where the cluster's state and token are kept; a folder of yours by default.",
        show_default=False,
    ),
]


@cluster.command()
def up(
    workers: Annotated[int, typer.Option("--workers", min=1, help="Nodes that run trials, beside the head.")] = 2,
    cpus: Annotated[
        int | None,
        typer.Option("--cpus-per-worker", min=1, help="CPU cores a worker declares; the machine's shared by default."),
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option("--gpus-per-worker", min=0, help="GPUs a worker declares; the machine's shared by default."),
    ] = None,
    dashboard: Annotated[bool, typer.Option(help="Start the dashboard; `ray job submit` needs it.")] = True,
    folder: FolderOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Start a head and workers that stay when this command ends.

    Example: ichtune cluster up --workers 2 --cpus-per-worker 4
    """
    from ichtune.cli.console import note, result, result_json
    from ichtune.search.local_cluster import Wanted, start_cluster

    wanted = Wanted(workers, cpus, gpus, dashboard)
    state, is_new = start_cluster(_folder(folder), wanted, lambda step: note(step, quiet))
    if not is_new:
        note(
            f"the cluster runs already, with {len(state.nodes) - 1} workers; `ichtune cluster status` shows them", quiet
        )
    if as_json:
        result_json({"started": is_new, **_about(state)})
        return
    result(_how_to_use(state))
    note("next: ichtune search --address auto", quiet)


@cluster.command()
def status(folder: FolderOption = None, as_json: JsonOption = False) -> None:
    """Say which nodes of the cluster live, and what they have.

    Example: ichtune cluster status
    """
    from ichtune.cli.console import note, result, result_json
    from ichtune.search.cluster_state import read_state
    from ichtune.search.local_cluster import nodes_of

    state = read_state(_folder(folder))
    nodes = nodes_of(state) if state else []
    lives = any(node.lives for node in nodes)
    if as_json:
        result_json({"running": lives, **(_about(state) if state else {}), "nodes": [_row(node) for node in nodes]})
    elif state and lives:
        result(_table(state, nodes))
    for node in nodes:
        if not node.lives:
            note(f"node {node.node.name} is dead: {node.why}")
    if not lives:
        _end_without_cluster(state is not None)


@cluster.command()
def down(folder: FolderOption = None, quiet: QuietOption = False) -> None:
    """End the cluster: exactly its processes and their children.

    Example: ichtune cluster down
    """
    from ichtune.cli.console import note
    from ichtune.search.local_cluster import stop_cluster

    state = stop_cluster(_folder(folder))
    if state is None:
        note("no cluster runs here", quiet)
    else:
        note(f"ended the cluster at {state.address}", quiet)


def _folder(given: Path | None) -> Path:
    from ichtune.search.cluster_state import cluster_folder

    return given or cluster_folder()


def _end_without_cluster(was_started: bool) -> None:
    from ichtune.errors import NothingUsableError

    why = "every node of the cluster has ended" if was_started else "no cluster runs here"
    raise NothingUsableError(f"{why}; `ichtune cluster up` starts one")


def _about(state: "ClusterState") -> dict[str, Any]:
    from ichtune.search.local_cluster import settings_for

    return {
        "address": state.address,
        "dashboard_url": state.dashboard_url,
        "token_path": state.token_path,
        "metrics_targets": state.metrics_targets,
        "settings": settings_for(state),
        "nodes": [{"name": node.name, "pid": node.pid, "cpus": node.cpus, "gpus": node.gpus} for node in state.nodes],
    }


def _how_to_use(state: "ClusterState") -> str:
    from ichtune.search.local_cluster import settings_for

    lines = [f"address    {state.address}"]
    lines += [f"dashboard  {state.dashboard_url}  (it asks for the token)"] * bool(state.dashboard_url)
    lines += [f"token      {state.token_path}", "", "search on it:", "  ichtune search --address auto", ""]
    lines += ["or let every command of a shell join it, `ray status` and `ray job submit` among them:"]
    lines += [f"  export {name}={shlex.quote(value)}" for name, value in settings_for(state).items()]
    return "\n".join(lines)


def _row(found: "NodeStatus") -> dict[str, Any]:
    node = found.node
    return {
        "name": node.name,
        "lives": found.lives,
        "why": found.why,
        "pid": node.pid,
        "cpus": node.cpus,
        "gpus": node.gpus,
        "resources": found.resources,
        "log": node.log,
    }


def _table(state: "ClusterState", nodes: "list[NodeStatus]") -> Any:
    from rich.table import Table

    table = Table(title=f"{state.address}  {state.dashboard_url}".rstrip(), title_justify="left")
    for column, side in (("node", "left"), ("state", "left"), ("pid", "right"), ("CPU", "right"), ("GPU", "right")):
        table.add_column(column, justify=side)  # type: ignore[arg-type]
    table.add_column("memory", justify="right")
    for found in nodes:
        node, there = found.node, found.resources
        memory = f"{there['memory'] / 1024**3:.1f} GiB" if "memory" in there else ""
        counts = [f"{there.get(name, 0):g}" if there else "" for name in ("CPU", "GPU")]
        table.add_row(node.name, "lives" if found.lives else "dead", str(node.pid), *counts, memory)
    return table
