"""Blends of a whole workspace where there is nothing to learn: none may look better than the label rates alone.

Labels are shuffled between patients, or members are noise. A blend that gained there would gain by looking at what it
is scored on. That sees gross leaks; what sees every leak is that labels of a fold change no bit of its predictions.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ichtune.data.folds import FoldPlan, make_folds, write_folds
from ichtune.ensemble import blend
from ichtune.ensemble.blend import BlendResult, run_blend
from ichtune.ensemble.blenders.logits import from_logits
from ichtune.ensemble.blenders.table import BLENDERS
from ichtune.ensemble.fitting import fit_blend
from ichtune.ensemble.ladder import BEST_SINGLE, BLEND, PRIOR, WITHOUT_SECOND_LEVEL, Rung, ladder_rows
from ichtune.ensemble.spec import BlendSpec, read_spec
from ichtune.labels import LABELS, N_LABELS, SUBTYPES
from ichtune.tables import P_COLUMNS, PREDICTIONS, SLICES, read_table, write_json, write_table
from ichtune.workspace import Workspace

pytestmark = pytest.mark.slow  # some hundred blends, with the blender that fits all others among them

ROOT = Path(__file__).parents[2]
N_PATIENTS, N_TEST_PATIENTS, N_SLICES, N_FOLDS = 36, 6, 6, 3
N_PERMUTATIONS = 4
#: They say how members weigh, whatever the labels say: copies count for them, so a panel collapses copies first.
PLAIN_MEANS = {"equal_mean", "equal_mean_logit", "power_mean", "rank_mean"}
SPECS = {name: BlendSpec(blender=name) for name in BLENDERS if name != "auto"}  # which auto.yaml names
SPECS["overfitting"] = BlendSpec(blender="logistic_stacking", parameters={"l2": 1e-7}, post_processing="none")
SPECS |= {path.stem + ".yaml": read_spec(path) for path in sorted((ROOT / "ensembles").glob("*.yaml"))}
#: What is blended whole, with every rung; each blender alone is tried in tests/unit/ensemble/test_fitting.py.
WHOLE = {name: spec for name, spec in SPECS.items() if name.endswith(".yaml")} | {"overfitting": SPECS["overfitting"]}
WHOLE["top"] = BlendSpec(members={"top": 1}, blender="convex", post_processing="none")
LEARN_NOTHING = {"mean.yaml", "rsna.yaml"}


@dataclass
class Prepared:
    """A workspace without runs: its slices, the truth of each, and the folds."""

    root: Path
    slices: pd.DataFrame
    latent_NL: np.ndarray
    plan: FoldPlan

    def add_run(self, recipe_id: str, z_NL: np.ndarray, level: int = 2) -> None:
        """Write predictions of every slice; the test ones once for each fold model.

        Most runs are of the second level: rsna.yaml asks for it, and all others treat it as the first.
        """
        is_test = ~self.slices["is_labelled"].to_numpy()
        fold_N = self.plan.folds_for(self.slices["patient_id"])
        folder = self.root / "runs" / recipe_id
        inputs = {"fold_plan_hash": self.plan.plan_hash, "recipe_id": recipe_id}
        frame = pd.DataFrame(from_logits(z_NL), columns=list(P_COLUMNS))
        frame = frame.assign(recipe_id=recipe_id, fold=fold_N, image_id=self.slices["image_id"].to_numpy(object))
        write_table(frame[~is_test], folder / "oof.parquet", PREDICTIONS, inputs)
        tests = [frame[is_test].assign(fold=fold) for fold in range(N_FOLDS)]
        write_table(pd.concat(tests, ignore_index=True), folder / "test.parquet", PREDICTIONS, inputs)
        recipe = {"level": 2} if level == 2 else {}
        write_json({"recipe": recipe, "summary": recipe_id}, folder / "recipe.json")

    def turn_labels_round(self, fold: int) -> None:
        """Make every type of a fold's slices what it was not."""
        table = self.slices.copy()
        is_turned = (self.plan.folds_for(table["patient_id"]) == fold) & table["is_labelled"].to_numpy()
        table.loc[is_turned, list(SUBTYPES)] = 1.0 - table.loc[is_turned, list(SUBTYPES)]
        table.loc[is_turned, "any"] = table.loc[is_turned, list(SUBTYPES)].max(axis=1)
        write_table(table, self.root / "slices.parquet", SLICES)

    def blend(self, spec: BlendSpec) -> BlendResult:
        return run_blend(Workspace(self.root), spec)


