"""Fold models as ONNX: from Hounsfield units to probabilities in one graph, compared with torch before it is kept.

An extra: ``ichtune[onnx]``.

Dimension key: B slices, S slices seen in series order, H height, W width, L labels.
"""

import importlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ichtune.data.dataset import Batch, SliceBatches
from ichtune.errors import ConfigError, DataError
from ichtune.labels import LABELS, N_LABELS
from ichtune.recipe import Recipe
from ichtune.tables import whole_file
from ichtune.training.calibration import undo_prior_shift
from ichtune.training.fold_run import open_batches
from ichtune.training.predict import FoldModel, load_model
from ichtune.training.tta import find_views
from ichtune.workspace import Workspace

#: Largest difference in probability between torch and onnxruntime.
TOLERANCE = 1e-4
#: Slices on which the two are compared, evenly taken from all.
N_COMPARED = 16
#: Slices that the graph is drawn with; two at least, or it would take one slice at a time for ever.
N_DRAWN = 2
#: Version of the operators, which onnxruntime 1.18 and later know.
OPSET = 20
#: Names of the graph's inputs and output.
HU, WINDOW, PROBABILITY = "hu", "window", "p"
_PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def check_onnx_installed() -> None:
    """Raise ``ConfigError``, which names the extra, unless the packages of the export are there."""
    for package in _PACKAGES:
        _package(package)


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"ONNX export needs the package {name}, which cannot be imported ({error}): pip install 'ichtune[onnx]', "
            "or leave --onnx out"
        ) from error


class Graph(nn.Module):
    """What is exported: the networks of a fold with their windows, views and calibration, as ``extract`` runs them.

    Args:
        model: of one fold.
        recipe: that it was trained by.
    """

    def __init__(self, model: FoldModel, recipe: Recipe) -> None:
        super().__init__()
        self.networks = model.networks
        self.registered = nn.ModuleList(model.networks)
        self.recipe = recipe
        self.views = find_views(recipe.tta)

    @property
    def has_window(self) -> bool:
        """Whether it also takes the window that each slice's own file asks for."""
        return any(network.inputs.has_own for network in self.networks)

    def forward(self, hu_BSHW: torch.Tensor, own_B2: torch.Tensor | None = None) -> torch.Tensor:
        """Return probabilities float32 (B, L): the mean over networks and views.

        Args:
            hu_BSHW: float32, as ``SliceBatches`` gives it.
            own_B2: centre and width in HU of each slice's own window, NaN where it has none.
        """
        p = [
            torch.sigmoid(undo_prior_shift(network(network.inputs(view(hu_BSHW), own_B2))[:, :N_LABELS], self.recipe))
            for network in self.networks
            for view in self.views
        ]
        return torch.stack(p).mean(dim=0).float()


@dataclass(frozen=True)
class ExportedFold:
    """A graph: the names of its inputs, and the largest difference of a probability from torch's."""

    inputs: tuple[str, ...]
    difference: float


@dataclass(frozen=True)
class ComparedSlices:
    """Slices of a workspace on which a graph is drawn and compared."""

    workspace: Workspace

    def batch(self, recipe: Recipe) -> Batch:
        """Return some slices as a recipe sees them; the same ones again where there are few.

        Raises:
            DataError: no readable slice, or no cache that the recipe could read.
        """
        slices = self.workspace.slices
        usable = np.flatnonzero((slices["status"] == "ok").to_numpy())
        if not len(usable):
            raise DataError(f"no readable slice in {self.workspace.layout.slices} to compare an ONNX graph on")
        data: SliceBatches = open_batches(self.workspace, recipe)
        return data.batch(usable[np.linspace(0, len(usable) - 1, N_COMPARED).astype(int)])


def export_fold(weights: Path, out: Path, slices: ComparedSlices) -> ExportedFold:
    """Export a fold model and compare it with torch; ``out`` is written only where the two agree.

    Args:
        weights: that a fold's training left.
        out: ``.onnx`` file to write.
        slices: to compare on.

    Returns:
        What was written, its difference at most ``TOLERANCE``.

    Raises:
        ConfigError: the packages are missing, or the recipe's network has no form in ONNX.
        DataError: no such weights, no slice to compare on, or a graph that says something else.
        StorageError: ``out`` cannot be written.
    """
    check_onnx_installed()
    model, recipe = load_model(weights, torch.device("cpu"))
    graph, batch = Graph(model, recipe).eval(), slices.batch(recipe)
    exported = _exported(graph, batch, recipe)
    difference = _difference(graph, exported, batch, recipe)
    if not difference <= TOLERANCE:
        raise DataError(
            f"the ONNX graph of {weights} ({recipe.summary}) differs from torch by {difference:.2g} in a probability, "
            f"expected at most {TOLERANCE:g}; make the bundle without --onnx"
        )
    with whole_file(out) as temporary:
        temporary.write_bytes(exported)
    return ExportedFold(tuple(_inputs(graph, batch, slice(0, 1))), difference)


