from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ichtune.ensemble.blenders.logits import from_logits, to_logits
from ichtune.errors import DataError
from ichtune.metrics import weighted_log_loss
from ichtune.second_level import sequences
from ichtune.second_level.base import fit
from ichtune.second_level.models import create_series_model
from ichtune.second_level.sequences import WARM_UP, SequenceModel, lr_at
from ichtune.second_level.views import SeriesView
from ichtune.second_level_recipe import SEQUENCES, SecondLevelRecipe

Fitted = Callable[..., SequenceModel]


def recipe_of(model: str, **keys: object) -> SecondLevelRecipe:
    return SecondLevelRecipe(**{"model": model, "hidden": 16, "epochs": 6, "batch_size": 4, "lr": 1e-2, **keys})


def new(model: str, **keys: object) -> SequenceModel:
    made = create_series_model(recipe_of(model, **keys))
    assert isinstance(made, SequenceModel)
    return made


def rounding(device: torch.device) -> float:
    """By how much probabilities may differ; a GPU takes other kernels for other shapes, and some compute in TF32."""
    return 1e-6 if device.type == "cpu" else 1e-4


def equal_mean(view: SeriesView) -> np.ndarray:
    return from_logits(to_logits(view.p_MRL).mean(axis=0))


def upside_down(view: SeriesView) -> tuple[SeriesView, np.ndarray]:
    """Every series the other way up, and which rows of the view those are."""
    rows = np.concatenate(
        [np.arange(s, s + n)[::-1] for s, n in zip(view.starts, view.lengths, strict=True)], dtype=int
    )
    e_RD = None if view.e_RD is None else view.e_RD[rows]
    return replace(
        view,
        image_ids=view.image_ids[rows],
        z_mm_R=view.z_mm_R[rows],
        p_MRL=view.p_MRL[:, rows],
        metadata_RC=view.metadata_RC[rows],
        e_RD=e_RD,
    ), rows


@pytest.fixture(scope="module")
def fitted(generated_series) -> Fitted:
    """Return what gives a model that has learnt from generated series; one for each name."""
    view, y_RL = generated_series(40, lengths=(5, 9))
    made: dict[str, SequenceModel] = {}

    def give(model: str) -> SequenceModel:
        if model not in made:
            keys = {"embeddings": 4, "metadata": True}
            made[model] = fit(new(model, **keys), view, y_RL)
        return made[model]

    return give


@pytest.mark.slow  # takes seconds
@pytest.mark.parametrize("model", SEQUENCES)
def test_context_beats_the_equal_mean_on_patients_that_were_not_seen(model: str, generated_series, fitted) -> None:
    held_out, y_RL = generated_series(60, seed=1, lengths=(5, 9))
    loss = weighted_log_loss(y_RL, fitted(model).predict(held_out))
    assert loss < 0.7 * weighted_log_loss(y_RL, equal_mean(held_out))


@pytest.mark.parametrize("model", SEQUENCES)
@pytest.mark.parametrize("n_members", [1, 3])
def test_untrained_it_is_the_equal_mean_of_log_odds(model: str, n_members: int, generated_series) -> None:
    view, y_RL = generated_series(6, n_members)
    np.testing.assert_allclose(new(model).begin(view, y_RL).predict(view), equal_mean(view), atol=1e-12)


@pytest.mark.parametrize("model", SEQUENCES)
def test_a_run_taken_up_between_epochs_ends_with_the_same_bits(model: str, generated_series) -> None:
    view, y_RL = generated_series(8, lengths=(3, 6))
    keys = {"embeddings": 4, "metadata": True, "epochs": 3, "hidden": 8}
    whole = new(model, **keys).begin(view, y_RL)
    first = [whole.run_epoch()]
    state = whole.state()
    expected = [*first, whole.run_epoch(), whole.run_epoch()]
    before, after = (
        new(model, **keys).restore(state).begin(view, y_RL),
        new(model, **keys).begin(view, y_RL).restore(state),
    )
    p_RL, (whole_arrays, _) = whole.predict(view), whole.state()
    for again in (before, after):
        assert [*first, again.run_epoch(), again.run_epoch()] == expected
        assert np.array_equal(again.predict(view), p_RL)
        assert all(np.array_equal(array, whole_arrays[name]) for name, array in again.state()[0].items())
    kept = new(model, **keys).restore(state).state()[0]
    assert all(np.array_equal(array, kept[name]) for name, array in state[0].items())