def prepare(root: Path, seed: int, *, shuffled: bool) -> Prepared:
    """Write a workspace; ``shuffled`` deals the labels of whole patients to other patients."""
    rng = np.random.default_rng(seed)
    n_all = N_PATIENTS + N_TEST_PATIENTS
    patient_N = np.repeat([f"{'P' if i < N_PATIENTS else 'Q'}{i:03d}" for i in range(n_all)], N_SLICES)
    latent_NL = 1.5 * np.repeat(rng.standard_normal((n_all, N_LABELS)), N_SLICES, axis=0) - 1.5
    latent_NL += rng.standard_normal(latent_NL.shape)
    y_NL = (rng.random(latent_NL.shape) < from_logits(latent_NL)).astype(float)
    y_NL[:, 0], latent_NL[:, 0] = y_NL[:, 1:].max(axis=1), latent_NL[:, 1:].max(axis=1)
    if shuffled:
        of_patient = np.concatenate([rng.permutation(N_PATIENTS), np.arange(N_PATIENTS, n_all)])
        y_NL = y_NL.reshape(n_all, N_SLICES, N_LABELS)[of_patient].reshape(-1, N_LABELS)
    is_test = np.char.startswith(patient_N, "Q")
    kinds = {column: "" if dtype == "string" else 0 for column, dtype in SLICES.columns.items()}
    slices = pd.DataFrame({column: [value] * len(patient_N) for column, value in kinds.items()})
    slices["image_id"] = [f"ID_{i:05d}" for i in range(len(slices))]
    slices["patient_id"] = slices["series_instance_uid"] = patient_N
    slices["slice_rank"] = np.tile(np.arange(N_SLICES), n_all)
    slices["frame_number"] = slices["n_at_position"] = 1
    slices["is_labelled"], slices["status"] = ~is_test, "ok"
    slices[list(LABELS)] = np.where(is_test[:, None], np.nan, y_NL)
    write_table(slices, root / "slices.parquet", SLICES)
    plan = make_folds(pd.read_parquet(root / "slices.parquet"), N_FOLDS, seed)
    write_folds(plan, root / "folds.parquet")
    about = {"fold_plan_hash": plan.plan_hash, "k": N_FOLDS, "seed": seed, "cache_id": None, "generated": True}
    (root / "workspace.json").write_text(json.dumps(about), encoding="utf-8")
    return Prepared(root, slices, latent_NL, plan)


def good_members(prepared: Prepared, seed: int) -> None:
    """Models that know the truth that the labels once told."""
    rng = np.random.default_rng(seed)
    for m, noise in enumerate((0.5, 0.8, 1.1, 1.4)):
        z_NL = prepared.latent_NL + noise * rng.standard_normal(prepared.latent_NL.shape)
        prepared.add_run(f"r{m}", z_NL)


def noise_members(prepared: Prepared, seed: int, n_members: int = 8) -> None:
    rng = np.random.default_rng(seed)
    for m in range(n_members):
        prepared.add_run(f"r{m}", -1.5 + rng.standard_normal(prepared.latent_NL.shape))


def several(folder: Path, shuffled: bool, members: Callable[[Prepared, int], None]) -> list[Prepared]:
    made = []
    for seed in range(N_PERMUTATIONS):
        made.append(prepare(folder / str(seed), seed, shuffled=shuffled))
        members(made[-1], seed)
    return made


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory: pytest.TempPathFactory) -> list[Prepared]:
    return several(tmp_path_factory.mktemp("shuffled"), True, good_members)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> list[Prepared]:
    return several(tmp_path_factory.mktemp("noisy"), False, noise_members)


@pytest.fixture(scope="module")
def with_a_copy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, Prepared]:
    """The same workspace twice, the second with a copy of one of its runs."""
    pair = []
    for name in ("plain", "copied"):
        pair.append(prepare(tmp_path_factory.mktemp(name), 1, shuffled=False))
        good_members(pair[-1], 1)
    z_NL = pair[1].latent_NL + 0.5 * np.random.default_rng(1).standard_normal(pair[1].latent_NL.shape)
    pair[1].add_run("r9", z_NL)  # what r0 was given
    return pair[0], pair[1]


def behind_prior(results: list[BlendResult], column: str) -> np.ndarray:
    """Loss of each blend minus that of the label rates; above 0 it is worse."""
    rungs = [{row["name"]: row[column] for row in result.ladder} for result in results]
    return np.array([losses[BLEND] - losses[PRIOR] for losses in rungs])


def assert_no_better_than_the_prior(results: list[BlendResult]) -> None:
    behind = behind_prior(results, "crossfit_loss")
    error = behind.std(ddof=1) / np.sqrt(len(behind))
    assert behind.mean() > -2.5 * error - 1e-4, f"gains {-behind.mean():.4f} nats where there is nothing to gain"


@pytest.mark.parametrize("name", SPECS)
def test_with_shuffled_labels_no_blend_beats_the_label_rates(name, shuffled):
    assert_no_better_than_the_prior([prepared.blend(SPECS[name]) for prepared in shuffled])


@pytest.mark.parametrize("name", SPECS)
def test_of_noise_no_blend_beats_the_label_rates(name, noisy):
    results = [prepared.blend(SPECS[name]) for prepared in noisy]
    assert_no_better_than_the_prior(results)
    if name == "overfitting":
        assert (behind_prior(results, "oof_loss") < 0).all(), "in sample it looks better, which is what the rest is for"
        assert (behind_prior(results, "crossfit_loss") > 0).all()


