"""The shipped files for clusters are what Kubernetes and Ray's launcher take, and the commands in them are ours."""

import copy
import json
import re
import shlex
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
from ruamel.yaml import YAML

from ichtune.cli.main import app
from ichtune.recipe import Recipe
from ichtune.search import packer
from ichtune.search.growth import Room
from ichtune.search.nodes import Node
from ichtune.shipped import find_yaml
from ichtune.space import read_space
from ichtune.version import __version__
from ichtune.workspace import Workspace

ROOT = Path(__file__).parents[2]
RAYJOB, LAUNCHER = ROOT / "deploy" / "kuberay-rayjob.yaml", ROOT / "deploy" / "cluster-launcher.yaml"
SCHEMA = json.loads(Path(__file__).with_name("kuberay_rayjob.schema.json").read_text())
#: Where the workspace and the copies of it lie in both.
SHARED, STAGE = "/shared", "/stage"
#: What the launcher finds out about the machines of its file.
MACHINES = {"g5.2xlarge": {"CPU": 8, "GPU": 1}}


def read(path: Path) -> dict[str, Any]:
    return YAML(typ="safe", pure=True).load(path.read_text())


@pytest.fixture
def rayjob() -> dict[str, Any]:
    return read(RAYJOB)


@pytest.fixture
def launcher() -> dict[str, Any]:
    return read(LAUNCHER)


def templates(rayjob: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = rayjob["spec"]["rayClusterSpec"]
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def problems(rayjob: dict[str, Any]) -> list[str]:
    return [error.json_path for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(rayjob)]


def test_the_rayjob_fits_the_schema_and_the_schema_is_one(rayjob: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert problems(rayjob) == []


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("spec", "shutdownAfterJobFinish"), True),
        (("spec", "backoffLimit"), "3"),
        (("spec", "submissionMode"), "K8sJob"),
        (("spec", "shutdownAfterJobFinishes"), False),
        (("spec", "rayClusterSpec", "authOptions", "mode"), "password"),
        (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "containers"), []),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "groupName"), "GPU workers"),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "maxReplicas"), None),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "template", "spec", "volumes", 0), {"name": "shared"}),
    ],
)
def test_the_schema_refuses_what_kuberay_would(rayjob: dict[str, Any], keys: tuple[Any, ...], value: Any) -> None:
    place = rayjob
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    assert problems(rayjob)


def test_every_volume_that_a_pod_mounts_is_there_and_requests_fit_limits(rayjob: dict[str, Any]) -> None:
    for pod in templates(rayjob):
        volumes = [volume["name"] for volume in pod["volumes"]]
        mounted = [mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]]
        assert sorted(mounted) == sorted(volumes)
        assert len(set(volumes)) == len(volumes)
        for container in pod["containers"]:
            assert container["resources"]["requests"] == container["resources"]["limits"]


