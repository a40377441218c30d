"""The house rules that a machine can hold: mirrors, sizes, depth, words, and nothing that belongs elsewhere."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from ichtune.labels import SUBTYPES

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "ichtune"
MIRRORS = ROOT / "tests" / "unit"
MAX_LINES = 400
MAX_FUNCTION_LINES = 50
MAX_DEPTH = 2
NEEDS_NO_MIRROR = {"__init__.py", "__main__.py", "version.py"}
BANNED_WORDS = {"utils", "util", "helpers", "helper", "misc", "common", "manager"}
#: Names of folders below the root whose files are the project's own text.
TEXT_FOLDERS = (
    "ichtune",
    "tests",
    "search_spaces",
    "ensembles",
    "recipes",
    "docs",
    "deploy",
    "benchmarks",
    ".ci",
    ".github",
)
#: Home and work folders of whatever machine somebody wrote on.
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|Users|root|work|mnt|scratch)/[A-Za-z_.]")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "_shipped" not in path.parts)


def their_tests() -> list[Path]:
    return sorted((ROOT / "tests").rglob("*.py"))


def texts() -> Iterator[Path]:
    suffixes = {".py", ".md", ".yaml", ".yml", ".toml", ".cfg", ".sh", ".html", ".css", ".j2", ".txt", ""}
    for folder in TEXT_FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix in suffixes and not {"__pycache__", ".mypy_cache"} & set(path.parts):
                yield path
    yield from (path for path in ROOT.iterdir() if path.is_file() and path.suffix in suffixes)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def calls_in(path: Path) -> list[tuple[int, str]]:
    return [(node.lineno, ast.unparse(node.func)) for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]


def function_lengths(path: Path) -> list[tuple[str, int]]:
    """Lines of each function's body: an option of the command line with its help is signature, not code."""
    lengths = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            n_lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            lengths.append((f"{relative(path)}:{node.lineno} {node.name}", n_lines))
    return lengths


def test_every_source_has_a_mirror_and_every_mirror_a_source() -> None:
    wanted = {
        path.relative_to(PACKAGE).with_name(f"test_{path.name}")
        for path in sources()
        if path.name not in NEEDS_NO_MIRROR
    }
    found = {path.relative_to(MIRRORS) for path in MIRRORS.rglob("test_*.py")}
    assert sorted(map(str, wanted - found)) == [], "sources without a test in tests/unit"
    assert sorted(map(str, found - wanted)) == [], "tests in tests/unit without a source"


def test_no_file_is_longer_than_the_limit() -> None:
    lengths = {relative(p): len(p.read_text(encoding="utf-8").splitlines()) for p in [*sources(), *their_tests()]}
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}


def test_no_function_is_longer_than_the_limit() -> None:
    lengths = dict(entry for path in sources() for entry in function_lengths(path))
    assert {name: n for name, n in lengths.items() if n > MAX_FUNCTION_LINES} == {}


def test_folders_are_at_most_two_deep() -> None:
    depths = {relative(path): len(path.relative_to(PACKAGE).parts) - 1 for path in sources()}
    assert {name: depth for name, depth in depths.items() if depth > MAX_DEPTH} == {}


@pytest.mark.parametrize("path", sources(), ids=relative)
def test_every_module_says_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(tree_of(path))
    assert docstring, f"{relative(path)} needs a docstring"
    assert docstring.splitlines()[0].endswith((".", ":")) or "\n" in docstring


def test_every_folder_is_a_package_that_says_what_it_is_for() -> None:
    folders = {path.parent for path in sources()}
    assert [relative(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_names_are_words_of_the_field() -> None:
    named = [relative(path) for path in sources() if BANNED_WORDS & set(path.stem.split("_"))]
    assert named == []


def test_only_the_command_line_prints() -> None:
    printed = [
        f"{relative(path)}:{line}"
        for path in sources()
        if PACKAGE / "cli" not in path.parents
        for line, name in calls_in(path)
        if name == "print"
    ]
    assert printed == []


def test_nothing_is_unpickled() -> None:
    """A pickle, and what ``torch.load`` reads, can run code; checkpoints are safetensors."""
    banned = re.compile(r"^(torch\.(load|save)|(c?pickle|dill|joblib|cloudpickle)\.\w+|pd\.read_pickle|eval|exec)$")
    found = [
        f"{relative(path)}:{line} {name}" for path in sources() for line, name in calls_in(path) if banned.match(name)
    ]
    assert found == []
    imports = re.compile(r"^\s*(import|from) (pickle|dill|joblib|shelve|marshal)\b", re.MULTILINE)
    assert [relative(path) for path in sources() if imports.search(path.read_text(encoding="utf-8"))] == []


def test_no_error_is_swallowed_whole() -> None:
    """No bare except, and none of every exception that does nothing."""
    found = [
        f"{relative(path)}:{node.lineno}"
        for path in sources()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
        and (node.type is None or all(isinstance(line, ast.Pass) for line in node.body))
    ]
    assert found == []


def test_the_labels_are_typed_out_once() -> None:
    """A second copy of the label order is a defect waiting for the first one to change."""
    listed = [
        f"{relative(path)}:{node.lineno}"
        for path in sources()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Tuple | ast.List)
        and [e.value for e in node.elts if isinstance(e, ast.Constant) and e.value in SUBTYPES] == list(SUBTYPES)
    ]
    assert [place for place in listed if not place.startswith("ichtune/labels.py")] == []


def test_rows_are_never_split_at_random() -> None:
    """Slices of one patient on both sides of a split leak: folds come from the fold plan only."""
    splitters = re.compile(r"\b(train_test_split|KFold|ShuffleSplit|StratifiedKFold|random_split)\b")
    assert [relative(path) for path in sources() if splitters.search(path.read_text(encoding="utf-8"))] == []


def test_no_file_names_a_folder_of_somebody_s_machine() -> None:
    found = [
        f"{relative(path)}:{number}: {line.strip()}"
        for path in texts()
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert found == []


def test_tests_need_no_package_files() -> None:
    assert [relative(path) for path in their_tests() if path.name == "__init__.py"] == []
