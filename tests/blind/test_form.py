"""A form is what rows need and nothing more; what is not one is refused."""

import json

import pytest

import fedloom
from apps import app
from fedloom import Column, Csv, Npz, Parquet, Schema
from fedloom.blind import Form
from fedloom.core.errors import ConfigError, DataError

SCHEMA = Schema(
    (Column("age", missing="mean", indicator=True), Column("cp", "categorical", ("a", "b"))), "y", "regression"
)
STATISTICS = {"age": {"mean": 50.5, "scale": 0.1}}


def of(source, loss="mse"):
    data = fedloom.Data(source=source, partition=fedloom.Iid(3))
    return Form.of(app(data=data), STATISTICS, loss)


@pytest.mark.parametrize(
    "source",
    [Csv("my.csv", SCHEMA, ";", "test.csv"), Parquet("rows", SCHEMA), Npz("x.npz", shape=(2, 2), classes=0, scale=0.5)],
)
def test_it_comes_back_and_names_no_file(source):
    form = of(source)
    assert Form.parsed(form.content()) == form
    assert form.inputs == 4
    assert form.outputs == 1
    assert form.source.path is None
    assert type(form.source) is type(source)
    assert b"my.csv" not in form.content()


def test_outputs_are_of_the_loss_and_the_classes():
    form = of(fedloom.SklearnSet("iris"), "cross_entropy")
    assert (form.inputs, form.outputs) == (4, 3)
    assert form.source.class_names == ("setosa", "versicolor", "virginica")


def test_another_statistic_is_another_form():
    form = of(Csv(None, SCHEMA))
    other = json.loads(form.content())
    other["statistics"]["age"]["mean"] += 1e-9
    assert Form.parsed(json.dumps(other).encode()).digest != form.digest


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        (("loss",), "hinge", "loss"),
        (("csv",), None, "of one source"),
        (("csv", "schema", "features", 0, "kind"), "text", "kind"),
        (("csv", "schema", "features", 0, "more"), 1, "more than a form"),
        (("csv", "delimiter"), ";;", "one character"),
        (("statistics", "age", "mean"), "50", "valid number"),
        (("code",), "rm", "more than a form"),
    ],
)
def test_what_is_no_form_is_refused(path, value, why):
    found = at = json.loads(of(Csv(None, SCHEMA)).content())
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = value
    with pytest.raises(DataError, match=f"no form of `fedloom blind --describe`: .*{why}"):
        Form.parsed(json.dumps(found).encode())


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000])
def test_other_bytes_are_refused(content):
    with pytest.raises(DataError, match="no form"):
        Form.parsed(content)


def test_rows_from_no_file_have_none():
    with pytest.raises(ConfigError, match="come from no file"):
        of(fedloom.Arrays([[1.0], [2.0]], [0, 1], classes=2))
