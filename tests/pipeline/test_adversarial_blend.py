"""What must not fool `ichtune blend`, through the files of a workspace and the command: noise, leaks, order, copies.

Every shipped ensemble file and every blender takes part. Predictions are generated; nothing is trained.

Dimension key: M members, N slices, L labels.
"""

import io
import json
import shutil
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ichtune.cli.main import main
from ichtune.data.folds import FoldPlan, make_folds, write_folds
from ichtune.ensemble.blenders.logits import from_logits, to_logits
from ichtune.ensemble.blenders.table import BLENDERS
from ichtune.labels import LABELS, N_LABELS
from ichtune.shipped import shipped_files
from ichtune.tables import P_COLUMNS, PREDICTIONS, SLICES, read_table, write_json, write_parquet, write_table

pytestmark = pytest.mark.slow  # some hundred whole blends

COLUMNS = list(P_COLUMNS)
FILES = tuple(shipped_files("ensembles"))
#: Ensemble files: the shipped ones by name, the others by their text.
SPECS = dict.fromkeys(FILES, "") | {
    f"{name} alone": f"blender: {name}" for name in sorted(BLENDERS.keys() - set(FILES))
}
SPECS["per label"] = "blender: convex\nparameters: {weights: per_label}"
SPECS["in probability"] = "blender: convex\nparameters: {space: probability}"
SPECS["overfitting"] = "blender: logistic_stacking\nparameters: {l2: 1.0e-7}\npost_processing: none"
#: What looks better in sample than the prior: of noise far from the rates what learns a bias, of noise about them what
#: learns weights.
IN_SAMPLE = {"far": ("logit_scaling alone", "logistic_stacking alone", "overfitting")}
IN_SAMPLE["about"] = ("greedy", "convex alone", "in probability", "per label", "nnls alone", "overfitting")
TRIED = [("far", spec) for spec in ("auto", "demo", *IN_SAMPLE["far"])] + [("about", spec) for spec in SPECS]
#: Log odds of the labels' rates, before `any` is made of the others.
CENTRE_L = np.array([-2.0, -4.5, -2.5, -2.8, -2.4, -2.2])
SEEDS = (0, 1, 2)


@dataclass
class Made:
    """A workspace with slices, truth and folds, to which runs are added; patients ``Q...`` have no labels."""

    root: Path
    slices: pd.DataFrame
    z_NL: np.ndarray
    plan: FoldPlan

    @property
    def is_test(self) -> np.ndarray:
        return ~self.slices["is_labelled"].to_numpy()

    @property
    def labels(self) -> np.ndarray:
        return self.slices.loc[~self.is_test, list(LABELS)].to_numpy(np.float64)

    def tables(self, recipe_id: str, p_NL: np.ndarray) -> dict[str, pd.DataFrame]:
        """Return out-of-fold and test predictions; fold models differ a little."""
        frame = pd.DataFrame(p_NL, columns=COLUMNS).assign(recipe_id=recipe_id, image_id=self.slices["image_id"])
        oof, test = frame[~self.is_test], frame[self.is_test]
        folds = self.plan.folds_for(self.slices.loc[~self.is_test, "patient_id"])
        tests = [test.assign(fold=fold, p_any=test["p_any"] * (1 - 0.01 * fold)) for fold in range(self.plan.k)]
        return {"oof": oof.assign(fold=folds), "test": pd.concat(tests, ignore_index=True)}

    def write(self, recipe_id: str, tables: dict[str, pd.DataFrame]) -> None:
        folder = self.root / "runs" / recipe_id
        inputs = {"fold_plan_hash": self.plan.plan_hash, "recipe_id": recipe_id}
        for kind, frame in tables.items():  # as it is: what is wrong has to be seen by the reader
            frame = frame[list(PREDICTIONS.columns)].astype(dict(PREDICTIONS.columns))
            write_parquet(pa.Table.from_pandas(frame, preserve_index=False), folder / f"{kind}.parquet", inputs)
        # of the second level, which rsna.yaml asks for; it makes no difference to the others
        write_json({"recipe": {"level": 2}, "summary": f"net {recipe_id}"}, folder / "recipe.json")

    def add(self, recipe_id: str, p_NL: np.ndarray) -> None:
        self.write(recipe_id, self.tables(recipe_id, p_NL))


