"""What an app in Python imports from its folder: what its identity names is what runs, and nothing else does."""

import importlib
import inspect
import json
import linecache
import marshal
import os
import py_compile
import sys
import traceback
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType
from zipfile import ZipFile

import numpy as np
import pytest

from apps import written
from fedloom.core.errors import ConfigError
from fedloom.load import load
from fedloom.modules import Modules, _edited
from fedloom.simulation import simulate

PYTHON = """\
{top}
import importlib
from dataclasses import replace

import fedloom


def train(params, data, config):
    {inner}


app = fedloom.App(
    model=fedloom.BuiltIn(name="logistic"),
    data=fedloom.Data(source=fedloom.SklearnSet("breast_cancer"), partition=fedloom.Iid(3)),
    strategy=replace(fedloom.fedavg(), local=fedloom.Custom(function=train)),
    rounds=1,
)
"""
GOOD, EVIL = "def fit():\n    return 'good'\n", "def fit():\n    return 'evil'\n"
HELPER = "import helper", "return helper.fit()"


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for finder in [each for each in sys.meta_path if isinstance(each, Modules)]:
        finder.close()
    for name in ("an_installed_one", "another", "a_late_one", "things", "things.part"):
        sys.modules.pop(name, None)
    assert not {name for name in set(sys.modules) - before if name.split(".")[0] in ("helper", "tools", "space")}


def folder(place, files):
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    return place


def app(place, top="", inner="return 'app'", **files):
    return written(folder(place, files), PYTHON.format(top=top, inner=inner), "app.py")


def identity(path):
    return load(path).identity


def runs(loaded):
    """Return what the app's training function returns."""
    return loaded.app.strategy.local.function({}, None, {})


def refused(path):
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert not any(isinstance(finder, Modules) for finder in sys.meta_path)
    return str(caught.value)


LATE = {
    "a module": ("", "import helper; return helper.fit()", "helper.py"),
    "of a package": ("import tools", "from tools import helper; return helper.fit()", "tools/helper.py"),
    "of a package that nothing else asks for": ("", "import tools.helper as h; return h.fit()", "tools/helper.py"),
    "a name of a module": ("", "from tools.helper import fit; return fit()", "tools/helper.py"),
    "in a namespace": ("", "from space.inner.helper import fit; return fit()", "space/inner/helper.py"),
    "named while the file runs": (
        "import importlib; helper = importlib.import_module('helper')",
        "return helper.fit()",
        "helper.py",
    ),
}


@pytest.mark.parametrize("kind", LATE)
def test_what_a_function_imports_belongs_to_the_app(tmp_path, kind):
    top, inner, name = LATE[kind]
    path = app(tmp_path, top, inner, **{"tools/__init__.py": "", name: GOOD})
    loaded = load(path)
    (tmp_path / name).write_text(EVIL)
    assert runs(loaded) == "good"
    changed = load(path)
    assert (changed.identity != loaded.identity, runs(changed)) == (True, "evil")


def test_what_an_imported_module_imports_later_belongs_to_the_app_too(tmp_path):
    files = {
        "tools/__init__.py": "from .first import *",
        "tools/first.py": "def fit():\n    from . import second\n    return second.fit()\n",
        "tools/second.py": "from .inner.third import fit\n",
        "tools/inner/third.py": "from ..fourth import fit\n",
        "tools/fourth.py": GOOD,
    }
    loaded = load(app(tmp_path, "import tools", "return tools.fit()", **files))
    assert runs(loaded) == "good"
    (tmp_path / "tools" / "fourth.py").write_text(EVIL)
    assert identity(tmp_path / "app.py") != loaded.identity


def test_modules_that_import_one_another(tmp_path):
    files = {"one.py": "import two\n\nx = 1\n", "two.py": "import one\n\ndef fit():\n    return one.x\n"}
    path = app(tmp_path, "import two", "return two.fit()", **files)
    assert runs(load(path)) == 1


