import math
import os

import cv2
import pyarrow
import pytest
import torch

from ichtune.errors import ConfigError
from ichtune.search.nodes import Node
from ichtune.search.packing import (
    LEAST_CPU,
    MAX_A_GPU,
    TrialRequest,
    n_that_fit,
    pin_threads,
    trial_request,
    wants_gpu,
)
from ichtune.space import Resources

GIB = 1024.0
#: Two nodes with other GPUs, and one without.
MIXED = [
    Node(n_cpus=64, n_gpus=4, memory_mb=500 * GIB, gpu_name="large", gpu_memory_mb=80 * GIB),
    Node(n_cpus=16, n_gpus=2, memory_mb=100 * GIB, gpu_name="small", gpu_memory_mb=40 * GIB),
    Node(n_cpus=32, memory_mb=100 * GIB),
]
PLAIN = [Node(n_cpus=8, memory_mb=30 * GIB), Node(n_cpus=4, memory_mb=10 * GIB)]


def test_a_trial_asks_for_a_share_of_a_gpu_only_where_there_are_gpus():
    asked = Resources(gpu=0.5, cpu=2)

    assert trial_request(asked, [Node(n_cpus=16, n_gpus=4)]).asked == {"gpu": 0.5, "cpu": 2.0}
    assert trial_request(asked, [Node(n_cpus=16)]).asked == {"cpu": 2.0}
    assert wants_gpu(trial_request(asked, [Node(n_cpus=16, n_gpus=4)]).asked)
    assert not wants_gpu(trial_request(asked, [Node(n_cpus=16)]).asked)


@pytest.mark.parametrize(
    ("asked", "cpus", "gpus", "fits"),
    [
        ({"cpu": 0.5}, 2, 0, 4),
        ({"cpu": 0.1}, 1, 0, 10),
        ({"gpu": 0.5, "cpu": 4}, 16, 1, 2),
        ({"cpu": 2}, 3, 0, 1),
        ({"gpu": 0.375, "cpu": 1}, 16, 2, 4),  # a share lies on one device: two a GPU
        ({"gpu": 2, "cpu": 1}, 16, 5, 2),
        ({"gpu": 0.5, "cpu": 0}, 1, 3, 6),
    ],
)
def test_trials_at_a_time_are_what_the_scarcest_resource_holds(asked, cpus, gpus, fits):
    assert n_that_fit(asked, [Node(n_cpus=cpus, n_gpus=gpus)]) == fits


def test_a_trial_that_never_fits_is_refused_instead_of_waited_for():
    with pytest.raises(ConfigError, match=r"asks for \{'cpu': 8\.0\}, but the cluster has 2 CPUs"):
        n_that_fit({"cpu": 8.0}, [Node(n_cpus=2)])
    with pytest.raises(ConfigError, match=r"has 12 CPUs and 0 GPUs on 2 nodes"):
        n_that_fit({"cpu": 10.0}, PLAIN)  # as many cores as both have, but on neither


def test_host_memory_limits_trials_node_by_node():
    assert n_that_fit({"cpu": 1, "memory": 4 * 2**30}, PLAIN) == 7 + 2
    assert n_that_fit({"cpu": 1}, PLAIN) == 12


def test_what_the_space_says_is_asked_for_as_it_stands():
    request = trial_request(Resources(gpu=0.25, cpu=2), MIXED, need_mb=1000.0)

    assert request == TrialRequest({"gpu": 0.25, "cpu": 2.0})
    assert request.config() == {
        "resources": {"gpu": 0.25, "cpu": 2.0},
        "n_threads": 2,
        "wants_gpu": True,
        "gpu_memory_mb": None,
    }
    assert trial_request(Resources(gpu=0.25, cpu=0.5), PLAIN).config()["n_threads"] == 1
    assert trial_request(Resources(gpu=0, cpu=3), MIXED) == TrialRequest({"cpu": 3.0})


