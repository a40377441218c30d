"""BatchGradient: where memory runs out the same step is done in less, and comes to the same where that can be."""

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ichtune.errors import NothingUsableError
from ichtune.models.network import Network, create_network
from ichtune.recipe import Recipe
from ichtune.training.fold_run import fold_rows, open_batches
from ichtune.training.gradient import BatchGradient
from ichtune.training.loop import TrainingRun
from ichtune.workspace import Workspace

CPU = torch.device("cpu")
#: A network in which no slice has to do with another, and nothing is drawn.
APART: dict[str, Any] = {"architecture": "test_convnext", "dropout": 0.0}
NORMED: dict[str, Any] = {"architecture": "test_resnet", "dropout": 0.4}


def recipe(**changes: Any) -> Recipe:
    settings: dict[str, Any] = {"windows": "brain", "image_px": 32, "lr": 1e-2, "epochs": 1, "batch_size": 16}
    return Recipe(**(settings | changes))


def start(workspace: Workspace, **changes: Any) -> TrainingRun:
    rows, chosen = fold_rows(workspace, 0), recipe(**changes)
    return TrainingRun(chosen, open_batches(workspace, chosen), rows.train, rows.valid, CPU)


def out_of_memory(*_: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")


def hold_slices(network: nn.Module, most: int) -> list[int]:
    """Let a network run out of memory, at the end of its forward pass, with more slices; returns what it was given."""
    forward, given = network.forward, []

    def limited(x_BCHW: torch.Tensor) -> torch.Tensor:
        given.append(len(x_BCHW))
        logits_BK: torch.Tensor = forward(x_BCHW)
        if len(x_BCHW) > most:
            out_of_memory()
        return logits_BK

    network.forward = limited  # type: ignore[assignment]
    return given


def kept_bytes(network: nn.Module, x_BCHW: torch.Tensor) -> int:
    """Return the bytes that a network keeps for the backward pass."""
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.nbytes), t)[1], lambda t: t):
        network(x_BCHW)
    return sum(kept)


def hold_bytes(network: nn.Module, most: int) -> None:
    """Let a network run out of memory where it keeps more bytes for the backward pass."""
    forward = network.forward

    def limited(x_BCHW: torch.Tensor) -> torch.Tensor:
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.nbytes), t)[1], lambda t: t):
            logits_BK: torch.Tensor = forward(x_BCHW)
        if sum(kept) > most:
            out_of_memory()
        return logits_BK

    network.forward = limited  # type: ignore[assignment]


def batch(n: int = 12) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    x_BCHW = torch.randn(n, 1, 32, 32, generator=generator)
    return x_BCHW, torch.rand(n, 6, generator=generator), torch.full((n, 6), 1 / 6)


def made(**changes: Any) -> tuple[Network, BatchGradient, list[str]]:
    torch.manual_seed(3)
    chosen, notes = recipe(**changes), list[str]()
    network = create_network(chosen).train()
    return network, BatchGradient(network, chosen, notes), notes


def assert_same_state(one: nn.Module, other: nn.Module) -> None:
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.fixture
def double_precision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.slow  # takes seconds
@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("most", [1, 3, 8])
def test_parts_come_to_the_same_in_double_precision(most: int) -> None:
    """With so little rounding there is nothing to hide behind: the sums are those of the whole batch."""
    nets, losses = [], []
    for limit in (1000, most):
        network, gradient, _ = made(**APART)
        hold_slices(network, limit)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        for step in range(4):
            losses.append(float(gradient(*batch(12 - step), seed=step)))
            optimizer.step()
        nets.append(network)
        assert gradient.is_short_of_memory == (limit < 12)
    assert losses[4:] == pytest.approx(losses[:4], rel=1e-12)
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_a_run_in_parts_ends_as_the_undisturbed_one(session_workspace: Workspace) -> None:
    settings = {**APART, "optimizer": "sgd", "lr": 1e-3, "learnable_windows": True, "mixup": 0.4, "epochs": 2}
    whole, parts = start(session_workspace, **settings), start(session_workspace, **settings)
    given = hold_slices(parts.network, 5)
    for run in (whole, parts):
        while not run.finished:
            run.run_epoch()
    assert given[:8] == [16, 8, 4, 4, 4, 4, 4, 4]
    assert max(given[2:]) == 4
    for (name, one), other in zip(whole.network.named_parameters(), parts.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6, msg=name)
    assert [epoch.train_loss for epoch in parts.history] == pytest.approx([e.train_loss for e in whole.history], 1e-4)
    assert parts.notes == [
        "out of memory: each batch passes in 4 times as many parts and is still one step; the result is the same but "
        "for rounding"
    ]