def test_a_module_that_imports_the_apps_own_file_adds_nothing(tmp_path):
    path = app(tmp_path, "", "import helper; return helper.train({}, None, {'end': 1})", **{"helper.py": "import app"})
    loaded = load(path)
    (finder,) = [each for each in sys.meta_path if isinstance(each, Modules)]
    assert sorted(each.name for each in finder.files) == ["app.py", "helper.py"]
    assert loaded.app.name == "app"


BY_NAME = ("return importlib.import_module('tools.helper').fit()", "return __import__('tools', fromlist=['helper'])")


@pytest.mark.parametrize("inner", BY_NAME)
def test_what_nobody_named_cannot_be_imported_later(tmp_path, inner):
    loaded = load(app(tmp_path, "import tools", inner, **{"tools/__init__.py": "", "tools/helper.py": GOOD}))
    with pytest.raises(ImportError) as caught:
        runs(loaded)
    assert str(caught.value) == (
        "tools.helper lies beside app.py and is not among what it was loaded with: import it at the top of app.py, so "
        "that an approval covers it."
    )


def test_what_is_not_there_is_not_there(tmp_path):
    loaded = load(app(tmp_path, "", "import nothing_of_that_name"))
    with pytest.raises(ModuleNotFoundError, match="No module named 'nothing_of_that_name'"):
        runs(loaded)


def test_equal_size_and_time_do_not_bring_old_bytecode_back(tmp_path):
    path, helper = app(tmp_path, *HELPER, **{"helper.py": GOOD}), tmp_path / "helper.py"
    os.utime(helper, (1, 1))
    py_compile.compile(str(helper))
    before = load(path)
    helper.write_text(EVIL)
    os.utime(helper, (1, 1))
    after = load(path)
    assert (runs(before), runs(after)) == ("good", "evil")
    assert before.identity != after.identity


@pytest.mark.parametrize("name", ["helper", "app"])
def test_bytecode_that_was_put_there_does_not_run(tmp_path, name):
    path = app(tmp_path, *HELPER, **{"helper.py": GOOD})
    source = tmp_path / f"{name}.py"
    cached = Path(py_compile.compile(str(source)))
    other = compile("raise ValueError('bytecode')", str(source), "exec")
    cached.write_bytes(cached.read_bytes()[:16] + marshal.dumps(other))
    assert runs(load(path)) == "good"


