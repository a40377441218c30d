"""StackedModels: the fold models of one second level on new slices, which see what the networks say of them.

Dimension key: K fold models of the second level, F of the first, M members, T slices, L labels, N networks of a fold,
D embedding, C components.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ichtune.ensemble.blenders.equal_mean_logit import mean_of_logits
from ichtune.errors import ConfigError, DataError
from ichtune.labels import N_LABELS
from ichtune.second_level.base import SeriesModel
from ichtune.second_level.embedding_space import EmbeddingSpace
from ichtune.second_level.models import create_series_model
from ichtune.second_level.state_file import load_state, part
from ichtune.second_level.views import in_series_order, view_of
from ichtune.second_level_recipe import SecondLevelRecipe
from ichtune.training.embeddings import as_kept


@dataclass(frozen=True)
class StackedFold:
    """What one fold of a second level left.

    Attributes:
        model: the fitted model.
        members: recipe_ids of the runs whose predictions it takes, in this order.
        spaces: what brings the embeddings of a member's fold networks into one system, by recipe_id, in the order in
            which the model takes them.
    """

    model: SeriesModel
    members: tuple[str, ...]
    spaces: Mapping[str, EmbeddingSpace]


def load_stacked_fold(path: Path) -> StackedFold:
    """Load the model of one fold, and what its inputs pass through.

    Raises:
        DataError: no such file, or not the weights of a second level.
    """
    arrays, about = load_state(path, "weights")
    try:
        recipe = SecondLevelRecipe.from_dict(about["recipe"])
        members = tuple(str(member) for member in about["members"])
        embedded = [str(member) for member in about["embedded"]]
        values = dict(about["model"])
    except (LookupError, TypeError, ValueError, ConfigError) as error:
        raise DataError(f"{path} does not say what it learnt from ({error!r}); run `ichtune stack` again") from error
    model = create_series_model(recipe).restore((part(arrays, "model"), values))
    spaces = [EmbeddingSpace.from_arrays(part(arrays, f"embeddings{place}")) for place in range(len(embedded))]
    return StackedFold(model, members, dict(zip(embedded, spaces, strict=True)))


class StackedModels:
    """The fold models of one second level, and the embeddings that they are given bit by bit.

    Args:
        name: of the recipe, for messages.
        paths: weights of the K fold models.

    Raises:
        DataError: see ``load_stacked_fold``; or models that take different members.
    """

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        self.name = name
        self._folds = [load_stacked_fold(path) for path in paths]
        self.members = self._folds[0].members
        #: Members whose networks' embeddings are wanted.
        self.embedded = tuple(self._folds[0].spaces)
        if any((one.members, tuple(one.spaces)) != (self.members, self.embedded) for one in self._folds):
            raise DataError(f"fold models of {name} learnt from different runs; run `ichtune stack` again")
        self._components: dict[tuple[int, int, str], np.ndarray] = {}

    def take(self, recipe_id: str, fold: int, e_NTD: np.ndarray) -> None:
        """Keep the components of what one fold's networks of a member embedded.

        Raises:
            DataError: other networks than those that were learnt from.
        """
        for k, one in enumerate(self._folds):
            self._components[k, fold, recipe_id] = one.spaces[recipe_id].project(fold, as_kept(e_NTD))

    def predict(self, slices: pd.DataFrame, p_of: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the mean over all fold models, of both levels, in log odds: float64 (T, L).

        Each network's predictions are taken by themselves, as the out-of-fold ones that were learnt from are those of
        single networks; see ``SecondLevelRun.predict_test``.

        Args:
            slices: T rows of a SliceTable, of whole series.
            p_of: what each member's fold models predict of them (F, T, L), by recipe_id.
        """
        order = in_series_order(slices)
        p_FMTL = np.stack([p_of[recipe_id][:, order] for recipe_id in self.members], axis=1)
        view = view_of(slices.iloc[order], p_FMTL[0])
        p_TL = np.empty((len(order), N_LABELS))
        p_TL[order] = mean_of_logits(
            np.stack(
                [
                    mean_of_logits(
                        np.stack(
                            [
                                one.model.predict(view.with_predictions(p_MTL, self._seen(k, fold, order)))
                                for fold, p_MTL in enumerate(p_FMTL)
                            ]
                        )
                    )
                    for k, one in enumerate(self._folds)
                ]
            )
        )
        return p_TL

    def _seen(self, k: int, fold: int, order: np.ndarray) -> np.ndarray | None:
        """The members' components side by side, float32 (T, C); None where none are asked for."""
        if not self.embedded:
            return None
        return np.concatenate([self._components[k, fold, recipe_id][order] for recipe_id in self.embedded], axis=1)
