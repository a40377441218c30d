"""What every model of the second level offers, by the simplest that there could be."""

from typing import Self

import numpy as np

from ichtune.second_level.base import SeriesModel, State, fit, plain
from ichtune.second_level.views import SeriesView
from ichtune.second_level_recipe import SecondLevelRecipe


class Counting(SeriesModel):
    """Counts its epochs."""

    n_done = 0
    begun = 0

    def begin(self, view: SeriesView, y_RL: np.ndarray) -> Self:
        self.begun += 1
        return self

    def run_epoch(self) -> float:
        self.n_done += 1
        return float("nan")

    def predict(self, view: SeriesView) -> np.ndarray:
        return view.p_MRL[0]

    def state(self) -> State:
        return {}, {"n_done": self.n_done}

    def restore(self, state: State) -> Self:
        self.n_done = state[1]["n_done"]
        return self


def test_fitting_runs_every_epoch_once(generated_series) -> None:
    view, y_RL = generated_series(n_series=3)
    model = fit(Counting(SecondLevelRecipe(epochs=4)), view, y_RL)
    assert isinstance(model, Counting)
    assert (model.begun, model.n_done) == (1, 4)
    assert fit(Counting(SecondLevelRecipe(model="gaussian")), view, y_RL).state() == ({}, {"n_done": 1})


def test_numbers_of_numpy_become_plain_ones() -> None:
    told = plain({"a": np.float64(0.5), "b": np.int32(3), "c": "x", "d": None})
    assert told == {"a": 0.5, "b": 3, "c": "x", "d": None}
    assert [type(value) for value in told.values()] == [float, int, str, type(None)]