def test_loading_writes_no_bytecode(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    load(app(tmp_path, *HELPER, **{"helper.py": GOOD}))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["app.py", "helper.py"]


def test_two_modules_that_exchange_their_texts_are_another_app(tmp_path):
    path = app(tmp_path, "import helper, other", "return helper.fit()", **{"helper.py": GOOD, "other.py": EVIL})
    before = load(path)
    folder(tmp_path, {"helper.py": EVIL, "other.py": GOOD})
    assert load(path).identity != before.identity


def test_the_same_files_in_another_folder_are_the_same_app(tmp_path):
    files = {"tools/__init__.py": "", "tools/helper.py": GOOD, "space/part.py": "x = 1"}
    text = "import tools.helper\nimport space.part"
    (tmp_path / "link").symlink_to(tmp_path / "one")
    paths = [app(tmp_path / name, text, **files) for name in ("one", "other/place")]
    found = {identity(path) for path in [*paths, tmp_path / "link" / "app.py"]}
    assert len(found) == 1
    os.rename(tmp_path / "one" / "app.py", tmp_path / "one" / "mine.py")
    assert {identity(tmp_path / "one" / "mine.py")} == found


def test_apps_with_modules_of_the_same_name_one_after_the_other(tmp_path):
    late = ("import space.part", "from helper import fit; return fit() + space.part.x")
    one = app(tmp_path / "one", *late, **{"helper.py": GOOD, "space/part.py": "x = '1'"})
    two = app(tmp_path / "two", *late, **{"helper.py": EVIL, "space/part.py": "x = '2'"})
    first = load(one)
    assert runs(first) == "good1"
    assert runs(load(two)) == "evil2"
    again = load(one)
    assert (runs(again), again.identity) == ("good1", first.identity)
    assert sum(isinstance(finder, Modules) for finder in sys.meta_path) == 1


def test_a_syntax_error_in_a_module_is_said_if_it_runs(tmp_path):
    files = {"helper.py": "def fit(:\n"}
    assert "app.py cannot be run: line 1: SyntaxError:" in refused(app(tmp_path, *HELPER, **files))
    loaded = load(app(tmp_path, "", "import helper", **files))
    with pytest.raises(SyntaxError):
        runs(loaded)


def test_source_and_tracebacks_show_what_ran(tmp_path):
    text = "\n\nclass Part:\n    def fit(self):\n        raise ValueError('here')\n"
    path = app(tmp_path, "from helper import Part", "return Part().fit()", **{"helper.py": text})
    loaded = load(path)
    (tmp_path / "helper.py").write_text("# another\n" * 30)
    linecache.checkcache()
    part = loaded.app.strategy.local.function.__globals__["Part"]
    assert inspect.getsource(part) == text.lstrip("\n")
    with pytest.raises(ValueError, match="here") as caught:
        runs(loaded)
    shown = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (shown.filename, shown.lineno, shown.line) == (str(tmp_path / "helper.py"), 5, "raise ValueError('here')")


def test_a_folder_that_the_app_adds_to_the_path_is_part_of_it(tmp_path):
    top = "import sys, pathlib\nsys.path.append(str(pathlib.Path(__file__).parent / 'lib'))\nimport helper"
    path = app(tmp_path, top, "from second import fit; return fit()", **{"lib/helper.py": "", "lib/second.py": GOOD})
    before = load(path)
    assert runs(before) == "good"
    for name in ("helper.py", "second.py"):
        folder(tmp_path, {f"lib/{name}": EVIL})
        assert identity(path) != before.identity
        folder(tmp_path, {"lib/helper.py": "", "lib/second.py": GOOD})
    assert identity(path) == before.identity


def test_what_is_installed_below_the_apps_folder_is_not_part_of_it(tmp_path):
    place = folder(tmp_path / "venv" / "site-packages", {"an_installed_one.py": "x = 1", "another.py": "x = 2"})
    sys.path.append(str(place))
    path = app(tmp_path, "import an_installed_one", "import another; return another.x")
    before = load(path)
    (place / "another.py").write_text("x = 3")
    assert runs(before) == 3
    assert identity(path) == before.identity


def test_a_library_finds_its_own_although_a_file_of_that_name_lies_beside_the_app(tmp_path):
    place = folder(tmp_path / "venv" / "site-packages", {"a_late_one.py": "x = 'of the library'"})
    load(app(tmp_path, **{"a_late_one.py": "x = 'beside the app'"}))
    sys.path.append(str(place))
    assert importlib.import_module("a_late_one").x == "of the library"


def test_a_package_that_is_installed_is_not_looked_for_in_a_folder_of_its_name(tmp_path):
    sys.path.append(str(folder(tmp_path / "site-packages", {"things/__init__.py": "", "things/part.py": "x = 'it'"})))
    path = app(tmp_path, "", "from things import part; return part.x", **{"things/part.py": "x = 'not it'"})
    before = load(path)
    assert runs(before) == "it"
    (tmp_path / "things" / "part.py").write_text("x = 1")
    assert identity(path) == before.identity


def imported(name, folder):
    """Import a module as a script in this folder does."""
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))


