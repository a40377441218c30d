"""Convex weights for many slices, in a few passes over memory and without a copy of the members.

The optimum is found on a sample of entries (a slice and a label). One pass over all entries gives their exact gradient
there, from which follows how far the loss can be from its minimum: each entry's loss lies above its tangent, and for
sampled entries the loss itself is known, so that the tangents of the others and the losses of these bound the minimum
from below. Where that is not near enough, the exact gradient corrects the sample's, and there is another pass.

Dimension key: G members without duplicates, N slices, L labels, K problems, B entries of a block.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ichtune.ensemble.blenders.blend_losses import LabelLoss, LogitLoss
from ichtune.ensemble.blenders.blocks import Scratch, block_size, on_threads, one_blas_thread, sum_over_blocks
from ichtune.ensemble.blenders.entry_sample import EntrySample, sample_entries
from ichtune.ensemble.blenders.simplex import minimise_on_simplex, newton_step
from ichtune.metrics import CLIP

#: By how much, in nats, the loss over all entries may exceed its minimum.
ENOUGH = 1e-6
#: Passes after which the sample is given up, and Newton steps are made on all entries.
MAX_PASSES = 8
#: Gaps to which the problem is solved on the thin part of the sample, and the lower bound of the loss is.
THIN_GAP, BOUND_GAP = 2e-5, 1e-7
#: Entries whose weight in the sample is at most so many times their own take part in the bound: the others add little.
SURE = 2.0


@dataclass(frozen=True)
class ManyRows:
    """Weights to find for one or several sets of labels, each label in exactly one set.

    Attributes:
        p_GNL: probabilities of distinct members, of any float type and memory order.
        y_NL: labels in [0, 1].
        weight_N: weight of each slice, summing to one.
        kind: what is mixed.
        share_KL: share of each label in the loss of each problem; 0 where it takes no part.
    """

    p_GNL: np.ndarray
    y_NL: np.ndarray
    weight_N: np.ndarray
    kind: type[LabelLoss]
    share_KL: np.ndarray

    def solve(self) -> tuple[np.ndarray, float]:
        """Return the weights (K, G), and by how much any problem's loss over all entries can exceed its minimum."""
        with one_blas_thread():
            samples = sample_entries(self.p_GNL, self.y_NL, self.weight_N, self.share_KL)
            solvers = [_OnSample(sample, self.kind) for sample in samples]
            return self._made_exact(solvers)

    def _made_exact(self, solvers: list["_OnSample"]) -> tuple[np.ndarray, float]:
        w_KG = np.stack([solver.first() for solver in solvers])
        best_KG, best_gap_K = w_KG.copy(), np.full(len(w_KG), np.inf)
        for _ in range(MAX_PASSES):
            gradient_KG = self.gradients(w_KG)
            for k in np.flatnonzero(best_gap_K > ENOUGH):
                gap = solvers[k].gap(w_KG[k], gradient_KG[k])
                if gap < best_gap_K[k]:
                    best_KG[k], best_gap_K[k] = w_KG[k], gap
                if gap > ENOUGH:
                    w_KG[k] = solvers[k].corrected(w_KG[k], gradient_KG[k])
            if best_gap_K.max() <= ENOUGH:
                break
        for k in np.flatnonzero(best_gap_K > ENOUGH):
            exact = _AllEntries(self, np.flatnonzero(self.share_KL[k]), self.share_KL[k])
            best_KG[k], best_gap_K[k] = minimise_on_simplex(exact, best_KG.shape[1], best_KG[k], ENOUGH)
        return best_KG, max(float(best_gap_K.max()), 0.0)

    def gradients(self, w_KG: np.ndarray) -> np.ndarray:
        """Gradient of each problem's loss over all entries at its weights (K, G), in one pass over the members."""
        n_members, n_rows, n_labels = self.p_GNL.shape
        size = block_size(n_members * n_labels)
        each_L, of_L, scratch = np.arange(n_labels), self.share_KL.argmax(axis=0), Scratch()
        share_B = np.tile(self.share_KL.max(axis=0), size)

        def block(rows: slice) -> tuple[np.ndarray]:
            x_GB = _block(self.p_GNL[:, rows], self.kind, scratch)
            mixed_KB = w_KG @ x_GB
            mixed_B = mixed_KB[0]
            if len(w_KG) > 1:
                mixed_B = mixed_KB.reshape(len(w_KG), -1, n_labels)[of_L, :, each_L].T.ravel()
            slope_B = self.kind.slopes(mixed_B, self.y_NL[rows].ravel())
            slope_B *= share_B[: len(slope_B)]
            slope_B *= np.repeat(self.weight_N[rows], n_labels)
            slope_BK = slope_B[:, None]
            if len(w_KG) > 1:
                slope_RLK = np.zeros((len(slope_B) // n_labels, n_labels, len(w_KG)))
                slope_RLK[:, each_L, of_L] = slope_B.reshape(-1, n_labels)
                slope_BK = slope_RLK.reshape(-1, len(w_KG))
            return ((x_GB @ slope_BK).T,)

        return np.asarray(sum_over_blocks(block, n_rows, size)[0])


class _OnSample:
    """Solves one problem on its sample, and bounds the loss over all entries from below."""

    def __init__(self, sample: EntrySample, kind: type[LabelLoss]) -> None:
        x_GS = sample.p_GS

        def one(g: int) -> None:
            inputs(x_GS[g], kind, x_GS[g], np.empty_like(x_GS[g]))

        list(on_threads(one, range(len(x_GS))))
        thin = sample.thin
        self._thin = kind(_columns(x_GS, thin), sample.y_S[thin], sample.thin_weight_S[thin])
        self._for_all = _Tilted(kind(x_GS, sample.y_S, sample.weight_S))
        times_S = sample.weight_S / np.maximum(sample.share_S, 1e-300)
        sure = np.flatnonzero(times_S <= max(SURE, times_S.min()))
        self._alone = _Tilted(kind(_columns(x_GS, sure), sample.y_S[sure], sample.share_S[sure]))

    def first(self) -> np.ndarray:
        """Solve on the thin part of the sample, and make one step towards the optimum on the whole."""
        n_members = len(self._thin.x_MN)
        start_G, _ = minimise_on_simplex(self._thin, n_members, enough=THIN_GAP)
        return newton_step(self._for_all, start_G)

    def corrected(self, w_G: np.ndarray, gradient_G: np.ndarray) -> np.ndarray:
        """Make two more steps, the gradient at ``w_G`` being the one over all entries."""
        self._for_all.tilt(w_G, gradient_G)
        return newton_step(self._for_all, newton_step(self._for_all, w_G))

    def gap(self, w_G: np.ndarray, gradient_G: np.ndarray) -> float:
        """By how much the loss over all entries at ``w_G`` can exceed its minimum, from its gradient there."""
        frank_wolfe = float(gradient_G @ w_G - gradient_G.min())
        if frank_wolfe <= ENOUGH:
            return max(frank_wolfe, 0.0)
        # a lower bound of the loss that touches it at w_G: the losses of surely sampled entries, tangents of the others
        self._alone.tilt(w_G, gradient_G)
        lowest_G, short = minimise_on_simplex(self._alone, len(w_G), w_G.copy(), BOUND_GAP)
        return min(frank_wolfe, self._alone.value(w_G) - self._alone.value(lowest_G) + short)


def _columns(x_GS: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Return some entries of every member."""
    taken = np.empty((len(x_GS), len(which)))

    def one(g: int) -> None:
        x_GS[g].take(which, out=taken[g], mode="clip")

    list(on_threads(one, range(len(x_GS))))
    return taken


class _Tilted:
    """A loss with a linear term that gives it any gradient at one point; keeps its last derivatives."""

    def __init__(self, loss: LabelLoss) -> None:
        self._loss = loss
        self._tilt_G = np.zeros(len(loss.x_MN))
        self._last: tuple[np.ndarray, tuple[np.ndarray, np.ndarray]] | None = None

    def tilt(self, w: np.ndarray, gradient_G: np.ndarray) -> None:
        """Have this gradient at ``w``, but for a constant, which weights that sum to one do not feel."""
        tilt_G = gradient_G - self._untilted(w)[0]
        self._tilt_G = tilt_G - tilt_G.mean()

    def value(self, w: np.ndarray) -> float:
        return self._loss.value(w) + float(self._tilt_G @ w)

    def derivatives(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gradient_G, hessian_GG = self._untilted(w)
        return gradient_G + self._tilt_G, hessian_GG

    def _untilted(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._last is None or not np.array_equal(self._last[0], w):
            self._last = w.copy(), self._loss.derivatives(w)
        return self._last[1]


@dataclass(frozen=True)
class _AllEntries:
    """The loss of one problem over all entries, with its Hessian, in blocks: slow, for what no sample stands for."""

    problem: ManyRows
    labels: np.ndarray
    share_L: np.ndarray

    def value(self, w: np.ndarray) -> float:
        return float(self._sum(lambda loss: (loss.value(w),))[0])

    def derivatives(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gradient_G, hessian_GG = self._sum(lambda loss: loss.derivatives(w))
        return gradient_G, hessian_GG

    def _sum(self, of: Callable[[LabelLoss], tuple[Any, ...]]) -> list[Any]:
        problem, scratch = self.problem, Scratch()

        def block(rows: slice) -> tuple[Any, ...]:
            x_GB = _block(problem.p_GNL[:, rows, self.labels], problem.kind, scratch)
            y_B = problem.y_NL[rows, self.labels].astype(np.float64).ravel()
            weight_B = (problem.weight_N[rows, None] * self.share_L[self.labels]).ravel()
            return of(problem.kind(x_GB, y_B, weight_B))

        n_members, n_rows, _ = problem.p_GNL.shape
        return sum_over_blocks(block, n_rows, block_size(n_members * len(self.labels)))


def _block(p_GRL: np.ndarray, kind: type[LabelLoss], scratch: Scratch) -> np.ndarray:
    """Return what is mixed for a block of slices, (G, entries)."""
    x_GRL = scratch.array("mixed", p_GRL.shape)
    rest = scratch.array("rest", p_GRL.shape) if kind is LogitLoss else x_GRL
    return inputs(p_GRL, kind, x_GRL, rest).reshape(len(p_GRL), -1)


def inputs(p: np.ndarray, kind: type[LabelLoss], out: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Write clipped probabilities, or their log odds, to ``out``; ``rest`` is memory of its shape for log odds."""
    np.clip(p, CLIP, 1.0 - CLIP, out=out, dtype=np.float64)
    if kind is LogitLoss:
        np.subtract(1.0, out, out=rest)
        np.divide(out, rest, out=out)
        np.log(out, out=out)
    return out