def test_workers_have_gpus_and_the_head_runs_no_trial(rayjob: dict[str, Any]) -> None:
    cluster = rayjob["spec"]["rayClusterSpec"]
    (worker,) = cluster["workerGroupSpecs"]
    container = worker["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert cluster["enableInTreeAutoscaling"]
    assert 0 == worker["minReplicas"] <= worker["replicas"] < worker["maxReplicas"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["authOptions"] == {"mode": "token"}
    assert rayjob["spec"]["shutdownAfterJobFinishes"] is True


def test_every_pod_of_the_rayjob_runs_one_image_with_the_rays_that_we_test(rayjob: dict[str, Any]) -> None:
    images = {container["image"] for pod in templates(rayjob) for container in pod["containers"]}
    assert images == {f"ichtune:{__version__}"}
    version = rayjob["spec"]["rayClusterSpec"]["rayVersion"]
    assert version == locked_ray()
    assert f"rayproject/ray:{version}-" in RAYJOB.read_text()


def locked_ray() -> str:
    found = re.search(r"^ray==([0-9.]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert found
    return found.group(1)


def test_the_launcher_takes_its_file(launcher: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(launcher))
    validate_config(prepared)

    assert prepared["available_node_types"]["head"]["resources"] == {"CPU": 0}
    assert prepared["available_node_types"]["gpu"]["max_workers"] == launcher["max_workers"]
    assert prepared["cluster_name"] == "ichtune"
    assert launcher["docker"]["image"] == f"rayproject/ray:{locked_ray()}-py311-gpu"


@pytest.mark.parametrize(
    ("key", "value"), [("max_worker", 3), ("max_workers", "many"), ("provider", {"region": "x"}), ("head_node_type", 5)]
)
def test_the_launchers_schema_refuses_what_it_does_not_know(launcher: dict[str, Any], key: str, value: Any) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(launcher))
    prepared[key] = value
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepared)


def test_both_machines_of_the_launcher_ask_for_the_token_on_one_port(launcher: dict[str, Any]) -> None:
    (head,) = [line for line in launcher["head_start_ray_commands"] if "ray start" in line]
    (worker,) = [line for line in launcher["worker_start_ray_commands"] if "ray start" in line]
    assert head.startswith("RAY_AUTH_MODE=token ")
    assert worker.startswith("RAY_AUTH_MODE=token ")
    assert "--port=6379" in head
    assert worker.endswith("--address=$RAY_HEAD_IP:6379")
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in head
    assert "~/.ray/auth_token" in launcher["file_mounts"]
    assert {f"--volume {place}:{place}" for place in (SHARED, STAGE)} < set(launcher["docker"]["run_options"])


def rayjob_node_types() -> tuple[dict[str, Any], str]:
    """The kinds of nodes as Ray's autoscaler in Kubernetes reads them from the file, and which of them is the head."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    spec = read(RAYJOB)["spec"]["rayClusterSpec"]
    told = _derive_autoscaling_config_from_ray_cr({"metadata": {"name": "x", "namespace": "y"}, "spec": spec})
    return told["available_node_types"], told["head_node_type"]


def launcher_node_types() -> tuple[dict[str, Any], str]:
    """The kinds of nodes of the launcher's file, with the resources that it looks up for their machines."""
    from ray.autoscaler._private.util import prepare_config

    prepared = prepare_config(read(LAUNCHER))
    types = prepared["available_node_types"]
    for kind in types.values():
        kind["resources"] = kind["resources"] or MACHINES[kind["node_config"]["InstanceType"]]
    return types, prepared["head_node_type"]


@pytest.mark.parametrize("node_types", [rayjob_node_types, launcher_node_types])
def test_the_search_in_the_file_starts_on_the_head_alone_and_makes_the_cluster_grow(
    node_types: Callable[[], tuple[dict[str, Any], str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a trial asks for is what Ray's own autoscaler starts nodes of the file for, up to their maximum."""
    from ray.autoscaler._private.node_provider_availability_tracker import NodeAvailabilitySummary
    from ray.autoscaler._private.resource_demand_scheduler import _default_utilization_scorer, get_nodes_for

    types, head = node_types()
    assert types[head]["resources"]["CPU"] == 0
    assert all(kind.get("min_workers", 0) == 0 for kind in types.values())
    resources = read_space(find_yaml("windows", "search_spaces")).resources
    assert all("windows" in words for words in commands())
    monkeypatch.setattr(packer, "look_at_nodes", lambda gpu_memory=False: [Node(n_cpus=0)])
    made = packer.Packer(Workspace(tmp_path), resources, tmp_path, [], 0, grows=True)
    asked = made.request(Recipe())["resources"]
    demand = {kind.upper(): amount for kind, amount in asked.items()}

    scorer = partial(_default_utilization_scorer, node_availability_summary=NodeAvailabilitySummary({}))

    def started(n_trials: int) -> tuple[dict[str, int], list[Any]]:
        nodes, unfulfilled = get_nodes_for(types, {head: 1}, head, 100, [demand] * n_trials, scorer)
        return dict(nodes), unfulfilled

    (kind,) = [name for name in types if name != head]
    assert demand["GPU"] > 0
    assert Room(made.n_that_fit)() >= 1
    assert started(Room(made.n_that_fit)()) == ({kind: 2}, [])  # four trials of half a GPU
    assert started(16) == ({kind: types[kind]["max_workers"]}, [])


def commands() -> Iterator[list[str]]:
    """Every search that one of the files starts or says how to start."""
    yield shlex.split(read(RAYJOB)["spec"]["entrypoint"])
    (line,) = re.findall(r'ray exec \S+ --tmux "(.*)"', LAUNCHER.read_text())
    yield shlex.split(line)


def test_the_searches_in_the_files_are_command_lines_of_ours() -> None:
    group: Any = typer.main.get_command(app)
    for words in commands():
        assert words[:2] == ["ichtune", "search"]
        context = group.commands["search"].make_context("search", words[2:])
        given = context.params
        assert find_yaml(given["space"], "search_spaces").is_file()
        assert str(given["work"]).startswith(f"{SHARED}/")
        assert given["stage"] == STAGE
