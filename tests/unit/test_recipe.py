"""Recipe: identity, round trips, and one clear refusal for each thing that is no recipe."""

import dataclasses
import hashlib
import json
import math
from typing import Any

import pytest

from ichtune.errors import ConfigError
from ichtune.recipe import ID_DIGITS, Recipe, recipe_keys
from ichtune.windows import WINDOW_SETS, Window

#: For every field values that are not the default, each with what else it needs.
NEEDS: dict[str, dict[str, Any]] = {
    "neighbour_use": {"neighbours": 1},
    "channel_layout": {"neighbours": 1},
    "neighbour_side": {"neighbours": 2},
    "neighbour_stride": {"neighbours": 2},
    "calibration": {"negative_share": 0.7},
    "positive_weights": {"calibration": "prior_shift"},
    "negative_share": {"calibration": "prior_shift"},
}
OTHER: dict[str, Any] = {
    "architecture": "resnet34",
    "pooling": "gem",
    "dropout": 0.1,
    "any_rule": "max",
    "pretrained": True,
    "warm_start": "0123456789ab",
    "windows": "brain",
    "window_shape": "sigmoid",
    "learnable_windows": True,
    "window_jitter": 0.05,
    "image_px": 256,
    "crop": "head",
    "neighbours": 1,
    "neighbour_stride": 2,
    "neighbour_side": "below",
    "neighbour_use": "mean",
    "channel_layout": "paired",
    "normalisation": "imagenet",
    "loss": "focal",
    "loss_weights": (1, 1, 1, 1, 1, 1),
    "focal_gamma": 2.0,
    "label_smoothing": 0.05,
    "boundary_softness": 0.2,
    "neighbour_targets": 0.3,
    "positive_weights": (2, 1, 1, 1, 1, 1),
    "negative_share": 0.5,
    "slices_per_series": 4,
    "calibration": "prior_shift",
    "optimizer": "sgd",
    "lr": 2e-3,
    "weight_decay": 0.0,
    "momentum": 0.8,
    "beta1": 0.95,
    "beta2": 0.99,
    "eps": 1e-6,
    "layer_lr_decay": 0.8,
    "grad_clip": 1.0,
    "accumulation": 2,
    "batch_size": 32,
    "lr_schedule": "cosine",
    "anneal_start": 0.3,
    "warmup": 0.0,
    "cycles": 2,
    "cycle_decay": 0.5,
    "lr_decay": 0.1,
    "patience": 1,
    "epochs": 5,
    "frozen_epochs": 1,
    "frozen_lr": 1e-2,
    "augmentation": "affine",
    "flip": 0.0,
    "flip_vertical": 0.5,
    "flip_slices": 0.5,
    "transpose": 0.5,
    "rotate_deg": 30.0,
    "shift": 0.1,
    "zoom": 0.2,
    "geometry_share": 0.5,
    "cutout": 0.5,
    "cutout_holes": 8,
    "cutout_size": 0.3,
    "noise_hu": 5.0,
    "gain_jitter": 0.05,
    "mixup": 0.4,
    "cutmix": 1.0,
    "ema_decay": 0.99,
    "swa_start": 0.5,
    "snapshots": 2,
    "tta": "flip",
    "pseudo_labels": "0123456789ab",
    "pseudo_threshold": 0.5,
    "pseudo_weight": 0.5,
    "compile": True,
    "seed": 8,
}


def with_other(key: str) -> Recipe:
    return Recipe(**{key: OTHER[key]}, **NEEDS.get(key, {}))


def test_every_field_counts_in_the_identity() -> None:
    assert set(OTHER) == set(recipe_keys())
    recipes = [Recipe(), *(with_other(key) for key in OTHER)]
    assert len({recipe.recipe_id for recipe in recipes}) == len(recipes)
    assert len(set(recipes)) == len(recipes)


@pytest.mark.parametrize(
    "spelling",
    [
        {"windows": [[40, 80], [80, 200], [600, 2800]]},
        {"windows": [Window(40, 80), Window(80, 200), Window(600, 2800)]},
        {"loss_weights": [2, 1, 1, 1, 1, 1]},
        {"epochs": 4.0, "lr": 1e-3, "warmup": 0.05},
        {"ema_decay": -0.0, "dropout": 0},
    ],
)
def test_the_same_choice_spelt_otherwise_is_the_same_recipe(spelling: dict[str, Any]) -> None:
    assert Recipe(**spelling) == Recipe()
    assert Recipe(**spelling).recipe_id == Recipe().recipe_id


