"""Probes and shares on a real Ray that has a GPU on paper."""

import pytest
import ray

from ichtune.recipe import Recipe
from ichtune.search.cluster import ray_session
from ichtune.search.memory_table import MemoryTable, measure
from ichtune.search.nodes import look_at_nodes
from ichtune.search.packing import n_that_fit, trial_request
from ichtune.space import Resources

pytestmark = pytest.mark.slow


def test_peaks_are_measured_in_tasks_and_shares_add_up_to_a_gpu(session_workspace, tmp_path, monkeypatch):
    monkeypatch.setattr(ray, "init", _with_a_gpu_on_paper(ray.init))
    table = MemoryTable(tmp_path / "memory.json", "cpu")
    small = Recipe(architecture="tiny_convnet", image_px=32, batch_size=4)
    large = Recipe(architecture="small_convnet", image_px=128, batch_size=64)
    broken = Recipe(architecture="tiny_convnet", image_px=32, crop="head")
    with ray_session(None, tmp_path / "token", dashboard=False):
        (node,) = look_at_nodes(gpu_memory=True)
        assert (node.n_gpus, node.gpu_memory_mb) == (1.0, 0.0)
        assert node.n_cpus >= 1
        assert node.memory_mb > 100

        failures = measure(table, session_workspace.layout.root, [small, large, broken], 0, node=None)
        assert len(failures) == 1
        assert "tiny_convnet|brain_subdural_bone|32px head" in failures[0]
        assert "crop 'head'" in failures[0]
        assert 100 < table.measured(small) < table.measured(large) < 20_000
        # three layers of 16 to 64 channels at a half and a quarter of the side, float32, each before and after its norm
        kept_mb = 4 * 64 * 2 * (16 * 64**2 + 32 * 32**2 + 64 * 32**2) / 2**20
        assert 0.5 * kept_mb < table.measured(large) - table.measured(small) < 10 * kept_mb
        assert table.measured(broken) is None  # no such cache: no matter of memory
        asked = trial_request(Resources(auto=True, gpu=0), [node], table.need_mb(large)).asked
        assert asked["memory"] == pytest.approx(table.measured(large) * 2**20, abs=1)
        assert n_that_fit(asked, [node]) >= 1

        share = 0.1666  # a sixth, as `trial_request` asks for it
        actors = [ray.remote(num_cpus=0, num_gpus=share)(_Waits).remote() for _ in range(6)]
        ready, _ = ray.wait([actor.ready.remote() for actor in actors], num_returns=6, timeout=120)
        assert len(ready) == 6


class _Waits:
    def ready(self) -> bool:
        return True


def _with_a_gpu_on_paper(init):
    return lambda *given, **settings: init(*given, **settings, num_gpus=1)
