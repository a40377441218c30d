"""Mixup and cutmix: pixels, labels and weights against their definitions."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn.functional import binary_cross_entropy_with_logits

from ichtune.recipe import Recipe
from ichtune.training.mixing import mix

B, SIDE, K = 6, 16, 18
SEEDS = range(300)
BOTH = pytest.mark.parametrize("key", ["mixup", "cutmix"])


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return slices, of which slice b is 1 in channel b and 0 elsewhere; labels; and weights, of which some are 0."""
    rng = np.random.default_rng(0)
    x = torch.eye(B)[:, :, None, None].repeat(1, 1, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(rng.random((B, K)).astype(np.float32))
    weight = torch.from_numpy(rng.uniform(0.1, 1.0, (B, K)).astype(np.float32))
    weight[torch.from_numpy(rng.random((B, K)) < 0.4)] = 0.0
    return x, y, weight


def mixed(seed: int, **keys: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return mix(*batch(), Recipe(**keys), seed)


@cache
def many(mixup: float = 0.0, cutmix: float = 0.0) -> torch.Tensor:
    """Input of many batches, (seeds, B, B, SIDE, SIDE)."""
    return torch.stack([mixed(seed, mixup=mixup, cutmix=cutmix)[0] for seed in SEEDS])


def cross_entropy(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return binary_cross_entropy_with_logits(logits, y.double(), reduction="none")


def shares(x: torch.Tensor) -> torch.Tensor:
    """How much of slice j is in slice b, (..., B, B)."""
    return x.double().mean(dim=(-2, -1))


def lambdas(x: torch.Tensor) -> np.ndarray:
    """Lambda of each batch, from the slices whose partner is another slice; 1 where nothing changed."""
    own = shares(x).diagonal(dim1=1, dim2=2)
    return np.array([float(one[one < 1 - 1e-6].mean()) if (one < 1 - 1e-6).any() else 1.0 for one in own])


def test_without_an_alpha_nothing_is_mixed() -> None:
    x, y, weight = batch()
    found = mix(x, y, weight, Recipe(), 3)
    assert [part is known for part, known in zip(found, (x, y, weight), strict=True)] == [True] * 3


@BOTH
def test_what_comes_in_stays_and_what_goes_out_is_laid_out_alike(key: str) -> None:
    x, y, weight = batch()
    for seed in range(10):
        out, y_out, weight_out = mix(x, y, weight, Recipe(**{key: 1.0}), seed)  # type: ignore[arg-type]
        assert out.is_contiguous(memory_format=torch.channels_last)
        assert (out.dtype, y_out.dtype, weight_out.dtype) == (torch.float32,) * 3
        assert (out.shape, y_out.shape, weight_out.shape) == (x.shape, y.shape, weight.shape)
    for found, known in zip((x, y, weight), batch(), strict=True):
        assert torch.equal(found, known)


@BOTH
def test_the_partners_are_a_permutation_with_one_lambda_for_the_batch(key: str) -> None:
    for share in shares(many(**{key: 1.0})):
        rest = share - torch.diag(share.diagonal())
        assert ((rest > 1e-9).sum(dim=1) <= 1).all()
        assert ((rest > 1e-9).sum(dim=0) <= 1).all()
        torch.testing.assert_close(share.sum(dim=0), torch.ones(B).double())
        own = share.diagonal()[rest.sum(dim=1) > 1e-9]
        assert len(own) == 0 or float(own.max() - own.min()) < 1e-6


def test_mixup_is_a_weighted_mean_of_every_pixel() -> None:
    x = many(mixup=1.0)
    torch.testing.assert_close(x.double(), shares(x)[..., None, None].expand(x.shape), atol=1e-6, rtol=0)
    assert ((x > 0.01) & (x < 0.99)).any()


@pytest.mark.parametrize("alpha", [0.3, 1.0, 5.0])
def test_mixup_s_lambda_is_beta_distributed(alpha: float) -> None:
    assert stats.kstest(lambdas(many(mixup=alpha)), stats.beta(alpha, alpha).cdf).pvalue > 0.01
    assert stats.kstest(lambdas(many(mixup=alpha)), stats.beta(2 * alpha, 2 * alpha).cdf).pvalue < 0.01


def test_cutmix_exchanges_one_and_the_same_box_and_no_other_pixel() -> None:
    for x in many(cutmix=1.0):
        assert set(x.unique().tolist()) <= {0.0, 1.0}
        own = torch.stack([x[b, b] for b in range(B)]) == 1
        boxes = [~is_own for is_own in own if not is_own.all()]
        for box in boxes:
            rows, columns = box.any(dim=1), box.any(dim=0)
            assert torch.equal(box, rows[:, None] & columns[None, :])
            assert (rows.nonzero().diff(dim=0) == 1).all()
            assert (columns.nonzero().diff(dim=0) == 1).all()
            assert torch.equal(box, boxes[0])


def test_cutmix_s_boxes_lie_anywhere_and_are_square_unless_cut_off_at_the_border() -> None:
    x = many(cutmix=1.0)
    heights, widths, is_inside, hits = [], [], [], torch.zeros(SIDE, SIDE)
    for one in x:
        box = (one != torch.eye(B)[:, :, None, None]).flatten(0, 1).any(dim=0)
        hits += box
        if box.any():
            rows, columns = box.any(dim=1), box.any(dim=0)
            heights.append(int(rows.sum()))
            widths.append(int(columns.sum()))
            is_inside.append(not (rows[0] or rows[-1] or columns[0] or columns[-1]))
    inside = np.array(is_inside)
    assert inside.any()
    assert not inside.all()
    assert (np.array(heights)[inside] == np.array(widths)[inside]).all()
    assert (np.array(heights) != np.array(widths)).any()
    assert hits.min() > 0


def test_cutmix_s_boxes_have_the_area_that_their_beta_distribution_gives() -> None:
    """With alpha 10, 1 - lambda lies around a half: a box of that area before it is cut off at the border."""
    rng = np.random.default_rng(0)
    side = np.sqrt(1 - rng.beta(10, 10, 20_000))
    middle = rng.random((2, 20_000))
    inside = np.minimum(middle + side / 2, 1) - np.maximum(middle - side / 2, 0)
    expected = 1 - inside[0] * inside[1]
    assert lambdas(many(cutmix=10.0)).mean() == pytest.approx(expected.mean(), abs=0.03)
    assert lambdas(many(cutmix=10.0)).std() < 0.7 * lambdas(many(cutmix=0.3)).std()


@BOTH
def test_the_loss_of_what_was_mixed_is_the_mixed_loss_of_both(key: str) -> None:
    logits = torch.from_numpy(np.random.default_rng(5).normal(0, 3, (B, K)))
    _, y, weight = batch()
    for seed in range(40):
        x, y_mixed, weight_mixed = mixed(seed, **{key: 1.0})
        each = torch.stack([weight[j] * cross_entropy(logits, y[j].expand(B, K)) for j in range(B)])
        expected = torch.einsum("bj,jbk->bk", shares(x), each)
        found = weight_mixed * cross_entropy(logits, y_mixed)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(weight_mixed.double(), shares(x) @ weight.double(), atol=1e-6, rtol=0)


@BOTH
def test_an_unknown_label_adds_nothing_whatever_stands_in_its_place(key: str) -> None:
    x, y, weight = batch()
    unknown = torch.where(weight > 0, y, torch.nan)
    expected = mix(x, y, weight, Recipe(**{key: 1.0}), 4)  # type: ignore[arg-type]
    found = mix(x, unknown, weight, Recipe(**{key: 1.0}), 4)  # type: ignore[arg-type]
    assert torch.equal(found[1], expected[1])
    _, y_nothing, weight_nothing = mix(x, unknown, torch.zeros_like(weight), Recipe(**{key: 1.0}), 4)  # type: ignore[arg-type]
    assert not y_nothing.any()
    assert not weight_nothing.any()


def test_with_both_each_acts_on_half_the_batches() -> None:
    def is_cutmix(x: torch.Tensor) -> np.ndarray:
        return ((x == 0) | (x == 1)).flatten(1).all(dim=1).numpy()

    assert not is_cutmix(many(mixup=1.0)).any()
    assert is_cutmix(many(cutmix=1.0)).all()
    assert is_cutmix(many(mixup=1.0, cutmix=1.0)).mean() == pytest.approx(0.5, abs=0.09)


@BOTH
def test_a_seed_says_it_all_and_no_global_generator_is_touched(key: str) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    before, before_np = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    first = mixed(7, **{key: 1.0})
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == before_np).all()  # type: ignore[index]
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(mixed(7, **{key: 1.0}), first, strict=True))
    assert not torch.equal(mixed(8, **{key: 1.0})[0], first[0])


@BOTH
def test_gradients_pass_to_what_was_mixed(key: str) -> None:
    """Learnable windows learn through it: each pixel of the input counts once, shared among two slices."""
    x, y, weight = batch()
    x.requires_grad_()
    mix(x, y, weight, Recipe(**{key: 1.0}), 3)[0].sum().backward()  # type: ignore[arg-type]
    assert x.grad is not None
    torch.testing.assert_close(x.grad.double().sum(dim=0), torch.full(x.shape[1:], float(B)).double())
