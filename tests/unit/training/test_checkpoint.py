"""Checkpoints: tensors and their description in one file, whole or not there."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ichtune.errors import DataError, StorageError
from ichtune.recipe import Recipe
from ichtune.training import checkpoint
from ichtune.training.checkpoint import (
    load_checkpoint,
    optimizer_tensors,
    read_sidecar,
    restore_optimizer,
    save_checkpoint,
    sidecar_path,
    with_prefix,
    without_prefix,
)
from ichtune.training.optimizers import create_optimizer

ABOUT = {"kind": "weights", "fold": 2, "loss": 0.25}


def tensors() -> dict[str, torch.Tensor]:
    shared = torch.arange(24.0).view(1, 2, 3, 4)
    return {
        "a": shared.contiguous(memory_format=torch.channels_last),
        "b": shared,
        "n": torch.tensor(3),
        "view": shared[0, 0],
    }


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "weights.safetensors"
    save_checkpoint(path, tensors(), ABOUT)
    got, about = load_checkpoint(path, "weights")
    assert set(got) == set(tensors())
    for name, tensor in tensors().items():
        torch.testing.assert_close(got[name], tensor, rtol=0, atol=0)
    assert {key: about[key] for key in ABOUT} == ABOUT
    assert about["schema_version"] == 2
    assert [p.name for p in path.parent.iterdir()] == ["weights.safetensors"]


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.safetensors"
    save_checkpoint(path, tensors(), ABOUT)
    before = path.read_bytes()

    def full_disk(held: dict[str, torch.Tensor], where: Path, metadata: dict[str, str]) -> None:
        Path(where).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    with pytest.raises(StorageError, match=r"No space left on device"):
        save_checkpoint(path, {}, ABOUT)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["weights.safetensors"]


def test_a_missing_checkpoint_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist; run `ichtune train`"):
        load_checkpoint(tmp_path / "weights.safetensors", "weights")


def test_what_is_no_checkpoint_of_ichtune_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(DataError, match=r"is no checkpoint of ichtune"):
        load_checkpoint(path, "weights")
    save_file(tensors() | {"view": torch.zeros(1), "a": torch.zeros(1)}, path)
    with pytest.raises(DataError, match=r"is no checkpoint of ichtune"):
        load_checkpoint(path, "weights")
    save_checkpoint(path, tensors(), ABOUT)
    with pytest.raises(DataError, match=r"must be of kind 'resume', got 'weights'"):
        load_checkpoint(path, "resume")


def test_a_sidecar_tells_people_what_the_tensors_are(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_checkpoint(path, tensors(), ABOUT, {"learnt_from": ["a"]})
    about = read_sidecar(path)
    assert {key: about[key] for key in ABOUT} == ABOUT
    assert about["learnt_from"] == ["a"]
    assert about["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    save_checkpoint(path, {"other": torch.zeros(1)}, ABOUT)
    with pytest.raises(DataError, match=r"weights.json describes another file than weights.safetensors"):
        read_sidecar(path)
    for text in ("[]", "{", "{}"):
        sidecar_path(path).write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=r"weights.json is no record of what weights.safetensors is"):
            read_sidecar(path)


def test_prefixes_keep_groups_apart() -> None:
    held = with_prefix("model", {"a": torch.zeros(1)}) | with_prefix("model_average", {"a": torch.ones(1)})
    assert without_prefix("model", held) == {"a": torch.zeros(1)}


@pytest.mark.parametrize(
    "settings", [{"optimizer": "adamw"}, {"optimizer": "sgd"}, {"optimizer": "sgd", "momentum": 0}]
)
def test_an_optimizer_goes_on_as_if_it_had_never_stopped(settings: dict[str, object]) -> None:
    recipe = Recipe.from_dict({"lr": 0.01, **settings})

    def steps(net: nn.Module, optimizer: torch.optim.Optimizer, n: int) -> None:
        for i in range(n):
            for p in net.parameters():
                p.grad = p.detach() * (i + 1)
            optimizer.step()

    torch.manual_seed(0)
    net = nn.Linear(3, 2)
    optimizer = create_optimizer(net, recipe)
    steps(net, optimizer, 2)
    copy = nn.Linear(3, 2)
    copy.load_state_dict(net.state_dict())
    taken_up = create_optimizer(copy, recipe)
    restore_optimizer(taken_up, {name: tensor.clone() for name, tensor in optimizer_tensors(optimizer).items()})
    steps(net, optimizer, 3)
    steps(copy, taken_up, 3)
    assert torch.equal(copy.weight, net.weight)


def test_whoever_may_read_other_files_may_read_a_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "w.safetensors", tensors(), ABOUT)
    (tmp_path / "other").touch()
    assert (tmp_path / "w.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_moments_come_back_in_the_memory_order_of_their_parameter(tmp_path: Path) -> None:
    """Fused steps walk weights and moments as they lie in memory, channels last or not."""

    def start() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        net = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        return net, torch.optim.AdamW(net.parameters(), fused=True)

    def step(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        generator = torch.Generator().manual_seed(1)
        net(torch.randn(2, 3, 5, 5, generator=generator)).square().mean().backward()
        optimizer.step()

    net, optimizer = start()
    step(net, optimizer)
    save_checkpoint(tmp_path / "o.safetensors", optimizer_tensors(optimizer), {"kind": "resume"})
    copy, taken_up = start()
    copy.load_state_dict(net.state_dict())
    restore_optimizer(taken_up, load_checkpoint(tmp_path / "o.safetensors", "resume")[0])
    moment = taken_up.state[copy.weight]["exp_avg"]
    assert moment.stride() == copy.weight.stride() == optimizer.state[net.weight]["exp_avg"].stride()
    for one, other in ((net, optimizer), (copy, taken_up)):
        step(one, other)
    assert torch.equal(net.weight, copy.weight)
