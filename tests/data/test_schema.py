"""Columns and schemas: what they become, and what they refuse."""

import pytest

from fedloom.core.errors import ConfigError
from fedloom.data.schema import Column, Schema, number, plain

AGE = Column("age")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.0", "1"),
        ("-0.0", "0"),
        ("1e3", "1000"),
        ("1_000", "1_000"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("12345678901234567891", "12345678901234567891"),
        ("0.10", "0.1"),
        ("  ", ""),
        ("Ja ", "Ja"),
    ],
)
def test_cells_are_compared_in_their_shortest_form(text: str, expected: str) -> None:
    assert plain(text) == expected
    assert plain(plain(text)) == plain(text)


@pytest.mark.parametrize("text", ["", "nan", "inf", "-Infinity", "1_0", "1,5", "x"])
def test_what_is_no_finite_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"float|finite"):
        number(text)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"kind": "number"}, 'kind must be "numeric" or "categorical"'),
        ({"missing": "other"}, "missing must be one of error, mean, drop"),
        ({"kind": "categorical", "categories": ("a",), "missing": "mean"}, "missing must be one of error, other, drop"),
        ({"kind": "categorical"}, "list its categories"),
        ({"kind": "categorical", "categories": ("1", "1.0")}, "a category is twice"),
        ({"categories": ("1",)}, 'set kind = "categorical"'),
        ({"indicator": True}, 'indicator needs missing = "mean"'),
        ({"unseen": "other"}, 'unseen must be "error" or "ignore"'),
        ({"range": (2, 1)}, "range must be"),
        ({"kind": "categorical", "categories": ("a",), "range": (0, 1)}, "only a numeric column has a range"),
    ],
)
def test_a_column_that_cannot_mean_anything_is_refused(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        Column("bmi", **arguments)  # type: ignore[arg-type]
    assert "'bmi'" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"features": ()}, "no features"),
        ({"features": (AGE, AGE)}, "'age' is there twice"),
        ({"label": "age"}, "is a feature too"),
        ({"task": "ranking"}, "task must be"),
        ({"classes": ("a",)}, "binary needs two classes or above, got 1"),
        ({"classes": ("a", "b", "c")}, "binary needs two classes or above, got 3"),
        ({"classes": ("1", "1.0")}, "a class is twice"),
        ({"positive": "c"}, "positive 'c' is not a class"),
        ({"above": 0.5}, "classes, or above, not both"),
        ({"task": "multiclass", "classes": ("a",)}, "multiclass needs"),
        ({"task": "multiclass", "positive": "a"}, "are for a binary task"),
        ({"task": "regression"}, "regression has no classes"),
        ({"missing": "mean"}, "missing must be"),
    ],
)
def test_a_schema_that_cannot_mean_anything_is_refused(arguments: dict[str, object], sentence: str) -> None:
    sound = {"features": (AGE,), "label": "sick", "classes": ("a", "b")}
    with pytest.raises(ConfigError, match=sentence):
        Schema(**{**sound, **arguments})  # type: ignore[arg-type]


def test_the_positive_class_is_output_1_wherever_it_is_listed() -> None:
    assert Schema((AGE,), "left", classes=("Yes", "No"), positive="Yes").outputs == ("No", "Yes")
    assert Schema((AGE,), "left", classes=("Yes", "No")).outputs == ("Yes", "No")


def test_a_threshold_names_both_of_its_classes() -> None:
    assert Schema((AGE,), "num", above=0).outputs == ("num <= 0", "num > 0")


def test_inputs_follow_the_order_of_the_features() -> None:
    cp = Column("cp", "categorical", ("1.0", "2"), missing="other")
    schema = Schema((cp, AGE, Column("bp", missing="mean", indicator=True)), "y", "regression")
    assert schema.names == ("cp=1", "cp=2", "age", "bp", "bp is missing")
    assert (schema.inputs, schema.outputs, schema.numeric) == (5, (), ("age", "bp"))


def test_measured_inputs_are_those_of_numeric_columns() -> None:
    columns = (Column("x=1"), Column("x", "categorical", ("1", "2")), Column("y", missing="mean", indicator=True))
    schema = Schema(columns, "z", "regression")
    assert [schema.names[at] for at in schema.measured] == ["x=1", "y"]
