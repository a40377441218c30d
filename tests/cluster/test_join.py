"""A search joins a cluster that is there, and leaves it standing."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
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
    start = [
        "start",
        "--head",
        "--block",
        f"--port={PORT}",
        "--num-cpus=2",
        "--num-gpus=1",
        "--include-dashboard=false",
    ]
    folder = tempfile.mkdtemp(prefix="ray")  # short: the names of Unix sockets may not exceed 107 bytes
    ports = ["--include-dashboard=false", "--dashboard-agent-listen-port=26365", f"--temp-dir={folder}"]
    head = subprocess.Popen([RAY, *start, *ports], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        wait_for_port(int(PORT), head)
        yield f"127.0.0.1:{PORT}", settings
    finally:
        head.terminate()  # not `ray stop`, which would end every Ray on this machine
        head.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_port(port: int, process: subprocess.Popen[bytes], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0].decode()
        with socket.socket() as connection:
            if connection.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError(f"nothing listens on port {port} after {timeout_s} s")


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
