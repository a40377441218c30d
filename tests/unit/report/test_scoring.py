import json

import numpy as np
import pytest

from ichtune.ensemble.blend import run_blend
from ichtune.ensemble.spec import BlendSpec
from ichtune.errors import ConflictError, DataError
from ichtune.labels import LABELS, N_LABELS
from ichtune.metrics import prior_predictions, weighted_log_loss
from ichtune.report.scoring import add_test_losses, score_submission
from ichtune.report.submission import write_submission

pytestmark = pytest.mark.slow  # whole workspaces are searched, trained, blended or drawn


def write_csv(path, ids, values, order=None):
    lines = [
        f"{i}_{label},{v!r}"
        for i, row in zip(ids, values.tolist(), strict=True)
        for label, v in zip(LABELS, row, strict=True)
    ]
    lines = lines if order is None else [lines[n] for n in order]
    path.write_text("ID,Label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    ids = [f"ID_{i}" for i in range(20)]
    p, y = rng.random((20, N_LABELS)), (rng.random((20, N_LABELS)) < 0.3).astype(float)
    submission = write_csv(tmp_path / "submission.csv", ids, p, rng.permutation(120))
    return submission, write_csv(tmp_path / "truth.csv", ids, y), p, y, ids


def test_files_are_joined_by_id(files):
    submission, truth, p, y, _ = files
    scored = score_submission(submission, truth)
    assert scored["weighted_log_loss"] == pytest.approx(weighted_log_loss(y, p), rel=1e-12)
    assert scored["n"] == 20
    assert list(scored["per_label"]) == list(LABELS)
    weighted = (2 * scored["per_label"]["any"] + sum(scored["per_label"][x] for x in LABELS[1:])) / 7
    assert weighted == pytest.approx(scored["weighted_log_loss"], rel=1e-12)


def test_ids_of_only_one_file_are_named(files, tmp_path):
    submission, truth, p, y, ids = files
    fewer = write_csv(tmp_path / "fewer.csv", ids[1:], p[1:])
    with pytest.raises(ConflictError, match=r"1 of 20 are missing \(ID_0\), 0 are not in the truth"):
        score_submission(fewer, truth)
    less_truth = write_csv(tmp_path / "less_truth.csv", ids[5:], y[5:])
    with pytest.raises(ConflictError, match=r"5 are not in the truth \(ID_0, ID_1, ID_2, \.\.\.\)") as caught:
        score_submission(submission, less_truth)
    assert caught.value.exit_code == 4


def test_a_repeated_id_is_refused_in_either_file(files):
    submission, truth, *_ = files
    for path in (submission, truth):
        text = path.read_text(encoding="utf-8")
        path.write_text(text + "ID_3_any,0\n", encoding="utf-8")
        with pytest.raises(ConflictError, match=rf"{path.name} must hold each ID once, got ID_3_any"):
            score_submission(submission, truth)
        path.write_text(text, encoding="utf-8")


def test_a_slice_without_all_labels_is_refused(files):
    submission, truth, *_ = files
    lines = submission.read_text(encoding="utf-8").splitlines()
    submission.write_text("\n".join(line for line in lines if not line.startswith("ID_7_subdural")), encoding="utf-8")
    with pytest.raises(DataError, match="missing: ID_7_subdural"):
        score_submission(submission, truth)


@pytest.mark.parametrize("value", ["", "nan", "1.01"])
def test_a_value_that_is_no_probability_is_refused(files, value):
    submission, truth, *_ = files
    lines = submission.read_text(encoding="utf-8").splitlines()
    lines[4] = f"{lines[4].split(',')[0]},{value}"
    submission.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"submission.csv must be probabilities"):
        score_submission(submission, truth)


@pytest.fixture
def blended(make_blend_workspace, tmp_path):
    made = make_blend_workspace(n_patients=40)
    made.write_sample()
    result = run_blend(made.open(), BlendSpec(blender="convex", clip=1e-5))
    written = write_submission(made.open(), result.panel.test_image_ids, result.p_test_TL)
    return made, result, written, made.write_truth(tmp_path / "truth.csv")


def test_the_ladder_gains_test_losses_of_what_would_be_submitted(blended):
    made, result, written, truth = blended
    rows = {row["name"]: row for row in add_test_losses(made.open(), written.path, truth)}
    on_disk = json.loads((made.root / "ladder.json").read_text(encoding="utf-8"))
    assert {row["name"]: row for row in on_disk} == rows
    assert rows["blend"]["test_loss"] == pytest.approx(
        score_submission(written.path, truth)["weighted_log_loss"], rel=1e-9
    )
    y_test = made.y_NL[~made.slices["is_labelled"]]
    prior = prior_predictions(made.y_NL[made.labelled], len(y_test))
    assert rows["prior"]["test_loss"] == pytest.approx(weighted_log_loss(y_test, prior), rel=1e-12)
    assert rows["best_single"]["test_loss"] == rows[f"single:{result.panel.members[0].name}"]["test_loss"]
    mean_TL = np.concatenate([result.panel.p_MTL.mean(axis=0), prior[:1]])
    assert rows["equal_mean"]["test_loss"] == pytest.approx(weighted_log_loss(y_test, mean_TL), rel=1e-9)
    assert all(row["test_loss"] < rows["prior"]["test_loss"] for name, row in rows.items() if name != "prior")


def test_the_ladder_is_not_scored_with_another_submission(blended):
    made, _, written, truth = blended
    text = written.path.read_text(encoding="utf-8").splitlines()
    text[1] = f"{text[1].split(',')[0]},0.123456"
    written.path.write_text("\n".join(text) + "\n", encoding="utf-8")
    before = (made.root / "ladder.json").read_bytes()
    with pytest.raises(ConflictError, match="is not the submission of blend"):
        add_test_losses(made.open(), written.path, truth)
    assert (made.root / "ladder.json").read_bytes() == before


def test_a_ladder_that_is_not_there_names_the_command(blended):
    made, _, written, truth = blended
    (made.root / "ladder.json").unlink()
    with pytest.raises(DataError, match="run `ichtune blend` first"):
        add_test_losses(made.open(), written.path, truth)
