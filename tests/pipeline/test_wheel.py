"""What `pip install` gives: a wheel that carries the shipped YAML and the report's template, and finds them."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ichtune.shipped import SHIPPED_KINDS, shipped_files

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel's content, unpacked as pip does."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


@pytest.mark.parametrize("kind", SHIPPED_KINDS)
def test_shipped_yaml_is_in_the_wheel_byte_for_byte(installed, kind):
    here = {name: path.read_bytes() for name, path in shipped_files(kind).items()}
    there = {path.stem: path.read_bytes() for path in (installed / "ichtune" / "_shipped" / kind).glob("*.yaml")}

    assert here
    assert there == here


def test_the_installed_package_finds_a_shipped_space_by_name(installed, tmp_path):
    code = "from ichtune.shipped import find_yaml; print(find_yaml('windows.yaml', 'search_spaces'))"
    ran = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(installed)!r}); {code}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    assert ran.returncode == 0, ran.stderr
    assert Path(ran.stdout.strip()) == installed / "ichtune" / "_shipped" / "search_spaces" / "windows.yaml"


def test_files_for_clusters_and_watching_come_along(installed):
    here = {path.name: path.read_bytes() for path in (ROOT / "deploy").iterdir()}
    there = installed / "ichtune" / "_shipped" / "deploy"

    assert here
    assert here == {path.name: path.read_bytes() for path in there.iterdir()}


def test_everything_that_is_not_python_comes_along(installed):
    here = {p.relative_to(ROOT) for p in (ROOT / "ichtune").rglob("*.j2")}

    assert here
    assert all((installed / path).is_file() for path in here)
