import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "server.py"


@pytest.mark.slow
def test_the_benchmark_of_the_server_runs():
    found = subprocess.run([sys.executable, SCRIPT, "--quick"], capture_output=True, text=True, check=True).stdout
    rows = [line.split("|") for line in found.splitlines() if line.startswith("| ")]
    assert len(rows) == 22
    assert all(float(row[2]) >= 0 for row in rows if "seconds" not in row[2])