@pytest.mark.parametrize("settings", [NORMED, {"architecture": "test_vit", "dropout": 0.4}])
def test_batch_norm_and_dropout_come_to_the_same_bits_where_computing_twice_is_enough(
    session_workspace: Workspace, settings: dict[str, Any]
) -> None:
    whole = start(session_workspace, **settings, ema_decay=0.9)
    twice = start(session_workspace, **settings, ema_decay=0.9)
    enough = kept_bytes(start(session_workspace, **settings).network, torch.zeros(16, 1, 32, 32))
    hold_bytes(twice.network, int(0.9 * enough))
    for run in (whole, twice):
        run.run_epoch()
    assert twice.notes == ["out of memory: activations are computed twice instead of kept; the result is the same"]
    assert_same_state(whole.network, twice.network)
    assert whole.history[0].train_loss == twice.history[0].train_loss
    assert whole.history[0].val_weighted_log_loss == twice.history[0].val_weighted_log_loss


def test_where_parts_are_all_that_is_left_batch_norm_s_statistics_move_as_by_the_whole_batch() -> None:
    whole, gradient, _ = made(**NORMED)
    gradient(*batch(), seed=1)
    parts, gradient, notes = made(**NORMED)
    hold_slices(parts, 3)
    gradient(*batch(), seed=1)
    statistics = dict(whole.named_buffers())
    for name, tensor in parts.named_buffers():
        if name.endswith("num_batches_tracked"):
            assert tensor == statistics[name] == 1
    first = next(name for name in statistics if name.endswith("running_mean"))
    torch.testing.assert_close(dict(parts.named_buffers())[first], statistics[first])
    assert notes == [
        "out of memory: activations are computed twice instead of kept, each batch passes in 4 times as many parts and "
        "is still one step; batch norm sees each part by itself, so the result differs from that of whole batches"
    ]


def test_the_parts_of_a_recipe_stay_parts_when_they_are_cut_further() -> None:
    network, gradient, _ = made(**NORMED, accumulation=2)
    hold_slices(network, 3)
    gradient(*batch(), seed=1)
    counts = {int(tensor) for name, tensor in network.named_buffers() if name.endswith("num_batches_tracked")}
    assert counts == {2}


@pytest.mark.parametrize(("settings", "most", "left"), [(NORMED, 1, 2), (APART, 0, 1)])
def test_what_does_not_fit_at_all_is_told_with_what_to_do(settings: dict[str, Any], most: int, left: int) -> None:
    network, gradient, _ = made(**settings)
    given = hold_slices(network, most)
    with pytest.raises(
        NothingUsableError, match=rf"out of memory even with {left} slices at a time: CUDA out of.*Lowe"
    ):
        gradient(*batch(), seed=1)
    assert given[-1] == left


class OutInBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        if len(gradient) > 3:
            out_of_memory()
        return gradient