def test_the_id_is_short_hexadecimal_and_stays_from_release_to_release() -> None:
    assert len(Recipe().recipe_id) == ID_DIGITS
    assert int(Recipe().recipe_id, 16) >= 0
    assert Recipe().recipe_id == "44136fa355b3"
    assert Recipe(lr=2e-3, windows="brain").recipe_id == "fad8d4707f51"  # type: ignore[arg-type]


def test_the_defaults_stay_from_release_to_release() -> None:
    """A changed default would give old ids another meaning: raise no default, add a key."""
    text = json.dumps(Recipe().to_dict(), sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest()[:12] == "adacfedb24dc"


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("key", OTHER)
def test_plain_values_give_the_recipe_again(key: str) -> None:
    recipe = with_other(key)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_named_windows_are_written_by_name_and_others_in_full() -> None:
    assert Recipe(windows=WINDOW_SETS["brain"]).to_dict()["windows"] == "brain"
    assert Recipe(windows=((41, 80),)).to_dict()["windows"] == [[41.0, 80.0]]  # type: ignore[arg-type]


def test_channels_are_windows_times_slices() -> None:
    assert Recipe(windows="brain_subdural_bone", neighbours=2).n_channels == 15  # type: ignore[arg-type]


def test_the_summary_tells_recipes_apart() -> None:
    recipe = Recipe(architecture="resnet34", windows="brain", neighbours=1, lr=3e-4)  # type: ignore[arg-type]
    assert recipe.summary == "resnet34|brain|±1|224px|lr=3.0e-04"
    assert "±" not in Recipe().summary
    assert "none" not in Recipe().summary
    assert Recipe(crop="head").summary == Recipe().summary.replace("224px", "224px head")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("lr", "1e-3", "must be a number, got '1e-3'"),
        ("lr", True, "must be a number, got True"),
        ("lr", 0, "between 1e-08 and 100, got 0"),
        ("lr", math.nan, "must be a number, got nan"),
        ("lr", math.inf, "between 1e-08 and 100, got inf"),
        ("lr", 10**400, "between 1e-08 and 100"),
        ("epochs", 2.5, "must be a whole number, got 2.5"),
        ("epochs", 0, "at least 1, got 0"),
        ("epochs", math.inf, "must be a whole number, got inf"),
        ("epochs", 10**400, "at least 1"),
        ("image_px", 8, "between 16 and 2048, got 8"),
        ("neighbours", -1, "between 0 and 8, got -1"),
        ("architecture", None, "must be a name, got None"),
        ("crop", None, "must be a name, got None"),
        ("crop", "heads", "must be one of none, head, tight, got 'heads'. Did you mean 'head'"),
        ("pretrained", 1, "must be true, false or a path, got 1"),
        ("loss_weights", [1, 1, 1], "6 numbers of at least 0"),
        ("loss_weights", [0] * 6, "6 numbers of at least 0"),
        ("loss_weights", [1, 1, 1, 1, 1, -1], "6 numbers of at least 0"),
        ("loss_weights", [1, 1, 1, 1, 1, math.nan], "6 numbers of at least 0"),
        ("loss_weights", "211111", "6 numbers of at least 0"),
        ("loss_weights", [True] * 6, "6 numbers of at least 0"),
        ("loss_weights", 7, "6 numbers of at least 0"),
        ("windows", "brian", "Did you mean 'brain'"),
        ("windows", ["dicm"], r"a window must be \[centre, width\]"),
        ("pooling", "avg", "must be one of default, average"),
        ("learnable_windows", 1, "must be true or false, got 1"),
        ("positive_weights", [2, 1, 1, 1, 1, 1], "shifts every probability"),
        ("negative_share", 0.5, "name what undoes it: calibration: prior_shift"),
        ("positive_weights", [0, 1, 1, 1, 1, 1], "must be above 0"),
        ("windows", [[40, 1e-9]], "window width must be a positive number of HU"),
        ("windows", [[1e9, 80]], "centre"),
        ("frozen_epochs", 4, "must be less than 'epochs'"),
        ("snapshots", 5, "must not exceed 'epochs', got 5 of 4"),
        ("channel_layout", "paired", "needs a window for each slice, got 3 windows and 1 slices"),
        ("neighbour_use", "mean", "needs 'neighbours' of at least 1"),
        ("augmentation", [], "must be a policy's name or a list of albumentations"),
        ("augmentation", [{"Affine": {}, "Blur": {}}], "must be a policy's name or a list"),
        ("augmentation", "[not json", "is no JSON list"),
        ("anneal_start", 0.01, "must not lie before the end of 'warmup'"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_its_key(key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Recipe(**{key: value})
    assert key in str(caught.value) or key == "windows"


def test_an_unknown_key_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown recipe key 'learning_rate'"):
        Recipe.from_dict({"learning_rate": 1})
    with pytest.raises(ConfigError, match=r"unknown recipe key 'image_size'. Did you mean 'image_px'"):
        Recipe.from_dict({"image_size": 224})


def test_two_answers_to_one_question_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"ema_decay and swa_start both say which weights predict"):
        Recipe(ema_decay=0.9, swa_start=0.5)
    with pytest.raises(ConfigError, match=r"both say what to start from"):
        Recipe(warm_start="0123456789ab", pretrained=True)


@pytest.mark.parametrize(
    ("keys", "offsets", "n_channels"),
    [
        ({}, (0,), 3),
        ({"neighbours": 1}, (-1, 0, 1), 9),
        ({"neighbours": 2}, (-2, -1, 0, 1, 2), 15),
        ({"neighbours": 1, "neighbour_stride": 2}, (-2, 0, 2), 9),
        ({"neighbours": 2, "neighbour_side": "below"}, (-2, -1, 0), 9),
        ({"neighbours": 2, "neighbour_side": "above"}, (0, 1, 2), 9),
        ({"neighbours": 3, "neighbour_use": "mean"}, (-3, -2, -1, 0, 1, 2, 3), 3),
        ({"neighbours": 3, "neighbour_use": "slice_and_mean"}, (-3, -2, -1, 0, 1, 2, 3), 6),
        ({"neighbours": 1, "channel_layout": "paired"}, (-1, 0, 1), 3),
    ],
)
def test_what_is_seen_and_in_how_many_channels(keys: dict[str, Any], offsets: tuple[int, ...], n_channels: int) -> None:
    assert Recipe(**keys).offsets == offsets
    assert Recipe(**keys).n_channels == n_channels


def test_the_file_s_own_window_is_no_other_window_and_keeps_its_name() -> None:
    own = Recipe(windows="dicom")  # type: ignore[arg-type]
    assert own != Recipe(windows="brain")  # type: ignore[arg-type]
    assert own.to_dict()["windows"] == "dicom"
    mixed = Recipe(windows=["dicom", [80, 200]])  # type: ignore[arg-type]
    assert mixed.to_dict()["windows"] == ["dicom", [80.0, 200.0]]
    assert "dicom+80/200" in mixed.summary


def test_transforms_written_in_full_are_one_recipe_whatever_the_order_of_their_parameters() -> None:
    one = Recipe(augmentation=[{"Affine": {"p": 0.5, "rotate": [-20, 20]}}])  # type: ignore[arg-type]
    other = Recipe(augmentation=[{"Affine": {"rotate": [-20, 20], "p": 0.5}}])  # type: ignore[arg-type]
    assert one == other
    assert one.to_dict()["augmentation"] == [{"Affine": {"p": 0.5, "rotate": [-20, 20]}}]
    assert one.recipe_id != Recipe(augmentation=[{"Affine": {"p": 0.5}}]).recipe_id  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"negative_share": 0.5, "pseudo_labels": "0123456789ab"}, "'negative_share' and 'pseudo_labels' together"),
        ({"negative_share": 0.5, "slices_per_series": 4}, "'negative_share' and 'slices_per_series' together"),
        ({"positive_weights": [2] * 6, "any_rule": "max"}, "'positive_weights' and 'any_rule' together"),
        ({"positive_weights": [2] * 6, "loss": "focal"}, "is undone exactly for loss: bce only, got loss: focal"),
        ({"negative_share": 0.5, "loss": "focal"}, "is undone exactly for loss: bce only"),
    ],
)
def test_shifts_that_nothing_undoes_exactly_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recipe(**keys, calibration="prior_shift")


def test_a_key_that_another_makes_idle_gives_no_second_id_to_one_run() -> None:
    assert Recipe(calibration="prior_shift") == Recipe()
    assert Recipe(neighbour_side="below", neighbour_stride=3).recipe_id == Recipe().recipe_id
    assert Recipe(neighbour_side="below", neighbours=1) != Recipe(neighbours=1)


def test_only_a_schedule_that_anneals_asks_when() -> None:
    assert Recipe(lr_schedule="one_cycle", warmup=0.8).warmup == 0.8