@dataclass(frozen=True)
class Outcome:
    """What the command left: its notes, blend.json, the cross-fitted predictions and the submission."""

    stderr: str
    about: dict
    oof: pd.DataFrame
    submission: pd.DataFrame


def prepare(root: Path, seed: int, n_patients: int = 40, n_slices: int = 6, k: int = 3) -> Made:
    """Write slices, labels that a patient's slices share in part, and folds; a tenth more patients have no labels."""
    rng = np.random.default_rng(seed)
    n_all = n_patients + max(4, n_patients // 10)
    z_NL = CENTRE_L + 1.5 * np.repeat(rng.standard_normal((n_all, N_LABELS)), n_slices, axis=0)
    z_NL += 1.5 * rng.standard_normal(z_NL.shape)
    y_NL = (rng.random(z_NL.shape) < from_logits(z_NL)).astype(float)
    y_NL[:, 0], z_NL[:, 0] = y_NL[:, 1:].max(axis=1), z_NL[:, 1:].max(axis=1)
    patient_N = np.repeat([f"{'P' if i < n_patients else 'Q'}{i:04d}" for i in range(n_all)], n_slices)
    is_test = np.char.startswith(patient_N, "Q")
    empty = {column: "" if dtype == "string" else 0 for column, dtype in SLICES.columns.items()}
    slices = pd.DataFrame({column: [value] * len(patient_N) for column, value in empty.items()})
    slices["image_id"] = [f"ID_{i:05d}" for i in range(len(slices))]
    slices["patient_id"] = slices["series_instance_uid"] = patient_N
    slices["slice_rank"] = np.tile(np.arange(n_slices), n_all)
    slices["frame_number"] = slices["n_at_position"] = 1
    slices["is_labelled"], slices["status"] = ~is_test, "ok"
    slices[list(LABELS)] = np.where(is_test[:, None], np.nan, y_NL)
    write_table(slices, root / "slices.parquet", SLICES)
    plan = make_folds(slices, k, seed)
    write_folds(plan, root / "folds.parquet")
    about = {"fold_plan_hash": plan.plan_hash, "k": k, "seed": seed, "cache_id": None, "generated": True}
    write_json(about, root / "workspace.json")
    return Made(root, slices, z_NL, plan)


def honest(made: Made, seed: int, noises: tuple[float, ...] = (0.8, 1.0, 1.2, 1.5)) -> list[np.ndarray]:
    """Members that see the truth with an error that all share, and one of their own over slices and patients."""
    rng = np.random.default_rng([seed, 1])
    code_N = np.unique(made.slices["patient_id"], return_inverse=True)[1]

    def error() -> np.ndarray:
        of_patient = rng.standard_normal((code_N.max() + 1, N_LABELS))[code_N]
        return 0.4 * of_patient + 0.9 * rng.standard_normal(made.z_NL.shape)

    seen = made.z_NL + error()
    return [from_logits(0.8 * (seen + noise * error()) - 0.4) for noise in noises]


def command(work: Path, spec: str) -> tuple[int, str]:
    """Run `ichtune blend` in this process: its exit code, and what it said to people."""
    if SPECS.get(spec):
        path = work / f"{spec.replace(' ', '_')}.yaml"
        path.write_text(f"{SPECS[spec]}\n", encoding="utf-8")
        spec = str(path)
    stderr = io.StringIO()
    with redirect_stderr(stderr), redirect_stdout(io.StringIO()):
        code = main(["blend", "--work", str(work), "--ensemble", spec])
    return code, stderr.getvalue()


def blend(made: Made, spec: str) -> Outcome:
    shutil.rmtree(made.root / "blends", ignore_errors=True)
    code, stderr = command(made.root, spec)
    assert code == 0, stderr
    (folder,) = (made.root / "blends").iterdir()
    oof = read_table(folder / "oof.parquet", PREDICTIONS).set_index("image_id")[COLUMNS]
    about = json.loads((folder / "blend.json").read_text(encoding="utf-8"))
    return Outcome(stderr, about, oof, pd.read_csv(made.root / "submission.csv"))


def assert_same(one: Outcome, other: Outcome, atol: float) -> None:
    assert one.oof.index.equals(other.oof.index)
    np.testing.assert_allclose(one.oof.to_numpy(), other.oof.to_numpy(), rtol=0, atol=atol)
    assert one.submission["ID"].equals(other.submission["ID"])
    np.testing.assert_allclose(one.submission["Label"], other.submission["Label"], rtol=0, atol=atol)


# --- a. Noise ---------------------------------------------------------------------------------------------------------


def far_from_the_rates(made: Made, rng: np.random.Generator) -> list[np.ndarray]:
    """Members that know nothing, not even the labels' rates; they err together on all slices of a patient."""
    return [from_logits(CENTRE_L + 1.0 + 0.7 * reaching(made, rng)) for _ in range(6)]


def about_the_rates(made: Made, rng: np.random.Generator) -> list[np.ndarray]:
    """Members that learnt the rates of the other folds, as the prior does, and nothing else."""
    y_NL, fold_N = made.labels, made.plan.folds_for(made.slices["patient_id"])
    labelled_fold_N = fold_N[~made.is_test]
    rate_KL = np.stack([y_NL[labelled_fold_N != fold].mean(axis=0) for fold in range(made.plan.k)])
    rate_NL = np.where(made.is_test[:, None], y_NL.mean(axis=0), rate_KL[fold_N])
    return [from_logits(to_logits(rate_NL) + 0.2 * reaching(made, rng)) for _ in range(12)]


def reaching(made: Made, rng: np.random.Generator) -> np.ndarray:
    code_N = np.unique(made.slices["patient_id"], return_inverse=True)[1]
    return rng.standard_normal((code_N.max() + 1, N_LABELS))[code_N] + rng.standard_normal(made.z_NL.shape)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Made]]:
    """Workspaces with members of noise, one for each seed."""
    found: dict[str, list[Made]] = {}
    for kind, members in (("far", far_from_the_rates), ("about", about_the_rates)):
        found[kind] = [prepare(tmp_path_factory.mktemp(kind), seed, n_patients=60) for seed in SEEDS]
        for seed, made in zip(SEEDS, found[kind], strict=True):
            for m, p_NL in enumerate(members(made, np.random.default_rng([seed, 4]))):
                made.add(f"r{m:02d}", p_NL)
    return found


