"""EmbeddingSpace: embeddings of fold networks, each with axes of its own, in one system of few axes; without labels.

Dimension key: K folds, M networks of a fold, T slices that all networks embed, N slices, D embedding, E the embedding
that is turned onto, n components.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from ichtune.errors import ConfigError, DataError

#: Slices below which axes cannot be told from chance, also as a multiple of the components that are asked for.
MIN_SLICES, MIN_SLICES_A_COMPONENT = 200, 2
#: Slices above which more of them change nothing; these are spread evenly.
MAX_SLICES = 20_000


@dataclass(frozen=True)
class Alignment:
    """Moves, scales and turns embeddings of one network onto those of another: ``x @ turn_DE + shift_E``."""

    turn_DE: np.ndarray
    shift_E: np.ndarray

    def __call__(self, e_ND: np.ndarray) -> np.ndarray:
        """Return embeddings (N, D) in the system of the other network, float64 (N, E)."""
        return np.asarray(e_ND.astype(np.float64) @ self.turn_DE + self.shift_E)


def align(reference_TE: np.ndarray, other_TD: np.ndarray) -> Alignment:
    """Return the shift, the one scale and the turn that bring embeddings nearest to those of a reference.

    Both are centred, and scaled by their whole spread; what is left is the orthogonal Procrustes problem. Dimensions
    that are constant, or all of them, are harmless.

    Args:
        reference_TE: embeddings of the slices by the network that is turned onto.
        other_TD: embeddings of the same slices, in the same order, by another network.

    Raises:
        DataError: different slices, or values that are not finite.

    Source: Schönemann, A generalized solution of the orthogonal Procrustes problem, 1966.
    """
    if len(reference_TE) != len(other_TD):
        raise DataError(
            f"networks must embed the same slices to be aligned, got {len(reference_TE)} and {len(other_TD)} slices"
        )
    centre_E, centre_D = (e.mean(axis=0, dtype=np.float64) for e in (reference_TE, other_TD))
    inner_TE, inner_TD = reference_TE - centre_E, other_TD - centre_D
    size_E, size_D = np.linalg.norm(inner_TE), np.linalg.norm(inner_TD)
    if not (np.isfinite(size_E) and np.isfinite(size_D)):
        raise DataError("embeddings must be finite numbers, got NaN or infinity; train the run with --embeddings again")
    left_DQ, _, right_QE = np.linalg.svd(inner_TD.T @ inner_TE, full_matrices=False)
    turn_DE = (size_E / size_D if size_D > 0 else 0.0) * (left_DQ @ right_QE)
    return Alignment(turn_DE, centre_E - centre_D @ turn_DE)


class EmbeddingSpace:
    """The map of every fold network into one space.

    Args:
        maps_KM: for each fold, of each of its networks.
    """

    def __init__(self, maps_KM: Sequence[Sequence[Alignment]]) -> None:
        self._maps_KM = [list(maps) for maps in maps_KM]

    def project(self, fold: int, e_ND: np.ndarray) -> np.ndarray:
        """Return principal components of a fold's embeddings, float32 (N, n), axes with the widest spread first.

        Where a fold has several networks it is the mean of theirs, each mapped on its own.

        Args:
            fold: whose networks.
            e_ND: embeddings (N, D), or (M, N, D) of M networks.

        Raises:
            DataError: no such fold, or other networks than those that the space was fitted on.
        """
        e_MND = _with_networks(e_ND)
        maps = self._maps_KM[fold] if 0 <= fold < len(self._maps_KM) else []
        shapes = [len(one.turn_DE) for one in maps]
        if shapes != [e_MND.shape[2]] * len(e_MND):
            raise DataError(
                f"the embedding space has {len(maps)} networks of fold {fold}, of dimensions {shapes}, got "
                f"{len(e_MND)} of dimension {e_MND.shape[2]}; fit it on the embeddings of the same training"
            )
        projected = [to_space(one_ND) for to_space, one_ND in zip(maps, e_MND, strict=True)]
        return np.mean(projected, axis=0).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all maps as arrays by name."""
        return {
            f"{fold}.{network}.{part}": np.ascontiguousarray(values)
            for fold, maps in enumerate(self._maps_KM)
            for network, one in enumerate(maps)
            for part, values in (("turn", one.turn_DE), ("shift", one.shift_E))
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Make the space of what ``arrays`` returned.

        Raises:
            DataError: it is something else.
        """
        try:
            keys = sorted({(int(fold), int(network)) for fold, network, _ in (name.split(".") for name in arrays)})
            maps_KM: list[list[Alignment]] = [[] for _ in range(keys[-1][0] + 1)]
            for fold, network in keys:
                start = f"{fold}.{network}"
                maps_KM[fold].append(Alignment(arrays[f"{start}.turn"], arrays[f"{start}.shift"]))
        except (LookupError, ValueError) as error:
            raise DataError(f"these are no arrays of an embedding space: {error!r}; fit it again") from error
        return cls(maps_KM)


def fit_space(e_by_fold_KTD: Sequence[np.ndarray], n: int) -> EmbeddingSpace:
    """Return the space of embeddings of the same slices by the networks of every fold.

    All are aligned to the first network of the first fold. The axes are the principal components of the mean of them
    all: what the networks agree on spreads it, and what one alone sees hardly does.

    Args:
        e_by_fold_KTD: for each fold embeddings (T, D), or (M, T, D) of M networks, of the same T slices in one order;
            unlabelled ones, so that no label of a fold shapes what its slices are seen by.
        n: components to keep.

    Raises:
        ConfigError: more components are asked for than the networks have dimensions.
        DataError: too few slices, not the same in all folds, or values that are not finite.
    """
    networks_KMTD = [_with_networks(e_TD) for e_TD in e_by_fold_KTD]
    n_slices, n_dimensions = networks_KMTD[0].shape[1:]
    _check_size(n_slices, n_dimensions, n)
    counts = sorted({e_MTD.shape[1] for e_MTD in networks_KMTD})
    if len(counts) > 1:
        raise DataError(f"folds must embed the same slices to be aligned, got {counts} slices of different folds")
    rows = np.linspace(0, n_slices - 1, min(n_slices, MAX_SLICES)).astype(int)
    reference_TE = networks_KMTD[0][0, rows].astype(np.float64)
    alignments_KM = [[align(reference_TE, e_TD[rows]) for e_TD in e_MTD] for e_MTD in networks_KMTD]
    sum_TE = np.zeros_like(reference_TE)
    for e_MTD, alignments in zip(networks_KMTD, alignments_KM, strict=True):
        for e_TD, alignment in zip(e_MTD, alignments, strict=True):
            sum_TE += alignment(e_TD[rows])
    centre_E, axes_En = _principal_axes(sum_TE / sum(len(alignments) for alignments in alignments_KM), n)
    return EmbeddingSpace(
        [
            [Alignment(a.turn_DE @ axes_En, (a.shift_E - centre_E) @ axes_En) for a in alignments]
            for alignments in alignments_KM
        ]
    )


def _check_size(n_slices: int, n_dimensions: int, n: int) -> None:
    if not 1 <= n <= n_dimensions:
        raise ConfigError(
            f"recipe key 'embeddings' must be between 1 and the {n_dimensions} dimensions of the run's embeddings, "
            f"got {n}"
        )
    needed = max(MIN_SLICES, MIN_SLICES_A_COMPONENT * n)
    if n_slices < needed:
        raise DataError(
            f"embeddings of different folds are brought together on unlabelled slices, of which {n} components need at "
            f"least {needed}, got {n_slices}; set `embeddings: 0` in the recipe of the second level"
        )


def _principal_axes(e_TE: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the centre (E,) and the ``n`` axes (E, n) of widest spread, each with its largest part positive."""
    centre_E = e_TE.mean(axis=0)
    inner_TE = e_TE - centre_E
    axes_En = np.linalg.eigh(inner_TE.T @ inner_TE)[1][:, ::-1][:, :n]
    largest_n = np.abs(axes_En).argmax(axis=0)
    return centre_E, axes_En * np.where(axes_En[largest_n, np.arange(n)] < 0, -1.0, 1.0)


def _with_networks(e: np.ndarray) -> np.ndarray:
    """Return (T, D) as (1, T, D), and (M, T, D) as it is."""
    if e.ndim not in (2, 3) or not len(e):
        raise DataError(f"embeddings must have shape (slices, dimensions), networks first or not, got {e.shape}")
    return e if e.ndim == 3 else e[None]
