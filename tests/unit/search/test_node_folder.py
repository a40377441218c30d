import math
from dataclasses import asdict

import pytest

from ichtune.errors import StorageError
from ichtune.recipe import Recipe
from ichtune.search.ledger import FINISHED, Ledger, TrialRecord
from ichtune.search.mirror import mirror_root, open_workspace
from ichtune.search.names import METRIC
from ichtune.search.node_folder import NodeFolder, fetched_file, trial_files
from ichtune.search.objective import FoldTrial
from ichtune.search.only_writer import only_writer
from ichtune.search.trial_table import ledger_path, trial_folder
from ichtune.space import EarlyStop
from ichtune.store.store import Store
from ichtune.training import loop

RECIPE = Recipe(architecture="tiny_convnet", image_px=32, epochs=1)


@pytest.fixture
def there(fake_workspace, tmp_path, monkeypatch):
    monkeypatch.setenv("ICHTUNE_MIRROR", str(tmp_path / "mirror"))
    return fake_workspace("there")


def test_on_a_plain_path_it_is_the_folder_itself(there, tmp_path) -> None:
    folder = NodeFolder(str(there.layout.root), "searches/a/trials/0001")
    folder.fetch()
    folder.path.mkdir(parents=True)
    (folder.path / "judged.json").write_text("{}")
    folder.push(gone=["resume"])

    assert folder.path == there.layout.root / "searches/a/trials/0001"
    assert folder.place("error.txt") == str(folder.path / "error.txt")
    assert NodeFolder(str(there.layout.root), str(tmp_path / "trial")).path == tmp_path / "trial"
    assert [path.name for path in folder.path.iterdir()] == ["judged.json"]


def test_at_a_url_every_node_goes_on_from_what_the_last_one_left(there, tmp_path) -> None:
    url = f"file://{there.layout.root}"
    one, other = (NodeFolder(url, "runs/r/fold_0", str(tmp_path / node)) for node in ("one", "other"))
    assert one.path == mirror_root(url, tmp_path / "one") / "runs/r/fold_0"
    one.fetch()
    one.path.mkdir(parents=True)
    for name in ("resume.safetensors", "curve.json"):
        (one.path / name).write_text("epoch 1")
    one.push()

    other.fetch()
    assert (other.path / "resume.safetensors").read_text() == "epoch 1"
    (other.path / "resume.safetensors").unlink()
    (other.path / "weights.safetensors").write_text("all epochs")
    other.push(gone=["resume.safetensors", "curve.json"])

    left = there.layout.runs / "r" / "fold_0"
    assert sorted(path.name for path in left.iterdir()) == ["curve.json", "weights.safetensors"]
    one.fetch("weights.safetensors")
    assert (one.path / "weights.safetensors").read_text() == "all epochs"
    assert other.place("curve.json") == f"{url}/runs/r/fold_0/curve.json"


def test_nothing_is_put_over_what_was_not_looked_at_first(there, tmp_path) -> None:
    folder = NodeFolder(f"file://{there.layout.root}", "runs/r", str(tmp_path / "node"))
    folder.path.mkdir(parents=True)
    (folder.path / "error.txt").write_text("the package for the URL is not installed")
    folder.push()

    assert not (there.layout.runs / "r").exists()


def test_a_trial_s_checkpoint_reaches_whichever_node_trains_its_fold(there, tmp_path, monkeypatch) -> None:
    url = f"file://{there.layout.root}"
    workspace = open_workspace(url)
    with only_writer(workspace, "tiny", "busy") as on_append:
        ledger = Ledger(ledger_path(workspace.layout, "tiny"), on_append)
        ledger.open({"space_id": "s", "folds": [0]})
        ledger.start(TrialRecord(0, {}, {}, RECIPE))
        ledger.end(0, FINISHED)
    assert trial_files(workspace) == {}
    left = trial_folder(there.layout, "tiny", 0) / "checkpoint_fold_0.safetensors"
    left.parent.mkdir(parents=True)
    left.write_text("weights")

    (file,) = trial_files(workspace).values()
    monkeypatch.setenv("ICHTUNE_MIRROR", str(tmp_path / "another node"))
    assert fetched_file(url, file).read_text() == "weights"
    assert fetched_file(url, file).is_relative_to(tmp_path / "another node")
    # the same workspace on a disk: the file itself, once its ledger is there
    (found,) = trial_files(there).values()
    assert fetched_file(str(there.layout.root), found) == left.resolve()


def trial_config(work: str, folder: str, stage) -> dict:
    recipe = Recipe(architecture="tiny_convnet", image_px=32, epochs=3, batch_size=8, lr=3e-3, windows="brain")
    return {
        "work": work,
        "stage": str(stage),
        "folder": folder,
        "trial": 4,
        "folds": [0],
        "recipe": recipe.to_dict(),
        "summary": recipe.summary,
        "early_stop": asdict(EarlyStop(type="asha", judge="last")),
        "rungs": [1],
        "rung_epochs": {"1": 1},
        "told": 0,
        "to_end": False,
        "n_threads": 1,
        "wants_gpu": False,
        "resources": {"cpu": 1.0},
        "gpu_memory_mb": None,
    }


def test_a_leg_that_moves_to_another_node_trains_no_epoch_twice(there, tmp_path, monkeypatch) -> None:
    url, folder = f"file://{there.layout.root}", "searches/tiny/trials/0004"
    one = FoldTrial(trial_config(url, folder, tmp_path / "one"))
    told = [one.step() for _ in range(2)]
    assert [result["failure"] for result in told] == ["", ""]
    trained = []
    train = loop.TrainingRun.train_epoch
    monkeypatch.setattr(loop.TrainingRun, "train_epoch", lambda run, *a: trained.append(run.epoch) or train(run, *a))

    other = FoldTrial(trial_config(url, folder, tmp_path / "other"))
    again = [other.step() for _ in range(3)]

    assert trained == [2]
    keys = (METRIC, "rung", "rung_loss")
    assert [[r.get(k) for k in keys] for r in again[:2]] == [[r.get(k) for k in keys] for r in told]
    assert again[-1]["done"]
    left = trial_folder(there.layout, "tiny", 4)
    assert sorted(path.name for path in left.iterdir()) == ["checkpoint_fold_0.safetensors", "judged.json"]


def test_a_trial_whose_epoch_cannot_be_kept_stops_the_search(there, tmp_path, monkeypatch) -> None:
    url = f"file://{there.layout.root}"
    trial = FoldTrial(trial_config(url, "searches/tiny/trials/0004", tmp_path / "node"))

    def fail(self, source, name):
        raise StorageError(f"cannot write {name}: quota exceeded")

    monkeypatch.setattr(Store, "upload", fail)
    result = trial.step()

    assert "quota exceeded" in result["halt"]
    assert math.isnan(result[METRIC])
    monkeypatch.undo()
    monkeypatch.setenv("ICHTUNE_MIRROR", str(tmp_path / "mirror"))
    after = FoldTrial(trial_config(url, "searches/tiny/trials/0004", tmp_path / "node"))
    assert math.isfinite(after.step()[METRIC])


def test_the_traceback_of_a_trial_is_found_from_everywhere(there, tmp_path) -> None:
    url = f"file://{there.layout.root}"
    config = trial_config(url, "searches/tiny/trials/0004", tmp_path / "node")
    result = FoldTrial({**config, "recipe": {**config["recipe"], "architecture": "no_such_net"}}).step()

    assert f"(traceback in {url}/searches/tiny/trials/0004/error.txt)" in result["failure"]
    assert "no_such_net" in (there.layout.searches / "tiny/trials/0004/error.txt").read_text()
