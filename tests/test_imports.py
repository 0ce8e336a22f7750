"""The architecture, enforced: who imports whom, what importing costs, and what may not be written at all."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "fedloom"
FILES = sorted(SRC.rglob("*.py"))
AXES = {"local", "select", "stages", "gather", "aggregate", "optimize"}

# What a folder may import besides itself; a new folder joins with one line.
ALLOWED = {
    "core": set(),
    **{axis: {"core"} for axis in AXES},
    "local": {"core", "optimize"},
    "adapters": {"core"},
    "data": {"core"},
    "blind": {"adapters", "app", "core", "data", "store"},
    "store": {"core"},
    "runtime": {"core", "store", "version"},
    "schedule": {"core", *AXES},
    "recipes": {"core", *AXES, "schedule"},
    "stop": {"core"},
    "privacy": {"core", "aggregate", "gather", "local", "schedule", "select", "stages", "store"},
}
FRAMEWORKS = {"torch", "torchvision", "jax", "flax", "tensorflow", "keras", "transformers", "lightning"}
TRANSPORTS = {"socket", "ssl", "http", "urllib", "requests", "grpc", "asyncio", "ray"}
HEAVY = {"torch", "sqlalchemy", "dp_accounting", "matplotlib", "pydantic", "rich", "typer", "sklearn", "safetensors"}
HEAVY |= {"pyarrow", "cryptography"}


def home(path):
    """Return the folder, or the module, that a file belongs to."""
    return path.relative_to(SRC).parts[0].removesuffix(".py")


@cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imported(path):
    """Return (inside, name): fedloom's own parts by their first name below it, others by their top-level name."""
    return set(_imported(path))


def _imported(path):
    depth = len(path.relative_to(SRC).parts)
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((False, alias.name.split(".")[0]) for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            inside = (node.module or "").split(".")[0] == "fedloom"
            yield inside, (node.module.split(".")[1] if inside and "." in node.module else node.module.split(".")[0])
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            yield from (
                (True, name.split(".")[0]) for name in ([node.module] if node.module else [a.name for a in node.names])
            )


def named(path):
    return str(path.relative_to(SRC))


@pytest.mark.parametrize("path", [p for p in FILES if home(p) in ALLOWED], ids=named)
def test_imports_point_one_way(path):
    inside = {name for own, name in imported(path) if own}
    assert inside <= ALLOWED[home(path)] | {home(path)}


@pytest.mark.parametrize("path", [p for p in FILES if home(p) != "runtime"], ids=named)
def test_only_the_runtime_knows_a_transport(path):
    assert not {name for own, name in imported(path) if not own} & TRANSPORTS


@pytest.mark.parametrize("path", [p for p in FILES if home(p) not in {"cli", "__main__"}], ids=named)
def test_nobody_imports_the_command_line(path):
    assert "cli" not in {name for own, name in imported(path) if own}


def test_the_app_knows_neither_runtime_nor_store():
    for name in ("app", "models", "digest", "stop"):
        inside = {name for own, name in imported(SRC / f"{name}.py") if own}
        assert not inside & {"runtime", "store", "report", "cli", "service"}


@pytest.mark.parametrize("path", [p for p in FILES if home(p) == "core"], ids=named)
def test_the_core_needs_numpy_and_the_standard_library(path):
    outside = {name for own, name in imported(path) if not own}
    assert outside <= {"numpy", *sys.stdlib_module_names}


@pytest.mark.parametrize("path", [p for p in FILES if home(p) != "adapters"], ids=named)
def test_only_adapters_import_a_framework(path):
    """scikit-learn also ships data sets, so `data` may name it in `import_module`, where one is asked for."""
    assert not {name for own, name in imported(path) if not own} & (FRAMEWORKS | {"sklearn"})


@pytest.mark.parametrize("path", FILES, ids=named)
def test_what_may_not_be_written(path):
    """No pickle, no eval, no exec, no hash(), no global random generator."""
    outside = {name for own, name in imported(path) if not own}
    assert not outside & {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "random"}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"eval", "exec", "hash", "compile", "__import__"}, f"line {node.lineno}"
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in {"np.random", "numpy.random"}:
            assert node.attr in {"Generator", "Philox", "SeedSequence"}, f"line {node.lineno}: np.random.{node.attr}"


def python(code, **env):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout


def test_importing_loads_nothing_heavy():
    loaded = set(python("import fedloom, sys; print(*sys.modules)").split())
    assert not {name.split(".")[0] for name in loaded} & HEAVY


def test_importing_prints_nothing_and_touches_no_generator():
    code = (
        "import numpy as np; a = np.random.get_state()[1].copy(); import fedloom; "
        "assert (np.random.get_state()[1] == a).all()"
    )
    assert python(code) == ""