def _inputs(graph: Graph, batch: Batch, rows: slice) -> dict[str, np.ndarray]:
    given = {HU: np.ascontiguousarray(batch.hu_BSHW[rows])}
    return given | ({WINDOW: np.ascontiguousarray(batch.own_B2[rows])} if graph.has_window else {})


def _tensors(given: dict[str, np.ndarray]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(array) for array in given.values())


def _exported(graph: Graph, batch: Batch, recipe: Recipe) -> bytes:
    """Return the graph as a file's bytes, with a free number of slices and nothing of the machine it was made on."""
    given = _inputs(graph, batch, slice(0, N_DRAWN))
    free = torch.export.Dim("slices", min=1)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # advice for whoever develops the exporter
            program: Any = torch.onnx.export(
                graph,
                _tensors(given),
                input_names=list(given),
                output_names=[PROBABILITY],
                opset_version=OPSET,
                dynamic_shapes=[{0: free} for _ in given],
                dynamo=True,
                verbose=False,
            )
    except (RuntimeError, NotImplementedError) as error:
        raise ConfigError(_no_form(recipe, _first_cause(error))) from error
    proto = _without_origin(program.model_proto)
    for key, value in _described(recipe).items():
        proto.metadata_props.add(key=key, value=value)
    try:
        return bytes(proto.SerializeToString())
    except ValueError as error:  # protobuf's limit of 2 GiB
        raise ConfigError(_no_form(recipe, str(error))) from error


def _described(recipe: Recipe) -> dict[str, str]:
    """What whoever runs the graph must know to give it slices."""
    return {
        "recipe_id": recipe.recipe_id,
        "labels": ",".join(LABELS),
        "image_px": str(recipe.image_px),
        "crop": recipe.crop,
        "offsets": ",".join(map(str, recipe.offsets)),
    }


def _without_origin(proto: Any) -> Any:
    """Remove what the exporter notes beside the graph, the paths and lines of source code among it."""
    for holder in (proto, proto.graph, *proto.functions):
        holder.ClearField("metadata_props")
        holder.ClearField("doc_string")
    graph = proto.graph
    parts: list[Sequence[Any]] = [graph.node, graph.value_info, graph.initializer, graph.input, graph.output]
    for part in (*parts, *(function.node for function in proto.functions)):
        for one in part:
            one.ClearField("metadata_props")
            one.ClearField("doc_string")
    return proto


def _difference(graph: Graph, exported: bytes, batch: Batch, recipe: Recipe) -> float:
    """Run torch and onnxruntime on one slice and on several; return the largest difference of a probability."""
    runtime = _package("onnxruntime")
    errors = _runtime_errors(runtime)
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors only: what it optimises is nobody's concern
    found = 0.0
    try:
        session = runtime.InferenceSession(exported, options, providers=["CPUExecutionProvider"])
        for rows in (slice(0, 1), slice(1, None)):
            given = _inputs(graph, batch, rows)
            with torch.inference_mode():
                expected_BL = graph(*_tensors(given)).numpy()
            (p_BL,) = session.run([PROBABILITY], given)
            if p_BL.shape != expected_BL.shape or not np.isfinite(p_BL).all():
                return float("nan")
            found = max(found, float(np.abs(p_BL - expected_BL).max()))
    except errors as error:
        raise ConfigError(_no_form(recipe, f"onnxruntime cannot run it: {_first_cause(error)}")) from error
    return found


def _runtime_errors(runtime: Any) -> tuple[type[Exception], ...]:
    """What onnxruntime raises, whose exceptions have no base of their own."""
    states = runtime.capi.onnxruntime_pybind11_state
    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException")
    return tuple(getattr(states, name) for name in names if hasattr(states, name))


def _first_cause(error: BaseException) -> str:
    """Return one line of what went wrong first; the exporter's own message is a page of advice for its developers."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _no_form(recipe: Recipe, cause: str) -> str:
    return (
        f"the network of recipe {recipe.recipe_id} ({recipe.architecture}, tta {recipe.tta}) cannot be written as "
        f"ONNX: {cause.rstrip('.')}; make the bundle without --onnx"
    )