def moved_by_labels_of_fold_0(
    prepared: Prepared, spec: BlendSpec, monkeypatch: pytest.MonkeyPatch
) -> dict[str, set[int]]:
    """Turn the labels of fold 0 round: the folds of which a cross-fitted prediction changes, for each rung."""
    outcomes = []
    for turned in (False, True):
        if turned:
            prepared.turn_labels_round(0)
        rungs: list[Rung] = []
        monkeypatch.setattr(
            blend, "ladder_rows", lambda panel, made, kept=rungs: kept.extend(made) or ladder_rows(panel, made)
        )
        result = prepared.blend(spec)
        written = read_table(prepared.root / "blends" / result.blend_id / "oof.parquet", PREDICTIONS)
        written = written.set_index("image_id").loc[result.panel.image_ids, list(P_COLUMNS)].to_numpy()
        p_NL = {rung.name: rung.p_crossfit_NL for rung in rungs} | {"result": result.p_crossfit_NL, "written": written}
        outcomes.append((p_NL, result.panel.fold_N))
    (one, fold_N), (other, _) = outcomes
    return {name: {int(fold) for fold in fold_N[(one[name] != other[name]).any(axis=1)]} for name in one}


@pytest.fixture
def of_two_levels(tmp_path: Path) -> Prepared:
    prepared = prepare(tmp_path, 2, shuffled=False)
    good_members(prepared, 2)
    for m, noise in enumerate((0.7, 1.0, 1.3)):
        z_NL = prepared.latent_NL + noise * np.random.default_rng(m).standard_normal(prepared.latent_NL.shape)
        prepared.add_run(f"f{m}", z_NL, level=1)
    for level in (1, 2):  # each the best of its level where labels are turned round
        doubtful_NL = 0.01 * np.random.default_rng(level).standard_normal(prepared.latent_NL.shape)
        prepared.add_run(f"doubtful{level}", doubtful_NL, level)
    return prepared


@pytest.mark.parametrize("name", WHOLE)
def test_labels_of_a_fold_change_no_bit_of_what_any_rung_predicts_for_it(name, of_two_levels, monkeypatch):
    """One bit would do to tell that something was chosen, fitted or post-processed by what it is scored on."""
    moved = moved_by_labels_of_fold_0(of_two_levels, WHOLE[name], monkeypatch)
    assert not [rung for rung, folds in moved.items() if 0 in folds]
    assert moved[PRIOR] == moved[BEST_SINGLE] == {1, 2}, "others do learn from them"
    if name not in LEARN_NOTHING:
        assert moved[BLEND] == moved["result"] == moved["written"] == moved[WITHOUT_SECOND_LEVEL] == {1, 2}


def test_a_blend_fitted_on_what_it_is_scored_on_is_found_out(of_two_levels, monkeypatch):
    def in_sample(spec, p_MNL, y_NL, _, patient_N):
        fitted = fit_blend(spec, p_MNL, y_NL, patient_N)
        return fitted.blend(p_MNL), fitted.predict_set(p_MNL)

    monkeypatch.setattr(blend, "crossfit_stages", in_sample)
    moved = moved_by_labels_of_fold_0(of_two_levels, BlendSpec(blender="convex"), monkeypatch)
    assert {rung for rung, folds in moved.items() if 0 in folds} == {BLEND, "result", "written"}


def test_with_the_right_labels_a_blend_does_beat_the_label_rates(with_a_copy):
    """Else the tests above would pass for a blend that cannot learn."""
    assert behind_prior([with_a_copy[0].blend(BlendSpec())], "crossfit_loss")[0] < -0.05


@pytest.mark.parametrize("name", SPECS)
def test_a_copy_of_a_run_changes_nothing(name, with_a_copy):
    plain, copied = (prepared.blend(SPECS[name]) for prepared in with_a_copy)
    assert copied.panel.collapsed == {"r9": "r0"}
    np.testing.assert_allclose(copied.p_crossfit_NL, plain.p_crossfit_NL, rtol=0, atol=1e-6)
    np.testing.assert_allclose(copied.p_test_TL, plain.p_test_TL, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", sorted(BLENDERS.keys() - PLAIN_MEANS))
def test_a_blender_given_a_copy_that_nobody_collapsed_predicts_the_same(name, with_a_copy):
    panel = with_a_copy[0].blend(BlendSpec(blender="equal_mean")).panel
    p_MNL, fit_on = panel.p_MNL, (panel.y_NL, None, panel.patient_N)
    doubled = p_MNL[[0, 1, 0, 2, 3]]
    one = BLENDERS[name]().fit(p_MNL, *fit_on).predict(p_MNL)
    two = BLENDERS[name]().fit(doubled, *fit_on).predict(doubled)
    np.testing.assert_allclose(two, one, rtol=0, atol=1e-6)
