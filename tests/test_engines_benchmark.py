import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "engines.py"
FASHION = Path("/usr/share/datasets/fashion-mnist")


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *options], capture_output=True, text=True, check=False)


def rows(text: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    return {row[0]: row[1:] for row in cells if row[0]}


@pytest.mark.slow
def test_the_benchmark_of_the_engines_says_what_it_does():
    done = run("--help")
    assert done.returncode == 0
    assert all(option in done.stdout for option in ("--work", "--rounds", "--weighed", "--chunk", "--peers"))


@pytest.mark.slow
def test_an_environment_that_is_none_is_refused(tmp_path):
    done = run("--peers", str(tmp_path))
    assert done.returncode == 1
    assert f"{tmp_path} has no bin/python" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not FASHION.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_every_engine_does_what_the_bare_loop_does():
    done = run("--work", "W3", "--rounds", "1", "--weighed", "1", "--chunk", "7")
    assert done.returncode == 0, done.stderr
    found = rows(done.stdout)
    assert list(found) == ["bare, 2 processes", "sequential", "pool", "vectorized/7"]
    assert "points from" not in done.stdout
    for seconds, bare, _, _, accuracy, off, pss, rss, start, first in found.values():
        assert min(map(float, (seconds, bare, start, first))) > 0
        assert float(accuracy) == pytest.approx(float(found["bare, 2 processes"][4]), abs=1e-3)
        assert float(off) < 1e-5
        assert 0 < float(pss) <= float(rss)