@pytest.mark.parametrize(("kind", "spec"), TRIED)
def test_of_noise_the_cross_fitted_score_does_not_beat_the_prior(kind, spec, noise):
    behind = []
    for made in noise[kind]:
        about = blend(made, spec).about
        ladder = {row["name"]: row for row in json.loads((made.root / "ladder.json").read_text(encoding="utf-8"))}
        behind.append(about["differences"]["prior"])
        assert behind[-1]["high"] >= 0, "surely better than the label rates"
        if spec in IN_SAMPLE[kind]:
            assert about["loss"]["oof_loss"] < ladder["prior"]["oof_loss"], "no trap: it looks no better in sample"
    # patients are few: one estimate may lie below nought by luck, the mean of all may not
    assert np.mean([interval["estimate"] for interval in behind]) > -5e-4


# --- b. A leak --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_a_member_that_was_told_one_label_in_a_hundred_is_flagged_and_no_honest_one_is(seed, tmp_path):
    made = prepare(tmp_path, seed, n_patients=625, n_slices=32, k=5)
    members = honest(made, seed, noises=(0.8, 1.0, 1.0, 1.2, 1.5))
    labelled = np.flatnonzero(~made.is_test)
    assert len(labelled) == 20_000
    told = np.random.default_rng([seed, 3]).choice(labelled, 200, replace=False)
    members[seed][told] = made.slices.loc[told, list(LABELS)].to_numpy()
    for m, p_NL in enumerate(members):
        made.add(f"r{m}", p_NL)
    outcome = blend(made, "mean")
    assert {one["recipe_id"] for one in outcome.about["suspicions"]} == {f"r{seed}"}
    named = {image for one in outcome.about["suspicions"] for image in one["image_ids"]}
    assert named
    assert named <= set(made.slices["image_id"].iloc[told])
    (line,) = [line for line in outcome.stderr.splitlines() if "leak suspected" in line]
    assert f"(r{seed})" in line


