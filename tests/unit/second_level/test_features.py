from collections import Counter
from dataclasses import replace

import numpy as np

from ichtune.ensemble.blenders.logits import to_logits
from ichtune.labels import N_LABELS
from ichtune.second_level.features import FeatureTable, digest_of, features_of
from ichtune.second_level_recipe import SecondLevelRecipe

RECIPE = SecondLevelRecipe(model="hist_gradient_boosting", neighbours=4)


def kinds(recipe, n_members=2, label=0):
    return Counter((feature.source, feature.kind) for feature in features_of(recipe, n_members, label))


def test_each_switch_of_the_recipe_turns_on_what_it_names() -> None:
    plain = replace(RECIPE, aggregates=False, spacing=False)
    bare = kinds(plain)
    assert set(kind for _, kind in bare) == {"value", "difference"}
    assert {kind for _, kind in kinds(replace(plain, spacing=True)) - bare} == {"slices", "spacing_mm", "extent_mm"}
    assert {kind for _, kind in kinds(replace(plain, metadata=True)) - bare} == {"acquired"}
    assert {kind for _, kind in kinds(replace(plain, aggregates=True)) - bare} == {
        *("rank", "rolling", "exponential", "series", "peak")
    }


def test_neighbours_are_looked_at_as_far_as_the_recipe_says() -> None:
    widths = [f.width for f in features_of(RECIPE, 1, 3) if (f.kind, f.label) == ("value", 3)]
    assert sorted(widths) == list(range(-4, 5))
    alone = features_of(replace(RECIPE, neighbours=0), 1, 3)
    assert {f.width for f in alone if f.kind in ("value", "difference")} == {0}
    assert {f.label for f in alone if f.kind == "value"} == set(range(N_LABELS))


def test_a_single_member_is_its_own_mean_and_has_no_spread() -> None:
    assert {source for source, _ in kinds(RECIPE, n_members=1)} == {"mean", "place"}
    assert kinds(RECIPE, n_members=3)["member", "value"] == 3 * 5
    assert kinds(RECIPE, n_members=3)["spread", "value"] == 1


def test_metadata_only_sees_no_prediction_and_no_place() -> None:
    assert set(kinds(replace(RECIPE, metadata_only=True))) == {("metadata", "acquired")}


def test_names_say_what_a_feature_is() -> None:
    names = {feature.name for feature in features_of(RECIPE, 2, 0)}
    assert {"mean any value +0", "mean any value -4", "member 1 any value +2", "mean any rolling std 17"} <= names
    assert {"mean subdural series max", "place slices relative", "mean any exponential above 4"} <= names


def test_the_digest_changes_with_the_features_and_their_order() -> None:
    features = features_of(RECIPE, 2, 0)
    assert digest_of(features) == digest_of(features_of(RECIPE, 2, 0))
    others = (features_of(RECIPE, 2, 1), features_of(RECIPE, 3, 0), features[::-1], features[1:])
    assert len({digest_of(features), *map(digest_of, others)}) == 5


def test_the_matrix_has_a_column_a_feature_and_takes_hard_predictions(generated_series) -> None:
    view, _ = generated_series(n_series=5)
    hard = view.with_predictions((view.p_MRL > 0.5).astype(float))
    features = features_of(RECIPE, 2, 1)
    x_RF = FeatureTable(hard).matrix(features)
    assert x_RF.shape == (len(view), len(features))
    assert x_RF.dtype == np.float32
    assert not np.isinf(x_RF).any()
    own = [f.name for f in features].index("mean epidural value +0")
    np.testing.assert_allclose(x_RF[:, own], to_logits(hard.p_MRL)[:, :, 1].mean(axis=0), rtol=1e-6)