def test_what_others_had_imported_stays_but_the_app_has_its_own(tmp_path):
    path = app(tmp_path, *HELPER, **{"helper.py": EVIL, "things/__init__.py": "", "another.py": "x = 1"})
    before = {name: imported(name, tmp_path) for name in ("helper", "things", "another")}
    (tmp_path / "helper.py").write_text(GOOD)
    loaded = load(path)
    assert runs(loaded) == "good"
    assert all(sys.modules[name] is before[name] for name in ("things", "another"))
    assert sys.modules["helper"] is not before["helper"]
    assert load(path).identity == loaded.identity  # nothing of theirs is the app's
    (tmp_path / "app.py").write_text("nothing")
    refused(path)
    assert all(sys.modules.pop(name) is before[name] for name in before)


def test_others_import_from_the_folder_later_and_the_app_does_not(tmp_path):
    text = "import importlib\n\ndef fit():\n    return importlib.import_module('another')\n"
    path = app(tmp_path, *HELPER, **{"helper.py": text, "another.py": "x = 1", "things/part.py": "x = 2"})
    loaded = load(path)
    with pytest.raises(ImportError, match=r"lies beside app\.py and is not among what it was loaded with"):
        runs(loaded)
    another, part = imported("another", tmp_path), imported("things.part", tmp_path)
    assert (another.x, part.x) == (1, 2)
    assert load(path).identity == loaded.identity
    assert sys.modules["another"] is another


def test_nothing_more_comes_into_a_package_of_the_apps_whoever_asks(tmp_path):
    load(app(tmp_path, "import tools", **{"tools/__init__.py": "", "tools/helper.py": GOOD}))
    with pytest.raises(ImportError, match=r"tools\.helper lies beside app\.py"):
        imported("tools.helper", tmp_path)


def test_fedloom_imports_nothing_more_for_the_app(tmp_path, monkeypatch):
    path = app(tmp_path, **{"another.py": "x = 1"})
    load(path)
    code = compile("import another", str(Path(inspect.getfile(Modules)).with_name("engines.py")), "exec")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="another lies beside app"):
        exec(code, {})


def test_compiled_code_may_be_what_imports(tmp_path):
    path, built = app(tmp_path, "", "import helper", **{"another.py": ""}), tmp_path / f"helper{EXTENSION_SUFFIXES[0]}"
    built.write_bytes(b"one")
    load(path)
    with pytest.raises(ImportError, match="another lies beside app"):
        imported("another", tmp_path)


@pytest.mark.parametrize("finds", ["a .pth file", "a finder"])
def test_a_package_that_is_installed_to_be_edited_is_not_part_of_the_app(tmp_path, monkeypatch, finds):
    path = app(tmp_path, "import things", "return things.x", **{"src/things/__init__.py": "x = 1"})
    monkeypatch.syspath_prepend(tmp_path / "src")
    assert (runs(load(path)), runs(load(path))) == (1, 1)
    before = identity(path)
    if finds == "a finder":
        made = sys.modules["__editable___things_finder"] = ModuleType("things")
        made.MAPPING = {"things": str(tmp_path / "src" / "things")}
        monkeypatch.setattr(
            sys, "meta_path", [*sys.meta_path, type("F", (), {"__module__": "__editable___things_finder"})]
        )
    else:
        folder(
            tmp_path / "venv" / "site-packages", {"things.pth": f"# these\nimport sys\n{tmp_path / 'src'}\n{tmp_path}"}
        )
        sys.path.append(str(tmp_path / "venv" / "site-packages"))
    _edited.cache_clear()
    try:
        assert identity(path) != before
        (tmp_path / "src" / "things" / "__init__.py").write_text("x = 3")
        installed = identity(path)
        (tmp_path / "src" / "things" / "__init__.py").write_text("x = 4")
        assert identity(path) == installed
    finally:
        _edited.cache_clear()
        sys.modules.pop("__editable___things_finder", None)


@pytest.mark.parametrize("place", ["", "itself"])
def test_the_identity_is_the_same_wherever_one_stands(tmp_path, monkeypatch, place):
    path = app(tmp_path, "", "import helper", **{"deep/helper.py": GOOD})
    before = identity(path)
    monkeypatch.chdir(tmp_path / "deep")
    sys.path.insert(0, place and str(tmp_path / "deep"))
    assert identity(path) == before