# --- c. to e. Order and copies ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, list[np.ndarray], dict[str, Outcome]]:
    """A workspace with four runs, their probabilities, and what each way to blend makes of them."""
    made = prepare(tmp_path_factory.mktemp("plain"), 5)
    members = honest(made, 5)
    for m, p_NL in enumerate(members):
        made.add(f"r{m}", p_NL)
    return made, members, {spec: blend(made, spec) for spec in SPECS}


def sibling(made: Made, folder: Path) -> Made:
    """The same workspace without its runs."""
    for name in ("slices.parquet", "folds.parquet", "workspace.json"):
        shutil.copy(made.root / name, folder / name)
    return Made(folder, made.slices, made.z_NL, made.plan)


@pytest.fixture(scope="module")
def shuffled(plain, tmp_path_factory: pytest.TempPathFactory) -> Made:
    made = sibling(plain[0], tmp_path_factory.mktemp("shuffled"))
    for m, p_NL in enumerate(plain[1]):
        tables = made.tables(f"r{m}", p_NL)
        made.write(f"r{m}", {kind: frame.sample(frac=1.0, random_state=m) for kind, frame in tables.items()})
    return made


@pytest.mark.parametrize("spec", SPECS)
def test_members_with_shuffled_rows_give_the_same_blend(spec, plain, shuffled):
    one, other = plain[2][spec], blend(shuffled, spec)
    assert_same(one, other, 1e-12)
    assert other.about["blend_id"] == one.about["blend_id"]
    assert (one.about["weights"] is None) == (other.about["weights"] is None)
    for recipe_id, by_label in (one.about["weights"] or {}).items():
        assert other.about["weights"][recipe_id] == pytest.approx(by_label, rel=0, abs=1e-12)


@pytest.fixture(scope="module")
def renamed(plain, tmp_path_factory: pytest.TempPathFactory) -> Made:
    made = sibling(plain[0], tmp_path_factory.mktemp("renamed"))
    for name, p_NL in zip(("c", "a", "d", "b"), plain[1], strict=True):
        made.add(name, p_NL)
    return made


@pytest.mark.parametrize("spec", SPECS)
def test_members_in_another_order_give_the_same_submission(spec, plain, renamed):
    assert_same(plain[2][spec], blend(renamed, spec), 1e-9)