def test_a_limit_gives_the_share_that_holds_it_on_the_smallest_gpu():
    request = trial_request(Resources(cpu=2, gpu_memory_mb=12 * GIB), MIXED)

    assert request == TrialRequest({"gpu": 0.3333, "cpu": 2.0}, 12 * GIB)
    assert trial_request(Resources(gpu=0.25, cpu=2, gpu_memory_mb=10 * GIB), MIXED).asked["gpu"] == 0.25
    assert trial_request(Resources(gpu="auto", gpu_memory_mb=20 * GIB), MIXED, need_mb=100.0).asked["gpu"] == 0.5


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        (
            Resources(gpu=0.25, gpu_memory_mb=12 * GIB),
            r"4 trials of 12288 MiB = 49152 MiB on a GPU of 40960 MiB, the smallest of the cluster; lower "
            r"gpu_memory to 10240 MiB",
        ),
        (Resources(gpu_memory_mb=50 * GIB), r"put 51200 MiB = 51200 MiB on a GPU of 40960 MiB"),
    ],
)
def test_a_limit_that_contradicts_the_share_is_refused_with_figures(resources, message):
    with pytest.raises(ConfigError, match=message):
        trial_request(resources, MIXED)


def test_a_limit_is_not_judged_where_no_gpu_tells_its_memory():
    unknown = [Node(n_cpus=8, n_gpus=2)]

    assert trial_request(Resources(gpu=0.5, gpu_memory_mb=99 * GIB), unknown).asked["gpu"] == 0.5
    assert trial_request(Resources(gpu_memory_mb=99 * GIB), unknown).asked["gpu"] == 1.0
    assert trial_request(Resources(gpu_memory_mb=99 * GIB), PLAIN) == TrialRequest({"cpu": 1.0})


@pytest.mark.parametrize(
    ("need_gib", "n_a_gpu"), [(19.9, 2), (20.1, 1), (13.0, 3), (6.0, 6), (5.5, 7), (1.0, MAX_A_GPU), (math.inf, 1)]
)
def test_auto_packs_as_many_as_the_smallest_gpu_holds(need_gib, n_a_gpu):
    share = trial_request(Resources(auto=True), MIXED, need_mb=need_gib * GIB).asked["gpu"]

    assert math.floor(1 / share) == n_a_gpu
    in_ray = round(share * 10_000)  # how Ray counts
    assert in_ray * n_a_gpu <= 10_000 < in_ray * (n_a_gpu + 1)


def test_auto_takes_a_whole_gpu_for_what_was_not_measured():
    assert trial_request(Resources(auto=True), MIXED).asked == {"gpu": 1.0, "cpu": 1.0}


def test_auto_s_cores_never_keep_trials_off_a_gpu():
    few = [Node(n_cpus=4, n_gpus=2, gpu_memory_mb=40 * GIB)]
    request = trial_request(Resources(auto=True), few, need_mb=5 * GIB)

    assert request.asked == {"gpu": 0.125, "cpu": 0.25}
    assert n_that_fit(request.asked, few) == 16
    tiny = [Node(n_cpus=1, n_gpus=4, gpu_memory_mb=40 * GIB)]
    assert trial_request(Resources(auto=True), tiny, need_mb=5 * GIB).asked["cpu"] == LEAST_CPU


def test_auto_without_gpus_packs_a_trial_a_core_as_far_as_memory_goes():
    assert trial_request(Resources(auto=True), PLAIN) == TrialRequest({"cpu": 1.0})
    request = trial_request(Resources(auto=True), PLAIN, need_mb=2 * GIB)
    assert request == TrialRequest({"cpu": 1.0, "memory": 2 * 2**30})
    assert request.n_threads == 1
    assert n_that_fit(request.asked, PLAIN) == 8 + 4
    assert n_that_fit(trial_request(Resources(auto=True), PLAIN, need_mb=9 * GIB).asked, PLAIN) == 3 + 1
    for need_mb in (99 * GIB, math.inf):  # alone on the largest node
        assert n_that_fit(trial_request(Resources(auto=True), PLAIN, need_mb=need_mb).asked, PLAIN) == 1


def test_threads_are_pinned_in_every_library(monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "7")
    before = torch.get_num_threads(), cv2.getNumThreads(), pyarrow.cpu_count()
    try:
        for n in (2, 1):
            pin_threads(n)
            assert torch.get_num_threads() == pyarrow.cpu_count() == n
            assert cv2.getNumThreads() == n
            assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == str(n)
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
        pyarrow.set_cpu_count(before[2])