def test_weights_without_their_optimizer_predict_and_are_not_trained_on(generated_series) -> None:
    view, y_RL = generated_series(4)
    model = new("gru", epochs=2).begin(view, y_RL)
    assert new("gru", epochs=2).restore(model.weights()).begin(view, y_RL).run_epoch() == model.run_epoch()
    (whole, _), (arrays, values) = model.state(), model.weights()
    assert {name for name in whole if name not in arrays} == {name for name in whole if name.startswith("optimizer.")}
    assert sum(a.nbytes for a in arrays.values()) < 0.4 * sum(a.nbytes for a in whole.values())
    again = new("gru", epochs=2).restore((arrays, values)).begin(view, y_RL)
    assert np.array_equal(again.predict(view), model.predict(view))
    with pytest.raises(DataError, match="predict and cannot be trained on"):
        again.run_epoch()
    again.restore(model.state()).run_epoch()


def test_torch_has_one_thread_while_it_learns_and_predicts(generated_series, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    added = SequenceModel._added

    def noted(model: SequenceModel, *arguments: Any) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return added(model, *arguments)

    monkeypatch.setattr(SequenceModel, "_added", noted)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        view, y_RL = generated_series(4)
        fit(new("conv", epochs=1), view, y_RL).predict(view)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {1}


@pytest.mark.parametrize("model", SEQUENCES)
def test_a_restored_model_predicts_the_same_bits_without_labels(model: str, generated_series, fitted) -> None:
    view, _ = generated_series(8, seed=3)
    arrays, values = fitted(model).state()
    assert all(isinstance(array, np.ndarray) for array in arrays.values())
    again = create_series_model(fitted(model).recipe).restore((arrays, values))
    assert np.array_equal(again.predict(view), fitted(model).predict(view))


def test_equal_seeds_are_equal_bits_and_nobody_else_is_disturbed(generated_series) -> None:
    view, y_RL = generated_series(8)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = fit(new("gru", epochs=2), view, y_RL).predict(view)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    assert np.array_equal(first, fit(new("gru", epochs=2), view, y_RL).predict(view))
    assert not np.array_equal(first, fit(new("gru", epochs=2, seed=8), view, y_RL).predict(view))


@pytest.mark.parametrize("model", SEQUENCES)
def test_padding_changes_no_slice(model: str, generated_series, fitted) -> None:
    network, device = fitted(model)._network.eval(), fitted(model).device
    draw = torch.Generator().manual_seed(0)
    x_BTF = torch.randn(3, 9, network.enter.in_features, generator=draw).to(device)
    e_BTD = torch.randn(3, 9, 4, generator=draw).to(device)
    lengths_B = torch.tensor([4, 9, 1])
    padded = [torch.nn.functional.pad(values, (0, 0, 0, 5), value=7.0) for values in (x_BTF, e_BTD)]
    with torch.inference_mode():
        plain, wide = network(x_BTF, e_BTD, lengths_B), network(*padded, lengths_B)
        for series, length in enumerate(lengths_B):
            torch.testing.assert_close(
                wide[series, :length], plain[series, :length], rtol=0, atol=10 * rounding(device)
            )


@pytest.mark.parametrize("model", SEQUENCES)
def test_a_series_is_predicted_from_itself_alone(model: str, generated_series, fitted, monkeypatch) -> None:
    view, _ = generated_series(20, seed=4, lengths=(1, 30))
    together = fitted(model).predict(view)
    for series in (0, 7, 19):
        rows = view.series_R == series
        alone = fitted(model).predict(view.take(rows))
        np.testing.assert_allclose(alone, together[rows], atol=rounding(fitted(model).device))
    monkeypatch.setattr(sequences, "_PREDICTED", 3)
    np.testing.assert_allclose(fitted(model).predict(view), together, atol=rounding(fitted(model).device))


@pytest.mark.parametrize("model", SEQUENCES)
def test_both_ways_up_a_series_gets_the_same_predictions(model: str, generated_series, fitted) -> None:
    view, _ = generated_series(10, seed=5)
    flipped, rows = upside_down(view)
    np.testing.assert_allclose(
        fitted(model).predict(flipped), fitted(model).predict(view)[rows], atol=rounding(fitted(model).device)
    )


def test_without_tta_the_way_up_is_seen(generated_series) -> None:
    view, y_RL = generated_series(12)
    one_way = fit(new("gru", tta=False, reverse=0.0, epochs=2), view, y_RL)
    flipped, rows = upside_down(view)
    assert np.abs(one_way.predict(flipped) - one_way.predict(view)[rows]).max() > 1e-3


def test_tta_averages_log_odds(generated_series) -> None:
    view, y_RL = generated_series(12)
    one_way = fit(new("conv", tta=False, epochs=2), view, y_RL)
    both = new("conv", epochs=2).restore(one_way.state())
    flipped, rows = upside_down(view)
    there, back = to_logits(one_way.predict(view)), np.empty_like(view.p_MRL[0])
    back[rows] = to_logits(one_way.predict(flipped))
    np.testing.assert_allclose(to_logits(both.predict(view)), (there + back) / 2, atol=1e-5)


@pytest.mark.parametrize("model", SEQUENCES)
def test_hard_predictions_and_lone_slices_of_a_single_member_stay_finite(model: str, generated_series) -> None:
    view, y_RL = generated_series(12, n_members=1, lengths=(1, 3))
    hard = replace(view, p_MRL=np.round(view.p_MRL), z_mm_R=np.full(len(view), np.nan))
    p_RL = fit(new(model, epochs=2), hard, y_RL).predict(hard)
    assert p_RL.dtype == np.float64
    assert np.isfinite(p_RL).all()
    assert ((p_RL >= 0) & (p_RL <= 1)).all()


def test_metadata_only_knows_rates_and_what_metadata_tells(generated_series) -> None:
    view, y_RL = generated_series(40)
    view = replace(view, metadata_RC=view.metadata_RC.copy())
    view.metadata_RC[:, 0] = np.where(y_RL[:, 0] == 1, 3.0, 1.0)
    view.metadata_RC[::7, 1] = np.nan
    model = new("conv", metadata_only=True)
    start = model.begin(view, y_RL).predict(view)
    np.testing.assert_allclose(start, np.tile(y_RL.mean(axis=0), (len(view), 1)), atol=1e-12)
    learnt = fit(model, view, y_RL)
    p_RL = learnt.predict(view)
    assert p_RL[y_RL[:, 0] == 1, 0].mean() > 2 * p_RL[y_RL[:, 0] == 0, 0].mean()
    other_members = view.with_predictions(1.0 - view.p_MRL[:1])
    assert np.array_equal(learnt.predict(other_members), p_RL)


def test_what_the_recipe_leaves_out_has_no_effect(generated_series) -> None:
    view, y_RL = generated_series(8)
    model = fit(new("gru", epochs=1, spacing=False), view, y_RL)
    bare = replace(view, z_mm_R=view.z_mm_R[::-1], metadata_RC=view.metadata_RC * np.nan, e_RD=None)
    assert np.array_equal(model.predict(bare), model.predict(view))
    seeing = fit(new("gru", epochs=1, embeddings=4, metadata=True), view, y_RL)
    moved = seeing.predict(view)
    assert not np.array_equal(seeing.predict(replace(view, metadata_RC=view.metadata_RC + 1.0)), moved)
    assert not np.array_equal(seeing.predict(replace(view, z_mm_R=view.z_mm_R * 2.0)), moved)
    assert not np.array_equal(seeing.predict(replace(view, e_RD=view.e_RD[::-1])), moved)


def test_labels_that_weigh_nothing_are_not_learnt(generated_series) -> None:
    view, y_RL = generated_series(8)
    weighted = {"epochs": 2, "loss_weights": [0, 1, 1, 1, 1, 1]}
    other_RL = y_RL.copy()
    other_RL[:, 0] = 1.0 - other_RL[:, 0]
    first, second = (fit(new("conv", **weighted), view, labels).predict(view) for labels in (y_RL, other_RL))
    assert np.array_equal(first, second)


def test_the_loss_is_the_mean_over_slices(generated_series) -> None:
    """At the first step of the first epoch, and the only one, it is that of the equal mean."""
    view, y_RL = generated_series(8)
    model = new("gru", batch_size=8, subsample=0.0).begin(view, y_RL)
    assert model.run_epoch() == pytest.approx(weighted_log_loss(y_RL, equal_mean(view)), rel=1e-5)


def test_the_learning_rate_rises_and_falls_to_nothing() -> None:
    rates = [lr_at(2.0, done) for done in np.linspace(0.0, 1.0, 101)]
    peak = int(np.argmax(rates))
    assert rates[peak] == pytest.approx(2.0)
    assert peak == round(100 * WARM_UP)
    assert rates == [*sorted(rates[: peak + 1]), *sorted(rates[peak + 1 :], reverse=True)]
    assert rates[0] == 0.0
    assert rates[-1] == pytest.approx(0.0, abs=1e-12)


def test_no_slice_is_predicted_as_none(generated_series, fitted) -> None:
    view, _ = generated_series(3)
    assert fitted("gru").predict(view.take(np.array([], dtype=int))).shape == (0, 6)


def test_misuse_is_told(generated_series, fitted) -> None:
    view, y_RL = generated_series(4)
    with pytest.raises(DataError, match="call begin or restore"):
        new("gru").predict(view)
    with pytest.raises(DataError, match="call begin before run_epoch"):
        create_series_model(fitted("gru").recipe).restore(fitted("gru").state()).run_epoch()
    with pytest.raises(DataError, match="same members"):
        fitted("gru").predict(generated_series(4, n_members=3)[0])
    for bad in (y_RL[:-1], y_RL * np.nan, y_RL * 0.5):
        with pytest.raises(DataError, match="labels must be 0 or 1"):
            new("gru").begin(view, bad)


def test_a_state_of_another_model_is_refused(generated_series, fitted) -> None:
    arrays, values = fitted("gru").state()
    with pytest.raises(DataError, match="no state of a model 'conv'"):
        create_series_model(replace(fitted("gru").recipe, model="conv")).restore((arrays, values))
    with pytest.raises(DataError, match="no state of a model 'gru'"):
        new("gru").restore(({}, {}))
    broken = new("gru")
    with pytest.raises(DataError, match="no state"):
        broken.restore((arrays, {"n_optional": 2}))
    with pytest.raises(DataError, match="call begin or restore"):
        broken.predict(generated_series(2)[0])


def test_a_second_begin_starts_anew(generated_series) -> None:
    view, y_RL = generated_series(8)
    model = new("conv", epochs=2).begin(view, y_RL)
    model.run_epoch()
    half = model.state()
    model.run_epoch()
    first = model.predict(view)
    assert np.array_equal(fit(model, view, y_RL).predict(view), first)
    model.restore(half).begin(view, y_RL)
    assert np.array_equal(fit(model, view, y_RL).predict(view), first)
    assert model.epoch == 2
    model.restore(half).run_epoch()
    assert np.array_equal(fit(model, view, y_RL).predict(view), first)
    assert model.epoch == 2
