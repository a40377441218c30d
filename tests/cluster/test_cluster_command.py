"""``ichtune cluster``: searches on several nodes of one machine, nodes that die, jobs from a wheel, another cluster."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray  # noqa: F401 - it brings psutil along

import psutil  # isort: skip

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
#: What the shell of a person holds who knows nothing of the cluster.
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "ICHTUNE_"))}


def ichtune(*arguments: str, cwd: Path, timeout_s: float = 400) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "ichtune", *arguments]
    return subprocess.run(command, cwd=cwd, env=CLEAN, capture_output=True, text=True, timeout=timeout_s)


class Up:
    """A cluster that ``ichtune cluster up`` started, as it says about itself."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        ran = ichtune("cluster", "up", "--json", "--folder", str(folder), *options, cwd=folder.parent)
        assert ran.returncode == 0, ran.stderr
        self.about: dict[str, Any] = json.loads(ran.stdout)
        self.address: str = self.about["address"]
        self.settings: dict[str, str] = self.about["settings"]
        self.pid_of = {node["name"]: int(node["pid"]) for node in self.about["nodes"]}

    def processes(self, *names: str) -> list[psutil.Process]:
        """The processes of some nodes, of all by default."""
        roots = [psutil.Process(self.pid_of[name]) for name in names or self.pid_of]
        return [*roots, *(child for root in roots for child in root.children(recursive=True))]

    def trains_on(self, node: str) -> bool:
        """Whether a trial's process works there now."""
        titles = []
        for process in self.processes(node):
            try:
                titles.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        quiet = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent")
        return any(title.startswith("ray::") and not title.startswith(quiet) for title in titles)

    def command(self, name: str) -> "subprocess.CompletedProcess[str]":
        return ichtune("cluster", name, "--folder", str(self.folder), *["--json"] * (name == "status"), cwd=ROOT)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A head and two workers of a GPU each, declared; a trial takes half of one."""
    cluster = Up(tmp_path_factory.mktemp("cluster") / "state", "--cpus-per-worker", "4", "--gpus-per-worker", "1")
    everything = cluster.processes()
    yield cluster
    assert cluster.command("down").returncode == 0
    left = [process for process in everything if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert left == [], "`down` left processes running"


def wait_until(is_so: Callable[[], bool], what: str, timeout_s: float = 240) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.1)


def wait_for_port(address: str) -> None:
    host, _, port = address.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60):
        pass


def test_it_lives_on_loopback_only_and_status_names_every_node(up: Up) -> None:
    listening = {
        connection.laddr.ip
        for process in up.processes()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    again = ichtune("cluster", "up", "--json", "--folder", str(up.folder), cwd=ROOT)

    status = json.loads(up.command("status").stdout)

    assert listening == {"127.0.0.1", "::ffff:127.0.0.1"}
    assert [(node["name"], node["lives"]) for node in status["nodes"]] == [
        ("head", True),
        ("worker-1", True),
        ("worker-2", True),
    ]
    assert [node["resources"].get("GPU", 0) for node in status["nodes"]] == [0, 1, 1]
    assert [node["resources"].get("CPU", 0) for node in status["nodes"]] == [0, 4, 4]
    assert json.loads(again.stdout)["started"] is False
    assert json.loads(again.stdout)["address"] == up.address
    assert "runs already" in again.stderr


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ({"RAY_AUTH_TOKEN": "e" * 64}, "it refuses the token that is given"),
        ({"ICHTUNE_CLUSTER_FOLDER": "nowhere"}, "it asks for a token and none is given"),
    ],
)
def test_who_has_not_the_token_is_told_so(up, token, said, fake_workspace, start_search, tmp_path) -> None:
    search = start_search(fake_workspace().layout.root, "--address", up.address, HOME=str(tmp_path), **token)

    code, errors = search.signal(0)

    assert code == 2, errors
    assert f"cannot join a Ray cluster at '{up.address}': {said}" in errors
    assert "Traceback" not in errors


def test_trials_of_half_a_gpu_spread_over_the_nodes(up, fake_workspace, start_search, nothing_lost) -> None:
    search = start_search(
        fake_workspace().layout.root,
        "--address=auto",
        "--trials=6",
        "--concurrent=3",
        ICHTUNE_CLUSTER_FOLDER=str(up.folder),
    )
    wait_until(
        lambda: search.process.poll() is not None or (up.trains_on("worker-1") and up.trains_on("worker-2")),
        "trials on both nodes",
    )
    assert search.process.poll() is None, "the search ended before both nodes trained"

    found = search.result()

    assert found["complete"]
    assert found["trials"]["failed"] == 0
    nothing_lost(search, 6)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked, with a version of its own by which its copy is known."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    (folder / "site" / "ichtune" / "version.py").write_text('__version__ = "77.0"\n')
    return folder / "site" / "ichtune"


def test_a_job_runs_the_search_of_a_wheel_that_is_not_installed_there(
    up, unpacked, fake_workspace, space_file, tmp_path
) -> None:
    work = fake_workspace().layout.root
    wait_for_port(up.about["dashboard_url"])
    runtime = json.dumps({"py_modules": [str(unpacked)]})
    search = ["python", "-m", "ichtune", "search", "--space", str(space_file), "--work", str(work), "--trials", "1"]

    ran = subprocess.run(
        [RAY, "job", "submit", "--runtime-env-json", runtime, "--", *search],
        cwd=tmp_path,
        env={**CLEAN, **up.settings},
        capture_output=True,
        text=True,
        timeout=400,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "the search is complete" in ran.stdout
    ledger = [json.loads(line) for line in (work / "searches" / "tiny" / "ledger.jsonl").read_text().splitlines()]
    assert {line["ichtune_version"] for line in ledger} == {"77.0"}, "another copy than the wheel's ran"
    assert [line["status"] for line in ledger if line["event"] == "end"][-1] == "finished"


def test_a_search_goes_on_upon_another_cluster(up, fake_workspace, start_search, nothing_lost, tmp_path) -> None:
    work = fake_workspace().layout.root
    options = ("--trials=4", "--concurrent=1")
    here = start_search(work, *options, f"--address={up.address}", **up.settings)
    here.wait_for("end", 1)
    code, errors = here.signal(signal.SIGINT)
    assert code == 130, errors
    before = here.ledger.read_text()

    other = Up(tmp_path / "other", "--workers=1", "--gpus-per-worker=1", "--no-dashboard")
    try:
        assert other.address != up.address
        there = start_search(work, *options, f"--address={other.address}", **other.settings)
        assert there.result()["complete"]
    finally:
        assert other.command("down").returncode == 0

    assert there.ledger.read_text().startswith(before)
    assert before.count('"event": "end"') < there.ledger.read_text().count('"event": "end"')
    nothing_lost(there, 4)
    assert up.command("status").returncode == 0, "ending one cluster ended the other"
    assert other.command("status").returncode == 7


def test_a_node_that_dies_in_mid_search_costs_no_trial(up, fake_workspace, start_search, nothing_lost) -> None:
    work = fake_workspace().layout.root
    search = start_search(work, "--trials=6", "--concurrent=3", f"--address={up.address}", **up.settings)
    wait_until(lambda: up.trains_on("worker-2") and search.events("epoch") >= 1, "an epoch, and a trial on worker-2")
    (raylet,) = [process for process in up.processes("worker-2") if process.name() == "raylet"]

    raylet.kill()
    found = search.result()

    assert found["complete"]
    assert found["trials"]["failed"] == 0
    nothing_lost(search, 6)
    told = up.command("status")
    status = json.loads(told.stdout)
    assert [(node["name"], node["lives"]) for node in status["nodes"]][-1] == ("worker-2", False)
    assert told.returncode == 0
    assert "node worker-2 is dead" in told.stderr
