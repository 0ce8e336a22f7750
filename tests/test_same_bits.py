"""The same app gives the same model, bit for bit: twice in a row, and in a process that hashes strings differently."""

import json
import os
import subprocess
import sys
from hashlib import sha256

import pytest

CHANGED = {"PYTHONHASHSEED": "1"}  # what else a machine is told of its linear algebra decides on bits, and stays

CODE = """
import json
from hashlib import sha256
from inspect import signature
import fedloom
from fedloom.recipes import RECIPES

def run(recipe):
    few = {"concurrency": 4} if recipe in (fedloom.fedbuff, fedloom.fedasync) else {}
    few = {"seeded": True} if "seeded" in signature(recipe).parameters else few
    strategy = recipe(leaves=("bias",)) if recipe is fedloom.fedbn else recipe(**few)
    data = fedloom.Data(source=fedloom.SklearnSet("breast_cancer"), partition=fedloom.Iid(5))
    app = fedloom.App(model=fedloom.BuiltIn(name="logistic"), data=data, strategy=strategy, rounds=3)
    *_, last = app.run()
    assert last.round == 3
    sites = {name: metrics.view() for name, metrics in last.sites.items()}
    figures = json.dumps([last.metrics.view(), sites, last.record.training], sort_keys=True)
    return [sha256(last.vector.tobytes()).hexdigest(), figures]
"""


@pytest.fixture(scope="module")
def elsewhere():
    """What another process found: {recipe: [digest of the vector, figures]}."""
    code = CODE + "print(json.dumps({recipe.__name__: run(recipe) for recipe in RECIPES}))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | CHANGED, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_another_process_and_this_one_agree(elsewhere):
    here = {}
    exec(CODE, here)
    for recipe in here["RECIPES"]:
        first, again = here["run"](recipe), here["run"](recipe)
        assert first == again == elsewhere[recipe.__name__]


def test_recipes_differ(elsewhere):
    digests = [digest for digest, _ in elsewhere.values()]
    assert len(set(digests)) == len(digests)
    assert sha256(b"").hexdigest() not in digests
