import sys

import numpy as np
import pytest
import torch

from ichtune.errors import ConfigError, DataError
from ichtune.recipe import Recipe
from ichtune.report import onnx_export as module
from ichtune.report.onnx_export import TOLERANCE, ComparedSlices, Graph, check_onnx_installed, export_fold
from ichtune.training.fold_run import open_batches
from ichtune.training.predict import load_model, predict_rows, save_model
from ichtune.workspace import Workspace

COMMON = {"architecture": "tiny_convnet", "image_px": 32, "batch_size": 8, "epochs": 1}


@pytest.fixture
def export(session_workspace, tmp_path, untrained):
    """Return a function that exports networks of a recipe, and gives file, weights and difference."""

    def run(n_networks: int = 1, **keys: object):
        recipe = Recipe(**(COMMON | keys))
        torch.manual_seed(3)
        weights, out = tmp_path / "weights.safetensors", tmp_path / "onnx" / "fold_0.onnx"
        save_model(weights, [untrained(recipe) for _ in range(n_networks)], recipe, {"fold": 0})
        return out, weights, export_fold(weights, out, ComparedSlices(session_workspace))

    return run


def runtime_predictions(out, workspace: Workspace, recipe: Recipe, rows: np.ndarray, size: int) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    wanted = [one.name for one in session.get_inputs()]
    found = []
    for batch in open_batches(workspace, recipe).in_order(rows, size):
        given = {"hu": batch.hu_BSHW, "window": batch.own_B2}
        found += list(session.run(["p"], {name: given[name] for name in wanted})[0])
    return np.array(found)


def check(export, workspace, **keys):
    """Every slice, at several batch sizes, from the HU that the cache gives."""
    out, weights, exported = export(**keys)
    assert 0 <= exported.difference <= TOLERANCE
    assert exported.inputs == (("hu", "window") if keys.get("windows") == "dicom" else ("hu",))
    model, recipe = load_model(weights, torch.device("cpu"))
    rows = np.flatnonzero(workspace.slices["status"] == "ok")
    expected = predict_rows(model, recipe, open_batches(workspace, recipe), rows, torch.device("cpu"))
    assert expected.std(axis=0).min() > 1e-3, "one number for every slice would hide mistakes"
    for size in (1, 7, len(rows)):
        found = runtime_predictions(out, workspace, recipe, rows, size)
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
    return out


@pytest.mark.slow  # an export takes seconds
@pytest.mark.parametrize(
    "keys",
    [
        {"windows": "brain_subdural_bone"},
        {"architecture": "small_convnet", "neighbours": 1, "tta": "flip_transpose"},
        {"windows": "dicom", "n_networks": 2},
        {"tta": "rotate10", "window_shape": "sigmoid", "pooling": "gem", "normalisation": "imagenet"},
        {"calibration": "prior_shift", "negative_share": 0.5, "any_rule": "noisy_or", "learnable_windows": True},
        {"architecture": "resnet18", "image_px": 32},
        {"architecture": "xresnet50_attention", "image_px": 32},
    ],
    ids=str,
)
def test_a_graph_says_what_torch_says(export, session_workspace, keys):
    check(export, session_workspace, **keys)


@pytest.mark.slow
def test_a_graph_tells_nothing_of_where_it_was_made(export):
    out, weights, _ = export(windows="brain")
    data = out.read_bytes()
    for text in (b".py", b"stack_trace", b"ichtune.", b"forward", b"ExportedProgram", b"site-packages"):
        assert text not in data, text
    import onnx

    about = {one.key: one.value for one in onnx.load(str(out)).metadata_props}
    recipe = load_model(weights, torch.device("cpu"))[1]
    assert about["recipe_id"] == recipe.recipe_id
    assert (about["image_px"], about["crop"], about["offsets"]) == ("32", "none", "0")
    assert about["labels"].split(",")[0] == "any"
    onnx.checker.check_model(str(out))


@pytest.mark.slow
def test_a_graph_that_says_something_else_is_not_kept(export, monkeypatch, tmp_path):
    forward = Graph.forward

    def moved(self, hu, own=None):
        p = forward(self, hu, own)
        return p if torch.compiler.is_exporting() else p + 2 * TOLERANCE

    monkeypatch.setattr(Graph, "forward", moved)
    with pytest.raises(DataError, match=r"differs from torch by 0.0002 in a probability, expected at most 0.0001"):
        export()
    assert not (tmp_path / "onnx").exists()


def test_what_has_no_form_in_onnx_says_why(export, monkeypatch):
    def refuse(*_, **__):
        try:
            raise NotImplementedError("No function for aten.witchcraft found.\n\nSee the manual.")
        except NotImplementedError as error:
            raise torch.onnx.OnnxExporterError("Step 3 of 3.\n\nAsk the developers.") from error

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(ConfigError, match=r"tiny_convnet, tta none\) cannot be written as ONNX: No function for aten"):
        export()


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_names_the_extra(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"needs the package {package}, .*pip install 'ichtune\[onnx\]'"):
        check_onnx_installed()


def test_slices_are_needed_to_compare_on(fake_workspace):
    workspace = fake_workspace()
    workspace.slices["status"] = "refused"
    with pytest.raises(DataError, match="no readable slice"):
        ComparedSlices(workspace).batch(Recipe(**COMMON))


def test_few_slices_are_taken_again(fake_workspace):
    workspace = fake_workspace()
    first = np.flatnonzero(workspace.slices["status"] == "ok")[0]
    workspace.slices.loc[workspace.slices.index != first, "status"] = "refused"
    batch = ComparedSlices(workspace).batch(Recipe(**COMMON))
    assert batch.rows.tolist() == [first] * module.N_COMPARED
