"""A search on a cluster that has no worker yet and starts them as they are asked for, as the shipped files do."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ichtune.search import node_processes

pytestmark = pytest.mark.slow

PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
FAKE_HEAD_NODE_ID = "f" * 51 + "0" * 5

PORT = 26479
RAY = str(Path(sys.executable).with_name("ray"))
SETTINGS = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # 127.0.0.1 only
}
#: What ``ray.cluster_utils.AutoscalingCluster`` writes, which itself would first end every Ray of the machine.
CONFIG = {
    "cluster_name": "grows",
    "max_workers": 2,
    "provider": {"type": "external", "module": PROVIDER, "gcs_address": f"127.0.0.1:{PORT}", "launch_multiple": True},
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "gpu": {
            "resources": {"CPU": 1, "GPU": 1, "object_store_memory": 80 << 20},
            "node_config": {},
            "min_workers": 0,
            "max_workers": 2,
        },
    },
    "head_node_type": "ray.head.default",
    "upscaling_speed": 1000.0,
    "idle_timeout_minutes": 10,
    **{key: {} for key in ("auth", "docker", "file_mounts")},
    **{key: [] for key in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
    **{
        f"{kind}_commands": []
        for kind in ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    },
    "file_mounts_sync_continuously": False,
}
#: Prints the nodes that the head has known, with their resources.
NODES = f"""
import json
from ray._raylet import GcsClient
found = GcsClient(address="127.0.0.1:{PORT}").get_all_node_info(timeout=30).values()
print(json.dumps([dict(info.resources_total) for info in found]))
"""


#: How ``ray up`` and Kubernetes start a head whose autoscaler is the second version.
SECOND_VERSION = {
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    "RAY_NODE_TYPE_NAME": "ray.head.default",
}


def start_head(folder: Path, version: str, *options: str) -> node_processes.Started:
    """Start a head without CPUs, and wait until it answers."""
    mark = f"test-{os.getpid()}-{folder.name}"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    fake = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    fake |= SECOND_VERSION if version == "v2" else {}
    command = [RAY, "start", "--head", "--block", f"--port={PORT}", "--num-cpus=0", "--num-gpus=0"]
    command += ["--include-dashboard=false", "--dashboard-agent-listen-port=26466", f"--temp-dir={folder}"]
    command += ["--object-store-memory=83886080", *options]
    started = node_processes.start(command, {**clean, **SETTINGS, **fake}, mark, folder / "head.log", folder)
    deadline = time.monotonic() + 180
    while not nodes():
        assert node_processes.is_alive(started), (folder / "head.log").read_text()
        assert time.monotonic() < deadline, (folder / "head.log").read_text()
        time.sleep(0.5)
    return started


def nodes() -> list[dict[str, Any]]:
    """The nodes that the head has known; none while it does not answer."""
    environment = {**os.environ, **SETTINGS}
    done = subprocess.run([sys.executable, "-c", NODES], env=environment, capture_output=True, text=True, check=False)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else []


@pytest.fixture
def head(request: pytest.FixtureRequest) -> Iterator[None]:
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # short: the names of Unix sockets may not exceed 107 bytes
    (folder / "config.yaml").write_text(json.dumps(CONFIG))
    options = [] if request.param == "fixed" else [f"--autoscaling-config={folder / 'config.yaml'}"]
    started = None
    try:
        started = start_head(folder, request.param, *options)
        yield
    finally:
        mark = f"test-{os.getpid()}-{folder.name}"
        node_processes.end([started] if started else [], mark, 20.0)  # not `ray stop`, which would end every Ray
        shutil.rmtree(folder, ignore_errors=True)


def most_at_once(lines: list[dict[str, Any]]) -> int:
    """The most trials that told an epoch between the beginning and the end of each other."""
    training: set[int] = set()
    most = 0
    for line in lines:
        if line["event"] == "epoch":
            training.add(line["trial"])
        elif line["event"] in ("finished", "stopped", "failed"):
            training.discard(line["trial"])
        most = max(most, len(training))
    return most


@pytest.mark.parametrize("head", ["v1", "v2"], indirect=True)
def test_a_search_starts_on_a_head_alone_and_grows_the_cluster_to_its_two_workers(
    head, fake_workspace, start_search, space_file
) -> None:
    longer = (
        space_file.read_text().replace("epochs: 6", "epochs: 150").replace("grace: 1, max: 6", "grace: 50, max: 150")
    )
    space_file.write_text(longer)
    assert [node.get("GPU", 0) for node in nodes()] == [0]

    search = start_search(fake_workspace().layout.root, "--address", f"127.0.0.1:{PORT}", "--trials", "4", **SETTINGS)
    code, errors = search._ended()

    assert code == 0, errors
    assert "Ray is ready (joined, 0 CPUs)" in errors
    assert search.summary["complete"]
    assert search.summary["trials"]["failed"] == 0
    assert sorted(node.get("GPU", 0) for node in nodes()) == [0, 1, 1]
    lines = [json.loads(line) for line in search.output.splitlines()]
    assert {line["resources"]["gpu"] for line in lines if line["event"] == "epoch"} == {0.5}
    assert most_at_once(lines) <= 2  # a core a node; the second node may come when few trials are left


@pytest.mark.parametrize("head", ["fixed"], indirect=True)
def test_a_cluster_that_cannot_grow_is_refused_at_once(head, fake_workspace, start_search) -> None:
    search = start_search(fake_workspace().layout.root, "--address", f"127.0.0.1:{PORT}", "--trials", "4", **SETTINGS)
    code, errors = search._ended()

    assert code == 2, errors
    assert "but the cluster has 0 CPUs and 0 GPUs" in errors
