"""Whatever is missing, misspelt or empty: one clear message, the right exit code, no traceback."""

from pathlib import Path

import pytest

from ichtune.cli.main import main
from ichtune.labels import LABELS

SPACE = "parameters:\n  architecture: [tiny_convnet, resnet18]\n  lr: {low: 1e-3, high: 1e-2, log: true}\n"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of a few generated patients, on which nothing was searched yet."""
    folder = tmp_path_factory.mktemp("prepared")
    source, work = str(folder / "phantom"), str(folder / "work")
    assert main(["phantom", source, "--patients", "12", "--size", "64", "--quiet"]) == 0
    labels = f"{source}/stage_2_train.csv"
    assert main(["prepare", source, "--labels", labels, "--out", work, "--size", "32", "--folds", "2", "--quiet"]) == 0
    return folder / "work"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ICHTUNE_WORK", raising=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.csv").write_text("this is no table\n")
    (tmp_path / "fine.csv").write_text("ID,Label\n" + "".join(f"ID_1_{label},0.5\n" for label in LABELS))
    return tmp_path


def said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run a command that must fail; return its exit code and its one message."""
    capsys.readouterr()
    code = main(arguments)
    captured = capsys.readouterr()
    messages = [line for line in captured.err.splitlines() if line.startswith("ichtune: error: ")]
    assert len(messages) == 1, captured.err
    assert "Traceback" not in captured.err + captured.out
    assert "unexpected" not in messages[0]
    return code, messages[0]


@pytest.mark.parametrize(
    ("arguments", "code", "names"),
    [
        (["prepare", "absent"], 3, "absent"),
        (["prepare", "empty"], 7, "empty"),
        (["prepare", "text.csv"], 3, "text.csv"),
        (["prepare", "empty", "--labels", "absent.csv"], 3, "absent.csv"),
        (["prepare", "empty", "--size", "big"], 2, "big"),
        (["search"], 3, "ichtune prepare"),
        (["search", "--space", "windws"], 2, "Did you mean 'windows'"),
        (["search", "--space", "empty"], 2, "folder"),
        (["train"], 3, "ichtune prepare"),
        (["stack"], 3, "ichtune prepare"),
        (["stack", "--recipe", "level2_gru2"], 2, "Did you mean 'level2_gru'"),
        (["predict", "empty"], 3, "ichtune prepare"),
        (["blend"], 3, "ichtune prepare"),
        (["report"], 3, "ichtune prepare"),
        (["leaderboard"], 3, "ichtune prepare"),
        (["score", "absent.csv", "--truth", "text.csv"], 3, "absent.csv"),
        (["score", "fine.csv", "--truth", "absent.csv"], 3, "absent.csv"),
        (["score", "text.csv", "--truth", "text.csv"], 3, "text.csv"),
        (["phantom", "out", "--patients", "0"], 2, "patients"),
    ],
)
def test_what_is_missing_is_named(
    arguments: list[str], code: int, names: str, capsys: pytest.CaptureFixture[str]
) -> None:
    got, message = said(arguments, capsys)
    assert names in message
    assert got == code, message


@pytest.mark.parametrize(
    ("command", "next_command"),
    [
        ("train", "ichtune search"),
        ("leaderboard", "ichtune search"),
        ("stack", "ichtune train"),
        ("blend", "ichtune train"),
    ],
)
def test_a_step_that_was_left_out_is_named(
    command: str, next_command: str, prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    got, message = said([command, "--work", str(prepared)], capsys)
    assert next_command in message
    assert got in (3, 7), message


@pytest.mark.parametrize(
    ("text", "place", "names"),
    [
        (SPACE.replace("lr:", "rl:"), ":3:3: ", "Did you mean 'lr'"),
        (SPACE.replace("tiny_convnet", "tiny_convnt"), ":2:18: ", "tiny_convnet"),
        (SPACE + "  windows: [brain, boen]\n", ":4:20: ", "Did you mean 'bone'"),
        (SPACE + "  optimizer: adamv\n", ":4:14: ", "adamw"),
        (SPACE + "  loss: bec\n", ":4:9: ", "bce"),
        (SPACE + "  augmentation: affin\n", ":4:17: ", "affine"),
        (SPACE + "  lr_schedule: flat_cosin\n", ":4:16: ", "flat_cosine"),
        (SPACE + "search: {algorithm: tpee}\n", "", "tpe"),
        (SPACE + "search: {early_stop: ahsa}\n", "", "asha"),
        (SPACE + "  lr: 3\n", ":4:3: ", "duplicate key 'lr'"),
        (SPACE + "  epochs: [1\n", ":5:1: ", "not YAML"),
    ],
)
def test_a_mistake_in_a_space_names_file_line_column_and_the_nearest(
    text: str, place: str, names: str, prepared: Path, capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    (elsewhere / "mine.yaml").write_text(text)
    got, message = said(["search", "--space", "mine.yaml", "--work", str(prepared)], capsys)
    assert names in message
    assert f"mine.yaml{place}" in message or not place, message
    assert got == 2