def test_pythons_own_modules_below_the_apps_folder_stay():
    Modules(Path("/app.py")).hide()
    assert {"json", "numpy", "fedloom.load"} <= set(sys.modules)
    assert sys.modules["json"] is json
    assert sys.modules["numpy"] is np


def test_large_folders_beside_the_app_are_not_read(tmp_path, monkeypatch):
    path = app(tmp_path, *HELPER, **{"helper.py": "import data", "data/of/years.py": "x = 1"})
    looked = []
    listdir = importlib._bootstrap_external._os.listdir
    monkeypatch.setattr(importlib._bootstrap_external._os, "listdir", lambda p=".": looked.append(p) or listdir(p))
    load(path)
    assert [Path(each) for each in looked if str(each).startswith(str(tmp_path))] == [tmp_path]


def test_bytecode_alone_and_archives_are_refused(tmp_path):
    path = app(tmp_path, *HELPER, **{"helper.py": GOOD})
    os.rename(py_compile.compile(str(tmp_path / "helper.py")), tmp_path / "helper.pyc")
    (tmp_path / "helper.py").unlink()
    assert "helper.pyc is neither a .py file nor a compiled module, so no approval can cover it" in refused(path)
    (tmp_path / "helper.pyc").unlink()
    with ZipFile(tmp_path / "lib.zip", "w") as archive:
        archive.writestr("helper.py", GOOD)
    path = app(tmp_path, f"import sys\nsys.path.append({str(tmp_path / 'lib.zip')!r})\nimport helper")
    assert "helper.py is neither a .py file nor a compiled module" in refused(path)


def test_a_compiled_module_is_known_by_its_bytes(tmp_path):
    path, built = app(tmp_path, "", "import helper"), tmp_path / f"helper{EXTENSION_SUFFIXES[0]}"
    built.write_bytes(b"one")
    before = load(path)
    built.write_bytes(b"two")
    with pytest.raises(ImportError, match="has changed since the app was loaded"):
        runs(before)
    assert identity(path) != before.identity


def test_code_that_comes_in_by_other_means_is_refused(tmp_path):
    top = (
        "import sys, importlib.util as u\n"
        f"spec = u.spec_from_file_location('helper', {str(tmp_path / 'helper.py')!r})\n"
        "helper = sys.modules['helper'] = u.module_from_spec(spec)\nspec.loader.exec_module(helper)\n"
    )
    said = refused(app(tmp_path, top, **{"helper.py": GOOD}))
    assert said.startswith("app.py loads helper.py by other means than an import statement; import it")


def test_what_the_model_imports_when_it_is_built_belongs_to_the_app(tmp_path):
    text = (
        "import importlib\nimport fedloom\n\n\ndef made(source):\n"
        "    return fedloom.logistic(importlib.import_module('sizes').inputs)\n\n\n"
        "app = fedloom.App(model=made, data=fedloom.Data(source=fedloom.SklearnSet('breast_cancer')))\n"
    )
    path = written(folder(tmp_path, {"sizes.py": "inputs = 30"}), text, "app.py")
    before = identity(path)
    (tmp_path / "sizes.py").write_text("inputs = 30  # still")
    assert identity(path) != before


@pytest.mark.parametrize("engine", ["sequential", "pool"])
def test_engines_train_what_was_taken_in(tmp_path, engine):
    text = "def fit(params):\n    return {name: value + 0.25 for name, value in params.items()}\n"
    loaded = load(app(tmp_path, "", "from helper import fit; return fit(params)", **{"helper.py": text}))
    (tmp_path / "helper.py").write_text("raise ValueError('not this')")
    simulation = simulate(loaded.app, engine=engine)
    try:
        (state,) = simulation.rounds(simulation.first())
    finally:
        simulation.close()
    np.testing.assert_array_equal(state.vector, np.full(31, 0.25, np.float32))
