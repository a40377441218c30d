"""Searches in processes of their own, on copies of one prepared phantom, with a note of every epoch that is trained."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import ray  # noqa: F401 - it brings psutil along

import psutil  # isort: skip

import ichtune
from benchmarks.kill_matrix_cluster import HANGS_S, Cluster, send
from benchmarks.kill_matrix_outcome import Event, events_of
from ichtune.data.phantom.generate import PhantomSpec, write_phantom
from ichtune.data.prepare import PrepareSpec, prepare
from ichtune.search.cluster_state import FOLDER_VARIABLE

#: Marks the processes of a Ray that a search started for itself.
MARK = "KILL_MATRIX_RUN"
#: Seconds that processes of a Ray that lost its search are given to end.
ENDS_S = 20.0
SPACE = """
version: 1
search: {algorithm: tpe, trials: 5, seed: 7, early_stop: {type: asha, grace: 1, max: 6, factor: 2}}
resources: {gpu: 0.5, cpu: 1}
train: {top: 2}
parameters:
  architecture: tiny_convnet
  windows: [brain, subdural, brain_subdural_bone]
  lr: {low: 1e-3, high: 1e-2, log: true}
  image_px: 32
  batch_size: 8
  epochs: 6
  ema_decay: 0.9
"""
#: Imported by every Python of a search: each epoch that is really trained is noted when it begins and when it is done.
HOOK = """
import importlib.util, json, os, sys

def note(trial, what, epoch):
    line = json.dumps({"trial": trial._config["trial"], "epoch": epoch, "what": what, "pid": os.getpid()}) + "\\n"
    file = os.open(os.path.join(os.path.dirname(trial._config["work"]), "trained.jsonl"), os.O_WRONLY | os.O_APPEND)
    os.write(file, line.encode())
    os.close(file)

def watch(trial_class):
    enter = trial_class._enter
    def _enter(self, number):
        enter(self, number)
        run, train = self._run, self._run.run_epoch
        def run_epoch(*arguments, **options):
            note(self, "begun", run.epoch + 1)
            result = train(*arguments, **options)
            note(self, "done", run.epoch)
            return result
        run.run_epoch = run_epoch
    trial_class._enter = _enter

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name != "ichtune.search.objective":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        def exec_module(module):
            execute(module)
            watch(module.FoldTrial)
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Watch())
"""
#: What of a row of the table a clock says.
_ROW_CLOCK = ("seconds", "hours", "cost", "per_second")


@dataclass
class Place:
    """A workspace of one run, with what was written there."""

    folder: Path

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def ledger(self) -> str:
        path = self.work / "searches" / "killed" / "ledger.jsonl"
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    @property
    def trained(self) -> list[Event]:
        return events_of((self.folder / "trained.jsonl").read_text(encoding="utf-8"))

    def output(self, attempt: int) -> Path:
        return self.folder / f"attempt_{attempt}.jsonl"

    def table(self, attempt: int) -> list[Event]:
        """The table that an attempt ended with, by trial, without what a clock says."""
        summary = json.loads(self.output(attempt).read_text(encoding="utf-8").splitlines()[-1])
        rows = [
            {key: value for key, value in row.items() if not any(word in key for word in _ROW_CLOCK)}
            for row in summary["leaderboard"]
        ]
        return sorted(rows, key=lambda row: int(row["trial"]))


class Bench:
    """Runs searches on copies of one prepared phantom.

    Args:
        folder: for everything that is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.cluster = folder, Cluster(folder / "cluster")
        (folder / "hook").mkdir()
        (folder / "hook" / "sitecustomize.py").write_text(HOOK, encoding="utf-8")
        (folder / "killed.yaml").write_text(SPACE, encoding="utf-8")
        for name in [name for name in os.environ if name.startswith(("RAY_", "ICHTUNE_"))]:
            del os.environ[name]
        os.environ |= {
            "PYTHONPATH": os.pathsep.join([str(folder / "hook"), str(Path(ichtune.__file__).parents[1])]),
            "OMP_NUM_THREADS": "1",
            FOLDER_VARIABLE: str(folder / "cluster"),
        }
        write_phantom(folder / "phantom", PhantomSpec(n_patients=60, size_px=64, seed=11))
        prepare(
            PrepareSpec(folder / "phantom", folder / "phantom" / "stage_2_train.csv", folder / "work", size_px=32, k=3)
        )

    def place(self, name: str) -> Place:
        place = Place(self.folder / name)
        shutil.rmtree(place.folder, ignore_errors=True)
        shutil.copytree(self.folder / "work", place.work)
        (place.folder / "trained.jsonl").touch()
        return place

    def search(self, place: Place, attempt: int, own_ray: bool) -> "subprocess.Popen[bytes]":
        """Start the command; what it writes goes into files beside the workspace."""
        command = [sys.executable, "-m", "ichtune", "search", "--space", str(self.folder / "killed.yaml"), "--json"]
        command += ["--work", str(place.work), "--concurrent", "1", "--no-dashboard"]
        command += [] if own_ray else ["--address", "auto"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        with place.output(attempt).open("wb") as out, place.output(attempt).with_suffix(".err").open("wb") as errors:
            return subprocess.Popen(
                command, stdout=out, stderr=errors, env=environment | {MARK: str(place.folder)}, cwd=self.folder
            )

    def undisturbed(self, own_ray: bool) -> tuple[Place, float]:
        """Run the search that nobody kills; the place, and how many seconds it took."""
        place, start = self.place(f"undisturbed_{'own' if own_ray else 'joined'}"), time.monotonic()
        if not own_ray:
            self.cluster.make_ready()
            start = time.monotonic()
        code = self.search(place, 0, own_ray).wait(HANGS_S)
        if code != 0:
            raise RuntimeError(f"the undisturbed search ended with {code}; see {place.folder}")
        return place, time.monotonic() - start


def end_left_over(place: Place) -> int:
    """End what the searches of a run leave running for longer than a while; how many processes it was."""
    until = time.monotonic() + ENDS_S
    while (left := _marked(place)) and time.monotonic() < until:
        time.sleep(1.0)
    send(signal.SIGKILL, left)
    return len(left)


def _marked(place: Place) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == str(place.folder):
                found.append(process)
    return found
