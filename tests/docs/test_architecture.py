"""docs/architecture.md says what the code does: which folders there are, what they import, which tests guard what."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from pages import DOCS

ROOT = DOCS.parent
HOUSE = ROOT / "src" / "fedloom"
TEXT = (DOCS / "architecture.md").read_text()
FOLDERS = {
    row[1]: set() if row[2] == "nothing" else set(row[2].split(", "))
    for row in re.finditer(r"^\| `(\w+)/` \|[^|]*\| ([\w, ]+) \|$", TEXT, re.MULTILINE)
}
FRAMEWORKS = {"torch", "jax", "tensorflow", "sklearn", "transformers"}
NOT_AT_ONCE = {"torch", "sklearn", "sqlalchemy", "pydantic", "typer", "matplotlib", "jinja2", "scipy"}


@cache
def imports(file: Path) -> tuple[set[str], set[str]]:
    """Return the folders of the house that a file imports from, and the libraries outside it."""
    inside, outside = set(), set()
    here = file.relative_to(HOUSE).parts[:-1]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            outside |= {name.name.split(".")[0] for name in node.names}
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            outside.add((node.module or "").split(".")[0])
        if isinstance(node, ast.ImportFrom) and node.level:
            way = [*here[: len(here) - node.level + 1], *(node.module or "").split(".")]
            inside.add(next(part for part in [*way, node.names[0].name] if part))
    return inside, outside - set(sys.stdlib_module_names)


def files(folder: str) -> list[Path]:
    return sorted((HOUSE / folder).rglob("*.py"))


def test_every_folder_and_file_of_the_house_is_in_the_table():
    there = {path.name for path in HOUSE.iterdir() if path.is_dir() and list(path.glob("*.py"))}
    assert set(FOLDERS) == there
    modules = {path.name for path in HOUSE.glob("*.py")} - {"__init__.py", "__main__.py", "version.py"}
    assert modules <= set(re.findall(r"`(\w+\.py)`", TEXT))


@pytest.mark.parametrize("folder", sorted(FOLDERS))
def test_a_folder_imports_what_the_table_says_and_nothing_else(folder):
    found = set().union(*(imports(file)[0] for file in files(folder))) - {folder}
    assert found <= FOLDERS[folder]


def test_core_imports_numpy_and_nothing_else():
    assert set().union(*(imports(file)[1] for file in files("core"))) == {"numpy"}


def test_only_adapters_import_a_framework():
    users = {file.relative_to(HOUSE).parts[0] for file in HOUSE.rglob("*.py") if imports(file)[1] & FRAMEWORKS}
    assert users <= {"adapters"}


def test_importing_loads_nothing_heavy_and_prints_nothing():
    code = "import sys, fedloom; sys.exit(' '.join(sorted(set(sys.argv[1:]) & set(sys.modules))) or 0)"
    done = subprocess.run([sys.executable, "-c", code, *NOT_AT_ONCE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:tests|docs|src)/[\w./]+)`", TEXT))))
def test_a_path_that_the_page_names_exists(path):
    assert (ROOT / path).exists()