def test_a_backward_pass_that_runs_out_is_done_again_from_the_start() -> None:
    grads = []
    for runs_out in (False, True):
        network, gradient, _ = made(**APART)
        forward = network.forward
        if runs_out:
            network.forward = lambda x: OutInBackward.apply(forward(x))  # type: ignore[assignment, misc]  # noqa: B023
        x_BCHW, *rest = batch()
        x_BCHW.requires_grad_()
        gradient(x_BCHW * 1.0, *rest, seed=1)
        assert gradient.is_short_of_memory == runs_out
        grads.append([x_BCHW.grad, *(p.grad for p in network.parameters())])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_what_was_held_is_free_before_the_next_try() -> None:
    network, gradient, _ = made(**APART)
    forward, kept, alive = network.forward, [], []

    def limited(x_BCHW: torch.Tensor) -> torch.Tensor:
        gc.disable()  # freed at once, and not when somebody looks
        alive.append(sum(reference() is not None for reference in kept))
        logits_BK: torch.Tensor = forward(x_BCHW)
        kept.append(weakref.ref(logits_BK))
        if len(x_BCHW) > 3:
            out_of_memory()
        return logits_BK

    network.forward = limited  # type: ignore[assignment]
    try:
        gradient(*batch(), seed=1)
    finally:
        gc.enable()
    assert len(alive) > 3
    assert set(alive) == {0}


def test_other_errors_are_not_tried_again() -> None:
    network, gradient, notes = made(**APART)
    calls: list[int] = []

    def broken(x_BCHW: torch.Tensor) -> torch.Tensor:
        calls.append(len(x_BCHW))
        raise RuntimeError("shapes differ")

    network.forward = broken  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match=r"^shapes differ$"):
        gradient(*batch(), seed=1)
    assert calls == [12]
    assert notes == []


def test_the_note_is_said_once_and_again_when_notes_are_put_back() -> None:
    network, gradient, notes = made(**APART)
    hold_slices(network, 3)
    for seed in range(3):
        gradient(*batch(), seed=seed)
    assert len(notes) == 1
    said, notes[:] = list(notes), ["another"]
    gradient(*batch(), seed=4)
    assert notes == ["another", *said]


def test_a_compiled_network_that_runs_out_of_memory_stays_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def compiler(network: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda x_BCHW: network(x_BCHW) if len(x_BCHW) <= 3 else out_of_memory()  # type: ignore[return-value]

    monkeypatch.setattr(torch, "compile", compiler)
    _, gradient, notes = made(**APART, compile=True)
    gradient(*batch(), seed=1)
    assert [note.split(":")[0] for note in notes] == ["out of memory"]
    _, gradient, notes = made(**NORMED, compile=True)
    gradient(*batch(), seed=1)
    assert notes == [
        "out of memory: activations are computed twice instead of kept, by the network uncompiled; the result is the "
        "same but for rounding"
    ]


def change_an_input_in_place(gradient: BatchGradient) -> None:
    first, second = gradient._blocks[:2]
    of_first, of_second = first.forward, second.forward
    first.forward = lambda x: of_first(x) + 0.0  # type: ignore[method-assign]  # a sum, whose result nobody keeps
    second.forward = lambda x: of_second(x.mul_(2.0))  # type: ignore[method-assign]


def test_a_network_that_cannot_be_computed_twice_passes_in_parts() -> None:
    network, gradient, notes = made(**NORMED)
    change_an_input_in_place(gradient)
    forward = network.forward

    def limited(x_BCHW: torch.Tensor) -> torch.Tensor:
        logits_BK: torch.Tensor = forward(x_BCHW)
        if len(x_BCHW) > 6 and not gradient._recomputes:
            out_of_memory()
        return logits_BK

    network.forward = limited  # type: ignore[assignment]
    gradient(*batch(), seed=1)
    assert "each batch passes in 2 times as many parts" in notes[0]
    assert "batch norm sees each part" in notes[0]
    assert "twice" not in notes[0]


@pytest.mark.slow  # takes seconds
def test_a_run_in_parts_is_taken_up_to_the_same_bits(session_workspace: Workspace, tmp_path: Path) -> None:
    settings = {**NORMED, "epochs": 2}
    whole, left = start(session_workspace, **settings), start(session_workspace, **settings)
    for run in (whole, left):
        hold_slices(run.network, 6)
        run.run_epoch()
    left.save(tmp_path / "resume.safetensors")
    taken_up = start(session_workspace, **settings)
    hold_slices(taken_up.network, 6)
    taken_up.load(tmp_path / "resume.safetensors")
    for run in (whole, taken_up):
        run.run_epoch()
    assert_same_state(whole.network, taken_up.network)
    assert taken_up.notes == whole.notes
