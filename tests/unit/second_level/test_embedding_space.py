import numpy as np
import pytest

from ichtune.errors import ConfigError, DataError
from ichtune.second_level.embedding_space import MIN_SLICES, EmbeddingSpace, align, fit_space


def embeddings(n_slices: int = 300, n_dimensions: int = 12, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n_slices, n_dimensions)) * np.linspace(2.0, 0.2, n_dimensions) + 1.0


def another_system(e_TD: np.ndarray, seed: int, scale: float = 3.0) -> np.ndarray:
    """The same embeddings turned, scaled and shifted, as another network might hold them."""
    rng = np.random.default_rng(seed)
    turn_DD = np.linalg.qr(rng.standard_normal((e_TD.shape[1],) * 2))[0]
    return scale * e_TD @ turn_DD + rng.standard_normal(e_TD.shape[1])


def test_a_turn_a_scale_and_a_shift_are_undone() -> None:
    e_TD = embeddings()
    seen, unseen = e_TD[:250], another_system(e_TD, seed=1)
    to_reference = align(seen, unseen[:250])
    np.testing.assert_allclose(to_reference(unseen[250:]), e_TD[250:], atol=1e-6)


def test_constant_dimensions_are_harmless() -> None:
    e_TD = embeddings()
    e_TD[:, [2, 5]] = 4.0, 0.0
    other_TD = another_system(e_TD, seed=2)
    np.testing.assert_allclose(align(e_TD, other_TD)(other_TD), e_TD, atol=1e-6)


def test_a_network_that_sees_nothing_lands_in_the_middle() -> None:
    e_TD = embeddings()
    np.testing.assert_allclose(align(e_TD, np.zeros_like(e_TD))(np.zeros((1, 12))), e_TD.mean(axis=0)[None])


def test_all_folds_share_one_space() -> None:
    e_TD = embeddings()
    by_fold = [another_system(e_TD, seed, scale) for seed, scale in ((1, 1.0), (2, 0.01), (3, 50.0))]
    space = fit_space([e_TD[:220] for e_TD in by_fold], n=5)
    projected = [space.project(fold, e_TD) for fold, e_TD in enumerate(by_fold)]
    assert projected[0].shape == (300, 5)
    assert projected[0].dtype == np.float32
    for other in projected[1:]:
        np.testing.assert_allclose(other, projected[0], atol=1e-5)


def test_components_are_principal_centred_and_uncorrelated() -> None:
    e_TD = embeddings()
    p_Tn = fit_space([e_TD], n=4).project(0, e_TD).astype(np.float64)
    np.testing.assert_allclose(p_Tn.mean(axis=0), 0.0, atol=1e-6)
    covariance = np.cov(p_Tn, rowvar=False)
    variance = np.linalg.eigvalsh(np.cov(e_TD, rowvar=False))[::-1]
    np.testing.assert_allclose(np.diag(covariance), variance[:4], rtol=1e-5)
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0.0, atol=1e-5)


def test_what_one_network_alone_sees_is_not_a_first_component() -> None:
    """The axes are those of the mean: one network's own noise, however wide, must not become what all are seen by."""
    e_TD, rng = embeddings(2000, 6), np.random.default_rng(5)
    noisy = [np.hstack([e_TD, 2.5 * rng.standard_normal((2000, 6))]) for _ in range(10)]
    space = fit_space(noisy, n=1)
    first = space.project(0, noisy[0])[:, 0]
    assert abs(np.corrcoef(first, e_TD[:, 0])[0, 1]) > 0.9


def test_several_networks_of_a_fold_are_averaged_after_each_is_aligned() -> None:
    e_TD = embeddings()
    pair = np.stack([another_system(e_TD, 1), another_system(e_TD, 2)])
    space = fit_space([e_TD, pair], n=3)
    np.testing.assert_allclose(space.project(1, pair), space.project(0, e_TD), atol=1e-5)
    with pytest.raises(DataError, match="2 networks of fold 1"):
        space.project(1, e_TD)


def test_the_order_of_the_slices_does_not_matter() -> None:
    e_TD, order = embeddings(), np.random.default_rng(3).permutation(300)
    other_TD = another_system(e_TD, 4)
    space, shuffled = fit_space([e_TD, other_TD], 3), fit_space([e_TD[order], other_TD[order]], 3)
    np.testing.assert_allclose(shuffled.project(1, other_TD), space.project(1, other_TD), atol=1e-5)


def test_arrays_make_the_same_space() -> None:
    e_TD = embeddings()
    space = fit_space([e_TD, np.stack([e_TD, another_system(e_TD, 1)])], n=3)
    again = EmbeddingSpace.from_arrays(space.arrays())
    assert np.array_equal(again.project(0, e_TD), space.project(0, e_TD))
    assert np.array_equal(again.project(1, np.stack([e_TD, e_TD])), space.project(1, np.stack([e_TD, e_TD])))


@pytest.mark.parametrize("arrays", [{}, {"0.0.turn": np.eye(2)}, {"weights": np.eye(2)}])
def test_other_arrays_are_refused(arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(DataError, match="no arrays of an embedding space"):
        EmbeddingSpace.from_arrays(arrays)


def test_too_few_slices_name_the_way_out() -> None:
    with pytest.raises(DataError, match="embeddings: 0"):
        fit_space([embeddings(MIN_SLICES - 1)], n=3)
    with pytest.raises(DataError, match="need at least 240"):
        fit_space([embeddings(239, 130)], n=120)


@pytest.mark.parametrize("n", [0, 13])
def test_components_that_are_not_there_are_refused(n: int) -> None:
    with pytest.raises(ConfigError, match="between 1 and the 12 dimensions"):
        fit_space([embeddings()], n)


def test_different_slices_and_values_that_are_no_numbers_are_refused() -> None:
    e_TD = embeddings()
    with pytest.raises(DataError, match="same slices"):
        fit_space([e_TD, e_TD[:-1]], n=2)
    broken_TD = e_TD.copy()
    broken_TD[3, 4] = np.nan
    with pytest.raises(DataError, match="finite"):
        fit_space([e_TD, broken_TD], n=2)
    with pytest.raises(DataError, match="shape"):
        fit_space([e_TD[0]], n=2)
    with pytest.raises(DataError, match="0 networks of fold 7"):
        fit_space([e_TD], n=2).project(7, e_TD)