@pytest.fixture(scope="module")
def copied(plain, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """With a copy of the second run: to the last bit, and to a billionth; each before or behind it by name."""
    made = {}
    jitter_NL = 1e-9 * np.random.default_rng(6).uniform(-1, 1, plain[1][1].shape)
    for kind, p_NL in (("exact", plain[1][1]), ("near", np.clip(plain[1][1] + jitter_NL, 0, 1))):
        made[kind] = sibling(plain[0], tmp_path_factory.mktemp(kind))
        for m, of_member_NL in enumerate(plain[1]):
            made[kind].add(f"r{m}", of_member_NL)
        made[kind].add("r9", p_NL)
    return made


@pytest.mark.parametrize("spec", FILES)
def test_a_copy_changes_nothing_and_is_named(spec, plain, copied):
    outcome = blend(copied["exact"], spec)
    assert outcome.about["collapsed"] == {"r9": "r1"}
    assert "run r9 predicts what r1 does, but for rounding, and was left out" in outcome.stderr
    assert_same(plain[2][spec], outcome, 1e-6)


@pytest.mark.parametrize("spec", FILES)
def test_a_copy_to_a_billionth_changes_nothing(spec, plain, copied):
    assert_same(plain[2][spec], blend(copied["near"], spec), 1e-6)


# --- f. Wrong submissions ---------------------------------------------------------------------------------------------


def with_value(frame: pd.DataFrame, value: float) -> pd.DataFrame:
    frame = frame.copy()
    frame.iloc[7, frame.columns.get_loc("p_subdural")] = value
    return frame


DAMAGES = {
    "no number": (lambda frame: with_value(frame, np.nan), "must be probabilities in [0, 1], got nan"),
    "above one": (lambda frame: with_value(frame, 1.2), "must be probabilities in [0, 1], got 1.2"),
    "missing": (lambda frame: frame.drop(index=frame.index[7]), "must cover every slice, 1 of"),
    "twice": (lambda frame: pd.concat([frame, frame.iloc[[7]]]), "must hold each slice once, got 'ID_"),
    "unknown": (lambda frame: frame.replace({"image_id": {frame["image_id"].iloc[7]: "ID_x"}}), "do not belong there"),
}


@pytest.fixture
def submitted(plain, tmp_path) -> Made:
    """A workspace with four runs and an older submission."""
    made = sibling(plain[0], tmp_path)
    for m, p_NL in enumerate(plain[1]):
        made.add(f"r{m}", p_NL)
    (made.root / "submission.csv").write_text("ID,Label\nthe older one,0.5\n", encoding="utf-8")
    return made


def assert_refused(made: Made, spec: str, message: str) -> None:
    left = sorted(made.root.iterdir())
    code, stderr = command(made.root, spec)
    assert code in (3, 4), stderr
    assert "ichtune: error:" in stderr
    assert message in stderr
    assert "Traceback" not in stderr
    assert (made.root / "submission.csv").read_text(encoding="utf-8") == "ID,Label\nthe older one,0.5\n"
    written = {path.name for path in set(made.root.iterdir()) - set(left)}
    assert written <= {"blends", "ladder.json"}, "nothing half written"


@pytest.mark.parametrize("spec", ["auto", "mean"])
@pytest.mark.parametrize("kind", ["oof", "test"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_no_submission_is_made_of_a_damaged_table(damage, kind, spec, submitted, plain):
    tables = submitted.tables("r2", plain[1][2])
    change, message = DAMAGES[damage]
    submitted.write("r2", tables | {kind: change(tables[kind])})
    assert_refused(submitted, spec, message)
    assert not (submitted.root / "blends").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["ID_x_any", "ID_y_any"], "none of which is predicted"),
        (["ID_00240_any", "ID_00240_any"], "must hold each ID once, got ID_00240_any more than once"),
        (["ID_00240_any", "ID_00240_other"], "a row's ID must be a slice, an underscore and a label"),
        ([], "has no rows"),
    ],
)
def test_no_submission_is_made_for_a_wrong_sample(rows, message, submitted):
    lines = [f"{row},0.5\n" for row in rows]
    (submitted.root / "sample_submission.csv").write_text("ID,Label\n" + "".join(lines), encoding="utf-8")
    assert_refused(submitted, "mean", message)


def test_slices_that_only_the_sample_knows_get_the_label_rates_and_are_named(submitted):
    rows = [f"ID_{number}_{label}" for number in ("00240", "unknown") for label in LABELS]
    (submitted.root / "sample_submission.csv").write_text(
        "ID,Label\n" + "".join(f"{row},0.5\n" for row in rows), encoding="utf-8"
    )
    outcome = blend(submitted, "mean")
    assert outcome.submission["ID"].tolist() == rows
    np.testing.assert_allclose(outcome.submission["Label"][N_LABELS:], submitted.labels.mean(axis=0), atol=1e-6)
    assert "1 of 2 slices have no prediction" in outcome.stderr
    assert "ID_unknown" in outcome.stderr
