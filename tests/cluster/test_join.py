"""A search joins a cluster that is there, and leaves it standing."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

RAY = str(Path(sys.executable).with_name("ray"))
PORT = "26379"


@pytest.fixture
def cluster(tmp_path):
    """A one-node cluster with declared GPUs, started as an administrator would."""
    token = tmp_path / "token"
    token.write_text("f" * 64)
    settings = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    environment = {**os.environ, **settings}
    start = ["start", "--head", f"--port={PORT}", "--num-cpus=2", "--num-gpus=1", "--include-dashboard=false"]
    folder = tempfile.mkdtemp(prefix="ray")  # short: the names of Unix sockets may not exceed 107 bytes
    ports = ["--dashboard-agent-listen-port=26365", f"--temp-dir={folder}"]
    started = subprocess.run([RAY, *start, *ports], env=environment, capture_output=True, text=True)
    assert started.returncode == 0, started.stdout + started.stderr
    yield f"127.0.0.1:{PORT}", settings
    subprocess.run([RAY, "stop", "--force"], env=environment, check=False, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)


def test_half_a_gpu_a_trial_on_a_cluster_that_is_joined(cluster, fake_workspace, start_search):
    address, settings = cluster
    work = fake_workspace().layout.root

    result = start_search(work, "--trials", "2", "--address", address, **settings).result()

    assert result["complete"]
    assert [row["status"] for row in result["leaderboard"]].count("failed") == 0
    status = subprocess.run(
        [RAY, "status", f"--address={address}"], env={**os.environ, **settings}, capture_output=True, text=True
    )
    assert "1.0 GPU" in status.stdout, "the cluster must still stand"


def test_an_address_without_a_cluster_is_one_clear_message(fake_workspace, start_search):
    search = start_search(fake_workspace().layout.root, "--address", "127.0.0.1:26999")

    code, errors = search.signal(0)

    assert code == 2, errors
    assert "cannot join a Ray cluster at '127.0.0.1:26999'" in errors
    assert "Traceback" not in errors
