"""Every architecture in the table: any channels, any size, logits for six labels, and weights that come back."""

from pathlib import Path

import pytest
import torch

from ichtune.labels import N_LABELS
from ichtune.models.architectures import ARCHITECTURES
from ichtune.models.create import check_architecture, create_model
from ichtune.training.checkpoint import load_checkpoint, save_checkpoint

pytestmark = pytest.mark.parametrize("name", ARCHITECTURES)


@pytest.mark.slow  # takes seconds
@pytest.mark.parametrize(("in_chans", "size"), [(1, 16), (9, 48)])
def test_it_gives_finite_logits_and_every_weight_a_gradient(name: str, in_chans: int, size: int) -> None:
    check_architecture(name)
    torch.manual_seed(0)
    model = create_model(name, in_chans, image_px=size, dropout=0.1)
    logits_BL = model(torch.randn(3, in_chans, size, size))
    assert logits_BL.shape == (3, N_LABELS)
    logits_BL.sum().backward()
    assert torch.isfinite(logits_BL).all()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_each_slice_is_judged_alone(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, 3, image_px=32, dropout=0.5).eval()
    x_BCHW = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        one_by_one = torch.cat([model(x[None]) for x in x_BCHW])
        torch.testing.assert_close(model(x_BCHW), one_by_one, atol=1e-5, rtol=1e-5)


@pytest.mark.slow  # takes seconds
def test_the_seed_decides_the_start(name: str) -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(torch.cat([p.flatten() for p in create_model(name, 3, image_px=32).parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_its_weights_come_back_from_a_file(name: str, tmp_path: Path) -> None:
    model = create_model(name, 3, image_px=32)
    save_checkpoint(tmp_path / "weights.safetensors", model.state_dict(), {"kind": "weights"})
    tensors, _ = load_checkpoint(tmp_path / "weights.safetensors", "weights")
    create_model(name, 3, image_px=32).load_state_dict(tensors)
