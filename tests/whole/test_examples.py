"""Every file in examples/ runs, and says what its comments promise."""

import re
from pathlib import Path

import pytest

from apps import needs_data

pytestmark = [pytest.mark.slow, needs_data]

EXAMPLES = Path(__file__).parents[2] / "examples"
SHORT = {
    "against_the_coordinator.toml": 1,
    "five_keys.toml": 1,
    "mnist.py": 1,
    "churn.toml": 2,
    "mnist_private.toml": 1,
    "xrays_private.py": 1,
}


@pytest.fixture(autouse=True)
def data(monkeypatch):
    from fedloom.data import data_folder

    monkeypatch.setenv("FEDLOOM_DATA", str(data_folder()))


@pytest.mark.parametrize(
    "path", sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".py", ".toml")), ids=lambda path: path.name
)
def test_an_example_runs(command, path):
    told = command("run", path, "--json", "--set", f"rounds={SHORT.get(path.name, 3)}")
    assert told.code == 0, told.err
    end = told.events[-1]
    assert (end["status"], end["rounds"]) == ("completed", SHORT.get(path.name, 3))


def test_the_hospitals_are_the_same_app_in_python_and_in_toml(command):
    ends = [command("run", EXAMPLES / f"hospitals.{kind}", "--json").events[-1] for kind in ("py", "toml")]
    assert ends[0]["sha256"] == ends[1]["sha256"]
    assert ends[0]["metrics"]["auc"] > 0.8


def test_the_hospitals_as_a_script(command, capsys):
    import runpy

    runpy.run_path(str(EXAMPLES / "hospitals.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 20
    assert re.fullmatch(r"round 20: loss 0\.\d{3}, AUC 0\.\d{3}", lines[-1])


def test_five_keys_reach_the_target_and_say_when(command):
    told = command("run", EXAMPLES / "five_keys.toml", "--no-compare")
    assert told.code == 0
    found = re.search(r"target_reached: accuracy 0.95 reached in round (\d+)\n", told.err)
    assert found is not None, told.err
    assert int(found[1]) <= 10


def test_five_keys_with_too_small_a_model_miss_the_target_and_say_so(command):
    told = command("run", EXAMPLES / "five_keys.toml", "--no-compare", "--set", "model=linear")
    assert told.code == 0
    assert re.search(r"completed: accuracy 0.95 not reached, best accuracy 0\.9\d+ in round \d+\n", told.err), told.err
