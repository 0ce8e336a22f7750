"""The doubles of the benchmark of many sites speak the protocol of today."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "many_sites.py"


@pytest.mark.slow
def test_the_benchmark_of_many_sites_runs():
    asked = [sys.executable, SCRIPT, "--idle", "40", "--active", "3", "--rounds", "3"]
    found = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=120).stdout
    assert "in round 3" in found
    row = [line.split("|") for line in found.splitlines() if line.startswith("| ")][-1]
    assert row[1].strip() == "43"
    assert all(float(cell) > 0 for cell in row[3:-1])
