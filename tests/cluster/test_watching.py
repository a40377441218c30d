"""The real Prometheus scrapes a running search with the shipped files and holds every series of the dashboard."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ichtune.search.gauges import GAUGES, RAY_PREFIX

pytestmark = pytest.mark.slow

DEPLOY = Path(__file__).parents[2] / "deploy"
#: Longer than the test, which ends it: two trials at a time, judged at rungs.
SPACE = """
version: 1
search: {algorithm: random, trials: 400, seed: 7, early_stop: {type: asha, grace: 2, max: 2000, factor: 2}}
resources: {cpu: 1}
parameters:
  architecture: tiny_convnet
  windows: [brain, brain_subdural_bone]
  lr: {low: 1e-3, high: 1e-2, log: true}
  image_px: 32
  batch_size: 4
  epochs: 2000
"""
#: Ray exports every 10 s; on a busy machine a first scrape can be a minute away.
PATIENCE_S = 300.0
#: Has no value on a machine without a GPU.
ONLY_ON_A_GPU = "ichtune_trial_gpu_memory_bytes"


class Prometheus:
    """Debian's Prometheus with the shipped configuration, on the loopback interface."""

    def __init__(self, program: str, folder: Path, work: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        shipped = (DEPLOY / "prometheus.yml").read_text()
        configuration = folder / "prometheus.yml"
        configuration.write_text(re.sub(r"WORKSPACE(?=/)", str(work), shipped).replace("interval: 10s", "interval: 1s"))
        self.log = folder / "prometheus.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    program,
                    f"--config.file={configuration}",
                    f"--storage.tsdb.path={folder / 'tsdb'}",
                    f"--web.listen-address={self.address}",
                ],
                stdout=log,
                stderr=log,
            )

    def ask(self, path: str, **query: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}") as answer:
            return dict(json.load(answer)["data"])

    def series(self, expression: str) -> list[dict[str, Any]]:
        return list(self.ask("query", query=expression)["result"])

    def wait_for(self, expression: str) -> list[dict[str, Any]]:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            assert self.process.poll() is None, self.log.read_text()
            try:
                if found := self.series(expression):
                    return found
            except OSError:
                pass  # it does not listen yet
            assert time.monotonic() < deadline, f"{expression} did not arrive: {self.log.read_text()[-3000:]}"
            time.sleep(0.5)


@pytest.fixture
def start_prometheus(tmp_path: Path) -> Iterator[Any]:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("needs Prometheus: apt-get install prometheus")
    started: list[Prometheus] = []

    def start(work: Path) -> Prometheus:
        folder = tmp_path / "prometheus"
        folder.mkdir()
        started.append(Prometheus(program, folder, work))
        return started[0]

    yield start
    for prometheus in started:
        prometheus.process.terminate()
        prometheus.process.wait(timeout=60)


@contextmanager
def running_search(work: Path, space: Path, log: Path) -> Iterator[None]:
    """Run a search without a Ray dashboard for the length of a block, and end it as Ctrl-C does."""
    options = ["--space", str(space), "--work", str(work), "--concurrent", "2", "--no-dashboard"]
    with log.open("w") as said:
        search = subprocess.Popen([sys.executable, "-m", "ichtune", "search", *options], stdout=said, stderr=said)
    try:
        yield
        search.send_signal(signal.SIGINT)
        assert search.wait(timeout=PATIENCE_S) == 130, log.read_text()
    except AssertionError as error:
        error.add_note(log.read_text()[-3000:])
        raise
    finally:
        search.kill()
        search.wait()


def test_prometheus_holds_every_series_of_the_dashboard(fake_workspace, start_prometheus, tmp_path):
    work = fake_workspace().layout.root
    space = tmp_path / "long.yaml"
    space.write_text(SPACE)
    prometheus = start_prometheus(work)
    with running_search(work, space, tmp_path / "search.log"):
        expected = [RAY_PREFIX + name for name in GAUGES if name != ONLY_ON_A_GPU]
        found = {name: prometheus.wait_for(name) for name in expected}
        assert (work / "searches" / "long.prometheus.json").is_file()
        (running,) = prometheus.wait_for('ray_ichtune_trials{state="running"} > 0')
        assert 1 <= float(running["value"][1]) <= 2
        for panel in json.loads((DEPLOY / "grafana-dashboard.json").read_text())["panels"]:
            for target in panel["targets"]:
                drawn = prometheus.series(target["expr"].replace("$search", ".*"))
                assert drawn or ONLY_ON_A_GPU in target["expr"], f"nothing to draw in {panel['title']!r}"

    assert not (work / "searches" / "long.prometheus.json").exists()
    for series in found.values():
        assert {one["metric"]["search"] for one in series} == {"long"}
        assert {one["metric"]["job"] for one in series} == {"ichtune"}
    trials = found["ray_ichtune_trial_loss"]
    assert {one["metric"]["trial"] for one in trials} >= {"0"}
    assert all(one["metric"]["recipe"].startswith("tiny_convnet|") for one in trials)
    losses = [
        event["val_weighted_log_loss"]
        for event in map(json.loads, (work / "searches" / "long" / "ledger.jsonl").read_text().splitlines())
        if event["event"] == "epoch"
    ]
    (best,) = found["ray_ichtune_best_loss"]
    assert min(abs(float(best["value"][1]) - loss) for loss in losses) < 1e-9


def test_the_shipped_configuration_is_one_that_prometheus_accepts():
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs Prometheus: apt-get install prometheus")

    checked = subprocess.run(
        [promtool, "check", "config", str(DEPLOY / "prometheus.yml")], capture_output=True, text=True, check=False
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr
