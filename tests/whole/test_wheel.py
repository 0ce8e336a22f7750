"""What is installed is what is here: the wheel, outside the checkout, has all it needs."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel from a copy, so that nothing is left in the checkout."""
    import shutil

    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(copy)]
    subprocess.run(build, check=True, capture_output=True)
    (made,) = out.glob("*.whl")
    return made


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    files = {f"fedloom/{path.relative_to(ROOT / 'src' / 'fedloom').as_posix()}" for path in packaged()}
    assert {name for name in names if ".dist-info/" not in name} == files


def packaged():
    paths = (ROOT / "src" / "fedloom").rglob("*")
    return [path for path in paths if path.is_file() and "__pycache__" not in path.parts]


def test_the_demo_runs_outside_the_checkout(wheel, tmp_path):
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    python = venv / "bin" / "python"
    home = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    ).strip()
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "-q", str(wheel)]
    subprocess.run(pip, check=True)
    # What fedloom depends on comes from here, behind the wheel; the checkout's own link to fedloom does not apply.
    libraries = f"import sys; sys.path.append({sysconfig.get_path('purelib')!r})"
    (Path(home) / "libraries.pth").write_text(libraries)
    told = subprocess.run(
        [venv / "bin" / "fedloom", "demo", "--json"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    *rounds, end = [json.loads(line) for line in told.stdout.splitlines()]
    assert (len(rounds), end["status"]) == (20, "completed")
    where = subprocess.check_output([python, "-c", "import fedloom; print(fedloom.__file__)"], cwd=tmp_path, text=True)
    assert where.strip().startswith(str(venv))
