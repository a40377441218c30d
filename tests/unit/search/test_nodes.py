import pytest
import ray
import torch

from ichtune.search.nodes import Node, gpu_facts, look_at_nodes, smallest_gpu

TOLD = [
    {"Alive": True, "NodeID": "a", "Resources": {"CPU": 16.0, "GPU": 2.0, "memory": 2.0**35, "node:10.0.0.1": 1.0}},
    {"Alive": True, "NodeID": "b", "Resources": {"CPU": 4.0}},
    {"Alive": False, "NodeID": "c", "Resources": {}},
]


def test_living_nodes_tell_what_they_have(monkeypatch):
    monkeypatch.setattr(ray, "nodes", lambda: TOLD)

    assert look_at_nodes() == [
        Node(n_cpus=16.0, n_gpus=2.0, memory_mb=2.0**15, node_id="a"),
        Node(n_cpus=4.0, node_id="b"),
    ]


def test_nobody_is_asked_where_there_are_no_gpus(monkeypatch):
    monkeypatch.setattr(ray, "nodes", lambda: TOLD[1:])
    monkeypatch.setattr(ray, "wait", lambda *_, **__: pytest.fail("asked"))

    assert look_at_nodes(gpu_memory=True) == [Node(n_cpus=4.0, node_id="b")]


def test_the_smallest_gpu_is_that_of_those_that_told():
    nodes = [
        Node(8, 1, gpu_name="large", gpu_memory_mb=80000.0),
        Node(8, 1, gpu_name="small", gpu_memory_mb=40000.0),
        Node(8, 1),
        Node(8),
    ]

    assert smallest_gpu(nodes) is nodes[1]
    assert smallest_gpu(nodes[2:]) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_there_on_paper_only_tells_nothing():
    assert gpu_facts() == ("", 0.0)
