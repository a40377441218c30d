"""A search on Ray's own test cluster, whose nodes declare GPUs, goes on when a node is taken away.

``test_in_processes_of_their_own.py`` runs this: the cluster has no authentication, which Ray settles once a process.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SETTINGS = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # 127.0.0.1 only
}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator["object"]:
    """A head that runs no trials, and two nodes of a GPU each, which no device stands behind."""
    patch = pytest.MonkeyPatch()
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        patch.delenv(name, raising=False)
    for name, value in {**SETTINGS, "HOME": str(tmp_path)}.items():
        patch.setenv(name, value)
    from ray.cluster_utils import Cluster

    common = {"object_store_memory": 80 << 20}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **common})
    try:
        yield made
    finally:
        made.shutdown()
        patch.undo()


def resources_in_use(address: str) -> dict[str, float]:
    """Return the GPUs that are taken on each node, by the node's id."""
    from ray._private.state import GlobalState
    from ray._raylet import GcsClientOptions

    state = GlobalState()
    state._initialize_global_state(
        GcsClientOptions.create(address, None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False)
    )
    totals = state.total_resources_per_node()
    available = state.available_resources_per_node()
    return {
        node: total["GPU"] - available.get(node, {}).get("GPU", 0.0) for node, total in totals.items() if "GPU" in total
    }


def test_half_a_gpu_a_trial_on_two_nodes_of_which_one_is_lost(
    cluster, fake_workspace, start_search, nothing_lost
) -> None:
    nodes = [cluster.add_node(num_cpus=4, num_gpus=1, object_store_memory=80 << 20) for _ in range(2)]
    search = start_search(
        fake_workspace().layout.root, "--address", cluster.address, "--trials", "6", "--concurrent", "4", **SETTINGS
    )
    deadline = time.monotonic() + 240
    while True:
        used = resources_in_use(cluster.address)
        if sorted(used.values()) == [1.0, 1.0] and search.events("epoch") >= 1:
            break  # two trials of half a GPU on each
        assert search.process.poll() is None, search.process.stderr.read()
        assert time.monotonic() < deadline, used
        time.sleep(0.05)

    cluster.remove_node(nodes[1], allow_graceful=False)
    found = search.result()

    assert found["complete"]
    assert found["trials"]["failed"] == 0, [row for row in found["leaderboard"] if row["status"] == "failed"]
    nothing_lost(search, 6)
