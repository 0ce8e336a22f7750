import functools
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import fedloom
from apps import app
from fedloom.digest import described, digest


def one(params, data, config):
    return params


def other(params, data, config):
    return dict(params)


def torch_model(*objective):
    return fedloom.torch_model(lambda: nn.Linear(2, 2), *objective)


@dataclass(frozen=True)
class Part:
    size: float = 1.0
    path: str = "here"
    partition: int = 3
    inner: object = None


PAIRS = {
    "numbers": (1, 2),
    "a number and its text": (1, "1"),
    "kinds of numbers": (np.int64(3), np.int64(4)),
    "arrays": (np.zeros(3), np.ones(3)),
    "shapes": (np.zeros((2, 3)), np.zeros((3, 2))),
    "fields": (Part(1.0), Part(2.0)),
    "inner parts": (Part(inner=Part(1.0)), Part(inner=Part(2.0))),
    "functions": (one, other),
    "arguments of partials": (functools.partial(one, 1), functools.partial(one, 2)),
    "functions of partials": (functools.partial(one, 1), functools.partial(other, 1)),
    "penalties of models": (fedloom.logistic(3), fedloom.logistic(3, l2=0.1)),
    "sizes of models": (fedloom.logistic(3), fedloom.logistic(4)),
    "losses of a torch model": (torch_model("cross_entropy"), torch_model("binary_cross_entropy")),
    "functions as losses": (torch_model(one), torch_model(other)),
    "functions as metrics": (torch_model("cross_entropy", {"m": one}), torch_model("cross_entropy", {"m": other})),
    "order": ([1, 2], [2, 1]),
    "infinity": (float("inf"), float("-inf")),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_what_differs_has_another_digest(kind):
    a, b = PAIRS[kind]
    assert digest(a) == digest(a)
    assert digest(a) != digest(b)


ALIKE = {
    "where it lies": (Part(path="a"), Part(path="b")),
    "paths": (Path("a"), Path("b")),
    "who holds what": (Part(partition=1), Part(partition=2)),
    "order of keys": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "order of a set": ({"x", "y", "z"}, {"z", "y", "x"}),
    "tuples and lists": ((1, 2), [1, 2]),
    "numbers of NumPy": (np.float64(0.5), 0.5),
    "memory order": (np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3))),
    "devices": (
        fedloom.torch_model(lambda: nn.Linear(2, 2)),
        fedloom.torch_model(lambda: nn.Linear(2, 2), device="cpu"),
    ),
}


@pytest.mark.parametrize("kind", ALIKE)
def test_what_does_not_count_has_the_same(kind):
    a, b = ALIKE[kind]
    assert digest(a) == digest(b)


def test_it_is_json_that_everybody_reads():
    json.dumps(described(app()), allow_nan=False)
    assert described(float("nan")) == "nan"


def test_it_is_the_same_in_every_process():
    code = "from apps import app; print(app().digest)"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    )
    assert told.stdout.strip() == app().digest


CHANGES = (
    {"rounds": 3},
    {"seed": 1},
    {"evaluate_every": 2},
    {"stop": fedloom.Stop(patience=3)},
    {"strategy": fedloom.fedavg(cohort=2)},
    {"strategy": fedloom.fedavg(fedloom.sgd(0.2))},
    {"model": fedloom.BuiltIn(name="logistic", l2=0.1)},
    {"data": fedloom.Data(source=fedloom.SklearnSet("wine"), partition=fedloom.Iid(3))},
    {"data": fedloom.Data(source=fedloom.SklearnSet("breast_cancer"), partition=fedloom.Iid(3), holdout=0.5)},
)


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_every_setting_of_an_app_counts(changes):
    assert app(**changes).digest != app().digest


def test_name_and_partition_of_an_app_do_not():
    data = fedloom.Data(source=fedloom.SklearnSet("breast_cancer"), partition=fedloom.Whole())
    assert app(name="x", data=data).digest == app().digest
